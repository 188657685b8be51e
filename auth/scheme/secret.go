package scheme

import (
	"fmt"
	"strings"

	"github.com/xdg-go/stringprep"
)

// The mechanisms that need a secret of their own kind. Those of SCRAM are named as their schemes are.
const (
	apop        = "APOP"
	cramMD5     = "CRAM-MD5"
	SCRAMSHA1   = "SCRAM-SHA-1"
	SCRAMSHA256 = "SCRAM-SHA-256"
)

// DerivedIterations is how many iterations keys have that are derived from a {PLAIN} password whenever
// somebody logs in by SCRAM: RFC 5802 section 5.1 asks for that many at the least. They protect nothing
// that is stored, as the password itself is.
const DerivedIterations = minSCRAMIterations

// SCRAM is what a server keeps of a password for SCRAM. RFC 5802 section 3.
type SCRAM struct {
	Salt                 []byte
	Iterations           int
	StoredKey, ServerKey []byte
}

// Serves says whether the hash holds what a mechanism needs: APOP, CRAM-MD5, SCRAM-SHA-1, SCRAM-SHA-256.
func (h Hash) Serves(mechanism string) bool {
	switch mechanism {
	case apop:
		_, ok := h.Password()
		return ok
	case cramMD5:
		_, ok := h.Password()
		return ok || h.cram != ""
	case SCRAMSHA1, SCRAMSHA256:
		if _, ok := h.SCRAM(mechanism); ok {
			return true
		}
		_, ok := h.Prepared()
		return ok
	}
	return false
}

// ServesAll is Serves for all of APOP, CRAM-MD5, SCRAM-SHA-1 and SCRAM-SHA-256, in this order, for who
// has many hashes to ask.
func (h Hash) ServesAll() (served [4]bool) {
	if h.plain {
		_, password := h.Password()
		_, prepared := h.Prepared()
		return [4]bool{password, password, prepared, prepared}
	}
	_, sha1 := h.SCRAM(SCRAMSHA1)
	_, sha256 := h.SCRAM(SCRAMSHA256)
	return [4]bool{false, h.cram != "", sha1, sha256}
}

// Password returns the password itself, if it is stored and one that Verify would let fit.
func (h Hash) Password() (string, bool) {
	if !h.plain || h.password == "" || len(h.password) > MaxPassword || strings.IndexByte(h.password, 0) >= 0 {
		return "", false
	}
	return h.password, true
}

// Prepared returns the stored password as a SCRAM client hashes it, if it can. RFC 5802 section 5.1.
func (h Hash) Prepared() (string, bool) {
	password, ok := h.Password()
	if !ok {
		return "", false
	}
	return prepare(password)
}

// CRAMMD5 returns the states of MD5 after HMAC's padded keys, the outer one first, of {CRAM-MD5} as they
// are stored, of {PLAIN} made of the password. RFC 2104 section 4.
func (h Hash) CRAMMD5() (states [cramSize]byte, ok bool) {
	stored := h.cram
	if password, plain := h.Password(); plain {
		var err error
		if stored, err = makeCRAM(password); err != nil {
			return states, false
		}
	}
	return states, copy(states[:], stored) == cramSize
}

// SCRAM returns the keys that are stored for a mechanism.
func (h Hash) SCRAM(mechanism string) (SCRAM, bool) {
	if name, _, _ := strings.Cut(h.Scheme, "."); h.scram == nil || name != mechanism {
		return SCRAM{}, false
	}
	return *h.scram, true
}

// Derive computes the keys of a prepared password. It takes the time of a hash with one thread.
func Derive(mechanism, prepared string, salt []byte, iterations int) (SCRAM, error) {
	s := scramSHA256
	switch mechanism {
	case SCRAMSHA256:
	case SCRAMSHA1:
		s = scramSHA1
	default:
		return SCRAM{}, fmt.Errorf("%w: %q is no SCRAM", ErrUnknown, mechanism)
	}
	stored, server, err := s.keys(prepared, salt, iterations)
	if err != nil {
		return SCRAM{}, fmt.Errorf("scram: %w", err)
	}
	return SCRAM{salt, iterations, stored, server}, nil
}

// prepare is SASLprep, which leaves printable ASCII as it is: RFC 4013. False if it forbids the password,
// or leaves nothing of it.
func prepare(password string) (string, bool) {
	other := func(r rune) bool { return r < ' ' || r > '~' }
	if !strings.ContainsFunc(password, other) {
		return password, password != ""
	}
	prepared, err := stringprep.SASLprep.Prepare(password)
	return prepared, err == nil && prepared != ""
}
