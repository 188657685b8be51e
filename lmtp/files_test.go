package lmtp_test

import (
	"bufio"
	"io"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"dewey/lmtp"
)

// Nothing is written, and so no file opened, for a client that names recipients, or begins a short message, and then
// takes its time: neither with DATA nor with BDAT.
func TestSlowSenderOpensNothing(t *testing.T) {
	for name, begin := range map[string]string{"DATA": "DATA\r\nSubject: x\r\n", "BDAT": "BDAT 14 LAST\r\nSubject: x\r\n"} {
		synctest.Test(t, func(t *testing.T) {
			b := newBench(t, newPipes(), func(s *lmtp.Server) { s.Settings.DataTimeout = 10 * time.Minute })
			var writes atomic.Int32
			b.box.hold = func(step, _ string) {
				if step == "write" {
					writes.Add(1)
				}
			}
			c := b.pipe.dial()
			in := bufio.NewReader(c)
			say(t, c, in, "", "220")
			say(t, c, in, "LHLO x\r\n", "250 ")
			say(t, c, in, "MAIL FROM:<a@b>\r\n", "250 ")
			say(t, c, in, "RCPT TO:<ann@d>\r\n", "250 ")
			if name == "DATA" {
				say(t, c, in, "DATA\r\n", "354")
				begin = begin[len("DATA\r\n"):]
			}
			if _, err := io.WriteString(c, begin); err != nil {
				t.Fatal(err)
			}
			time.Sleep(9 * time.Minute) // in the bubble's time
			synctest.Wait()
			if n := writes.Load(); n != 0 {
				t.Errorf("%s: %d writes", name, n)
			}
			end := ".\r\n"
			if name == "BDAT" {
				end = "\r\n"
			}
			say(t, c, in, end, "250 2.0.0")
			c.Close()
			synctest.Wait()
			if got := b.box.got("ann"); len(got) != 1 || writes.Load() == 0 {
				t.Errorf("%s: %q after %d writes", name, got, writes.Load())
			}
		})
	}
}

// Out of descriptors, at any step, is 451 4.3.2 for that recipient alone, and passes.
func TestNoDescriptors(t *testing.T) {
	b := newBench(t, listen(t, "tcp"), nil)
	const two = "LHLO x\r\nMAIL FROM:<a@b>\r\nRCPT TO:<ann@d>\r\nRCPT TO:<bob@d>\r\nBDAT 3 LAST\r\nx\r\nQUIT\r\n"
	for i, c := range []struct{ step, want string }{
		{"deposit", "220 250 250 451 250 250 221"},
		{"write", "220 250 250 250 250 451 250 221"},
		{"commit", "220 250 250 250 250 451 250 221"},
	} {
		b.box.fault(c.step, "ann", "files")
		if out := b.ask(t, two); codes(out) != c.want || !strings.Contains(out, "451 4.3.2 ") {
			t.Errorf("%s: %s", c.step, out)
		}
		b.box.fault(c.step, "ann", "")
		if out := b.ask(t, two); codes(out) != "220 250 250 250 250 250 250 221" {
			t.Errorf("after %s: %s", c.step, out)
		}
		if ann, bob := len(b.box.got("ann")), len(b.box.got("bob")); ann != i+1 || bob != 2*i+2 {
			t.Errorf("%s: %d and %d messages", c.step, ann, bob)
		}
	}
}
