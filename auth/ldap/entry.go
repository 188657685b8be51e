package ldap

import (
	"context"
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"
	"unicode/utf8"

	goldap "github.com/go-ldap/ldap/v3"

	"dewey/auth"
)

// none asks for no attribute at all; an empty list would ask for all. RFC 4511 section 4.5.1.8.
var none = []string{"1.1"}

// entry finds the one entry of a user, by a filter, or by the DN alone if there is no filter.
func (b *Backend) entry(ctx context.Context, c *conn, user string, f filter, attributes []string) (*goldap.Entry, error) {
	v := valuesOf(user)
	if f == "" {
		dn, ok := b.plan.dn.fill(v)
		if !ok {
			return nil, unknown(user)
		}
		return b.own(ctx, c, user, dn, attributes)
	}
	text, ok := f.fill(v)
	if !ok {
		return nil, unknown(user)
	}
	return one(ctx, c, user, goldap.SearchRequest{BaseDN: b.config.Base, Scope: b.plan.scope, Filter: text, Attributes: attributes})
}

// own reads the entry of a name that the template made.
func (b *Backend) own(ctx context.Context, c *conn, user, dn string, attributes []string) (*goldap.Entry, error) {
	e, err := one(ctx, c, user, goldap.SearchRequest{BaseDN: dn, Scope: goldap.ScopeBaseObject, Filter: "(objectClass=*)", Attributes: attributes})
	if b.plan.dn.absent(err) {
		return nil, unknown(user)
	}
	return e, err
}

// one searches what there may be once. None is an unknown user, and several are a fault of the directory or the filter: who
// of them came in would be chance.
func one(ctx context.Context, c *conn, user string, r goldap.SearchRequest) (*goldap.Entry, error) {
	if r.SizeLimit = 2; len(r.Attributes) == 0 {
		r.Attributes = none
	}
	result, err := c.search(ctx, &r)
	over := goldap.IsErrorWithCode(err, goldap.LDAPResultSizeLimitExceeded)
	switch {
	case goldap.IsErrorAnyOf(err, goldap.LDAPResultOperationsError, goldap.LDAPResultNoSuchObject, goldap.LDAPResultInsufficientAccessRights):
		return nil, fmt.Errorf("searching %q below %q: %w; another base, or a bind_dn that may see it, would be right", user, r.BaseDN, err)
	case err != nil && !over:
		return nil, fmt.Errorf("searching %q below %q: %w", user, r.BaseDN, err)
	case len(result.Entries) > 1:
		return nil, fmt.Errorf("%q is the name of several entries, such as %q and %q; a filter that finds one would be right", user, result.Entries[0].DN, result.Entries[1].DN)
	case over:
		return nil, fmt.Errorf("searching %q below %q: %w", user, r.BaseDN, err)
	case len(result.Entries) == 0 && len(result.Referrals) > 0:
		// The search is not whole. RFC 4511 section 4.5.3.
		return nil, fmt.Errorf("%q is not below %q, but parts of that are on other servers (%.200q), which are not asked; a base without such parts would be right", user, r.BaseDN, result.Referrals[0])
	case len(result.Entries) == 0:
		return nil, unknown(user)
	}
	if e := result.Entries[0]; e.DN != "" {
		return e, nil
	}
	return nil, fmt.Errorf("the entry of %q has no name", user)
}

// member says whether the user may come in by the group: an error that wraps auth.ErrRejected if not.
func (b *Backend) member(ctx context.Context, c *conn, user, dn string) error {
	if b.config.GroupBase == "" {
		return nil
	}
	v := valuesOf(user)
	v["dn"] = dn
	text, ok := b.plan.group.fill(v)
	if !ok {
		return fmt.Errorf("ldap: %q is in no group: %w", user, auth.ErrRejected)
	}
	result, err := c.search(ctx, &goldap.SearchRequest{
		BaseDN: b.config.GroupBase, Scope: goldap.ScopeWholeSubtree, SizeLimit: 1, Filter: text, Attributes: none,
	})
	switch {
	case (err == nil || goldap.IsErrorWithCode(err, goldap.LDAPResultSizeLimitExceeded)) && len(result.Entries) > 0:
		return nil
	case err != nil:
		return fmt.Errorf("searching the group of %q below %q: %w", user, b.config.GroupBase, err)
	case len(result.Referrals) > 0:
		return fmt.Errorf("searching the group of %q below %q: parts of that are on other servers (%.200q), which are not asked", user, b.config.GroupBase, result.Referrals[0])
	}
	return fmt.Errorf("ldap: %q is not in the group: %w", user, auth.ErrRejected)
}

// maxHashes bounds how many hashes of one user are run.
const maxHashes = 8

// verify says whether a password fits one of the hashes: an error that wraps auth.ErrRejected if not.
func (b *Backend) verify(ctx context.Context, a auth.Attempt, e *goldap.Entry) error {
	hashes := e.GetEqualFoldAttributeValues(b.config.PasswordAttribute)
	switch {
	case len(hashes) == 0:
		return fmt.Errorf("%q has no %s that bind_dn may read; mode = %q, or an account that may, would be right", e.DN, b.config.PasswordAttribute, ModeBind)
	case len(hashes) > maxHashes:
		return fmt.Errorf("%q has %d values of %s; at most %d would be right", e.DN, len(hashes), b.config.PasswordAttribute, maxHashes)
	}
	var unread error
	for _, text := range hashes {
		h, err := b.set.Parse(b.field(text))
		if err != nil {
			unread = fmt.Errorf("%s of %q: %w", b.config.PasswordAttribute, e.DN, err)
			continue
		}
		locked, fits := h.Locked(), false
		if locked { // it costs a hash, too (trap 42)
			h = *b.like.Load()
		}
		if err := b.workers.Run(ctx, a.Remote, h, func() error { fits = h.Verify(a.Password); return nil }); err != nil {
			return fmt.Errorf("the hashes' turn: %w", context.Cause(ctx))
		}
		if locked {
			continue
		}
		b.like.Store(&h)
		if fits {
			return nil
		}
	}
	if unread != nil {
		return unread
	}
	return fmt.Errorf("ldap: %q: another password: %w", a.User, auth.ErrRejected)
}

// field writes a value as package scheme reads it. OpenLDAP's {ARGON2} is either of the two that it tells apart by their names.
func (b *Backend) field(value string) string {
	const argon2 = "{ARGON2}"
	switch {
	case len(value) >= len(argon2) && strings.EqualFold(value[:len(argon2)], argon2):
		return "{ARGON2ID}" + value[len(argon2):]
	case !strings.HasPrefix(value, "{") && b.config.DefaultScheme != "":
		return "{" + b.config.DefaultScheme + "}" + value
	}
	return value
}

// identity reads what counts of an entry.
func (b *Backend) identity(user string, e *goldap.Entry) (id auth.Identity, err error) {
	var errs []error
	value := func(attribute string) (string, bool) {
		if attribute == "" {
			return "", false
		}
		all := e.GetEqualFoldAttributeValues(attribute)
		if len(all) > 1 {
			errs = append(errs, fmt.Errorf("%s of %q has %d values, in no order; an attribute with one would be right", attribute, e.DN, len(all)))
		}
		return strings.Join(all, ""), len(all) > 0
	}
	bad := func(attribute, what string) {
		errs = append(errs, fmt.Errorf("%s of %q %s would be right", attribute, e.DN, what))
	}
	var ok bool
	switch id.User, ok = value(b.config.UserAttribute); {
	case b.config.UserAttribute == "":
		id.User = auth.Lower(user)
	case !ok:
		bad(b.config.UserAttribute, "is missing; the user's name")
	case id.User == "" || len(id.User) > maxName || !utf8.ValidString(id.User) || strings.ContainsFunc(id.User, control):
		bad(b.config.UserAttribute, "is no user's name; 1 to 255 octets of text")
	}
	if id.Home, _ = value(b.config.HomeAttribute); id.Home != "" &&
		(!path.IsAbs(id.Home) || strings.ContainsFunc(id.Home, control) || slices.Contains(strings.Split(id.Home, "/"), "..")) {
		bad(b.config.HomeAttribute, "is no home; an absolute path without .. in it")
	}
	if text, set := value(b.config.QuotaAttribute); set {
		if id.Quota.Octets, ok = auth.ParseOctets(text, 1); !ok {
			bad(b.config.QuotaAttribute, "is no size; octets, or a number with K, M, G or T,")
		}
	}
	if text, set := value(b.config.QuotaMessagesAttribute); set {
		if id.Quota.Messages, ok = auth.ParseMessages(text); !ok {
			bad(b.config.QuotaMessagesAttribute, "is no number of messages; one such as 1000")
		}
	}
	if err := errors.Join(errs...); err != nil {
		return auth.Identity{}, err
	}
	return id, nil
}

func control(r rune) bool { return r < ' ' || r == 0x7f }
