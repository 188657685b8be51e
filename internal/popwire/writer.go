package popwire

import (
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"strconv"
	"sync"
	"unicode/utf8"

	"dewey/internal/dotstuff"
	"dewey/pop3"
)

// A Writer's buffer has bufferSize octets, or largeSize while a message of as many or more is in it. A message is
// read into what is free of it, or, if that is less than the message and bodyPiece, into an empty one; one that may be
// cut short in pieces of bodyPiece.
const (
	bodyPiece  = 16 << 10
	bufferSize = 64 << 10
	largeSize  = 256 << 10
)

// The buffers are shared: a session that has nothing to say holds none.
var buffers, large = pool(bufferSize), pool(largeSize)

func pool(size int) *sync.Pool {
	return &sync.Pool{New: func() any { b := make([]byte, 0, size); return &b }}
}

// A Writer writes responses. It gathers them until Flush, or until its buffer is full, so that the
// end of a response never travels alone for want of gathering (trap 5). After an error it
// writes nothing more, and each method returns that error.
type Writer struct {
	w   io.Writer
	own *[]byte // nil between a Flush and the next octet
	buf []byte
	err error
}

// NewWriter returns a Writer to w.
func NewWriter(w io.Writer) *Writer { return &Writer{w: w} }

// room makes room for n octets.
func (w *Writer) room(n int) error {
	if w.err != nil {
		return w.err
	}
	if w.own == nil {
		w.own = buffers.Get().(*[]byte)
		w.buf = *w.own
	}
	if len(w.buf)+n > cap(w.buf) {
		w.write()
	}
	return w.err
}

func (w *Writer) write() {
	if len(w.buf) > 0 && w.err == nil {
		_, w.err = w.w.Write(w.buf)
	}
	w.buf = w.buf[:0]
}

// Flush writes what was gathered.
func (w *Writer) Flush() error {
	if w.own != nil {
		w.write()
		w.Discard()
	}
	return w.err
}

// Discard throws away what was gathered and not yet written.
func (w *Writer) Discard() {
	switch {
	case w.own == nil:
	case cap(*w.own) == largeSize:
		large.Put(w.own)
	default:
		buffers.Put(w.own)
	}
	w.own, w.buf = nil, nil
}

// enlarge takes a large buffer, which costs a large message fewer reads and writes, instead of the one that there is.
func (w *Writer) enlarge() {
	if w.err != nil || w.own != nil && cap(*w.own) == largeSize {
		return
	}
	own := large.Get().(*[]byte)
	buf := append(*own, w.buf...)
	w.Discard()
	w.own, w.buf = own, buf
}

// OK writes a positive status line. The text is cut, at a whole character, where the line would pass
// pop3.MaxResponse octets, and a control octet in it is sent as "?". RFC 1939 section 3.
func (w *Writer) OK(text string) error { return w.status("+OK", "", text) }

// Err writes a negative status line, with a response code if there is one. RFC 2449 section 8.
func (w *Writer) Err(code pop3.Code, text string) error { return w.status("-ERR", code, text) }

func (w *Writer) status(indicator string, code pop3.Code, text string) error {
	if err := w.room(pop3.MaxResponse); err != nil {
		return err
	}
	line := len(w.buf)
	w.buf = append(w.buf, indicator...)
	if code != "" {
		w.buf = append(append(append(w.buf, " ["...), code...), ']')
	}
	if text != "" {
		w.buf = append(w.buf, ' ')
		most := pop3.MaxResponse - len("\r\n") - (len(w.buf) - line)
		if len(text) > most {
			for most > 0 && !utf8.RuneStart(text[most]) {
				most--
			}
			text = text[:most]
		}
		at := len(w.buf)
		w.buf = append(w.buf, text...)
		for i, c := range w.buf[at:] {
			if c < ' ' || c == 0x7f {
				w.buf[at+i] = '?'
			}
		}
	}
	w.buf = append(w.buf, '\r', '\n')
	return nil
}

// Challenge writes a challenge of a SASL exchange: an empty one is "+ ". RFC 5034 section 4; trap 40.
func (w *Writer) Challenge(challenge []byte) error {
	if err := w.room(len("+ \r\n") + base64.StdEncoding.EncodedLen(len(challenge))); err != nil {
		return err
	}
	w.buf = base64.StdEncoding.AppendEncode(append(w.buf, "+ "...), challenge)
	w.buf = append(w.buf, '\r', '\n')
	return nil
}

// Line writes a line of a multi-line response that is not a message: it is byte-stuffed, and must
// have no line end and at most pop3.MaxResponse-2 octets.
func (w *Writer) Line(line string) error {
	if err := w.room(pop3.MaxResponse + 1); err != nil {
		return err
	}
	if line != "" && line[0] == '.' {
		w.buf = append(w.buf, '.')
	}
	w.buf = append(append(w.buf, line...), '\r', '\n')
	return nil
}

// Number writes a line of a scan listing: a message-number and a size. RFC 1939 section 5.
func (w *Writer) Number(number int, octets int64) error {
	if err := w.room(64); err != nil {
		return err
	}
	w.buf = append(strconv.AppendInt(w.buf, int64(number), 10), ' ')
	w.buf = append(strconv.AppendInt(w.buf, octets, 10), '\r', '\n')
	return nil
}

// UID writes a line of a unique-id listing. RFC 1939 section 7.
func (w *Writer) UID(number int, uid string) error {
	if err := w.room(pop3.MaxResponse); err != nil {
		return err
	}
	w.buf = append(strconv.AppendInt(w.buf, int64(number), 10), ' ')
	w.buf = append(append(w.buf, uid...), '\r', '\n')
	return nil
}

// A ReadError says that a message could not be read to its end; it wraps the cause.
type ReadError struct{ Err error }

func (e *ReadError) Error() string { return "message cut off: " + e.Err.Error() }
func (e *ReadError) Unwrap() error { return e.Err }

// A StuffedReader is a message that can byte-stuff its lines itself, best while it makes their ends: a pass less over
// all octets. n has the stuffed ones that are added; they are told at the latest when they come.
type StuffedReader interface {
	ReadStuffed(p []byte) (n, stuffed int, err error)
}

// Message writes what r yields, its lines ending in CRLF, byte-stuffed. If r fails, if it yields
// another number of octets than it should (octets < 0: any), or if its last line has no end, the
// error is a *ReadError: the response can't be finished and must not be ended (trap 2).
func (w *Writer) Message(r io.Reader, octets int64) error {
	own, ok := r.(StuffedReader)
	if !ok {
		own = &stuffing{r: r}
	}
	var (
		sent  int64
		last  [2]byte
		empty int
	)
	if octets >= largeSize {
		w.enlarge()
	}
	for {
		want := bodyPiece
		if octets >= 0 {
			want = int(min(max(octets-sent, 1), bodyPiece))
		}
		if err := w.room(want + want/16); err != nil {
			return err
		}
		at := len(w.buf)
		free := w.buf[at:cap(w.buf)]
		if octets < 0 {
			free = free[:want+want/16]
		}
		n, stuffed, err := own.ReadStuffed(free)
		if n == 0 && err == nil {
			if empty++; empty >= 100 {
				err = io.ErrNoProgress
			}
		}
		if n > 0 {
			empty = 0
			sent += int64(n - stuffed)
			last[0], last[1] = last[1], free[n-1]
			if n > 1 {
				last[0] = free[n-2]
			}
			w.buf = w.buf[:at+n]
		}
		switch {
		case octets >= 0 && sent > octets:
			return &ReadError{fmt.Errorf("it has more than its %d octets", octets)}
		case err == io.EOF && octets >= 0 && sent < octets:
			return &ReadError{fmt.Errorf("it ended after %d of its %d octets", sent, octets)}
		case err == io.EOF && sent > 0 && last != [2]byte{'\r', '\n'}:
			return &ReadError{errors.New("its last line does not end in CRLF")}
		case err == io.EOF:
			return nil
		case err != nil:
			return &ReadError{err}
		}
	}
}

// stuffing byte-stuffs what a reader yields.
type stuffing struct {
	r     io.Reader
	stuff dotstuff.Stuffer
	rest  []byte // stuffed, for want of room not yet handed over
	err   error
}

// ReadStuffed implements StuffedReader. A sixteenth of p is for what is added; where that is too little, what was read takes
// a buffer.
func (s *stuffing) ReadStuffed(p []byte) (n, stuffed int, err error) {
	if len(s.rest) == 0 && s.err == nil {
		p := p[:min(len(p), 2*bodyPiece)]
		n, s.err = s.r.Read(p[:len(p)-len(p)/16])
		if b, ok := s.stuff.InPlace(p[:n:len(p)], 0); ok {
			return len(b), len(b) - n, s.err
		}
		s.rest = s.stuff.Append(nil, p[:n])
		stuffed = len(s.rest) - n
	}
	n = copy(p, s.rest)
	if s.rest = s.rest[n:]; len(s.rest) == 0 {
		err = s.err
	}
	return n, stuffed, err
}

// End ends a multi-line response. RFC 1939 section 3.
func (w *Writer) End() error {
	if err := w.room(3); err != nil {
		return err
	}
	w.buf = append(w.buf, '.', '\r', '\n')
	return nil
}
