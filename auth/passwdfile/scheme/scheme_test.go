package scheme

import (
	"errors"
	"strings"
	"testing"
)

const (
	salt22 = "jdwwbv1sfCbIvGMvRUi.ve"
	hash31 = "2njojkOPaP6YSo55EWTI.Nhai03hzt2"
	tag86  = "QtvusYZ9PxTlhHn.YvtwQ4MwvS8WsgP71nU428T6BzqWRBFPo3PxfzSzqjp1qJ9/Iv2y6lOcQXClRt1D8zIYe."
	salt16 = "vrJDC6MAlHEnMKGf"
	b64    = "$/HgoYH/3VKuUad5sTE3+6Q$FMXMUiC64SakYG5lvWmn2aICHA9/H1vIip86deoyxuA"
)

// Trap 46: parameters that nobody can pay are refused when the file is read, not run.
func TestTrap46AbsurdCostsAreRefused(t *testing.T) {
	for _, field := range []string{
		"{ARGON2ID}$argon2id$v=19$m=4294967295,t=1,p=1" + b64,
		"{ARGON2ID}$argon2id$v=19$m=1048577,t=1,p=1" + b64,
		"{ARGON2ID}$argon2id$v=19$m=65536,t=65,p=1" + b64,
		"{ARGON2ID}$argon2id$v=19$m=65536,t=4294967295,p=1" + b64,
		"{ARGON2ID}$argon2id$v=19$m=1048576,t=9,p=1" + b64,
		"{ARGON2I}$argon2i$v=19$m=65536,t=1,p=17" + b64,
		"{ARGON2I}$argon2i$v=19$m=65536,t=1,p=4294967295" + b64,
		"{BLF-CRYPT}$2y$17$" + salt22 + hash31,
		"{BLF-CRYPT}$2y$31$" + salt22 + hash31,
		"{BLF-CRYPT}$2y$99$" + salt22 + hash31,
		"{SHA512-CRYPT}$6$rounds=5000001$" + salt16 + "$" + tag86,
		"{SHA256-CRYPT}$5$rounds=999999999$" + salt16 + "$" + tag86[:43],
		"$6$rounds=4294967295$" + salt16 + "$" + tag86,
	} {
		if _, err := Parse(field); !errors.Is(err, ErrCost) {
			t.Errorf("%s: %v", field, err)
		}
	}
	for _, field := range []string{ // the most that is run
		"{ARGON2ID}$argon2id$v=19$m=1048576,t=8,p=1" + b64,
		"{BLF-CRYPT}$2y$16$" + salt22 + hash31,
		"{SHA512-CRYPT}$6$rounds=5000000$" + salt16 + "$" + tag86,
	} {
		if _, err := Parse(field); err != nil {
			t.Errorf("%s: %v", field, err)
		}
	}
}

func TestParseRefuses(t *testing.T) {
	for field, want := range map[string]error{
		"{ARGON2ID":                             ErrForm,
		"{}x":                                   ErrUnknown,
		"{ }x":                                  ErrUnknown,
		"{NONE}x":                               ErrUnknown,
		"{DES-CRYPT SHA}rl.3StKT.4T8M":          ErrUnknown,
		"{PLAIN.B32}x":                          ErrUnknown,
		"{PLAIN.}x":                             ErrUnknown,
		"{PBKDF2}$1$x":                          ErrUnknown,
		"{SHA}x":                                ErrWeak,
		"{md5-crypt}x":                          ErrWeak,
		"{CRYPT}$1$salt$OiZvjWTmJFjFgNfKL5OTp0": ErrWeak,
		"rl.3StKT.4T8M":                         ErrWeak,
		"tanstaaf":                              ErrForm,
		"x":                                     ErrForm,
		"$y$j9T$abc$def":                        ErrUnknown,
		"{PLAIN.HEX}abc":                        ErrForm,
		"{PLAIN.B64}YTpzZWNyZXQ":                ErrForm, // Dovecot, too, wants the padding

		// What go-crypt/crypt 0.14.15 would run: zero and missing parameters get values of its own.
		"{ARGON2ID}$argon2id$v=19$m=0,t=2,p=1" + b64:           ErrForm,
		"{ARGON2ID}$argon2id$v=19$m=19456,t=0,p=1" + b64:       ErrForm,
		"{ARGON2ID}$argon2id$v=19$m=19456,t=2,p=0" + b64:       ErrForm,
		"{ARGON2ID}$argon2id$v=19$m=19456,t=2" + b64:           ErrForm,
		"{ARGON2ID}$argon2id$v=19$m=19456,t=2,t=2" + b64:       ErrForm,
		"{ARGON2ID}$argon2id$v=19$m=7,t=2,p=1" + b64:           ErrForm,
		"{ARGON2ID}$argon2id$v=19$m=+19456,t=2,p=1" + b64:      ErrForm,
		"{ARGON2ID}$argon2id$v=19$m=019456,t=2,p=1" + b64:      ErrForm,
		"{ARGON2ID}$argon2id$v=16$m=19456,t=2,p=1" + b64:       ErrForm,
		"{ARGON2ID}$argon2d$v=19$m=19456,t=2,p=1" + b64:        ErrForm,
		"{ARGON2ID}$argon2id$v=19$m=19456,t=2,p=1$$":           ErrForm,
		"{ARGON2ID}$argon2id$v=19$m=19456,t=2,p=1$c2FsdA$a2V5": ErrForm,
		"$argon2id$v=19$m=19456,t=2,p=1" + b64:                 ErrForm, // no {CRYPT}

		"{BLF-CRYPT}$2x$05$" + salt22 + hash31:           ErrForm,
		"{BLF-CRYPT}$2$05$" + salt22 + hash31:            ErrForm,
		"{BLF-CRYPT}$2y$03$" + salt22 + hash31:           ErrForm,
		"{BLF-CRYPT}$2y$+5$" + salt22 + hash31:           ErrForm,
		"{BLF-CRYPT}$2y$05$" + salt22 + hash31 + "x":     ErrForm,
		"{BLF-CRYPT}$2y$05$" + salt22 + hash31[1:] + "=": ErrForm,
		"{SHA512-CRYPT}$5$" + salt16 + "$" + tag86[:43]:  ErrForm,
		"{SHA512-CRYPT}$6$" + salt16 + "x$" + tag86:      ErrForm,
		"{SHA512-CRYPT}$6$$" + tag86:                     ErrForm,
		"{SHA512-CRYPT}$6$rounds=0$salt$" + tag86:        ErrForm,
		"{SHA512-CRYPT}$6$rounds=999$salt$" + tag86:      ErrForm,
		"{SHA512-CRYPT}$6$rounds=05000$salt$" + tag86:    ErrForm,
		"{SHA512-CRYPT}$6$rounds=$salt$" + tag86:         ErrForm,
		"{SHA512-CRYPT}$6$salt$" + tag86 + ".":           ErrForm,
		"{SHA512-CRYPT}$6$salt$" + tag86[:85] + "_":      ErrForm,
		"{SHA512-CRYPT}$6$salt":                          ErrForm,
		"{SHA512-CRYPT}":                                 nil,
	} {
		if _, err := Parse(field); !errors.Is(err, want) {
			t.Errorf("%s: %v, not %v", field, err, want)
		}
	}
}

func TestLocked(t *testing.T) {
	for field, locked := range map[string]bool{
		"":                   true,
		"!":                  true,
		"*":                  true,
		"*LK*":               true,
		"!$6$x":              true,
		"!{ARGON2ID}x":       true,
		"{CRYPT}!":           true,
		"{SHA512-CRYPT}!$6$": true,
		"{PLAIN}":            true,
		"{PLAIN.B64}":        true,
		"{PLAIN}!":           false,
		"{PLAIN}*":           false,
		"{CLEARTEXT}x":       false,
	} {
		h, err := Parse(field)
		if err != nil || h.Locked() != locked {
			t.Errorf("%q: %v, %v", field, h.Locked(), err)
		}
		if locked && (h.Verify("") || h.Verify("!") || h.Verify(field)) {
			t.Errorf("%q lets somebody in", field)
		}
	}
}

// The scheme decides, not the look of the value.
func TestSchemeDecidesFirst(t *testing.T) {
	h, err := Parse("{PLAIN}$6$" + salt16 + "$" + tag86)
	if err != nil {
		t.Fatal(err)
	}
	if !h.Verify("$6$"+salt16+"$"+tag86) || h.Verify("a secret") {
		t.Error("a plain password that looks like a hash was run as one")
	}
}

func TestPasswordsThatNeverFit(t *testing.T) {
	long := strings.Repeat("x", MaxPassword)
	for _, field := range []string{"{PLAIN}" + long, "{PLAIN.HEX}610062", "{PLAIN}a"} {
		h, err := Parse(field)
		if err != nil {
			t.Fatal(err)
		}
		for _, password := range []string{"", long + "x", "a\x00b", "a\x00"} {
			if h.Verify(password) {
				t.Errorf("%.20q fits %.20q", password, field)
			}
		}
	}
}

func TestMakeRefuses(t *testing.T) {
	for _, c := range []struct {
		name, password string
		want           error
	}{
		{"PLAIN", "a:b", ErrPassword},
		{"PLAIN", "a\tb", ErrPassword},
		{"PLAIN.B64", "a:b\t", nil},
		{"PLAIN.B64", "a\nb", ErrPassword},
		{"ARGON2ID", "", ErrPassword},
		{"ARGON2ID", "a\r", ErrPassword},
		{"ARGON2ID", "a\x00b", ErrPassword},
		{"ARGON2ID", strings.Repeat("x", MaxPassword+1), ErrPassword},
		{"BLF-CRYPT", strings.Repeat("x", 73), ErrPassword},
		{"SSHA", "a secret", ErrWeak},
		{"ROT13", "a secret", ErrUnknown},
		{"", "a secret", ErrUnknown},
	} {
		if _, err := Make(c.name, c.password); !errors.Is(err, c.want) {
			t.Errorf("%s: %v", c.name, err)
		}
	}
}

// No error quotes what it complains of.
func TestErrorsHoldNoSecret(t *testing.T) {
	for _, field := range []string{
		"tanstaaf", "{tanstaaf}x", "{tanstaaf", "{PLAIN.HEX}tanstaaf", "{PLAIN.B64}tanstaaf$", "{PLAIN.tanstaaf}x",
		"{BLF-CRYPT}tanstaaf", "{ARGON2ID}$argon2id$v=19$m=tanstaaf,t=2,p=1$a$b", "{SHA512-CRYPT}$6$rounds=tanstaaf$a$b",
		"{SHA}tanstaaf", "{ARGON2ID}$tanstaaf$$$$", "$tanstaaf$", "{CRYPT}$6$tanstaaf", "{PBKDF2}tanstaaf",
	} {
		_, err := Parse(field)
		if err == nil || strings.Contains(strings.ToLower(err.Error()), "tanstaaf") {
			t.Errorf("%s: %v", field, err)
		}
	}
}

func TestDecoyFitsNobody(t *testing.T) {
	h := Decoy()
	if h.Locked() || h.Memory != argon2Memory<<10 || h.Threads != 1 || h.Verify("a secret") {
		t.Errorf("%+v", h)
	}
}

func BenchmarkVerify(b *testing.B) {
	for _, name := range []string{"ARGON2ID", "BLF-CRYPT", "SHA512-CRYPT", "PLAIN"} {
		field, err := Make(name, "a secret")
		if err != nil {
			b.Fatal(err)
		}
		h, err := Parse(field)
		if err != nil {
			b.Fatal(err)
		}
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				h.Verify("another")
			}
		})
	}
}
