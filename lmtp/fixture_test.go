package lmtp_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"dewey/lmtp"
	"dewey/maildrop"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// A box is a maildrop.Depositor for tests, with faults to order. It checks that what is begun is ended.
type box struct {
	mu       sync.Mutex
	mail     map[string][]string      // by owner
	octets   map[string]int           // committed, where keep is false
	drop     bool                     // count octets, do not keep them
	faults   map[string]error         // by "deposit", "write", "commit", "discard" and the owner; errPanic panics
	hold     func(step, owner string) // called at each step
	begun    int
	ended    int // discarded: each once
	commits  int
	mistakes []string
}

var (
	errPanic = errors.New("panic")
	faultOf  = map[string]error{"full": maildrop.ErrFull, "nospace": syscall.ENOSPC, "quota": syscall.EDQUOT, "files": syscall.EMFILE, "io": errors.New("secret detail"), "panic": errPanic}
)

func newBox() *box {
	return &box{mail: make(map[string][]string), octets: make(map[string]int), faults: make(map[string]error)}
}

func (b *box) step(name, owner string) error {
	b.mu.Lock()
	err, hold := b.faults[name+" "+owner], b.hold
	b.mu.Unlock()
	if hold != nil {
		hold(name, owner)
	}
	if err == errPanic {
		panic("ordered by the test")
	}
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	return nil
}

func (b *box) Deposit(_ context.Context, owner maildrop.Owner) (maildrop.Deposit, error) {
	if err := b.step("deposit", owner.Name); err != nil {
		return nil, err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.begun++
	return &deposit{box: b, owner: owner.Name}, nil
}

type deposit struct {
	box       *box
	owner     string
	text      bytes.Buffer
	n         int
	failed    bool
	committed bool
	discarded bool
}

func (d *deposit) Write(p []byte) (int, error) {
	if d.failed || d.committed || d.discarded {
		d.box.mistake("Write after the end, for " + d.owner)
	}
	if err := d.box.step("write", d.owner); err != nil {
		d.failed = true
		return 0, err
	}
	d.n += len(p)
	if d.box.drop {
		return len(p), nil
	}
	return d.text.Write(p)
}

func (d *deposit) Commit(context.Context) error {
	if d.failed || d.committed || d.discarded {
		d.box.mistake("Commit after the end, for " + d.owner)
	}
	if err := d.box.step("commit", d.owner); err != nil {
		d.failed = true
		return err
	}
	d.committed = true
	d.box.mu.Lock()
	defer d.box.mu.Unlock()
	d.box.commits++
	d.box.octets[d.owner] += d.n
	if !d.box.drop {
		d.box.mail[d.owner] = append(d.box.mail[d.owner], d.text.String())
	}
	return nil
}

func (d *deposit) Discard() {
	if d.discarded {
		d.box.mistake("Discard twice, for " + d.owner)
	}
	d.discarded = true
	d.box.mu.Lock()
	d.box.ended++
	d.box.mu.Unlock()
	_ = d.box.step("discard", d.owner)
}

func (b *box) mistake(s string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.mistakes = append(b.mistakes, s)
}

// fault orders a fault, or with "" calls it off.
func (b *box) fault(step, owner, name string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.faults[step+" "+owner] = faultOf[name]
}

// got returns the messages of an owner.
func (b *box) got(owner string) []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return append([]string(nil), b.mail[owner]...)
}

func (b *box) check(t *testing.T) {
	t.Helper()
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.begun != b.ended || len(b.mistakes) > 0 {
		t.Errorf("%d deposits begun, %d ended; %q", b.begun, b.ended, b.mistakes)
	}
}

// recipients: the local part is the owner's name. Some mean something else.
func recipients(_ context.Context, address string) ([]maildrop.Owner, error) {
	name, _, _ := strings.Cut(address, "@")
	switch name {
	case "team":
		return []maildrop.Owner{{Name: "ann"}, {Name: "bob"}, {Name: "ann"}, {Name: "cid"}}, nil
	case "jones", "nobody":
		return nil, fmt.Errorf("%q: %w", address, lmtp.ErrUnknown)
	case "broken":
		return nil, errors.New("secret detail")
	case "void":
		return nil, nil
	case "panic":
		panic("ordered by the test")
	case "crowd":
		var all []maildrop.Owner
		for i := range 700 {
			all = append(all, maildrop.Owner{Name: fmt.Sprintf("crowd%d", i)})
		}
		return all, nil
	}
	return []maildrop.Owner{{Name: name}}, nil
}

// content is what follows the trace.
func content(t *testing.T, message string) string {
	t.Helper()
	for _, want := range []string{"Return-Path: <", "Delivered-To: ", "Received: from ", "\tby mx.test (dewey) with ", "\tfor <", "\t"} {
		line, rest, ok := strings.Cut(message, "\r\n")
		if !ok || !strings.HasPrefix(line, want) || strings.ContainsAny(line, "\r\n") {
			t.Fatalf("%q in the place of %q", line, want)
		}
		message = rest
	}
	return message
}

type buffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *buffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *buffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

// A bench is a server under test.
type bench struct {
	srv  *lmtp.Server
	box  *box
	log  *buffer
	addr net.Addr
	pipe *pipes
	end  func()
}

func newBench(t *testing.T, l net.Listener, change func(*lmtp.Server)) *bench {
	t.Helper()
	b := &bench{box: newBox(), log: &buffer{}, addr: l.Addr()}
	b.pipe, _ = l.(*pipes)
	b.srv = &lmtp.Server{
		Recipients: recipients,
		Mail:       b.box,
		Settings:   lmtp.Settings{Hostname: "mx.test"},
		Logger:     slog.New(slog.NewTextHandler(b.log, &slog.HandlerOptions{Level: slog.LevelDebug})),
	}
	if change != nil {
		change(b.srv)
	}
	done := make(chan error, 1)
	go func() { done <- b.srv.Serve(l) }()
	b.end = sync.OnceFunc(func() {
		if err := b.srv.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
		if err := b.srv.Shutdown(context.Background()); err != nil { // and all sessions have ended
			t.Errorf("Shutdown: %v", err)
		}
		if err := <-done; !errors.Is(err, lmtp.ErrServerClosed) {
			t.Errorf("Serve returned %v", err)
		}
		b.box.check(t)
	})
	t.Cleanup(b.end)
	return b
}

func listen(t *testing.T, network string) net.Listener {
	t.Helper()
	address := "127.0.0.1:0"
	if network == "unix" {
		address = t.TempDir() + "/s"
	}
	l, err := net.Listen(network, address)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func (b *bench) dial(t *testing.T) net.Conn {
	t.Helper()
	c, err := net.Dial(b.addr.Network(), b.addr.String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	_ = c.SetDeadline(time.Now().Add(time.Minute))
	return c
}

// ask sends all of the input, says that no more comes, and returns all that the server sends.
func (b *bench) ask(t *testing.T, input string) string {
	t.Helper()
	c := b.dial(t)
	defer c.Close()
	go func() {
		_, _ = io.WriteString(c, input)
		_ = c.(interface{ CloseWrite() error }).CloseWrite()
	}()
	out, err := io.ReadAll(c)
	if err != nil {
		t.Fatalf("%q, then %v", out, err)
	}
	return string(out)
}

// codes are the codes of replies.
func codes(out string) string {
	var all []string
	for line := range strings.Lines(out) {
		if len(line) > 3 && line[3] != '-' {
			all = append(all, line[:3])
		}
	}
	return strings.Join(all, " ")
}

// pipes is a listener for synctest.
type pipes struct {
	conns chan net.Conn
	once  sync.Once
	done  chan struct{}
}

func newPipes() *pipes { return &pipes{conns: make(chan net.Conn), done: make(chan struct{})} }

func (l *pipes) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.done:
		return nil, net.ErrClosed
	}
}

func (l *pipes) Close() error { l.once.Do(func() { close(l.done) }); return nil }

func (l *pipes) Addr() net.Addr { return &net.UnixAddr{Net: "pipe"} }

func (l *pipes) dial() net.Conn {
	here, there := net.Pipe()
	select {
	case l.conns <- there:
	case <-l.done:
	}
	return here
}
