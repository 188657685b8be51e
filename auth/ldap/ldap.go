// Package ldap knows users from an LDAP directory. Their passwords are checked by the directory, which dewey asks to let it
// in as the user (a bind), or here, with the hashes that the directory hands over (a lookup).
//
// What a client sends is data: a name stands in filters and names of entries escaped, and an empty password is never sent,
// since a directory says yes to it. RFC 4513 section 5.1.2.
//
// A directory that is down, slow or talks nonsense, a user who is there twice, and an entry that can't be read are no
// refusals: their errors do not wrap auth.ErrRejected. Referrals are not followed.
package ldap

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"sync/atomic"
	"unicode/utf8"

	goldap "github.com/go-ldap/ldap/v3"

	"dewey/auth"
	"dewey/auth/scheme"
)

// A Backend is an auth.PasswordChecker and auth.Recipients. Many goroutines may use it.
type Backend struct {
	config  Config
	plan    *plan
	pool    *pool
	set     scheme.Set
	workers *scheme.Workers
	like    atomic.Pointer[scheme.Hash] // what is run for unknown users: it costs what the users' hashes cost
}

// New makes a Backend, or says all that is wrong with its configuration. It connects to nobody yet.
func New(c Config) (*Backend, error) {
	p, err := c.check()
	if err != nil {
		return nil, err
	}
	b := &Backend{config: c, plan: p, set: c.set(), workers: c.Workers}
	if b.workers == nil {
		b.workers = scheme.NewWorkers()
	}
	decoy := scheme.Decoy()
	b.like.Store(&decoy)
	b.pool = newPool(p.servers, c.Connections, c.Timeout, b.greet)
	return b, nil
}

// Close ends calls that are under way and closes all connections.
func (b *Backend) Close() error {
	b.pool.close()
	return nil
}

// greet makes a new connection one of the service account.
func (b *Backend) greet(ctx context.Context, c *conn) error {
	if b.config.BindDN == "" {
		return nil
	}
	if err := c.bind(ctx, b.config.BindDN, b.config.BindPassword); err != nil {
		return fmt.Errorf("bind_dn %q: %w", b.config.BindDN, err)
	}
	return nil
}

// maxName is the longest name of a user, in octets.
const maxName = 255

// sane says whether a user of this name can be. Text of LDAP is UTF-8 (RFC 4511 section 4.1.2), and the library
// would make the same name of many that are not. To most directories small and capital letters, one blank and several,
// and letters of different width are the same: where the name that was asked for becomes the maildrop's, there may be
// none of them, or one user had many.
func (b *Backend) sane(user string) bool {
	if user == "" || len(user) > maxName || !utf8.ValidString(user) {
		return false
	}
	return !strings.ContainsFunc(user, func(r rune) bool {
		return r < ' ' || r == 0x7f || b.config.UserAttribute == "" && (r == ' ' || r > 0x7f)
	})
}

// unknown is the error of a name that is none of the directory's.
func unknown(user string) error {
	return fmt.Errorf("ldap: %.300q: %w", user, auth.ErrUnknownUser)
}

// named puts the package's name before errors that do not have it yet: all but rejections.
func named(err error) error {
	if err == nil || errors.Is(err, auth.ErrRejected) {
		return err
	}
	return fmt.Errorf("ldap: %w", err)
}

// CheckPassword implements auth.PasswordChecker.
//
// The directory's invalidCredentials (49) and constraintViolation (19) are rejections: the first is also what servers say
// of locked and expired accounts, the second what some say of one that had too many wrong passwords. unwillingToPerform (53)
// and all others say nothing of the password, and can't tell.
func (b *Backend) CheckPassword(ctx context.Context, a auth.Attempt) (auth.Identity, error) {
	switch {
	case !b.sane(a.User):
		return auth.Identity{}, unknown(a.User)
	case a.Password == "" || len(a.Password) > scheme.MaxPassword || strings.IndexByte(a.Password, 0) >= 0:
		// A longer one might be more than a server takes, and would cost us the connection; after a NUL some read no further.
		return auth.Identity{}, fmt.Errorf("ldap: %q: the password is empty, too long or has a NUL: %w", a.User, auth.ErrRejected)
	}
	ctx, done := b.pool.begin(ctx)
	defer done()
	var id auth.Identity
	var err error
	switch {
	case b.config.Mode == ModeLookup:
		id, err = b.lookup(ctx, a)
	case b.config.DN != "":
		id, err = b.direct(ctx, a)
	default:
		id, err = b.searchAndBind(ctx, a)
	}
	return id, named(err)
}

// Recipient implements auth.Recipients. Neither a group nor a password counts.
func (b *Backend) Recipient(ctx context.Context, user string) (auth.Identity, error) {
	return b.find(ctx, user, b.plan.recipient, false)
}

// Find returns the identity of a user who was proven elsewhere; he needs the group, but no password. That the directory
// has locked him is known only if the filter leaves such users out.
func (b *Backend) Find(ctx context.Context, user string, _ netip.Addr) (auth.Identity, error) {
	return b.find(ctx, user, b.plan.filter, true)
}

func (b *Backend) find(ctx context.Context, user string, f filter, login bool) (id auth.Identity, err error) {
	if !b.sane(user) {
		return id, unknown(user)
	}
	ctx, done := b.pool.begin(ctx)
	defer done()
	err = b.pool.do(ctx, searching, func(ctx context.Context, c *conn) error {
		e, err := b.entry(ctx, c, user, f, b.plan.attributes)
		if err == nil && login {
			err = b.member(ctx, c, user, e.DN)
		}
		if err == nil {
			id, err = b.identity(user, e)
		}
		return err
	})
	return id, named(err)
}

// searchAndBind finds the user's entry, and binds as it.
func (b *Backend) searchAndBind(ctx context.Context, a auth.Attempt) (id auth.Identity, err error) {
	var e *goldap.Entry
	err = b.pool.do(ctx, searching, func(ctx context.Context, c *conn) (err error) {
		e, err = b.entry(ctx, c, a.User, b.plan.filter, b.plan.attributes)
		return err
	})
	if err != nil {
		return id, err
	}
	err = b.pool.do(ctx, proving, func(ctx context.Context, c *conn) error { return refused(a.User, c.bind(ctx, e.DN, a.Password)) })
	if err != nil {
		return id, err
	}
	return b.proven(ctx, a.User, e)
}

// proven is what comes after the password: the group, and what the entry says.
func (b *Backend) proven(ctx context.Context, user string, e *goldap.Entry) (id auth.Identity, err error) {
	if b.config.GroupBase != "" {
		err := b.pool.do(ctx, searching, func(ctx context.Context, c *conn) error { return b.member(ctx, c, user, e.DN) })
		if err != nil {
			return id, err
		}
	}
	return b.identity(user, e)
}

// direct binds as the user, and reads his entry: as himself, unless there is an account that searches.
func (b *Backend) direct(ctx context.Context, a auth.Attempt) (id auth.Identity, err error) {
	dn, ok := b.plan.dn.fill(valuesOf(a.User))
	if !ok {
		return id, unknown(a.User)
	}
	read := func(ctx context.Context, c *conn) error {
		e := &goldap.Entry{DN: dn}
		if len(b.plan.attributes) > 0 {
			if e, err = b.own(ctx, c, a.User, dn, b.plan.attributes); err != nil {
				return err
			}
		}
		if err := b.member(ctx, c, a.User, dn); err != nil {
			return err
		}
		id, err = b.identity(a.User, e)
		return err
	}
	asHimself := b.config.BindDN == ""
	err = b.pool.do(ctx, proving, func(ctx context.Context, c *conn) error {
		err := c.bind(ctx, dn, a.Password)
		switch {
		case b.plan.dn.absent(err):
			return unknown(a.User)
		case err == nil && asHimself:
			return read(ctx, c)
		}
		return refused(a.User, err)
	})
	switch {
	case asHimself || errors.Is(err, auth.ErrUnknownUser) || err != nil && !errors.Is(err, auth.ErrRejected):
		return id, err
	case err == nil:
		err = b.pool.do(ctx, searching, read)
		return id, err
	}
	// 49 is said of unknown users too: whether another backend may know him is for the account to see.
	unread := b.pool.do(ctx, searching, func(ctx context.Context, c *conn) error {
		_, err := b.own(ctx, c, a.User, dn, nil)
		return err
	})
	if unread != nil {
		return id, unread
	}
	return id, err
}

// refused tells a rejection from what can't tell.
func refused(user string, err error) error {
	if goldap.IsErrorAnyOf(err, goldap.LDAPResultInvalidCredentials, goldap.LDAPResultConstraintViolation) {
		return fmt.Errorf("ldap: %q: %w: %w", user, err, auth.ErrRejected)
	}
	return err
}

// lookup checks the password with the hashes of the user's entry. An unknown user costs a hash as well (trap 42).
func (b *Backend) lookup(ctx context.Context, a auth.Attempt) (id auth.Identity, err error) {
	var e *goldap.Entry
	err = b.pool.do(ctx, searching, func(ctx context.Context, c *conn) (err error) {
		e, err = b.entry(ctx, c, a.User, b.plan.filter, append([]string{b.config.PasswordAttribute}, b.plan.attributes...))
		return err
	})
	if errors.Is(err, auth.ErrUnknownUser) {
		like := *b.like.Load()
		if err := b.workers.Run(ctx, a.Remote, like, func() error { like.Verify(a.Password); return nil }); err != nil {
			return id, fmt.Errorf("the hashes' turn: %w", context.Cause(ctx))
		}
	}
	if err != nil {
		return id, err
	}
	if err := b.verify(ctx, a, e); err != nil {
		return id, err
	}
	return b.proven(ctx, a.User, e)
}
