package certificate

import (
	"crypto/x509"
	"crypto/x509/pkix"
	"strings"
	"testing"
	"unicode"
)

func TestName(t *testing.T) {
	emails := func(list ...string) *x509.Certificate { return &x509.Certificate{EmailAddresses: list} }
	hosts := func(list ...string) *x509.Certificate { return &x509.Certificate{DNSNames: list} }
	for _, test := range []struct {
		rule string
		cert *x509.Certificate
		want string // empty: an error
	}{
		{"email", emails("Mrose@example.org"), "Mrose@example.org"},
		{"email", emails("a@example.org", "a@example.org"), "a@example.org"},
		{"email", emails("a@example.org", "b@example.org"), ""},
		{"email", emails("a@example.org", "A@example.org"), ""},
		{"email", emails(), ""},
		{"email", emails(""), ""},
		{"email", emails("a@example.org\x00.evil.example"), ""},
		{"email", emails("a\r\n@example.org"), ""},
		{"email", emails("a\x7f@example.org"), ""},
		{"email", emails("a\xff@example.org"), ""},
		{"email", emails("a\u0085@example.org"), ""},
		{"email", emails("root"), ""},
		{"email", emails("root@"), ""},
		{"email", emails("@example.org"), ""},
		{"email", emails(`"root@a"@example.org`), ""},
		{"email", emails("root@a@example.org"), ""},
		{"email", hosts("a.example.org"), ""},
		{"local", emails("mrose@example.org"), "mrose"},
		{"local", emails("mrose+pop@example.org"), "mrose+pop"},
		{"local", emails("mrose@example.org", "mrose@example.net"), ""},
		{"local", emails("@example.org"), ""},
		{"local", emails("root@x@example.org"), ""},
		{"local", emails(`"a b"@example.org`), ""},
		{"local", emails(`a\b@example.org`), ""},
		{"dns", hosts("Scanner.example.org"), "scanner.example.org"},
		{"dns", hosts("a.example.org", "A.example.org"), "a.example.org"},
		{"dns", hosts("a.example.org", "b.example.org"), ""},
		{"dns", hosts("*.example.org"), ""},
		{"dns", hosts(""), ""},
		{"dns", hosts(), ""},
		{"dns", emails("a@example.org"), ""},
		{"uri", emails("a@example.org"), ""},
		{"", emails("a@example.org"), ""},
		{"email", nil, ""},
		{"email", &x509.Certificate{Subject: pkix.Name{CommonName: "a@example.org"}}, ""},
		{"dns", &x509.Certificate{Subject: pkix.Name{CommonName: "a.example.org"}}, ""},
	} {
		got, err := Name(test.rule, test.cert)
		if got != test.want || (err == nil) != (test.want != "") {
			t.Errorf("%s of %+v: %q, %v; want %q", test.rule, test.cert, got, err, test.want)
		}
		if err != nil && strings.ContainsFunc(err.Error(), unicode.IsControl) {
			t.Errorf("control octets in %q", err)
		}
	}
}

func FuzzName(f *testing.F) {
	f.Add("email", "a@example.org", "a@example.org")
	f.Add("local", `"a@b"@c`, "")
	f.Add("dns", "*.x", "A.B")
	f.Fuzz(func(t *testing.T, rule, a, b string) {
		for _, list := range [][]string{{a}, {a, b}, {b, a}} {
			c := &x509.Certificate{EmailAddresses: list, DNSNames: list, Subject: pkix.Name{CommonName: "root"}}
			name, err := Name(rule, c)
			if err != nil {
				if name != "" {
					t.Errorf("%q and %v", name, err)
				}
				continue
			}
			if name == "" || strings.ContainsFunc(name, unicode.IsControl) || rule == "local" && strings.Contains(name, "@") {
				t.Errorf("%q of %q", name, list)
			}
			for _, s := range list {
				if !strings.HasPrefix(strings.ToLower(s), strings.ToLower(name)) {
					t.Errorf("%q of %q", name, list)
				}
			}
		}
	})
}
