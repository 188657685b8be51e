package scheme

import (
	"crypto/subtle"
	"fmt"
	"strings"

	"github.com/go-crypt/x/yescrypt"
)

// Bounds of a yescrypt hash that is run: N is a power of two, r the size of a block in 128 octets. N
// times r is the memory, 1 GiB as with Argon2, and the time goes with it. The largest that crypt(3)
// makes is just that, at its cost 11; the smallest has 1 MiB.
const (
	minYescryptLogN, maxYescryptLogN = 10, 18
	maxYescryptR                     = 32
	maxYescryptSalt                  = 64 // octets, yescrypt's own
	yescryptKey                      = 43 // digits
)

// parseYescrypt reads $y$, the flavor j, one digit for N and one for r, $, salt, $ and hash, which
// is what crypt(3) and mkpasswd write. Yescrypt knows more: other flavors, p, t and g, and numbers of
// more than one digit; nobody makes such hashes, the library cannot run them, and they are refused.
// Source: crypt(5) and the yescrypt of libxcrypt.
//
// The decoders of the library are passed by: that of the parameters takes the digits from 48 on,
// which begin a number of several, for a number.
func parseYescrypt(value string) (Hash, error) {
	bad := func(what string) (Hash, error) {
		return Hash{}, fmt.Errorf("%w: %s; $y$j9T$salt$ and %d digits would be right", ErrForm, what, yescryptKey)
	}
	parts := strings.Split(value, "$")
	if len(parts) != 5 || parts[0] != "" || parts[1] != "y" {
		return bad("no yescrypt hash of three parts")
	}
	params, text, key := parts[2], parts[3], parts[4]
	if len(params) != 3 || params[0] != 'j' {
		return bad("another flavor than j, or parameters beyond N and r")
	}
	logN, r := 1+strings.IndexByte(cryptAlphabet, params[1]), 1+strings.IndexByte(cryptAlphabet, params[2])
	if logN > maxYescryptLogN || r > maxYescryptR {
		return Hash{}, fmt.Errorf("%w: at most yescrypt's N=2^%d and r=%d, jFT, would be right", ErrCost, maxYescryptLogN, maxYescryptR)
	}
	if logN < minYescryptLogN || r < 1 {
		return bad(fmt.Sprintf("N is under 2^%d or r no number", minYescryptLogN))
	}
	salt := yescrypt.Decode64([]byte(text))
	if len(salt) == 0 || len(salt) > maxYescryptSalt {
		return bad(fmt.Sprintf("the salt is not of 1 to %d octets", maxYescryptSalt))
	}
	if len(key) != yescryptKey || !inAlphabet(key) {
		return bad(fmt.Sprintf("the hash is not of %d digits", yescryptKey))
	}
	return Hash{Memory: int64(128*r) << logN, Threads: 1, cost: [3]int64{7, int64(logN), int64(r)}, verify: func(password string) bool {
		got, err := yescrypt.Key([]byte(password), salt, 1<<logN, r, 1, 32)
		return err == nil && subtle.ConstantTimeCompare(yescrypt.Encode64(got), []byte(key)) == 1
	}}, nil
}
