package config

import (
	"bytes"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/pelletier/go-toml/v2"
)

// Whatever the file and the command line hold: no panic; each problem is one line; a file that is
// taken is TOML, and is printed as one that gives the same configuration.
func FuzzParse(f *testing.F) {
	files, err := filepath.Glob("testdata/*/*.toml")
	if err != nil || len(files) == 0 {
		f.Fatalf("no seeds: %v", err)
	}
	for _, name := range files {
		data, err := os.ReadFile(name)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data, "pop3.listen=127.0.0.1:0,[::1]:0")
		f.Add(data, `login.trusted_networks=["192.0.2.0/24"]`)
	}
	f.Add([]byte("[pop3]\r\nlisten = [\r\n"), "pop3.listen=[[[")
	f.Add([]byte(`a = "`), "=")
	f.Add([]byte("mail.folders = ['a', 'A']"), "mail.retention=36500d")
	f.Add([]byte("[mail]\nsweep_at='00:00'\nundelete='1h'"), "mail.folders=Spam,Lists/dewey")
	f.Fuzz(func(t *testing.T, data []byte, set string) {
		c, problems := parse("dewey.toml", data, []string{set})
		if len(problems) > 0 {
			for _, p := range problems {
				if s := p.String(); strings.ContainsAny(s, "\n\r\x00") || p.Wrong == "" {
					t.Errorf("%q", s)
				}
				if p.Source.Line > bytes.Count(data, []byte("\n"))+1 {
					t.Errorf("no such line: %s", p)
				}
			}
			return
		}
		if err := toml.Unmarshal(bytes.TrimPrefix(data, []byte("\xef\xbb\xbf")), new(map[string]any)); err != nil {
			t.Fatalf("took what is not TOML: %v", err)
		}
		var first, second bytes.Buffer
		if err := c.Print(&first); err != nil {
			t.Fatal(err)
		}
		if slices.ContainsFunc(c.Auth, func(a Auth) bool { return a.DSN != "" }) {
			return // hidden
		}
		again, problems := parse("dewey.toml", first.Bytes(), nil)
		if len(problems) > 0 {
			t.Fatalf("can't read what was printed: %v\n%s", problems, &first)
		}
		if names := Changed(c, again); len(names) > 0 {
			t.Fatalf("%q changed on the way", names)
		}
		if err := again.Print(&second); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(strings.Count(first.String(), "\n"), strings.Count(second.String(), "\n")); diff != "" {
			t.Error(diff)
		}
	})
}
