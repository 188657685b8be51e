// Package scheme reads, checks and makes password hashes as Dovecot writes them: {SCHEME}value.
//
// A hash is looked at in full before it is run: its form, and what it would cost. What is over the
// bounds of this package is an error of Parse and never runs (trap 46). The scheme's name decides
// first, so that {PLAIN}$6$... is a password that begins with a dollar sign.
//
// Which schemes a program takes is a [Set].
//
// The hash functions that Go does not have are those of go-crypt/x. The decoders of go-crypt/crypt above them are not used:
// they keep the parameters to themselves, so nothing could be bounded, and they run what crypt(3)
// refuses (rounds=0, salts of any length, $2x$ as $2b$, m=0 as 32 MiB).
//
// Source: Dovecot's password schemes, https://doc.dovecot.org/2.3/configuration_manual/authentication/password_schemes/
package scheme

import (
	"crypto/md5"  //nolint:gosec // as weak as what All takes
	"crypto/sha1" //nolint:gosec // the same
	"crypto/sha256"
	"crypto/sha512"
	"errors"
	"fmt"
	"strings"
)

// Default is the scheme for new passwords.
const Default = "ARGON2ID"

// MaxPassword is the longest password that is run or stored, in octets: crypt(3)'s own bound. A
// SHA-crypt hash takes time in proportion to the square of the password's length.
const MaxPassword = 512

// Errors of Parse and Make. A message never holds a part of a hash or of a password, nor a scheme
// name that is unknown, which may be a misplaced password.
var (
	ErrUnknown  = errors.New("unknown password scheme")
	ErrWeak     = errors.New("password scheme too weak")
	ErrForm     = errors.New("malformed password hash")
	ErrCost     = errors.New("password hash too costly to run")
	ErrPassword = errors.New("password cannot be stored")
)

// A Hash is one stored password, read and found to be within bounds. The zero Hash is locked.
type Hash struct {
	Scheme  string // in capitals, with its encoding if it has one: PLAIN.B64
	Memory  int64  // octets that one run takes, if it is worth counting
	Threads int    // processors that one run takes; 0 if a run takes next to no time

	cost   [3]int64 // the parameters that say how long a run takes
	plain  bool
	weak   bool // though its scheme has others that are not
	verify func(password string) bool

	// What mechanisms get that do not send the password; see secret.go.
	password string
	cram     string
	scram    *SCRAM
}

// A Cost tells hashes apart by how long they take.
type Cost struct {
	scheme     string
	parameters [3]int64
}

// Cost returns what the hash costs.
func (h Hash) Cost() Cost { return Cost{h.Scheme, h.cost} }

// String returns a text that is the same for the same costs alone.
func (c Cost) String() string { return fmt.Sprint(c.scheme, c.parameters) }

// Plain says that the password can be read from the field.
func (h Hash) Plain() bool { return h.plain }

// Locked says that no password fits: the field is empty, or starts with ! or *, as usermod -L writes.
func (h Hash) Locked() bool { return h.verify == nil }

// Verify runs the hash and says whether the password fits. A password that is empty, longer than
// MaxPassword or that holds a NUL, which C would take for its end, never fits, and takes as long as
// one that could.
func (h Hash) Verify(password string) bool {
	if h.Locked() {
		return false
	}
	sane := password != "" && len(password) <= MaxPassword && strings.IndexByte(password, 0) < 0
	return h.verify(password[:min(len(password), MaxPassword)]) && sane
}

// A Set is which schemes are taken. The zero Set is Strong.
type Set int

// The two sets. In that of Strong, who steals the users file has to run a slow hash for each guess
// and each user, or finds what is said openly to be no hash: PLAIN. All has the weak schemes too:
// those without a salt, for which one table of guesses serves all users, and those that run a fast
// digest once or, MD5-CRYPT, a thousand times: a graphics card tries 10^7 to 10^11 a second.
const (
	Strong Set = iota
	All
)

// A kind is one row of what this package knows. Parse and make see the value without {SCHEME} and
// with its encoding undone.
type kind struct {
	name  string
	parse func(value string) (Hash, error)
	make  func(password string) (string, error)
	plain bool   // no mark locks it: each value but the empty one is a password
	weak  bool   // only in All
	code  coding // how octets are written if the name does not say it; empty: the value is text
	size  int    // with code: of how many octets it is; 0: of any number
}

// kinds lists the schemes, the default first, the weak ones last; the order is that of Names.
var kinds = []kind{
	{name: "ARGON2ID", parse: parseArgon2, make: makeArgon2ID},
	{name: "ARGON2I", parse: parseArgon2, make: makeArgon2I},
	{name: "BLF-CRYPT", parse: parseBcrypt, make: makeBcrypt},
	{name: "SHA512-CRYPT", parse: parseSHA512Crypt, make: makeSHA512Crypt},
	{name: "SHA256-CRYPT", parse: parseSHA256Crypt, make: makeSHA256Crypt},
	{name: "CRYPT", parse: parseCrypt, make: makeBcrypt},
	{name: "PBKDF2", parse: parsePBKDF2, make: makePBKDF2},
	{name: "SCRAM-SHA-256", parse: scramSHA256.parse, make: scramSHA256.make},
	{name: "SCRAM-SHA-1", parse: scramSHA1.parse, make: scramSHA1.make},
	{name: "PLAIN", parse: parsePlain, make: makePlain, plain: true},
	{name: "CLEARTEXT", parse: parsePlain, make: makePlain, plain: true},
	{name: "CLEAR", parse: parsePlain, make: makePlain, plain: true},

	{name: "SSHA512", parse: salted(sha512.New), make: makeSalted(sha512.New), weak: true, code: "B64"},
	{name: "SSHA256", parse: salted(sha256.New), make: makeSalted(sha256.New), weak: true, code: "B64"},
	{name: "SSHA", parse: salted(sha1.New), make: makeSalted(sha1.New), weak: true, code: "B64"},
	{name: "SMD5", parse: salted(md5.New), make: makeSalted(md5.New), weak: true, code: "B64"},
	{name: "SHA512", parse: bare(sha512.New), make: makeBare(sha512.New), weak: true, code: "B64", size: sha512.Size},
	{name: "SHA256", parse: bare(sha256.New), make: makeBare(sha256.New), weak: true, code: "B64", size: sha256.Size},
	{name: "SHA1", parse: bare(sha1.New), make: makeBare(sha1.New), weak: true, code: "B64", size: sha1.Size},
	{name: "SHA", parse: bare(sha1.New), make: makeBare(sha1.New), weak: true, code: "B64", size: sha1.Size},
	{name: "LDAP-MD5", parse: bare(md5.New), make: makeBare(md5.New), weak: true, code: "B64", size: md5.Size},
	{name: "PLAIN-MD5", parse: bare(md5.New), make: makeBare(md5.New), weak: true, code: "HEX", size: md5.Size},
	{name: "MD5-CRYPT", parse: parseMD5Crypt, make: makeMD5Crypt, weak: true},
	{name: "MD5", parse: parseMD5, make: makeMD5Crypt, weak: true},
	{name: "CRAM-MD5", parse: parseCRAM, make: makeCRAM, weak: true, code: "HEX", size: cramSize},
	{name: "HMAC-MD5", parse: parseCRAM, make: makeCRAM, weak: true, code: "HEX", size: cramSize},
}

// never lists schemes of Dovecot that are in no set, so that an error can name them. DIGEST-MD5 holds
// the user's name and realm and is of use to no mechanism that is left (RFC 6331); DES-CRYPT, LANMAN
// and PLAIN-TRUNC take passwords that are wrong from some octet on; the others nobody was seen to have.
const never = " DES-CRYPT DIGEST-MD5 LANMAN NTLM OTP PLAIN-MD4 PLAIN-TRUNC RPA SKEY "

// Names returns the schemes of the set. PLAIN and its aliases come last but for the weak ones.
func (s Set) Names() []string {
	var names []string
	for _, k := range kinds {
		if s == All || !k.weak {
			names = append(names, k.name)
		}
	}
	return names
}

// Parse reads a password field. Without {SCHEME} it is {CRYPT}, as in Dovecot's passwd-file. Nothing
// is run. Errors: ErrUnknown, ErrWeak, ErrForm, ErrCost, each with what would be right.
func (s Set) Parse(field string) (Hash, error) {
	name, value := "CRYPT", field
	if strings.HasPrefix(field, "{") {
		var closed bool
		if name, value, closed = strings.Cut(field[1:], "}"); !closed {
			return Hash{}, fmt.Errorf("%w: { without }; {SCHEME}hash would be right", ErrForm)
		}
	}
	k, code, err := s.find(name)
	if err != nil {
		return Hash{}, err
	}
	full := k.name + code.suffix()
	if locks(value) && !k.plain { // no encoding has such a digit
		return Hash{Scheme: full}, nil
	}
	if code == "" && k.code != "" { // as Dovecot tells them apart
		switch code = k.code; {
		case k.size > 0 && len(value) == 2*k.size:
			code = "HEX"
		case k.size > 0:
			code = "B64"
		}
	}
	if value, err = code.decode(value); err != nil {
		return Hash{}, fmt.Errorf("{%s}: %w", full, err)
	}
	if value == "" || k.code == "" && !k.plain && locks(value) {
		return Hash{Scheme: full}, nil
	}
	if k.size > 0 && len(value) != k.size {
		return Hash{}, fmt.Errorf("{%s}: %w: %d octets; %d would be right", full, ErrForm, len(value), k.size)
	}
	h, err := k.parse(value)
	if err != nil {
		return Hash{}, fmt.Errorf("{%s}: %w", full, err)
	}
	if h.weak && s != All {
		return Hash{}, tooWeak(full)
	}
	h.Scheme, h.plain = full, k.plain
	return h, nil
}

// locks says that a value starts with a mark that no hash has.
func locks(value string) bool { return value != "" && (value[0] == '!' || value[0] == '*') }

func tooWeak(name string) error {
	return fmt.Errorf("%w: {%s}; users.weak_schemes = true, outside users.file weak_schemes = true in the [[auth]] table, or better {%s}, would be right", ErrWeak, name, Default)
}

// Make hashes a password with a fresh salt and returns the field to store, {SCHEME}value. The name
// may have an encoding: PLAIN.B64 stores a colon or a control octet, which PLAIN cannot. APOP is
// another name for PLAIN here, for who looks for what APOP needs; it is none in a file.
//
// ErrUnknown or ErrWeak if there is no such scheme; ErrPassword for a password that is empty, over
// MaxPassword, holds CR, LF or NUL, or does not fit the scheme.
func (s Set) Make(name, password string) (string, error) {
	if first, rest, dot := strings.Cut(strings.ToUpper(name), "."); first == apop {
		if name = "PLAIN"; dot {
			name += "." + rest
		}
	}
	k, code, err := s.find(name)
	if err != nil {
		return "", err
	}
	switch {
	case password == "":
		return "", fmt.Errorf("%w: it is empty", ErrPassword)
	case len(password) > MaxPassword:
		return "", fmt.Errorf("%w: it is longer than %d octets", ErrPassword, MaxPassword)
	case strings.ContainsAny(password, "\r\n\x00"):
		return "", fmt.Errorf("%w: it holds a line end or a NUL, which no client can send", ErrPassword)
	case k.plain && code == "" && strings.ContainsFunc(password, func(r rune) bool { return r == ':' || r < ' ' || r == 0x7f }):
		return "", fmt.Errorf("%w as {%s}: it holds a colon or a control octet; {%s.B64} or a hash would do", ErrPassword, k.name, k.name)
	}
	value, err := k.make(password)
	if err != nil {
		return "", err
	}
	full := k.name + code.suffix()
	if code == "" {
		code = k.code
	}
	return "{" + full + "}" + code.encode(value), nil
}

// find returns the scheme of a name, without regard to case, and the encoding that it names.
func (s Set) find(name string) (kind, coding, error) {
	name, suffix, dot := strings.Cut(strings.ToUpper(name), ".")
	code := coding(suffix)
	if dot && code != "B64" && code != "BASE64" && code != "HEX" {
		return kind{}, "", fmt.Errorf("%w: another encoding than those there are; .B64, .BASE64 or .HEX would be right", ErrUnknown)
	}
	for _, k := range kinds {
		if k.name != name {
			continue
		}
		if k.weak && s != All {
			return kind{}, "", tooWeak(name)
		}
		return k, code, nil
	}
	if name == apop {
		return kind{}, "", fmt.Errorf("%w: {APOP}; {PLAIN}, as APOP needs the password itself, would be right", ErrUnknown)
	}
	right := "one of " + strings.Join(s.Names(), ", ") + " would be right"
	if name != "" && !strings.Contains(name, " ") && strings.Contains(never, " "+name+" ") {
		return kind{}, "", fmt.Errorf("%w: {%s} is not supported; %s", ErrUnknown, name, right)
	}
	return kind{}, "", fmt.Errorf("%w; %s", ErrUnknown, right)
}
