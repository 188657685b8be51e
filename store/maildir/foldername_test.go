package maildir_test

import (
	"encoding/base64"
	"errors"
	"path/filepath"
	"strings"
	"testing"
	"unicode/utf16"

	"dewey/maildrop"
	"dewey/store/maildir"
)

// The examples of RFC 3501 section 5.1.3, and names that Dovecot 2.3 made.
func TestModifiedUTF7(t *testing.T) {
	for name, want := range map[string]string{
		"~peter/mail/台北/日本語": "~peter/mail/&U,BTFw-/&ZeVnLIqe-",
		"台北日本語":              "&U,BTF2XlZyyKng-", // and not &U,BTFw-&ZeVnLIqe-
		"Hi Mom ☺!":          "Hi Mom &Jjo-!",
		"R&D":                "R&-D",
		"&&":                 "&-&-",
		"Entwürfe":           "Entw&APw-rfe",
		"ü&ü":                "&APw-&-&APw-",
		"😀":                  "&2D3eAA-", // a surrogate pair
		`~!"\ `:              `~!"\ `,
		"":                   "",
	} {
		if got := maildir.ModifiedUTF7(name); got != want {
			t.Errorf("%q is %q, want %q", name, got, want)
		}
	}
}

func TestDiskNames(t *testing.T) {
	wide := strings.Repeat("ü", 100) // 200 octets; 269 in modified UTF-7
	for name, want := range map[string][2]string{
		"Spam":                   {".Spam", ".Spam"},
		"Lists/dewey":            {".Lists.dewey", ".Lists.dewey"},
		"Entwürfe/日本語":           {".Entw&APw-rfe.&ZeVnLIqe-", ".Entwürfe.日本語"},
		"~ *%":                   {".~ *%", ".~ *%"},
		wide + "x":               {},
		strings.Repeat("x", 200): {"." + strings.Repeat("x", 200), "." + strings.Repeat("x", 200)},
		strings.Repeat("x", 201): {}, "": {}, "/": {}, "/Spam": {}, "Spam/": {}, "a//b": {}, ".": {}, "..": {}, "a/../b": {},
		".Spam": {}, "a.b": {}, "a..b": {}, "a\x00": {}, "a\n": {}, "\x7f": {}, "\u0085": {}, "\xff": {}, "a\xed\xa0\x80": {},
	} {
		utf7, plain, err := maildir.DiskNames(name)
		if got := [2]string{utf7, plain}; got != want || (err != nil) != (utf7 == "") || err != nil && !errors.Is(err, maildrop.ErrNoFolder) {
			t.Errorf("%q is %q, error %v, want %q", name, got, err, want)
		}
	}
	if utf7, plain, err := maildir.DiskNames(wide); utf7 != "."+wide || plain != "."+wide || err != nil {
		t.Errorf("%q is %q and %q, %v: no file has a name that long", wide, utf7, plain, err)
	}
}

// Whatever the name, the folder is a direct child of the Maildir whose name begins with one dot; and no two names have
// one folder, as the encoding can be undone.
func FuzzDiskNames(f *testing.F) {
	for _, name := range []string{
		"Spam", "Lists/dewey", "Entwürfe/日本語", "R&D", "&ZeVnLIqe-", "😀", "..", "/../../etc", "a/./b", "a//b", "a\x00b", "\xff", "é.", "．．/", "∕", "INBOX",
	} {
		f.Add(name)
	}
	f.Fuzz(func(t *testing.T, name string) {
		utf7, plain, err := maildir.DiskNames(name)
		if err != nil {
			if !errors.Is(err, maildrop.ErrNoFolder) || utf7 != "" || plain != "" || len(err.Error()) > 2000 {
				t.Fatalf("%q, %q, %v", utf7, plain, err)
			}
			return
		}
		const root = "/var/mail/mrose"
		for _, disk := range []string{utf7, plain} {
			path := filepath.Join(root, disk)
			if filepath.Dir(path) != root || filepath.Base(path) != disk || strings.ContainsAny(disk, "/\x00\r\n") ||
				!strings.HasPrefix(disk, ".") || strings.HasPrefix(disk, "..") || len(disk) < 2 || len(disk) > 255 {
				t.Fatalf("%q is %q", name, disk)
			}
		}
		back := plain
		if utf7 != plain || strings.Contains(name, "&") && len(utf7) < 202 {
			back = decodeUTF7(t, utf7)
		}
		if got := strings.ReplaceAll(back[1:], ".", "/"); got != name {
			t.Fatalf("%q is %q, which is %q", name, utf7, got)
		}
	})
}

// decodeUTF7 undoes what modified UTF-7 does.
func decodeUTF7(t *testing.T, s string) string {
	var b strings.Builder
	for {
		plain, rest, shifted := strings.Cut(s, "&")
		b.WriteString(plain)
		if !shifted {
			return b.String()
		}
		wide, after, ok := strings.Cut(rest, "-")
		octets, err := base64.RawStdEncoding.DecodeString(strings.ReplaceAll(wide, ",", "/"))
		if !ok || err != nil || len(octets)%2 > 0 {
			t.Fatalf("%q is no modified UTF-7: %v", s, err)
		}
		if wide == "" {
			b.WriteByte('&')
		}
		var units []uint16
		for i := 0; i < len(octets); i += 2 {
			units = append(units, uint16(octets[i])<<8|uint16(octets[i+1]))
		}
		b.WriteString(string(utf16.Decode(units)))
		s = after
	}
}
