package recipients

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"dewey/auth"
	"dewey/maildrop"
)

// ErrUnknown says that an address is nobody's here: there is none such, its domain is not ours, or it is none at
// all. RFC 3463 section 3.2, X.1.1.
var ErrUnknown = errors.New("no such recipient")

var errUnknown = fmt.Errorf("recipients: %w", ErrUnknown)

// What Rules.Order may have.
const (
	Exact  = "exact"  // the address as a user's name: local@domain
	Local  = "local"  // its local part as a user's name
	Detail = "detail" // what follows the delimiter is cut, and the other rules look at what is left
)

// DefaultOrder is what counts if Rules name none.
var DefaultOrder = []string{Exact, Local, Detail}

// Rules say what of an address is a user's name.
type Rules struct {
	Order     []string // the rules in the order to try; nil: DefaultOrder
	Delimiter string   // each octet of it cuts; empty: none does
	Domains   []string // those that are ours, in lower case; none: any
}

// check returns the rules as they are used.
func (r Rules) check() (Rules, error) {
	if r.Order == nil {
		r.Order = DefaultOrder
	}
	for i, rule := range r.Order {
		if !slices.Contains(DefaultOrder, rule) || slices.Contains(r.Order[:i], rule) {
			return r, fmt.Errorf("recipients: the rule %q is unknown, or there twice; exact, local and detail would be right", rule)
		}
	}
	if !slices.Contains(r.Order, Exact) && !slices.Contains(r.Order, Local) {
		return r, errors.New("recipients: no rule that finds a user; exact or local would be right")
	}
	return r, nil
}

// A Resolver knows whose an address is. Many goroutines may use it at once.
type Resolver struct {
	users auth.Recipients
	path  string // of the file of aliases; empty: none
	log   *slog.Logger
	now   func() time.Time

	reading sync.Mutex // held by who reads the file, or changes the rules
	state   atomic.Pointer[state]
}

// state is what was found at the last look at the file. It is never changed, but for told.
type state struct {
	rules   Rules
	aliases table  // of the last version without errors; nil: none was read
	good    string // its text
	last    string // the text of the version last looked at, with errors or not
	seen    stamp
	racy    bool      // the file was so young that a later change may bear the same stamp: look again
	stale   bool      // the rules have changed since last was parsed
	err     error     // of the version last looked at
	told    *sync.Map // targets that are no users, and were logged
}

// New returns a Resolver for users by rules and, if aliasesFile is not empty, by a file of aliases, which must be
// there. If it has errors all are returned at once (errors.Join). logger may be nil.
func New(users auth.Recipients, rules Rules, aliasesFile string, logger *slog.Logger) (*Resolver, error) {
	if logger == nil {
		logger = slog.New(slog.DiscardHandler)
	}
	rules, err := rules.check()
	if err != nil {
		return nil, err
	}
	r := &Resolver{users: users, path: aliasesFile, log: logger, now: time.Now}
	r.state.Store(&state{rules: rules, told: new(sync.Map)})
	if err := r.Reload(); err != nil {
		return nil, err
	}
	return r, nil
}

// Resolve returns the owners of the maildrops that an address stands for, each once; there is at least one. See
// the package's comment for what counts as an address, and for the order in which it is looked for.
//
// The error wraps ErrUnknown if there are none, and the address is to be refused. Any other error means that it
// could not tell: the users could not, ctx ended, or an alias has a target that is nobody. The mail is to be sent
// again later, then.
func (r *Resolver) Resolve(ctx context.Context, text string) ([]maildrop.Owner, error) {
	a, ok := parseAddress(text)
	if !ok {
		return nil, errUnknown
	}
	s := search{Resolver: r, state: r.current(), ctx: ctx}
	if !s.ours(a) {
		return nil, errUnknown
	}
	found, err := s.find(a)
	if err != nil {
		return nil, fmt.Errorf("recipients: %w", err)
	}
	if !found {
		return nil, errUnknown
	}
	return s.owners, nil
}

// A search is for one address.
type search struct {
	*Resolver
	state    *state
	ctx      context.Context //nolint:containedctx // lives no longer than the call
	owners   []maildrop.Owner
	expanded map[*alias]bool
}

func (s *search) ours(a address) bool {
	return a.domain == "" || len(s.state.rules.Domains) == 0 || slices.Contains(s.state.rules.Domains, a.domain)
}

// find adds the owners of an address; false if there are none.
func (s *search) find(a address) (bool, error) {
	found, err := s.direct(a)
	for _, key := range []string{"@" + a.domain, everybody} {
		if found || err != nil {
			break
		}
		found, err = s.alias(key)
	}
	return found, err
}

// direct looks for the address itself, and for what the rules make of it.
func (s *search) direct(a address) (bool, error) {
	if found, err := s.alias(a.key()); found || err != nil {
		return found, err
	}
	for _, rule := range s.state.rules.Order {
		found, err := false, error(nil)
		switch rule {
		case Exact:
			found, err = s.user(a, Exact)
		case Local:
			if found, err = s.alias(lower(a.local)); !found && err == nil {
				found, err = s.user(a, Local)
			}
		case Detail:
			if cut, ok := s.cut(a); ok {
				found, err = s.direct(cut)
			}
		}
		if found || err != nil {
			return found, err
		}
	}
	if slices.Contains(s.state.rules.Order, Local) {
		return false, nil
	}
	return s.alias(lower(a.local)) // names count in all our domains, postmaster for one
}

// cut takes the detail off an address. One that begins with the delimiter has none, as in Postfix.
func (s *search) cut(a address) (address, bool) {
	i := strings.IndexAny(a.local, s.state.rules.Delimiter)
	if i <= 0 {
		return a, false
	}
	a.local = a.local[:i]
	return a, true
}

// user adds the user that the rule finds.
func (s *search) user(a address, rule string) (bool, error) {
	names := []string{a.local}
	if rule == Exact && a.domain != "" {
		if names[0] = a.name(); a.spelt != a.domain {
			names = append(names, a.local+"@"+a.spelt) // as it stands in the users file, perhaps
		}
	}
	for _, name := range names {
		id, err := s.users.Recipient(s.ctx, name)
		if errors.Is(err, auth.ErrRejected) {
			continue
		}
		if err != nil {
			return false, err //nolint:wrapcheck // Resolve says who
		}
		owner := maildrop.Owner{Name: id.User, Home: id.Home, Quota: maildrop.Quota(id.Quota)}
		if !slices.ContainsFunc(s.owners, func(o maildrop.Owner) bool { return o.Name == owner.Name }) {
			s.owners = append(s.owners, owner)
		}
		return true, nil
	}
	return false, nil
}

// alias adds the owners behind an alias; false if there is none of that key.
func (s *search) alias(key string) (bool, error) {
	a := s.state.aliases[key]
	if a == nil {
		return false, nil
	}
	return true, s.expand(a)
}

// expand adds the owners behind an alias, each of which is looked at once.
func (s *search) expand(a *alias) error {
	if s.expanded[a] {
		return nil
	}
	if s.expanded == nil {
		s.expanded = make(map[*alias]bool)
	}
	s.expanded[a] = true
	for _, t := range a.targets {
		if t.to != nil {
			if err := s.expand(t.to); err != nil {
				return err
			}
			continue
		}
		found, err := s.target(t.address)
		if err != nil {
			return err
		}
		if !found {
			return s.nobody(t)
		}
	}
	return nil
}

// target adds the user that an alias's target is, by the rules for users alone.
func (s *search) target(a address) (bool, error) {
	for _, rule := range s.state.rules.Order {
		found, err := false, error(nil)
		switch cut, ok := s.cut(a); {
		case rule != Detail:
			found, err = s.user(a, rule)
		case ok:
			found, err = s.target(cut)
		}
		if found || err != nil {
			return found, err
		}
	}
	return false, nil
}

// nobody tells of a target that is no user: once for each version of the file, since the mail comes again.
func (s *search) nobody(t target) error {
	err := fmt.Errorf("%s:%d: %s is no user and no alias; to add the user, or to take the target away, would be right",
		s.path, t.line, quote(t.address.name()))
	if _, told := s.state.told.LoadOrStore(t.address.key(), true); !told {
		s.log.Error("an alias can't be delivered to: its mail is deferred", "error", err)
	}
	return err
}
