package lmtp_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"pgregory.net/rapid"

	"dewey/lmtp"
)

// A script is a connection whose client has said all before it listens.
type script struct {
	in   []byte
	size int // of what one Read gives; 0: all
	out  bytes.Buffer
	once sync.Once
	done chan struct{} // closed by Close
}

func (c *script) Read(p []byte) (int, error) {
	if len(c.in) == 0 {
		return 0, io.EOF
	}
	n := copy(p, c.in)
	if c.size > 0 {
		n = min(n, c.size)
	}
	c.in = c.in[n:]
	return n, nil
}

func (c *script) Write(p []byte) (int, error)        { return c.out.Write(p) }
func (c *script) Close() error                       { c.once.Do(func() { close(c.done) }); return nil }
func (c *script) LocalAddr() net.Addr                { return nil }
func (c *script) RemoteAddr() net.Addr               { return nil }
func (c *script) SetDeadline(time.Time) error        { return nil }
func (c *script) SetReadDeadline(time.Time) error    { return nil }
func (c *script) SetWriteDeadline(t time.Time) error { return nil }

const scriptSize = 64 // the most octets of a message

// run plays a script, with owners that are full at each step, and returns all that the server said.
func run(t interface {
	Errorf(format string, args ...any)
}, in []byte, size int,
) (string, *box) {
	b := newBox()
	for _, step := range []string{"deposit", "write", "commit"} {
		b.fault(step, step+"full", "full")
	}
	l := newPipes()
	srv := &lmtp.Server{
		Recipients: recipients, Mail: b, Logger: slog.New(slog.DiscardHandler),
		Settings: lmtp.Settings{MaxSize: scriptSize, Hostname: "mx.test"},
	}
	done := make(chan struct{})
	go func() { defer close(done); _ = srv.Serve(l) }()
	c := &script{in: in, size: size, done: make(chan struct{})}
	l.conns <- c
	<-c.done
	l.Close()
	<-done
	_ = srv.Shutdown(context.Background())
	if b.begun != b.ended || len(b.mistakes) > 0 {
		t.Errorf("%d deposits begun, %d ended; %q", b.begun, b.ended, b.mistakes)
	}
	return c.out.String(), b
}

// Whatever a client sends: no panic, every deposit is ended once, each line of the replies is well-formed, and
// what was delivered and what was said to be agree.
func FuzzSession(f *testing.F) {
	for _, in := range []string{
		envelope + "DATA\r\nx\r\n.\r\nQUIT\r\n",
		envelope + "BDAT 3\r\nx\r\nBDAT 2 LAST\r\nyzQUIT\r\n",
		envelope + "RCPT TO:<team@d>\r\nRCPT TO:<ann@d>\r\nRCPT TO:<depositfull>\r\nRCPT TO:<writefull@d>\r\nRCPT TO:<commitfull@d>\r\nDATA\r\n..x\r\n.\r\nRSET\r\nNOOP\r\n",
		"LHLO [1.2.3.4]\r\nMAIL FROM:<\"a\\\"b\"@c> SIZE=20 BODY=8BITMIME SMTPUTF8\r\nRCPT TO:<@x:\"q w\"@d>\r\nRCPT TO:<postmaster>\r\nVRFY x\r\nBDAT 0 LAST\r\n",
		envelope + "DATA\r\n" + strings.Repeat("x", 70) + "\r\n.\r\nBDAT 4 LAST\r\nQUIT",
		"HELO x\r\nEHLO x\r\n\r\n\x00\r\nLHLO\r\nDATA\r\nBDAT 99999999999999999999 LAST\r\n",
		envelope + "RCPT TO:<panic>\r\n",
	} {
		f.Add([]byte(in), uint8(0))
		f.Add([]byte(in), uint8(3))
	}
	f.Fuzz(func(t *testing.T, in []byte, size uint8) {
		out, b := run(t, in, int(size))
		delivered := false
		for line := range strings.Lines(out) {
			text, ok := strings.CutSuffix(line, "\r\n")
			if !ok || len(text) < 5 || len(text) > 510 || strings.ContainsAny(text, "\r\n\x00") || text[3] != ' ' && text[3] != '-' {
				t.Errorf("reply %q", line)
			}
			delivered = delivered || strings.HasPrefix(line, "250 2.0.0 delivered")
		}
		if delivered != (b.commits > 0) {
			t.Errorf("%d messages committed, replies:\n%s", b.commits, out)
		}
	})
}

// A model of a session, from the RFCs and not from the code: the codes of all replies, and who gets what.
func TestModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var in strings.Builder
		want := []string{"220"}
		mail := make(map[string][]string)
		greeted, begun, open, chunked := false, false, false, false
		var to []string
		body := ""
		say := func(command string, replies ...string) {
			in.WriteString(command)
			want = append(want, replies...)
		}
		end := func() { begun, open, chunked, to, body = false, false, false, nil, "" }
		finish := func() {
			for i, r := range to {
				switch {
				case len(body) > scriptSize || r == "writefull" || r == "commitfull":
					want = append(want, "552")
				default:
					want = append(want, "250")
					if !slices.Contains(to[:i], r) {
						mail[r] = append(mail[r], body)
					}
				}
			}
			end()
		}
		for range rapid.IntRange(1, 40).Draw(t, "commands") {
			switch rapid.SampledFrom([]string{"LHLO", "MAIL", "MAIL", "MAIL?", "RCPT", "RCPT", "RCPT", "DATA", "BDAT", "BDAT", "LAST", "RSET", "NOOP", "VRFY"}).Draw(t, "command") {
			case "LHLO":
				say("LHLO x\r\n", "250")
				end()
				greeted = true
			case "MAIL":
				if !greeted || open {
					say("MAIL FROM:<a@b>\r\n", "503")
					break
				}
				say("MAIL FROM:<a@b>\r\n", "250")
				begun, open = true, true
			case "MAIL?":
				if !greeted || open {
					say("MAIL FROM:<a@b> SIZE=65\r\n", "503")
					break
				}
				say("MAIL FROM:<a@b> SIZE=65\r\n", "552")
				begun = true
			case "RCPT":
				r := rapid.SampledFrom([]string{"ann", "bob", "nobody", "depositfull", "writefull", "commitfull"}).Draw(t, "to")
				code := "250"
				switch {
				case !open || chunked:
					code = "503"
				case r == "nobody":
					code = "550"
				case r == "depositfull":
					code = "552"
				default:
					to = append(to, r)
				}
				say("RCPT TO:<"+r+"@d>\r\n", code)
			case "DATA":
				if !open || chunked || len(to) == 0 {
					say("DATA\r\n", "503")
					break
				}
				body = rapid.StringMatching(`[.a\r\n]{0,70}`).Draw(t, "body") + "\r\n"
				say("DATA\r\n"+stuffed(body), "354")
				finish()
			case "BDAT":
				chunk := rapid.StringMatching(`[.a\r\n]{0,40}`).Draw(t, "chunk")
				code := "503"
				if open && len(to) > 0 {
					chunked = true
					body += chunk
					code = "250"
					if len(body) > scriptSize {
						code = "552"
					}
				}
				say(fmt.Sprintf("BDAT %d\r\n%s", len(chunk), chunk), code)
			case "LAST":
				chunk := rapid.StringMatching(`[.a\r\n]{0,40}`).Draw(t, "chunk")
				say(fmt.Sprintf("BDAT %d LAST\r\n%s", len(chunk), chunk))
				switch {
				case open && len(to) > 0:
					body += chunk
					finish()
				case begun:
					end() // RFC 2033 section 4.3: zero replies
				default:
					want = append(want, "503") // RFC 3030 section 2
				}
			case "RSET":
				say("RSET\r\n", "250")
				end()
			case "NOOP":
				say("NOOP\r\n", "250")
			case "VRFY":
				say("VRFY a\r\n", "252")
			}
		}
		say("QUIT\r\n", "221")
		out, b := run(t, []byte(in.String()), rapid.IntRange(0, 20).Draw(t, "size"))
		if got := codes(out); got != strings.Join(want, " ") {
			t.Errorf("%q\ngot  %s\nwant %s", in.String(), got, strings.Join(want, " "))
		}
		for owner, all := range b.mail {
			for i, m := range all {
				_, text, _ := strings.Cut(m, ";\r\n\t")
				_, all[i], _ = strings.Cut(text, "\r\n")
			}
			if !slices.Equal(all, mail[owner]) {
				t.Errorf("%q\n%s got %q, want %q", in.String(), owner, all, mail[owner])
			}
			delete(mail, owner)
		}
		if len(mail) > 0 {
			t.Errorf("%q: missing %q", in.String(), mail)
		}
	})
}
