// Package scheme reads, checks and makes password hashes as Dovecot writes them: {SCHEME}value.
//
// A hash is looked at in full before it is run: its form, and what it would cost. What is over the
// bounds of this package is an error of Parse and never runs (trap 46). The scheme's name decides
// first, so that {PLAIN}$6$... is a password that begins with a dollar sign.
//
// The hash functions are those of go-crypt/x. The decoders of go-crypt/crypt above them are not used:
// they keep the parameters to themselves, so nothing could be bounded, and they run what crypt(3)
// refuses (rounds=0, salts of any length, $2x$ as $2b$, m=0 as 32 MiB).
//
// Source: Dovecot's password schemes, https://doc.dovecot.org/2.3/configuration_manual/authentication/password_schemes/
package scheme

import (
	"encoding/base64"
	"encoding/hex"
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

	verify func(password string) bool
}

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

// A kind is one row of what this package knows. Parse and make see the value without {SCHEME} and
// with its encoding undone.
type kind struct {
	name  string
	parse func(value string) (Hash, error)
	make  func(password string) (string, error)
	plain bool // no mark locks it: each value but the empty one is a password
}

// kinds lists the schemes, the default first; the order is that of Names.
var kinds = []kind{
	{name: "ARGON2ID", parse: parseArgon2, make: makeArgon2ID},
	{name: "ARGON2I", parse: parseArgon2, make: makeArgon2I},
	{name: "BLF-CRYPT", parse: parseBcrypt, make: makeBcrypt},
	{name: "SHA512-CRYPT", parse: parseSHA512Crypt, make: makeSHA512Crypt},
	{name: "SHA256-CRYPT", parse: parseSHA256Crypt, make: makeSHA256Crypt},
	{name: "CRYPT", parse: parseCrypt, make: makeBcrypt},
	{name: "PLAIN", parse: parsePlain, make: makePlain, plain: true},
	{name: "CLEARTEXT", parse: parsePlain, make: makePlain, plain: true},
	{name: "CLEAR", parse: parsePlain, make: makePlain, plain: true},
}

// Schemes of Dovecot that this package knows of and does not take, so that an error can name them.
const (
	weak    = " DES-CRYPT MD5-CRYPT MD5 SMD5 LDAP-MD5 PLAIN-MD4 PLAIN-MD5 PLAIN-TRUNC SHA SHA1 SSHA SHA256 SSHA256 SHA512 SSHA512 HMAC-MD5 CRAM-MD5 DIGEST-MD5 LANMAN NTLM RPA OTP SKEY "
	missing = " PBKDF2 SCRAM-SHA-1 SCRAM-SHA-256 "
)

// Names returns the schemes that Parse and Make take. PLAIN and its aliases come last.
func Names() []string {
	names := make([]string, len(kinds))
	for i, k := range kinds {
		names[i] = k.name
	}
	return names
}

// Parse reads a password field. Without {SCHEME} it is {CRYPT}, as in Dovecot's passwd-file. Nothing
// is run. Errors: ErrUnknown, ErrWeak, ErrForm, ErrCost, each with what would be right.
func Parse(field string) (Hash, error) {
	name, value := "CRYPT", field
	if strings.HasPrefix(field, "{") {
		var closed bool
		if name, value, closed = strings.Cut(field[1:], "}"); !closed {
			return Hash{}, fmt.Errorf("%w: { without }; {SCHEME}hash would be right", ErrForm)
		}
	}
	k, coding, err := find(name)
	if err != nil {
		return Hash{}, err
	}
	if value, err = coding.decode(value); err != nil {
		return Hash{}, err
	}
	full := k.name + coding.suffix()
	if value == "" || !k.plain && (value[0] == '!' || value[0] == '*') {
		return Hash{Scheme: full}, nil
	}
	h, err := k.parse(value)
	if err != nil {
		return Hash{}, fmt.Errorf("{%s}: %w", full, err)
	}
	h.Scheme = full
	return h, nil
}

// Make hashes a password with a fresh salt and returns the field to store, {SCHEME}value. The name
// may have an encoding: PLAIN.B64 stores a colon or a control octet, which PLAIN cannot.
//
// ErrUnknown or ErrWeak if there is no such scheme; ErrPassword for a password that is empty, over
// MaxPassword, holds CR, LF or NUL, or does not fit the scheme.
func Make(name, password string) (string, error) {
	k, coding, err := find(name)
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
	case k.plain && coding == "" && strings.ContainsFunc(password, func(r rune) bool { return r == ':' || r < ' ' || r == 0x7f }):
		return "", fmt.Errorf("%w as {%s}: it holds a colon or a control octet; {%s.B64} or a hash would do", ErrPassword, k.name, k.name)
	}
	value, err := k.make(password)
	if err != nil {
		return "", err
	}
	return "{" + k.name + coding.suffix() + "}" + coding.encode(value), nil
}

// find returns the scheme of a name, without regard to case, and its encoding.
func find(name string) (kind, encoding, error) {
	name, suffix, dot := strings.Cut(strings.ToUpper(name), ".")
	coding := encoding(suffix)
	if dot && coding != "B64" && coding != "BASE64" && coding != "HEX" {
		return kind{}, "", fmt.Errorf("%w: its encoding is none of .B64, .BASE64, .HEX", ErrUnknown)
	}
	for _, k := range kinds {
		if k.name == name {
			return k, coding, nil
		}
	}
	right := "one of " + strings.Join(Names(), ", ") + " would be right"
	switch {
	case name != "" && !strings.Contains(name, " ") && strings.Contains(weak, " "+name+" "):
		return kind{}, "", fmt.Errorf("%w: {%s}; %s", ErrWeak, name, right)
	case name != "" && !strings.Contains(name, " ") && strings.Contains(missing, " "+name+" "):
		return kind{}, "", fmt.Errorf("%w: {%s} is not supported yet; %s", ErrUnknown, name, right)
	}
	return kind{}, "", fmt.Errorf("%w; %s", ErrUnknown, right)
}

// An encoding is how the value is written, if not as it is: B64, BASE64, HEX.
type encoding string

func (e encoding) suffix() string {
	if e == "" {
		return ""
	}
	return "." + string(e)
}

func (e encoding) encode(value string) string {
	switch e {
	case "":
		return value
	case "HEX":
		return hex.EncodeToString([]byte(value))
	default:
		return base64.StdEncoding.EncodeToString([]byte(value))
	}
}

func (e encoding) decode(value string) (string, error) {
	var octets []byte
	var err error
	switch e {
	case "":
		return value, nil
	case "HEX":
		octets, err = hex.DecodeString(value)
	default:
		octets, err = base64.StdEncoding.Strict().DecodeString(value)
	}
	if err != nil { // not wrapped: it may quote the value
		return "", fmt.Errorf("%w: the value is no %s; padded base64 or pairs of hex digits would be right", ErrForm, string(e))
	}
	return string(octets), nil
}
