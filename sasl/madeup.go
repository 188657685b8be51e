package sasl

import (
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"fmt"
	"sync"

	"dewey/auth"
)

// A host should make up a secret for names that it doesn't know: it alone can see to it that the secret
// looks like those of its users and is the same after a restart. For a host that hands out an empty one
// there is this: it is the same for a name as long as the process lives. It is made for users who have a
// secret too, so that all take equally long.
var madeUpKey = sync.OnceValue(func() []byte {
	key := make([]byte, sha256.Size)
	_, _ = rand.Read(key) // never fails
	return key
})

const (
	madeUpSalt       = 16
	madeUpIterations = 4096 // RFC 7677 section 4
)

// madeUp returns n octets that belong to a name and a use.
func madeUp(use, user string, n int) []byte {
	octets, err := hkdf.Expand(sha256.New, madeUpKey(), use+"\x00"+user, n)
	if err != nil {
		panic(err) // more than 8160 octets
	}
	return octets
}

// errNoSecret refuses a user for whom the host has nothing that serves and did not say so.
var errNoSecret = fmt.Errorf("%w: no usable secret is stored", auth.ErrRejected)
