package main

import (
	"bytes"
	"fmt"
	"io"
	"mime"
	"net/mail"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"golang.org/x/text/encoding/htmlindex"
	"golang.org/x/text/width"

	"dewey/maildrop/message"
)

// A heading is what a list shows of a message's header section.
type heading struct {
	date          time.Time // zero: none that parses
	from, subject string    // decoded; any octets
}

// readHeader reads the header section of a message, as far as it needs, into buf, which it returns for the next time.
func readHeader(r io.Reader, buf []byte) ([]byte, error) {
	const piece = 4 << 10
	buf = buf[:0]
	for len(buf) < message.MaxHeader {
		if cap(buf) < len(buf)+piece {
			grown := make([]byte, len(buf), 2*cap(buf)+piece)
			copy(grown, buf)
			buf = grown
		}
		n, err := io.ReadFull(r, buf[len(buf):len(buf)+piece])
		at := max(0, len(buf)-3)
		buf = buf[:len(buf)+n]
		if end := bytes.Index(buf[at:], []byte("\n\n")); end >= 0 {
			return buf[:at+end+1], nil
		}
		if end := bytes.Index(buf[at:], []byte("\n\r\n")); end >= 0 {
			return buf[:at+end+1], nil
		}
		if err == io.EOF || err == io.ErrUnexpectedEOF { //nolint:errorlint // io.ReadFull never wraps them
			break
		}
		if err != nil {
			return buf, err //nolint:wrapcheck // names the file
		}
	}
	return buf, nil
}

// parseHeading takes the first field of each name. RFC 5322 section 2.2.
func parseHeading(section []byte) heading {
	fields := map[string]string{}
	for len(section) > 0 {
		if section[0] == '\n' || bytes.HasPrefix(section, []byte("\r\n")) {
			break
		}
		end := 0
		for { // a line that begins with a blank goes on with the one before
			i := bytes.IndexByte(section[end:], '\n')
			if i < 0 {
				end = len(section)
				break
			}
			if end += i + 1; end == len(section) || section[end] != ' ' && section[end] != '\t' {
				break
			}
		}
		field := section[:end]
		section = section[end:]
		name, value, found := bytes.Cut(field, []byte(":"))
		if !found || len(name) > 20 {
			continue
		}
		key := strings.ToLower(string(bytes.TrimRight(name, " \t")))
		if _, there := fields[key]; !there && (key == "date" || key == "from" || key == "subject") {
			fields[key] = unfold(string(value))
		}
	}
	h := heading{from: decode(fields["from"]), subject: decode(fields["subject"])}
	if date, err := mail.ParseDate(fields["date"]); err == nil {
		h.date = sane(date)
	}
	return h
}

// sane is a time in UTC, or the zero time if it is in a year that RFC 3339 can't write.
func sane(t time.Time) time.Time {
	if t = t.UTC(); t.Year() < 1 || t.Year() > 9999 {
		return time.Time{}
	}
	return t
}

func unfold(value string) string {
	value = strings.NewReplacer("\r\n", "", "\n", "").Replace(value)
	return strings.Trim(value, " \t")
}

var words = mime.WordDecoder{CharsetReader: func(charset string, r io.Reader) (io.Reader, error) {
	encoding, err := htmlindex.Get(charset)
	if err != nil {
		return nil, err //nolint:wrapcheck // nobody reads it
	}
	return encoding.NewDecoder().Reader(r), nil
}}

// decode decodes encoded-words; what can't be decoded stays. RFC 2047.
func decode(value string) string {
	decoded, err := words.DecodeHeader(value)
	if err != nil {
		return value
	}
	return decoded
}

// author is whom a table names: a name if there is one, else an address.
func author(from string) string {
	if list, err := mail.ParseAddressList(from); err == nil && len(list) > 0 {
		if list[0].Name != "" {
			return list[0].Name
		}
		return list[0].Address
	}
	return from
}

// visible shows what a terminal would act upon, or would not show: control octets, marks that turn the direction of
// writing, octets that are no UTF-8.
func visible(s string) string {
	var b strings.Builder
	for i, r := range s {
		switch {
		case r == utf8.RuneError && broken(s[i:]):
			fmt.Fprintf(&b, `\x%02x`, s[i])
		case r == '\t':
			b.WriteByte(' ')
		case acts(r) && r < 0x80:
			fmt.Fprintf(&b, `\x%02x`, r)
		case acts(r):
			fmt.Fprintf(&b, `\u%04x`, r)
		default:
			b.WriteRune(r)
		}
	}
	return b.String()
}

// broken says that s begins with an octet that is no UTF-8.
func broken(s string) bool {
	_, size := utf8.DecodeRuneInString(s)
	return size == 1
}

// acts says of a rune that it is not only a sign. The joiner of emojis is harmless.
func acts(r rune) bool {
	return unicode.In(r, unicode.Cc, unicode.Zl, unicode.Zp) || unicode.Is(unicode.Cf, r) && r != '\u200d'
}

// cut shortens a line of text to so many columns of a terminal, and returns how many it takes.
func cut(s string, columns int) (string, int) {
	taken, end, marks := 0, -1, 0 // end: where s is cut if there is no room for all
	for i, r := range s {
		w := columnsOf(r)
		if w == 0 {
			if marks++; marks > 8 { // on one sign
				return s[:i] + "…", taken + 1
			}
			continue
		}
		marks = 0
		if taken+w > columns-1 && end < 0 {
			end = i
		}
		if taken+w > columns {
			kept := s[:end]
			n := 0
			for _, r := range kept {
				n += columnsOf(r)
			}
			return kept + "…", n + 1
		}
		taken += w
	}
	return s, taken
}

func columnsOf(r rune) int {
	if unicode.In(r, unicode.Mn, unicode.Me, unicode.Cf) {
		return 0
	}
	switch width.LookupRune(r).Kind() {
	case width.EastAsianWide, width.EastAsianFullwidth:
		return 2
	}
	return 1
}
