// Package popwire is the wire of POP3 as a server sees it: it reads command lines and writes status
// lines and multi-line responses. It knows the protocol's limits and nothing of its commands.
package popwire

import (
	"bytes"
	"errors"
	"io"

	"dewey/pop3"
)

// ErrLongLine says that a command line was longer than pop3.MaxCommand.
var ErrLongLine = errors.New("command line too long")

// A Reader reads command lines. It holds 512 octets, however long a line is (trap 36).
type Reader struct {
	r          io.Reader
	buf        [2 * (pop3.MaxCommand + 1)]byte
	start, end int   // what is read and not yet handed out
	tooLong    bool  // the line being read is past the limit; its octets are thrown away
	err        error // of r, met after the octets in buf
}

// NewReader returns a Reader of r.
func NewReader(r io.Reader) *Reader { return &Reader{r: r} }

// ReadLine returns the next command line, without its line end: CRLF, or the LF alone that some
// clients send.
//
// A line has at most pop3.MaxCommand octets, its line end included. A longer one is discarded up to
// its end and then reported once, as ErrLongLine, so that a bad line gets one -ERR and its tail is
// never taken for a command. At the end of input ReadLine returns io.EOF, inside a line
// io.ErrUnexpectedEOF. ErrLongLine leaves the Reader usable. RFC 2449 section 4.
func (r *Reader) ReadLine() (string, error) {
	for searched := 0; ; {
		if i := bytes.IndexByte(r.buf[r.start+searched:r.end], '\n'); i >= 0 {
			line := r.buf[r.start:][:searched+i+1]
			r.start += len(line)
			if r.tooLong || len(line) > pop3.MaxCommand {
				r.tooLong = false
				return "", ErrLongLine
			}
			line = line[:len(line)-1]
			return string(bytes.TrimSuffix(line, []byte("\r"))), nil
		}
		searched = r.end - r.start
		if searched > pop3.MaxCommand {
			r.tooLong = true
		}
		if r.tooLong {
			r.start, r.end, searched = 0, 0, 0
		}
		if r.err != nil {
			if r.err == io.EOF && (searched > 0 || r.tooLong) {
				r.start, r.end, r.tooLong = 0, 0, false
				return "", io.ErrUnexpectedEOF
			}
			return "", r.err
		}
		r.fill()
	}
}

func (r *Reader) fill() {
	if r.start > 0 {
		r.end = copy(r.buf[:], r.buf[r.start:r.end])
		r.start = 0
	}
	n, err := r.r.Read(r.buf[r.end:])
	r.end += n
	r.err = err
}

// Buffered says whether the next ReadLine will not have to wait: while it is so, a pipelining client
// has more commands here, and their responses can go out together. RFC 2449 section 6.6.
func (r *Reader) Buffered() bool {
	return r.err != nil || bytes.IndexByte(r.buf[r.start:r.end], '\n') >= 0
}

// More says whether the client has sent more than the lines that were read, as far as can be told.
func (r *Reader) More() bool { return r.start < r.end || r.end == len(r.buf) }
