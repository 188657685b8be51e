package chain

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"dewey/auth"
)

// A keeper is a fake that keeps secrets, says who may act as whom, and has lives.
type keeper struct {
	*fake
	serves map[string]bool
	lives  []auth.Life
}

func (k *keeper) Secret(_ context.Context, user, _ string, _ netip.Addr) (auth.Secret, error) {
	password, err := k.look(user)
	switch {
	case errors.Is(err, auth.ErrRejected), password == "":
		if err == nil {
			err = errRejected
		}
		return auth.Secret{Password: "made up by " + k.home + " for " + user}, err
	case err != nil:
		return auth.Secret{}, err
	}
	return auth.Secret{Identity: auth.Identity{User: user}, Password: password}, nil
}

func (k *keeper) Serves(mechanism string) bool { return k.serves[mechanism] }

func (k *keeper) Lives() []auth.Life { return k.lives }

func (k *keeper) Authorize(ctx context.Context, id auth.Identity, as string) (auth.Identity, error) {
	if !strings.HasPrefix(id.User, "root") && id.User != as {
		return auth.Identity{}, errRejected
	}
	return k.Recipient(ctx, as)
}

// tokens takes tokens that begin with its prefix.
type tokens struct {
	prefix string
	err    error
	find   func(ctx context.Context, user string, remote netip.Addr) (auth.Identity, error)
}

func (k *tokens) CheckToken(ctx context.Context, t auth.Token) (auth.Identity, error) {
	switch {
	case k.err != nil:
		return auth.Identity{}, k.err
	case len(t.Bearer) <= len(k.prefix) || t.Bearer[:len(k.prefix)] != k.prefix:
		return auth.Identity{}, &auth.TokenRefusal{Status: auth.TokenInvalid, Scope: k.prefix}
	case k.find != nil:
		return k.find(ctx, t.Bearer[len(k.prefix):], t.Remote)
	}
	return auth.Identity{User: t.Bearer[len(k.prefix):]}, nil
}

func TestSecrets(t *testing.T) {
	file, ldap, late := &keeper{fake: newFake("ann:1", "none:")}, newFake("bob:2", "both:2"), &keeper{fake: newFake("cat:3", "both:3")}
	file.home, late.home = "file", "late"
	c := New(nil, Backend{Name: "file", Users: file}, Backend{Name: "ldap", Users: ldap}, Backend{Name: "pam", Users: auth.PasswordFunc(nil)}, Backend{Name: "late", Users: late})
	if !c.KeepsSecrets() || New(nil, Backend{Users: ldap}).KeepsSecrets() {
		t.Error("KeepsSecrets")
	}
	check := func(user, password, want string) {
		t.Helper()
		s, err := c.Secret(t.Context(), user, auth.APOP, remote)
		if got := result(s.Identity, err); got != want || s.Password != password || err != nil && s.Identity.User != "" {
			t.Errorf("%s: %s, %+v, %v", user, got, s, err)
		}
	}
	check("ann", "1", "file")
	check("none", "made up by file for none", "rejected")
	check("bob", "made up by file for bob", "rejected")
	check("cat", "3", "late")
	check("both", "made up by file for both", "rejected") // ldap's: what late says of the name is another's
	check("dan", "made up by file for dan", "unknown")
	ldap.fail(errDown)
	check("ann", "1", "file")
	check("cat", "", "fault")
	ldap.fail(nil)

	c = New(nil, Backend{Name: "ldap", Users: ldap}, Backend{Name: "file", Users: file, Domains: []string{"example.org"}})
	check("bob", "made up by file for \x00bob", "rejected")
	check("dan", "made up by file for \x00dan", "unknown")
	file.users["bob"] = "theirs"
	check("bob", "made up by file for \x00bob", "rejected")
	if _, err := New(nil, Backend{Users: ldap}).Secret(t.Context(), "bob", auth.APOP, remote); err == nil || errors.Is(err, auth.ErrRejected) {
		t.Errorf("%v", err)
	}
}

// A mechanism is for all, or clients that do not fall back are shut out.
func TestServes(t *testing.T) {
	all := []auth.Life{{}}
	yes := Backend{Users: &keeper{fake: newFake(), serves: map[string]bool{auth.APOP: true}, lives: all}}
	no := Backend{Users: &keeper{fake: newFake(), lives: all}}
	empty := Backend{Users: &keeper{fake: newFake()}}
	plain, token := Backend{Users: newFake()}, Backend{Users: new(tokens)}
	for i, c := range []struct {
		backends []Backend
		want     bool
	}{
		{[]Backend{yes}, true},
		{[]Backend{yes, yes}, true},
		{[]Backend{yes, empty, token}, true}, // no user of theirs has a password
		{[]Backend{empty}, false},
		{[]Backend{token}, false},
		{[]Backend{yes, no}, false},
		{[]Backend{yes, plain}, false},
		{[]Backend{plain}, false},
		{nil, false},
	} {
		if got := New(nil, c.backends...).Serves(auth.APOP); got != c.want {
			t.Errorf("%d: %v", i, got)
		}
	}
}

// Who was proven by a backend acts by its rules alone, whatever another has under his name.
func TestAuthorize(t *testing.T) {
	file, ldap := &keeper{fake: newFake("root:1", "ann:1")}, newFake("root:2", "bob:2", "ann:3")
	c := New(nil, Backend{Name: "file", Users: file}, Backend{Name: "ldap", Users: ldap}, Backend{Name: "pam", Users: auth.PasswordFunc(nil)})
	for _, one := range []struct{ user, backend, as, want string }{
		{"root", "file", "ann", "file"},
		{"root", "file", "bob", "unknown"},
		{"ann", "file", "root", "rejected"},
		{"root", "ldap", "ann", "rejected"},
		{"bob", "ldap", "BOB", "ldap"},
		{"bob", "ldap", "ann", "rejected"},
		{"eve", "pam", "ann", "rejected"},
		{"root", "gone", "ann", "rejected"},
		{"root", "", "ann", "rejected"},
	} {
		if got := result(c.Authorize(t.Context(), auth.Identity{User: one.user, Backend: one.backend}, one.as)); got != one.want {
			t.Errorf("%+v: %s", one, got)
		}
	}
	part := New(nil, Backend{Name: "file", Users: &keeper{fake: newFake("root@a.org:1", "ann@a.org:1", "bob@b.org:1")}, Domains: []string{"a.org"}})
	for as, want := range map[string]string{"ann@a.org": "file", "bob@b.org": "rejected"} { // the latter is never asked about
		if got := result(part.Authorize(t.Context(), auth.Identity{User: "root@a.org", Backend: "file"}, as)); got != want {
			t.Errorf("as %s: %s", as, got)
		}
	}
	ldap.fail(errDown)
	if got := result(c.Authorize(t.Context(), auth.Identity{User: "bob", Backend: "ldap"}, "BOB")); got != "fault" {
		t.Error(got)
	}
}

func TestTokens(t *testing.T) {
	users := newFake("ann:1")
	c := New(nil)
	one, two := &tokens{prefix: "1-"}, &tokens{prefix: "2-"}
	two.find = c.Find
	c.Replace(Backend{Name: "users", Users: users}, Backend{Name: "one", Users: one}, Backend{Name: "two", Users: two})
	if !c.ChecksTokens() || New(nil, Backend{Users: users}).ChecksTokens() {
		t.Error("ChecksTokens")
	}
	check := func(bearer, want string) {
		t.Helper()
		id, err := c.CheckToken(t.Context(), auth.Token{Bearer: bearer, Remote: remote})
		if got := result(id, err); got != want {
			t.Errorf("%s: %s, %v", bearer, got, err)
		}
	}
	check("1-eve", "one")
	check("2-ann", "users") // who then acts by the rules of that backend
	check("2-eve", "unknown")
	check("3-ann", "rejected")
	var r *auth.TokenRefusal
	if _, err := c.CheckToken(t.Context(), auth.Token{}); !errors.As(err, &r) || r.Scope != "1-" {
		t.Errorf("what the client is to be told: %v", err)
	}
	one.err = errDown
	check("2-ann", "users")
	check("3-ann", "fault")
	check("1-eve", "fault")
	if _, err := New(nil, Backend{Users: users}).CheckToken(t.Context(), auth.Token{}); err == nil || errors.Is(err, auth.ErrRejected) {
		t.Errorf("%v", err)
	}
}

// As long as nothing is new it is the same list: pop3server looks at where it lies.
func TestLives(t *testing.T) {
	a, b := []auth.Life{{Retention: time.Hour}, {}}, []auth.Life{{Deletion: "keep"}}
	one, two := &keeper{fake: newFake(), lives: a}, &keeper{fake: newFake()}
	if got := New(nil, Backend{Users: one}, Backend{Users: two}).Lives(); &got[0] != &a[0] {
		t.Errorf("%v", got)
	}
	if got := New(nil, Backend{Users: newFake()}).Lives(); got != nil {
		t.Errorf("%v", got)
	}
	two.lives = b
	c := New(nil, Backend{Users: one}, Backend{Users: two}, Backend{Users: newFake()})
	got := c.Lives()
	if want := fmt.Sprint(append(append(append([]auth.Life{}, a...), b...), auth.Life{})); fmt.Sprint(got) != want {
		t.Errorf("%v, want %s", got, want)
	}
	if again := c.Lives(); &again[0] != &got[0] {
		t.Error("another list")
	}
	two.lives = []auth.Life{{Deletion: "keep"}}
	if again := c.Lives(); &again[0] == &got[0] {
		t.Error("the same list, though one is new")
	}
}
