package scheme

import (
	"os/exec"
	"strings"
	"testing"
)

// doveadm runs Dovecot's own tool, which is what the schemes are measured by.
func doveadm(t *testing.T, args ...string) (string, error) {
	t.Helper()
	if _, err := exec.LookPath("doveadm"); err != nil {
		t.Fatal("doveadm is missing: install the Debian package dovecot-core")
	}
	out, err := exec.Command("doveadm", append([]string{"pw"}, args...)...).CombinedOutput()
	return strings.TrimSuffix(string(out), "\n"), err
}

// Passwords that a client may send: with spaces, eight bits, colons, a dollar sign, and very long.
var passwords = []string{
	"tanstaaf", "a secret", " led and trailed ", "Grüße: ñ€", "{PLAIN}$6$x", "\xff\xa3\x80 8-bit",
	strings.Repeat("long", 17), strings.Repeat("longer than bcrypt looks ", 4),
}

// few says where to begin in passwords: costly schemes see the last ones alone.
func few(name string) int {
	if strings.HasPrefix(strings.ToUpper(name), "ARGON2") {
		return len(passwords) - 2
	}
	return 0
}

func TestVerifiesWhatDoveadmMakes(t *testing.T) {
	for _, name := range []string{
		"PLAIN", "CLEARTEXT", "CLEAR", "PLAIN.b64", "PLAIN.hex", "CRYPT", "BLF-CRYPT", "SHA256-CRYPT", "SHA512-CRYPT",
		"SHA512-CRYPT.b64", "ARGON2I", "ARGON2ID", "argon2id.base64",
	} {
		for _, password := range passwords[few(name):] {
			field, err := doveadm(t, "-s", name, "-p", password)
			if err != nil {
				t.Fatalf("%s: doveadm: %s", name, field)
			}
			verifies(t, field, password)
		}
	}
	for _, args := range [][]string{
		{"-s", "SHA512-CRYPT", "-r", "1000"},
		{"-s", "SHA256-CRYPT", "-r", "12345"},
		{"-s", "BLF-CRYPT", "-r", "8"},
		{"-s", "ARGON2ID", "-r", "3"},
	} {
		field, err := doveadm(t, append(args, "-p", "a secret")...)
		if err != nil {
			t.Fatalf("%v: doveadm: %s", args, field)
		}
		verifies(t, field, "a secret")
	}
}

func verifies(t *testing.T, field, password string) {
	t.Helper()
	h, err := Parse(field)
	if err != nil {
		t.Fatalf("%q: %v", field, err)
	}
	if !h.Verify(password) {
		t.Errorf("%q does not fit %q", field, password)
	}
	if h.Verify(password[1:] + "x") {
		t.Errorf("%q fits another password", field)
	}
}

func TestDoveadmVerifiesWhatWeMake(t *testing.T) {
	for _, name := range append(Names(), "PLAIN.B64", "plain.hex", "ARGON2ID.BASE64") {
		for _, password := range passwords[len(passwords)-2:] {
			field, err := Make(name, password)
			if err != nil {
				if len(password) > 72 && strings.Contains(err.Error(), "bcrypt") || strings.Contains(password, ":") {
					continue
				}
				t.Fatalf("%s: %v", name, err)
			}
			verifies(t, field, password)
			if out, err := doveadm(t, "-t", field, "-p", password); err != nil {
				t.Errorf("%s: doveadm: %s", name, out)
			}
		}
	}
}

// What Dovecot refuses to verify, we need not take either, and the other way round for the form.
func TestRefusesAsDovecotDoes(t *testing.T) {
	sha, err := doveadm(t, "-s", "SHA512-CRYPT", "-p", "a secret")
	if err != nil {
		t.Fatal(sha)
	}
	field := "{BLF-CRYPT}" + strings.TrimPrefix(sha, "{SHA512-CRYPT}")
	if out, err := doveadm(t, "-t", field, "-p", "a secret"); err == nil {
		t.Errorf("doveadm takes %s: %s", field, out)
	}
	if _, err := Parse(field); err == nil {
		t.Errorf("%s is taken", field)
	}
}
