package maildir

import (
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"strings"
	"unicode"
	"unicode/utf16"
	"unicode/utf8"

	"dewey/maildrop"
)

const (
	mostName     = 200 // octets of a folder's name
	mostDiskName = 255 // octets of a name on the disk
)

// diskNames are the names under which a folder may lie in its owner's Maildir, as Maildir++ has it: that in modified
// UTF-7, as Dovecot and Courier have it, and that in UTF-8, which Dovecot can be told to use. Both begin with one '.' and
// have no '/'. They are the same if the first would be no other, or too long. maildrop.ErrNoFolder if it is no folder's
// name.
func diskNames(name string) (utf7, plain string, err error) {
	wrong := ""
	switch {
	case len(name) > mostName:
		wrong = fmt.Sprintf("has %d octets, %d at most would be right", len(name), mostName)
		name = name[:mostName]
	case !utf8.ValidString(name):
		wrong = "is not in UTF-8"
	case strings.ContainsFunc(name, unicode.IsControl):
		wrong = "has a control character"
	case strings.Contains(name, "."):
		wrong = "has a dot: between a folder and one in it there is a /"
	case strings.Contains("/"+name+"/", "//"):
		wrong = "has an empty part, Lists/dewey would be right"
	}
	if wrong != "" {
		return "", "", fmt.Errorf("%w: %q %s", maildrop.ErrNoFolder, name, wrong)
	}
	plain = "." + strings.ReplaceAll(name, "/", ".")
	if utf7 = modifiedUTF7(plain); len(utf7) > mostDiskName {
		utf7 = plain
	}
	return utf7, plain, nil
}

var base64Comma = base64.NewEncoding("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+,").WithPadding(base64.NoPadding)

// modifiedUTF7 writes a name as IMAP does: RFC 3501 section 5.1.3.
func modifiedUTF7(name string) string {
	var b strings.Builder
	var wide []uint16
	shift := func() {
		if len(wide) == 0 {
			return
		}
		var octets []byte
		for _, w := range wide {
			octets = binary.BigEndian.AppendUint16(octets, w)
		}
		b.WriteString("&" + base64Comma.EncodeToString(octets) + "-")
		wide = wide[:0]
	}
	for _, r := range name {
		if r < ' ' || r > '~' {
			wide = utf16.AppendRune(wide, r)
			continue
		}
		shift()
		b.WriteRune(r)
		if r == '&' {
			b.WriteByte('-')
		}
	}
	shift()
	return b.String()
}

// folderName is the name of a folder that has this one on the disk, which is returned as it is if it can be no folder's.
func folderName(disk string) string {
	name, ok := strings.CutPrefix(disk, ".")
	plain := strings.ReplaceAll(name, ".", "/")
	for _, name := range []string{plainUTF7(plain), plain} {
		if utf7, plain, err := diskNames(name); ok && err == nil && (utf7 == disk || plain == disk) {
			return name
		}
	}
	return disk
}

// plainUTF7 reads a name in modified UTF-7. What is none gives another name, or none.
func plainUTF7(name string) string {
	var b strings.Builder
	for {
		part, rest, shifted := strings.Cut(name, "&")
		b.WriteString(part)
		if !shifted {
			return b.String()
		}
		part, name, _ = strings.Cut(rest, "-")
		if part == "" {
			b.WriteByte('&')
			continue
		}
		octets, _ := base64Comma.DecodeString(part)
		var wide []uint16
		for ; len(octets) > 1; octets = octets[2:] {
			wide = append(wide, binary.BigEndian.Uint16(octets))
		}
		b.WriteString(string(utf16.Decode(wide)))
	}
}

// foldUTF7 is a name in modified UTF-7 with its ASCII letters in lower case: those between & and - are none.
func foldUTF7(name string) string {
	var b strings.Builder
	for wide := false; name != ""; wide = !wide {
		end := "&"
		if wide {
			end = "-"
		}
		part, rest, _ := strings.Cut(name, end)
		if !wide {
			part = foldASCII(part)
		}
		b.WriteString(part + end)
		name = rest
	}
	return b.String()
}

func foldASCII(name string) string {
	return strings.Map(func(r rune) rune {
		if 'A' <= r && r <= 'Z' {
			r += 'a' - 'A'
		}
		return r
	}, name)
}
