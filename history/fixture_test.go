package history

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"dewey/auth"
	"dewey/maildrop"
	"dewey/pop3server"
	"dewey/store/mem"
)

// A logBook keeps what is logged.
type logBook struct {
	mu   sync.Mutex
	text strings.Builder
}

func (l *logBook) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *logBook) count(words string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Count(l.text.String(), words)
}

// recorder returns one with a log, and starts it; stop ends it and waits.
func recorder(o Options) (r *Recorder, log *logBook, stop func()) {
	log = &logBook{}
	o.Logger = slog.New(slog.NewTextHandler(log, nil))
	r = New(o)
	return r, log, run(r)
}

func run(r *Recorder) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		r.Run(ctx)
	}()
	return func() {
		cancel()
		<-done
	}
}

const month = 30 * 24 * time.Hour

// read returns all that is recorded of a user.
func read(t testing.TB, dir string, q Query) []Record {
	t.Helper()
	var all []Record
	for r, err := range q.Records(dir) {
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, r)
	}
	return all
}

func sessions(t testing.TB, dir string, q Query) []Session {
	t.Helper()
	var all []Session
	for s, err := range q.Sessions(dir) {
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, s)
	}
	return all
}

// line writes a record's messages and end for comparison.
func line(records []Record) string {
	var b strings.Builder
	for _, r := range records {
		for _, m := range r.Messages {
			fmt.Fprintf(&b, "%s %s %d; ", m.Kind, m.UID, m.Octets)
		}
		if r.End != nil {
			why, _, _ := strings.Cut(r.End.Why, ":")
			fmt.Fprintf(&b, "%s %d/%d %d %d %d", why, r.End.Fetched, r.End.Octets, r.End.Cut, r.End.Removed, r.End.Kept)
		}
	}
	return b.String()
}

// A faulty store fails to remove, or in the middle of each message, if it is told to.
type faulty struct {
	*mem.Store
	remove, read bool
}

func (f faulty) Open(ctx context.Context, o maildrop.Owner) (maildrop.Maildrop, error) {
	d, err := f.Store.Open(ctx, o)
	return faultyDrop{d, f}, err
}

type faultyDrop struct {
	maildrop.Maildrop
	f faulty
}

var errDisk = errors.New("the disk\nhas a fault")

func (d faultyDrop) Remove(ctx context.Context, numbers []int) error {
	if d.f.remove {
		return errDisk
	}
	return d.Maildrop.Remove(ctx, numbers)
}

func (d faultyDrop) Retrieve(ctx context.Context, n int) (maildrop.Message, io.ReadCloser, error) {
	m, body, err := d.Maildrop.Retrieve(ctx, n)
	if d.f.read && err == nil {
		body = cutBody{io.MultiReader(io.LimitReader(body, 10), failing{}), body}
	}
	return m, body, err
}

type cutBody struct {
	io.Reader
	io.Closer
}

type failing struct{}

func (failing) Read([]byte) (int, error) { return 0, errDisk }

// A house is a server whose connections are pipes.
type house struct {
	srv *pop3server.Server
	l   *pipes
}

func newHouse(t *testing.T, store maildrop.Store, hooks pop3server.Hooks) *house {
	t.Helper()
	h := &house{l: &pipes{conns: make(chan net.Conn), done: make(chan struct{})}}
	h.srv = &pop3server.Server{
		Users: auth.PasswordFunc(func(_ context.Context, a auth.Attempt) (auth.Identity, error) {
			return auth.Identity{User: a.User}, nil
		}),
		Maildrops: store,
		Hooks:     hooks,
		Settings:  pop3server.Settings{Plaintext: pop3server.PlaintextAlways},
		Logger:    slog.New(slog.DiscardHandler),
	}
	server := h.srv
	go server.Serve(h.l)
	t.Cleanup(func() { _ = h.srv.Close() })
	return h
}

// A client is a connection to a house.
type client struct {
	net.Conn
	in *bufio.Reader
}

// login connects and logs in.
func (h *house) login(t testing.TB, user string) *client {
	t.Helper()
	near, far := net.Pipe()
	h.l.conns <- far
	c := &client{near, bufio.NewReader(near)}
	c.line(t)
	c.say(t, "USER "+user)
	c.say(t, "PASS x")
	return c
}

func (c *client) line(t testing.TB) string {
	t.Helper()
	got, err := c.in.ReadString('\n')
	if err != nil {
		t.Error(err)
	}
	return strings.TrimRight(got, "\r\n")
}

func (c *client) say(t testing.TB, command string) string {
	t.Helper()
	if _, err := io.WriteString(c, command+"\r\n"); err != nil {
		t.Error(err)
	}
	return c.line(t)
}

// fetch reads a message and returns how many octets came, or -1 if it was cut off.
func (c *client) fetch(t testing.TB, n int) int {
	t.Helper()
	c.say(t, fmt.Sprintf("RETR %d", n))
	octets := 0
	for {
		got, err := c.in.ReadString('\n')
		if err != nil {
			return -1
		}
		if got == ".\r\n" {
			return octets
		}
		octets += len(got)
	}
}

type pipes struct {
	conns chan net.Conn
	done  chan struct{}
	once  sync.Once
}

func (p *pipes) Accept() (net.Conn, error) {
	select {
	case c := <-p.conns:
		return addressed{c}, nil
	case <-p.done:
		return nil, net.ErrClosed
	}
}

func (p *pipes) Close() error {
	p.once.Do(func() { close(p.done) })
	return nil
}

func (p *pipes) Addr() net.Addr { return &net.TCPAddr{IP: net.IPv4(192, 0, 2, 9), Port: 110} }

// addressed is a pipe with the addresses of the documentation.
type addressed struct{ net.Conn }

func (addressed) RemoteAddr() net.Addr { return &net.TCPAddr{IP: net.IPv4(192, 0, 2, 1), Port: 1024} }

func (addressed) LocalAddr() net.Addr { return &net.TCPAddr{IP: net.IPv4(192, 0, 2, 9), Port: 110} }

// someone is a session for hooks that are called by hand.
func someone(id uint64, user string) pop3server.Session {
	return pop3server.Session{ID: id, User: user, Method: "PASS", Remote: netip.MustParseAddrPort("192.0.2.1:1024")}
}
