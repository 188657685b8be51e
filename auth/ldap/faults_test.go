package ldap_test

import (
	"bytes"
	"context"
	"io"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"dewey/auth"
	"dewey/auth/ldap"
)

// A door stands before a server: it counts connections, and may be told what to do with each.
type door struct {
	net.Listener
	open, most, all atomic.Int64
	wg              sync.WaitGroup
}

// serve listens and runs a handler for each connection, with its number from 1.
func serve(t *testing.T, handle func(n int64, c net.Conn)) *door {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	d := &door{Listener: l}
	conns := make(chan net.Conn, 1000)
	d.wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				close(conns)
				return
			}
			conns <- c
			n := d.all.Add(1)
			now := d.open.Add(1)
			for most := d.most.Load(); now > most && !d.most.CompareAndSwap(most, now); most = d.most.Load() {
			}
			d.wg.Go(func() {
				defer d.open.Add(-1)
				defer c.Close()
				handle(n, c)
			})
		}
	})
	t.Cleanup(func() {
		l.Close()
		for c := range conns {
			c.Close()
		}
		d.wg.Wait()
	})
	return d
}

func (d *door) url() string { return "ldap://" + d.Addr().String() }

// through hands a connection on to a directory; each request is shown first.
func through(to string, c net.Conn, request func(b []byte)) {
	s, err := net.Dial("tcp", strings.TrimPrefix(to, "ldap://"))
	if err != nil {
		return
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		_, _ = io.Copy(c, s)
		c.Close()
	}()
	buffer := make([]byte, 64<<10)
	for {
		n, err := c.Read(buffer)
		if err != nil {
			break
		}
		request(buffer[:n])
		if _, err := s.Write(buffer[:n]); err != nil {
			break
		}
	}
	s.Close()
	<-done
}

// bounded runs a call that has to end in time.
func bounded(t *testing.T, what string, most time.Duration, call func() error) (err error) {
	t.Helper()
	start := time.Now()
	err = call()
	if took := time.Since(start); took > most {
		t.Errorf("%s took %v (%v)", what, took, err)
	}
	return err
}

// slapd is stopped and killed in the middle of a login, when the user's password is on its way.
func TestCutInMidLogin(t *testing.T) {
	for _, s := range []syscall.Signal{syscall.SIGSTOP, syscall.SIGKILL} {
		d := start(t)
		var armed atomic.Bool
		front := serve(t, func(_ int64, c net.Conn) {
			through(d.url(), c, func(b []byte) {
				if bytes.Contains(b, []byte("secret of bob")) && armed.Swap(false) {
					d.signal(s)
				}
			})
		})
		c := d.config()
		c.URLs, c.Timeout = []string{front.url()}, time.Second
		b := open(t, c)
		for range 2 { // then its connections are kept
			_, err := login(b, "bob", "secret of bob")
			check(t, "before", err, fine)
		}
		armed.Store(true)
		err := bounded(t, "a login that is cut", 3*time.Second/2, func() error { _, err := login(b, "bob", "secret of bob"); return err })
		check(t, s.String()+" in mid-login", err, unclear)
		err = bounded(t, "the next one", 200*time.Millisecond, func() error { _, err := login(b, "alice", "secret of alice"); return err })
		check(t, s.String()+", right after", err, unclear)
		_, err = b.Recipient(t.Context(), "bob")
		check(t, s.String()+", mail", err, unclear)

		if s == syscall.SIGSTOP {
			d.signal(syscall.SIGCONT)
		} else {
			d.kill()
			d.run()
		}
		until(t, "it works again", func() bool { _, err := login(b, "bob", "secret of bob"); return err == nil })
		_, err = login(b, "bob", "wrong")
		check(t, "wrong, afterwards", err, refused)
	}
}

// A server that was started again meanwhile costs nobody a login.
func TestStaleConnections(t *testing.T) {
	d := start(t)
	b := open(t, d.config())
	for range 3 {
		_, err := login(b, "bob", "secret of bob")
		check(t, "login", err, fine)
		d.kill()
		d.run()
	}
	_, err := login(b, "bob", "wrong")
	check(t, "wrong", err, refused)
}

func TestFailover(t *testing.T) {
	d := start(t)
	var silent, armed, closed atomic.Bool
	first := serve(t, func(_ int64, c net.Conn) {
		if closed.Load() {
			return
		}
		through(d.url(), c, func(b []byte) {
			if armed.Load() && bytes.Contains(b, []byte("secret of bob")) {
				silent.Store(true)
			}
			for silent.Load() {
				time.Sleep(time.Millisecond)
			}
		})
	})
	second := serve(t, func(_ int64, c net.Conn) { through(d.url(), c, func([]byte) {}) })
	c := d.config()
	c.URLs, c.Timeout = []string{first.url(), second.url()}, 2*time.Second
	b := open(t, c)
	expect := func(what string, most time.Duration) {
		t.Helper()
		err := bounded(t, what, most, func() error { _, err := login(b, "bob", "secret of bob"); return err })
		check(t, what, err, fine)
	}
	expect("the first works", time.Second)
	if second.all.Load() != 0 {
		t.Error("the second one was asked")
	}
	silent.Store(true)
	expect("the first is slow", 2*time.Second)
	before := first.all.Load()
	expect("and is not asked again at once", time.Second)
	if first.all.Load() != before {
		t.Error("the first one was asked again")
	}
	silent.Store(false)
	ldap.Later(b)
	before = second.all.Load()
	expect("the first is back", time.Second)
	expect("the first is back", time.Second)
	if first.all.Load() == 0 || second.all.Load() != before {
		t.Error("the first one is not asked again")
	}
	armed.Store(true)
	expect("the first falls silent in mid-login", 2*time.Second)
	armed.Store(false)
	silent.Store(false)
	closed.Store(true)
	b2 := open(t, c)
	err := bounded(t, "the first one hangs up", time.Second, func() error { _, err := login(b2, "bob", "wrong"); return err })
	check(t, "wrong at the second", err, refused)
}

// No more connections than allowed are open, busy and idle ones together, and all logins come to an answer.
func TestPoolBound(t *testing.T) {
	d := start(t)
	front := serve(t, func(_ int64, c net.Conn) { through(d.url(), c, func([]byte) {}) })
	for _, most := range []int{1, 3} {
		front.most.Store(0)
		c := d.config()
		c.URLs, c.Connections, c.Timeout = []string{front.url()}, most, 30*time.Second
		b := open(t, c)
		var wg sync.WaitGroup
		for i := range 60 {
			wg.Go(func() {
				user, password, want := "bob", "secret of bob", fine
				switch i % 3 {
				case 1:
					user, want = "mallory", refused
				case 2:
					user, want = "nobody", stranger
				}
				_, err := login(b, user, password)
				check(t, user, err, want)
			})
		}
		wg.Wait()
		until(t, "as many are left as are allowed", func() bool { return front.open.Load() <= int64(most) })
		b.Close()
		until(t, "all are closed", func() bool { return front.open.Load() == 0 })
		// The other side sees a connection close a moment after it is replaced.
		if got := front.most.Load(); got > int64(most)*2 || most > 1 && got < 2 {
			t.Errorf("%d connections at once; %d are allowed", got, most)
		}
	}
}

// Who waits for a connection waits no longer than the timeout, nor than he wants; Close ends what is under way.
func TestWaiting(t *testing.T) {
	held := make(chan struct{})
	front := serve(t, func(_ int64, c net.Conn) { <-held })
	defer close(held)
	c := ldap.Config{URLs: []string{front.url()}, DN: "uid={user}," + people, Connections: 1, Timeout: 300 * time.Millisecond}
	b := open(t, c)
	var wg sync.WaitGroup
	for range 5 {
		wg.Go(func() {
			err := bounded(t, "a login", 600*time.Millisecond, func() error { _, err := login(b, "bob", "secret"); return err })
			check(t, "waiting", err, unclear)
		})
	}
	wg.Wait()

	c.URLs = []string{strings.Replace(front.url(), "ldap:", "ldaps:", 1)}
	err := bounded(t, "a login by TLS", 600*time.Millisecond, func() error { _, err := login(open(t, c), "bob", "secret"); return err })
	check(t, "no handshake", err, unclear)

	c.URLs, c.Timeout = []string{front.url()}, time.Minute
	b = open(t, c)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	err = bounded(t, "a login of one who has gone", time.Second, func() error {
		_, err := b.CheckPassword(ctx, auth.Attempt{User: "bob", Password: "secret"})
		return err
	})
	check(t, "gone", err, unclear)
	result := make(chan error)
	go func() { _, err := login(b, "bob", "secret"); result <- err }()
	before := front.all.Load()
	until(t, "it has connected", func() bool { return front.all.Load() > before || front.open.Load() > 0 })
	b.Close()
	check(t, "closed", <-result, unclear)
	_, err = login(b, "bob", "secret")
	check(t, "after Close", err, unclear)
}

// A server that hangs up on a connection that was kept, just as it is asked, costs nobody a login.
func TestHangsUpWhenAsked(t *testing.T) {
	d := start(t)
	var armed atomic.Bool
	front := serve(t, func(_ int64, c net.Conn) {
		through(d.url(), c, func([]byte) {
			if armed.Swap(false) {
				c.Close()
			}
		})
	})
	c := d.config()
	c.URLs = []string{front.url()}
	b := open(t, c)
	for range 3 {
		_, err := login(b, "bob", "secret of bob")
		check(t, "login", err, fine)
		armed.Store(true)
	}
}
