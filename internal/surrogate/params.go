package surrogate

import (
	"slices"
	"strconv"
	"strings"
)

// A param is what stands after a semicolon in a MIME field.
type param struct {
	raw      string // as it came, white space included
	name     string // with its asterisks; empty if there is no name in ASCII
	base     string // the name in lower case without them
	section  int    // of a continuation, else -1
	extended bool
	value    string // without quotes
}

// leftover is the parameter for what has no name of its own in ASCII.
const leftover = "x-downgraded"

// parameters rewrites Content-Type and Content-Disposition: a parameter outside ASCII becomes an
// extended one. RFC 2231 sections 3, 4; RFC 6857 section 3.2.
func parameters(value string) ([]piece, verdict) {
	segments := splitParams(value)
	var b builder
	if isASCII(segments[0]) {
		b.param(segments[0])
	} else {
		pieces, v := comments(segments[0])
		if v != rewritten {
			return nil, unparsed
		}
		b.pieces = pieces
	}

	var params []param
	named := map[string][]param{}
	affected := map[string]bool{}
	for _, s := range segments[1:] {
		p := parseParam(s)
		params = append(params, p)
		named[p.base] = append(named[p.base], p)
		affected[p.base] = affected[p.base] || !isASCII(s)
	}
	done := map[string]bool{}
	for _, p := range params {
		if done[p.base] && affected[p.base] {
			continue
		}
		done[p.base] = true
		b.literal(";")
		if !affected[p.base] {
			b.param(p.raw)
			continue
		}
		b.space = shortSpace(p.raw[:len(p.raw)-len(strings.TrimLeft(p.raw, space))])
		name, _, _ := strings.Cut(p.name, "*")
		if p.base == leftover {
			name = leftover
		}
		if kept, text := choose(named[p.base]); kept != "" {
			b.param(kept)
		} else {
			b.extended(name, text)
		}
	}
	return b.pieces, rewritten
}

// splitParams splits at each semicolon that is not in a quoted string. A quoted string without an
// end goes on to the end of the value.
func splitParams(value string) []string {
	var segments []string
	start, quoted := 0, false
	for i := 0; i < len(value); i++ {
		switch c := value[i]; {
		case c == '\\' && quoted:
			i++
		case c == '"':
			quoted = !quoted
		case c == ';' && !quoted:
			segments = append(segments, value[start:i])
			start = i + 1
		}
	}
	return append(segments, value[start:])
}

// parseParam takes a value without quotes up to the next semicolon, spaces included: many a client
// has forgotten the quotes. What is no parameter in ASCII is of base leftover.
func parseParam(segment string) param {
	p := param{raw: segment, base: leftover, section: -1, value: unfold(strings.Trim(segment, space))}
	name, value, ok := strings.Cut(p.value, "=")
	name = strings.TrimRight(name, " \t")
	base, suffix, _ := strings.Cut(name, "*")
	if !ok || base == "" || strings.ContainsFunc(base, func(r rune) bool { return !isToken(r) }) {
		if isASCII(segment) {
			p.base = "" // an oddity that can stay
		}
		return p
	}
	p.name, p.base = name, strings.ToLower(base)
	number, extended := strings.CutSuffix(suffix, "*")
	p.extended = extended || suffix == "" && base != name
	if n, err := strconv.Atoi(number); err == nil && n >= 0 {
		p.section = n
	}
	p.value = strings.TrimLeft(value, " \t")
	if strings.HasPrefix(p.value, `"`) {
		if n := closing(p.value, 0, '"'); n > 0 {
			p.value = unquote(p.value[:n])
		} else {
			p.value = unquote(p.value + `"`)
		}
	}
	if p.extended {
		p.value = percentDecode(p.value, p.section <= 0)
	}
	return p
}

// choose says what the parameters of one name say together: an extended one before continuations
// before a plain one, as RFC 6266 section 4.3 has it. kept is the parameter to keep as it came, if
// there is one.
func choose(params []param) (kept, text string) {
	if params[0].base == leftover {
		var all []string
		for _, p := range params {
			all = append(all, p.value)
		}
		return "", strings.Join(all, "; ")
	}
	var sections []param
	for _, p := range params {
		switch {
		case p.section >= 0:
			sections = append(sections, p)
		case p.extended && isASCII(p.raw):
			return p.raw, ""
		case p.extended:
			return "", p.value
		}
	}
	if len(sections) == 0 {
		return "", params[0].value
	}
	slices.SortStableFunc(sections, func(a, b param) int { return a.section - b.section })
	var s strings.Builder
	for _, p := range sections {
		s.WriteString(p.value)
	}
	return "", s.String()
}

// param adds a parameter, or what stands before the first, that is ASCII.
func (b *builder) param(raw string) {
	s := strings.TrimLeft(raw, space)
	if n := len(raw) - len(s); n > 0 {
		b.space = raw[:n]
	}
	if s = strings.TrimRight(s, space); s != "" {
		b.literal(s)
	}
}

// maxSplitName is the longest name of a parameter that is worth repeating in each section of it.
const maxSplitName = 24

// extended adds an extended parameter, in sections if it is too long for a line.
func (b *builder) extended(name, text string) {
	const charset = "UTF-8''"
	const margin = len("\t*00*=;")
	text = strings.ToValidUTF8(text, "\uFFFD")
	room := foldedLine - len(name) - margin - len(charset)
	n := takeRunes(text, room, widthPercent)
	if n == len(text) || len(name) > maxSplitName {
		b.literal(name + "*=" + charset + percentEncode(text))
		return
	}
	prefix := charset
	for i := 0; text != ""; i++ {
		if i > 0 {
			b.literal(";")
			b.space = "\r\n "
			n = takeRunes(text, room, widthPercent)
		}
		b.literal(name + "*" + strconv.Itoa(i) + "*=" + prefix + percentEncode(text[:n]))
		text, prefix = text[n:], ""
	}
}

// isToken says whether c may stand in the name of a parameter. RFC 2045 section 5.1, and RFC 2231
// section 7 for the characters that are left out of it.
func isToken(r rune) bool {
	return r > ' ' && r < 0x7F && !strings.ContainsRune("()<>@,;:\\\"/[]?=*'%", r)
}

func widthPercent(c byte) int {
	if isAlphanumeric(c) || strings.IndexByte("-._~", c) >= 0 {
		return 1
	}
	return 3
}

func percentEncode(s string) string {
	var out []byte
	for i := range len(s) {
		if widthPercent(s[i]) == 1 {
			out = append(out, s[i])
		} else {
			out = appendHex(append(out, '%'), s[i])
		}
	}
	return string(out)
}

// percentDecode decodes the value of an extended parameter; first says that it begins with a charset
// and a language. A percent sign that begins no octet stays.
func percentDecode(s string, first bool) string {
	if _, rest, ok := strings.Cut(s, "'"); ok && first {
		if _, text, ok := strings.Cut(rest, "'"); ok {
			s = text
		}
	}
	out := make([]byte, 0, len(s))
	for i := 0; i < len(s); i++ {
		if s[i] == '%' && i+2 < len(s) {
			if c, err := strconv.ParseUint(s[i+1:i+3], 16, 8); err == nil {
				out = append(out, byte(c))
				i += 2
				continue
			}
		}
		out = append(out, s[i])
	}
	return string(out)
}
