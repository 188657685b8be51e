package sasl

import (
	"bytes"
	"cmp"
	"crypto/md5" //nolint:gosec // the mechanisms are made of it
	"crypto/rand"
	"crypto/subtle"
	"encoding"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"regexp"
	"strings"
	"time"

	"dewey/auth"
)

// hexDigest is the length of a digest as clients send it.
const hexDigest = 2 * md5.Size

var hostname = regexp.MustCompile(`^[A-Za-z0-9-]+(\.[A-Za-z0-9-]+)*$`)

const maxHostname = 255

// NewTimestamp returns an APOP timestamp that no connection had before, "<digits.digits@hostname>": the
// form that all clients take (RFC 1939 section 7, trap 44). A hostname that is none becomes "localhost".
func NewTimestamp(host string) string {
	if len(host) > maxHostname || !hostname.MatchString(host) {
		host = "localhost"
	}
	var random [8]byte
	_, _ = rand.Read(random[:]) // never fails
	return fmt.Sprintf("<%d.%d@%s>", binary.BigEndian.Uint64(random[:]), time.Now().Unix(), host)
}

// APOP proves a user by the MD5 digest of the timestamp in the greeting and his password. An error wraps
// ErrForm, before the host is asked, if the digest is not 32 digits of hex or the name is none, or
// auth.ErrRejected, or is the host's. RFC 1939 section 7.
func APOP(h Host, timestamp, user, digest string) error {
	if err := checkDigest(user, digest); err != nil {
		return err
	}
	s, refusal, err := secret(h, user, auth.APOP)
	if err != nil {
		return err
	}
	other := madeUp(auth.APOP, user, madeUpSalt)
	if s.Password == "" {
		s.Password, refusal = string(other), cmp.Or(refusal, errNoSecret)
	}
	sum := md5.Sum([]byte(timestamp + s.Password)) //nolint:gosec // the mechanism is made of it
	return compare(sum[:], digest, refusal)
}

// newCRAMMD5 is RFC 2195. The challenge has the form of an APOP timestamp: section 2.
func newCRAMMD5(h Host, c Channel) Server {
	challenge := NewTimestamp(c.Hostname)
	return &exchange{opening: []byte(challenge), serverFirst: true, next: func(response []byte) ([]byte, step, error) {
		return nil, nil, cramMD5(h, challenge, string(response))
	}}
}

func cramMD5(h Host, challenge, response string) error {
	at := strings.LastIndexByte(response, ' ') // a name may have spaces in it
	if at < 0 {
		return fmt.Errorf("%w: no space", ErrForm)
	}
	user, digest := response[:at], response[at+1:]
	if err := checkDigest(user, digest); err != nil {
		return err
	}
	s, refusal, err := secret(h, user, auth.CRAMMD5)
	if err != nil {
		return err
	}
	other := madeUp(auth.CRAMMD5, user, len(s.CRAMMD5))
	if s.CRAMMD5 == ([32]byte{}) {
		s.CRAMMD5, refusal = [32]byte(other), cmp.Or(refusal, errNoSecret)
	}
	sum, err := hmacMD5(s.CRAMMD5, challenge)
	if err != nil {
		return err
	}
	return compare(sum, digest, refusal)
}

// checkDigest takes small letters alone: both RFCs say so, and no client is known that sends others.
func checkDigest(user, digest string) error {
	if len(digest) != hexDigest || strings.Trim(digest, "0123456789abcdef") != "" {
		return fmt.Errorf("%w: no digest of %d digits", ErrForm, hexDigest)
	}
	return checkName(user)
}

func compare(sum []byte, digest string, refusal error) error {
	same := subtle.ConstantTimeCompare([]byte(hex.EncodeToString(sum)), []byte(digest)) == 1
	switch {
	case refusal != nil:
		return refusal
	case !same:
		return fmt.Errorf("%w: another digest", auth.ErrRejected)
	}
	return nil
}

// hmacMD5 is HMAC, taken up where the padded keys end: RFC 2104 section 4.
func hmacMD5(states [32]byte, text string) ([]byte, error) {
	inner, err := resume(states[md5.Size:], []byte(text))
	if err != nil {
		return nil, err
	}
	return resume(states[:md5.Size], inner)
}

// resume is the MD5 of one block, of which the state is given, and of what follows.
func resume(state, follows []byte) ([]byte, error) {
	d := md5.New() //nolint:gosec // the mechanism is made of it
	// The library's form of a state: its words, the octets of a block begun, and how many came so far.
	form := bytes.NewBufferString("md5\x01")
	for word := range 4 {
		_ = binary.Write(form, binary.BigEndian, binary.LittleEndian.Uint32(state[4*word:]))
	}
	form.Write(make([]byte, md5.BlockSize))
	_ = binary.Write(form, binary.BigEndian, uint64(md5.BlockSize))
	if err := d.(encoding.BinaryUnmarshaler).UnmarshalBinary(form.Bytes()); err != nil {
		return nil, fmt.Errorf("md5: %w", err)
	}
	d.Write(follows)
	return d.Sum(nil), nil
}
