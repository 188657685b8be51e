package chain

import (
	"context"
	"errors"
	"hash/maphash"
	"slices"
	"sync"

	"dewey/auth"
)

// remembered is how many users' pairs of a backend are remembered at once.
const remembered = 1 << 16

// guesses is how many wrong passwords are tried on a pair in an outage until it is forgotten: what can't be told is no
// failure for who counts those.
const guesses = 10

// A memory has the pairs that a backend has verified, for when it can't tell. A nil one remembers nothing.
type memory struct {
	name     string // of the backend: a pair is good for it alone
	verified *auth.Verified

	seed maphash.Seed
	mu   sync.Mutex
	of   map[string]*known // by the name that was asked for
}

// A known user has logged in.
type known struct {
	auth.Identity
	wrong []uint64 // hashes of the other passwords in an outage: a program that repeats one is no guesser
}

func newMemory(b Backend) *memory {
	v := auth.NewVerified(remembered, b.RememberOutage)
	if v == nil {
		return nil
	}
	return &memory{name: b.Name, verified: v, seed: maphash.MakeSeed(), of: make(map[string]*known)}
}

// after notes an answer about a pair, and gives one if there was none. What was rejected is not taken again: the pair is
// forgotten, and with an unknown user all that is known of him. Another password does no harm to the right one, but for
// too many guesses.
func (m *memory) after(ctx context.Context, a auth.Attempt, id auth.Identity, err error) (auth.Identity, error) {
	switch {
	case m == nil:
	case err == nil:
		m.put(a.User, id)
		m.verified.Remember(a.User, m.name, a.Password)
	case errors.Is(err, auth.ErrUnknownUser), errors.Is(err, auth.ErrRejected) && m.verified.Has(a.User, m.name, a.Password):
		m.mu.Lock()
		defer m.mu.Unlock()
		m.forget(a.User)
	case errors.Is(err, auth.ErrRejected), ctx.Err() != nil:
	default:
		fits := m.verified.Has(a.User, m.name, a.Password)
		m.mu.Lock()
		defer m.mu.Unlock()
		switch k := m.of[a.User]; {
		case k == nil:
		case fits:
			return k.Identity, nil
		default:
			m.guessed(a, k)
		}
	}
	return id, err
}

// guessed notes a wrong password. It is called with the lock held, and so is forget.
func (m *memory) guessed(a auth.Attempt, k *known) {
	sum := maphash.String(m.seed, a.Password)
	if slices.Contains(k.wrong, sum) {
		return
	}
	if k.wrong = append(k.wrong, sum); len(k.wrong) >= guesses {
		m.forget(a.User)
	}
}

func (m *memory) forget(user string) {
	m.verified.Forget(user)
	delete(m.of, user)
}

func (m *memory) put(user string, id auth.Identity) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if _, there := m.of[user]; !there && len(m.of) >= remembered {
		for one := range m.of { // any: Go's order is random
			delete(m.of, one)
			break
		}
	}
	m.of[user] = &known{Identity: id}
}
