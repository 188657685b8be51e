package chain

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"reflect"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"dewey/auth"
)

// A Backend is one link.
type Backend struct {
	// Name is what errors and the log call it, and Kind what it is. Names are unique.
	Name, Kind string
	// Users answers. What it is asked depends on which of auth's interfaces it implements: PasswordChecker, Recipients,
	// SecretKeeper, Lives, TokenChecker, Directory or its Find alone. An io.Closer is closed when nobody asks any more.
	Users any
	// Domains, in ASCII lower case, are those of the names that it is asked about; none: all names. A TokenChecker is asked
	// about no name, and has none.
	Domains []string
	// Local says that it answers by itself: its calls are not bounded here.
	Local bool
	// Timeout is how long an answer may take. 0: DefaultTimeout.
	Timeout time.Duration
	// Calls is how many answers may be waited for at once, and as many again in line; a quarter is for those who have
	// logged in from where they come before (auth.Proven). 0: DefaultCalls.
	Calls int
	// RememberOutage is how long a name and a password that it verified are taken while it can't tell. 0: not at all.
	RememberOutage time.Duration
	// Fingerprint is what was configured: pairs survive Replace if it is the same.
	Fingerprint string
}

// What bounds the calls of a backend.
const (
	DefaultTimeout = 5 * time.Second
	DefaultCalls   = 256
)

// A finder is the half of an auth.Directory that needs nothing but names.
type finder interface {
	Find(ctx context.Context, user string, remote netip.Addr) (auth.Identity, error)
}

// A Chain is backends in the order in which they are asked. It implements PasswordChecker, Recipients, Directory,
// SecretKeeper, TokenChecker, Lives and Abilities of package auth. Many goroutines may use it, also while its backends
// are replaced. A Chain without backends can't tell anything.
type Chain struct {
	log *slog.Logger
	set atomic.Pointer[set]
}

var (
	_ auth.PasswordChecker = (*Chain)(nil)
	_ auth.Recipients      = (*Chain)(nil)
	_ auth.Directory       = (*Chain)(nil)
	_ auth.SecretKeeper    = (*Chain)(nil)
	_ auth.TokenChecker    = (*Chain)(nil)
	_ auth.Lives           = (*Chain)(nil)
	_ auth.Abilities       = (*Chain)(nil)
)

// New makes a Chain of backends. A nil log is none.
func New(log *slog.Logger, backends ...Backend) *Chain {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	c := &Chain{log: log}
	c.set.Store(newSet(log, backends, nil))
	return c
}

// Replace puts other backends in the place of those that there are, which are closed as soon as what they were asked is
// answered; what they have done is logged. A value that is in both (Backend.Users) is not closed.
func (c *Chain) Replace(backends ...Backend) {
	old := c.set.Load()
	fresh := newSet(c.log, backends, old)
	c.set.Store(fresh)
	old.retire(fresh)
	old.report(c.log)
}

// Close closes the backends when what they were asked is answered, or ctx ends, and logs what they have done.
func (c *Chain) Close(ctx context.Context) {
	s := c.set.Load()
	s.retire(nil)
	select {
	case <-s.closed:
	case <-ctx.Done():
	}
	s.report(c.log)
}

// A set is the links of one configuration.
type set struct {
	log    *slog.Logger
	links  []*link
	lives  livesOf
	closed chan struct{} // when the backends are

	mu      sync.Mutex
	calls   int
	retired bool
	keep    *set // whose backends are not closed
}

var errClosed = errors.New("auth: the backends are closed")

func newSet(log *slog.Logger, backends []Backend, old *set) *set {
	s := &set{log: log, closed: make(chan struct{})}
	for _, b := range backends {
		s.links = append(s.links, newLink(b, log, old))
	}
	return s
}

// hold keeps the backends open until release; false if they are not any more.
func (s *set) hold() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.retired {
		return false
	}
	s.calls++
	return true
}

// more is hold for who holds it already.
func (s *set) more() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.calls++
}

func (s *set) release() {
	s.mu.Lock()
	s.calls--
	last := s.retired && s.calls == 0
	s.mu.Unlock()
	if last {
		s.close()
	}
}

// retire has the backends closed once nobody holds them; those of keep stay.
func (s *set) retire(keep *set) {
	s.mu.Lock()
	again := s.retired
	s.retired, s.keep = true, keep
	idle := s.calls == 0
	s.mu.Unlock()
	if idle && !again {
		s.close()
	}
}

func (s *set) close() {
	for _, l := range s.links {
		if c, ok := l.Users.(io.Closer); ok && !s.keep.has(l.Users) {
			if err := c.Close(); err != nil {
				s.log.Warn("close an auth backend", "backend", l.Name, "error", err)
			}
		}
	}
	close(s.closed)
}

func (s *set) has(users any) bool {
	if s == nil || !reflect.TypeOf(users).Comparable() {
		return false
	}
	for _, l := range s.links {
		if l.Users == users {
			return true
		}
	}
	return false
}

// held returns the backends of now; the caller releases them.
func (c *Chain) held() (*set, error) {
	for {
		s := c.set.Load()
		if s.hold() {
			return s, nil
		}
		if s == c.set.Load() {
			return nil, errClosed
		}
	}
}

// A question is what is asked about a user.
type question[T any] struct {
	what, user string
	ask        func(*link) func(context.Context) (T, error) // nil if it can't be asked
	identity   func(*T) *auth.Identity
	after      func(*link, T, error) (T, error) // what becomes of an answer; nil: nothing
}

// find asks the backends in turn that can answer, until one knows the user.
func find[T any](ctx context.Context, c *Chain, q question[T]) (T, error) {
	var none T
	s, err := c.held()
	if err != nil {
		return none, err
	}
	defer s.release()
	unknown := fmt.Errorf("auth: no backend is asked about such a name: %w", auth.ErrUnknownUser)
	for _, l := range s.links {
		got, err := pose(ctx, s, l, q)
		if err == nil {
			err = s.first(ctx, l, q.what, q.user, *q.identity(&got))
		}
		switch {
		case errors.Is(err, errSkipped):
		case errors.Is(err, auth.ErrUnknownUser):
			unknown = err
		case err != nil:
			return none, err
		default:
			return got, nil
		}
	}
	return none, unknown
}

// first says whether the user whom a backend's answer names, where that is another name than was asked about, is its own
// by the rule of the chain too: of its domains, and known to none that comes before. A maildrop goes by that name.
func (s *set) first(ctx context.Context, l *link, what, asked string, id auth.Identity) error {
	if id.User == asked || id.Backend != l.Name { // that one asked the others
		return nil
	}
	if !l.serves(id.User) {
		return s.named(l, fmt.Errorf("it says that %q is %q, which is of none of its domains", asked, id.User))
	}
	for _, before := range s.links {
		if before == l {
			break
		}
		_, err := pose(ctx, s, before, named(id.User, netip.Addr{}))
		if what == askRecipient || errors.Is(err, errSkipped) {
			_, err = pose(ctx, s, before, recipient(id.User))
		}
		switch {
		case errors.Is(err, errSkipped), errors.Is(err, auth.ErrUnknownUser):
		case err == nil, errors.Is(err, auth.ErrRejected):
			return s.named(l, fmt.Errorf("it says that %q is %q, who is the user of %s, which comes before: %w", asked, id.User, before.Name, auth.ErrRejected))
		default:
			return err
		}
	}
	return nil
}

var errSkipped = errors.New("auth: the backend is not asked")

// pose asks one backend. An error is errSkipped, or has the backend's name before it.
func pose[T any](ctx context.Context, s *set, l *link, q question[T]) (got T, err error) {
	answer := q.ask(l)
	if answer == nil || !l.serves(q.user) {
		why := "the name is of none of its domains"
		if answer == nil {
			why = "it does not know " + unable[q.what]
		}
		tell(ctx, Answer{Backend: l.Name, Kind: l.Kind, User: q.user, Asked: q.what, Outcome: Skipped, Reason: why})
		return got, errSkipped
	}
	began := time.Now()
	got, err = bounded(ctx, s, l, answer)
	a := Answer{Backend: l.Name, Kind: l.Kind, User: q.user, Asked: q.what, Outcome: outcomeOf(err), Err: err, Took: time.Since(began)}
	l.note(ctx, a)
	if q.after != nil {
		after, afterErr := q.after(l, got, err)
		if err != nil && afterErr == nil {
			a.Outcome = Remembered
			l.counted.outcomes[Remembered].Add(1)
		}
		got, err = after, afterErr
	}
	if err == nil {
		id := q.identity(&got)
		if id.Backend == "" { // else it asked the others
			id.Backend = l.Name
		}
		a.Identity = *id
	}
	tell(ctx, a)
	return got, s.named(l, err)
}

// named says whose error it is, where there are several.
func (s *set) named(l *link, err error) error {
	if err == nil || len(s.links) == 1 {
		return err
	}
	return fmt.Errorf("auth %s: %w", l.Name, err)
}

// What a backend is asked.
const (
	askPassword  = "password"
	askRecipient = "recipient"
	askFind      = "name"
	askAuthorize = "authorize"
	askSecret    = "secret"
	askToken     = "token"
)

var unable = map[string]string{
	askPassword: "passwords", askRecipient: "for whom mail is", askFind: "users by their names alone",
	askAuthorize: "who may act as another", askSecret: "secrets", askToken: "tokens",
}

// serves says whether a name is of the backend's domains.
func (l *link) serves(user string) bool {
	if len(l.Domains) == 0 {
		return true
	}
	i := strings.LastIndexByte(user, '@')
	if i < 0 {
		return false
	}
	for _, d := range l.Domains {
		if auth.Lower(user[i+1:]) == d {
			return true
		}
	}
	return false
}
