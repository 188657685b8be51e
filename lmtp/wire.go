package lmtp

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"
)

const (
	inputBuffer = 16 << 10
	// maxLine bounds a command line. RFC 5321 section 4.5.3.1.4 has 512 octets, and extensions add to them.
	maxLine = 4096
)

var errLongLine = errors.New("line too long")

// wire reads and writes a connection. One goroutine uses it.
type wire struct {
	conn net.Conn
	in   *bufio.Reader
	out  *bufio.Writer
	each time.Duration // not 0: how long each read may take
}

func newWire(c net.Conn) *wire {
	w := &wire{conn: c, out: bufio.NewWriter(c)}
	w.in = bufio.NewReaderSize(readFunc(w.read), inputBuffer)
	return w
}

type readFunc func([]byte) (int, error)

func (f readFunc) Read(p []byte) (int, error) { return f(p) }

func (w *wire) read(p []byte) (int, error) {
	if w.each > 0 {
		if err := w.conn.SetReadDeadline(time.Now().Add(w.each)); err != nil {
			return 0, err
		}
	}
	return w.conn.Read(p)
}

// ready says whether a whole line is here already.
func (w *wire) ready() bool {
	p, _ := w.in.Peek(w.in.Buffered())
	return bytes.IndexByte(p, '\n') >= 0
}

// readLine returns the next command line without its end. A line that is too long is read to its end and
// reported as errLongLine, one that ends in LF alone as errSyntax: RFC 5321 section 2.3.8 knows no such line
// end, and what one hop takes for two lines and the next for one has smuggled mail. io.EOF at the end,
// io.ErrUnexpectedEOF inside a line.
func (w *wire) readLine() (string, error) {
	line, err := w.in.ReadSlice('\n')
	if len(line) > maxLine || errors.Is(err, bufio.ErrBufferFull) {
		for errors.Is(err, bufio.ErrBufferFull) {
			_, err = w.in.ReadSlice('\n')
		}
		if err == nil {
			err = errLongLine
		}
	}
	if err != nil {
		if err == io.EOF && len(line) > 0 {
			err = io.ErrUnexpectedEOF
		}
		return "", err
	}
	text, ok := bytes.CutSuffix(line, []byte("\r\n"))
	if !ok {
		return "", errSyntax
	}
	return string(text), nil
}

// readData reads a message as DATA sends it, gives it to take in blocks, and returns nil after its end.
// CRLF.CRLF is the end and nothing else is; a dot is taken off at the beginning of a line, which is after
// CRLF. All other octets are content. RFC 5321 sections 4.1.1.4 and 4.5.2, trap 10.
func (w *wire) readData(timeout time.Duration, take func([]byte)) error {
	w.each = timeout
	defer func() { w.each = 0 }()
	block := getBlock()
	defer putBlock(block)
	n := 0
	begins, cr := true, false // at the beginning of a line; CR was the last octet
	for {
		part, err := w.in.ReadSlice('\n') // at least what fits into the buffer, so never a cut ".\r\n"
		if err != nil && !errors.Is(err, bufio.ErrBufferFull) {
			return cutShort(err)
		}
		content := part
		if begins && part[0] == '.' {
			if string(part) == ".\r\n" {
				take(block[:n])
				return nil
			}
			content = part[1:]
		}
		begins = bytes.HasSuffix(part, []byte("\r\n")) || cr && string(part) == "\n"
		cr = part[len(part)-1] == '\r'
		if n+len(content) > len(block) {
			take(block[:n])
			n = 0
		}
		n += copy(block[n:], content)
	}
}

// readChunk reads the n octets that follow BDAT, and gives them to take in blocks. RFC 3030 section 2.
func (w *wire) readChunk(n int64, timeout time.Duration, take func([]byte)) error {
	w.each = timeout
	defer func() { w.each = 0 }()
	block := getBlock()
	defer putBlock(block)
	for n > 0 {
		part := block[:min(n, int64(len(block)))]
		if _, err := io.ReadFull(w.in, part); err != nil {
			return cutShort(err)
		}
		take(part)
		n -= int64(len(part))
	}
	return nil
}

// cutShort: a message that ends with the connection has not ended.
func cutShort(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}

// blocks are what messages go through: one while a message comes in, none else.
var blocks = sync.Pool{New: func() any { return new([4 * inputBuffer]byte) }}

func getBlock() *[4 * inputBuffer]byte  { return blocks.Get().(*[4 * inputBuffer]byte) }
func putBlock(b *[4 * inputBuffer]byte) { blocks.Put(b) }

// A reply is what a command is answered with. Its texts are ours: nothing that a client sent is in them.
type reply struct {
	code   int
	status string // RFC 3463; empty in the greeting, in LHLO's reply and in 354. RFC 2034 section 4
	text   string
	more   []string // further lines
}

// answered is the reply of a command that has been answered, or has no answer.
var answered = reply{}

// say puts a reply into the buffer. RFC 5321 section 4.2.1.
func (w *wire) say(r reply) {
	if r.code == 0 {
		return
	}
	lines := append([]string{r.text}, r.more...)
	for i, text := range lines {
		sep := '-'
		if i == len(lines)-1 {
			sep = ' '
		}
		if r.status != "" {
			text = r.status + " " + text
		}
		_, _ = fmt.Fprintf(w.out, "%d%c%s\r\n", r.code, sep, text) // the error stays, and Flush tells it
	}
}
