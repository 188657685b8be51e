package scheme

import (
	"crypto/rand"
	"crypto/subtle"
	"encoding/base64"
	"fmt"
	"strconv"
	"strings"

	"github.com/go-crypt/x/argon2"
)

// Bounds of an Argon2 hash that is run. The largest that Dovecot makes, with
// doveadm pw -r 5, is 1 GiB and five passes.
const (
	maxArgon2Memory  = 1 << 20 // KiB
	maxArgon2Time    = 64
	maxArgon2Threads = 16
	maxArgon2Work    = 8 << 20 // KiB times passes
)

// What Make writes: the smallest setting that OWASP's password storage cheat sheet names for
// Argon2id; for Argon2i two passes more, as RFC 9106 section 4 asks more of it.
const (
	argon2Memory = 19 << 10 // KiB
	argon2Salt   = 16
	argon2Key    = 32
)

// parseArgon2 reads $argon2id$v=19$m=M,t=T,p=P$salt$key, and argon2i alike: Dovecot, too, takes
// either under either name. Numbers have one form, and salt and key are base64 without padding.
// RFC 9106 section 3.1 gives the parameters' meaning and least values.
func parseArgon2(value string) (Hash, error) {
	bad := func(what string) (Hash, error) {
		return Hash{}, fmt.Errorf("%w: %s; $argon2id$v=19$m=19456,t=2,p=1$salt$key would be right", ErrForm, what)
	}
	parts := strings.Split(value, "$")
	if len(parts) != 6 || parts[0] != "" {
		return bad("not six parts")
	}
	var derive argon2.KeyFunc
	switch parts[1] {
	case "argon2id":
		derive = argon2.IDKey
	case "argon2i":
		derive = argon2.IKey
	default:
		return bad("neither argon2id nor argon2i")
	}
	if parts[2] != "v=19" {
		return bad("another version than 19")
	}
	params := strings.Split(parts[3], ",")
	if len(params) != 3 {
		return bad("not the three parameters m, t, p")
	}
	var m, t, p uint64
	for i, param := range []struct {
		prefix string
		to     *uint64
	}{{"m=", &m}, {"t=", &t}, {"p=", &p}} {
		digits, found := strings.CutPrefix(params[i], param.prefix)
		n, ok := number(digits)
		if !found || !ok {
			return bad("not the three parameters m, t, p")
		}
		*param.to = n
	}
	if m > maxArgon2Memory || t > maxArgon2Time || p > maxArgon2Threads || m*t > maxArgon2Work {
		return Hash{}, fmt.Errorf("%w: at most m=%d, t=%d, p=%d and m times t %d would be right", ErrCost, maxArgon2Memory, maxArgon2Time, maxArgon2Threads, maxArgon2Work)
	}
	if t < 1 || p < 1 || m < 8*p {
		return bad("t or p under 1 or m under 8 times p")
	}
	b64 := base64.RawStdEncoding.Strict()
	salt, err := b64.DecodeString(parts[4])
	if err != nil || len(salt) < 8 || len(salt) > 64 {
		return bad("the salt is no base64 of 8 to 64 octets")
	}
	key, err := b64.DecodeString(parts[5])
	if err != nil || len(key) < 16 || len(key) > 64 {
		return bad("the key is no base64 of 16 to 64 octets")
	}
	return Hash{Memory: int64(m) << 10, Threads: int(p), cost: [3]int64{int64(m), int64(t), int64(p)}, verify: func(password string) bool {
		got := derive([]byte(password), salt, uint32(t), uint32(m), uint32(p), uint32(len(key)))
		return subtle.ConstantTimeCompare(got, key) == 1
	}}, nil
}

func makeArgon2ID(password string) (string, error) {
	return makeArgon2("argon2id", argon2.IDKey, 2, password)
}

func makeArgon2I(password string) (string, error) {
	return makeArgon2("argon2i", argon2.IKey, 4, password)
}

func makeArgon2(variant string, derive argon2.KeyFunc, t uint32, password string) (string, error) {
	salt := random(argon2Salt)
	key := derive([]byte(password), salt, t, argon2Memory, 1, argon2Key)
	return argon2String(variant, t, salt, key), nil
}

func argon2String(variant string, t uint32, salt, key []byte) string {
	b64 := base64.RawStdEncoding
	return fmt.Sprintf("$%s$v=19$m=%d,t=%d,p=1$%s$%s", variant, argon2Memory, t, b64.EncodeToString(salt), b64.EncodeToString(key))
}

// Decoy returns a hash of the default scheme and cost that no known password fits, to be run where
// there is no user whose hash could be.
func Decoy() Hash {
	h, err := Strong.Parse("{ARGON2ID}" + argon2String("argon2id", 2, random(argon2Salt), random(argon2Key)))
	if err != nil {
		panic("scheme: the default is out of bounds: " + err.Error())
	}
	return h
}

// number reads a decimal number in its one form: digits alone, no zero in front.
func number(digits string) (uint64, bool) {
	n, err := strconv.ParseUint(digits, 10, 32)
	return n, err == nil && (digits[0] != '0' || digits == "0")
}

// random returns n octets; crypto/rand's Read never fails.
func random(n int) []byte {
	b := make([]byte, n)
	_, _ = rand.Read(b)
	return b
}
