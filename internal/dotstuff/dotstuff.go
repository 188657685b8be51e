// Package dotstuff does to a message what the wire asks: line ends become CRLF, and a line that
// begins with the termination octet gets another one before it. Both work on pieces of any size and
// remember what the last piece ended in, so that nothing is lost at a boundary (trap 4).
package dotstuff

import "bytes"

// LineEnds turns a bare LF into CRLF and leaves every other octet as it is: a CRLF stays, a CR
// without an LF stays, NUL and 8-bit octets stay. RFC 1939 section 11. The zero value is at the
// start of a message.
type LineEnds struct {
	last byte
	any  bool
}

// Append appends src, converted, to dst: at most twice the octets of src. dst may share src's array
// as long as it lies before it by len(src) octets or more.
func (e *LineEnds) Append(dst, src []byte) []byte {
	dst, _ = e.append(dst, src, false)
	return dst
}

// AppendStuffed is Append with lines byte-stuffed as Stuffer does it, in the same pass: at most three octets for one
// of src. stuffed is how many octets that has added.
func (e *LineEnds) AppendStuffed(dst, src []byte) (_ []byte, stuffed int) {
	return e.append(dst, src, true)
}

func (e *LineEnds) append(dst, src []byte, stuff bool) (_ []byte, stuffed int) {
	start := stuff && (!e.any || e.last == '\n')
	last := e.last
	if len(src) > 0 {
		e.last, e.any = src[len(src)-1], true
	}
	for len(src) > 0 {
		if start && src[0] == '.' {
			dst = append(dst, '.')
			stuffed++
		}
		i := bytes.IndexByte(src, '\n')
		if i < 0 {
			return append(dst, src...), stuffed
		}
		if i > 0 {
			last = src[i-1]
		}
		dst = append(dst, src[:i]...)
		if last == '\r' {
			dst = append(dst, '\n')
		} else {
			dst = append(dst, '\r', '\n')
		}
		last, start = '\n', stuff
		src = src[i+1:]
	}
	return dst, stuffed
}

// Added is the number of octets that the message still lacks for its last line to end: 2, or 0 if
// it has an end or the message is empty.
func (e *LineEnds) Added() int64 {
	if e.any && e.last != '\n' {
		return 2
	}
	return 0
}

// Count is the number of octets that Append would append for src.
func (e *LineEnds) Count(src []byte) int64 {
	if len(src) == 0 {
		return 0
	}
	n := int64(len(src) + bytes.Count(src, []byte{'\n'}))
	if bytes.IndexByte(src, '\r') >= 0 || e.last == '\r' {
		n -= int64(bytes.Count(src, []byte{'\r', '\n'}))
		if src[0] == '\n' && e.last == '\r' {
			n--
		}
	}
	e.last, e.any = src[len(src)-1], true
	return n
}

// Stuffer puts the termination octet before each line that begins with it, the first line of the
// message too (trap 1). RFC 1939 section 3. The zero value is at the start of a message.
type Stuffer struct {
	inLine bool
}

// Append appends src, byte-stuffed, to dst: at most len(src)/2+1 octets more than src. A line begins
// after an LF; in what is sent each LF follows a CR.
func (s *Stuffer) Append(dst, src []byte) []byte {
	for len(src) > 0 {
		if !s.inLine && src[0] == '.' {
			dst = append(dst, '.')
		}
		i := nextDotLine(src)
		dst = append(dst, src[:i]...)
		s.inLine = src[i-1] != '\n'
		src = src[i:]
	}
	return dst
}

// mostInPlace is how many lines InPlace stuffs: some four times as many as text has that is full of them.
const mostInPlace = 128

// InPlace is Append for octets that lie in b from at on. ok is false, and nothing has changed, if b's array has no
// room or if more than mostInPlace lines are to be byte-stuffed.
func (s *Stuffer) InPlace(b []byte, at int) (_ []byte, ok bool) {
	src := b[at:]
	if len(src) == 0 {
		return b, true
	}
	var lines [mostInPlace]int32 // where they start
	n, i := 0, 0
	if s.inLine || src[0] != '.' {
		i = nextDotLine(src)
	}
	for ; i < len(src); i += nextDotLine(src[i:]) {
		if n == len(lines) || len(b)+n == cap(b) {
			return b, false
		}
		lines[n] = int32(i) //nolint:gosec // of a buffer
		n++
	}
	s.inLine = src[len(src)-1] != '\n'
	end := len(b)
	for b = b[:end+n]; n > 0; n-- { // from the last one on each octet moves once
		start := at + int(lines[n-1])
		copy(b[start+n:], b[start:end])
		b[start+n-1] = '.'
		end = start
	}
	return b, true
}

// nextDotLine is where in src the next line starts that begins with the termination octet, or its length if none
// does. Dots are rarer than lines in what makes messages large; where they are not, lines are looked for.
func nextDotLine(src []byte) int {
	misses := 0
	for i := 1; i < len(src); i++ {
		dot := bytes.IndexByte(src[i:], '.')
		if dot < 0 {
			break
		}
		i += dot
		if src[i-1] == '\n' {
			return i
		}
		if misses++; misses > 4+i/32 {
			if line := bytes.Index(src[i:], []byte("\n.")); line >= 0 {
				return i + line + 1
			}
			break
		}
	}
	return len(src)
}

// Unstuff takes the byte-stuffing of whole lines away again and returns them without the line that
// ends a multi-line response. It is the client's side, and what the tests check the server with.
// RFC 1939 section 3. ok is false if the ending line is missing or something follows it.
func Unstuff(response []byte) (message []byte, ok bool) {
	for {
		line, rest, found := bytes.Cut(response, []byte("\r\n"))
		switch {
		case !found:
			return message, false
		case string(line) == ".":
			return message, len(rest) == 0
		case len(line) > 0 && line[0] == '.':
			line = line[1:]
		}
		message = append(append(message, line...), '\r', '\n')
		response = rest
	}
}
