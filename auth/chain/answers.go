package chain

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"sync"

	"dewey/auth"
)

func itself(id *auth.Identity) *auth.Identity { return id }

// CheckPassword implements auth.PasswordChecker.
func (c *Chain) CheckPassword(ctx context.Context, a auth.Attempt) (auth.Identity, error) {
	return find(ctx, c, question[auth.Identity]{
		what: askPassword, user: a.User, identity: itself,
		ask: func(l *link) func(context.Context) (auth.Identity, error) {
			users, ok := l.Users.(auth.PasswordChecker)
			if !ok {
				return nil
			}
			return func(ctx context.Context) (auth.Identity, error) { return users.CheckPassword(ctx, a) }
		},
		after: func(l *link, id auth.Identity, err error) (auth.Identity, error) {
			return l.memory.after(ctx, a, id, err)
		},
	})
}

// Recipient implements auth.Recipients.
func (c *Chain) Recipient(ctx context.Context, user string) (auth.Identity, error) {
	return find(ctx, c, recipient(user))
}

func recipient(user string) question[auth.Identity] {
	return question[auth.Identity]{
		what: askRecipient, user: user, identity: itself,
		ask: func(l *link) func(context.Context) (auth.Identity, error) {
			users, ok := l.Users.(auth.Recipients)
			if !ok {
				return nil
			}
			return func(ctx context.Context) (auth.Identity, error) { return users.Recipient(ctx, user) }
		},
	}
}

// Find implements auth.Directory.
func (c *Chain) Find(ctx context.Context, user string, remote netip.Addr) (auth.Identity, error) {
	return find(ctx, c, named(user, remote))
}

func named(user string, remote netip.Addr) question[auth.Identity] {
	return question[auth.Identity]{
		what: askFind, user: user, identity: itself,
		ask: func(l *link) func(context.Context) (auth.Identity, error) {
			users, ok := l.Users.(finder)
			if !ok {
				return nil
			}
			return func(ctx context.Context) (auth.Identity, error) { return users.Find(ctx, user, remote) }
		},
	}
}

// Authorize implements auth.Directory. The backend that knows id is asked alone: nobody acts as a user of another one.
// Where it is no auth.Directory as a whole, the other name must be one more spelling of his own.
func (c *Chain) Authorize(ctx context.Context, id auth.Identity, as string) (auth.Identity, error) {
	s, err := c.held()
	if err != nil {
		return auth.Identity{}, err
	}
	defer s.release()
	for _, l := range s.links {
		if l.Name != id.Backend || !l.serves(as) {
			continue
		}
		other, err := pose(ctx, s, l, question[auth.Identity]{
			what: askAuthorize, user: id.User, identity: itself,
			ask: func(l *link) func(context.Context) (auth.Identity, error) {
				if users, ok := l.Users.(auth.Directory); ok {
					return func(ctx context.Context) (auth.Identity, error) { return users.Authorize(ctx, id, as) }
				}
				users, ok := l.Users.(finder)
				if !ok {
					return nil
				}
				return func(ctx context.Context) (auth.Identity, error) {
					other, err := users.Find(ctx, as, netip.Addr{})
					if err == nil && other.User != id.User {
						return auth.Identity{}, fmt.Errorf("nobody acts as another here: %w", auth.ErrRejected)
					}
					return other, err //nolint:wrapcheck // the backend's
				}
			},
		})
		if err == nil {
			err = s.first(ctx, l, askAuthorize, "", other)
		}
		switch {
		case err == nil:
			return other, nil
		case !errors.Is(err, errSkipped):
			return auth.Identity{}, err
		}
	}
	return auth.Identity{}, fmt.Errorf("auth: nobody acts as another there: %w", auth.ErrRejected)
}

// KeepsSecrets implements auth.Abilities.
func (c *Chain) KeepsSecrets() bool {
	for _, l := range c.set.Load().links {
		if _, ok := l.Users.(auth.SecretKeeper); ok {
			return true
		}
	}
	return false
}

// Serves implements auth.SecretKeeper: every backend that has users with passwords must serve the mechanism.
func (c *Chain) Serves(mechanism string) bool {
	some := false
	for _, l := range c.set.Load().links {
		if _, ok := l.Users.(auth.PasswordChecker); !ok {
			continue
		}
		keeper, ok := l.Users.(auth.SecretKeeper)
		if !ok {
			return false
		}
		if keeper.Serves(mechanism) {
			some = true
			continue
		}
		if users, ok := l.Users.(auth.Lives); !ok || len(users.Lives()) > 0 {
			return false
		}
	}
	return some
}

// Secret implements auth.SecretKeeper. A user of a backend that keeps no secrets, and comes before one that does, has
// none: what a later one says of his name is another's. Who has none is shown what the first backend with secrets makes
// up.
func (c *Chain) Secret(ctx context.Context, user, mechanism string, remote netip.Addr) (auth.Secret, error) {
	s, err := c.held()
	if err != nil {
		return auth.Secret{}, err
	}
	defer s.release()
	secret := func(name string) question[auth.Secret] {
		return question[auth.Secret]{
			what: askSecret, user: user, identity: func(s *auth.Secret) *auth.Identity { return &s.Identity },
			ask: func(l *link) func(context.Context) (auth.Secret, error) {
				users, ok := l.Users.(auth.SecretKeeper)
				if !ok {
					return nil
				}
				return func(ctx context.Context) (auth.Secret, error) { return users.Secret(ctx, name, mechanism, remote) }
			},
		}
	}
	var made *auth.Secret
	var refusal error
	for _, l := range s.links {
		got, err := pose(ctx, s, l, secret(user))
		if keeps := !errors.Is(err, errSkipped); !keeps {
			if _, err = pose(ctx, s, l, named(user, remote)); err == nil {
				err = s.named(l, fmt.Errorf("it keeps no secrets: %w", auth.ErrRejected))
			}
			switch {
			case errors.Is(err, errSkipped), errors.Is(err, auth.ErrUnknownUser):
				continue
			case !errors.Is(err, auth.ErrRejected):
				return auth.Secret{}, err
			}
			refusal = err
			break
		}
		if err == nil {
			switch err = s.first(ctx, l, askSecret, user, got.Identity); {
			case err == nil:
				return got, nil
			case errors.Is(err, auth.ErrRejected):
				return s.madeUp(ctx, user, mechanism, remote, err)
			}
			return auth.Secret{}, err
		}
		if !errors.Is(err, auth.ErrUnknownUser) {
			return got, err
		}
		if refusal = err; made == nil {
			made = &got
		}
	}
	if made != nil {
		return *made, refusal
	}
	return s.madeUp(ctx, user, mechanism, remote, refusal)
}

// nobody begins what is no user's name.
const nobody = "\x00"

// madeUp returns what the first backend with secrets makes up for a name that it is not asked about.
func (s *set) madeUp(ctx context.Context, user, mechanism string, remote netip.Addr, refusal error) (auth.Secret, error) {
	for _, l := range s.links {
		users, ok := l.Users.(auth.SecretKeeper)
		if !ok {
			continue
		}
		got, err := bounded(ctx, s, l, func(ctx context.Context) (auth.Secret, error) {
			return users.Secret(ctx, nobody+user, mechanism, remote)
		})
		switch {
		case err != nil && !errors.Is(err, auth.ErrRejected):
			return auth.Secret{}, s.named(l, err)
		case refusal == nil:
			refusal = auth.ErrUnknownUser
		}
		got.Identity = auth.Identity{}
		return got, refusal
	}
	return auth.Secret{}, errors.New("auth: no backend keeps secrets")
}

// ChecksTokens implements auth.Abilities.
func (c *Chain) ChecksTokens() bool {
	for _, l := range c.set.Load().links {
		if _, ok := l.Users.(auth.TokenChecker); ok {
			return true
		}
	}
	return false
}

// CheckToken implements auth.TokenChecker. A token is one provider's, and says hardly whose: all are asked until one
// takes it. Where none does, one that can't tell outweighs those that refuse it, and the first refusal is the client's.
func (c *Chain) CheckToken(ctx context.Context, t auth.Token) (auth.Identity, error) {
	s, err := c.held()
	if err != nil {
		return auth.Identity{}, err
	}
	defer s.release()
	var refusal, fault error
	for _, l := range s.links {
		id, err := pose(ctx, s, l, question[auth.Identity]{
			what: askToken, identity: itself,
			ask: func(l *link) func(context.Context) (auth.Identity, error) {
				users, ok := l.Users.(auth.TokenChecker)
				if !ok {
					return nil
				}
				return func(ctx context.Context) (auth.Identity, error) { return users.CheckToken(ctx, t) }
			},
		})
		if err == nil {
			err = s.first(ctx, l, askToken, "", id)
		}
		switch {
		case err == nil:
			return id, nil
		case errors.Is(err, errSkipped):
		case !errors.Is(err, auth.ErrRejected):
			fault = err
		case refusal == nil:
			refusal = err
		default:
			refusal = fmt.Errorf("%w; %w", refusal, err)
		}
	}
	switch {
	case fault != nil:
		return auth.Identity{}, fault
	case refusal != nil:
		return auth.Identity{}, refusal
	}
	return auth.Identity{}, errors.New("auth: no backend checks tokens")
}

// livesOf is what Lives returned last, and of which lists it was made.
type livesOf struct {
	mu    sync.Mutex
	lists [][]auth.Life
	whole []auth.Life
}

// Lives implements auth.Lives. Of a backend that does not say it, users have the zero Life.
func (c *Chain) Lives() []auth.Life {
	s := c.set.Load()
	var lists [][]auth.Life
	others := false
	for _, l := range s.links {
		if users, ok := l.Users.(auth.Lives); ok {
			if list := users.Lives(); len(list) > 0 {
				lists = append(lists, list)
			}
		} else {
			others = true
		}
	}
	switch {
	case len(lists) == 0:
		return nil
	case len(lists) == 1 && !others:
		return lists[0]
	}
	same := func(a, b []auth.Life) bool { return &a[0] == &b[0] && len(a) == len(b) }
	s.lives.mu.Lock()
	defer s.lives.mu.Unlock()
	if !slices.EqualFunc(s.lives.lists, lists, same) {
		s.lives.lists, s.lives.whole = lists, slices.Concat(lists...)
		if others {
			s.lives.whole = append(s.lives.whole, auth.Life{})
		}
	}
	return s.lives.whole
}
