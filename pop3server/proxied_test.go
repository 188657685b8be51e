package pop3server_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"regexp"
	"slices"
	"strings"
	"testing"

	"dewey/pop3server"
)

// wrapSecured is a Wrap of a proxy that has TLS with the client.
func wrapSecured(_ context.Context, c net.Conn) (net.Conn, error) { return secured{c, true}, nil }

type secured struct {
	net.Conn
	yes bool
}

func (s secured) Secured() bool { return s.yes }

const proxy = "198.51.100.1"

func withTrusted(s *pop3server.Server) {
	s.Settings.Trusted = []netip.Prefix{netip.MustParsePrefix(proxy + "/32"), netip.MustParsePrefix("127.0.0.0/8")}
}

func (v *visitor) timestampAfterXCLIENT(t *testing.T) string {
	t.Helper()
	greeting := v.line(t)
	if !strings.HasPrefix(greeting, "+OK [XCLIENT] ") {
		t.Fatalf("greeting %q", greeting)
	}
	return regexp.MustCompile(`<.*>`).FindString(greeting)
}

// XCLIENT is a command of proxies that are trusted: it sets the address in the log, in hooks and for what comes; then
// the connection is the client's, who is not trusted.
func TestXCLIENT(t *testing.T) {
	var in pop3server.Session
	b := newBench(t, newShelf(), func(s *pop3server.Server) {
		withTrusted(s)
		s.Settings.Plaintext, s.Settings.FailureDelay = pop3server.PlaintextAlways, 0
		s.Hooks.LoggedIn = func(s pop3server.Session, _ int, _ int64) { in = s }
	})
	v := b.visit(t, proxy)
	if got := v.line(t); got != "+OK [XCLIENT] dewey ready" {
		t.Errorf("greeting %q", got)
	}
	for _, args := range []string{"ADDR=", "ADDR=x", "ADDR=192.0.2.9.1", "ADDR=192.0.2.999", "ADDR=192.0.2.9:77", "ADDR=mail.example.org", "PORT=", "PORT=x", "PORT=-1", "PORT=65536", "ADDR=192.0.2.9 PORT=1e3", "ADDR=192.0.2.9  PORT=1"} {
		v.ask(t, "XCLIENT "+args, "-ERR wrong arguments")
	}
	v.ask(t, "XCLIENT", "-ERR wrong arguments")
	v.ask(t, "USER mrose", "+OK")
	v.ask(t, "XCLIENT addr=192.0.2.9 port=77 PROTO=POP3 HELO=[a] LOGIN=x SESSION=1", "+OK")
	v.ask(t, "PASS tanstaaf", "-ERR USER first")
	v.ask(t, "XCLIENT ADDR=192.0.2.10", "-ERR unknown command")
	v.ask(t, "USER nobody", "+OK")
	v.ask(t, "PASS x", refused)
	v.ask(t, "USER mrose", "+OK")
	v.ask(t, "PASS tanstaaf", "+OK 0 messages (0 octets)")
	if in.Remote.String() != "192.0.2.9:77" {
		t.Errorf("%+v", in)
	}
	if !regexp.MustCompile(`login refused.* remote=192\.0\.2\.9:77|remote=192\.0\.2\.9:77.*`).MatchString(b.log.String()) {
		t.Errorf("the log lacks the address:\n%s", b.log)
	}
	for l := range strings.Lines(b.log.String()) {
		if (strings.Contains(l, "login refused") || strings.Contains(l, "logged in")) && (!strings.Contains(l, "remote=192.0.2.9:77") || strings.Contains(l, proxy)) {
			t.Errorf("the wrong address: %s", l)
		}
	}
	stranger := b.visit(t, remote)
	if got := stranger.line(t); got != "+OK dewey ready" {
		t.Errorf("greeting %q", got)
	}
	stranger.ask(t, "XCLIENT ADDR=192.0.2.9", "-ERR unknown command")
}

// A client is as near as it was: behind a proxy on this machine it is not on this machine, and no address that a
// proxy names brings it here.
func TestXCLIENTMakesNobodyLocal(t *testing.T) {
	b := newBench(t, newShelf(), withTrusted)
	for _, c := range []struct {
		from, addr string
		local      bool
	}{
		{"127.0.0.1", "192.0.2.9", false},
		{"127.0.0.1", "::1", true},
		{"127.0.0.1", "::ffff:192.0.2.9", false},
		{"127.0.0.1", "::", false},
		{"127.0.0.1", "0.0.0.0", false},
		{proxy, "127.0.0.1", false},
		{proxy, "::1", false},
		{proxy, "::ffff:127.0.0.1", false},
		{proxy, "192.0.2.9", false},
	} {
		v := b.visit(t, c.from)
		_ = v.line(t)
		v.ask(t, "XCLIENT ADDR="+c.addr, "+OK")
		if got := slices.Contains(v.multi(t, "CAPA"), "USER"); got != c.local {
			t.Errorf("%s by %s: USER %v", c.addr, c.from, got)
		}
		if c.from == proxy && strings.HasPrefix(c.addr, "127.") { // trusted as well, and remote for good
			v.ask(t, "XCLIENT ADDR=127.0.0.2", "+OK")
			v.ask(t, "USER mrose", "-ERR plaintext login needs TLS here")
		}
		_ = v.Close()
	}
}

// The bound on an address counts the client's, not the proxy's.
func TestXCLIENTCountsTheClient(t *testing.T) {
	var ended chan pop3server.End
	b := newBench(t, newShelf(), func(s *pop3server.Server) { withTrusted(s); s.Settings.MaxPerAddress, ended = 2, ends(s) })
	const many = "-ERR [SYS/TEMP] too many connections from your address"
	var all []*visitor
	behind := func(addr, want string) *visitor {
		v := b.visit(t, proxy)
		_ = v.line(t)
		v.ask(t, "XCLIENT ADDR="+addr, want)
		all = append(all, v)
		return v
	}
	one := behind("192.0.2.9", "+OK")
	behind("192.0.2.9", "+OK")
	behind("192.0.2.10", "+OK")
	if !behind("192.0.2.9", many).hungUp() {
		t.Error("the one too many stays")
	}
	direct := b.visit(t, "192.0.2.9")
	if got := direct.line(t); got != many {
		t.Errorf("the client itself: %q", got)
	}
	one.ask(t, "QUIT", "+OK bye")
	<-ended // the one too many
	<-ended
	behind("192.0.2.9", "+OK")
	for _, v := range all {
		_ = v.Close()
	}
	for range 3 {
		<-ended
	}
	behind("192.0.2.9", "+OK") // nothing was counted twice, or lost
	behind("192.0.2.9", "+OK")
	behind("192.0.2.9", many)
}

// v2 is the signature of a PROXY header of version 2.
const v2 = "\r\n\r\n\x00\r\nQUIT\n"

// A PROXY header from one who is no proxy is answered with nothing, but for what came before it in pieces, and the
// connection ends; it is no QUIT either. Trap 51.
func TestTrap51StrayProxyHeader(t *testing.T) {
	header := v2 + "\x21\x11\x00\x0c\xc0\x00\x02\x09\xc0\x00\x02\x02\x04\xd2\x00\x6e"
	for _, text := range []string{
		"PROXY TCP4 192.0.2.9 192.0.2.2 1234 110\r\n", "PROXY UNKNOWN\r\n", "PROXY TCP6 2001:db8::9 2001:db8::2 1234 110\r\n", header,
		"PROXY TCP4 127.0.0.1 127.0.0.1 1234 110\r\n" + login, header + login,
	} {
		for _, size := range []int{len(text), 1, 2, 3, 4, 5, 6, 7, 11} {
			t.Run(fmt.Sprintf("%.5q in pieces of %d", text, size), func(t *testing.T) {
				var ended chan pop3server.End
				mail := newShelf(sized(120))
				b := newBench(t, mail, func(s *pop3server.Server) { ended = ends(s) })
				c := b.dial("127.0.0.1")
				go func() {
					for rest := text; rest != ""; rest = rest[min(size, len(rest)):] {
						_, _ = io.WriteString(c, rest[:min(size, len(rest))])
					}
				}()
				out, _ := io.ReadAll(c)
				got, ok := strings.CutPrefix(string(out), "+OK dewey ready\r\n")
				// Of version 2 the first lines are empty ones, as any client could send them.
				whole := size == len(text) || text[0] == 'P'
				if !ok || whole && got != "" || strings.ReplaceAll(got, "-ERR unknown command\r\n", "") != "" {
					t.Errorf("answered %q", out)
				}
				if e := <-ended; e.Err == nil {
					t.Error("ended well")
				}
				_ = c.Close()
				b.end()
				if mail.opened > 0 || !strings.Contains(b.log.String(), "PROXY") {
					t.Errorf("opened %d times; log:\n%s", mail.opened, b.log)
				}
			})
		}
	}
}

// Later in the session, or under TLS, or only like one, it is a command that nobody knows.
func TestLikeAProxyHeader(t *testing.T) {
	b := newBench(t, newShelf(), nil)
	for _, text := range []string{"PROXYTCP4\r\n", "proxy tcp4 x\r\n", "\r\n", "\r\n\r\n", "NOOP\r\nPROXY TCP4 192.0.2.9 192.0.2.2 1234 110\r\n", "\r\n\r\n\x00x\r\n"} {
		got := b.ask(t, text+"QUIT\r\n")
		if lines := strings.Split(got, "\r\n"); lines[len(lines)-2] != "+OK bye" || len(lines) != 3+strings.Count(text, "\n") {
			t.Errorf("%q: %q", text, got)
		}
	}
}

// What Wrap returns is the connection, with the addresses that it tells; what it was given is closed.
func TestWrap(t *testing.T) {
	var in pop3server.Session
	b := newBench(t, newShelf(), func(s *pop3server.Server) {
		withTLS(s)
		s.Hooks.Connected = func(s pop3server.Session) { in = s }
		s.Wrap = func(_ context.Context, c net.Conn) (net.Conn, error) {
			header := make([]byte, 1)
			if _, err := io.ReadFull(c, header); err != nil {
				return nil, err
			}
			switch header[0] {
			case 'e':
				return nil, errors.New("no header that I know")
			case 'p':
				panic("ordered")
			case 'n':
				return nil, nil
			}
			return secured{addressed{c, "192.0.2.77"}, header[0] == 's'}, nil
		}
	})
	for _, c := range []struct {
		header string
		safe   bool
	}{{"s", true}, {"-", false}} {
		v := b.visit(t, proxy)
		_, _ = io.WriteString(v, c.header)
		if got := v.line(t); got != "+OK dewey ready" {
			t.Fatal(got)
		}
		if in.Remote.Addr().String() != "192.0.2.77" || in.TLS {
			t.Errorf("%+v", in)
		}
		tags := v.multi(t, "CAPA")
		if slices.Contains(tags, "USER") != c.safe || slices.Contains(tags, "SASL PLAIN LOGIN") != c.safe || slices.Contains(tags, "STLS") == c.safe {
			t.Errorf("%q: %q", c.header, tags)
		}
		if got := v.say(t, "USER mrose"); strings.HasPrefix(got, "+OK") != c.safe {
			t.Error(got)
		}
		if !c.safe { // then by STLS
			v.stls(t, clientTLS())
			v.ask(t, "USER mrose", "+OK")
		}
		_ = v.Close()
	}
	for _, header := range []string{"e", "p", "n", ""} {
		v := b.visit(t, proxy)
		if header == "" {
			_ = v.Close()
			continue
		}
		_, _ = io.WriteString(v, header)
		if got, err := io.ReadAll(v.in); len(got) > 0 || err != nil {
			t.Errorf("%q: %q, %v", header, got, err)
		}
	}
	v := b.visit(t, proxy) // the others are as before
	_, _ = io.WriteString(v, "-")
	_ = v.line(t)
}

// A Wrap that waits for a header is told when the server closes.
func TestWrapEndsWithTheServer(t *testing.T) {
	waits := make(chan struct{})
	b := newBench(t, newShelf(), func(s *pop3server.Server) {
		s.Wrap = func(ctx context.Context, c net.Conn) (net.Conn, error) {
			close(waits)
			_, err := c.Read(make([]byte, 1))
			<-ctx.Done()
			return nil, err
		}
	})
	v := b.visit(t, proxy)
	<-waits
	b.end()
	if got, _ := v.rest(t); got != "" {
		t.Error(got)
	}
}
