package recipients

import (
	"strings"
	"unicode/utf8"
)

// maxAddress is the most octets of an address. RFC 5321 section 4.5.3.1.3 has 256 for a path, and lets a
// server take more.
const maxAddress = 1000

// An address is taken apart and unquoted.
type address struct {
	local  string
	domain string // in ASCII lower case; empty: a name without a domain
	spelt  string // the domain as it was written
}

// name is the address as a user's name.
func (a address) name() string {
	if a.domain == "" {
		return a.local
	}
	return a.local + "@" + a.domain
}

// key is the address as aliases are found by it.
func (a address) key() string { return lower(a.name()) }

// parseAddress reads what stands between the angle brackets of RCPT TO, or a name without a domain. A
// source route is dropped (RFC 5321 section 4.1.2). Dots may stand anywhere in a local part: such addresses
// are in use.
func parseAddress(text string) (address, bool) {
	if len(text) > maxAddress || !utf8.ValidString(text) || strings.ContainsFunc(text, control) {
		return address{}, false
	}
	if strings.HasPrefix(text, "@") {
		_, rest, found := strings.Cut(text, ":")
		if !found || strings.HasPrefix(rest, "@") {
			return address{}, false
		}
		text = rest
	}
	local, rest, ok := localPart(text)
	if !ok || local == "" {
		return address{}, false
	}
	if rest == "" {
		return address{local: local}, true
	}
	domain := rest[1:]
	if rest[0] != '@' || !validDomain(domain) {
		return address{}, false
	}
	return address{local: local, domain: lower(domain), spelt: domain}, true
}

// localPart cuts the local part off, unquoted: all quoted forms are the same. RFC 5321 section 4.1.2.
func localPart(text string) (local, rest string, ok bool) {
	if !strings.HasPrefix(text, `"`) {
		end := strings.IndexFunc(text, func(r rune) bool { return strings.ContainsRune(" \"(),:;<>@[\\]", r) })
		if end < 0 {
			end = len(text)
		}
		return text[:end], text[end:], true
	}
	var b strings.Builder
	for i := 1; i < len(text); i++ {
		switch text[i] {
		case '"':
			return b.String(), text[i+1:], true
		case '\\':
			if i++; i == len(text) {
				return "", "", false
			}
		}
		b.WriteByte(text[i])
	}
	return "", "", false
}

// validDomain says whether a domain is one of names or an address in brackets. RFC 5321 sections 4.1.2
// and 4.1.3; RFC 6531 section 3.3 adds what is not ASCII. An underscore is let pass, since names in use have it.
func validDomain(domain string) bool {
	if inside, ok := strings.CutPrefix(domain, "["); ok {
		inside, closed := strings.CutSuffix(inside, "]")
		return closed && inside != "" && !strings.ContainsAny(inside, " @[]\\") // no tag is registered whose literals have an @
	}
	if domain == "" || len(domain) > 255 {
		return false
	}
	for label := range strings.SplitSeq(domain, ".") {
		if label == "" || label[0] == '-' || label[len(label)-1] == '-' {
			return false
		}
		for _, r := range label {
			if r < utf8.RuneSelf && (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && r != '-' && r != '_' {
				return false
			}
		}
	}
	return true
}

func control(r rune) bool { return r < ' ' || r == 0x7f }

// lower changes A to Z and nothing else, so that no two names of other scripts fall together.
func lower(s string) string {
	return strings.Map(func(r rune) rune {
		if 'A' <= r && r <= 'Z' {
			return r + 'a' - 'A'
		}
		return r
	}, s)
}
