package lmtp_test

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/emersion/go-smtp"

	"dewey/lmtp"
)

// The trace, line by line: RFC 5321 section 4.4, RFC 6531 section 4.3. A peer on a unix socket has no address.
func TestTrace(t *testing.T) {
	for network, from := range map[string]string{"tcp": `host\.example \(\[127\.0\.0\.1\]\)`, "unix": `host\.example`} {
		b := newBench(t, listen(t, network), nil)
		out := b.ask(t, "LHLO host.example\r\nMAIL FROM:<\"a \\\"b\"@c> SMTPUTF8\r\nRCPT TO:<\"ann\"@d>\r\nRCPT TO:<ü@d>\r\nBDAT 24 LAST\r\nReturn-Path: <old>\r\n\r\nx\nMAIL FROM:<>\r\nRCPT TO:<ann>\r\nDATA\r\n.\r\nQUIT\r\n")
		if got := codes(out); got != "220 250 250 250 250 250 250 250 250 354 250 221" {
			t.Fatalf("%s\n%s", got, out)
		}
		date := `(Mon|Tue|Wed|Thu|Fri|Sat|Sun), \d\d (Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec) \d{4} \d\d:\d\d:\d\d [+-]\d{4}`
		for _, c := range []struct {
			owner       string
			n           int
			path, to    string
			with, after string
		}{
			{"ann", 0, `<"a \\"b"@c>`, `ann@d`, "UTF8LMTP", "Return-Path: <old>\r\n\r\nx\n"},
			{"ü", 0, `<"a \\"b"@c>`, `ü@d`, "UTF8LMTP", "Return-Path: <old>\r\n\r\nx\n"},
			{"ann", 1, `<>`, `ann`, "LMTP", ""},
		} {
			re := regexp.MustCompile(`^Return-Path: ` + c.path + `\r\nDelivered-To: ` + c.to + `\r\nReceived: from ` + from +
				`\r\n\tby mx\.test \(dewey\) with ` + c.with + ` id [0-9a-z.]+\r\n\tfor <` + c.to + `>;\r\n\t` + date + "\r\n" + regexp.QuoteMeta(c.after) + `$`)
			mail := b.box.got(c.owner)
			if len(mail) <= c.n || !re.MatchString(mail[c.n]) {
				t.Errorf("%s: %q does not match %s", c.owner, mail, re)
			}
		}
		b.end()
	}
}

// Trap 41: nothing that a client says begins a line of its own, however it is dressed up.
func TestTrap41Trace(t *testing.T) {
	b := newBench(t, listen(t, "tcp"), nil)
	bad := []string{"\r", "\n", "\x00", "\x1b", "\u0085", "\u2028", "\x7f", "\xff", "\t"}
	for _, c := range bad {
		out := b.ask(t, "LHLO a"+c+"b\r\nLHLO [1"+c+"]\r\nLHLO x\r\nMAIL FROM:<a"+c+"@b> SMTPUTF8\r\nMAIL FROM:<\"a"+c+"\"@b> SMTPUTF8\r\nMAIL FROM:<\"a\\"+c+"\"@b> SMTPUTF8\r\n"+
			"MAIL FROM:<a@b"+c+"> SMTPUTF8\r\nMAIL FROM:<> SMTPUTF8\r\nRCPT TO:<\"a"+c+"X: y\"@b>\r\nRCPT TO:<a@b"+c+">\r\nDATA\r\n")
		if strings.Contains(out, "2.1.5") || strings.Contains(out, "354") || strings.Contains(out, "421") && !strings.Contains(out, "too many lines") {
			t.Errorf("%q: %q", c, out)
		}
		if strings.ContainsAny(strings.ReplaceAll(out, "\r\n", ""), strings.Join(bad[:4], "")) {
			t.Errorf("%q is in the replies: %q", c, out)
		}
	}
}

// go-smtp's client, over TCP and over a unix socket.
func TestGoSMTPClient(t *testing.T) {
	for _, network := range []string{"tcp", "unix"} {
		b := newBench(t, listen(t, network), nil)
		c := smtp.NewClientLMTP(b.dial(t))
		if err := c.Hello("client.example"); err != nil {
			t.Fatal(err)
		}
		if err := c.Mail("a@b", &smtp.MailOptions{Size: 10, Body: smtp.Body8BitMIME}); err != nil {
			t.Fatal(err)
		}
		var refused *smtp.SMTPError
		if err := c.Rcpt("nobody@d", nil); !errors.As(err, &refused) || refused.Code != 550 || refused.EnhancedCode != (smtp.EnhancedCode{5, 1, 1}) {
			t.Error(err)
		}
		b.box.fault("commit", "bob", "full")
		for _, to := range []string{"ann@d", "bob@d"} {
			if err := c.Rcpt(to, nil); err != nil {
				t.Fatal(err)
			}
		}
		w, err := c.Data()
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprint(w, "Subject: x\r\n\r\n.dot\r\n..\r\n.\r\n")
		replies, err := w.CloseWithLMTPResponse()
		var each smtp.LMTPDataError
		if !errors.As(err, &each) || len(each) != 1 || each["bob@d"] == nil || each["bob@d"].Code != 552 || len(replies) != 1 || replies["ann@d"] == nil {
			t.Errorf("%v, %v", replies, err)
		}
		if err := c.Quit(); err != nil {
			t.Error(err)
		}
		if got := b.box.got("ann"); len(got) != 1 || content(t, got[0]) != "Subject: x\r\n\r\n.dot\r\n..\r\n.\r\n" {
			t.Errorf("%q", got)
		}
		b.end()
	}
}

// swaks, a tester of mail servers, over TCP with PIPELINING and over a unix socket.
func TestSwaks(t *testing.T) {
	swaks, err := exec.LookPath("swaks")
	if err != nil {
		t.Fatal("swaks is missing: apt-get install swaks")
	}
	body := filepath.Join(t.TempDir(), "mail")
	if err := os.WriteFile(body, []byte("Subject: hello\n\n.begins with a dot\n.\nend\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, network := range []string{"tcp", "unix"} {
		b := newBench(t, listen(t, network), nil)
		at := []string{"--socket", b.addr.String()}
		if a, ok := b.addr.(*net.TCPAddr); ok {
			at = []string{"--server", "127.0.0.1", "--port", fmt.Sprint(a.Port), "--pipeline"}
		}
		out, err := exec.Command(swaks, append(at, "--protocol", "LMTP", "--helo", "swaks.example", "--from", "a@b", "--to", "ann@d,bob@d", "--data", "@"+body)...).CombinedOutput()
		if err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		for _, owner := range []string{"ann", "bob"} {
			if got := b.box.got(owner); len(got) != 1 || !strings.HasPrefix(content(t, got[0]), "Subject: hello\r\n\r\n.begins with a dot\r\n.\r\nend\r\n") {
				t.Errorf("%s has %q\n%s", owner, got, out)
			}
		}
		b.end()
	}
}

// 200 senders at once, ten messages each for two recipients.
func TestConcurrentSenders(t *testing.T) {
	const senders, messages = 200, 10
	b := newBench(t, listen(t, "unix"), nil)
	var wg sync.WaitGroup
	for i := range senders {
		wg.Go(func() {
			c := smtp.NewClientLMTP(b.dial(t))
			c.SubmissionTimeout, c.CommandTimeout = time.Minute, time.Minute
			for k := range messages {
				if err := c.SendMail("a@b", []string{fmt.Sprintf("u%d@d", i), "all@d"}, strings.NewReader(fmt.Sprintf("%d %d\r\n", i, k))); err != nil {
					t.Error(err)
					return
				}
				if err := c.Reset(); err != nil {
					t.Error(err)
				}
			}
			if err := c.Quit(); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	for i := range senders {
		mail := b.box.got(fmt.Sprintf("u%d", i))
		if len(mail) != messages {
			t.Fatalf("%d: %d messages", i, len(mail))
		}
		for k, m := range mail {
			if want := fmt.Sprintf("%d %d\r\n", i, k); content(t, m) != want {
				t.Errorf("%q, want %q", content(t, m), want)
			}
		}
	}
	if n := len(b.box.got("all")); n != senders*messages {
		t.Errorf("%d of %d messages", n, senders*messages)
	}
	ids := make(map[string]bool)
	for _, m := range b.box.got("all") {
		ids[regexp.MustCompile(` id (\S+)`).FindString(m)] = true
	}
	if len(ids) != senders*messages {
		t.Errorf("%d ids", len(ids))
	}
}

// Delivered tells of each copy, whatever became of it.
func TestDelivered(t *testing.T) {
	var mu sync.Mutex
	var all []string
	b := newBench(t, listen(t, "tcp"), func(s *lmtp.Server) {
		s.Delivered = func(d lmtp.Delivery) {
			mu.Lock()
			defer mu.Unlock()
			if d.ID == "" || d.From != "a@b" || d.Octets != 3 {
				t.Errorf("%+v", d)
			}
			all = append(all, fmt.Sprintf("%s %s %v", d.Address, d.Owner.Name, d.Err == nil))
		}
	})
	b.box.fault("commit", "bob", "io")
	b.ask(t, "LHLO x\r\nMAIL FROM:<a@b>\r\nRCPT TO:<team@d>\r\nRCPT TO:<dan@d>\r\nRCPT TO:<dan@d>\r\nRCPT TO:<nobody@d>\r\nBDAT 3 LAST\r\nx\r\nQUIT\r\n")
	mu.Lock()
	defer mu.Unlock()
	if got := strings.Join(all, ", "); got != "team@d ann true, team@d bob false, team@d cid false, dan@d dan true" {
		t.Error(got)
	}
}

// However long what a client says may be, no line of the trace is too long for RFC 5322 section 2.1.1.
func TestTraceLines(t *testing.T) {
	b := newBench(t, listen(t, "tcp"), nil)
	quotes := `"` + strings.Repeat(`\"`, 150) + `"@d`
	for _, address := range []string{quotes, `"` + strings.Repeat(`(`, 400) + `"@d`, strings.Repeat("x", 190) + "@" + strings.Repeat("y.", 127), strings.Repeat("x", 440)} {
		out := b.ask(t, "LHLO "+strings.Repeat("z", 255)+"\r\nMAIL FROM:<"+address+">\r\nRCPT TO:<"+address+">\r\nBDAT 0 LAST\r\nQUIT\r\n")
		if codes(out) != "220 250 250 250 250 221" {
			t.Errorf("%q: %s", address, out)
		}
	}
	if out := b.ask(t, "LHLO "+strings.Repeat("z", 256)+"\r\nLHLO x\r\nMAIL FROM:<"+strings.Repeat("x", 451)+"@d>\r\nQUIT\r\n"); codes(out) != "220 501 250 501 221" {
		t.Error(out)
	}
	b.end()
	n := 0
	for _, mail := range b.box.mail {
		for line := range strings.Lines(mail[0]) {
			if n++; len(line) > 1000 {
				t.Errorf("%d octets: %q", len(line), line)
			}
		}
	}
	if n != 4*6 {
		t.Errorf("%d lines", n)
	}
}
