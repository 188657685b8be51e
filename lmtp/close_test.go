package lmtp_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"dewey/lmtp"
)

// say sends and reads until a line begins with want.
func say(t *testing.T, c net.Conn, in *bufio.Reader, send, want string) {
	t.Helper()
	if send != "" {
		if _, err := io.WriteString(c, send); err != nil {
			t.Fatal(err)
		}
	}
	for {
		line, err := in.ReadString('\n')
		if err != nil {
			t.Fatalf("%v in the place of %s", err, want)
		}
		if strings.HasPrefix(line, want) {
			return
		}
	}
}

// Messages with and without a Message-ID.
const (
	identified = "BDAT 24 LAST\r\nMessage-ID: <1@x>\r\n\r\nx\r\n"
	anonymous  = "BDAT 14 LAST\r\nSubject: x\r\n\r\n"
)

const envelope = "LHLO x\r\nMAIL FROM:<a@b>\r\nRCPT TO:<ann@d>\r\n"

// Shutdown sends idle clients away with 421 and lets a message come to its end. RFC 5321 section 3.8.
func TestShutdown(t *testing.T) {
	b := newBench(t, listen(t, "tcp"), nil)
	idle, busy := b.dial(t), b.dial(t)
	idleIn, busyIn := bufio.NewReader(idle), bufio.NewReader(busy)
	say(t, idle, idleIn, "LHLO x\r\n", "250 ")
	say(t, busy, busyIn, envelope, "250 2.1.5")
	done := make(chan error, 1)
	go func() { done <- b.srv.Shutdown(context.Background()) }()
	if rest, err := io.ReadAll(idleIn); err != nil || string(rest) != "421 4.3.2 going down\r\n" {
		t.Errorf("%q, %v", rest, err)
	}
	idle.Close()
	select {
	case err := <-done:
		t.Fatalf("Shutdown did not wait: %v", err)
	default:
	}
	if _, err := net.Dial(b.addr.Network(), b.addr.String()); err == nil {
		t.Error("a new connection was accepted")
	}
	say(t, busy, busyIn, "RCPT TO:<bob@d>\r\n", "250 2.1.5")
	say(t, busy, busyIn, "DATA\r\nx\r\n", "354")
	say(t, busy, busyIn, "y\r\n.\r\n", "250 2.0.0")
	say(t, busy, busyIn, "", "250 2.0.0")
	if rest, err := io.ReadAll(busyIn); err != nil || string(rest) != "421 4.3.2 going down\r\n" {
		t.Errorf("%q, %v", rest, err)
	}
	busy.Close()
	if err := <-done; err != nil {
		t.Error(err)
	}
	if got := b.box.got("ann"); len(got) != 1 || content(t, got[0]) != "x\r\ny\r\n" {
		t.Errorf("%q", got)
	}
	if err := b.srv.Serve(listen(t, "tcp")); !errors.Is(err, lmtp.ErrServerClosed) {
		t.Error(err)
	}
}

// Trap 53: Close after a Shutdown that ran out of time closes all connections; nothing of a message that is
// half there is delivered, and what was held is discarded.
func TestTrap53CloseAfterShutdown(t *testing.T) {
	for name, begin := range map[string]string{"DATA": "DATA\r\nx\r\n", "BDAT": "BDAT 5\r\n12", "RCPT": ""} {
		b := newBench(t, listen(t, "unix"), nil)
		c := b.dial(t)
		in := bufio.NewReader(c)
		say(t, c, in, envelope, "250 2.1.5")
		if _, err := io.WriteString(c, begin); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(context.Background(), time.Millisecond)
		if err := b.srv.Shutdown(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%s: %v", name, err)
		}
		cancel()
		b.end()
		if _, err := io.ReadAll(in); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if len(b.box.mail) > 0 {
			t.Errorf("%s: %q", name, b.box.mail)
		}
	}
}

// Close waits for what is being committed, however long that takes, and the client reads its reply.
func TestCloseWaitsForCommit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, newPipes(), nil)
		b.box.hold = func(step, _ string) {
			if step == "commit" {
				time.Sleep(time.Hour)
			}
		}
		c := b.pipe.dial()
		in := bufio.NewReader(c)
		say(t, c, in, "", "220")
		say(t, c, in, envelope, "250 2.1.5")
		if _, err := io.WriteString(c, "BDAT 3 LAST\r\nx\r\n"); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		began := time.Now()
		done := make(chan error, 1)
		go func() { done <- b.srv.Close() }()
		time.Sleep(time.Hour + time.Second/2) // the reply waits for its reader
		synctest.Wait()
		say(t, c, in, "", "250 2.0.0")
		say(t, c, in, "", "421")
		if err := <-done; err != nil || time.Since(began) < time.Hour {
			t.Error(err, time.Since(began))
		}
		if len(b.box.got("ann")) != 1 {
			t.Error("not delivered")
		}
		c.Close()
	})
}

// Close gives the replies to what was committed before it a second.
func TestCloseWaitsForReply(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, newPipes(), nil)
		c := b.pipe.dial()
		in := bufio.NewReader(c)
		say(t, c, in, "", "220")
		say(t, c, in, envelope, "250 2.1.5")
		if _, err := io.WriteString(c, "BDAT 3 LAST\r\nx\r\n"); err != nil {
			t.Fatal(err)
		}
		synctest.Wait() // it is committed, and the reply waits for a reader
		go b.end()
		time.Sleep(time.Second / 2)
		say(t, c, in, "", "250 2.0.0")
		c.Close()
	})
}

// Close once Write is under way: nothing is committed, although the message came whole.
func TestCloseBeforeCommit(t *testing.T) {
	b := newBench(t, listen(t, "tcp"), nil)
	reached, release := make(chan struct{}), make(chan struct{})
	var once sync.Once
	b.box.hold = func(step, _ string) {
		if step == "write" {
			once.Do(func() { close(reached); <-release })
		}
	}
	c := b.dial(t)
	say(t, c, bufio.NewReader(c), envelope, "250 2.1.5")
	if _, err := io.WriteString(c, "BDAT 3 LAST\r\nx\r\n"); err != nil {
		t.Fatal(err)
	}
	<-reached
	done := make(chan error, 1)
	go func() { done <- b.srv.Close() }()
	if _, err := io.ReadAll(c); err != nil { // it is closed under the client
		t.Log(err)
	}
	close(release)
	if err := <-done; err != nil {
		t.Error(err)
	}
	b.end()
	if b.box.commits != 0 {
		t.Error("committed after Close")
	}
}

// A client that takes no replies does not keep the server.
func TestStuckClient(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, newPipes(), nil)
		c := b.pipe.dial() // a pipe has no buffer: not even the greeting goes out
		time.Sleep(6 * time.Minute)
		synctest.Wait()
		if _, err := c.Write([]byte("NOOP\r\n")); err == nil {
			t.Error("the connection is open")
		}
		c = b.pipe.dial()
		synctest.Wait()
		b.end() // at once
		c.Close()
	})
}

// Beyond MaxConnections a client is told and sent away; Reconfigure changes that for all.
func TestMaxConnections(t *testing.T) {
	b := newBench(t, listen(t, "tcp"), func(s *lmtp.Server) { s.Settings.MaxConnections = 1 })
	first := b.dial(t)
	in := bufio.NewReader(first)
	say(t, first, in, "LHLO x\r\n", "250 ")
	if out := b.ask(t, ""); out != "421 4.3.2 too many connections\r\n" {
		t.Errorf("%q", out)
	}
	if err := b.srv.Reconfigure(lmtp.Settings{MaxConnections: 2, MaxSize: -1}); err == nil {
		t.Error("a negative bound")
	}
	if err := b.srv.Reconfigure(lmtp.Settings{MaxConnections: 2, Hostname: "other.test"}); err != nil {
		t.Error(err)
	}
	if out := b.ask(t, "QUIT\r\n"); out != "220 other.test LMTP dewey ready\r\n221 2.0.0 bye\r\n" {
		t.Errorf("%q", out)
	}
	say(t, first, in, "QUIT\r\n", "221")
	if _, err := io.ReadAll(in); err != nil {
		t.Error(err)
	}
	first.Close()
}

// RFC 5321 section 4.5.3.1.10: the sender tries the others in a transaction of their own. An address of many
// owners is taken alone at least.
func TestMaxRecipients(t *testing.T) {
	b := newBench(t, listen(t, "unix"), nil)
	in := "LHLO x\r\nMAIL FROM:<>\r\n"
	for i := range 102 {
		in += fmt.Sprintf("RCPT TO:<u%d@d>\r\n", i)
	}
	out := b.ask(t, in+"BDAT 1 LAST\r\nxMAIL FROM:<>\r\nRCPT TO:<u101@d>\r\nRCPT TO:<crowd@d>\r\nRCPT TO:<crowd@e>\r\nBDAT 0 LAST\r\nQUIT\r\n")
	want := "220 250 250" + strings.Repeat(" 250", 100) + " 452 452" + strings.Repeat(" 250", 100) + " 250 250 250 452 250 250 221"
	if codes(out) != want || strings.Count(out, "452 4.5.3 ") != 3 {
		t.Error(out)
	}
	b.end()
	if b.box.commits != 100+1+700 {
		t.Error(b.box.commits)
	}
}

func TestSettings(t *testing.T) {
	for _, s := range []lmtp.Settings{
		{Hostname: "a b"},
		{Hostname: "a\r\n"},
		{MaxSize: -1},
		{MaxConnections: -1},
		{MaxRecipients: 99},
		{Timeout: time.Minute},
		{DataTimeout: time.Minute},
		{DataTimeout: 11 * time.Minute},
	} {
		srv := &lmtp.Server{Recipients: recipients, Mail: newBox(), Settings: s}
		if err := srv.Serve(newPipes()); err == nil || errors.Is(err, lmtp.ErrServerClosed) {
			t.Errorf("%+v: %v", s, err)
		}
	}
	if err := (&lmtp.Server{}).Serve(newPipes()); err == nil {
		t.Error("a Server of nothing")
	}
	srv := &lmtp.Server{Recipients: recipients, Mail: newBox()}
	l := listen(t, "tcp")
	l.Close()
	if err := srv.Serve(l); !errors.Is(err, net.ErrClosed) {
		t.Error(err)
	}
}

// Who has a message does not get it again when the sender tries again: after a part of an alias failed, and
// after the connection broke before the replies had gone out. After QUIT the same octets are another message.
func TestRetry(t *testing.T) {
	b := newBench(t, listen(t, "tcp"), nil)
	const team = "LHLO x\r\nMAIL FROM:<a@b>\r\nRCPT TO:<team@d>\r\n" + identified + "QUIT\r\n"
	count := func() string {
		return fmt.Sprintf("%d %d %d", len(b.box.got("ann")), len(b.box.got("bob")), len(b.box.got("cid")))
	}
	other := strings.Replace(team, "1@x", "2@x", 1)
	cron := strings.Replace(team, "Message-ID", "Message-NO", 1)
	for _, c := range []struct{ fault, in, codes, count string }{
		{"write bob io", team, "451", "0 0 0"},
		{"commit ann io", team, "451", "0 0 0"},
		{"commit bob io", team, "451", "1 0 0"},
		{"commit cid full", team, "552", "1 1 0"},
		{"", team, "250", "1 1 1"},
		{"", team, "250", "2 2 2"}, // the retry is over
		{"", other, "250", "3 3 3"},
		{"", other, "250", "4 4 4"},
		{"commit cid io", cron, "451", "5 5 4"},
		{"", cron, "250", "6 6 5"}, // twice rather than never
	} {
		step, owner, _ := strings.Cut(c.fault, " ")
		owner, kind, _ := strings.Cut(owner, " ")
		b.box.fault(step, owner, kind)
		if out := b.ask(t, c.in); codes(out) != "220 250 250 250 "+c.codes+" 221" || count() != c.count {
			t.Errorf("%s: %s, mail %s\n%s", c.fault, codes(out), count(), out)
		}
		b.box.fault(step, owner, "")
	}
}

// Within a day, and with a Message-ID: what is like another message without one is another message.
func TestRetryAfterLostReply(t *testing.T) {
	for _, c := range []struct {
		message string
		pause   time.Duration
		want    int
	}{
		{identified, 0, 1},
		{identified, 6 * time.Hour, 1}, // Exim's longest pause
		{identified, 25 * time.Hour, 3},
		{anonymous, 0, 3},
		{anonymous, 6 * time.Hour, 3},
	} {
		synctest.Test(t, func(t *testing.T) {
			b := newBench(t, newPipes(), nil)
			for range 3 {
				conn := b.pipe.dial()
				in := bufio.NewReader(conn)
				say(t, conn, in, "", "220")
				say(t, conn, in, "LHLO x\r\n", "250 ")
				say(t, conn, in, "MAIL FROM:<a@b>\r\n", "250 ")
				say(t, conn, in, "RCPT TO:<ann@d>\r\n", "250 ")
				if _, err := io.WriteString(conn, c.message); err != nil {
					t.Fatal(err)
				}
				synctest.Wait() // it is committed, and the reply waits for a reader
				conn.Close()
				synctest.Wait()
				time.Sleep(c.pause) // in the bubble's time
			}
			if n := len(b.box.got("ann")); n != c.want {
				t.Errorf("%d messages of %q, %v apart, want %d", n, c.message, c.pause, c.want)
			}
		})
	}
}

// Who has shown that he read the replies and then falls silent sends another message, if it has the same octets.
func TestRetryAfterSilence(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, newPipes(), nil)
		for i, c := range []struct {
			last string
			want int
		}{{"NOOP\r\n", 1}, {"NOOP\r\n", 2}, {"", 3}, {"", 3}} {
			conn := b.pipe.dial()
			in := bufio.NewReader(conn)
			say(t, conn, in, "", "220")
			say(t, conn, in, envelope, "250 2.1.5")
			say(t, conn, in, identified, "250 2.0.0 delivered")
			if c.last != "" {
				say(t, conn, in, c.last, "250 2.0.0 ok")
			}
			say(t, conn, in, "", "421")
			conn.Close()
			synctest.Wait()
			if n := len(b.box.got("ann")); n != c.want {
				t.Errorf("%d: %d messages, want %d", i, n, c.want)
			}
		}
	})
}

// Who waits for replies before he sends the chunk that he announced gets them. RFC 2920.
func TestRepliesBeforeChunk(t *testing.T) {
	b := newBench(t, listen(t, "tcp"), nil)
	c := b.dial(t)
	in := bufio.NewReader(c)
	say(t, c, in, envelope+"BDAT 3 LAST\r\nx", "250 2.1.5")
	say(t, c, in, "\r\n", "250 2.0.0")
	say(t, c, in, "QUIT\r\n", "221")
}

// Trap 36: a line of 4096 octets is a command, a longer one is none, and its tail is no other.
func TestTrap36LongLines(t *testing.T) {
	b := newBench(t, listen(t, "tcp"), nil)
	noop := func(n int) string { return "NOOP " + strings.Repeat("x", n-7) + "\r\n" }
	out := b.ask(t, noop(4096)+noop(4097)+noop(16<<10)+noop(16<<10+1)+noop(40<<10)+strings.Repeat("QUIT ", 4000)+"\r\nQUIT\r\n")
	if codes(out) != "220 250 500 500 500 500 500 221" {
		t.Error(out)
	}
}
