package lmtp

import (
	"errors"
	"math"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

var (
	errSyntax   = errors.New("syntax")
	errNotASCII = errors.New("an address outside ASCII, and no SMTPUTF8")
)

// maxPath bounds a path. RFC 5321 section 4.5.3.1.3 has 256 octets and asks to take more where possible:
// senders such as SRS's are longer. Twice as much, which quoting may make of it, fits into a header line.
const maxPath = 450

// parsePath parses what follows "FROM:" or "TO:" and returns the mailbox, empty for the null path, and the
// rest of the line. It is returned in one form only, quoted where it must be and not elsewhere, so that who
// looks it up and who reads it in a header see the same address. RFC 5321 section 4.1.2.
//
// The domain may be missing: postmaster has none (RFC 5321 section 4.1.1.3), and in LMTP few recipients need
// one. A source route is taken and ignored (appendix C).
func parsePath(s string, smtputf8 bool) (mailbox, rest string, err error) {
	s, ok := strings.CutPrefix(strings.TrimLeft(s, " "), "<")
	if !ok {
		return "", "", errSyntax
	}
	if rest, ok := strings.CutPrefix(s, ">"); ok {
		return "", rest, checkRest(rest)
	}
	if strings.HasPrefix(s, "@") {
		route, after, ok := strings.Cut(s, ":")
		if !ok || strings.ContainsAny(route, "<>\" ") {
			return "", "", errSyntax
		}
		s = after
	}
	whole := s
	local, s, ok := parseLocal(s)
	if !ok || local == "" {
		return "", "", errSyntax
	}
	mailbox = quoteLocal(local)
	if after, ok := strings.CutPrefix(s, "@"); ok {
		end := strings.IndexByte(after, '>')
		if end < 0 || !validDomain(after[:end], true) {
			return "", "", errSyntax
		}
		mailbox += "@" + after[:end]
		s = after[end:]
	}
	rest, ok = strings.CutPrefix(s, ">")
	if !ok || len(whole)-len(rest) > maxPath {
		return "", "", errSyntax
	}
	if !smtputf8 && !isASCII(mailbox) {
		return "", "", errNotASCII
	}
	return mailbox, rest, checkRest(rest)
}

func checkRest(rest string) error {
	if rest != "" && rest[0] != ' ' {
		return errSyntax
	}
	return nil
}

// parseLocal takes a local part off s, and its quotes off the local part. Dots may stand where RFC 5321
// section 4.1.2 has none, as they do in addresses that are in use.
func parseLocal(s string) (local, rest string, ok bool) {
	quoted, isQuoted := strings.CutPrefix(s, `"`)
	if !isQuoted {
		end := strings.IndexFunc(s, func(r rune) bool { return r != '.' && !isAtext(r) })
		if end < 0 {
			return "", "", false
		}
		return s[:end], s[end:], true
	}
	var b strings.Builder
	for i := 0; i < len(quoted); i++ {
		switch c := quoted[i]; c {
		case '"':
			return b.String(), quoted[i+1:], true
		case '\\':
			if i++; i == len(quoted) {
				return "", "", false
			}
			b.WriteByte(quoted[i])
		default:
			b.WriteByte(c)
		}
	}
	return "", "", false
}

func quoteLocal(local string) string {
	if strings.IndexFunc(local, func(r rune) bool { return r != '.' && !isAtext(r) }) < 0 {
		return local
	}
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(local) + `"`
}

// isAtext: RFC 5322 section 3.2.3, and what RFC 6531 section 3.3 adds.
func isAtext(r rune) bool {
	return 'a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' || '0' <= r && r <= '9' || r >= utf8.RuneSelf ||
		strings.ContainsRune("!#$%&'*+-/=?^_`{|}~", r)
}

// validDomain says whether s may stand where a domain or an address literal does. It is no stricter than it
// has to be: nothing that means something in a path or in a header field.
func validDomain(s string, smtputf8 bool) bool {
	if literal, ok := strings.CutPrefix(s, "["); ok {
		literal, ok = strings.CutSuffix(literal, "]")
		return ok && literal != "" && len(s) <= 255 && strings.Trim(literal, "0123456789abcdefABCDEF:.IPvx-") == ""
	}
	return s != "" && len(s) <= 255 && strings.IndexFunc(s, func(r rune) bool {
		return (r != '.' && !isAtext(r)) || strings.ContainsRune("!#$%&'*+/=?^`{|}~", r) || (r >= utf8.RuneSelf && !smtputf8)
	}) < 0
}

func isASCII(s string) bool {
	return strings.IndexFunc(s, func(r rune) bool { return r >= utf8.RuneSelf }) < 0
}

// clean says that a command line has nothing in it that could act in a log, a header or a terminal: trap 41.
func clean(line string) bool {
	return utf8.ValidString(line) && strings.IndexFunc(line, func(r rune) bool {
		return unicode.IsControl(r) || r == '\u2028' || r == '\u2029'
	}) < 0
}

// A parameter of MAIL or RCPT. RFC 5321 section 4.1.2.
type parameter struct{ keyword, value string }

func parseParameters(s string) ([]parameter, error) {
	var all []parameter
	for field := range strings.FieldsSeq(s) {
		keyword, value, has := strings.Cut(field, "=")
		p := parameter{strings.ToUpper(keyword), value}
		if keyword == "" || has && (value == "" || strings.Contains(value, "=")) {
			return nil, errSyntax
		}
		for _, q := range all {
			if q.keyword == p.keyword {
				return nil, errSyntax
			}
		}
		all = append(all, p)
	}
	return all, nil
}

// parseSize parses 1 to 20 digits; what does not fit is as large as can be. RFC 1870 section 4.
func parseSize(s string) (int64, error) {
	if s == "" || len(s) > 20 || strings.Trim(s, "0123456789") != "" {
		return 0, errSyntax
	}
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil {
		return math.MaxInt64, nil //nolint:nilerr // digits alone: it is too large
	}
	return n, nil
}
