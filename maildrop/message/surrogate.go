package message

import (
	"bytes"
	"io"
	"unicode/utf8"

	"dewey/internal/dotstuff"
	"dewey/internal/surrogate"
)

// MaxHeader is the most octets, as sent, of a header section that is rewritten for its surrogate. In a
// longer one, which no mail client writes, each octet outside ASCII becomes a question mark.
const MaxHeader = surrogate.MaxHeader

// NewSurrogate reads the message as sent, its lines ending in CRLF, and returns a reader of its
// surrogate: the same message, its header section in ASCII. RFC 6856 section 2.1. The message must be
// one for which Measure found a surrogate's size.
func NewSurrogate(r io.Reader) (io.Reader, error) {
	var head []byte
	for {
		start := len(head)
		if start > MaxHeader+len("\r\n") {
			return &masked{r: io.MultiReader(bytes.NewReader(head), r)}, nil
		}
		head = append(head, make([]byte, 4096)...)
		n, err := r.Read(head[start:])
		head = head[:start+n]
		end := headerEnd(head, true)
		if end < 0 && err == io.EOF {
			end = len(head)
		}
		switch {
		case end > MaxHeader:
			return &masked{r: io.MultiReader(bytes.NewReader(head), r)}, nil
		case err == io.EOF:
			return io.MultiReader(bytes.NewReader(surrogate.Header(head[:end])), bytes.NewReader(head[end:])), nil
		case end >= 0:
			return io.MultiReader(bytes.NewReader(surrogate.Header(head[:end])), bytes.NewReader(head[end:]), r), nil
		case err != nil:
			return nil, err
		}
	}
}

// masked is a message whose header section is too long to be rewritten.
type masked struct {
	r      io.Reader
	column int // octets of the present line so far
	inBody bool
}

func (m *masked) Read(p []byte) (int, error) {
	n, err := m.r.Read(p)
	for i := 0; i < n && !m.inBody; i++ {
		switch c := p[i]; {
		case c == '\n':
			m.inBody = m.column == len("\r")
			m.column = 0
			continue
		case c >= utf8.RuneSelf:
			p[i] = '?'
		}
		m.column++
	}
	return n, err
}

// headerEnd is where the empty line that ends a header section starts, its lines ending in LF or
// CRLF, or -1. first says that b is the message's start, where the section may be empty.
func headerEnd(b []byte, first bool) int {
	if first && (bytes.HasPrefix(b, []byte("\n")) || bytes.HasPrefix(b, []byte("\r\n"))) {
		return 0
	}
	for at := 0; ; {
		i := bytes.IndexByte(b[at:], '\n')
		if i < 0 {
			return -1
		}
		at += i + 1
		if bytes.HasPrefix(b[at:], []byte("\n")) || bytes.HasPrefix(b[at:], []byte("\r\n")) {
			return at
		}
	}
}

// header gathers a header section, as stored, as far as it takes to tell whether it needs a
// surrogate, which is rare. The usual one arrives in one piece, in ASCII, and is not copied.
type header struct {
	kept []byte // what came before, or of a long section its last few octets
	done bool   // the end was seen

	long      bool // the section is over MaxHeader, as sent
	eight     bool // its part so far has octets outside ASCII
	notUTF8   bool // and is not UTF-8
	surrogate int64
	section   int64 // octets of the section as sent
	needed    bool
}

func (h *header) write(piece []byte) {
	if h.done || len(piece) == 0 {
		return
	}
	section, from := piece, max(0, len(h.kept)-len("\n\r")) // where an empty line may begin that was not seen yet
	first := from == 0 && !h.long
	if len(h.kept) > 0 {
		h.kept = append(h.kept, piece...)
		section = h.kept
	}
	end := headerEnd(section[from:], first)
	if h.done = end >= 0; h.done {
		end += from
	}
	switch {
	case h.done && !h.long && end <= MaxHeader:
		h.close(section[:end])
	case h.done:
		h.scan(section[:end])
	case len(section) <= MaxHeader+len("\r") && !h.long: // that CR may begin the empty line
		h.kept = append(h.kept[:0], section...)
	default:
		h.long = true
		cut := len(section) - min(3, len(section)) // enough to see the empty line begin
		for back := 0; back < utf8.UTFMax-1 && cut > 0 && !utf8.RuneStart(section[cut]); back++ {
			cut--
		}
		h.scan(section[:cut])
		h.kept = append([]byte(nil), section[cut:]...)
	}
}

// scan looks at a part of a section that is too long for a surrogate.
func (h *header) scan(part []byte) {
	h.long = true
	h.eight = h.eight || !isASCII(part)
	h.notUTF8 = h.notUTF8 || !utf8.Valid(part)
}

// close takes a whole section, as stored.
func (h *header) close(section []byte) {
	if !surrogate.Needed(section) {
		return
	}
	var ends dotstuff.LineEnds
	sent := ends.Append(make([]byte, 0, len(section)+len(section)/16), section)
	if ends.Added() > 0 {
		sent = append(sent, '\r', '\n')
	}
	h.needed = true
	h.section = int64(len(sent))
	if len(sent) > MaxHeader {
		h.surrogate = h.section
		return
	}
	h.surrogate = int64(len(surrogate.Header(sent)))
}

// surrogateOctets is what maildrop.Message.Surrogate says of a message of so many octets as sent.
func (h *header) surrogateOctets(octets int64) int64 {
	if !h.done {
		if h.long {
			h.scan(h.kept)
		} else {
			h.close(h.kept)
		}
	}
	switch {
	case h.long && h.eight && !h.notUTF8:
		return octets
	case h.needed:
		return octets - h.section + h.surrogate
	}
	return 0
}

func isASCII(b []byte) bool {
	for _, c := range b {
		if c >= utf8.RuneSelf {
			return false
		}
	}
	return true
}
