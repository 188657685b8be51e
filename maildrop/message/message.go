// Package message knows the form in which POP3 sends a message: each line ends in CRLF, the last one
// too, and a client that has not asked for UTF-8 gets a header section in ASCII. A store uses it to
// learn a message's exact sizes, once, and to hand the message over in that form; the server uses it
// to make the surrogate.
package message

import (
	"bytes"
	"io"
	"slices"
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
func NewReader(r io.Reader) *Reader { return &Reader{r: r} }

// A Reader is NewReader's, or is given what it reads by Reset. The one who reads keeps to one of the two methods.
type Reader struct {
	r       io.Reader
	ends    dotstuff.LineEnds
	rest    []byte // converted, not yet handed over
	stuffed int    // octets that byte-stuffing has added, and nobody was told of
	err     error
	few     [16]byte
}

// Reset makes it a new reader, of r.
func (c *Reader) Reset(r io.Reader) { *c = Reader{r: r} }

// Read implements io.Reader.
func (c *Reader) Read(p []byte) (int, error) { return c.read(p, false) }

// ReadStuffed is Read of the message with its lines byte-stuffed (RFC 1939 section 3). stuffed is how many octets that has
// added, counted with those before which they stand, which may come with the next call.
func (c *Reader) ReadStuffed(p []byte) (n, stuffed int, err error) {
	n, err = c.read(p, true)
	stuffed, c.stuffed = c.stuffed, 0
	return n, stuffed, err
}

func (c *Reader) read(p []byte, stuff bool) (int, error) {
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
			if got := c.fill(c.few[:], stuff); len(got) > 0 {
				c.rest = got
			}
			continue
		}
		if got := c.fill(p, stuff); len(got) > 0 {
			return len(got), nil
		}
	}
}

// cacheLine is what buffers end at a multiple of. A read into memory that begins at one takes the kernel half as long.
const cacheLine = 64

// fill reads into p, but for a gap at its start, so that the conversion can write from there without a second
// buffer. The gap is an eighth; where lines are so short that they need more, what was read takes a buffer.
func (c *Reader) fill(p []byte, stuff bool) []byte {
	gap := len(p) / 8
	if aligned := gap + (cap(p)-gap)%cacheLine; aligned < len(p)/4 {
		gap = aligned
	}
	n, err := c.r.Read(p[gap:])
	c.err = err
	src := p[gap:][:n]
	got := p[:0]
	more := bytes.Count(src, []byte{'\n'})
	if stuff && 2*more >= gap {
		more += 1 + bytes.Count(src, []byte("\n."))
	} else if stuff {
		more = 2*more + 1
	}
	if more > gap {
		got = make([]byte, 0, n+more)
	}
	if stuff {
		var added int
		got, added = c.ends.AppendStuffed(got, src)
		c.stuffed += added
	} else {
		got = c.ends.Append(got, src)
	}
	if err == io.EOF && c.ends.Added() > 0 {
		if len(got)+len("\r\n") > len(p) {
			got = slices.Clip(got)
		}
		got = append(got, '\r', '\n')
	}
	if len(got) > 0 && &got[0] != &p[0] {
		c.rest = got
		return nil
	}
	return got
}
