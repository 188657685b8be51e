package pop3server_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"dewey/auth"
	"dewey/maildrop"
	"dewey/maildrop/message"
	"dewey/pop3server"
)

// A shelf is a maildrop.Store for tests of the protocol: one maildrop, for whoever logs in, with faults
// to order.
type shelf struct {
	mu       sync.Mutex
	mail     []letter
	removed  []string // unique-ids, in the order of removal
	held     bool
	opened   int
	maxUID   int
	openErr  error                 // Open fails
	readErr  map[string]error      // Retrieve of this unique-id fails
	cutAfter map[string]int        // reading this one fails after so many octets
	claim    map[string]int64      // the scan's wrong size of this one
	hold     func(context.Context) // Remove calls it first
	failDele map[string]error      // Remove fails for this one
	panicOn  string                // Retrieve of this one panics
	trim     map[string]int        // this one ends, cleanly, so many octets early
	vanish   string                // this one is removed underneath when it is first asked for
	owner    maildrop.Owner        // of the last Open
	bodies   int                   // that are open
	folders  []string              // those there are; each with all of the mail
	dateErr  error                 // Received fails
}

type letter struct {
	uid, text string
	at        time.Time // of its delivery
}

func newShelf(texts ...string) *shelf {
	s := &shelf{}
	for _, t := range texts {
		s.add(t)
	}
	return s
}

func (s *shelf) add(text string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.maxUID++
	s.mail = append(s.mail, letter{fmt.Sprintf("uid%d", s.maxUID), text, time.Now()})
}

// lose removes a message from underneath a session.
func (s *shelf) lose(uid string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.mail = slices.DeleteFunc(s.mail, func(l letter) bool { return l.uid == uid })
}

func (s *shelf) gone() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return strings.Join(s.removed, " ")
}

func (s *shelf) Open(_ context.Context, owner maildrop.Owner) (maildrop.Maildrop, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.owner = owner
	if s.openErr != nil {
		return nil, s.openErr
	}
	if f := owner.View.Folder; f != "" && !slices.Contains(s.folders, f) {
		return nil, fmt.Errorf("folder %q: %w", f, maildrop.ErrNoFolder)
	}
	if s.held {
		return nil, maildrop.ErrInUse
	}
	s.held = true
	s.opened++
	o := &opened{shelf: s}
	for _, l := range s.mail {
		sizes, _ := message.Measure(strings.NewReader(l.text))
		m := maildrop.Message{UID: l.uid, Octets: sizes.Octets(), Surrogate: sizes.Surrogate}
		if n, ok := s.claim[l.uid]; ok {
			m.Octets = n
		}
		o.scan = append(o.scan, m)
	}
	return o, nil
}

type opened struct {
	shelf *shelf
	scan  []maildrop.Message
}

func (o *opened) Messages() []maildrop.Message { return o.scan }

func (o *opened) Retrieve(_ context.Context, n int) (maildrop.Message, io.ReadCloser, error) {
	o.shelf.mu.Lock()
	defer o.shelf.mu.Unlock()
	if n < 1 || n > len(o.scan) {
		return maildrop.Message{}, nil, maildrop.ErrNoMessage
	}
	uid := o.scan[n-1].UID
	if uid == o.shelf.panicOn {
		panic("ordered")
	}
	if uid == o.shelf.vanish {
		o.shelf.mail = slices.DeleteFunc(o.shelf.mail, func(l letter) bool { return l.uid == uid })
	}
	if err := o.shelf.readErr[uid]; err != nil {
		return maildrop.Message{}, nil, err
	}
	for _, l := range o.shelf.mail {
		if l.uid == uid {
			sizes, _ := message.Measure(strings.NewReader(l.text))
			m := maildrop.Message{UID: uid, Octets: sizes.Octets(), Surrogate: sizes.Surrogate}
			var r io.Reader = message.NewReader(strings.NewReader(l.text[:len(l.text)-o.shelf.trim[uid]]))
			if cut, ok := o.shelf.cutAfter[uid]; ok {
				r = io.MultiReader(io.LimitReader(r, int64(cut)), failingReader{})
			}
			o.shelf.bodies++
			return m, &body{r, o.shelf}, nil
		}
	}
	return maildrop.Message{}, nil, fmt.Errorf("unique-id %s: %w", uid, maildrop.ErrGone)
}

func (o *opened) Remove(ctx context.Context, numbers []int) error {
	if o.shelf.hold != nil {
		o.shelf.hold(ctx)
	}
	var errs []error
	for _, n := range numbers {
		uid := o.scan[n-1].UID
		if err := o.shelf.failDele[uid]; err != nil {
			errs = append(errs, err)
			continue
		}
		o.shelf.lose(uid)
		o.shelf.mu.Lock()
		o.shelf.removed = append(o.shelf.removed, uid)
		o.shelf.mu.Unlock()
	}
	return errors.Join(errs...)
}

func (o *opened) Close() error {
	o.shelf.mu.Lock()
	defer o.shelf.mu.Unlock()
	o.shelf.held = false
	return nil
}

func (o *opened) Received(_ context.Context, n int) (time.Time, error) {
	o.shelf.mu.Lock()
	defer o.shelf.mu.Unlock()
	for _, l := range o.shelf.mail {
		if l.uid == o.scan[n-1].UID {
			return l.at, o.shelf.dateErr
		}
	}
	return time.Time{}, maildrop.ErrGone
}

type failingReader struct{}

func (failingReader) Read([]byte) (int, error) { return 0, errors.New("input/output error") }

// body counts that it is closed.
type body struct {
	io.Reader
	shelf *shelf
}

func (b *body) Close() error {
	b.shelf.mu.Lock()
	defer b.shelf.mu.Unlock()
	b.shelf.bodies--
	return nil
}

// users is an auth.PasswordChecker of two users.
var users = auth.PasswordFunc(func(_ context.Context, a auth.Attempt) (auth.Identity, error) {
	switch {
	case a.User == "broken":
		return auth.Identity{}, errors.New("backend down: secret detail")
	case a.User == "mrose" && a.Password == "tanstaaf", a.User == "spaces" && a.Password == " a  secret ":
		return auth.Identity{User: a.User}, nil
	}
	return auth.Identity{}, fmt.Errorf("%q: %w", a.User, auth.ErrRejected)
})

// A listener hands over connections that a test makes: pipes with addresses.
type listener struct {
	conns chan net.Conn
	once  sync.Once
	done  chan struct{}
}

func newListener() *listener {
	return &listener{conns: make(chan net.Conn), done: make(chan struct{})}
}

func (l *listener) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.done:
		return nil, net.ErrClosed
	}
}

func (l *listener) Close() error { l.once.Do(func() { close(l.done) }); return nil }

func (l *listener) Addr() net.Addr { return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 110} }

// dial makes a connection that seems to come from the given address.
func (l *listener) dial(from string) net.Conn {
	here, there := net.Pipe()
	select {
	case l.conns <- addressed{there, from}:
	case <-l.done:
		_ = there.Close()
	}
	return here
}

type addressed struct {
	net.Conn
	from string
}

func (a addressed) RemoteAddr() net.Addr {
	return net.TCPAddrFromAddrPort(netip.AddrPortFrom(netip.MustParseAddr(a.from), 1024))
}

// A bench is a running server, its store and its log.
type bench struct {
	*listener
	srv  *pop3server.Server
	mail *shelf
	log  *syncBuffer
	end  func()
}

// newBench starts a server. It ends with the test, or with end inside a synctest bubble.
func newBench(t *testing.T, mail *shelf, change func(*pop3server.Server)) *bench {
	t.Helper()
	b := &bench{listener: newListener(), mail: mail, log: &syncBuffer{}}
	b.srv = &pop3server.Server{
		Users:     users,
		Maildrops: mail,
		Settings:  pop3server.Settings{FailureDelay: time.Second},
		Logger:    slog.New(slog.NewTextHandler(b.log, &slog.HandlerOptions{Level: slog.LevelDebug})),
	}
	if change != nil {
		change(b.srv)
	}
	done := make(chan error, 1)
	go func() { done <- b.srv.Serve(b.listener) }()
	b.end = sync.OnceFunc(func() {
		_ = b.srv.Close()
		_ = b.srv.Shutdown(context.Background()) // and all sessions have ended
		if err := <-done; !errors.Is(err, pop3server.ErrServerClosed) {
			t.Errorf("Serve returned %v", err)
		}
		if mail.held || mail.bodies != 0 {
			t.Errorf("the maildrop is still held (%v), or %d messages are still open", mail.held, mail.bodies)
		}
	})
	t.Cleanup(b.end)
	return b
}

type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *syncBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *syncBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

// ask sends input over a new connection while it reads, and returns all that the server sent until it
// hung up.
func (b *bench) ask(t *testing.T, input string) string {
	t.Helper()
	c := b.dial("127.0.0.1")
	defer c.Close()
	go func() { _, _ = io.WriteString(c, input) }()
	out, err := io.ReadAll(c)
	if err != nil {
		t.Error(err)
	}
	return string(out)
}

const login = "USER mrose\r\nPASS tanstaaf\r\n"
