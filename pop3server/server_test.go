package pop3server_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"dewey/maildrop"
	"dewey/pop3server"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// A visitor is a client that asks one thing after the other.
type visitor struct {
	net.Conn
	in *bufio.Reader
}

func (b *bench) visit(t *testing.T, from string) *visitor {
	t.Helper()
	c := b.dial(from)
	t.Cleanup(func() { _ = c.Close() })
	v := &visitor{c, bufio.NewReader(c)}
	return v
}

func (v *visitor) line(t *testing.T) string {
	t.Helper()
	l, err := v.in.ReadString('\n')
	if err != nil {
		t.Fatalf("got %q, %v", l, err)
	}
	return strings.TrimSuffix(l, "\r\n")
}

func (v *visitor) ask(t *testing.T, command, want string) {
	t.Helper()
	if _, err := io.WriteString(v, command+"\r\n"); err != nil {
		t.Fatalf("%s: %v", command, err)
	}
	if got := v.line(t); got != want {
		t.Fatalf("%s: %q, want %q", command, got, want)
	}
}

func (v *visitor) login(t *testing.T, want string) {
	t.Helper()
	if got := v.line(t); got != "+OK dewey ready" {
		t.Fatalf("greeting %q", got)
	}
	v.ask(t, "USER mrose", "+OK")
	v.ask(t, "PASS tanstaaf", want)
}

func (v *visitor) hungUp() bool {
	b, err := io.ReadAll(v.in)
	return len(b) == 0 && (err == nil || errors.Is(err, io.ErrClosedPipe))
}

// One session a maildrop; the refused one changes nothing for the one that holds it, and it is free as
// soon as QUIT is answered. RFC 1939 section 4; trap 33.
func TestTrap33OneSession(t *testing.T) {
	b := newBench(t, newShelf(sized(120)), nil)
	first := b.visit(t, "127.0.0.1")
	first.login(t, "+OK 1 message (120 octets)")
	second := b.visit(t, "127.0.0.1")
	second.login(t, "-ERR [IN-USE] maildrop is in use")
	_ = second.Close()
	third := b.visit(t, "127.0.0.1")
	third.login(t, "-ERR [IN-USE] maildrop is in use")
	first.ask(t, "STAT", "+OK 1 120")
	first.ask(t, "QUIT", "+OK bye")
	third.ask(t, "USER mrose", "+OK")
	third.ask(t, "PASS tanstaaf", "+OK 1 message (120 octets)")
	third.ask(t, "QUIT", "+OK bye")
}

// Mail that arrives during a session belongs to the next one; RSET does not bring it in. RFC 1939
// section 4; trap 18.
func TestTrap18MailArrives(t *testing.T) {
	mail := newShelf(sized(120))
	b := newBench(t, mail, nil)
	v := b.visit(t, "127.0.0.1")
	v.login(t, "+OK 1 message (120 octets)")
	mail.add(sized(200))
	v.ask(t, "STAT", "+OK 1 120")
	v.ask(t, "RSET", "+OK 1 message (120 octets)")
	v.ask(t, "LIST 2", "-ERR no such message")
	v.ask(t, "QUIT", "+OK bye")
	v = b.visit(t, "127.0.0.1")
	v.login(t, "+OK 2 messages (320 octets)")
}

// Trap 9: totals above 4 GiB are exact.
func TestTrap09LargeTotals(t *testing.T) {
	mail := newShelf(sized(120), sized(120), sized(120))
	mail.claim = map[string]int64{"uid1": 5 << 30, "uid2": 1<<31 - 1, "uid3": 1 << 32}
	b := newBench(t, mail, nil)
	v := b.visit(t, "127.0.0.1")
	v.login(t, "+OK 3 messages (11811160063 octets)")
	v.ask(t, "STAT", "+OK 3 11811160063")
	v.ask(t, "LIST 1", "+OK 1 5368709120")
	v.ask(t, "DELE 3", "+OK message 3 deleted")
	v.ask(t, "STAT", "+OK 2 7516192767")
}

// Each refused login costs a delay; a good one does not.
func TestFailureDelay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, newShelf(), func(s *pop3server.Server) { s.Settings.FailureDelay = 3 * time.Second })
		v := b.visit(t, "127.0.0.1")
		_ = v.line(t)
		for _, c := range []struct {
			user, want string
			delay      time.Duration
		}{
			{"nobody", "-ERR [AUTH] authentication failed", 3 * time.Second},
			{"broken", "-ERR [SYS/TEMP] temporary fault, try again later", 0},
			{"mrose", "+OK 0 messages (0 octets)", 0},
		} {
			start := time.Now()
			v.ask(t, "USER "+c.user, "+OK")
			v.ask(t, "PASS tanstaaf", c.want)
			if d := time.Since(start); d != c.delay {
				t.Errorf("%s: %v", c.user, d)
			}
		}
		_ = v.Close()
		b.end()
	})
}

// Where too many have not logged in, the oldest of them is dropped without a word; those who have stay.
func TestMaxUnauthenticated(t *testing.T) {
	b := newBench(t, newShelf(), func(s *pop3server.Server) { s.Settings.MaxUnauthenticated = 2 })
	inside := b.visit(t, "127.0.0.1")
	inside.login(t, "+OK 0 messages (0 octets)")
	var outside []*visitor
	for range 3 {
		v := b.visit(t, "127.0.0.1")
		_ = v.line(t)
		outside = append(outside, v)
	}
	if !outside[0].hungUp() {
		t.Error("the oldest was not dropped")
	}
	inside.ask(t, "NOOP", "+OK")
	outside[1].ask(t, "NOOP", "-ERR command not valid in this state")
	outside[2].ask(t, "NOOP", "-ERR command not valid in this state")
}

// The bounds: in all, from an address (of IPv6, a /64), of a user; trusted networks have none of their
// own. The refused are told why, with a response code. RFC 3206 section 4.
func TestBounds(t *testing.T) {
	const busy, many = "-ERR [SYS/TEMP] too many connections", "-ERR [SYS/TEMP] too many connections from your address"
	for _, c := range []struct {
		name     string
		settings pop3server.Settings
		from     []string
		want     string // to the last; the others are greeted
	}{
		{"in all", pop3server.Settings{MaxConnections: 2}, []string{"192.0.2.1", "192.0.2.2", "192.0.2.3"}, busy},
		{"an address", pop3server.Settings{MaxPerAddress: 2}, []string{"192.0.2.1", "192.0.2.2", "192.0.2.1", "192.0.2.1"}, many},
		{"a /64", pop3server.Settings{MaxPerAddress: 2}, []string{"2001:db8::1", "2001:db8:0:1::1", "2001:db8::2", "2001:db8::3"}, many},
		{"other addresses", pop3server.Settings{MaxPerAddress: 1}, []string{"192.0.2.1", "192.0.2.2"}, "+OK dewey ready"},
		{"trusted", pop3server.Settings{MaxPerAddress: 1, Trusted: []netip.Prefix{netip.MustParsePrefix("192.0.2.1/32")}}, []string{"192.0.2.9", "192.0.2.1", "192.0.2.1"}, "+OK [XCLIENT] dewey ready"},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := newBench(t, newShelf(), func(s *pop3server.Server) { s.Settings = c.settings })
			for i, from := range c.from {
				v := b.visit(t, from)
				want := "+OK dewey ready"
				if trusted := c.settings.Trusted; len(trusted) > 0 && trusted[0].Contains(netip.MustParseAddr(from)) {
					want = "+OK [XCLIENT] dewey ready"
				}
				if i == len(c.from)-1 {
					want = c.want
				}
				if got := v.line(t); got != want {
					t.Errorf("connection %d: %q, want %q", i+1, got, want)
				}
				if strings.HasPrefix(want, "-ERR") && !v.hungUp() {
					t.Error("the refused connection stays open")
				}
			}
		})
	}
}

// A place that is given back can be taken again.
func TestBoundsAreFreed(t *testing.T) {
	b := newBench(t, newShelf(), func(s *pop3server.Server) {
		s.Settings.MaxConnections, s.Settings.MaxPerAddress, s.Settings.MaxPerUser, s.Settings.MaxUnauthenticated = 1, 1, 1, 1
	})
	for range 5 {
		v := b.visit(t, "192.0.2.1")
		if got := v.line(t); got != "+OK dewey ready" {
			t.Fatal(got)
		}
		v.ask(t, "QUIT", "+OK bye")
		if !v.hungUp() {
			t.Fatal("not closed")
		}
		b.settle(t)
	}
}

// settle waits until the server has no connection left.
func (b *bench) settle(t *testing.T) {
	t.Helper()
	for range 10000 {
		if strings.Count(b.log.String(), "session ended") == strings.Count(b.log.String(), "msg=connected") {
			return
		}
		time.Sleep(time.Millisecond)
	}
	t.Fatal("a session does not end")
}

// MaxPerUser counts those too who wait for the maildrop.
func TestMaxPerUser(t *testing.T) {
	b := newBench(t, newShelf(), func(s *pop3server.Server) { s.Settings.MaxPerUser = 1 })
	first := b.visit(t, "127.0.0.1")
	first.login(t, "+OK 0 messages (0 octets)")
	b.mail.mu.Lock()
	b.mail.held = false // so that only the bound can refuse
	b.mail.mu.Unlock()
	second := b.visit(t, "127.0.0.1")
	second.login(t, "-ERR [IN-USE] maildrop is in use")
	first.ask(t, "QUIT", "+OK bye")
	second.ask(t, "USER mrose", "+OK")
	second.ask(t, "PASS tanstaaf", "+OK 0 messages (0 octets)")
}

// Shutdown lets sessions finish that have logged in, and closes the others; Close ends them all and
// removes nothing.
func TestShutdownAndClose(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		mail := newShelf(sized(120))
		b := newBench(t, mail, nil)
		inside, outside := b.visit(t, "127.0.0.1"), b.visit(t, "127.0.0.1")
		_ = outside.line(t)
		inside.login(t, "+OK 1 message (120 octets)")
		inside.ask(t, "DELE 1", "+OK message 1 deleted")

		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if err := b.srv.Shutdown(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Shutdown with a session inside: %v", err)
		}
		if !outside.hungUp() {
			t.Error("a connection without login was not closed")
		}
		inside.ask(t, "NOOP", "+OK")
		done := make(chan error)
		go func() { done <- b.srv.Shutdown(context.Background()) }()
		synctest.Wait()
		_ = b.srv.Close()
		if err := <-done; err != nil {
			t.Error(err)
		}
		if !inside.hungUp() {
			t.Error("Close left a session open")
		}
		if mail.gone() != "" {
			t.Errorf("removed %s", mail.gone())
		}
		if err := b.srv.Serve(newListener()); !errors.Is(err, pop3server.ErrServerClosed) {
			t.Errorf("Serve after Close: %v", err)
		}
		b.end()
	})
}

// Shutdown returns when the last session has said QUIT.
func TestShutdownWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		mail := newShelf(sized(120))
		b := newBench(t, mail, nil)
		v := b.visit(t, "127.0.0.1")
		v.login(t, "+OK 1 message (120 octets)")
		v.ask(t, "DELE 1", "+OK message 1 deleted")
		done := make(chan error, 1)
		go func() { done <- b.srv.Shutdown(context.Background()) }()
		synctest.Wait()
		select {
		case err := <-done:
			t.Fatalf("Shutdown did not wait: %v", err)
		default:
		}
		v.ask(t, "QUIT", "+OK bye")
		if err := <-done; err != nil {
			t.Error(err)
		}
		if mail.gone() != "uid1" {
			t.Errorf("removed %q", mail.gone())
		}
		b.end()
	})
}

// Close waits for a session that is in UPDATE, and does not cut short what it does.
func TestCloseDuringUpdate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		mail := newShelf(sized(120))
		mail.hold = func(ctx context.Context) {
			time.Sleep(time.Minute)
			if ctx.Err() != nil {
				t.Error("UPDATE was cut short")
			}
		}
		b := newBench(t, mail, nil)
		v := b.visit(t, "127.0.0.1")
		v.login(t, "+OK 1 message (120 octets)")
		v.ask(t, "DELE 1", "+OK message 1 deleted")
		_, _ = io.WriteString(v, "QUIT\r\n")
		synctest.Wait()
		_ = b.srv.Close()
		if mail.gone() != "uid1" {
			t.Errorf("removed %q", mail.gone())
		}
		b.end()
	})
}

// UPDATE is done before the reply, so that a client that resets the connection after QUIT has had it.
func TestUpdateBeforeReply(t *testing.T) {
	mail := newShelf(sized(120))
	b := newBench(t, mail, nil)
	v := b.visit(t, "127.0.0.1")
	v.login(t, "+OK 1 message (120 octets)")
	v.ask(t, "DELE 1", "+OK message 1 deleted")
	v.ask(t, "QUIT", "+OK bye")
	mail.mu.Lock()
	defer mail.mu.Unlock()
	if len(mail.removed) != 1 || mail.held {
		t.Errorf("at the reply: removed %v, held %v", mail.removed, mail.held)
	}
}

// Settings that break an RFC, or make no sense, are refused with all that is wrong at once.
func TestSettings(t *testing.T) {
	srv := &pop3server.Server{Users: users, Maildrops: newShelf(), Settings: pop3server.Settings{
		IdleTimeout: 9 * time.Minute, MaxPerUser: -1, Implementation: "a b", Language: "tlh", Hostname: "<x@y>",
	}}
	err := srv.Serve(newListener())
	for _, want := range []string{"RFC 1939 section 3", "negative", `"a b"`, `"tlh"`, `"<x@y>"`} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v lacks %q", err, want)
		}
	}
	b := newBench(t, newShelf(), nil)
	if err := b.srv.Reconfigure(pop3server.Settings{IdleTimeout: time.Minute}); err == nil {
		t.Error("Reconfigure took it")
	}
	if err := b.srv.Reconfigure(pop3server.Settings{Hostname: "new.example.org"}); err != nil {
		t.Error(err)
	}
	if got := b.ask(t, "QUIT\r\n"); got != "+OK dewey at new.example.org ready\r\n+OK bye\r\n" {
		t.Error(got)
	}
}

// Hooks tell of what happened, in order.
func TestHooks(t *testing.T) {
	mail := newShelf(sized(120), sized(200))
	var got []string
	done := make(chan struct{})
	add := func(format string, args ...any) { got = append(got, fmt.Sprintf(format, args...)) }
	b := newBench(t, mail, func(s *pop3server.Server) {
		s.Settings.FailureDelay = 0
		s.Hooks = pop3server.Hooks{
			Connected:   func(s pop3server.Session) { add("connected %v", s.Remote) },
			LoginFailed: func(_ pop3server.Session, user string, _ error) { add("failed %s", user) },
			LoggedIn:    func(s pop3server.Session, n int, o int64) { add("in %s %d %d", s.User, n, o) },
			Retrieved: func(_ pop3server.Session, n int, m maildrop.Message, err error) {
				add("retrieved %d %s %v", n, m.UID, err)
			},
			Updated: func(_ pop3server.Session, m []maildrop.Message, err error) { add("updated %s %v", m[0].UID, err) },
			Closed: func(_ pop3server.Session, e pop3server.End) {
				add("closed %v %d %d %d", e.Err, e.Retrieved, e.Octets, e.Removed)
				close(done)
			},
		}
	})
	b.ask(t, "USER mrose\r\nPASS no\r\n"+login+"RETR 2\r\nTOP 1 0\r\nTOP 1 99\r\nDELE 2\r\nQUIT\r\n")
	<-done
	want := "connected 127.0.0.1:1024|failed mrose|in mrose 2 320|retrieved 2 uid2 <nil>|retrieved 1 uid1 <nil>|updated uid2 <nil>|closed <nil> 2 320 1"
	if g := strings.Join(got, "|"); g != want {
		t.Errorf("got  %s\nwant %s", g, want)
	}
}

// A store that breaks its contract is found out at login. Trap 27.
func TestTrap27IllegalUniqueID(t *testing.T) {
	for _, uid := range []string{"", "a b", "ü", strings.Repeat("x", 71), "a\n"} {
		mail := newShelf(sized(120))
		mail.mail[0].uid = uid
		b := newBench(t, mail, nil)
		v := b.visit(t, "127.0.0.1")
		v.login(t, "-ERR [SYS/PERM] maildrop needs its administrator")
		v.ask(t, "QUIT", "+OK bye")
		b.end()
	}
}

// Over TCP: what comes after QUIT in the same packet does not cost the client the last response.
func TestTCPAfterQuit(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	b := newBench(t, newShelf(sized(120)), nil)
	served := make(chan error, 1)
	go func() { served <- b.srv.Serve(l) }()
	for range 20 {
		c, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		_, _ = io.WriteString(c, login+"DELE 1\r\nRSET\r\nQUIT\r\n"+strings.Repeat("NOOP\r\n", 500))
		_ = c.(*net.TCPConn).CloseWrite()
		got, err := io.ReadAll(c)
		if err != nil || !strings.HasSuffix(string(got), "+OK bye\r\n") {
			t.Errorf("%v, %q", err, got)
		}
		_ = c.Close()
	}
	b.end()
	if err := <-served; !errors.Is(err, pop3server.ErrServerClosed) {
		t.Error(err)
	}
}

// A client that sends a command and its line end in two packets does not wait for a delayed
// acknowledgement each time: its second packet is not held back by Nagle's algorithm for 40 ms. (As Tcl
// does.)
func TestTwoPacketsACommand(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	b := newBench(t, newShelf(), nil)
	served := make(chan error, 1)
	go func() { served <- b.srv.Serve(l) }()
	c, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := c.(*net.TCPConn).SetNoDelay(false); err != nil {
		t.Fatal(err)
	}
	in := bufio.NewReader(c)
	_, _ = in.ReadString('\n')
	slow := 0
	for range 40 {
		start := time.Now()
		_, _ = io.WriteString(c, "CAP")
		_, _ = io.WriteString(c, "A\r\n")
		for {
			line, err := in.ReadString('\n')
			if err != nil {
				t.Fatal(err)
			}
			if line == ".\r\n" {
				break
			}
		}
		if time.Since(start) > 35*time.Millisecond {
			slow++
		}
	}
	if slow > 35 { // without the cure, all of them
		t.Errorf("%d of 40 commands waited for an acknowledgement", slow)
	}
	b.end()
	<-served
}
