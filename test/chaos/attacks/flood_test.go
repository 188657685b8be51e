package attacks

import (
	"bufio"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"dewey/test/chaos/harness"
)

// A client that sends commands without end and reads nothing is held up, at no cost; when it reads at last, each command
// has its reply, in order. RFC 2449 section 6.6.
func TestPipelinedFlood(t *testing.T) {
	t.Parallel()
	x := besiege(t)
	const messages = 200
	for i := range messages {
		x.put("mrose", fmt.Sprintf("%d.a", i+1), harness.Text(fmt.Sprint(i), 3000))
	}
	n := harness.Some(100_000, 20_000)
	x.figures["commands_each"] = n
	for name, flood := range map[string]struct {
		in      bool
		command string
		reply   string // of one line; each ends in it
	}{
		"CAPA":  {false, "CAPA", "."},
		"NOOP":  {true, "NOOP", "+OK"},
		"wrong": {true, "NOOP x", "-ERR wrong arguments"},
		"UIDL":  {true, "UIDL", "."},
		"TOP":   {true, "TOP 7 0", "."},
	} {
		c := x.must(x.POP3)
		if flood.in {
			_ = c.Close()
			c = x.in()
		}
		commands := n
		if flood.reply == "." {
			commands = n / 20
		}
		_ = c.SetDeadline(time.Now().Add(4 * harness.Patience))
		sent := make(chan error, 1)
		go func() {
			_, err := io.WriteString(c, strings.Repeat(flood.command+"\r\n", commands)+"QUIT\r\n")
			sent <- err
		}()
		polled := x.polled()
		harness.Await(t, "two polls while nobody reads", func() bool { return x.polled() >= polled+2 })
		got, last := 0, ""
		for s := bufio.NewScanner(c.In); s.Scan(); {
			if last = s.Text(); last == flood.reply {
				got++
			}
		}
		if err := <-sent; err != nil || got != commands || !strings.HasPrefix(last, "+OK") {
			t.Errorf("%s: %d replies to %d commands, the last line %q, %v", name, got, commands, last, err)
		}
		_ = c.Close()
	}
	x.end(24, 60)
}

// The same by LMTP: recipients without end too, of which no more are taken than the limit says. RFC 2920.
func TestPipelinedFloodLMTP(t *testing.T) {
	t.Parallel()
	x := besiege(t)
	n := harness.Some(100_000, 20_000)
	x.figures["commands_each"] = n
	for command, want := range map[string]map[string]int{
		"NOOP":                         {"250": n},
		"RCPT TO:<mrose>":              {"250": 100, "452": n - 100},
		"RCPT TO:<nobody@example.org>": {"550": n},
		"MAIL FROM:<>":                 {"503": n},
	} {
		c := x.lmtp()
		if _, err := c.Do("MAIL FROM:<>", "250"); err != nil {
			t.Fatal(err)
		}
		_ = c.SetDeadline(time.Now().Add(4 * harness.Patience))
		sent := make(chan error, 1)
		go func() {
			_, err := io.WriteString(c, strings.Repeat(command+"\r\n", n)+"RSET\r\n")
			sent <- err
		}()
		polled := x.polled()
		harness.Await(t, "two polls while nobody reads", func() bool { return x.polled() >= polled+2 })
		got := map[string]int{}
		for range n {
			l, err := c.In.ReadString('\n')
			if err != nil || len(l) < 4 || l[3] != ' ' {
				t.Fatalf("%s: %q, %v", command, l, err)
			}
			got[l[:3]]++
		}
		if _, err := c.Reply("RSET", "250"); err != nil || <-sent != nil {
			t.Error(err)
		}
		if fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("%s: %v, want %v", command, got, want)
		}
		_ = c.Close()
	}
	x.end(32, n+60) // who is refused is in the log
}

// Slow readers: clients that ask for a large message and take an octet now and then hold little memory, and nobody else up.
// One that goes on reading gets it whole.
func TestSlowReaders(t *testing.T) {
	t.Parallel()
	x := besiege(t, "login.max_per_user=1000")
	readers := harness.Some(100, 20)
	names := []string{"mrose", witness}
	text := harness.Text("large", 4<<20)
	for i := range readers {
		names = append(names, fmt.Sprint("slow", i))
		x.put(names[i+2], "1.a", text)
	}
	harness.AddUsers(t, x.data, names...)
	var slow []*harness.POP3
	for i := range readers {
		c := x.must(x.POP3)
		if err := c.Login(names[i+2]); err != nil {
			t.Fatal(err)
		}
		if err := c.Send("RETR 1"); err != nil {
			t.Fatal(err)
		}
		slow = append(slow, c)
	}
	polled, octet := x.polled(), make([]byte, 1)
	harness.Await(t, "ten polls while they read an octet each", func() bool {
		for _, c := range slow {
			if _, err := c.Conn.Read(octet); err != nil {
				t.Fatal(err)
			}
		}
		return x.polled() >= polled+10
	})
	rest, err := bufio.NewReaderSize(slow[0].Conn, 1<<20), error(nil)
	var got strings.Builder
	for line := ""; line != ".\r\n" && err == nil; got.WriteString(strings.TrimPrefix(line, ".")) {
		line, err = rest.ReadString('\n')
	}
	_, tail, _ := strings.Cut(got.String(), "\r\n") // the first line may have been begun
	if whole := strings.TrimSuffix(tail, "\r\n"); err != nil || len(whole) < len(text)/2 || !strings.HasSuffix(text, whole) {
		t.Errorf("%d octets of what was read slowly are not the message's: %v", got.Len(), err)
	}
	x.figures["readers"], x.figures["message_octets"] = readers, len(text)
	x.end(24+readers/2, 6*readers+20)
}

// Slow writers: an octet at a time, with a pause after each. They get what they ask for, and nobody else has to wait. (That
// such a client is thrown out in the end is shown without waiting for it: pop3server's TestLoginTimeout.)
func TestSlowWriters(t *testing.T) {
	t.Parallel()
	x := besiege(t, "login.max_per_address=1000")
	writers := harness.Some(500, 150)
	const said = "USER nobody\r\nNOOP\r\nCAPA\r\nQUIT\r\n"
	var all []*harness.POP3
	for range writers {
		all = append(all, x.must(x.POP3))
	}
	tick := time.NewTicker(30 * time.Millisecond) // the pause
	defer tick.Stop()
	for i := range said {
		for _, c := range all {
			if _, err := c.Write([]byte{said[i]}); err != nil {
				t.Fatal(err)
			}
		}
		<-tick.C
	}
	for _, c := range all {
		rest, err := io.ReadAll(c.In)
		lines := strings.Split(string(rest), "\r\n")
		if n := len(lines); err != nil || n < 6 || lines[0] != "+OK" || !strings.HasPrefix(lines[1], "-ERR") || lines[n-3] != "." || lines[n-2] != "+OK bye" {
			t.Fatalf("%q, %v", rest, err)
		}
	}
	x.figures["writers"] = writers
	x.end(24, 3*writers+20)
}
