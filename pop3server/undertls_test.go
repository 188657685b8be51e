package pop3server_test

import (
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"dewey/internal/dotstuff"
	"dewey/pop3server"
)

// atOnce visits a server that begins with TLS.
func atOnce(t *testing.T, b *bench) *visitor {
	t.Helper()
	v := b.visit(t, remote)
	v.handshake(t, clientTLS())
	if got := v.line(t); got != "+OK dewey ready" {
		t.Fatalf("greeting %q", got)
	}
	return v
}

// Ten minutes without a command end a session under TLS as well, in silence: octets and records that make no
// line do not count. RFC 1939 section 3; trap 35.
func TestTrap35AutologoutUnderTLS(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		mail := newShelf(sized(120))
		var ended chan pop3server.End
		b := newBench(t, mail, func(s *pop3server.Server) { withTLS(s); ended = ends(s) })
		at := b.serveTLS(t)
		v := atOnce(t, at)
		v.ask(t, "USER mrose", "+OK")
		v.ask(t, "PASS tanstaaf", "+OK 1 message (120 octets)")
		time.Sleep(9*time.Minute + 59*time.Second)
		v.ask(t, "DELE 1", "+OK message 1 deleted")
		start := time.Now()
		for _, part := range []string{"N", "O", "O"} {
			time.Sleep(3 * time.Minute)
			_, _ = io.WriteString(v, part)
		}
		got, err := v.rest(t)
		if d := time.Since(start); got != "" || err == nil || d != 10*time.Minute {
			t.Errorf("%q, %v after %v", got, err, d)
		}
		if e := <-ended; !errors.Is(e.Err, pop3server.ErrIdle) {
			t.Error(e.Err)
		}
		_ = v.Close()
		at.end()
		if mail.gone() != "" {
			t.Errorf("removed %s", mail.gone())
		}
	})
}

// A large message reaches a slow reader whole, however long that takes, and one who takes nothing is let go of.
// Trap 35.
func TestTrap35SlowReaderUnderTLS(t *testing.T) {
	const octets = 300_000
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		for _, stops := range []bool{false, true} {
			t.Run(fmt.Sprint(tls.VersionName(version), stops), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					var ended chan pop3server.End
					b := newBench(t, newShelf(sized(octets)), func(s *pop3server.Server) { withTLS(s); ended = ends(s) })
					v := b.visit(t, remote)
					_ = v.line(t)
					slow := &slowConn{Conn: v.Conn}
					v.Conn = slow
					config := clientTLS()
					config.MaxVersion = version
					v.stls(t, config)
					v.ask(t, "USER mrose", "+OK")
					v.ask(t, "PASS tanstaaf", fmt.Sprintf("+OK 1 message (%d octets)", octets))
					start := time.Now()
					v.ask(t, "RETR 1", fmt.Sprintf("+OK %d octets", octets))
					if stops {
						e := <-ended
						if d := time.Since(start); e.Err == nil || e.Retrieved != 0 || d < 5*time.Minute || d > 6*time.Minute {
							t.Errorf("%+v after %v", e, d)
						}
						_ = v.Close()
						b.end()
						return
					}
					slow.pause = 4 * time.Minute // less than the write timeout, again and again
					got := readMulti(t, v)
					if message, whole := dotstuff.Unstuff(got); !whole || string(message) != sized(octets) {
						t.Errorf("%d octets came, whole: %v", len(message), whole)
					}
					if d := time.Since(start); d < time.Hour {
						t.Errorf("it took only %v", d)
					}
					slow.pause = 0
					v.ask(t, "QUIT", "+OK bye")
					v.closedClean(t)
					if e := <-ended; e.Err != nil || e.Octets != octets {
						t.Errorf("%+v", e)
					}
					b.end()
				})
			})
		}
	}
}

// slowConn takes 8 KiB at most at a time, after a pause.
type slowConn struct {
	net.Conn
	pause time.Duration
}

func (s *slowConn) Read(p []byte) (int, error) {
	time.Sleep(s.pause)
	return s.Conn.Read(p[:min(len(p), 8<<10)])
}

func readMulti(t *testing.T, v *visitor) []byte {
	t.Helper()
	var got []byte
	for {
		l, err := v.in.ReadBytes('\n')
		got = append(got, l...)
		if err != nil {
			t.Fatalf("after %d octets: %v", len(got), err)
		}
		if string(l) == ".\r\n" {
			return got
		}
	}
}

// A response that was cut short is not followed by a close_notify, so that TLS tells the client too that
// something is missing; neither does a server that hangs up on an idle client claim that all is well. RFC 8446
// section 6.1; trap 2.
func TestTrap02NoCloseNotifyAfterCut(t *testing.T) {
	for _, fault := range []string{"cut uid1", "short uid1"} {
		mail := newShelf(sized(120))
		order(t, mail, fault)
		b := newBench(t, mail, withTLS)
		v := b.visit(t, remote)
		_ = v.line(t)
		v.stls(t, clientTLS())
		v.ask(t, "USER mrose", "+OK")
		v.ask(t, "PASS tanstaaf", "+OK 1 message (120 octets)")
		_, _ = io.WriteString(v, "RETR 1\r\n")
		if got, err := v.rest(t); err == io.EOF || strings.HasSuffix(got, "\r\n.\r\n") {
			t.Errorf("%s: %q, %v", fault, got, err)
		}
		b.end()
	}
}

// Each way in which the server ends a session after a whole response has a close_notify; QUIT in the same
// record as others, too.
func TestCloseNotify(t *testing.T) {
	b := newBench(t, newShelf(), func(s *pop3server.Server) {
		withTLS(s)
		s.Settings.MaxAttempts, s.Settings.FailureDelay = 1, 0
	})
	at := b.serveTLS(t)
	v := atOnce(t, at)
	v.ask(t, "USER mrose", "+OK")
	v.ask(t, "PASS wrong", "-ERR [AUTH] authentication failed")
	v.closedClean(t)
	v = atOnce(t, at)
	go func() { _, _ = io.WriteString(v, "QUIT\r\nNOOP\r\nNOOP\r\n") }()
	if got, err := v.rest(t); got != "+OK bye\r\n" || err != io.EOF {
		t.Errorf("%q, %v", got, err)
	}
}

// A client that takes no close_notify keeps nothing for longer than a second.
func TestCloseNotifyIsNotWaitedFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		mail := newShelf(sized(120))
		var ended chan pop3server.End
		b := newBench(t, mail, func(s *pop3server.Server) { withTLS(s); ended = ends(s) })
		at := b.serveTLS(t)
		v := atOnce(t, at)
		v.ask(t, "USER mrose", "+OK")
		v.ask(t, "PASS tanstaaf", "+OK 1 message (120 octets)")
		v.ask(t, "DELE 1", "+OK message 1 deleted")
		start := time.Now()
		v.ask(t, "QUIT", "+OK bye")
		if e := <-ended; e.Err != nil || e.Removed != 1 || time.Since(start) > 2*time.Second {
			t.Errorf("%+v after %v", e, time.Since(start))
		}
		at.end()
	})
}

// A client that is cut off under TLS, in the middle of a record or without a close_notify, has removed nothing.
// Trap 22.
func TestTrap22NoQuitUnderTLS(t *testing.T) {
	mail := newShelf(sized(120))
	var ended chan pop3server.End
	b := newBench(t, mail, func(s *pop3server.Server) { withTLS(s); ended = ends(s) })
	at := b.serveTLS(t)
	for _, how := range []string{"cut", "half a record", "half a line", "close_notify"} {
		v := atOnce(t, at)
		v.ask(t, "USER mrose", "+OK")
		v.ask(t, "PASS tanstaaf", "+OK 1 message (120 octets)")
		v.ask(t, "DELE 1", "+OK message 1 deleted")
		under := v.Conn.(underTLS)
		switch how {
		case "half a record":
			_, _ = under.below.Write([]byte{23, 3, 3, 1, 0, 'Q', 'U'})
		case "half a line":
			_, _ = io.WriteString(v, "QUIT")
		case "close_notify":
			_ = under.CloseWrite()
		}
		_ = v.Close()
		if e := <-ended; e.Err == nil || e.Removed != 0 {
			t.Errorf("%s: %+v", how, e)
		}
	}
	if mail.gone() != "" {
		t.Errorf("removed %s", mail.gone())
	}
}

// A server with TLS from the first octet says nothing in plain: neither its greeting nor a reply, nor that there
// is no place. RFC 8314 section 3.3; trap 30.
func TestTrap30PlainTextToServeTLS(t *testing.T) {
	b := newBench(t, newShelf(), withTLS)
	at := b.serveTLS(t)
	for _, text := range []string{"CAPA\r\n", "QUIT\r\n", login, "STLS\r\n", "PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n", "\r\n\r\n\x00\r\nQUIT\n", "\r\n"} {
		c := at.dial(remote)
		go func() { _, _ = io.WriteString(c, text); time.AfterFunc(time.Millisecond, func() { _ = c.Close() }) }()
		if out, _ := io.ReadAll(c); strings.Contains(string(out), "OK") || strings.Contains(string(out), "ERR") {
			t.Errorf("%q: %q", text, out)
		}
	}
	b.settle(t)
	settings := b.srv.Settings
	settings.MaxPerAddress = 1
	if err := b.srv.Reconfigure(settings); err != nil {
		t.Fatal(err)
	}
	v := atOnce(t, at)
	second := at.visit(t, remote)
	if got, _ := second.rest(t); got != "" {
		t.Errorf("to one too many: %q", got)
	}
	v.ask(t, "QUIT", "+OK bye")
}

// ServeTLS without a configuration is an error at once, not at the first client.
func TestServeTLSWithoutTLS(t *testing.T) {
	srv := &pop3server.Server{Users: users, Maildrops: newShelf()}
	l := newListener()
	if err := srv.ServeTLS(l); err == nil || errors.Is(err, pop3server.ErrServerClosed) {
		t.Error(err)
	}
	if _, err := l.Accept(); !errors.Is(err, net.ErrClosed) {
		t.Error("the listener stays open")
	}
}

// The protocol "pop3" is agreed on where the configuration has it, and a client without ALPN is served as well.
// RFC 7301 section 3.1.
func TestALPN(t *testing.T) {
	b := newBench(t, newShelf(), func(s *pop3server.Server) {
		withTLS(s)
		s.TLS.NextProtos = []string{"pop3"}
	})
	at := b.serveTLS(t)
	for _, c := range []struct {
		offer []string
		want  string
	}{{nil, ""}, {[]string{"pop3"}, "pop3"}, {[]string{"imap", "pop3"}, "pop3"}} {
		v := at.visit(t, remote)
		config := clientTLS()
		config.NextProtos = c.offer
		if got := v.handshake(t, config).ConnectionState().NegotiatedProtocol; got != c.want {
			t.Errorf("%q: %q", c.offer, got)
		}
		_ = v.line(t)
		v.ask(t, "QUIT", "+OK bye")
	}
}

// A client that comes back resumes its TLS session, by STLS as by ServeTLS, also where the configuration is
// chosen anew for each client, and has to log in again.
func TestResumption(t *testing.T) {
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		for _, chosen := range []bool{false, true} {
			t.Run(fmt.Sprint(tls.VersionName(version), chosen), func(t *testing.T) {
				b := newBench(t, newShelf(), func(s *pop3server.Server) {
					withTLS(s)
					if chosen {
						inner := serverTLS()
						s.TLS.GetConfigForClient = func(*tls.ClientHelloInfo) (*tls.Config, error) { return inner, nil }
					}
				})
				at := b.serveTLS(t)
				config := clientTLS()
				config.ClientSessionCache, config.MaxVersion = tls.NewLRUClientSessionCache(10), version
				for i := range 4 {
					var v *visitor
					var c *tls.Conn
					if i%2 == 0 {
						v = at.visit(t, remote)
						c = v.handshake(t, config)
						_ = v.line(t)
					} else {
						v = b.visit(t, remote)
						_ = v.line(t)
						c = v.stls(t, config)
					}
					v.ask(t, "STAT", "-ERR command not valid in this state")
					if got := c.ConnectionState().DidResume; got != (i > 0) {
						t.Errorf("connection %d resumed: %v", i+1, got)
					}
					v.ask(t, "QUIT", "+OK bye")
				}
			})
		}
	}
}

// Over sockets: TLS, a large message, QUIT and what follows it, and the client has all of it.
func TestTLSOverTCP(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	const octets = 3 << 20
	b := newBench(t, newShelf(sized(octets)), withTLS)
	served := make(chan error, 1)
	go func() { served <- b.srv.ServeTLS(l) }()
	for range 5 {
		c, err := tls.Dial("tcp", l.Addr().String(), clientTLS())
		if err != nil {
			t.Fatal(err)
		}
		_, _ = io.WriteString(c, login+"RETR 1\r\nRETR 1\r\nQUIT\r\n"+strings.Repeat("NOOP\r\n", 500))
		got, err := io.ReadAll(c)
		if err != nil || !strings.HasSuffix(string(got), "\r\n.\r\n+OK bye\r\n") || len(got) < 2*octets {
			t.Errorf("%v, %d octets, ending %.60q", err, len(got), got[max(0, len(got)-60):])
		}
		_ = c.Close()
		b.settle(t)
	}
	b.end()
	<-served
}
