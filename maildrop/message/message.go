// Package message knows the form in which POP3 sends a message: each line ends in CRLF, the last one
// too, and a client that has not asked for UTF-8 gets a header section in ASCII. A store uses it to
// learn a message's exact sizes, once, and to hand the message over in that form; the server uses it
// to make the surrogate.
package message

import (
	"io"
	"sync"

	"dewey/internal/dotstuff"
)

// Sizes is what one pass over a stored message tells, in octets.
type Sizes struct {
	Stored    int64 // as stored
	CRLF      int64 // with each line end as CRLF, but none added: what Dovecot calls W, the virtual size
	Added     int64 // 2 if sending adds the last line's end, else 0
	Surrogate int64 // as in maildrop.Message
}

// Octets is the exact size of the message as sent. RFC 1939 section 11.
func (s Sizes) Octets() int64 { return s.CRLF + s.Added }

var buffers = sync.Pool{New: func() any { return new([64 << 10]byte) }}

// Measure reads a stored message, its lines ending in LF or CRLF, up to io.EOF and returns its sizes.
// It keeps no more than a header section of MaxHeader octets in memory. The error is the reader's.
func Measure(r io.Reader) (Sizes, error) {
	buf := buffers.Get().(*[64 << 10]byte)
	defer buffers.Put(buf)
	var (
		sizes Sizes
		ends  dotstuff.LineEnds
		head  header
	)
	for {
		n, err := r.Read(buf[:])
		sizes.Stored += int64(n)
		sizes.CRLF += ends.Count(buf[:n])
		head.write(buf[:n])
		if err == io.EOF {
			break
		}
		if err != nil {
			return Sizes{}, err
		}
	}
	sizes.Added = ends.Added()
	sizes.Surrogate = head.surrogateOctets(sizes.Octets())
	return sizes, nil
}

// NewReader returns a reader of the message as sent: it reads a stored message, its lines ending in
// LF or CRLF, and gives each line the end that RFC 1939 section 3 asks, the last one too. An error of
// r other than io.EOF is passed on in its place, and nothing is added to what came before it.
func NewReader(r io.Reader) io.Reader { return &reader{r: r} }

type reader struct {
	r    io.Reader
	ends dotstuff.LineEnds
	rest []byte // converted, not yet handed over
	err  error
	few  [16]byte
}

func (c *reader) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	for {
		if len(c.rest) > 0 {
			n := copy(p, c.rest)
			c.rest = c.rest[n:]
			return n, nil
		}
		if c.err != nil {
			return 0, c.err
		}
		if len(p) < len(c.few) {
			c.rest = c.fill(c.few[:])
			continue
		}
		if got := c.fill(p); len(got) > 0 {
			return len(got), nil
		}
	}
}

// fill reads into the upper half of p, so that the conversion, which at most doubles what was read,
// can write from p's start without a second buffer.
func (c *reader) fill(p []byte) []byte {
	half := len(p) / 2
	n, err := c.r.Read(p[len(p)-half:])
	got := c.ends.Append(p[:0], p[len(p)-half:][:n])
	c.err = err
	if err == io.EOF && c.ends.Added() > 0 {
		if len(got)+2 <= len(p) {
			return append(got, '\r', '\n')
		}
		c.rest = []byte("\r\n") // p is full: a message of line ends alone
	}
	return got
}
