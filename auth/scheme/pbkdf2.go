package scheme

import (
	"crypto/hmac"
	"crypto/pbkdf2"
	"crypto/sha1" //nolint:gosec // PBKDF2 and SCRAM do not rest on what is broken in it
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"hash"
	"strings"
)

// Bounds of the iterations of PBKDF2, in {PBKDF2} and in SCRAM, that are run: the upper one takes
// a second on a processor of 2020, the lower one of SCRAM is that of RFC 7677 section 4, and of
// Dovecot.
const (
	maxIterations      = 5_000_000
	minSCRAMIterations = 4096
	maxPBKDF2Salt      = 64 // octets
)

// What Make writes. For PBKDF2 what OWASP's password storage cheat sheet names, about 0.25 s of one
// processor. With SCRAM it is the client that computes, perhaps on a phone, so it is the number that
// RFC 7677 section 4 names as a tenth of a second.
const (
	pbkdf2Iterations = 1_300_000
	pbkdf2Salt       = 16
	SCRAMIterations  = 15_000
	SCRAMSalt        = 16
)

// parsePBKDF2 reads $1$salt$iterations$hash: PBKDF2 with HMAC-SHA-1, a salt that is taken as it
// stands, and 20 octets in hex.
func parsePBKDF2(value string) (Hash, error) {
	bad := func(what string) (Hash, error) {
		return Hash{}, fmt.Errorf("%w: %s; $1$salt$iterations$ and %d hex digits would be right", ErrForm, what, 2*sha1.Size)
	}
	parts := strings.Split(value, "$")
	if len(parts) != 5 || parts[0] != "" || parts[1] != "1" {
		return bad("not $1$ and three parts")
	}
	salt := parts[2]
	if salt == "" || len(salt) > maxPBKDF2Salt {
		return bad(fmt.Sprintf("the salt is not of 1 to %d octets", maxPBKDF2Salt))
	}
	iterations, ok := number(parts[3])
	if !ok || iterations < 1 {
		return bad("iterations is no number from 1")
	}
	if iterations > maxIterations {
		return Hash{}, fmt.Errorf("%w: at most %d iterations would be right", ErrCost, maxIterations)
	}
	key, err := hex.DecodeString(parts[4])
	if err != nil || len(key) != sha1.Size {
		return bad("the hash is not of 20 octets in hex")
	}
	return Hash{Threads: 1, cost: [3]int64{int64(iterations)}, verify: func(password string) bool {
		got, err := pbkdf2.Key(sha1.New, password, []byte(salt), int(iterations), sha1.Size)
		return err == nil && subtle.ConstantTimeCompare(got, key) == 1
	}}, nil
}

func makePBKDF2(password string) (string, error) {
	salt := string(randomDigits(pbkdf2Salt))
	key, err := pbkdf2.Key(sha1.New, password, []byte(salt), pbkdf2Iterations, sha1.Size)
	if err != nil {
		return "", fmt.Errorf("pbkdf2: %w", err)
	}
	return fmt.Sprintf("$1$%s$%d$%x", salt, pbkdf2Iterations, key), nil
}

// A scram is one of the schemes SCRAM-SHA-1 and SCRAM-SHA-256, by its digest. RFC 5802 section 3 has
// the words: iterations, salt, StoredKey, ServerKey.
type scram struct {
	digest func() hash.Hash
	size   int
}

var (
	scramSHA1   = scram{sha1.New, sha1.Size}
	scramSHA256 = scram{sha256.New, sha256.Size}
)

// parse reads iterations,salt,StoredKey,ServerKey, the last three in base64. The password counts
// octet for octet, as in Dovecot; see make.
func (s scram) parse(value string) (Hash, error) {
	bad := func(what string) (Hash, error) {
		return Hash{}, fmt.Errorf("%w: %s; iterations,salt,StoredKey,ServerKey with the last three in base64 would be right", ErrForm, what)
	}
	parts := strings.Split(value, ",")
	if len(parts) != 4 {
		return bad("not four parts")
	}
	iterations, ok := number(parts[0])
	if !ok || iterations < minSCRAMIterations {
		return bad(fmt.Sprintf("iterations is no number from %d", minSCRAMIterations))
	}
	if iterations > maxIterations {
		return Hash{}, fmt.Errorf("%w: at most %d iterations would be right", ErrCost, maxIterations)
	}
	var octets [3][]byte
	for i, part := range parts[1:] {
		var err error
		if octets[i], err = base64.StdEncoding.Strict().DecodeString(part); err != nil {
			return bad("no base64")
		}
	}
	salt, stored, server := octets[0], octets[1], octets[2]
	if len(salt) < 1 || len(salt) > maxPBKDF2Salt {
		return bad(fmt.Sprintf("the salt is not of 1 to %d octets", maxPBKDF2Salt))
	}
	if len(stored) != s.size || len(server) != s.size {
		return bad(fmt.Sprintf("a key is not of %d octets", s.size))
	}
	keys := SCRAM{salt, int(iterations), stored, server}
	return Hash{Threads: 1, cost: [3]int64{int64(iterations)}, scram: &keys, verify: func(password string) bool {
		gotStored, gotServer, err := s.keys(password, salt, keys.Iterations)
		return err == nil && subtle.ConstantTimeCompare(gotStored, stored)&subtle.ConstantTimeCompare(gotServer, server) == 1
	}}, nil
}

// make refuses a password that a SCRAM client would hash in another form than it has (RFC 5802
// section 5.1, RFC 4013): PASS would then take it and SCRAM would not.
func (s scram) make(password string) (string, error) {
	if prepared, ok := prepare(password); !ok || prepared != password {
		return "", fmt.Errorf("%w for SCRAM: it has characters that RFC 4013 changes or forbids; another password or {ARGON2ID} would do", ErrPassword)
	}
	salt := random(SCRAMSalt)
	stored, server, err := s.keys(password, salt, SCRAMIterations)
	if err != nil {
		return "", fmt.Errorf("scram: %w", err)
	}
	b64 := base64.StdEncoding
	return fmt.Sprintf("%d,%s,%s,%s", SCRAMIterations, b64.EncodeToString(salt), b64.EncodeToString(stored), b64.EncodeToString(server)), nil
}

// keys returns StoredKey and ServerKey. RFC 5802 section 3.
func (s scram) keys(password string, salt []byte, iterations int) (stored, server []byte, err error) {
	salted, err := pbkdf2.Key(s.digest, password, salt, iterations, s.size)
	if err != nil {
		return nil, nil, err
	}
	mac := func(text string) []byte {
		m := hmac.New(s.digest, salted)
		m.Write([]byte(text))
		return m.Sum(nil)
	}
	d := s.digest()
	d.Write(mac("Client Key"))
	return d.Sum(nil), mac("Server Key"), nil
}
