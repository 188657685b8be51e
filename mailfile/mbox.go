package mailfile

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"
)

// Quoting is how an mbox keeps lines of a message apart from those with which messages begin. No file says which
// of them it has.
type Quoting int

const (
	// QuotingRD is that of mboxrd: a line of any number of > and then "From " has had one > put in front of it, which
	// is taken away. qmail, mutt, procmail's heirs and Thunderbird write so, or as QuotingO.
	QuotingRD Quoting = iota
	// QuotingO is that of mboxo and mboxcl: so has "From " alone, and ">From " may be either, and is taken for that.
	QuotingO
	// QuotingNone is that of mboxcl2: none.
	QuotingNone
)

// window is the longest beginning of a line that is looked at. A From line that is longer is none.
const window = 64 << 10

// A Mbox reads an mbox. Use it as a tar.Reader: Next, then Read up to io.EOF.
//
// A message begins with a line "From ", a sender, and a date of whatever form, at the beginning of the file, where it
// needs no date, or of any line. (Not every program that writes an mbox puts the empty line before it that it
// should.) So an unquoted line of text stays a line of text, unless it ends in a date. The empty line before it is
// not the message's. A Content-Length is not believed.
//
// Whatever the file has in it, no octet is lost but those: each one is in exactly one message.
type Mbox struct {
	r       *bufio.Reader
	quoting Quoting
	state   mboxState
	start   bool   // of a line
	empty   []byte // an empty line that was read and not handed over
	out     []byte // of r's buffer, to be handed over before anything else is read
	next    time.Time
	last    byte // the last octet read
	err     error

	from, blank, quotes int64 // octets that are no message's
	doubtful            int
}

type mboxState int

const (
	before mboxState = iota // no From line was read
	between
	inside
)

// ErrNoMbox says that a file does not begin as an mbox does.
var ErrNoMbox = errors.New("it does not begin with a line From")

// NewMbox returns a reader of the mbox in r.
func NewMbox(r io.Reader, quoting Quoting) *Mbox {
	return &Mbox{r: bufio.NewReaderSize(r, window), quoting: quoting, start: true, last: '\n'}
}

// Next passes over what is left of a message and finds the next one. at is the time in its From line, zero if there
// is none to be understood. io.EOF if there are no more; ErrNoMbox; or the reader's error.
func (m *Mbox) Next() (at time.Time, err error) {
	switch {
	case m.state == before && m.err == nil:
		if err := m.first(); err != nil {
			return time.Time{}, err
		}
	case m.state == inside:
		if _, err := io.Copy(io.Discard, onlyReader{m}); err != nil {
			return time.Time{}, err
		}
	}
	if m.err != nil {
		return time.Time{}, m.err
	}
	m.state, m.start, m.empty = inside, true, nil
	return m.next, nil
}

type onlyReader struct{ io.Reader }

// first reads the first From line; empty lines may stand before it.
func (m *Mbox) first() error {
	for {
		line, err := m.r.ReadSlice('\n')
		m.note(line)
		switch {
		case err == io.EOF && len(line) == 0:
			m.err = io.EOF
			return m.err
		case err != nil && err != io.EOF && !errors.Is(err, bufio.ErrBufferFull):
			m.err = err
			return m.err
		case blank(line):
			m.blank += int64(len(line))
		case !bytes.HasPrefix(line, []byte(from)) || err != nil:
			m.err = ErrNoMbox
			return m.err
		default:
			m.next, _ = separates(line)
			m.from += int64(len(line))
			return nil
		}
	}
}

func (m *Mbox) note(line []byte) {
	if len(line) > 0 {
		m.last = line[len(line)-1]
	}
}

var crlf = []byte("\r\n")

func blank(line []byte) bool { return string(line) == "\n" || string(line) == "\r\n" }

// Read reads from the message that Next found.
func (m *Mbox) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	for {
		if m.state != inside {
			return 0, io.EOF
		}
		if len(m.out) > 0 {
			n := copy(p, m.out)
			m.out = m.out[n:]
			return n, nil
		}
		if m.err != nil {
			m.end()
			if m.err != io.EOF {
				return 0, m.err
			}
			continue
		}
		m.line()
	}
}

// end is that of a message; the empty line before it is not the message's.
func (m *Mbox) end() {
	m.state = between
	m.blank += int64(len(m.empty))
	m.empty = nil
}

// line reads a line, or a part of a long one.
func (m *Mbox) line() {
	if m.start && len(m.empty) > 0 { // what it means shows in what comes: without reading that yet
		next, err := m.r.Peek(len(from))
		if string(next) != from && (err == nil || len(next) > 0) {
			m.out, m.empty = m.empty, nil
			return
		}
	}
	line, err := m.r.ReadSlice('\n')
	m.note(line)
	start, whole := m.start, err == nil
	m.start = whole
	if err != nil && !errors.Is(err, bufio.ErrBufferFull) {
		m.err = err
	}
	if !start {
		m.out = line
		return
	}
	if whole && blank(line) {
		m.empty = crlf[2-len(line):]
		return
	}
	if bytes.HasPrefix(line, []byte(from)) {
		if at, ok := separates(line); ok && whole {
			m.from += int64(len(line))
			m.next = at
			m.end()
			return
		}
		if len(m.empty) > 0 {
			m.doubtful++
			line = append(bytes.Clone(m.empty), line...)
			m.empty = nil
		}
	}
	if m.quoted(line) {
		m.quotes++
		line = line[1:]
	}
	m.out = line
}

// quoted says whether the first octet of a line is not the message's.
func (m *Mbox) quoted(line []byte) bool {
	switch m.quoting {
	case QuotingRD:
		bare := bytes.TrimLeft(line, ">")
		return len(bare) < len(line) && bytes.HasPrefix(bare, []byte(from))
	case QuotingO:
		return bytes.HasPrefix(line, []byte(">"+from))
	}
	return false
}

// Cut says whether what was read so far has no line end at its end: the file may have been cut.
func (m *Mbox) Cut() bool { return m.last != '\n' }

// Doubtful is how many lines were taken for text that begin with "From " after an empty line: those of a message in a
// file without quoting, or, if there are many of them, those with which messages begin, in a form that is not known.
func (m *Mbox) Doubtful() int { return m.doubtful }

// A MboxWriter writes an mbox with the quoting of mboxrd, which loses nothing but whether the last line had an end.
type MboxWriter struct {
	w *bufio.Writer
}

// NewMboxWriter returns a writer of an mbox to w, which has to be closed.
func NewMboxWriter(w io.Writer) *MboxWriter { return &MboxWriter{bufio.NewWriterSize(w, window)} }

// Write appends a message, its lines ending in CRLF or LF, that it reads up to io.EOF. The sender may be empty; blanks
// in it become hyphens. After an error the mbox may end within a message.
func (w *MboxWriter) Write(sender string, at time.Time, message io.Reader) error {
	sender = strings.Join(strings.Fields(sender), "-")
	if sender == "" {
		sender = "MAILER-DAEMON"
	}
	fmt.Fprintf(w.w, "%s%s %s\n", from, sender, at.UTC().Format(time.ANSIC)) // Flush tells its error
	r := bufio.NewReaderSize(message, window)
	start, last := true, byte('\n')
	for {
		line, err := r.ReadSlice('\n')
		if err != nil && err != io.EOF && !errors.Is(err, bufio.ErrBufferFull) {
			return errors.Join(err, w.w.Flush())
		}
		if start && bytes.HasPrefix(bytes.TrimLeft(line, ">"), []byte(from)) {
			_ = w.w.WriteByte('>')
		}
		if _, err := w.w.Write(line); err != nil {
			return err
		}
		if len(line) > 0 {
			last = line[len(line)-1]
			start = last == '\n'
		}
		if err == io.EOF {
			break
		}
	}
	if last == '\r' { // it is no part of the line end
		_ = w.w.WriteByte('\r')
	}
	if !start {
		_ = w.w.WriteByte('\n')
	}
	_ = w.w.WriteByte('\n')
	return w.w.Flush()
}
