// Package popwire is the wire of POP3 as a server sees it: it reads command lines and writes status
// lines and multi-line responses. It knows the protocol's limits and nothing of its commands.
package popwire

import (
	"bytes"
	"errors"
	"io"
	"strings"

	"dewey/pop3"
)

// ErrLongLine says that a command line was longer than pop3.MaxCommand.
var ErrLongLine = errors.New("command line too long")

// MaxResponse is the most octets of a client's response in a SASL exchange, in base64, its line end not
// counted, and of an AUTH command: tokens of 64 KiB are in use (trap 39), and 2 KiB come with them, a name
// above all. RFC 5034 section 4 sets no limit to the first and 255 octets to the second, past which some
// clients go.
const MaxResponse = (66<<10+2)/3*4 + 64

// A Reader reads command lines. It holds 512 octets, however long a line is (trap 36), but for those that
// belong to a SASL exchange.
type Reader struct {
	r          io.Reader
	buf        [2 * (pop3.MaxCommand + 1)]byte
	start, end int    // what is read and not yet handed out
	long       []byte // the beginning of a line that may be longer than buf
	tooLong    bool   // the line being read is past the limit; its octets are thrown away
	err        error  // of r, met after the octets in buf
}

// NewReader returns a Reader of r.
func NewReader(r io.Reader) *Reader { return &Reader{r: r} }

// ReadLine returns the next command line, without its line end: CRLF, or the LF alone that some
// clients send.
//
// A line has at most pop3.MaxCommand octets, its line end included, or MaxResponse if it is an AUTH
// command. A longer one is discarded up to its end and then reported once, as ErrLongLine, so that a bad
// line gets one -ERR and its tail is never taken for a command. At the end of input ReadLine returns
// io.EOF, inside a line io.ErrUnexpectedEOF. ErrLongLine leaves the Reader usable. RFC 2449 section 4.
func (r *Reader) ReadLine() (string, error) { return r.read(commandLimit) }

// ReadResponse is ReadLine for a response in a SASL exchange, of at most MaxResponse octets.
func (r *Reader) ReadResponse() (string, error) {
	return r.read(func([]byte) int { return MaxResponse + len("\r\n") })
}

// commandLimit is the most octets of a line that begins so.
func commandLimit(line []byte) int {
	const auth = "AUTH "
	if len(line) > len(auth) && strings.EqualFold(string(line[:len(auth)]), auth) {
		return MaxResponse + len("\r\n")
	}
	return pop3.MaxCommand
}

func (r *Reader) read(limit func([]byte) int) (string, error) {
	for searched := 0; ; {
		if i := bytes.IndexByte(r.buf[r.start+searched:r.end], '\n'); i >= 0 {
			line := r.buf[r.start:][:searched+i+1]
			r.start += len(line)
			if r.long != nil {
				line = append(r.long, line...)
				r.long = nil
			}
			if r.tooLong || len(line) > limit(line) {
				r.tooLong = false
				return "", ErrLongLine
			}
			line = line[:len(line)-1]
			return string(bytes.TrimSuffix(line, []byte("\r"))), nil
		}
		searched = r.end - r.start
		if searched > pop3.MaxCommand {
			searched = r.gather(limit)
		}
		if r.tooLong {
			r.start, r.end, searched = 0, 0, 0
		}
		if r.err != nil {
			if r.err == io.EOF && (searched > 0 || r.tooLong || r.long != nil) {
				r.start, r.end, r.long, r.tooLong = 0, 0, nil, false
				return "", io.ErrUnexpectedEOF
			}
			return "", r.err
		}
		r.fill()
	}
}

// gather moves what there is of a line that does not fit into buf, if it may be so long. It returns how
// much of the line is still in buf.
func (r *Reader) gather(limit func([]byte) int) int {
	part := r.buf[r.start:r.end]
	start := r.long
	if start == nil {
		start = part
	}
	if r.tooLong || len(r.long)+len(part) > limit(start) {
		r.tooLong, r.long = true, nil
		return 0
	}
	r.long = append(r.long, part...)
	r.start, r.end = 0, 0
	return 0
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
