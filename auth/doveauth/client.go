package doveauth

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

const (
	maxLine   = 16384 // Dovecot's own AUTH_CLIENT_MAX_LINE_LENGTH
	maxGreet  = 256   // lines before the first answer
	maxAsking = 256   // questions that wait for an answer at the same time
	// maxAge is after how long a connection gets no more questions. After a reload Dovecot's old auth process stays for
	// its clients, and "clients should disconnect soon".
	maxAge = 10 * time.Second
	// backOff is how long a socket that can't be reached is not tried again.
	backOff = time.Second
)

var (
	errNonsense = errors.New("the answer is none of Dovecot's auth protocol, version 1")
	errClosed   = errors.New("closed")
	errLost     = errors.New("the connection was lost")
)

// A client asks questions over one connection, many at a time, as Dovecot's own login processes do.
type client struct {
	path   string
	auth   bool // the protocol of auth-client; else that of auth-userdb
	age    time.Duration
	asking chan struct{}   // one for each question
	turn   chan struct{}   // of one: to connect
	life   context.Context // ends with close
	end    context.CancelFunc
	live   sync.WaitGroup // of what reads

	mu     sync.Mutex
	conn   *conn
	failed error
	when   time.Time // of failed
}

// A conn is one connection; it is never used again once it has failed.
type conn struct {
	net.Conn
	writing chan struct{} // of one
	done    chan struct{} // closed when it has failed; then err says why
	err     error

	mu      sync.Mutex
	last    uint32
	waiting map[uint32]chan []string
	failed  bool
	retired *time.Timer // nil: it has gone off
}

func newClient(path string, auth bool) *client {
	c := &client{path: path, auth: auth, age: maxAge, asking: make(chan struct{}, maxAsking), turn: make(chan struct{}, 1)}
	c.life, c.end = context.WithCancel(context.Background())
	return c
}

// ask sends a question, and returns the answer's fields: the command, the number, and what is left, unescaped. A
// connection that was lost meanwhile is replaced once, since Dovecot's auth process may have been started anew.
func (c *client) ask(ctx context.Context, command, rest string) ([]string, error) {
	select {
	case c.asking <- struct{}{}:
		defer func() { <-c.asking }()
	case <-ctx.Done():
		return nil, fmt.Errorf("%d questions wait for an answer: %w", maxAsking, ctx.Err())
	}
	n, old, err := c.connect(ctx)
	if err != nil {
		return nil, err
	}
	answer, err := n.ask(ctx, command, rest)
	if old && errors.Is(err, errLost) && ctx.Err() == nil {
		if n, _, err = c.connect(ctx); err != nil {
			return nil, err
		}
		answer, err = n.ask(ctx, command, rest)
	}
	return answer, err
}

// connect returns the connection, and whether it is from before.
func (c *client) connect(ctx context.Context) (n *conn, old bool, err error) {
	if n, err = c.current(); n != nil || err != nil {
		return n, true, err
	}
	select {
	case c.turn <- struct{}{}:
		defer func() { <-c.turn }()
	case <-ctx.Done():
		return nil, false, fmt.Errorf("%s is being connected to: %w", c.path, ctx.Err())
	}
	if n, err = c.current(); n != nil || err != nil {
		return n, true, err
	}
	n, err = c.open(ctx)
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case err == nil:
		c.conn, c.failed = n, nil
	case !errors.Is(ctx.Err(), context.Canceled): // who hangs up says nothing of Dovecot
		c.failed, c.when = err, time.Now()
	}
	return n, false, err
}

// current returns the connection if there is one that has not failed. The error says why none is to be tried.
func (c *client) current() (*conn, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.life.Err() != nil:
		return nil, errClosed
	case c.conn != nil && c.conn.takes():
		return c.conn, nil
	case c.failed != nil && time.Since(c.when) < backOff:
		return nil, c.failed
	}
	return nil, nil
}

func (c *client) close() {
	c.mu.Lock()
	c.end()
	c.mu.Unlock() // no connection is begun any more
	c.live.Wait()
}

// open connects, and says who we are.
func (c *client) open(ctx context.Context) (*conn, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(c.life, cancel)()
	raw, err := (&net.Dialer{}).DialContext(ctx, "unix", c.path)
	if err != nil {
		return nil, fmt.Errorf("Dovecot is not to be reached; does it run, and may the user of this process write to the socket? %w", err) //nolint:staticcheck // a name
	}
	deadline, _ := ctx.Deadline()
	_ = raw.SetDeadline(deadline)
	stop := context.AfterFunc(ctx, func() { _ = raw.SetDeadline(time.Unix(1, 0)) })
	r := bufio.NewReaderSize(raw, maxLine)
	hello := "VERSION\t1\t1\n"
	if c.auth {
		hello += "CPID\t" + strconv.Itoa(os.Getpid()) + "\n"
	}
	if _, err = io.WriteString(raw, hello); err == nil {
		err = greeting(r, c.auth)
	}
	if !stop() {
		err = errors.Join(err, ctx.Err())
	}
	if err != nil {
		_ = raw.Close()
		return nil, fmt.Errorf("%s: greeting: %w", c.path, err)
	}
	_ = raw.SetDeadline(time.Time{})
	n := &conn{Conn: raw, writing: make(chan struct{}, 1), done: make(chan struct{}), waiting: make(map[uint32]chan []string)}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.life.Err() != nil {
		_ = raw.Close()
		return nil, errClosed
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.retired = time.AfterFunc(c.age, func() {
		n.mu.Lock()
		defer n.mu.Unlock()
		n.retired = nil
		n.rest()
	})
	closing := context.AfterFunc(c.life, func() { n.fail(errClosed) })
	c.live.Go(func() {
		n.read(r)
		closing()
	})
	return n, nil
}

// greeting reads what Dovecot says first.
func greeting(r *bufio.Reader, auth bool) error {
	plain, versioned := false, false
	for range maxGreet {
		line, err := readLine(r)
		if err != nil {
			return err
		}
		f := strings.Split(line, "\t")
		switch {
		case f[0] == "VERSION":
			if len(f) < 2 || f[1] != "1" {
				return fmt.Errorf("%w: %q", errNonsense, line)
			}
			versioned = true
		case !versioned:
			return fmt.Errorf("%w: it begins with %q", errNonsense, line)
		case f[0] == "MECH" && len(f) > 1:
			plain = plain || strings.EqualFold(f[1], "PLAIN")
		case f[0] == "DONE" && auth && !plain:
			return errors.New("Dovecot has no mechanism PLAIN; auth_mechanisms = plain would be right") //nolint:staticcheck,revive // a name
		case f[0] == "DONE" && auth, f[0] == "SPID" && !auth:
			return nil
		}
	}
	return fmt.Errorf("%w: it does not end", errNonsense)
}

// ask asks, and waits for the answer.
func (n *conn) ask(ctx context.Context, command, rest string) ([]string, error) {
	answer := make(chan []string, 1)
	n.mu.Lock()
	n.last++
	id := n.last
	n.waiting[id] = answer
	n.mu.Unlock()
	defer func() {
		n.mu.Lock()
		defer n.mu.Unlock()
		delete(n.waiting, id)
		n.rest()
	}()
	if err := n.send(ctx, command+"\t"+strconv.FormatUint(uint64(id), 10)+"\t"+rest+"\n"); err != nil {
		return nil, err
	}
	select {
	case fields := <-answer:
		return fields, nil
	case <-n.done:
		return nil, n.err
	case <-ctx.Done():
	}
	return nil, fmt.Errorf("no answer in time: %w", ctx.Err())
}

// send writes a line whole, or the connection is of no more use.
func (n *conn) send(ctx context.Context, line string) error {
	select {
	case n.writing <- struct{}{}:
		defer func() { <-n.writing }()
	case <-n.done:
		return n.err
	case <-ctx.Done():
		return fmt.Errorf("Dovecot does not read what it is asked: %w", ctx.Err()) //nolint:staticcheck // a name
	}
	deadline, _ := ctx.Deadline()
	_ = n.SetWriteDeadline(deadline)
	if _, err := io.WriteString(n.Conn, line); err != nil {
		n.fail(fmt.Errorf("%w: %w", errLost, err))
		return n.err
	}
	return nil
}

// read hands answers to those who wait for them. An answer that nobody waits for is of one who has given up.
func (n *conn) read(r *bufio.Reader) {
	for {
		line, err := readLine(r)
		if err != nil {
			n.fail(fmt.Errorf("%w: %w", errLost, err))
			return
		}
		fields := strings.Split(line, "\t")
		id, err := strconv.ParseUint(fields[min(1, len(fields)-1)], 10, 32)
		if err != nil || !slices.Contains([]string{"OK", "FAIL", "CONT", "USER", "NOTFOUND"}, fields[0]) {
			n.fail(fmt.Errorf("%w: %.100q", errNonsense, line))
			return
		}
		for i := range fields {
			fields[i] = unescape(fields[i])
		}
		n.mu.Lock()
		answer := n.waiting[uint32(id)]
		delete(n.waiting, uint32(id))
		n.mu.Unlock()
		if answer != nil {
			answer <- fields
		}
	}
}

// fail ends a connection, and tells those who wait; the first reason counts.
func (n *conn) fail(err error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.end(err)
}

// end is fail with the lock held.
func (n *conn) end(err error) {
	if n.failed {
		return
	}
	n.failed, n.err = true, err
	if n.retired != nil {
		n.retired.Stop()
	}
	_ = n.Close()
	close(n.done)
}

// rest ends a connection that is old and has no more to do. It is called with the lock held.
func (n *conn) rest() {
	if n.retired == nil && len(n.waiting) == 0 {
		n.end(fmt.Errorf("%w: it was old", errLost))
	}
}

// takes says that it takes questions.
func (n *conn) takes() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return !n.failed && n.retired != nil
}

// readLine reads a line without its end.
func readLine(r *bufio.Reader) (string, error) {
	line, err := r.ReadSlice('\n')
	if errors.Is(err, bufio.ErrBufferFull) {
		return "", fmt.Errorf("%w: a line of over %d octets", errNonsense, maxLine)
	}
	if err != nil {
		return "", err //nolint:wrapcheck // the callers do
	}
	return string(line[:len(line)-1]), nil
}

// parameters are name=value, or a name alone.
func parameters(fields []string) map[string]string {
	p := make(map[string]string, len(fields))
	for _, f := range slices.Backward(fields) { // of two the first one counts
		name, value, _ := strings.Cut(f, "=")
		p[name] = value
	}
	return p
}

var (
	escaper   = strings.NewReplacer("\x00", "\x010", "\x01", "\x011", "\t", "\x01t", "\r", "\x01r", "\n", "\x01n")
	unescaper = map[byte]byte{'0': 0, '1': 1, 't': '\t', 'r': '\r', 'n': '\n', 'l': '\n'}
)

// escape lets a text be a field of a line. Dovecot's str_tabescape.
func escape(s string) string { return escaper.Replace(s) }

func unescape(s string) string {
	if strings.IndexByte(s, 1) < 0 {
		return s
	}
	out := make([]byte, 0, len(s))
	for i := 0; i < len(s); i++ {
		if c := s[i]; c != 1 {
			out = append(out, c)
		} else if i++; i < len(s) {
			if plain, found := unescaper[s[i]]; found {
				out = append(out, plain)
			} else {
				out = append(out, s[i])
			}
		}
	}
	return string(out)
}
