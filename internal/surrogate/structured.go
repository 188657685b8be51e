package surrogate

import (
	"bytes"
	"strings"
)

// structured rewrites a value of words and comments. The comments are encoded; a word outside ASCII
// goes to other, which adds a form of it or says that there is none. Text in place of the value
// would not be valid in such a field, so one that cannot be parsed is inexpressible too.
func structured(value string, other func(b *builder, word string) bool) ([]piece, verdict) {
	tokens, ok := tokenize(value)
	if !ok {
		return nil, inexpressible
	}
	var b builder
	for len(tokens) > 0 {
		n := max(1, wordEnd(tokens, ';'))
		if raw := rawOf(tokens[:n]); tokens[0].isFiller() || isASCII(raw) {
			b.tokens(tokens[:n])
		} else if !other(&b, raw) {
			return nil, inexpressible
		}
		tokens = tokens[n:]
	}
	return b.pieces, rewritten
}

// comments rewrites a field in which only a comment can be encoded. RFC 6857 section 3.2.
func comments(value string) ([]piece, verdict) {
	return structured(value, func(*builder, string) bool { return false })
}

// messageIDs rewrites a list of message identifiers. One outside ASCII has no equal in ASCII; it
// becomes a comment, so that a client can still follow the thread by the others. If no other is
// left the field is renamed. RFC 5322 section 3.6.4.
func messageIDs(value string) ([]piece, verdict) {
	pieces, _ := structured(value, func(b *builder, word string) bool {
		b.aside(word)
		return true
	})
	for _, p := range pieces {
		if bytes.IndexByte(p.literal, '<') >= 0 {
			return pieces, rewritten
		}
	}
	return nil, inexpressible
}

// clauses are the words that name a part of a Received field. RFC 5321 section 4.4.
var clauses = map[string]bool{"from": true, "by": true, "via": true, "with": true, "id": true, "for": true}

// trace rewrites Received. A domain gets its A-labels; any other value outside ASCII becomes a
// comment together with the word that names it, for what is left has to be a valid list of such
// pairs. RFC 5321 section 4.4.
func trace(value string) ([]piece, verdict) {
	return structured(value, func(b *builder, word string) bool {
		if domain, ok := asciiDomain(word); ok {
			b.literal(domain)
			return true
		}
		if last := len(b.pieces) - 1; last >= 0 {
			p := b.pieces[last]
			if !p.encoded && len(p.literal) <= len("from") && clauses[strings.ToLower(string(p.literal))] {
				word = string(p.literal) + " " + word
				b.pieces, b.space = b.pieces[:last], p.space
			}
		}
		b.aside(word)
		return true
	})
}
