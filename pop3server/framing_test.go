package pop3server_test

import (
	"fmt"
	"io"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"dewey/internal/dotstuff"
	"dewey/pop3server"
)

// awkward are messages that peers have got wrong, as stored, each with what a client must have after
// taking the byte-stuffing away.
var awkward = []struct{ name, stored, sent string }{
	{"empty", "", ""},
	{"only a line end", "\n", "\r\n"},
	{"trap 1: begins with a dot line", ".\r\nSubject: a\r\n\r\nb\r\n", ".\r\nSubject: a\r\n\r\nb\r\n"},
	{"trap 1: begins with a dot", ".Subject: a\n\nb\n", ".Subject: a\r\n\r\nb\r\n"},
	{"trap 3: no last line end", "Subject: a\n\nb", "Subject: a\r\n\r\nb\r\n"},
	{"trap 3: stored with CRLF", "Subject: a\r\n\r\nb\r\n", "Subject: a\r\n\r\nb\r\n"},
	{"trap 4: dot after a bare LF", "Subject: a\n\n.\n..\n.b\n", "Subject: a\r\n\r\n.\r\n..\r\n.b\r\n"},
	{"trap 6: ends in CR", "Subject: a\n\nb\r", "Subject: a\r\n\r\nb\r\r\n"},
	{"trap 6: ends in LF LF", "Subject: a\n\n\n\n", "Subject: a\r\n\r\n\r\n\r\n"},
	{"trap 6: ends in a dot", "Subject: a\n\n.", "Subject: a\r\n\r\n.\r\n"},
	{"trap 7: NUL and 8-bit", "Subject: a\n\n\x00\x00\xff\xfe\x80\n\x00.", "Subject: a\r\n\r\n\x00\x00\xff\xfe\x80\r\n\x00.\r\n"},
	{"trap 8: a line of 200,000 octets", "Subject: a\n\n" + strings.Repeat("x", 200000) + "\nend\n", "Subject: a\r\n\r\n" + strings.Repeat("x", 200000) + "\r\nend\r\n"},
	{"trap 10: CR CR LF", "Subject: a\n\nb\r\r\nc\n", "Subject: a\r\n\r\nb\r\r\nc\r\n"},
	{"lone CRs", "Subject: a\n\n\r.\r\r.\n", "Subject: a\r\n\r\n\r.\r\r.\r\n"},
	{"header alone", "Subject: a\n", "Subject: a\r\n"},
	{"dots over the buffers' ends", "Subject: a\n\n" + strings.Repeat(".\n", 40000), "Subject: a\r\n\r\n" + strings.Repeat(".\r\n", 40000)},
	{"Latin-1 in the header", "Subject: Gr\xfc\xdfe\n\nb\n", "Subject: Gr\xfc\xdfe\r\n\r\nb\r\n"},
}

// RETR and TOP send each awkward message whole, byte-stuffed and ended, of exactly the octets that
// LIST, STAT and RETR announce. RFC 1939 sections 3, 5 and 11; traps 1, 3, 4, 6, 7, 8 and 10.
func TestTrap01Trap03Trap04Trap06Trap07Trap08Trap10Framing(t *testing.T) {
	for _, a := range awkward {
		t.Run(a.name, func(t *testing.T) {
			b := newBench(t, newShelf(a.stored), nil)
			got := b.ask(t, login+"STAT\r\nLIST\r\nLIST 1\r\nRETR 1\r\nTOP 1 99999999\r\nQUIT\r\n")
			n := len(a.sent)
			head := fmt.Sprintf("+OK dewey ready\r\n+OK\r\n+OK 1 message (%d octets)\r\n+OK 1 %d\r\n+OK 1 message (%d octets)\r\n1 %d\r\n.\r\n+OK 1 %d\r\n+OK %d octets\r\n",
				n, n, n, n, n, n)
			rest, ok := strings.CutPrefix(got, head)
			if !ok {
				t.Fatalf("sent %.400q, want it to begin %q", got, head)
			}
			rest, ok = strings.CutSuffix(rest, "+OK bye\r\n")
			if !ok {
				t.Fatalf("no +OK to QUIT: %.200q", rest)
			}
			retr, top, ok := strings.Cut(rest, "\r\n.\r\n+OK top of message follows\r\n")
			if n == 0 { // no line before the one that ends the response
				retr, top, ok = strings.Cut(rest, ".\r\n+OK top of message follows\r\n")
			} else {
				retr += "\r\n"
			}
			if !ok {
				t.Fatalf("no end of RETR: %.200q", rest)
			}
			for what, response := range map[string]string{"RETR": retr + ".\r\n", "TOP": top} {
				m, whole := dotstuff.Unstuff([]byte(response))
				if !whole || string(m) != a.sent {
					t.Errorf("%s: a client has %.200q (whole: %v), want %.200q", what, m, whole, a.sent)
				}
			}
		})
	}
}

// Trap 2: a response that can't be finished is cut off with the connection; it never ends in a dot, and
// nothing is removed. Trap 3: nor does one whose length is another than was announced.
func TestTrap02CutResponse(t *testing.T) {
	for _, fault := range []string{"cut uid1", "short uid1"} {
		for _, command := range []string{"RETR 1", "TOP 1 99999999"} {
			t.Run(fault+" "+command, func(t *testing.T) {
				mail := newShelf(sized(120), sized(200))
				order(t, mail, fault)
				b := newBench(t, mail, nil)
				got := b.ask(t, login+"DELE 2\r\n"+command+"\r\nQUIT\r\n")
				b.end()
				if strings.HasSuffix(got, "\r\n.\r\n") || strings.Contains(got, "bye") {
					t.Errorf("the client takes it for whole: %q", got)
				}
				if mail.gone() != "" {
					t.Errorf("removed %s", mail.gone())
				}
				if !strings.Contains(b.log.String(), "response cut short") {
					t.Errorf("not logged:\n%s", b.log)
				}
			})
		}
	}
}

// A hundred commands in one write and one octet a write give the same responses in the same order. RFC
// 2449 section 6.6; trap 29.
func TestTrap29Pipelining(t *testing.T) {
	var texts, want []string
	input := login
	want = append(want, "+OK dewey ready", "+OK", "")
	total := 0
	for i := range 33 {
		n := 100 + i
		texts = append(texts, sized(n))
		total += n
	}
	want[2] = fmt.Sprintf("+OK 33 messages (%d octets)", total)
	for i := range 33 {
		n := 100 + i
		input += fmt.Sprintf("LIST %d\r\nRETR %d\r\nDELE %d\r\n", i+1, i+1, i+1)
		want = append(want, fmt.Sprintf("+OK %d %d", i+1, n), fmt.Sprintf("+OK %d octets", n), "Subject: a", "",
			strings.Repeat("x", n-16), ".", fmt.Sprintf("+OK message %d deleted", i+1))
	}
	input += "QUIT\r\n"
	want = append(want, "+OK bye", "")

	for _, size := range []int{len(input), 1, 7} {
		mail := newShelf(texts...)
		b := newBench(t, mail, nil)
		c := b.dial("127.0.0.1")
		go func() {
			for rest := input; rest != ""; {
				n := min(size, len(rest))
				_, _ = io.WriteString(c, rest[:n])
				rest = rest[n:]
			}
		}()
		out, err := io.ReadAll(c)
		if err != nil {
			t.Fatal(err)
		}
		if got := string(out); got != strings.Join(want, "\r\n") {
			t.Errorf("%d octets a write: %.300q", size, got)
		}
		b.end()
		if len(mail.removed) != 33 {
			t.Errorf("%d removed", len(mail.removed))
		}
	}
}

// Trap 5: the end of a response is in the same write as what comes before it, and what a client
// pipelines is answered with few writes.
func TestTrap05OneWrite(t *testing.T) {
	mail := newShelf(sized(120), sized(200))
	b := newBench(t, mail, nil)
	c := b.dial("127.0.0.1")
	defer c.Close()
	go func() { _, _ = io.WriteString(c, login+"LIST\r\nUIDL\r\nRETR 1\r\nRETR 2\r\nQUIT\r\n") }()
	buf := make([]byte, 1<<20)
	var writes []string
	for {
		n, err := c.Read(buf) // a pipe: what one write had
		if err != nil {
			break
		}
		writes = append(writes, string(buf[:n]))
	}
	if len(writes) != 3 { // the greeting, +OK to USER while the password is checked, and all the rest
		t.Errorf("%d writes: %q", len(writes), writes)
	}
}

// Trap 35: a RETR may take longer than the autologout time while it makes progress, and the timer
// starts anew after it.
func TestTrap35LongRetrieval(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		mail := newShelf(sized(300000))
		b := newBench(t, mail, nil)
		c := b.dial("127.0.0.1")
		go func() { _, _ = io.WriteString(c, login+"RETR 1\r\n") }()
		start := time.Now()
		got := 0
		buf := make([]byte, 10000)
		for got < 300000 {
			time.Sleep(4 * time.Minute) // less than the write timeout, again and again
			n, err := c.Read(buf)
			if err != nil {
				t.Fatalf("after %v and %d octets: %v", time.Since(start), got, err)
			}
			got += n
		}
		if time.Since(start) < time.Hour {
			t.Errorf("it took only %v", time.Since(start))
		}
		rest := make(chan string)
		go func() { b, _ := io.ReadAll(c); rest <- string(b) }()
		time.Sleep(9*time.Minute + 50*time.Second)
		_, _ = io.WriteString(c, "QUIT\r\n")
		if r := <-rest; !strings.HasSuffix(r, "+OK bye\r\n") {
			t.Errorf("the end was %q", r)
		}
		b.end()
	})
}

// A client that takes nothing of what is sent does not hold a session, and its maildrop, for ever.
func TestWriteWithoutProgress(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		mail := newShelf(sized(300000))
		var ended pop3server.End
		b := newBench(t, mail, func(s *pop3server.Server) {
			s.Hooks.Closed = func(_ pop3server.Session, e pop3server.End) { ended = e }
		})
		c := b.dial("127.0.0.1")
		_, _ = io.CopyN(io.Discard, c, int64(len("+OK dewey ready\r\n")))
		go func() { _, _ = io.WriteString(c, login+"RETR 1\r\n") }()
		time.Sleep(6 * time.Minute)
		synctest.Wait()
		if ended.Err == nil || mail.held {
			t.Errorf("the session goes on: %+v", ended)
		}
		if ended.Retrieved != 0 {
			t.Error("it counts as retrieved")
		}
		b.end()
	})
}
