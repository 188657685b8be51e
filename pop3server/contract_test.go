package pop3server_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"reflect"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"dewey/auth"
	"dewey/maildrop"
	"dewey/pop3server"
)

// A message that a client fetches, deletes and quits from in one packet is not removed if the client is
// gone before it could be sent.
func TestNothingRemovedUnsent(t *testing.T) {
	mail := newShelf(sized(120))
	b := newBench(t, mail, nil)
	c := b.dial("127.0.0.1")
	in := bufio.NewReader(c)
	_, _ = in.ReadString('\n')
	_, _ = io.WriteString(c, "USER mrose\r\n")
	_, _ = in.ReadString('\n')
	_, _ = io.WriteString(c, "PASS tanstaaf\r\n")
	_, _ = in.ReadString('\n')
	_, _ = io.WriteString(c, "RETR 1\r\nDELE 1\r\nQUIT\r\n")
	_ = c.Close()
	b.settle(t)
	if mail.gone() != "" {
		t.Errorf("removed %s", mail.gone())
	}
}

// A panic, wherever a store or a hook has it, ends its session alone and leaves nothing locked.
func TestPanicAnywhere(t *testing.T) {
	for _, where := range []string{"Messages", "Close", "Connected", "Closed", "LoggedIn"} {
		t.Run(where, func(t *testing.T) {
			var done atomic.Bool
			boom := func(here string) {
				if here == where && done.CompareAndSwap(false, true) {
					panic("ordered")
				}
			}
			mail := newShelf(sized(120))
			b := newBench(t, mail, func(s *pop3server.Server) {
				s.Maildrops = storeFunc(func(ctx context.Context, o maildrop.Owner) (maildrop.Maildrop, error) {
					d, err := mail.Open(ctx, o)
					if err != nil {
						return nil, err
					}
					return explosive{d, boom}, nil
				})
				s.Settings.MaxPerUser, s.Settings.MaxConnections = 1, 1
				s.Hooks.Connected = func(pop3server.Session) { boom("Connected") }
				s.Hooks.LoggedIn = func(pop3server.Session, int, int64) { boom("LoggedIn") }
				s.Hooks.Closed = func(pop3server.Session, pop3server.End) { boom("Closed") }
			})
			_ = b.ask(t, login+"QUIT\r\n")
			b.settle(t)
			if got := b.ask(t, login+"QUIT\r\n"); !strings.HasSuffix(got, "+OK 1 message (120 octets)\r\n+OK bye\r\n") {
				t.Errorf("the next session: %q", got)
			}
			b.end()
			if !strings.Contains(b.log.String(), "panic in session") {
				t.Error("not logged")
			}
		})
	}
}

type storeFunc func(context.Context, maildrop.Owner) (maildrop.Maildrop, error)

func (f storeFunc) Open(ctx context.Context, o maildrop.Owner) (maildrop.Maildrop, error) {
	return f(ctx, o)
}

type explosive struct {
	maildrop.Maildrop
	boom func(string)
}

func (e explosive) Messages() []maildrop.Message { e.boom("Messages"); return e.Maildrop.Messages() }

func (e explosive) Close() error { err := e.Maildrop.Close(); e.boom("Close"); return err }

// Whose address is unknown is not taken for somebody on this machine, unless the connection is of a kind
// that can't come from elsewhere.
func TestPlaintextByAddress(t *testing.T) {
	for _, c := range []struct {
		from  net.Addr
		local bool
	}{
		{&net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 9}, true},
		{&net.TCPAddr{IP: net.IPv6loopback, Port: 9}, true},
		{&net.TCPAddr{IP: net.ParseIP("::ffff:127.0.0.1"), Port: 9}, true},
		{&net.TCPAddr{IP: net.IPv4(203, 0, 113, 9), Port: 9}, false},
		{&net.TCPAddr{IP: net.ParseIP("2001:db8::1"), Port: 9}, false},
		{&net.UDPAddr{IP: net.IPv4(203, 0, 113, 9), Port: 9}, false},
		{&net.UDPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 9}, true},
		{&net.UnixAddr{Name: "/run/x", Net: "unix"}, true},
		{someAddr("203.0.113.9:9"), false},
		{someAddr("stream 7"), false},
	} {
		b := newBench(t, newShelf(), nil)
		here, there := net.Pipe()
		b.conns <- fromAddr{there, c.from}
		go func() { _, _ = io.WriteString(here, "USER mrose\r\nQUIT\r\n") }()
		out, _ := io.ReadAll(here)
		if got := strings.Contains(string(out), "ready\r\n+OK\r\n"); got != c.local {
			t.Errorf("%v: %q", c.from, out)
		}
		b.end()
	}
}

type someAddr string

func (a someAddr) Network() string { return "some" }
func (a someAddr) String() string  { return string(a) }

type fromAddr struct {
	net.Conn
	addr net.Addr
}

func (f fromAddr) RemoteAddr() net.Addr { return f.addr }

// What a checker proves is what the store is asked for; a user without a name is nobody.
func TestIdentity(t *testing.T) {
	mail := newShelf()
	var attempt auth.Attempt
	id := auth.Identity{User: "Mary", Home: "/home/mary"}
	b := newBench(t, mail, func(s *pop3server.Server) {
		s.Users = auth.PasswordFunc(func(_ context.Context, a auth.Attempt) (auth.Identity, error) {
			attempt = a
			return id, nil
		})
		s.Settings.MaxPerUser = 1
	})
	_ = b.ask(t, "USER mary\r\nPASS a b\r\nQUIT\r\n")
	if want := (maildrop.Owner{Name: "Mary", Home: "/home/mary"}); !reflect.DeepEqual(mail.owner, want) {
		t.Errorf("opened for %+v", mail.owner)
	}
	if want := (auth.Attempt{User: "mary", Password: "a b", Remote: netip.MustParseAddr("127.0.0.1")}); attempt != want {
		t.Errorf("attempt %+v", attempt)
	}
	id = auth.Identity{}
	for range 3 {
		if got := b.ask(t, "USER mary\r\nPASS a b\r\nQUIT\r\n"); !strings.Contains(got, "-ERR [SYS/TEMP]") {
			t.Errorf("nobody got in: %q", got)
		}
	}
}

// A login that fails after the password, at the maildrop, gives its place back.
func TestPlaceOfFailedLogin(t *testing.T) {
	mail := newShelf()
	mail.openErr = errors.New("input/output error")
	b := newBench(t, mail, func(s *pop3server.Server) { s.Settings.MaxPerUser = 1 })
	v := b.visit(t, "127.0.0.1")
	v.login(t, "-ERR [SYS/TEMP] temporary fault, try again later")
	mail.mu.Lock()
	mail.openErr = nil
	mail.mu.Unlock()
	v.ask(t, "USER mrose", "+OK")
	v.ask(t, "PASS tanstaaf", "+OK 0 messages (0 octets)")
}

// Refused connections have a hook of their own, so that those for others come in pairs.
func TestHooksPair(t *testing.T) {
	counts := make(chan string, 100)
	b := newBench(t, newShelf(), func(s *pop3server.Server) {
		s.Settings.MaxConnections = 1
		s.Hooks.Connected = func(pop3server.Session) { counts <- "connected" }
		s.Hooks.Closed = func(pop3server.Session, pop3server.End) { counts <- "closed" }
		s.Hooks.Refused = func(pop3server.Session, error) { counts <- "refused" }
	})
	v := b.visit(t, "127.0.0.1")
	_ = v.line(t)
	_ = b.ask(t, "")
	v.ask(t, "QUIT", "+OK bye")
	for _, want := range []string{"connected", "refused", "closed"} {
		if got := <-counts; got != want {
			t.Errorf("%s, want %s", got, want)
		}
	}
}

// Bounds that are lowered hold for those who are connected, and how a session ended can be told.
func TestReconfigureBounds(t *testing.T) {
	ends := make(chan error, 100)
	b := newBench(t, newShelf(), func(s *pop3server.Server) {
		s.Hooks.Closed = func(_ pop3server.Session, e pop3server.End) { ends <- e.Err }
	})
	var before []*visitor
	for range 5 {
		v := b.visit(t, "127.0.0.1")
		_ = v.line(t)
		before = append(before, v)
	}
	if err := b.srv.Reconfigure(pop3server.Settings{MaxUnauthenticated: 2}); err != nil {
		t.Fatal(err)
	}
	last := b.visit(t, "127.0.0.1")
	_ = last.line(t)
	for i, v := range before[:4] {
		if !v.hungUp() {
			t.Errorf("connection %d is still there", i+1)
		}
		if err := <-ends; !errors.Is(err, pop3server.ErrPushedOut) {
			t.Errorf("ended by %v", err)
		}
	}
	before[4].ask(t, "NOOP", "-ERR command not valid in this state")
}

// A client whose password is being checked counts as one that has just come: others do not push it out.
func TestLoginIsNotPushedOut(t *testing.T) {
	checking, go_ := make(chan struct{}), make(chan struct{})
	b := newBench(t, newShelf(), func(s *pop3server.Server) {
		s.Settings.MaxUnauthenticated = 3
		s.Users = auth.PasswordFunc(func(_ context.Context, a auth.Attempt) (auth.Identity, error) {
			close(checking)
			<-go_
			return auth.Identity{User: a.User}, nil
		})
	})
	first := b.visit(t, "127.0.0.1")
	_ = first.line(t)
	for range 2 {
		_ = b.visit(t, "127.0.0.1").line(t)
	}
	first.ask(t, "USER mrose", "+OK")
	_, _ = io.WriteString(first, "PASS x\r\n")
	<-checking
	for range 2 {
		_ = b.visit(t, "127.0.0.1").line(t)
	}
	close(go_)
	if got := first.line(t); got != "+OK 0 messages (0 octets)" {
		t.Errorf("got %q", got)
	}
}

// The sessions of a listener end when the context does that was given for it.
func TestBaseContext(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	b := newBench(t, newShelf(), func(s *pop3server.Server) {
		s.BaseContext = func(net.Listener) context.Context { return ctx }
	})
	v := b.visit(t, "127.0.0.1")
	v.login(t, "+OK 0 messages (0 octets)")
	cancel()
	if !v.hungUp() {
		t.Error("the session goes on")
	}
}

// Close waits for UPDATE alone: a backend that is stuck does not hold it.
func TestCloseIsNotHeld(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		stuck := make(chan struct{})
		b := newBench(t, newShelf(), func(s *pop3server.Server) {
			s.Users = auth.PasswordFunc(func(context.Context, auth.Attempt) (auth.Identity, error) {
				<-stuck
				return auth.Identity{}, auth.ErrRejected
			})
		})
		v := b.visit(t, "127.0.0.1")
		_ = v.line(t)
		v.ask(t, "USER mrose", "+OK")
		_, _ = io.WriteString(v, "PASS x\r\n")
		synctest.Wait()
		start := time.Now()
		_ = b.srv.Close()
		if d := time.Since(start); d > 0 {
			t.Errorf("Close took %v", d)
		}
		close(stuck)
		b.end()
	})
}

// Close waits for what UPDATE removes, but not for a client that takes no reply.
func TestCloseDoesNotWaitForReplies(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		mail := newShelf(sized(120))
		b := newBench(t, mail, nil)
		v := b.visit(t, "127.0.0.1")
		v.login(t, "+OK 1 message (120 octets)")
		v.ask(t, "DELE 1", "+OK message 1 deleted")
		_, _ = io.WriteString(v, "QUIT\r\n") // and reads nothing
		synctest.Wait()
		start := time.Now()
		_ = b.srv.Close()
		if d := time.Since(start); d > 2*time.Second {
			t.Errorf("Close took %v", d)
		}
		if mail.gone() != "uid1" {
			t.Errorf("removed %q", mail.gone())
		}
		b.end()
	})
}

// Shutdown with nobody connected succeeds even if its context has ended.
func TestShutdownOfNobody(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	for range 100 {
		srv := &pop3server.Server{}
		if err := srv.Shutdown(ctx); err != nil {
			t.Fatal(err)
		}
	}
}

// A listener that fails for good ends Serve; one that is out of file descriptors does not.
func TestAcceptErrors(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		srv := &pop3server.Server{Users: users, Maildrops: newShelf()}
		broken := errors.New("broken for good")
		l := &failingListener{errs: []error{
			&net.OpError{Op: "accept", Err: syscall.EMFILE}, &net.OpError{Op: "accept", Err: syscall.ECONNABORTED}, broken,
		}}
		if err := srv.Serve(l); !errors.Is(err, broken) || len(l.errs) != 0 {
			t.Errorf("Serve returned %v, with %d errors to come", err, len(l.errs))
		}
	})
}

type failingListener struct{ errs []error }

func (l *failingListener) Accept() (net.Conn, error) {
	err := l.errs[0]
	l.errs = l.errs[1:]
	return nil, err
}
func (l *failingListener) Close() error   { return nil }
func (l *failingListener) Addr() net.Addr { return &net.TCPAddr{} }

// A connection that hands over the last octets together with its end loses no response.
func TestResponseAtTheEnd(t *testing.T) {
	b := newBench(t, newShelf(), nil)
	here, there := net.Pipe()
	b.conns <- &abrupt{Conn: there, text: "CAPA\r\nQUI"}
	out, err := io.ReadAll(here)
	if err != nil || !strings.Contains(string(out), "IMPLEMENTATION dewey\r\n.\r\n") {
		t.Errorf("%q, %v", out, err)
	}
}

type abrupt struct {
	net.Conn
	text string
}

func (a *abrupt) Read(p []byte) (int, error) {
	n := copy(p, a.text)
	a.text = a.text[n:]
	return n, io.EOF
}

// Trap 51: a connection that does not tell its address, since a PROXY header is to come first, holds up
// nobody else.
func TestTrap51RemoteAddrBlocks(t *testing.T) {
	b := newBench(t, newShelf(), nil)
	never := make(chan struct{})
	here, there := net.Pipe()
	b.conns <- blockedAddr{there, never}
	if got := b.ask(t, "QUIT\r\n"); got != "+OK dewey ready\r\n+OK bye\r\n" {
		t.Errorf("got %q", got)
	}
	close(never)
	_ = here.Close()
}

type blockedAddr struct {
	net.Conn
	until chan struct{}
}

func (b blockedAddr) RemoteAddr() net.Addr { <-b.until; return b.Conn.RemoteAddr() }

// Trap 21: marks are no list to be searched. (A search for each of these would be two thousand million
// steps.)
func TestTrap21ManyMarks(t *testing.T) {
	const n = 64_000
	texts := make([]string, n)
	for i := range texts {
		texts[i] = "a: b\r\n\r\n"
	}
	mail := newShelf(texts...)
	b := newBench(t, mail, nil)
	var input strings.Builder
	input.WriteString(login)
	for i := range n {
		fmt.Fprintf(&input, "DELE %d\r\n", i+1)
	}
	input.WriteString("STAT\r\nRSET\r\nSTAT\r\nQUIT\r\n")
	got := b.ask(t, input.String())
	if !strings.HasSuffix(got, fmt.Sprintf("+OK 0 0\r\n+OK %d messages (%d octets)\r\n+OK %d %d\r\n+OK bye\r\n", n, 8*n, n, 8*n)) {
		t.Errorf("ends %q", got[max(0, len(got)-200):])
	}
}

// Trap 52: MPTCP is off, which Landlock's rules for binding do not see.
func TestTrap52NoMultipath(t *testing.T) {
	srv := &pop3server.Server{Users: users, Maildrops: newShelf(), BaseContext: func(l net.Listener) context.Context {
		raw, err := l.(*net.TCPListener).SyscallConn()
		if err != nil {
			t.Error(err)
		}
		_ = raw.Control(func(fd uintptr) {
			if p, err := syscall.GetsockoptInt(int(fd), syscall.SOL_SOCKET, 38); err != nil || p != syscall.IPPROTO_TCP { // SO_PROTOCOL
				t.Errorf("protocol %d, %v", p, err)
			}
		})
		_ = l.Close()
		return context.Background()
	}}
	if err := srv.ListenAndServe("127.0.0.1:0"); !errors.Is(err, net.ErrClosed) {
		t.Error(err)
	}
}
