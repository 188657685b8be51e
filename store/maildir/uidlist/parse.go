package uidlist

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
)

const (
	// MaxLine is the longest line that is believed, its end included: a file name has at most 255
	// octets, the rest is for keys.
	MaxLine = 16 << 10
	// MaxFaults is how many records may be left out of a list before it counts as damaged.
	MaxFaults = 3
)

// A FormatError says why a file is no list that can be used. Nothing in it may be thrown away: each
// record left out changes a unique-id.
type FormatError struct {
	Line int // from 1
	What string
}

func (e *FormatError) Error() string { return fmt.Sprintf("line %d: %s", e.Line, e.What) }

// Parse reads a list of version 3 or 1 up to io.EOF. At most MaxFaults malformed records are left
// out, and told in List.Faults; more, or a malformed header, are a *FormatError. Any other error is
// the reader's. A last line without an end is never believed, but its uid is not given out again.
// Memory grows with the records, not with the lines' length. Of two records for one file the one
// with the higher uid wins.
func Parse(r io.Reader) (*List, error) {
	lines := lineReader{r: r}
	header, err := lines.next()
	switch {
	case errors.Is(err, io.EOF):
		return nil, &FormatError{1, "the file is empty"}
	case errors.Is(err, errLong):
		return nil, &FormatError{1, err.Error()}
	case err != nil:
		return nil, err
	case lines.torn:
		return nil, &FormatError{1, "the header has no line end"}
	}
	l, err := parseHeader(header)
	if err != nil {
		return nil, err
	}
	p := parser{List: l, bases: map[string]int{}}
	for {
		line, err := lines.next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil && !errors.Is(err, errLong) {
			return nil, err
		}
		l.Lines++
		if lines.torn {
			l.Torn = true
			if uid, _, ok := cutUID(line); ok {
				l.raise(uid)
			}
			break
		}
		rec, err := p.record(line, err)
		if err != nil {
			if p.lost++; p.lost > MaxFaults {
				return nil, &FormatError{lines.line, fmt.Sprintf("%v, and %d lines before it were bad", err, MaxFaults)}
			}
			l.fault(lines.line, err.Error(), true)
			continue
		}
		p.add(rec, lines.line)
	}
	if p.doubles > 0 {
		p.compact()
	}
	return l, nil
}

func (l *List) fault(line int, what string, lost bool) {
	if len(l.Faults) < 4*MaxFaults {
		l.Faults = append(l.Faults, Fault{line, what, lost})
	}
}

func (l *List) raise(uid uint32) {
	if uid >= l.Next {
		l.Next = uid + 1
	}
}

func parseHeader(line string) (*List, error) {
	bad := func(format string, args ...any) (*List, error) {
		return nil, &FormatError{1, fmt.Sprintf(format, args...)}
	}
	version, rest, _ := strings.Cut(line, " ")
	switch version {
	case "1":
		f := strings.Fields(rest)
		if len(f) < 2 {
			return bad("header of version 1 without validity and next uid: %.80q", line)
		}
		validity, err1 := strconv.ParseUint(f[0], 10, 32)
		next, err2 := strconv.ParseUint(f[1], 10, 32)
		if err := errors.Join(err1, err2); err != nil || validity == 0 || next == 0 {
			return bad("header of version 1 without validity and next uid: %.80q", line)
		}
		return &List{Version: 1, Validity: uint32(validity), Next: uint32(next)}, nil
	case "3":
		l := &List{Version: 3}
		for _, field := range strings.Fields(rest) {
			key, value := field[0], field[1:]
			switch key {
			case 'V', 'N':
				n, err := strconv.ParseUint(value, 10, 32)
				if err != nil {
					return bad("header key %c is no number of 32 bits: %.80q", key, value)
				}
				if key == 'V' {
					l.Validity = uint32(n)
				} else {
					l.Next = uint32(n)
				}
			case 'G':
				if !isGUID(value) { // Dovecot throws such a list away
					l.fault(1, fmt.Sprintf("the GUID is not 32 hex digits: %.80q", value), false)
					continue
				}
				l.GUID = value
			default:
				if l.Extra != "" {
					l.Extra += " "
				}
				l.Extra += field
			}
		}
		if l.Validity == 0 || l.Next == 0 {
			return bad("header without validity (V) or next uid (N): %.80q", line)
		}
		return l, nil
	}
	return bad("neither version 3 nor 1 of a uid list: %.80q", line)
}

func isGUID(s string) bool {
	for i := range len(s) {
		if !strings.Contains("0123456789abcdefABCDEF", s[i:i+1]) {
			return false
		}
	}
	return len(s) == 32
}

// cutUID takes the number off the start of a record.
func cutUID(line string) (uid uint32, rest string, ok bool) {
	n := 0
	for n < len(line) && line[n] >= '0' && line[n] <= '9' {
		n++
	}
	v, err := strconv.ParseUint(line[:n], 10, 32)
	if err != nil || v == 0 || v > MaxUID {
		return 0, "", false
	}
	return uint32(v), line[n:], true
}

type parser struct {
	*List
	last    uint32         // highest uid seen
	bases   map[string]int // where each base stands in Records
	doubles int
	lost    int
}

func (p *parser) record(line string, long error) (Record, error) {
	uid, rest, ok := cutUID(line)
	if !ok {
		return Record{}, fmt.Errorf("no uid from 1 to %d: %.80q", MaxUID, line)
	}
	p.raise(uid)
	switch {
	case long != nil:
		return Record{}, long
	case rest == "" || rest[0] != ' ':
		return Record{}, fmt.Errorf("no space after the uid: %.80q", line)
	case uid <= p.last:
		return Record{}, fmt.Errorf("uid %d after %d: they must rise", uid, p.last)
	}
	rec := Record{UID: uid}
	rest = strings.TrimLeft(rest, " ")
	if p.Version == 3 {
		rec.Keys, rest, ok = p.keys(rest)
		if !ok {
			return Record{}, fmt.Errorf("no file name: %.80q", line)
		}
	}
	rec.Base = Base(rest)
	if rec.Base == "" || strings.ContainsAny(rec.Base, "/\x00\r") {
		return Record{}, fmt.Errorf("no name that a file can have: %.80q", line)
	}
	p.last = uid
	return rec, nil
}

// keys splits a record of version 3, its uid taken off, at the ':' before the file name.
func (p *parser) keys(rest string) (keys, name string, ok bool) {
	i, plain := 0, true // plain: what stands before the name can be kept as one string
	start := rest
	for i < len(start) && start[i] != ':' {
		end := strings.IndexByte(start[i:], ' ')
		if end < 0 {
			return "", "", false
		}
		valid := start[i] >= 'A' && start[i] <= 'Z'
		plain = plain && valid && !strings.HasPrefix(start[i+end:], "  ")
		i += end
		for i < len(start) && start[i] == ' ' {
			i++
		}
	}
	if i >= len(start) {
		return "", "", false
	}
	name = start[i+1:]
	if plain {
		return strings.TrimSuffix(start[:i], " "), name, true
	}
	var kept []string
	for _, field := range strings.Split(start[:i], " ") {
		switch {
		case field == "":
		case field[0] < 'A' || field[0] > 'Z': // Dovecot drops it too
			p.fault(p.Lines+1, fmt.Sprintf("a key that is no upper-case letter: %.80q", field), false)
		default:
			kept = append(kept, field)
		}
	}
	return strings.Join(kept, " "), name, true
}

// add appends a record; an older one for the same file is marked to be left out.
func (p *parser) add(rec Record, line int) {
	if i, ok := p.bases[rec.Base]; ok {
		p.fault(line, fmt.Sprintf("the file has uid %d too, which is given up: %.80q", p.Records[i].UID, rec.Base), false)
		p.Records[i].UID = 0
		p.doubles++
	}
	p.bases[rec.Base] = len(p.Records)
	p.Records = append(p.Records, rec)
}

func (p *parser) compact() {
	kept := p.Records[:0]
	for _, rec := range p.Records {
		if rec.UID != 0 {
			kept = append(kept, rec)
		}
	}
	clear(p.Records[len(kept):])
	p.Records = kept
}

var errLong = fmt.Errorf("a line of more than %d octets", MaxLine)

// A lineReader splits a file into lines. It makes one string of all lines in a buffer, so that the
// lines of a long list cost few allocations.
type lineReader struct {
	r    io.Reader
	buf  []byte // read, not yet split
	text string // whole lines, to be handed out
	err  error
	line int  // number of the line handed out last, from 1
	torn bool // that line has no end
}

// next returns the next line without its end; the start of it and errLong if it is longer than
// MaxLine; io.EOF at the end.
func (l *lineReader) next() (string, error) {
	for l.text == "" {
		if err := l.fill(); err != nil {
			return "", err
		}
		if end := bytes.LastIndexByte(l.buf, '\n'); end >= 0 {
			l.text = string(l.buf[:end+1])
			l.buf = append(l.buf[:0], l.buf[end+1:]...)
			break
		}
		if l.err == io.EOF {
			if len(l.buf) == 0 {
				return "", io.EOF
			}
			last := string(l.buf[:min(len(l.buf), MaxLine)])
			l.buf = l.buf[:0]
			l.line++
			l.torn = true
			return last, nil
		}
		if len(l.buf) >= MaxLine {
			return l.skip()
		}
	}
	line, rest, _ := strings.Cut(l.text, "\n")
	l.text = rest
	l.line++
	if len(line) >= MaxLine {
		return line[:MaxLine], errLong
	}
	return strings.TrimSuffix(line, "\r"), nil // Dovecot reads CRLF as a line end too
}

// skip leaves out a line that fills the buffer.
func (l *lineReader) skip() (string, error) {
	start := string(l.buf[:min(len(l.buf), 256)])
	for {
		l.buf = l.buf[:0]
		if err := l.fill(); err != nil {
			return "", err
		}
		if end := bytes.IndexByte(l.buf, '\n'); end >= 0 {
			l.buf = append(l.buf[:0], l.buf[end+1:]...)
			l.line++
			return start, errLong
		}
		if l.err == io.EOF {
			l.buf = l.buf[:0]
			l.line++
			l.torn = true
			return start, nil
		}
	}
}

// fill reads some more into the buffer. It returns an error that ends the reading, never io.EOF.
func (l *lineReader) fill() error {
	if l.err != nil {
		if l.err == io.EOF {
			return nil
		}
		return l.err
	}
	if l.buf == nil {
		l.buf = make([]byte, 0, 4*MaxLine)
	}
	for empty := 0; ; empty++ {
		n, err := l.r.Read(l.buf[len(l.buf):cap(l.buf)])
		l.buf = l.buf[:len(l.buf)+n]
		if err != nil {
			l.err = err
			if err == io.EOF {
				return nil
			}
			return err
		}
		if n > 0 {
			return nil
		}
		if empty == 100 {
			return io.ErrNoProgress
		}
	}
}
