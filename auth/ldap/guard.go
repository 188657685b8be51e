package ldap

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
)

// Bounds of what a server may answer to one request. What is read of an entry is a name, hashes, a path and two numbers.
const (
	maxAnswer   = 64 << 10 // octets
	maxElements = 4096     // of BER, which the library makes an object each
	maxDepth    = 12       // of elements in each other; a value of an attribute lies six deep
)

// The operations that are answers. RFC 4511 section 4.2 and those that follow.
const (
	opBind      = 1
	opEntry     = 4
	opDone      = 5
	opReference = 19
	opExtended  = 24
)

// A guard lets nothing of what a server says get to the library but whole messages of the form that RFC 4511 section 5.1
// asks for, within bounds, and only answers to what was asked: for the library a success is one, whatever it
// answers. Controls are taken off: none was asked for, and the library would take them for nonsense.
type guard struct {
	net.Conn // what is written, and deadlines
	in       *bufio.Reader
	rest     []byte // of a message that is being handed over

	mu     sync.Mutex
	awaits uint32 // bits of operations
	final  int    // the operation that ends the answer
	left   int    // octets
	err    error  // what was wrong with the server's words; nil if the connection just ended
}

func newGuard(conn net.Conn) *guard {
	return &guard{Conn: conn, in: bufio.NewReader(conn)}
}

// await says what may come in answer to the next request.
func (g *guard) await(final int, others ...int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.final, g.left, g.awaits = final, maxAnswer, 1<<final
	for _, op := range others {
		g.awaits |= 1 << op
	}
}

// fault returns what was wrong with what the server said.
func (g *guard) fault() error {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.err
}

// Read implements net.Conn.
func (g *guard) Read(b []byte) (int, error) {
	if len(g.rest) == 0 {
		var err error
		if g.rest, err = g.next(); err != nil {
			return 0, err
		}
	}
	n := copy(b, g.rest)
	g.rest = g.rest[n:]
	return n, nil
}

// next returns the next message, without its controls.
func (g *guard) next() ([]byte, error) {
	length, err := g.header()
	if err != nil {
		return nil, err
	}
	body := make([]byte, length)
	if _, err := io.ReadFull(g.in, body); err != nil {
		return nil, err
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	message, op, err := disassemble(body)
	switch {
	case err != nil:
		g.err = err
	case g.awaits&(1<<op) == 0 && op == opExtended:
		g.err = errors.New("the server ends the connection") // RFC 4511 section 4.4.1
	case g.awaits&(1<<op) == 0:
		g.err = fmt.Errorf("the server answers what was not asked (operation %d)", op)
	case op == g.final:
		g.awaits = 0
	}
	return message, g.err
}

// header reads how long the next message is.
func (g *guard) header() (int, error) {
	var head [6]byte
	for i := range head {
		b, err := g.in.ReadByte()
		if err != nil {
			return 0, err
		}
		head[i] = b
		if i == 0 {
			continue
		}
		e, _, whole, err := element(head[:i+1])
		g.mu.Lock()
		switch {
		case head[0] != sequence:
			err = errors.New("the server does not speak LDAP")
		case whole && e.length > g.left && g.awaits != 0:
			err = fmt.Errorf("%w: over %d octets", errLong, maxAnswer)
		case whole && e.length > maxAnswer:
			err = fmt.Errorf("the server says what was not asked, %d octets of it", e.length)
		}
		if g.err = err; err == nil && whole {
			g.left -= e.length
		}
		g.mu.Unlock()
		if err != nil || whole {
			return e.length, err
		}
	}
	return 0, errors.ErrUnsupported // six octets are a header or an error
}

const (
	sequence    = 0x30
	integer     = 0x02
	application = 0x60 // constructed, as all answers are
	constructed = 0x20
)

var (
	errForm = errors.New("the server's answer is malformed")
	errLong = errors.New("the server's answer is too long")
)

// A tlv is the header of one element of BER.
type tlv struct {
	tag    byte
	length int
}

// element reads the header of an element, of the forms that RFC 4511 section 5.1 leaves, and says how long it is, and whether
// it is all there.
func element(b []byte) (e tlv, size int, whole bool, err error) {
	if len(b) < 2 {
		return tlv{}, 0, false, nil
	}
	e.tag = b[0]
	if e.tag&0x1f == 0x1f {
		return tlv{}, 0, false, fmt.Errorf("%w: a tag of many octets", errForm)
	}
	if b[1] < 0x80 {
		e.length = int(b[1])
		return e, 2, true, nil
	}
	n := int(b[1] & 0x7f)
	if n == 0 || n > 4 || n == 4 && len(b) > 2 && b[2] >= 0x80 {
		return tlv{}, 0, false, fmt.Errorf("%w: a length that is unknown or absurd", errForm)
	}
	if len(b) < 2+n {
		return tlv{}, 0, false, nil
	}
	for _, digit := range b[2 : 2+n] {
		e.length = e.length<<8 | int(digit)
	}
	return e, 2 + n, true, nil
}

// disassemble checks a message's body and returns the message without controls, and its operation.
func disassemble(body []byte) (message []byte, op int, err error) {
	elements := 0
	id, size, whole, err := element(body)
	if err != nil || !whole || id.tag != integer || id.length < 1 || id.length > 4 || size+id.length > len(body) {
		return nil, 0, fmt.Errorf("%w: no message ID", errForm)
	}
	start := size + id.length
	operation, size, whole, err := element(body[start:])
	if err != nil || !whole || operation.tag&0xe0 != application || operation.length > len(body)-start-size {
		return nil, 0, fmt.Errorf("%w: no operation", errForm)
	}
	end := start + size + operation.length
	if err := walk(body[start+size:end], 2, &elements); err != nil {
		return nil, 0, err
	}
	return append([]byte{sequence, 0x84, byte(end >> 24), byte(end >> 16), byte(end >> 8), byte(end)}, body[:end]...), int(operation.tag & 0x1f), nil
}

// walk checks that octets are whole elements, not too many and not too deep.
func walk(b []byte, depth int, elements *int) error {
	for len(b) > 0 {
		*elements++
		e, size, whole, err := element(b)
		switch {
		case err != nil:
			return err
		case !whole || e.length > len(b)-size:
			return fmt.Errorf("%w: an element that does not fit", errForm)
		case *elements > maxElements || depth > maxDepth:
			return fmt.Errorf("%w: over %d elements, or %d in each other", errLong, maxElements, maxDepth)
		}
		if e.tag&constructed != 0 {
			if err := walk(b[size:size+e.length], depth+1, elements); err != nil {
				return err
			}
		}
		b = b[size+e.length:]
	}
	return nil
}
