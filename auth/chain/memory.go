package chain

import (
	"context"
	"errors"
	"sync"

	"dewey/auth"
)

// remembered is how many users' pairs of a backend are remembered at once.
const remembered = 1 << 16

// A memory has the pairs that a backend has verified, for when it can't tell. A nil one remembers nothing.
type memory struct {
	name     string // of the backend: a pair is good for it alone
	verified *auth.Verified

	mu         sync.Mutex
	identities map[string]auth.Identity // by the name that was asked for
}

func newMemory(b Backend) *memory {
	v := auth.NewVerified(remembered, b.RememberOutage)
	if v == nil {
		return nil
	}
	return &memory{name: b.Name, verified: v, identities: make(map[string]auth.Identity)}
}

// after notes an answer about a pair, and gives one if there was none. What was rejected is not taken again: the pair is
// forgotten, and with an unknown user all that is known of him. Another password does no harm to the right one.
func (m *memory) after(ctx context.Context, a auth.Attempt, id auth.Identity, err error) (auth.Identity, error) {
	switch {
	case m == nil:
	case err == nil:
		m.put(a.User, id)
		m.verified.Remember(a.User, m.name, a.Password)
	case errors.Is(err, auth.ErrUnknownUser), errors.Is(err, auth.ErrRejected) && m.verified.Has(a.User, m.name, a.Password):
		m.verified.Forget(a.User)
		m.mu.Lock()
		defer m.mu.Unlock()
		delete(m.identities, a.User)
	case errors.Is(err, auth.ErrRejected), ctx.Err() != nil:
	case m.verified.Has(a.User, m.name, a.Password):
		m.mu.Lock()
		defer m.mu.Unlock()
		if known, ok := m.identities[a.User]; ok {
			return known, nil
		}
	}
	return id, err
}

func (m *memory) put(user string, id auth.Identity) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if _, known := m.identities[user]; !known && len(m.identities) >= remembered {
		for one := range m.identities { // any: Go's order is random
			delete(m.identities, one)
			break
		}
	}
	m.identities[user] = id
}
