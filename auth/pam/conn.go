package pam

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"syscall"
	"time"
)

// The protocol between dewey and a worker of dewey-pam, one request and one answer at a time; pam-helper/frame.go has
// the other end.
//
// A message is its length (two octets, the high one first, at most maxFrame), the version, what it is, a number that the
// answer repeats (eight octets), and texts, each after its length (two octets).
const (
	version  = 1
	maxFrame = 4096

	askPassword = 'A' // name, password, address
	askName     = 'N' // name: the user, if he may log in
	askMail     = 'M' // name: the user, whether or not he may log in

	sayKnown    = 'K' // name, home (empty: none is known)
	sayRejected = 'R' // why
	sayUnknown  = 'U' // why
	sayError    = 'E' // why it can't be told
)

var errNonsense = errors.New("dewey-pam answered nonsense; it must be of the same build as dewey")

// mostUses is after how many conversations a worker is replaced: modules leak.
const mostUses = 1000

// backOff is how long a dewey-pam that can't be reached is not tried again.
const backOff = time.Second

// maxIdle is how long a connection to a socket is kept: other programs, dewey auth test for one, may wait for its process.
const maxIdle = 3 * time.Second

// A conn is a connection to a worker that does nothing at the time.
type conn struct {
	net.Conn
	number uint64 // of the last request
	spent  bool   // its deadline has passed, or is about to
}

// An answer is what a worker says.
type answer struct {
	kind  byte
	texts []string // two with sayKnown, else one
}

// A failure is why dewey-pam could not be reached.
type failure struct {
	err error
	at  time.Time
}

// ask asks a worker. If one that was kept has ended since, another is asked, until one is new: then its end is the answer.
func (b *Backend) ask(ctx context.Context, what byte, texts []string) (answer, error) {
	ctx, cancel := context.WithTimeout(ctx, b.c.Timeout)
	defer cancel()
	select {
	case b.slots <- struct{}{}:
		defer func() { <-b.slots }()
	case <-ctx.Done():
		return answer{}, fmt.Errorf("all %d processes were busy (pam's processes): %w", b.c.Processes, context.Cause(ctx))
	}
	for {
		c, used, err := b.connect(ctx)
		if err != nil {
			return answer{}, err
		}
		a, err := c.ask(ctx, what, texts)
		if err == nil {
			b.keep(c)
			return a, nil
		}
		_ = c.Close()
		if !used || ctx.Err() != nil || !stale(err) {
			return answer{}, err
		}
		b.forget() // the others are as old
	}
}

// stale says that a connection had ended, and that no answer had begun.
func stale(err error) bool {
	return errors.Is(err, io.EOF) || errors.Is(err, syscall.EPIPE) || errors.Is(err, syscall.ECONNRESET)
}

// connect returns a connection that was kept, or a new one.
func (b *Backend) connect(ctx context.Context) (c *conn, used bool, err error) {
	b.mu.Lock()
	if n := len(b.idle); n > 0 {
		c, b.idle = b.idle[n-1], b.idle[:n-1]
	}
	closed, failed := b.closed, b.failed
	b.mu.Unlock()
	switch {
	case closed:
		err = errClosed
	case c != nil:
		return c, true, nil
	case failed.err != nil && time.Since(failed.at) < backOff:
		err = failed.err
	default:
		c, err = b.open(ctx)
	}
	return c, false, err
}

func (b *Backend) open(ctx context.Context) (*conn, error) {
	var raw net.Conn
	var err error
	if b.helper != nil {
		raw, err = b.helper.connect(ctx)
	} else if raw, err = (&net.Dialer{}).DialContext(ctx, "unix", b.c.Socket); err != nil {
		err = fmt.Errorf("dewey-pam is not to be reached; is its service running, and may it be asked by this user? %w", err)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	switch {
	case err == nil:
		b.failed = failure{}
		return &conn{Conn: raw}, nil
	case !errors.Is(ctx.Err(), context.Canceled): // who hangs up says nothing of dewey-pam
		b.failed = failure{err, time.Now()}
	}
	return nil, err
}

// keep keeps a connection for the next request.
func (b *Backend) keep(c *conn) {
	b.mu.Lock()
	keep := !b.closed && !c.spent && c.number < mostUses
	if keep {
		b.idle = append(b.idle, c)
	}
	if number := c.number; keep && b.helper == nil {
		time.AfterFunc(maxIdle, func() { b.expire(c, number) })
	}
	b.mu.Unlock()
	if !keep {
		_ = c.Close()
	}
}

// expire closes a connection that was not used since it was kept.
func (b *Backend) expire(c *conn, number uint64) {
	b.mu.Lock()
	i := slices.Index(b.idle, c)
	old := i >= 0 && c.number == number
	if old {
		b.idle = slices.Delete(b.idle, i, i+1)
	}
	b.mu.Unlock()
	if old {
		_ = c.Close()
	}
}

func (b *Backend) forget() {
	b.mu.Lock()
	idle := b.idle
	b.idle = nil
	b.mu.Unlock()
	for _, c := range idle {
		_ = c.Close()
	}
}

// ask asks one question. After an error the connection is to be closed: dewey-pam ends the worker then, whatever it does.
func (c *conn) ask(ctx context.Context, what byte, texts []string) (answer, error) {
	deadline, _ := ctx.Deadline()
	if err := c.SetDeadline(deadline); err != nil {
		return answer{}, err //nolint:wrapcheck // of a connection that is closed
	}
	stop := context.AfterFunc(ctx, func() { _ = c.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	c.number++
	data, err := request(what, c.number, texts)
	if err != nil {
		return answer{}, err
	}
	defer clear(data)
	if _, err = c.Write(data); err == nil {
		var a answer
		if a, err = readAnswer(c, c.number); err == nil {
			c.spent = !stop() // the caller left as the answer came
			return a, nil
		}
	}
	if errors.Is(err, os.ErrDeadlineExceeded) {
		err = fmt.Errorf("no answer in time (a module of PAM hangs, or the machine is busy): %w", err)
	} else if stale(err) {
		err = fmt.Errorf("the process that asked PAM has ended: %w", err)
	}
	return answer{}, err
}

func request(what byte, number uint64, texts []string) ([]byte, error) {
	size := 10
	for _, t := range texts {
		size += 2 + len(t)
	}
	if size > maxFrame {
		return nil, fmt.Errorf("a request of %d octets is over %d", size, maxFrame)
	}
	data := binary.BigEndian.AppendUint16(make([]byte, 0, 2+size), uint16(size))
	data = binary.BigEndian.AppendUint64(append(data, version, what), number)
	for _, t := range texts {
		data = append(binary.BigEndian.AppendUint16(data, uint16(len(t))), t...)
	}
	return data, nil
}

// readAnswer reads the answer to a request. io.EOF: there is none. Anything that is not exactly an answer to it is
// errNonsense.
func readAnswer(r io.Reader, number uint64) (answer, error) {
	var head [2]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return answer{}, err //nolint:wrapcheck // ask does
	}
	n := binary.BigEndian.Uint16(head[:])
	if n < 10 || n > maxFrame {
		return answer{}, fmt.Errorf("%w: a message of %d octets", errNonsense, n)
	}
	data := make([]byte, n)
	if _, err := io.ReadFull(r, data); err != nil {
		return answer{}, fmt.Errorf("%w: a message is cut: %w", errNonsense, err)
	}
	if data[0] != version {
		return answer{}, fmt.Errorf("%w: version %d", errNonsense, data[0])
	}
	a := answer{kind: data[1]}
	want := 1
	if a.kind == sayKnown {
		want = 2
	}
	if !slices.Contains([]byte{sayKnown, sayRejected, sayUnknown, sayError}, a.kind) || binary.BigEndian.Uint64(data[2:]) != number {
		return answer{}, fmt.Errorf("%w: no answer to what was asked", errNonsense)
	}
	for rest := data[10:]; len(rest) > 0; {
		if len(rest) < 2 || len(rest)-2 < int(binary.BigEndian.Uint16(rest)) {
			return answer{}, fmt.Errorf("%w: a text is cut", errNonsense)
		}
		end := 2 + int(binary.BigEndian.Uint16(rest))
		a.texts = append(a.texts, string(rest[2:end]))
		rest = rest[end:]
	}
	if len(a.texts) != want {
		return answer{}, fmt.Errorf("%w: %d texts", errNonsense, len(a.texts))
	}
	return a, nil
}
