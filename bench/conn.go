package bench

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"time"
)

// A conn is a connection to the server, with the client's end of POP3 or LMTP on it.
type conn struct {
	net     net.Conn // TLS or not
	raw     net.Conn // under TLS
	in      *bufio.Reader
	out     []byte // commands that were not sent yet
	timeout time.Duration
	whose   string   // the user, for errors
	secrets []string // are never in an error
	banner  string   // of the greeting, what APOP needs: RFC 1939 section 7
	stop    func() bool
}

// A slot is what one connection after the other is made with.
type slot struct {
	o     *Options
	in    *bufio.Reader
	out   []byte
	tls   *tls.Config
	sizes []int64 // of a maildrop's messages
}

func newSlot(o *Options, buffer int) *slot {
	s := &slot{o: o, in: bufio.NewReaderSize(nil, buffer)}
	if o.TLSConfig != nil {
		s.tls = o.TLSConfig.Clone()
		if o.Resume {
			s.tls.ClientSessionCache = tls.NewLRUClientSessionCache(1)
		}
	}
	return s
}

// dial connects. The connection is cut when ctx ends.
func (s *slot) dial(ctx context.Context, number uint64) (*conn, error) {
	network, address, err := s.o.target()
	if err != nil {
		return nil, err
	}
	raw, err := s.o.dialer(number).DialContext(ctx, network, address)
	if err != nil {
		return nil, fmt.Errorf("connect: %w", err)
	}
	s.in.Reset(raw)
	c := &conn{net: raw, raw: raw, in: s.in, out: s.out[:0], timeout: s.o.Timeout}
	c.stop = context.AfterFunc(ctx, func() { raw.Close() })
	return c, nil
}

// secure begins TLS.
func (c *conn) secure(ctx context.Context, config *tls.Config, r *run) error {
	if c.in.Buffered() > 0 {
		return c.told("STLS", errors.New("the server sent octets in plain after its reply"))
	}
	t := tls.Client(c.raw, config)
	_ = c.raw.SetDeadline(time.Now().Add(c.timeout))
	if err := t.HandshakeContext(ctx); err != nil {
		return c.told("TLS handshake", err)
	}
	r.negotiated(t.ConnectionState())
	c.net = t
	c.in.Reset(t)
	return nil
}

// close frees what the connection has. No close_notify: whoever is not at the end of a session is cut off.
func (c *conn) close() {
	c.stop()
	c.raw.Close()
}

// ended waits until the server closes the connection after QUIT, as RFC 1939 section 3 has it: then its work is done
// and the port is ours to use again.
func (c *conn) ended() error {
	c.later()
	switch b, err := c.in.ReadByte(); {
	case err == nil:
		return c.told("QUIT", fmt.Errorf("the server went on with %q", b))
	case errors.Is(err, os.ErrDeadlineExceeded):
		return c.told("QUIT", fmt.Errorf("the connection was not closed within %s", c.timeout))
	}
	return nil // an alert or a reset is an end too
}

func (c *conn) later() { _ = c.raw.SetDeadline(time.Now().Add(c.timeout)) }

// put adds a line to what flush sends.
func (c *conn) put(parts ...string) {
	for _, p := range parts {
		c.out = append(c.out, p...)
	}
	c.out = append(c.out, '\r', '\n')
}

func (c *conn) flush() error {
	c.later()
	_, err := c.net.Write(c.out)
	c.out = c.out[:0]
	return err //nolint:wrapcheck // told tells what was sent
}

// line reads a line and returns it without CRLF; it is valid until the next read.
func (c *conn) line() ([]byte, error) {
	if c.in.Buffered() == 0 {
		c.later()
	}
	l, err := c.in.ReadSlice('\n')
	switch {
	case errors.Is(err, bufio.ErrBufferFull):
		return nil, fmt.Errorf("a line is longer than %d octets", c.in.Size())
	case err == io.EOF && len(l) > 0:
		return nil, errors.New("the connection ended inside a line")
	case err != nil:
		return nil, err //nolint:wrapcheck // told does
	case len(l) < 2 || l[len(l)-2] != '\r':
		return nil, fmt.Errorf("the line %q ends in LF alone, not in CRLF", c.clean(l))
	}
	return l[:len(l)-2], nil
}

// body reads the lines of a multi-line response up to its end and counts their octets, byte-unstuffed. RFC 1939
// section 3.
func (c *conn) body() (octets int64, err error) {
	peek := func(n int) ([]byte, error) {
		if c.in.Buffered() < n {
			c.later()
			if _, err := c.in.Peek(n); err != nil {
				return nil, err //nolint:wrapcheck // told does
			}
		}
		return c.in.Peek(c.in.Buffered())
	}
	skip := func(n int) { _, _ = c.in.Discard(n) } // they are in the buffer
	b, err := peek(3)
	if err != nil {
		return 0, err
	}
	if b[0] == '.' {
		if b[1] == '\r' && b[2] == '\n' {
			skip(3)
			return 0, nil
		}
		skip(1)
	}
	for {
		b, err := peek(5) // CRLF, dot, CRLF: no response ends with less
		if err != nil {
			return octets, err
		}
		i := bytes.Index(b, []byte("\r\n."))
		switch {
		case i < 0:
			octets += int64(len(b) - 2)
			skip(len(b) - 2)
		case i+5 > len(b):
			octets += int64(i)
			skip(i)
		case b[i+3] == '\r' && b[i+4] == '\n':
			skip(i + 5)
			return octets + int64(i) + 2, nil
		default:
			octets += int64(i) + 2
			skip(i + 3)
		}
	}
}

// A replyError is what was wrong with the reply to a command.
type replyError struct {
	whose, command string
	err            error
}

func (e *replyError) kind() string { return e.command + ": " + e.err.Error() }

func (e *replyError) Error() string {
	if e.whose == "" {
		return e.kind()
	}
	return e.whose + ": " + e.kind()
}

func (e *replyError) Unwrap() error { return e.err }

// told makes an error say at which command, and whose, it befell.
func (c *conn) told(command string, err error) error {
	var op *net.OpError
	switch {
	case err == nil:
		return nil
	case errors.Is(err, os.ErrDeadlineExceeded):
		err = fmt.Errorf("no reply within %s", c.timeout)
	case err == io.EOF || errors.Is(err, io.ErrUnexpectedEOF):
		err = errors.New("the server closed the connection")
	case errors.As(err, &op):
		err = op.Err // the ports say nothing
	}
	return &replyError{c.whose, command, err}
}

// clean is what an error may quote of a reply: no password that the server sends back.
func (c *conn) clean(l []byte) string {
	const most = 200
	text := string(l)
	for _, secret := range c.secrets {
		text = strings.ReplaceAll(text, secret, "****")
	}
	if len(text) > most {
		text = text[:most] + "…"
	}
	return text
}
