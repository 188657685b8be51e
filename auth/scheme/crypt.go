package scheme

import (
	"crypto/sha256"
	"crypto/sha512"
	"crypto/subtle"
	"fmt"
	"hash"
	"strings"

	"github.com/go-crypt/x/bcrypt"
	"github.com/go-crypt/x/crypt"
)

// Bounds of the hashes of crypt(3) that are run. The upper ones take some seconds on a processor of
// 2020; the lower ones are crypt(3)'s own.
const (
	minBcryptCost, maxBcryptCost = 4, 16
	minSHARounds, maxSHARounds   = 1000, 5_000_000
	defaultSHARounds             = 5000 // where the hash names none
	maxSHASalt                   = 16

	bcryptPassword = 72 // octets that bcrypt looks at
)

// What Make writes: about 0.25 s and 0.06 s of one processor.
const (
	bcryptCost = 12
	shaRounds  = 200_000
)

const cryptAlphabet = "./0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"

// parseCrypt tells the hashes of crypt(5) apart by their prefix.
func parseCrypt(value string) (Hash, error) {
	const right = "$y$, $2y$, $5$ or $6$ would be right"
	switch {
	case strings.HasPrefix(value, "$2"):
		return parseBcrypt(value)
	case strings.HasPrefix(value, "$5$"):
		return parseSHA256Crypt(value)
	case strings.HasPrefix(value, "$6$"):
		return parseSHA512Crypt(value)
	case strings.HasPrefix(value, "$y$"):
		return parseYescrypt(value)
	case strings.HasPrefix(value, "$1$"):
		return parseMD5Crypt(value)
	case strings.HasPrefix(value, "$argon2"):
		return Hash{}, fmt.Errorf("%w: an Argon2 hash is no {CRYPT}; {ARGON2ID} before it would be right", ErrForm)
	case strings.HasPrefix(value, "$gy$"), strings.HasPrefix(value, "$7$"):
		return Hash{}, fmt.Errorf("%w: gost-yescrypt and scrypt are not supported; %s", ErrUnknown, right)
	case strings.HasPrefix(value, "$md5"), strings.HasPrefix(value, "$sha1$"), len(value) == 13 && inAlphabet(value):
		return Hash{}, fmt.Errorf("%w: DES, SHA-1 and Sun's MD5 are not supported; %s", ErrUnknown, right)
	}
	return Hash{}, fmt.Errorf("%w: no hash of crypt(3); %s, or {SCHEME} before it", ErrForm, right)
}

// parseBcrypt reads $2a$, $2b$ or $2y$, a cost of two digits, 22 digits of salt and 31 of hash. $2x$
// is refused: it marks hashes made by a faulty program. Of a password the first 72 octets count, as
// in every bcrypt.
func parseBcrypt(value string) (Hash, error) {
	bad := func(what string) (Hash, error) {
		return Hash{}, fmt.Errorf("%w: %s; $2y$12$ and 53 digits would be right", ErrForm, what)
	}
	if len(value) != 60 || value[3] != '$' || value[6] != '$' {
		return bad("no bcrypt hash of 60 octets")
	}
	if prefix := value[:3]; prefix != "$2a" && prefix != "$2b" && prefix != "$2y" {
		return bad("neither $2a$ nor $2b$ nor $2y$")
	}
	if !digit(value[4]) || !digit(value[5]) {
		return bad("the cost is no number of two digits")
	}
	cost := 10*int(value[4]-'0') + int(value[5]-'0')
	if cost > maxBcryptCost {
		return Hash{}, fmt.Errorf("%w: at most bcrypt's cost %d would be right", ErrCost, maxBcryptCost)
	}
	if cost < minBcryptCost {
		return bad(fmt.Sprintf("bcrypt's cost under %d", minBcryptCost))
	}
	if !inAlphabet(value[7:]) {
		return bad("octets that are no digits of crypt(3)")
	}
	salt, err := bcrypt.Base64Decode([]byte(value[7:29]))
	if err != nil {
		return bad("the salt cannot be read")
	}
	key := []byte(value[29:])
	return Hash{Threads: 1, cost: [3]int64{2, int64(cost)}, verify: func(password string) bool {
		got, err := bcrypt.Key([]byte(password), salt, cost)
		return err == nil && subtle.ConstantTimeCompare(got, key) == 1
	}}, nil
}

func makeBcrypt(password string) (string, error) {
	if len(password) > bcryptPassword {
		return "", fmt.Errorf("%w by bcrypt: it is longer than %d octets; {ARGON2ID} would do", ErrPassword, bcryptPassword)
	}
	salt := random(16)
	key, err := bcrypt.Key([]byte(password), salt, bcryptCost)
	if err != nil {
		return "", fmt.Errorf("bcrypt: %w", err)
	}
	return fmt.Sprintf("$2y$%02d$%s%s", bcryptCost, bcrypt.Base64Encode(salt), key), nil
}

func parseSHA256Crypt(value string) (Hash, error) { return parseSHACrypt("$5$", 43, sha256.New, value) }

func parseSHA512Crypt(value string) (Hash, error) { return parseSHACrypt("$6$", 86, sha512.New, value) }

// parseSHACrypt reads $6$salt$hash and $6$rounds=N$salt$hash, $5$ alike, with a salt of 1 to 16
// octets. Source: https://www.akkadia.org/drepper/SHA-crypt.txt. Where crypt(3) would clamp rounds or
// cut a salt, and so never make the string that stands there, the hash is refused.
func parseSHACrypt(prefix string, digits int, digest func() hash.Hash, value string) (Hash, error) {
	bad := func(what string) (Hash, error) {
		return Hash{}, fmt.Errorf("%w: %s; %ssalt$ and %d digits would be right", ErrForm, what, prefix, digits)
	}
	rest, found := strings.CutPrefix(value, prefix)
	if !found {
		return bad("another prefix than " + prefix)
	}
	rounds := uint64(defaultSHARounds)
	if text, found := strings.CutPrefix(rest, "rounds="); found {
		var ok bool
		text, rest, _ = strings.Cut(text, "$")
		rounds, ok = number(text)
		switch {
		case !ok || rounds < minSHARounds:
			return bad(fmt.Sprintf("rounds is no number from %d", minSHARounds))
		case rounds > maxSHARounds:
			return Hash{}, fmt.Errorf("%w: at most rounds=%d would be right", ErrCost, maxSHARounds)
		}
	}
	salt, key, _ := strings.Cut(rest, "$")
	if salt == "" || len(salt) > maxSHASalt {
		return bad(fmt.Sprintf("the salt is not of 1 to %d octets", maxSHASalt))
	}
	if len(key) != digits || !inAlphabet(key) {
		return bad(fmt.Sprintf("the hash is not of %d digits", digits))
	}
	return Hash{Threads: 1, cost: [3]int64{int64(digits), int64(rounds)}, verify: func(password string) bool {
		got := crypt.KeySHACrypt(digest, []byte(password), []byte(salt), int(rounds))
		return subtle.ConstantTimeCompare(got, []byte(key)) == 1
	}}, nil
}

func makeSHA256Crypt(password string) (string, error) {
	return makeSHACrypt("$5$", sha256.New, password), nil
}

func makeSHA512Crypt(password string) (string, error) {
	return makeSHACrypt("$6$", sha512.New, password), nil
}

func makeSHACrypt(prefix string, digest func() hash.Hash, password string) string {
	salt := randomDigits(maxSHASalt)
	key := crypt.KeySHACrypt(digest, []byte(password), salt, shaRounds)
	return fmt.Sprintf("%srounds=%d$%s$%s", prefix, shaRounds, salt, key)
}

// randomDigits returns n digits of crypt(3).
func randomDigits(n int) []byte {
	digits := random(n)
	for i := range digits { // 64 digits: each stays equally likely
		digits[i] = cryptAlphabet[digits[i]%64]
	}
	return digits
}

func digit(c byte) bool { return '0' <= c && c <= '9' }

// inAlphabet says that text is made of crypt(3)'s 64 digits alone.
func inAlphabet(text string) bool {
	for i := range len(text) {
		c := text[i]
		if !digit(c) && (c < 'A' || c > 'Z') && (c < 'a' || c > 'z') && c != '.' && c != '/' {
			return false
		}
	}
	return true
}
