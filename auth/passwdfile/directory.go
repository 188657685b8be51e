package passwdfile

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"dewey/auth"
)

// Find implements auth.Directory. It looks a name up as CheckPassword does. Of the user's line nologin
// and allow_nets count; a locked password, or none, locks the password alone, and not who comes by a
// certificate.
func (f *File) Find(ctx context.Context, user string, remote netip.Addr) (auth.Identity, error) {
	st, err := f.current(ctx)
	if err != nil {
		return auth.Identity{}, fmt.Errorf("passwdfile: %w", err)
	}
	e, known, err := st.table.login(user)
	switch {
	case err != nil:
		return auth.Identity{}, fmt.Errorf("passwdfile: %w", err)
	case !known:
		return auth.Identity{}, errUnknown
	case !e.extra.admits(remote):
		return auth.Identity{}, errRejected
	}
	return e.identity(), nil
}

// Authorize implements auth.Directory. The line of id says in login_as whose name he may use; his own he
// may always. The other name is looked up as in CheckPassword. Its nologin counts, as in Dovecot. Its
// allow_nets do not: they say from where that user comes, and the administrator was held to his own. Nor
// does a locked password, which the administrator does not need.
func (f *File) Authorize(ctx context.Context, id auth.Identity, as string) (auth.Identity, error) {
	st, err := f.current(ctx)
	if err != nil {
		return auth.Identity{}, fmt.Errorf("passwdfile: %w", err)
	}
	t := st.table
	if t.faulty[id.User] {
		return auth.Identity{}, fmt.Errorf("passwdfile: %w", errFaulty)
	}
	offset, known := t.index[id.User]
	if !known {
		return auth.Identity{}, errUnknown
	}
	own := t.at(offset)
	other, known, err := t.login(as)
	switch {
	case own.extra.nologin:
		return auth.Identity{}, errRejected
	case err != nil && (own.extra.mayBe(as) || own.extra.mayBe(auth.Lower(as))): // nobody else learns of the line
		return auth.Identity{}, fmt.Errorf("passwdfile: %w", err)
	case err != nil || !known || other.extra.nologin, other.name != own.name && !own.extra.mayBe(other.name):
		return auth.Identity{}, errRejected
	}
	return other.identity(), nil
}

// mayBe says whether login_as covers a name.
func (x extra) mayBe(name string) bool {
	return slices.ContainsFunc(x.loginAs, func(pattern string) bool {
		end, wild := strings.CutPrefix(pattern, "*")
		return pattern == name || wild && len(name) > len(end) && strings.HasSuffix(name, end)
	})
}

// parseLoginAs reads names and patterns, with commas between: a pattern is * alone, for everybody, or *
// and how names end.
func parseLoginAs(value string) ([]string, error) {
	list := strings.Split(value, ",")
	for _, one := range list {
		if one == "" || strings.LastIndexByte(one, '*') > 0 {
			return nil, errors.New("login_as with something that is neither a name nor * and the end of names; login_as=mrose,*@example.org would be right")
		}
	}
	return list, nil
}
