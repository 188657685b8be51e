// Package surrogate makes the ASCII form of a header section that has UTF-8 in it (RFC 6532), for a
// client that has not said UTF8. RFC 6856 section 2.1: to such a client character strings outside
// ASCII must not be sent as is; a server may send it a surrogate.
//
// The forms are those of RFC 6857 (post-delivery downgrading), with these choices of our own:
//
//   - text becomes encoded-words, from the first word that needs it to the last; what stands before
//     and after stays readable in the source (RFC 2047 section 5);
//   - an address whose domain alone is outside ASCII gets the A-labels of that domain, so that it can
//     still be answered (RFC 5891); any other becomes the name of an empty group, so that it is
//     seen and cannot be answered by mistake (RFC 6857 section 3);
//   - a parameter becomes an extended one (RFC 2231 sections 3, 4);
//   - in a field of several parts (Received, References) the part that cannot be said in ASCII moves
//     into a comment, and the parts that can stay;
//   - a field whose syntax has no room for an encoded-word, such as Message-ID, is renamed to
//     Downgraded- and its own name (RFC 6857 section 3.1.10).
//
// Only the header section of the message is rewritten: not the body, and not the header fields of
// the parts within it.
package surrogate

import (
	"bytes"
	"strings"
	"unicode/utf8"
)

// MaxHeader is the most octets of a header section that is rewritten. The functions here do not look
// at it, they take time and room in proportion to the header section; it says how much of a message
// a caller should be ready to read.
const MaxHeader = 64 << 10

// MaxGrowth bounds the size of a surrogate: it has at most MaxGrowth times the octets of the header
// section, each line counted with a line end. The worst case is a line of one octet that is no field;
// where Needed is true it is a line of one character, 9 times. A usual header section, its fields
// being ASCII for the most part, grows by a few parts in a hundred.
const MaxGrowth = 12

// Lengths of a line, without its line end.
const (
	maxLine    = 998 // RFC 5322 section 2.1.1
	foldedLine = 76  // with an encoded-word in it: RFC 2047 section 2
)

// malformed is the field that a line becomes that is no field: no colon, no name, or a name outside
// ASCII.
const malformed = "Downgraded-Field"

// Needed says whether a header section has to be rewritten: it has octets outside ASCII and all of
// it is valid UTF-8. A header section in some other 8-bit charset is no UTF-8 string; it goes out as
// it is, as all servers send it (RFC 6856 speaks only of UTF-8). The header section ends before the
// first empty line; what follows that line is not looked at.
func Needed(header []byte) bool {
	header = section(header)
	return !isASCII(header) && utf8.Valid(header)
}

// Header returns the surrogate of a header section, with CRLF line ends as it came. The first empty
// line and all that follows it are no part of the result, so whoever sends it adds an empty line
// after it.
//
// The result is ASCII whatever the input is, has as many fields, and is always the same for the same
// input. A field that is ASCII stays as it is, octet for octet; a header section of such fields is
// returned itself, not as a copy. No line has more than 998 octets unless one in the same field had.
// Octets that are not UTF-8, which Needed keeps away, read as U+FFFD.
func Header(header []byte) []byte {
	header = section(header)
	if isASCII(header) {
		return header
	}
	out := make([]byte, 0, len(header)+len(header)/2)
	for len(header) > 0 {
		n := fieldLen(header)
		field := header[:n]
		header = header[n:]
		if isASCII(field) {
			out = append(out, field...)
			continue
		}
		body, ended := bytes.CutSuffix(field, []byte("\r\n"))
		out = append(out, rewriteField(body)...)
		if ended {
			out = append(out, "\r\n"...)
		}
	}
	return out
}

// section is header up to its first empty line.
func section(header []byte) []byte {
	if bytes.HasPrefix(header, []byte("\r\n")) {
		return nil
	}
	if i := bytes.Index(header, []byte("\r\n\r\n")); i >= 0 {
		return header[:i+2]
	}
	return header
}

// fieldLen is the length of the first field: a line and the continuations after it.
// RFC 5322 section 2.2.3.
func fieldLen(header []byte) int {
	n := 0
	for {
		i := bytes.Index(header[n:], []byte("\r\n"))
		if i < 0 {
			return len(header)
		}
		n += i + 2
		if n == len(header) || !isSpace(header[n]) {
			return n
		}
	}
}

// A rewriting turns the value of a field, clean and folded as it came, into pieces that are ASCII.
type rewriting func(value string) ([]piece, verdict)

type verdict int

const (
	rewritten     verdict = iota
	unparsed              // not the syntax of this field: the value is taken as text
	inexpressible         // no ASCII form in this field: it is renamed
)

// rewritings lists the fields that are not mere text. RFC 6857 section 3.2.
var rewritings = map[string]rewriting{
	"from":                        addresses,
	"sender":                      addresses,
	"reply-to":                    addresses,
	"to":                          addresses,
	"cc":                          addresses,
	"bcc":                         addresses,
	"resent-from":                 addresses,
	"resent-sender":               addresses,
	"resent-reply-to":             addresses,
	"resent-to":                   addresses,
	"resent-cc":                   addresses,
	"resent-bcc":                  addresses,
	"mail-followup-to":            addresses,
	"mail-reply-to":               addresses,
	"errors-to":                   addresses,
	"disposition-notification-to": addresses,

	// These name one address and have no groups, so RFC 6857's own form for Return-Path would not
	// be valid there (RFC 5322 section 3.6.7).
	"return-path":    path,
	"delivered-to":   path,
	"x-original-to":  path,
	"x-delivered-to": path,
	"envelope-to":    path,

	"keywords":    phrases,
	"received":    trace,
	"in-reply-to": messageIDs,
	"references":  messageIDs,

	"message-id":                comments,
	"resent-message-id":         comments,
	"original-recipient":        comments,
	"final-recipient":           comments,
	"date":                      comments,
	"resent-date":               comments,
	"mime-version":              comments,
	"content-id":                comments,
	"content-transfer-encoding": comments,
	"content-language":          comments,
	"accept-language":           comments,
	"auto-submitted":            comments,

	"content-type":        parameters,
	"content-disposition": parameters,
}

// rewriteField returns the surrogate of one field, both without the last line end.
func rewriteField(field []byte) []byte {
	name, value, ok := cutName(clean(string(bytes.ToValidUTF8(field, []byte("\uFFFD")))))
	rewrite := text
	if !ok {
		name = malformed
	} else if r := rewritings[strings.ToLower(strings.TrimRight(name, " \t"))]; r != nil {
		rewrite = r
	}
	pieces, v := rewrite(value)
	switch v {
	case rewritten:
	case unparsed:
		pieces, _ = text(value)
	case inexpressible:
		name = "Downgraded-" + name
		pieces, _ = text(value)
	}
	out := layOut(name, pieces)
	if isASCII(out) && (longestLine(out) <= maxLine || longestLine(field) > maxLine) {
		return out
	}
	// Encoded-words alone can be folded anywhere.
	return layOut(name, []piece{{encoded: true, text: strings.TrimLeft(unfold(value), " \t")}})
}

// cutName splits a field at its colon. The value has no white space at its end. If there is no name
// the whole field is the value. RFC 5322 section 2.2.
func cutName(field string) (name, value string, ok bool) {
	field = strings.TrimRight(field, space)
	line, _, _ := strings.Cut(field, "\r\n")
	i := strings.IndexByte(line, ':')
	if i <= 0 || isSpace(line[0]) || !isASCII(line[:i]) {
		return "", field, false
	}
	return line[:i], field[i+1:], true
}

// clean puts a space for each octet that no field may have: a CR or an LF that is not of a fold, and
// a NUL. A fold that leaves a line of white space alone is taken out: it is obsolete, and many a
// program takes such a line for the empty one. RFC 5322 sections 2.2, 3.2.2, 4.
func clean(field string) string {
	if !strings.ContainsAny(field, "\r\n\x00") {
		return field
	}
	octets := []byte(field)
	for i := 0; i < len(octets); i++ {
		switch octets[i] {
		case '\r':
			if i+2 < len(octets) && octets[i+1] == '\n' && isSpace(octets[i+2]) {
				i++
				continue
			}
			octets[i] = ' '
		case '\n', 0:
			octets[i] = ' '
		}
	}
	var out strings.Builder
	for line := range strings.SplitSeq(string(octets), "\r\n") {
		if out.Len() > 0 && strings.Trim(line, " \t") != "" {
			out.WriteString("\r\n")
		}
		out.WriteString(line)
	}
	return out.String()
}

// space is white space in a value that is folded.
const space = " \t\r\n"

func isSpace(c byte) bool { return c == ' ' || c == '\t' }

// unfold takes the folds out. RFC 5322 section 2.2.3.
func unfold(s string) string {
	return strings.ReplaceAll(s, "\r\n", "")
}

func isASCII[T string | []byte](s T) bool {
	for i := range len(s) {
		if s[i] >= utf8.RuneSelf {
			return false
		}
	}
	return true
}

func longestLine(field []byte) int {
	longest := 0
	for line := range bytes.SplitSeq(field, []byte("\r\n")) {
		longest = max(longest, len(line))
	}
	return longest
}
