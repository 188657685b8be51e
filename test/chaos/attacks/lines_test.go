package attacks

import (
	"fmt"
	"strings"
	"testing"

	"dewey/test/chaos/harness"
)

// A line without an end takes no memory, and gets one -ERR when it ends: before login, after it, in an exchange, and by
// LMTP. RFC 2449 section 4.
func TestEndlessLines(t *testing.T) {
	t.Parallel()
	x := besiege(t)
	octets := harness.Some(1<<30, 32<<20)
	x.figures["octets_each"] = octets
	for name, begin := range map[string]func() *harness.POP3{
		"before login": func() *harness.POP3 { return x.must(x.POP3) },
		"AUTH": func() *harness.POP3 {
			c := x.must(x.POP3)
			_, _ = c.Write([]byte("AUTH PLAIN "))
			return c
		},
		"in an exchange": func() *harness.POP3 {
			c := x.must(x.POP3)
			if err := c.Send("AUTH PLAIN"); err != nil {
				t.Fatal(err)
			}
			if challenge, err := c.In.ReadString('\n'); challenge != "+ \r\n" {
				t.Fatal(challenge, err)
			}
			return c
		},
		"after login": x.in,
	} {
		c := begin()
		if err := pour(c, "QUIT", octets); err != nil {
			t.Fatal(name, err)
		}
		_, err := c.Do("")
		refused(t, name, err)
		if _, err := c.Do("CAPA"); err != nil { // its lines follow
			t.Errorf("%s: after the line: %v", name, err)
		}
		_ = c.Close()
	}
	c := x.lmtp()
	if err := pour(c, "QUIT", octets); err != nil {
		t.Fatal(err)
	}
	_, err := c.Do("", "250")
	refused(t, "LMTP", err)
	if _, err := c.Do("NOOP", "250"); err != nil {
		t.Error(err)
	}
	x.end(24, 20)
}

// A message whose one line never ends is refused at its end, and takes neither memory nor disk beyond the most that a
// message may have.
func TestEndlessMessage(t *testing.T) {
	t.Parallel()
	x := besiege(t, "lmtp.max_size=4M")
	octets := harness.Some(1<<30, 64<<20)
	x.figures["octets"] = octets
	for _, how := range []string{"DATA", "BDAT"} {
		c := x.lmtp()
		if err := c.Begin("mrose"); err != nil {
			t.Fatal(err)
		}
		var err error
		if how == "DATA" {
			_, err = c.Do("DATA", "354")
		} else {
			_, err = fmt.Fprintf(c, "BDAT %d LAST\r\n", octets)
		}
		if err == nil {
			err = pour(c, "x", octets)
		}
		if err == nil && how == "DATA" {
			_, err = c.Do("\r\n.", "552")
		} else if err == nil {
			_, err = c.Reply(how, "552")
		}
		if err != nil {
			t.Errorf("%s: %v", how, err)
		}
		if _, err := c.Do("NOOP", "250"); err != nil {
			t.Error(err)
		}
	}
	for _, path := range tree(t, x.data+"/mail") {
		if strings.HasPrefix(path, x.data+"/mail/mrose/new/") || strings.HasPrefix(path, x.data+"/mail/mrose/tmp/") {
			t.Errorf("left behind: %s", path)
		}
	}
	x.end(24, 20)
}

// No octet below the blank ends a word or a line, or comes into the log as it is (traps 37 and 41). Nor does a flood of
// NULs take memory.
func TestControlOctets(t *testing.T) {
	t.Parallel()
	x := besiege(t)
	tried := 0
	for c := range 0x80 {
		if c == '\n' || c >= ' ' && c != 0x7f {
			continue
		}
		octet := string(rune(c))
		v := x.must(x.POP3)
		for _, command := range []string{"USER mro" + octet + "se", octet + "CAPA", "AUTH PLAIN" + octet, "USER mrose" + octet + " "} {
			_, err := v.Do(command)
			refused(t, fmt.Sprintf("%q", command), err)
			tried++
		}
		_ = v.Close()
		w := x.lmtp()
		if _, err := w.Do("MAIL FROM:<>", "250"); err != nil {
			t.Fatal(err)
		}
		for _, command := range []string{"RCPT TO:<mro" + octet + "se>", "RCPT TO:<\"mro\\" + octet + "se\"@example.org>", octet + "RSET", "VR" + octet + "FY x"} {
			_, err := w.Do(command, "25")
			refused(t, fmt.Sprintf("LMTP %q", command), err)
			tried++
		}
		_ = w.Close()
	}
	v := x.in()
	for _, command := range []string{"LIST \x00", "RETR 1\x00", "DELE\x001", "UIDL \x7f"} {
		_, err := v.Do(command)
		refused(t, fmt.Sprintf("%q", command), err)
	}
	if err := pour(v, "\x00", harness.Some(1<<30, 32<<20)); err != nil {
		t.Fatal(err)
	}
	_, err := v.Do("")
	refused(t, "NULs", err)
	if _, err := v.Do("NOOP"); err != nil {
		t.Error(err)
	}
	x.figures["lines_refused"] = tried
	x.end(24, 400)
}
