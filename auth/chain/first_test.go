package chain

import (
	"context"
	"net/netip"
	"testing"

	"dewey/auth"
)

// An aliased backend calls its users by other names than they gave.
type aliased struct {
	*keeper
	names map[string]string
}

func (a *aliased) as(id auth.Identity, err error) (auth.Identity, error) {
	if name, ok := a.names[id.User]; ok && err == nil {
		id.User = name
	}
	return id, err
}

func (a *aliased) CheckPassword(ctx context.Context, at auth.Attempt) (auth.Identity, error) {
	return a.as(a.keeper.CheckPassword(ctx, at))
}

func (a *aliased) Recipient(ctx context.Context, user string) (auth.Identity, error) {
	return a.as(a.keeper.Recipient(ctx, user))
}

func (a *aliased) Find(ctx context.Context, user string, remote netip.Addr) (auth.Identity, error) {
	return a.as(a.keeper.Find(ctx, user, remote))
}

func (a *aliased) Authorize(ctx context.Context, id auth.Identity, as string) (auth.Identity, error) {
	return a.as(a.keeper.Authorize(ctx, id, as))
}

func (a *aliased) Secret(ctx context.Context, user, mechanism string, remote netip.Addr) (auth.Secret, error) {
	s, err := a.keeper.Secret(ctx, user, mechanism, remote)
	s.Identity, err = a.as(s.Identity, err)
	return s, err
}

// Whoever a later backend says that somebody is: the user of an earlier one is not his to be, nor who is of none of the
// table's domains. Maildrops go by that name.
func TestNobodyIsAnEarlierBackendsUser(t *testing.T) {
	file := &keeper{fake: newFake("ann@a:1", "made up:")}
	later := &aliased{&keeper{fake: newFake("alias@b:2", "own@b:3", "else@b:4", "root:5")}, map[string]string{"alias@b": "ann@a", "own@b": "bob@b", "else@b": "eve@c"}}
	c := New(nil, Backend{Name: "file", Users: file}, Backend{Name: "later", Users: later}, Backend{Name: "tokens", Users: &tokens{prefix: "t:"}})
	acts := true // root does
	all := func(user, password, want string) {
		t.Helper()
		expect(t, c, user, password, want)
		for what, ask := range map[string]func() (auth.Identity, error){
			"recipient": func() (auth.Identity, error) { return c.Recipient(t.Context(), user) },
			"find":      func() (auth.Identity, error) { return c.Find(t.Context(), user, remote) },
			"authorize": func() (auth.Identity, error) {
				return c.Authorize(t.Context(), auth.Identity{User: "root", Backend: "later"}, user)
			},
			"secret": func() (auth.Identity, error) {
				s, err := c.Secret(t.Context(), user, auth.APOP, remote)
				if err != nil && s.Password == password {
					t.Errorf("%s: his secret is handed out beside %v", user, err)
				}
				return s.Identity, err
			},
		} {
			if got := result(ask()); got != want && (what != "authorize" || acts) {
				t.Errorf("%s of %s: %s, want %s", what, user, got, want)
			}
		}
	}
	all("own@b", "3", "later")
	all("alias@b", "2", "rejected")
	all("else@b", "4", "later")
	for bearer, want := range map[string]string{"t:ann@a": "rejected", "t:new": "tokens"} {
		if got := result(c.CheckToken(t.Context(), auth.Token{Bearer: bearer, Remote: remote})); got != want {
			t.Errorf("%s: %s, want %s", bearer, got, want)
		}
	}
	file.fail(errDown)
	if got := result(c.CheckToken(t.Context(), auth.Token{Bearer: "t:new", Remote: remote})); got != "fault" {
		t.Errorf("while the first can't tell: %s", got)
	}

	c = New(nil, Backend{Name: "later", Users: later, Domains: []string{"b"}})
	acts = false // he is of no domain
	all("own@b", "3", "later")
	all("alias@b", "2", "fault")
	all("else@b", "4", "fault")
}
