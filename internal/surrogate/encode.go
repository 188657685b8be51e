package surrogate

import (
	"encoding/base64"
	"slices"
	"strings"
	"unicode/utf8"
)

// A word is a part of a text between white space.
type word struct {
	space string // before it, folds included
	raw   string // as it came
	text  string // what it says: raw without quoting
}

// isEncoded says whether the word came as an encoded-word, which decodes to something else than it
// looks and so must not be encoded again. RFC 2047 section 2.
func (w word) isEncoded() bool { return isEncodedWord(w.raw) }

func isEncodedWord(s string) bool {
	if !strings.HasPrefix(s, "=?") || !strings.HasSuffix(s, "?=") || !isASCII(s) {
		return false
	}
	parts := strings.Split(s, "?")
	return len(parts) == 5 && parts[1] != "" && len(parts[2]) == 1 && strings.ContainsAny(parts[2], "BbQq")
}

// text rewrites unstructured text. RFC 2047 section 5 (1), RFC 5322 section 2.2.1.
func text(value string) ([]piece, verdict) {
	return encodeWords(splitWords(value), false), rewritten
}

func splitWords(s string) []word {
	var words []word
	for {
		rest := strings.TrimLeft(s, space)
		if rest == "" {
			return words
		}
		w := word{space: s[:len(s)-len(rest)], raw: rest}
		if i := strings.IndexAny(rest, space); i >= 0 {
			w.raw = rest[:i]
		}
		w.text = w.raw
		words = append(words, w)
		s = rest[len(w.raw):]
	}
}

// longSpace is the most white space that stands before an encoded-word as it is; with it each
// encoded-word still finds room on a line for some characters.
const longSpace = 32

// encodeWords makes encoded-words of the words that need it and of all words in between, or of all
// words if whole is set. Encoded-words among them stay as they are.
func encodeWords(words []word, whole bool) []piece {
	pieces := make([]piece, 0, len(words))
	literal := func(words []word) {
		for _, w := range words {
			pieces = append(pieces, piece{space: w.space, literal: []byte(w.raw)})
		}
	}
	for start := 0; start < len(words); {
		end := start
		for end < len(words) && !words[end].isEncoded() {
			end++
		}
		first, last := outsideASCII(words[start:end])
		switch {
		case start == end: // an encoded-word
			end++
			literal(words[start:end])
		case first < 0:
			literal(words[start:end])
		default:
			if whole {
				first, last = 0, end-start-1
			}
			literal(words[start : start+first])
			pieces = append(pieces, encodeRun(words, start+first, start+last, start, end))
			literal(words[start+last+1 : end])
		}
		start = end
	}
	return pieces
}

// outsideASCII returns the first and the last of the words that need encoding, or -1, -1.
func outsideASCII(words []word) (first, last int) {
	first, last = -1, -1
	for i, w := range words {
		if !isASCII(w.text) {
			if first < 0 {
				first = i
			}
			last = i
		}
	}
	return first, last
}

// encodeRun makes one piece of the words from first to last. White space between encoded-words is
// not shown (RFC 2047 section 6.2): where such a word comes before start or at end, the white space
// between it and the run goes into the run.
func encodeRun(words []word, first, last, start, end int) piece {
	var text strings.Builder
	p := piece{encoded: true, space: words[first].space}
	before := unfold(p.space)
	switch {
	case first == start && start > 0:
		text.WriteString(before)
		p.space = shortSpace(p.space)
	case len(before) > longSpace && first == 0:
		p.space = shortSpace(p.space)
	case len(before) > longSpace:
		text.WriteString(before[1:])
		p.space = before[:1]
	}
	text.WriteString(words[first].text)
	for _, w := range words[first+1 : last+1] {
		text.WriteString(unfold(w.space))
		text.WriteString(w.text)
	}
	if last == end-1 && end < len(words) {
		text.WriteString(unfold(words[end].space))
		words[end].space = shortSpace(words[end].space)
	}
	p.text = text.String()
	return p
}

// shortSpace is one space, and a fold if there was one.
func shortSpace(s string) string {
	if strings.Contains(s, "\r\n") {
		return "\r\n "
	}
	return " "
}

// A piece is the least part of a value that white space goes around: a literal, or a text that
// becomes as many encoded-words as it takes.
type piece struct {
	space   string // before it
	literal []byte
	encoded bool // text instead of literal
	text    string
	before  string // a parenthesis that opens at the first encoded-word
	after   string // what closes at the last one: a parenthesis and at most one octet more
}

// An encoded-word of UTF-8. RFC 2047 section 2.
const (
	encodedQ   = "=?UTF-8?Q?"
	encodedB   = "=?UTF-8?B?"
	encodedEnd = "?="
	// maxPayload is what an encoded-word of 75 octets has room for.
	maxPayload = 75 - len(encodedQ) - len(encodedEnd)
	// minPayload is the room that makes it worth while to begin an encoded-word on a line. It has
	// to be enough for one character, 12 octets in Q, and for what comes after it.
	minPayload = 20
)

// A layout is a field as it is written, line by line.
type layout struct {
	out     []byte
	column  int
	encoded bool // this line has an encoded-word
}

// layOut writes a field without its last line end.
func layOut(name string, pieces []piece) []byte {
	var l layout
	l.write(name + ":")
	for i, p := range pieces {
		if i == 0 && p.space == "" {
			p.space = " "
		}
		if strings.Contains(p.space, "\r\n") {
			p.space = "\r\n" + unfold(p.space) // no line of white space alone
		}
		if p.encoded {
			l.words(p, i == 0)
		} else {
			l.literal(p, i == 0)
		}
	}
	return l.out
}

func (l *layout) write(s string) {
	l.out = append(l.out, s...)
	if i := strings.LastIndexByte(s, '\n'); i >= 0 {
		l.column, l.encoded = 0, false
		s = s[i+1:]
	}
	l.column += len(s)
}

// literal leaves the lines as long as they came, unless there is an encoded-word.
func (l *layout) literal(p piece, first bool) {
	s := string(p.literal)
	line, _, _ := strings.Cut(s, "\r\n")
	encoded := isEncodedWord(s)
	width := l.column + len(p.space) + len(line)
	limit := maxLine
	if l.encoded || encoded {
		limit = foldedLine
	}
	if width > limit && !first && p.space != "" && p.space[0] != '\r' {
		p.space = "\r\n" + p.space
	}
	l.write(p.space)
	l.write(s)
	l.encoded = l.encoded || encoded
}

func (l *layout) words(p piece, first bool) {
	encode, width := chooseEncoding(p.text)
	width += len(p.after)
	room := l.room(len(p.space) + len(p.before))
	if p.space[0] != '\r' && width > room && (room < minPayload || !first && width <= maxPayload-len(p.before)) {
		p.space = "\r\n" + p.space
	}
	l.write(p.space)
	l.write(p.before)
	for text := p.text; ; l.write("\r\n ") {
		room := l.room(0)
		word, rest := encode(text, room)
		if rest == "" && l.column+len(word)+len(p.after) > foldedLine {
			word, rest = encode(text, room-len(p.after))
		}
		l.write(word)
		l.encoded = true
		if text = rest; text == "" {
			break
		}
	}
	l.write(p.after)
}

// room is what an encoded-word may carry after n octets more on this line.
func (l *layout) room(n int) int {
	return min(maxPayload, foldedLine-l.column-n-len(encodedQ)-len(encodedEnd))
}

// chooseEncoding takes the shorter of the two encodings, Q if they are equal since some of it can
// be read. The function takes as much of a text, by whole characters, as an encoded-word has room
// for, and at least one character. RFC 2047 sections 4, 5.
func chooseEncoding(text string) (encode func(text string, room int) (word, rest string), width int) {
	q := 0
	for i := range len(text) {
		q += widthQ(text[i])
	}
	if b := base64.StdEncoding.EncodedLen(len(text)); b < q {
		return encodeB, b
	}
	return encodeQ, q
}

func encodeB(text string, room int) (word, rest string) {
	n := takeRunes(text, base64.StdEncoding.DecodedLen(room/4*4), func(byte) int { return 1 })
	return encodedB + base64.StdEncoding.EncodeToString([]byte(text[:n])) + encodedEnd, text[n:]
}

func encodeQ(text string, room int) (word, rest string) {
	n := takeRunes(text, room, widthQ)
	out := slices.Grow([]byte(encodedQ), room+len(encodedEnd))
	for i := range n {
		switch c := text[i]; {
		case c == ' ':
			out = append(out, '_')
		case widthQ(c) == 1:
			out = append(out, c)
		default:
			out = appendHex(append(out, '='), c)
		}
	}
	return string(append(out, encodedEnd...)), text[n:]
}

// takeRunes is the length of the longest start of text, by whole characters, that is no wider than
// room. The first character is taken in any case.
func takeRunes(text string, room int, width func(byte) int) int {
	n := 0
	for n < len(text) {
		_, size := utf8.DecodeRuneInString(text[n:])
		for i := range size {
			room -= width(text[n+i])
		}
		if room < 0 && n > 0 {
			break
		}
		n += size
	}
	return n
}

// widthQ is the octets that c takes in the Q encoding. One set of characters serves every place: the
// one for phrases, which is the smallest. RFC 2047 section 5 (3).
func widthQ(c byte) int {
	if isAlphanumeric(c) || strings.IndexByte(" !*+-/", c) >= 0 {
		return 1
	}
	return 3
}

func isAlphanumeric(c byte) bool {
	return '0' <= c && c <= '9' || 'A' <= c && c <= 'Z' || 'a' <= c && c <= 'z'
}

func appendHex(out []byte, c byte) []byte {
	const digits = "0123456789ABCDEF"
	return append(out, digits[c>>4], digits[c&15])
}
