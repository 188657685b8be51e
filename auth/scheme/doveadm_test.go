package scheme

import (
	"os/exec"
	"slices"
	"strconv"
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

// costly says that a scheme takes its time, so that few passwords have to do.
func costly(name string) bool {
	name, _, _ = strings.Cut(strings.ToUpper(name), ".")
	return slices.Contains([]string{"ARGON2ID", "ARGON2I", "BLF-CRYPT", "CRYPT", "PBKDF2"}, name)
}

func TestVerifiesWhatDoveadmMakes(t *testing.T) {
	for _, name := range append(
		All.Names(), "PLAIN.b64", "PLAIN.hex", "SHA512-CRYPT.b64", "argon2id.base64", "PBKDF2.hex", "SCRAM-SHA-256.b64",
		"SHA.hex", "SSHA.HEX", "SSHA256.b64", "SMD5.hex", "PLAIN-MD5.B64", "LDAP-MD5.HEX", "CRAM-MD5.base64",
	) {
		for i, password := range passwords {
			if costly(name) && i < len(passwords)-2 {
				continue
			}
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
		{"-s", "PBKDF2", "-r", "1"},
		{"-s", "PBKDF2", "-r", "100000"},
		{"-s", "SCRAM-SHA-1", "-r", "20000"},
		{"-s", "SCRAM-SHA-256", "-r", "12345"},
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
	h, err := All.Parse(field)
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
	const password = "a line of some length, with blanks; and a few letters äöüñ"
	for _, name := range append(All.Names(), "PLAIN.B64", "plain.hex", "ARGON2ID.BASE64", "SCRAM-SHA-1.B64", "SHA.HEX", "SSHA512.HEX", "CRAM-MD5.B64") {
		field, err := All.Make(name, password)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if h, err := All.Parse(field); err != nil || h.Locked() { // verifying is shown above
			t.Errorf("%s: %v", name, err)
		}
		if out, err := doveadm(t, "-t", field, "-p", password); err != nil {
			t.Errorf("%s: doveadm: %s", name, out)
		}
	}
}

// Dovecot tells hex from base64 by the length, where it knows that; so do we.
func TestHexOrBase64AsDovecot(t *testing.T) {
	const (
		sha    = "e5e9fa1ba31ecd1ae84f75caaa474f3a663f05f4" // secret
		sha64  = "5en6G6MezRroT3XKqkdPOmY/BfQ="
		md5    = "5ebe2294ecd0e0f08eab7690d2a6ee69"
		md564  = "Xr4ilOzQ4PCOq3aQ0qbuaQ=="
		ssha64 = "1fT7TyMzNeymLuWYtWiRfx5wlaFqR24T"
		ssha   = "d5f4fb4f233335eca62ee598b568917f1e7095a16a476e13"
	)
	for field, fits := range map[string]bool{
		"{SHA}" + sha: true, "{SHA}" + strings.ToUpper(sha): true, "{SHA}" + sha64: true, "{SHA1}" + sha: true, "{SHA1.HEX}" + sha: true,
		"{SHA}" + sha64[:27]: false, "{SHA.HEX}" + sha64: false, "{SHA.B64}" + sha: false, "{SHA}{SHA}" + sha64: false, "{SHA}" + sha + sha: false,
		"{PLAIN-MD5}" + md5: true, "{PLAIN-MD5}" + md564: true, "{LDAP-MD5}" + md5: true, "{LDAP-MD5}" + md564: true,
		"{MD5}" + md5: true, "{MD5}" + md564: true, "{PLAIN-MD5}" + md564[:22]: false, "{LDAP-MD5}" + md564[:22]: false, "{MD5}" + md5[1:]: false,
		"{SSHA}" + ssha64: true, "{SSHA.HEX}" + ssha: true, "{SSHA}" + ssha: false, "{SSHA}" + sha64: false,
	} {
		if out, err := doveadm(t, "-t", field, "-p", "secret"); (err == nil) != fits {
			t.Errorf("%s: doveadm: %s", field, out)
		}
		if h, err := All.Parse(field); (err == nil && h.Verify("secret")) != fits {
			t.Errorf("%s: %v", field, err)
		}
	}
}

// Dovecot passes yescrypt on to crypt(3) of the system, and so do PAM and /etc/shadow.
func TestVerifiesYescryptOfTheSystem(t *testing.T) {
	for tool, debian := range map[string]string{"mkpasswd": "whois", "perl": "perl-base"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Fatalf("%s is missing: install the Debian package %s", tool, debian)
		}
	}
	run := func(name string, args ...string) string {
		t.Helper()
		out, err := exec.Command(name, args...).Output()
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		return strings.TrimSpace(string(out))
	}
	verifies(t, run("mkpasswd", "-m", "yescrypt", "a secret"), "a secret") // 16 MiB
	for _, password := range passwords {
		field := run("mkpasswd", "-m", "yescrypt", "-R", "1", "--", password)
		verifies(t, field, password)
		if out, err := doveadm(t, "-t", "{CRYPT}"+field, "-p", password); err != nil {
			t.Errorf("doveadm: %s: %s", field, out)
		}
	}
	for cost := 2; cost <= 4; cost++ {
		verifies(t, run("mkpasswd", "-m", "yescrypt", "-R", strconv.Itoa(cost), "a secret"), "a secret")
	}
	for _, setting := range []string{
		"$y$j75$......", "$y$j7.$//", "$y$j7T$//////////", "$y$j9T$" + saltY, "$y$jA.$" + saltY, "$y$j7/$" + saltY + "////", "$y$jB5$////////////////////////",
	} {
		verifies(t, run("perl", "-e", "print crypt($ARGV[0], $ARGV[1])", "a secret", setting), "a secret")
	}
}

// MD5-crypt and the others of crypt(3), as mkpasswd makes them.
func TestVerifiesWhatMkpasswdMakes(t *testing.T) {
	if _, err := exec.LookPath("mkpasswd"); err != nil {
		t.Fatal("mkpasswd is missing: install the Debian package whois")
	}
	for _, method := range []string{"bcrypt", "bcrypt-a", "sha512crypt", "sha256crypt", "md5crypt"} {
		for _, password := range passwords {
			out, err := exec.Command("mkpasswd", "-m", method, "--", password).Output()
			if err != nil {
				t.Fatalf("%s: %v", method, err)
			}
			verifies(t, strings.TrimSpace(string(out)), password)
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
	if _, err := All.Parse(field); err == nil {
		t.Errorf("%s is taken", field)
	}
}
