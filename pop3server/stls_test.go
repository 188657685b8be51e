package pop3server_test

import (
	"bytes"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"dewey/pop3server"
)

const remote = "192.0.2.1" // whom no password in plain is taken from

// What may be seen before and after TLS, with both versions; the server greets once, and a clean end has a
// close_notify. RFC 2595 section 4, RFC 8446 section 6.1; trap 31.
func TestTrap31STLS(t *testing.T) {
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		t.Run(tls.VersionName(version), func(t *testing.T) {
			var in pop3server.Session
			b := newBench(t, newShelf(sized(120)), func(s *pop3server.Server) {
				withTLS(s)
				s.Users = newRoster()
				s.Hooks.LoggedIn = func(s pop3server.Session, _ int, _ int64) { in = s }
			})
			v := b.visit(t, remote)
			_ = v.line(t)
			before := v.multi(t, "CAPA")
			if !slices.Contains(before, "STLS") || slices.Contains(before, "USER") || !slices.Contains(before, "SASL SCRAM-SHA-256 SCRAM-SHA-1 CRAM-MD5") {
				t.Errorf("before TLS: %q", before)
			}
			v.ask(t, "USER mrose", "-ERR plaintext login needs TLS here")
			v.ask(t, "AUTH PLAIN", "-ERR plaintext login needs TLS here")
			v.ask(t, "STLS now", "-ERR wrong arguments")

			config := clientTLS()
			config.MinVersion, config.MaxVersion = version, version
			if got := v.stls(t, config).ConnectionState().Version; got != version {
				t.Fatal(tls.VersionName(got))
			}
			after := v.multi(t, "CAPA")
			if slices.Contains(after, "STLS") || !slices.Contains(after, "USER") ||
				!slices.Contains(after, "SASL SCRAM-SHA-256-PLUS SCRAM-SHA-1-PLUS SCRAM-SHA-256 SCRAM-SHA-1 CRAM-MD5 PLAIN LOGIN") {
				t.Errorf("under TLS: %q", after)
			}
			v.ask(t, "STLS", "-ERR TLS is on already")
			v.ask(t, "NOOP", "-ERR command not valid in this state") // still in AUTHORIZATION
			v.ask(t, "USER mrose", "+OK")
			v.ask(t, "PASS tanstaaf", "+OK 1 message (120 octets)")
			if !in.TLS || in.Method != "PASS" || in.User != "mrose" {
				t.Errorf("logged in: %+v", in)
			}
			if got := v.multi(t, "CAPA"); !slices.Equal(got, after) {
				t.Errorf("after login: %q, before: %q", got, after)
			}
			if got := v.say(t, "STLS"); !strings.HasPrefix(got, "-ERR") {
				t.Error(got)
			}
			v.ask(t, "QUIT", "+OK bye")
			v.closedClean(t)
		})
	}
}

// "STLS" in CAPA says that the command is permitted in the current state: in AUTHORIZATION alone, and where there
// is TLS to begin. RFC 2595 section 4; trap 31.
func TestTrap31STLSOnlyWhereItIsTaken(t *testing.T) {
	stls := func(t *testing.T, v *visitor, want bool) {
		t.Helper()
		if got := slices.Contains(v.multi(t, "CAPA"), "STLS"); got != want {
			t.Errorf("STLS announced: %v", got)
		}
		if !want {
			if got := v.say(t, "STLS"); !strings.HasPrefix(got, "-ERR") {
				t.Error(got)
			}
		}
	}
	t.Run("no TLS", func(t *testing.T) {
		v := newBench(t, newShelf(), nil).visit(t, "127.0.0.1")
		_ = v.line(t)
		stls(t, v, false)
	})
	t.Run("after a login in plain", func(t *testing.T) {
		v := newBench(t, newShelf(), withTLS).visit(t, "127.0.0.1")
		v.login(t, "+OK 0 messages (0 octets)")
		stls(t, v, false)
		v.ask(t, "QUIT", "+OK bye")
	})
	t.Run("ServeTLS", func(t *testing.T) {
		v := newBench(t, newShelf(), withTLS).serveTLS(t).visit(t, remote)
		v.handshake(t, clientTLS())
		_ = v.line(t)
		stls(t, v, false)
	})
	t.Run("TLS up to a proxy", func(t *testing.T) {
		b := newBench(t, newShelf(), func(s *pop3server.Server) { withTLS(s); s.Wrap = wrapSecured })
		v := b.visit(t, remote)
		_ = v.line(t)
		stls(t, v, false)
	})
}

// What comes after STLS in the same packet was sent in plain, by whoever: it is never answered and never acted
// on, half a line of it is no beginning of the first line under TLS, and what was said before is forgotten. RFC
// 2595 section 4; trap 30.
func TestTrap30OctetsAfterSTLS(t *testing.T) {
	for _, tail := range []string{
		"", "U", "USER mrose", "USER mrose\r", "USER mrose\r\n", "USER mrose\r\nPASS ", "USER mrose\r\nPASS tanstaaf\r\n", "CAPA\r\n",
		"CAPA\r\nCAPA\r\nQUIT\r\n", "QUIT\r\n", "QUIT", "AUTH PLAIN\r\n", "AUTH PLAIN " + plain("", "mrose", "tanstaaf") + "\r\nDELE 1\r\n",
		"STLS\r\n", "UTF8\r\nLANG de\r\n", "\r\n", "\x00", strings.Repeat("x", 400), strings.Repeat("NOOP\r\n", 80),
	} {
		for _, before := range []string{"", "USER mrose\r\n"} {
			t.Run(fmt.Sprintf("%q %.40q", before, tail), func(t *testing.T) {
				b := newBench(t, newShelf(sized(120)), withTLS)
				v := b.visit(t, "127.0.0.1")
				_ = v.line(t)
				_, _ = io.WriteString(v, before+"STLS\r\n"+tail) // at once, into the server's buffer
				if before != "" {
					_ = v.line(t)
				}
				if got := v.line(t); got != "+OK begin TLS" {
					t.Fatal(got)
				}
				v.handshake(t, clientTLS())
				v.ask(t, "NOOP", "-ERR command not valid in this state")
				v.ask(t, "PASS tanstaaf", "-ERR USER first")
				v.ask(t, "USER mrose", "+OK")
				v.ask(t, "PASS tanstaaf", "+OK 1 message (120 octets)")
				v.ask(t, "QUIT", "+OK bye")
				v.closedClean(t)
			})
		}
	}
}

// More than the server's buffer holds, or a packet of its own before the handshake, is no handshake: the
// connection ends, and not a word of POP3 comes back. Trap 30.
func TestTrap30PlainInsteadOfHandshake(t *testing.T) {
	for _, tail := range []string{strings.Repeat("CAPA\r\n", 1000), login + strings.Repeat("DELE 1\r\nQUIT\r\n", 100), "\x80" + strings.Repeat("NOOP\r\n", 300)} {
		for _, packets := range []int{1, 2} {
			mail := newShelf(sized(120))
			b := newBench(t, mail, withTLS)
			c := b.dial("127.0.0.1")
			go func() {
				if packets == 1 {
					_, _ = io.WriteString(c, "STLS\r\n"+tail)
					return
				}
				_, _ = io.WriteString(c, "STLS\r\n")
				_, _ = io.WriteString(c, tail)
			}()
			out, _ := io.ReadAll(c)
			rest, ok := bytes.CutPrefix(out, []byte("+OK dewey ready\r\n+OK begin TLS\r\n"))
			if !ok || bytes.Contains(rest, []byte("OK")) || bytes.Contains(rest, []byte("ERR")) {
				t.Errorf("%.20q: %q", tail, out)
			}
			_ = c.Close()
			b.end()
			if mail.opened > 0 {
				t.Errorf("%.20q: acted on", tail)
			}
		}
	}
}

// UTF-8 mode and the language that were chosen before TLS are forgotten. Trap 30; RFC 6856 sections 2.1 and 3.
func TestTrap30ModesAreForgotten(t *testing.T) {
	b := newBench(t, newShelf("Subject: Gr\xc3\xbc\xc3\x9fe\n\nb\n"), withTLS)
	v := b.visit(t, "127.0.0.1")
	_ = v.line(t)
	v.ask(t, "UTF8", "+OK UTF-8 mode")
	if got := v.say(t, "LANG de"); !strings.HasPrefix(got, "+OK") {
		t.Fatal(got)
	}
	german := v.say(t, "NOOP")
	if !strings.HasPrefix(german, "-ERR") || german == "-ERR command not valid in this state" {
		t.Fatal(german)
	}
	_, _ = io.WriteString(v, "STLS\r\n")
	_ = v.line(t)
	v.handshake(t, clientTLS())
	v.ask(t, "NOOP", "-ERR command not valid in this state")
	v.ask(t, "USER mrose", "+OK")
	v.ask(t, "PASS tanstaaf", fmt.Sprintf("+OK 1 message (%d octets)", b.surrogate(t)))
}

// surrogate is the size of the only message in ASCII, which differs from its own.
func (b *bench) surrogate(t *testing.T) int64 {
	t.Helper()
	o, err := b.mail.Open(t.Context(), b.mail.owner)
	if err != nil {
		o = &opened{shelf: b.mail}
		t.Fatal(err)
	}
	m := o.Messages()[0]
	_ = o.Close()
	if m.Surrogate == 0 || m.Surrogate == m.Octets {
		t.Fatalf("%+v", m)
	}
	return m.Surrogate
}

// TLS is a connection's own: neither a handshake that succeeds nor one that fails changes anything for others,
// who are there already or come later. Trap 32.
func TestTrap32TLSOfOneConnection(t *testing.T) {
	b := newBench(t, newShelf(), withTLS)
	before, secure, failed := b.visit(t, remote), b.visit(t, remote), b.visit(t, remote)
	for _, v := range []*visitor{before, secure, failed} {
		_ = v.line(t)
	}
	secure.stls(t, clientTLS())
	_, _ = io.WriteString(failed, "STLS\r\n")
	_ = failed.line(t)
	_, _ = io.WriteString(failed, "CAPA\r\n")
	if out, _ := failed.rest(t); strings.Contains(out, "OK") {
		t.Errorf("after a failed handshake: %q", out)
	}
	after := b.visit(t, remote)
	_ = after.line(t)
	for _, v := range []*visitor{before, after} {
		if tags := v.multi(t, "CAPA"); !slices.Contains(tags, "STLS") || slices.Contains(tags, "USER") {
			t.Errorf("in plain: %q", tags)
		}
		v.ask(t, "USER mrose", "-ERR plaintext login needs TLS here")
	}
	secure.ask(t, "USER mrose", "+OK")
	before.stls(t, clientTLS())
	before.ask(t, "USER mrose", "+OK")
	secure.ask(t, "PASS tanstaaf", "+OK 0 messages (0 octets)")
}

// Handshakes that fail end their own session, with a reason, and are logged.
func TestFailedHandshake(t *testing.T) {
	for _, c := range []struct {
		name   string
		server *tls.Config
		client *tls.Config
	}{
		{"no common version", serverTLS(), &tls.Config{MaxVersion: tls.VersionTLS11, MinVersion: tls.VersionTLS10, InsecureSkipVerify: true}},
		{"unknown authority", serverTLS(), &tls.Config{ServerName: host, RootCAs: pool(timsCert())}},
		{"no certificate", &tls.Config{GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return nil, errAway }}, clientTLS()},
		{"no configuration", &tls.Config{GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) { return nil, errAway }}, clientTLS()},
		{"panic", &tls.Config{GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { panic("ordered") }}, clientTLS()},
		{"client certificate", &tls.Config{Certificates: serverTLS().Certificates, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: pool(timsCert())}, clientTLS()},
		{"client certificate of another", &tls.Config{Certificates: serverTLS().Certificates, ClientAuth: tls.VerifyClientCertIfGiven, ClientCAs: pool(timsCert())}, strangerTLS()},
	} {
		for _, implicit := range []bool{false, true} {
			t.Run(fmt.Sprint(c.name, implicit), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) { failHandshake(t, c.server, c.client, implicit) }) // both may write to the pipe at once
			})
		}
	}
}

// strangerTLS has a certificate that bears a known name and is no known authority's.
func strangerTLS() *tls.Config {
	config := clientTLS()
	config.Certificates = []tls.Certificate{otherCert()}
	return config
}

func failHandshake(t *testing.T, server, client *tls.Config, implicit bool) {
	var ended chan pop3server.End
	b := newBench(t, newShelf(), func(s *pop3server.Server) { s.TLS, ended = server, ends(s); s.Settings.MaxConnections = 1 })
	at := b
	if implicit {
		at = b.serveTLS(t)
	}
	v := at.visit(t, remote)
	if !implicit {
		_ = v.line(t)
		v.ask(t, "STLS", "+OK begin TLS")
	}
	c := tls.Client(v.Conn, client)
	err := c.Handshake()
	if err == nil { // TLS 1.3 tells a client later that its certificate is missed
		_, err = c.Read(make([]byte, 1))
	}
	if err == nil {
		t.Error("it succeeded")
	}
	_ = v.Close()
	if e := <-ended; e.Err == nil {
		t.Error("ended without an error")
	}
	if log := b.log.String(); !strings.Contains(log, "TLS handshake failed") && !strings.Contains(log, "panic in session") {
		t.Errorf("not logged:\n%s", log)
	}
	next := b.visit(t, "127.0.0.1")
	next.login(t, "+OK 0 messages (0 octets)")
	_ = next.Close()
	at.end()
}

// A handshake takes 30 s at most: one that never comes, one that trickles, one whose client reads nothing.
// LoginTimeout may end it sooner.
func TestHandshakeTimeout(t *testing.T) {
	nothing := func(net.Conn) {}
	trickle := func(c net.Conn) {
		hello := append([]byte{22, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3}, make([]byte, 500)...)
		for _, o := range hello {
			if _, err := c.Write([]byte{o}); err != nil {
				return
			}
			time.Sleep(5 * time.Second)
		}
	}
	deaf := func(c net.Conn) { // sends its ClientHello, and takes no answer
		_, _ = c.Write(clientHello())
	}
	for name, act := range map[string]func(net.Conn){"nothing": nothing, "trickle": trickle, "deaf": deaf} {
		for _, implicit := range []bool{false, true} {
			for _, c := range []struct{ login, want time.Duration }{{0, 30 * time.Second}, {10 * time.Second, 10 * time.Second}, {time.Hour, 30 * time.Second}} {
				t.Run(fmt.Sprint(name, implicit, c.login), func(t *testing.T) {
					synctest.Test(t, func(t *testing.T) {
						var ended chan pop3server.End
						b := newBench(t, newShelf(), func(s *pop3server.Server) {
							withTLS(s)
							s.Settings.LoginTimeout, ended = c.login, ends(s)
						})
						at := b
						if implicit {
							at = b.serveTLS(t)
						}
						start := time.Now()
						v := at.visit(t, remote)
						if !implicit {
							_ = v.line(t)
							v.ask(t, "STLS", "+OK begin TLS")
						}
						acted := make(chan struct{})
						go func() { defer close(acted); act(v.Conn) }()
						e := <-ended
						// A write looks after its progress now and then only.
						if d := time.Since(start); e.Err == nil || d < c.want || d > c.want+time.Second {
							t.Errorf("ended after %v: %v", d, e.Err)
						}
						_ = v.Close()
						<-acted
						at.end()
					})
				})
			}
		}
	}
}

// clientHello is what a client sends first.
func clientHello() []byte {
	here, there := net.Pipe()
	go func() { _ = tls.Client(there, clientTLS()).Handshake() }()
	hello := make([]byte, 16<<10)
	n, _ := here.Read(hello)
	_ = here.Close()
	return hello[:n]
}

// Shutdown and Close end handshakes, and wait for none.
func TestCloseDuringHandshake(t *testing.T) {
	for _, shutdown := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			var ended chan pop3server.End
			b := newBench(t, newShelf(), func(s *pop3server.Server) { withTLS(s); ended = ends(s) })
			implicit := b.serveTLS(t)
			one, two := b.visit(t, remote), implicit.visit(t, remote)
			_ = one.line(t)
			one.ask(t, "STLS", "+OK begin TLS")
			_, _ = two.Write([]byte{22, 3, 1})
			synctest.Wait()
			start := time.Now()
			if shutdown {
				_ = b.srv.Shutdown(t.Context())
			} else {
				_ = b.srv.Close()
			}
			for range 2 {
				if e := <-ended; !errors.Is(e.Err, pop3server.ErrServerClosed) {
					t.Errorf("ended by %v", e.Err)
				}
			}
			if d := time.Since(start); d > 0 {
				t.Errorf("it took %v", d)
			}
			for _, v := range []*visitor{one, two} {
				if got, _ := v.rest(t); got != "" {
					t.Errorf("said %q", got)
				}
			}
			implicit.end()
		})
	}
}
