package message

import (
	"bytes"
	"errors"
	"io"
	"sync"

	"dewey/internal/dotstuff"
)

var pieces = sync.Pool{New: func() any { return new([32 << 10]byte) }}

var errClosed = errors.New("the message is closed")

// A Writer turns a message as it comes in into what a store keeps. It is NewReader's opposite.
type Writer struct {
	w     io.Writer
	buf   *[32 << 10]byte // nil until there is something to keep
	n     int
	cr    bool // the last octet was a CR, which is not kept yet: an LF may follow
	twice bool // and so was the one before it
	err   error

	sizes Sizes
	ends  dotstuff.LineEnds
	head  header
}

// NewWriter returns a writer to w of a message, its lines ending in CRLF or LF, as Maildirs keep it: CRLF
// becomes LF, every other octet stays. CR CR LF stays too, since CR LF would be sent for what is left of it;
// so what NewReader makes of what is kept is what it would make of what came in.
//
// The caller ends with Close or Discard. An error of w is that of every later Write and of Close.
func NewWriter(w io.Writer) *Writer { return &Writer{w: w} }

// Write implements io.Writer.
func (c *Writer) Write(p []byte) (int, error) {
	for rest := p; len(rest) > 0 && c.err == nil; {
		if c.cr {
			rest = c.after(rest)
			continue
		}
		i := bytes.IndexByte(rest, '\r')
		if i < 0 {
			c.keep(rest)
			break
		}
		c.keep(rest[:i])
		c.cr, c.twice = true, false
		rest = rest[i+1:]
	}
	if c.err != nil {
		return 0, c.err
	}
	return len(p), nil
}

// after decides on the CR that came last, and returns what is left of p to be looked at.
func (c *Writer) after(p []byte) []byte {
	switch {
	case p[0] == '\r':
		c.keep([]byte{'\r'})
		c.twice = true
		return p[1:]
	case p[0] != '\n' || c.twice:
		c.keep([]byte{'\r'})
	}
	c.cr = false
	return p
}

func (c *Writer) keep(p []byte) {
	if c.buf == nil && len(p) > 0 {
		c.buf = pieces.Get().(*[32 << 10]byte)
	}
	for len(p) > 0 && c.err == nil {
		n := copy(c.buf[c.n:], p)
		c.n += n
		p = p[n:]
		if c.n == len(c.buf) {
			c.flush()
		}
	}
}

func (c *Writer) flush() {
	if c.n == 0 || c.err != nil {
		return
	}
	piece := c.buf[:c.n]
	c.n = 0
	c.sizes.Stored += int64(len(piece))
	c.sizes.CRLF += c.ends.Count(piece)
	c.head.write(piece)
	_, c.err = c.w.Write(piece)
}

// Close writes what is left and returns the sizes that Measure would find in what was written. It does not
// close the underlying writer.
func (c *Writer) Close() (Sizes, error) {
	if c.err != nil {
		return Sizes{}, c.err
	}
	if c.cr {
		c.keep([]byte{'\r'})
	}
	c.flush()
	sizes, err := c.sizes, c.err
	if err != nil {
		sizes = Sizes{}
	} else {
		sizes.Added = c.ends.Added()
		sizes.Surrogate = c.head.surrogateOctets(sizes.Octets())
	}
	c.Discard()
	return sizes, err
}

// Discard forgets what was not written yet. Calls after the first, or after Close, do nothing.
func (c *Writer) Discard() {
	if c.buf != nil {
		pieces.Put(c.buf)
	}
	c.buf, c.n, c.head = nil, 0, header{}
	if c.err == nil {
		c.err = errClosed
	}
}
