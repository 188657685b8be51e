package scheme

import (
	"errors"
	"strconv"
	"strings"
	"testing"
)

var itoa = strconv.Itoa

const (
	salt22 = "jdwwbv1sfCbIvGMvRUi.ve"
	hash31 = "2njojkOPaP6YSo55EWTI.Nhai03hzt2"
	tag86  = "QtvusYZ9PxTlhHn.YvtwQ4MwvS8WsgP71nU428T6BzqWRBFPo3PxfzSzqjp1qJ9/Iv2y6lOcQXClRt1D8zIYe."
	saltY  = "z7ztFz2FayrKI79/jEwlL." // of whole octets
	salt16 = "vrJDC6MAlHEnMKGf"
	hex40  = "0123456789abcdef0123456789abcdef01234567"
	hex32  = "0123456789abcdef0123456789abcdef"

	scram1   = ",H+aP2+Ox3X7kjeHyp/6dxQ==,nTueS5dTsCNvh607aImugXjNvXc=,FokZX8d4bv+SJoSMDocfAC4H4ic="
	scram256 = ",4zm6qG9nYg08idFKiQ3llw==,ZXozoVvn8/kCJcVHUOqBWpUCiPqz9+J1NL4bKU1CmV8=,nQjINWRFR16z/nIFMTHmMYvkrrqQdJnuo3MywWdPBNs="

	b64 = "$/HgoYH/3VKuUad5sTE3+6Q$FMXMUiC64SakYG5lvWmn2aICHA9/H1vIip86deoyxuA"
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
		"$y$jGT$" + saltY + "$" + tag86[:43], // N=2^19
		"$y$jjT$" + saltY + "$" + tag86[:43],
		"$y$jzT$" + saltY + "$" + tag86[:43], // a number of several digits begins with z
		"$y$j9U$" + saltY + "$" + tag86[:43], // r=33
		"$y$j9z$" + saltY + "$" + tag86[:43],
		"{PBKDF2}$1$salt$5000001$" + hex40,
		"{PBKDF2}$1$salt$4294967295$" + hex40,
		"{SCRAM-SHA-1}5000001" + scram1,
		"{SCRAM-SHA-256}2147483647" + scram256,
	} {
		if _, err := Strong.Parse(field); !errors.Is(err, ErrCost) {
			t.Errorf("%s: %v", field, err)
		}
	}
	for _, field := range []string{ // the most that is run
		"$y$jFT$" + saltY + "$" + tag86[:43],
		"{PBKDF2}$1$salt$5000000$" + hex40,
		"{SCRAM-SHA-256}5000000" + scram256,
		"{ARGON2ID}$argon2id$v=19$m=1048576,t=8,p=1" + b64,
		"{BLF-CRYPT}$2y$16$" + salt22 + hash31,
		"{SHA512-CRYPT}$6$rounds=5000000$" + salt16 + "$" + tag86,
	} {
		if _, err := Strong.Parse(field); err != nil {
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
		"{DES-CRYPT}rl.3StKT.4T8M":              ErrUnknown,
		"{DIGEST-MD5}" + hex32:                  ErrUnknown,
		"{NTLM}" + hex32:                        ErrUnknown,
		"{SHA}x":                                ErrWeak,
		"{md5-crypt}x":                          ErrWeak,
		"{CRYPT}$1$salt$OiZvjWTmJFjFgNfKL5OTp0": ErrWeak,
		"rl.3StKT.4T8M":                         ErrUnknown,
		"tanstaaf":                              ErrForm,
		"x":                                     ErrForm,
		"$7$C6..../....SodiumChloride$x":        ErrUnknown,
		"$gy$j9T$" + saltY + "$" + tag86[:43]:   ErrUnknown,
		"$md5$rounds=904$salt$$x":               ErrUnknown,
		"$sha1$1$salt$x":                        ErrUnknown,
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

		"$y$j9T$" + saltY + "$" + tag86[:42]:               ErrForm,
		"$y$j9T$" + saltY + "$" + tag86[:42] + "_":         ErrForm,
		"$y$j9T$$" + tag86[:43]:                            ErrForm,
		"$y$j9T$/$" + tag86[:43]:                           ErrForm, // six bits are no octet
		"$y$j9T$_" + saltY[1:] + "$" + tag86[:43]:          ErrForm,
		"$y$j9T$" + saltY + "$$":                           ErrForm,
		"$y$j9T$" + tag86 + tag86 + "$" + tag86[:43]:       ErrForm,
		"$y$j9T$" + saltY:                                  ErrForm,
		"$y$j9T./$" + saltY + "$" + tag86[:43]:             ErrForm, // p=2
		"$y$j9T/.$" + saltY + "$" + tag86[:43]:             ErrForm, // t=1
		"$y$j9$" + saltY + "$" + tag86[:43]:                ErrForm,
		"$y$.9T$" + saltY + "$" + tag86[:43]:               ErrForm, // a flavor that is scrypt's
		"$y$j.T$" + saltY + "$" + tag86[:43]:               ErrForm, // N=2
		"$y$j6T$" + saltY + "$" + tag86[:43]:               ErrForm, // N=2^9
		"$y$j9_$" + saltY + "$" + tag86[:43]:               ErrForm,
		"{PBKDF2}$2$salt$5000$" + hex40:                    ErrForm,
		"{PBKDF2}$1$$5000$" + hex40:                        ErrForm,
		"{PBKDF2}$1$salt$0$" + hex40:                       ErrForm,
		"{PBKDF2}$1$salt$-1$" + hex40:                      ErrForm,
		"{PBKDF2}$1$salt$$" + hex40:                        ErrForm,
		"{PBKDF2}$1$salt$5000$" + hex40[2:]:                ErrForm,
		"{PBKDF2}$1$salt$5000$" + hex40[1:] + "g":          ErrForm,
		"{PBKDF2}$1$" + tag86 + "$5000$" + hex40:           ErrForm,
		"{PLAIN}" + strings.Repeat("x", 513):               ErrForm,
		"{SCRAM-SHA-1}4095" + scram1:                       ErrForm,
		"{SCRAM-SHA-1}" + scram1:                           ErrForm,
		"{SCRAM-SHA-1}4096,," + scram1[26:]:                ErrForm,
		"{SCRAM-SHA-1}4096" + scram256:                     ErrForm,
		"{SCRAM-SHA-256}4096" + scram1:                     ErrForm,
		"{SCRAM-SHA-256}4096" + scram256 + ",":             ErrForm,
		"{SCRAM-SHA-256}4096" + scram256[:len(scram256)-1]: ErrForm,
	} {
		if _, err := Strong.Parse(field); !errors.Is(err, want) {
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
		"{PBKDF2}!":          true,
		"{SCRAM-SHA-1}*":     true,
		"!$y$j9T$":           true,
	} {
		h, err := Strong.Parse(field)
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
	h, err := Strong.Parse("{PLAIN}$6$" + salt16 + "$" + tag86)
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
		h, err := Strong.Parse(field)
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
		{"SCRAM-SHA-256", "\u2168", ErrPassword},     // SASLprep makes IX of it
		{"SCRAM-SHA-256", "so\u00adft", ErrPassword}, // and nothing of a soft hyphen
		{"SCRAM-SHA-1", "a\u0308", ErrPassword},      // and one character of two
		{"SCRAM-SHA-1", "\xff", ErrPassword},
		{"SCRAM-SHA-1", "tab\t", ErrPassword},
		{"SCRAM-SHA-1", "\U0001f600", ErrPassword}, // and knows no smileys
		{"SCRAM-SHA-1", "Grüße, ñ: a secret", nil},
		{"SSHA", "a secret", ErrWeak},
		{"md5-crypt", "a secret", ErrWeak},
		{"DES-CRYPT", "a secret", ErrUnknown},
		{"ROT13", "a secret", ErrUnknown},
		{"", "a secret", ErrUnknown},
	} {
		if _, err := Strong.Make(c.name, c.password); !errors.Is(err, c.want) {
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
		"{PBKDF2}$1$tanstaaf$tanstaaf$tanstaaf", "{SCRAM-SHA-1}tanstaaf", "{SCRAM-SHA-1}4096,tanstaaf,tanstaaf,tanstaaf",
		"$y$tanstaaf", "$y$j9T$tanstaaf$tanstaaf", "$1$tanstaaf", "{SSHA}tanstaaf", "{PLAIN-MD5}tanstaaf", "{MD5}tanstaaf",
		"{CRAM-MD5}tanstaaf", "{SHA256}tanstaaf", "{DIGEST-MD5}tanstaaf",
	} {
		_, strong := Strong.Parse(field)
		_, all := All.Parse(field)
		if err := errors.Join(strong, all); strong == nil || all == nil || strings.Contains(strings.ToLower(err.Error()), "tanstaaf") {
			t.Errorf("%s: %v", field, err)
		}
	}
}

// A weak scheme is in All alone, and who has it is told what would be right.
func TestWeakSchemesAreRefused(t *testing.T) {
	fields := map[string]string{"crypt": "{CRYPT}$1$salt$OiZvjWTmJFjFgNfKL5OTp0", "no scheme": "$1$salt$OiZvjWTmJFjFgNfKL5OTp0"}
	strong := strings.Join(Strong.Names(), " ") + " "
	for _, name := range All.Names() {
		if strings.Contains(strong, name+" ") {
			continue
		}
		field, err := All.Make(name, "a secret")
		if err != nil {
			t.Fatal(name, err)
		}
		fields[name] = field
		if _, err := Strong.Make(name, "a secret"); !errors.Is(err, ErrWeak) {
			t.Errorf("%s is made: %v", name, err)
		}
	}
	if len(fields) != 16 {
		t.Errorf("%d weak schemes: %v", len(fields), fields)
	}
	for name, field := range fields {
		if h, err := All.Parse(field); err != nil || h.Plain() || name == strings.ToUpper(name) && !h.Verify("a secret") {
			t.Errorf("%s: %v", name, err)
		}
		_, err := Strong.Parse(field)
		if !errors.Is(err, ErrWeak) || !strings.Contains(err.Error(), "; users.weak_schemes = true, ") ||
			!strings.Contains(err.Error(), " weak_schemes = true in the [[auth]] table") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestRefusesOfTheWeak(t *testing.T) {
	for _, field := range []string{
		"{SHA}x", "{SHA}" + hex32, "{SHA.HEX}" + hex32, "{SHA256}" + hex40, "{SHA}5en6G6MezRroT3XKqkdPOmY/BfQ", "{SSHA}5en6G6MezRroT3XKqkdPOmY/BfQ=",
		"{SSHA256}5en6G6MezRroT3XKqkdPOmY/BfQ=", "{SMD5}", "{SMD5}Xr4ilOzQ4PCOq3aQ0qbuaQ==", "{PLAIN-MD5}" + hex40, "{MD5}" + hex40, "{MD5}$6$x",
		"{LDAP-MD5}" + hex32[1:], "{CRAM-MD5}" + hex32, "{CRAM-MD5}" + hex40, "{MD5-CRYPT}$1$salt", "{MD5-CRYPT}$1$$OiZvjWTmJFjFgNfKL5OTp0",
		"{MD5-CRYPT}$1$ninedigit$OiZvjWTmJFjFgNfKL5OTp0", "{MD5-CRYPT}$1$salt$OiZvjWTmJFjFgNfKL5OTp", "{MD5-CRYPT}$1$salt$OiZvjWTmJFjFgNfKL5OTp_",
		"{MD5-CRYPT}$1$salt$OiZvjWTmJFjFgNfKL5OTp0$",
	} {
		if h, err := All.Parse(field); !errors.Is(err, ErrForm) && !h.Locked() {
			t.Errorf("%s: %v", field, err)
		}
	}
	// An octet of a digest that looks like a mark locks nothing; a mark does.
	for i := range 300 {
		field, err := All.Make("SHA", itoa(i))
		if err != nil {
			t.Fatal(err)
		}
		if h, err := All.Parse(field); err != nil || h.Locked() || !h.Verify(itoa(i)) {
			t.Errorf("%s: %v", field, err)
		}
		if h, err := All.Parse("{SHA}!" + field[5:]); err != nil || !h.Locked() {
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
	for _, name := range []string{"ARGON2ID", "BLF-CRYPT", "SHA512-CRYPT", "PBKDF2", "SCRAM-SHA-256", "SCRAM-SHA-1", "PLAIN"} {
		field, err := Strong.Make(name, "a secret")
		if err != nil {
			b.Fatal(err)
		}
		h, err := Strong.Parse(field)
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

// BenchmarkYescrypt runs what mkpasswd makes, and the most that is run.
func BenchmarkYescrypt(b *testing.B) {
	for _, params := range []string{"j9T", "jFT"} {
		h, err := Strong.Parse("$y$" + params + "$" + saltY + "$" + tag86[:43])
		if err != nil {
			b.Fatal(err)
		}
		b.Run(params, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				h.Verify("another")
			}
		})
	}
}

// Whatever a field holds: Strong takes no more than All, no error quotes it, and a hash that is taken
// can be run.
func FuzzParse(f *testing.F) {
	for _, name := range All.Names() {
		if costly(name) {
			continue
		}
		field, err := All.Make(name, "a secret")
		if err != nil {
			f.Fatal(err)
		}
		f.Add(field)
	}
	for _, field := range []string{
		"", "!", "{", "{}", "{A.0}0", "{PLAIN.HEX}00", "$y$j75$z7ztFz2FayrKI79/jEwlL.$u5x/j193MQ09wbFaRGYr0AH/A/jh3kunjuhYRVRNkmC",
		"$1$salt$OiZvjWTmJFjFgNfKL5OTp0", "{PBKDF2}$1$salt$1$" + hex40, "{SCRAM-SHA-1}4096" + scram1, "{SCRAM-SHA-256.B64}NDA5Ng==",
		"{SHA}" + hex40, "{MD5}" + hex32, "{SSHA.HEX}" + hex40 + "00", "$5$rounds=1000$s$" + tag86[:43], "{BLF-CRYPT}$2y$04$" + salt22 + hash31,
	} {
		f.Add(field)
	}
	f.Fuzz(func(t *testing.T, field string) {
		strong, strongErr := Strong.Parse(field)
		all, allErr := All.Parse(field)
		if strongErr == nil && (allErr != nil || strong.Scheme != all.Scheme || strong.Locked() != all.Locked()) {
			t.Fatalf("taken by Strong and not by All: %v", allErr)
		}
		for _, err := range []error{strongErr, allErr} {
			if err != nil && !strings.Contains(err.Error(), "would be right") {
				t.Fatal(err)
			}
		}
		if allErr == nil && all.Threads == 0 && all.Verify("") {
			t.Fatal("an empty password fits")
		}
		if allErr == nil && all.Memory > 1<<30 {
			t.Fatal("too much memory")
		}
	})
}
