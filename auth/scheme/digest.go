package scheme

import (
	"bytes"
	"crypto/md5" //nolint:gosec // all here is weak, and said to be
	"crypto/subtle"
	"encoding"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"hash"
	"strings"

	"github.com/go-crypt/x/crypt"
)

// The weak schemes. All of them are here.

const (
	digestSalt   = 8 // octets that Make writes
	maxMD5Salt   = 8 // digits, MD5-crypt's own
	md5CryptKey  = 22
	cramSize     = 2 * md5.Size
	md5Block     = 64
	md5StateFrom = len("md5\x01")
)

// bare takes a digest of the password and nothing else.
func bare(digest func() hash.Hash) func(string) (Hash, error) {
	return func(value string) (Hash, error) { return digestHash(digest, value, ""), nil }
}

func makeBare(digest func() hash.Hash) func(string) (string, error) {
	return func(password string) (string, error) { return sum(digest, password, ""), nil }
}

// salted takes a digest of the password with a salt after it, and that salt after the digest. The
// salt has any length from 1.
func salted(digest func() hash.Hash) func(string) (Hash, error) {
	size := digest().Size()
	return func(value string) (Hash, error) {
		if len(value) <= size {
			return Hash{}, fmt.Errorf("%w: %d octets; %d and a salt would be right", ErrForm, len(value), size)
		}
		return digestHash(digest, value[:size], value[size:]), nil
	}
}

func makeSalted(digest func() hash.Hash) func(string) (string, error) {
	return func(password string) (string, error) {
		salt := string(random(digestSalt))
		return sum(digest, password, salt) + salt, nil
	}
}

func digestHash(digest func() hash.Hash, stored, salt string) Hash {
	return Hash{verify: func(password string) bool {
		return subtle.ConstantTimeCompare([]byte(sum(digest, password, salt)), []byte(stored)) == 1
	}}
}

func sum(digest func() hash.Hash, password, salt string) string {
	d := digest()
	d.Write([]byte(password + salt))
	return string(d.Sum(nil))
}

// parseMD5Crypt reads $1$, a salt of up to eight octets, $ and 22 digits.
func parseMD5Crypt(value string) (Hash, error) {
	rest, found := strings.CutPrefix(value, "$1$")
	salt, key, more := strings.Cut(rest, "$")
	if !found || !more || salt == "" || len(salt) > maxMD5Salt || len(key) != md5CryptKey || !inAlphabet(key) {
		return Hash{}, fmt.Errorf("%w: no MD5-crypt; $1$, a salt of 1 to %d octets, $ and %d digits would be right", ErrForm, maxMD5Salt, md5CryptKey)
	}
	return Hash{Threads: 1, weak: true, verify: func(password string) bool {
		return subtle.ConstantTimeCompare(crypt.KeyMD5Crypt([]byte(password), []byte(salt)), []byte(key)) == 1
	}}, nil
}

func makeMD5Crypt(password string) (string, error) {
	salt := randomDigits(maxMD5Salt)
	return fmt.Sprintf("$1$%s$%s", salt, crypt.KeyMD5Crypt([]byte(password), salt)), nil
}

// parseMD5 reads what Dovecot takes as {MD5}: MD5-crypt, or else a bare digest in hex or base64.
func parseMD5(value string) (Hash, error) {
	if strings.HasPrefix(value, "$") {
		return parseMD5Crypt(value)
	}
	code := coding("B64")
	if len(value) == hex.EncodedLen(md5.Size) {
		code = "HEX"
	}
	octets, err := code.decode(value)
	if err == nil && len(octets) != md5.Size {
		err = fmt.Errorf("%w: %d octets; %d would be right", ErrForm, len(octets), md5.Size)
	}
	return digestHash(md5.New, octets, ""), err
}

// parseCRAM reads the states of MD5 that HMAC comes to after the padded key, the outer one first:
// what a CRAM-MD5 server needs, and as good as the password to who wants to answer a challenge.
func parseCRAM(value string) (Hash, error) {
	return Hash{cram: value, verify: func(password string) bool {
		got, err := makeCRAM(password)
		return err == nil && subtle.ConstantTimeCompare([]byte(got), []byte(value)) == 1
	}}, nil
}

// makeCRAM is RFC 2104 section 4's way to store a key, each state in MD5's own order of octets.
func makeCRAM(password string) (string, error) {
	key := []byte(password)
	if len(key) > md5Block {
		key = []byte(sum(md5.New, password, ""))
	}
	var states []byte
	for _, pad := range []byte{0x5c, 0x36} {
		block := bytes.Repeat([]byte{pad}, md5Block)
		subtle.XORBytes(block, block, key)
		d := md5.New() //nolint:gosec // the mechanism is made of it
		d.Write(block)
		state, err := d.(encoding.BinaryMarshaler).MarshalBinary()
		if err != nil {
			return "", fmt.Errorf("md5: %w", err)
		}
		for word := range 4 {
			states = binary.LittleEndian.AppendUint32(states, binary.BigEndian.Uint32(state[md5StateFrom+4*word:]))
		}
	}
	return string(states), nil
}
