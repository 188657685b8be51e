package auth

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"sync"
	"time"
)

// A Verified remembers which passwords were found right, so that a client that polls does not pay for a
// slow hash each time. It keeps no passwords: only a digest, under a key that lives as long as the
// process, over the user, the password and what is stored of it, so that a changed password is another.
// There is one entry a user. Many goroutines may use it. A nil Verified remembers nothing.
type Verified struct {
	ttl time.Duration
	key [32]byte

	mu      sync.Mutex
	entries *table[string, verified]
}

type verified struct {
	sum   [sha256.Size]byte
	until time.Time
}

// NewVerified returns a Verified of so many entries, each of which lasts for ttl from Remember on. A ttl
// of 0 remembers nothing.
func NewVerified(entries int, ttl time.Duration) *Verified {
	if entries <= 0 || ttl <= 0 {
		return nil
	}
	v := &Verified{ttl: ttl, entries: newTable[string](entries, verified.worth)}
	_, _ = rand.Read(v.key[:]) // never fails
	return v
}

// worth is 0 for what has ended, so that it goes first.
func (e verified) worth(now time.Time) int {
	if now.Before(e.until) {
		return 1
	}
	return 0
}

// Has says whether the user's password was remembered with this secret.
func (v *Verified) Has(user, secret, password string) bool {
	if v == nil {
		return false
	}
	sum := v.digest(user, secret, password) // also if there is no entry: it takes time (trap 42)
	v.mu.Lock()
	defer v.mu.Unlock()
	e, _ := v.entries.peek(user)
	if !hmac.Equal(e.sum[:], sum[:]) || !time.Now().Before(e.until) {
		return false
	}
	v.entries.get(user)
	return true
}

// Remember notes that the user's password fits the secret.
func (v *Verified) Remember(user, secret, password string) {
	if v == nil {
		return
	}
	now := time.Now()
	e := verified{v.digest(user, secret, password), now.Add(v.ttl)}
	v.mu.Lock()
	defer v.mu.Unlock()
	v.forget(user)
	v.entries.put(user, e, now)
}

// Forget drops what is known of a user.
func (v *Verified) Forget(user string) {
	if v == nil {
		return
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	v.forget(user)
}

func (v *Verified) forget(user string) {
	if _, found := v.entries.peek(user); found {
		v.entries.remove(user)
	}
}

// Clear drops all.
func (v *Verified) Clear() {
	if v == nil {
		return
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	v.entries = newTable[string](v.entries.max, verified.worth)
}

// digest takes the parts with their lengths, so that they can't run together.
func (v *Verified) digest(user, secret, password string) (sum [sha256.Size]byte) {
	mac := hmac.New(sha256.New, v.key[:])
	for _, part := range []string{user, secret, password} {
		mac.Write(binary.BigEndian.AppendUint64(nil, uint64(len(part))))
		mac.Write([]byte(part))
	}
	mac.Sum(sum[:0])
	return sum
}
