package surrogate

import "strings"

// A token of a structured field. Put together, the tokens of a value give it back octet for octet.
// RFC 5322 section 3.2.
type token struct {
	kind byte // one of the constants, or the special character itself
	raw  string
}

const (
	spaceToken   = ' '
	commentToken = '('
	quotedToken  = '"'
	literalToken = '[' // a domain literal
	atomToken    = 'a' // anything else, dots included
)

// tokenize is liberal in what an atom is; it fails only where a quoted string, a comment or a domain
// literal has no end.
func tokenize(value string) ([]token, bool) {
	var tokens []token
	for value != "" {
		kind, n := value[0], 1
		switch kind {
		case ' ', '\t', '\r', '\n':
			kind, n = spaceToken, len(value)-len(strings.TrimLeft(value, space))
		case '"':
			n = closing(value, 0, '"')
		case '(':
			n = closing(value, '(', ')')
		case '[':
			n = closing(value, 0, ']')
		case '<', '>', ',', ';', ':', '@':
		default:
			kind, n = atomToken, strings.IndexAny(value, space+"\"([<>,;:@")
			if n < 0 {
				n = len(value)
			}
		}
		if n == 0 {
			return nil, false
		}
		tokens = append(tokens, token{kind, value[:n]})
		value = value[n:]
	}
	return tokens, true
}

// closing is the length of what begins with s[0] and ends at its counterpart, or 0. Only a comment
// can hold another of its kind; then open is its parenthesis. RFC 5322 sections 3.2.1, 3.2.2.
func closing(s string, open, end byte) int {
	depth := 1
	for i := 1; i < len(s); i++ {
		switch c := s[i]; {
		case c == '\\':
			i++
		case c == end:
			if depth--; depth == 0 {
				return i + 1
			}
		case c == open:
			depth++
		}
	}
	return 0
}

// unquote takes the first and the last octet away, and the folds and quoted-pairs in between.
func unquote(raw string) string {
	s := unfold(raw[1 : len(raw)-1])
	if strings.IndexByte(s, '\\') < 0 {
		return s
	}
	out := make([]byte, 0, len(s))
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+1 < len(s) {
			i++
		}
		out = append(out, s[i])
	}
	return string(out)
}

// isFiller says whether the token is white space or a comment (CFWS, RFC 5322 section 3.2.2).
func (t token) isFiller() bool { return t.kind == spaceToken || t.kind == commentToken }

// wordEnd is the index of the first token that is a filler or of kind stop.
func wordEnd(tokens []token, stop byte) int {
	for i, t := range tokens {
		if t.isFiller() || t.kind == stop {
			return i
		}
	}
	return len(tokens)
}

// indexKind is the index of the first token of that kind, or -1.
func indexKind(tokens []token, kind byte) int {
	for i, t := range tokens {
		if t.kind == kind {
			return i
		}
	}
	return -1
}

func rawOf(tokens []token) string {
	var s strings.Builder
	for _, t := range tokens {
		s.WriteString(t.raw)
	}
	return s.String()
}

// coreOf is what the tokens say without white space and comments.
func coreOf(tokens []token) string {
	var s strings.Builder
	for _, t := range tokens {
		if !t.isFiller() {
			s.WriteString(t.raw)
		}
	}
	return s.String()
}

// A builder puts the pieces of a structured value together.
type builder struct {
	pieces []piece
	space  string // before the next piece
}

// tokens adds tokens as they are; comments are encoded where they need it.
func (b *builder) tokens(tokens []token) {
	for _, t := range tokens {
		switch {
		case t.kind == spaceToken:
			b.space = t.raw
		case t.kind == commentToken:
			b.comment(t.raw)
		default:
			b.literal(t.raw)
		}
	}
}

// literal adds s, without white space before it if there was none, except after an encoded-word: in
// a phrase it has white space on both sides (RFC 2047 section 5 (3)).
func (b *builder) literal(s string) {
	if b.space == "" && len(b.pieces) > 0 {
		last := &b.pieces[len(b.pieces)-1]
		switch {
		case !last.encoded:
			last.literal = append(last.literal, s...)
			return
		case len(last.after) == 1 && len(s) == 1:
			last.after += s
			return
		}
		b.space = " "
	}
	b.pieces = append(b.pieces, piece{space: b.space, literal: []byte(s)})
	b.space = ""
}

// add adds pieces that need white space before them.
func (b *builder) add(pieces ...piece) {
	pieces[0].space = b.space
	if b.space == "" || len(unfold(b.space)) > longSpace {
		pieces[0].space = shortSpace(b.space)
	}
	b.pieces = append(b.pieces, pieces...)
	b.space = ""
}

// comment adds a comment, encoded if it needs it. RFC 2047 section 5 (2).
func (b *builder) comment(raw string) {
	if isASCII(raw) {
		b.literal(raw)
		return
	}
	inside := strings.Trim(raw[1:len(raw)-1], space)
	words := splitWords(inside)
	if strings.ContainsAny(inside, `()\`) {
		// The parentheses within become text, all or none.
		words = []word{{text: strings.Trim(unquote(raw), " \t")}}
	}
	pieces := encodeWords(words, true)
	first, last := &pieces[0], &pieces[len(pieces)-1]
	if first.encoded {
		first.before = "("
	} else {
		first.literal = append([]byte("("), first.literal...)
	}
	if last.encoded {
		last.after = ")"
	} else {
		last.literal = append(last.literal, ')')
	}
	b.add(pieces...)
}

// aside adds text as a comment of its own.
func (b *builder) aside(text string) {
	b.add(piece{encoded: true, text: text, before: "(", after: ")"})
}

// phrase adds the words of a phrase, all of them encoded if one needs it.
// RFC 2047 section 5 (3), RFC 5322 section 3.2.5.
func (b *builder) phrase(tokens []token) {
	if isASCII(coreOf(tokens)) {
		b.tokens(tokens)
		return
	}
	var words []word
	flush := func(space string) {
		if len(words) > 0 {
			b.add(encodeWords(words, true)...)
		}
		words, b.space = nil, space
	}
	space := b.space
	for len(tokens) > 0 {
		switch tokens[0].kind {
		case spaceToken:
			space = tokens[0].raw
			tokens = tokens[1:]
			continue
		case commentToken:
			flush(space)
			b.comment(tokens[0].raw)
			tokens = tokens[1:]
		default:
			if len(words) == 0 {
				b.space = space
			}
			n := wordEnd(tokens, 0)
			words = append(words, word{space, rawOf(tokens[:n]), textOf(tokens[:n])})
			tokens = tokens[n:]
		}
		space = ""
	}
	flush(space)
}

// textOf is what the tokens of a word or a phrase say, comments left out.
func textOf(tokens []token) string {
	var s strings.Builder
	for _, t := range tokens {
		switch t.kind {
		case commentToken:
		case quotedToken:
			s.WriteString(unquote(t.raw))
		default:
			s.WriteString(unfold(t.raw))
		}
	}
	return strings.Trim(s.String(), " \t")
}
