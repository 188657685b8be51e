package ldap_test

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"dewey/auth"
	"dewey/auth/ldap"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var (
	_ auth.PasswordChecker = (*ldap.Backend)(nil)
	_ auth.Recipients      = (*ldap.Backend)(nil)
)

func open(t *testing.T, c ldap.Config) *ldap.Backend {
	t.Helper()
	b, err := ldap.New(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := b.Close(); err != nil {
			t.Error(err)
		}
	})
	return b
}

func login(b *ldap.Backend, user, password string) (auth.Identity, error) {
	return b.CheckPassword(context.Background(), auth.Attempt{User: user, Password: password, Remote: netip.MustParseAddr("192.0.2.1")})
}

// What an error is to those who ask.
const (
	fine     = "fine"
	refused  = "rejected"
	stranger = "unknown"
	unclear  = "can't tell"
)

func outcome(err error) string {
	switch {
	case err == nil:
		return fine
	case errors.Is(err, auth.ErrUnknownUser):
		return stranger
	case errors.Is(err, auth.ErrRejected):
		return refused
	}
	return unclear
}

// check compares an outcome, and looks at the error's text: it says whose it is, and has no password in it.
func check(t *testing.T, what string, err error, want string) {
	t.Helper()
	if got := outcome(err); got != want {
		t.Errorf("%s: %s (%v), want %s", what, got, err, want)
	}
	if err != nil && (!strings.HasPrefix(err.Error(), "ldap: ") || strings.Contains(err.Error(), "secret") || strings.Contains(err.Error(), servicePassword)) {
		t.Errorf("%s: the error reads %q", what, err)
	}
}

func TestLogin(t *testing.T) {
	d := start(t)
	bob := auth.Identity{User: "Bob", Home: "/srv/mail/bob", Quota: auth.Quota{Octets: 2 << 30, Messages: 1000}}
	modes := map[string]ldap.Config{ldap.ModeBind: d.config(), ldap.ModeLookup: d.config()}
	c := modes[ldap.ModeLookup]
	c.Mode, c.Weak, c.DefaultScheme = ldap.ModeLookup, true, "PLAIN"
	modes[ldap.ModeLookup] = c

	for mode, c := range modes {
		t.Run(mode, func(t *testing.T) {
			b := open(t, c)
			for _, try := range []struct {
				user, password, want string
				id                   auth.Identity
			}{
				{"bob", "secret of bob", fine, bob},
				{"BOB", "secret of bob", fine, bob},
				{"bob", "secret of alice", refused, auth.Identity{}},
				{"bob", "", refused, auth.Identity{}},
				{"bob", "secret of bob\x00", refused, auth.Identity{}},
				{"bob", strings.Repeat("x", 100_000), refused, auth.Identity{}},
				{"alice", "secret of alice", fine, auth.Identity{User: "alice", Quota: auth.Quota{Octets: -1, Messages: -1}}},
				{"carol", "secret of carol", fine, auth.Identity{User: "carol", Quota: auth.Quota{Octets: 5000}}},
				{"dave", "clear of dave", fine, auth.Identity{User: "dave"}},
				{"erin", "secret of erin", fine, auth.Identity{User: "erin"}},
				{"erin", "secret of erik", refused, auth.Identity{}},
				{"frank", "one of frank", fine, auth.Identity{User: "frank"}},
				{"frank", "other of frank", fine, auth.Identity{User: "frank"}},
				{"frank", "none of frank", refused, auth.Identity{}},

				{"nobody", "secret", stranger, auth.Identity{}},
				{"", "secret", stranger, auth.Identity{}},
				{"bob\x00", "secret of bob", stranger, auth.Identity{}},
				{"bob\n", "secret of bob", stranger, auth.Identity{}},
				{"b\xf6b", "secret of bob", stranger, auth.Identity{}},
				{strings.Repeat("b", 256), "secret of bob", stranger, auth.Identity{}},

				{"twin", "secret", unclear, auth.Identity{}},
				{"triplet", "secret", unclear, auth.Identity{}},
				{"nohome", "secret", unclear, auth.Identity{}},
				{"relative", "secret", unclear, auth.Identity{}},
				{"homes", "secret", unclear, auth.Identity{}},
				{"noquota", "secret", unclear, auth.Identity{}},
				{"logins", "secret", unclear, auth.Identity{}},
				{"nologin", "secret", unclear, auth.Identity{}},
				{"nologin", "wrong", refused, auth.Identity{}},
			} {
				id, err := login(b, try.user, try.password)
				check(t, fmt.Sprintf("%.20q with %.20q", try.user, try.password), err, try.want)
				if !sameIdentity(id, try.id) {
					t.Errorf("%q: %+v", try.user, id)
				}
			}
			for _, name := range hostile {
				_, err := login(b, name, "secret")
				check(t, name, err, stranger)
			}
		})
	}
	t.Run("who has no password that can be read", func(t *testing.T) {
		b, l := open(t, modes[ldap.ModeBind]), open(t, modes[ldap.ModeLookup])
		for _, try := range []struct {
			b          *ldap.Backend
			user, want string
		}{
			{b, "ghost", refused},
			{l, "ghost", unclear},
			{l, "des", unclear},
			{b, "locked", refused}, // the policy's; a lookup does not see it
		} {
			_, err := login(try.b, try.user, "secret of locked")
			check(t, try.user, err, try.want)
		}
		strong := modes[ldap.ModeLookup]
		strong.Weak = false
		_, err := login(open(t, strong), "bob", "secret of bob")
		check(t, "a weak hash", err, unclear)
	})
	t.Run("the policy locks who fails often", func(t *testing.T) {
		b := open(t, modes[ldap.ModeBind])
		for range 4 {
			_, err := login(b, "mallory", "wrong")
			check(t, "wrong", err, refused)
		}
		_, err := login(b, "mallory", "secret of mallory")
		check(t, "right, but locked", err, refused)
	})
}

func sameIdentity(a, b auth.Identity) bool {
	return a.User == b.User && a.Home == b.Home && a.Quota == b.Quota
}

// Names that mean something elsewhere are names here: each finds its own entry, and only that.
func TestHostileNames(t *testing.T) {
	d := start(t)
	search := d.config()
	search.Base = "ou=own,dc=example,dc=org"
	template := d.config()
	template.Base, template.Filter, template.DN = "", "", "uid={user},ou=own,dc=example,dc=org"
	himself := template
	himself.BindDN, himself.BindPassword = "", ""
	for how, c := range map[string]ldap.Config{"search": search, "template": template, "himself": himself} {
		b := open(t, c)
		for _, name := range hostile {
			id, err := login(b, name, "secret")
			if check(t, how+" "+name, err, fine); id.User != name {
				t.Errorf("%s: %q is %q", how, name, id.User)
			}
			_, err = login(b, name, "wrong")
			check(t, how+" "+name+" with a wrong password", err, refused)
		}
	}
}

func TestTemplate(t *testing.T) {
	d := start(t)
	c := d.config()
	c.Base, c.Filter, c.DN = "", "", "uid={user},ou=own,dc=example,dc=org"
	b := open(t, c)
	alone := c
	alone.BindDN, alone.BindPassword = "", ""
	himself := open(t, alone)
	lost := c
	lost.DN = "uid={user},ou=nowhere,dc=example,dc=com"
	nowhere := open(t, lost)
	parts := alone
	parts.DN, parts.UserAttribute, parts.HomeAttribute, parts.QuotaAttribute, parts.QuotaMessagesAttribute = "uid={local},ou={domain},dc=example,dc=org", "", "", "", ""
	own := open(t, parts)
	for _, try := range []struct {
		b                    *ldap.Backend
		user, password, want string
	}{
		{b, "olga", "secret of olga", fine},
		{b, "olga", "wrong", refused},
		{b, "nobody", "secret", stranger},
		{himself, "olga", "secret of olga", fine},
		{himself, "olga", "wrong", refused},
		{himself, "nobody", "secret", refused}, // 49: nobody may look whether there is one
		{nowhere, "olga", "secret of olga", unclear},
		{own, "Olga@own", "secret of olga", fine},
		{own, "olga", "secret of olga", stranger}, // no domain
		{own, "olga@elsewhere", "secret of olga", refused},
		{own, "ol ga@own", "secret of olga", stranger}, // might be olga to a directory
	} {
		id, err := login(try.b, try.user, try.password)
		check(t, try.user+" "+try.password, err, try.want)
		if err == nil && try.b == own && id.User != "olga@own" || err == nil && try.b != own && (id.User != "olga" || id.Home != "/srv/mail/olga") {
			t.Errorf("%+v", id)
		}
	}
	for user, want := range map[string]string{"olga": fine, "nobody": stranger} {
		_, err := b.Recipient(t.Context(), user)
		check(t, "recipient "+user, err, want)
		_, err = b.Find(t.Context(), user, netip.Addr{})
		check(t, "find "+user, err, want)
	}
	_, err := himself.Recipient(t.Context(), "olga")
	check(t, "who may not look", err, unclear)
}

func TestGroup(t *testing.T) {
	d := start(t)
	c := d.config()
	c.GroupBase = "ou=groups,dc=example,dc=org"
	lookup, absent := c, c
	lookup.Mode, lookup.Weak = ldap.ModeLookup, true
	absent.GroupBase = "ou=nogroups,dc=example,dc=org"
	himself := ldap.Config{
		URLs: c.URLs, DN: "uid={user},ou=own,dc=example,dc=org",
		GroupBase: "ou=own,dc=example,dc=org", GroupFilter: "(&(objectClass=person)(uid={user})(mailHome=*))",
	}
	for _, try := range []struct {
		how                  string
		c                    ldap.Config
		user, password, want string
	}{
		{"bind", c, "bob", "secret of bob", fine},
		{"bind", c, "bob", "wrong", refused},
		{"bind", c, "carol", "secret of carol", refused},
		{"lookup", lookup, "bob", "secret of bob", fine},
		{"lookup", lookup, "carol", "secret of carol", refused},
		{"no groups", absent, "bob", "secret of bob", unclear},
		{"himself", himself, "olga", "secret of olga", fine},
		{"himself", himself, "a*b", "secret", refused}, // he has no mailHome
	} {
		_, err := login(open(t, try.c), try.user, try.password)
		check(t, try.how+" "+try.user, err, try.want)
	}
	b := open(t, c)
	_, err := b.Find(t.Context(), "carol", netip.Addr{})
	check(t, "who is proven elsewhere needs the group", err, refused)
	_, err = b.Find(t.Context(), "bob", netip.Addr{})
	check(t, "who is in it", err, fine)
	_, err = b.Recipient(t.Context(), "carol")
	check(t, "mail does not need it", err, fine)
}

func TestRecipient(t *testing.T) {
	d := start(t)
	c := d.config()
	c.RecipientFilter = "(|(mail={user})(&(uid={local})(!(mail=*))))"
	b := open(t, c)
	for user, want := range map[string]string{
		"bob@example.org": "Bob", "BOB@EXAMPLE.ORG": "Bob", "carol@example.org": "carol", "ghost@example.org": "ghost", "locked@x": "locked",
		"bob@example.com": "", "*@example.org": "", "@": "", "": "", "nobody": "",
	} {
		id, err := b.Recipient(t.Context(), user)
		if want == "" {
			check(t, user, err, stranger)
		} else if check(t, user, err, fine); id.User != want {
			t.Errorf("%s: %+v", user, id)
		}
	}
	_, err := b.Recipient(t.Context(), "twin")
	check(t, "twin", err, unclear)
}

// Without an attribute for it, the name is what was asked for, in small letters, and none that a directory takes for another.
func TestName(t *testing.T) {
	d := start(t)
	c := d.config()
	c.UserAttribute = ""
	b := open(t, c)
	for user, want := range map[string]string{"bob": "bob", "BoB": "bob", " bob": "", "bob ": "", "\uff42ob": "", "bo\u00adb": ""} {
		id, err := login(b, user, "secret of bob")
		if want == "" {
			check(t, user, err, stranger)
		} else if check(t, user, err, fine); id.User != want {
			t.Errorf("%q: %q", user, id.User)
		}
	}
	// With one, they are all one user.
	for _, user := range []string{" bob", "bob ", "\uff42ob"} {
		if id, err := login(open(t, d.config()), user, "secret of bob"); err != nil || id.User != "Bob" {
			t.Errorf("%q: %+v, %v", user, id, err)
		}
	}
}

func TestTransport(t *testing.T) {
	d := start(t)
	other, _, _ := certificates(t, "127.0.0.1")
	plain, secure := d.url(), fmt.Sprintf("ldaps://127.0.0.1:%d", d.tlsPort)
	for _, try := range []struct {
		what, url string
		startTLS  bool
		ca        []byte
		want      string
		says      string
	}{
		{"plain", plain, false, nil, fine, ""},
		{"STARTTLS", plain, true, d.ca, fine, ""},
		{"LDAPS", secure, false, d.ca, fine, ""},
		{"socket", "ldapi://" + strings.ReplaceAll(d.socket, "/", "%2f"), false, nil, fine, ""},
		{"socket as a path", "ldapi://" + d.socket, false, nil, fine, ""},
		{"STARTTLS, another authority", plain, true, other, unclear, "ca_file"},
		{"LDAPS, another authority", secure, false, other, unclear, "ca_file"},
		{"STARTTLS, the system's authorities", plain, true, nil, unclear, "ca_file"},
		{"LDAPS, another name", strings.Replace(secure, "127.0.0.1", "localhost", 1), false, d.ca, unclear, "a URL with a name"},
		{"STARTTLS, another name", strings.Replace(plain, "127.0.0.1", "localhost", 1), true, d.ca, unclear, "a URL with a name"},
		{"LDAPS to the port of LDAP", strings.Replace(plain, "ldap:", "ldaps:", 1), false, d.ca, unclear, "TLS"},
		{"LDAP to the port of LDAPS", strings.Replace(secure, "ldaps:", "ldap:", 1), false, nil, unclear, ""},
		{"no socket", "ldapi://" + d.socket + "x", false, nil, unclear, "no such file"},
	} {
		c := d.config()
		c.URLs, c.StartTLS, c.CA, c.Timeout = []string{try.url}, try.startTLS, try.ca, 2*time.Second
		b := open(t, c)
		_, err := login(b, "bob", "secret of bob")
		check(t, try.what, err, try.want)
		if err != nil && !strings.Contains(err.Error(), try.says) {
			t.Errorf("%s: %v", try.what, err)
		}
		_, err = b.Recipient(t.Context(), "bob")
		check(t, try.what+", right after that", err, try.want)
	}
}

// A directory that is set up otherwise than the configuration says can't tell, and says why.
func TestMisconfigured(t *testing.T) {
	d := start(t)
	for what, change := range map[string]func(*ldap.Config){
		"the service's password": func(c *ldap.Config) { c.BindPassword = "an old one" },
		"the service's name":     func(c *ldap.Config) { c.BindDN = "cn=other,dc=example,dc=org" },
		"the base":               func(c *ldap.Config) { c.Base = "ou=nobody,dc=example,dc=org" },
		"another suffix":         func(c *ldap.Config) { c.Base = "dc=example,dc=com" },
		"nobody may search":      func(c *ldap.Config) { c.BindDN, c.BindPassword = "", "" },
		"a service that sees no hashes": func(c *ldap.Config) {
			c.BindDN, c.BindPassword, c.Mode, c.Weak = "uid=olga,ou=own,dc=example,dc=org", "secret of olga", ldap.ModeLookup, true
		},
	} {
		c := d.config()
		change(&c)
		b := open(t, c)
		_, err := login(b, "bob", "secret of bob")
		check(t, what, err, unclear)
		_, err = b.Recipient(t.Context(), "bob")
		check(t, what+", mail", err, unclear)
	}
}

// An unknown user costs a hash, and so does one who is locked, as a known one does.
func TestTrap42Lookup(t *testing.T) {
	d := start(t)
	c := d.config()
	c.Mode, c.Weak = ldap.ModeLookup, true
	b := open(t, c)
	fastest := func(user, want string) time.Duration {
		best := time.Hour
		for range 5 {
			began := time.Now()
			_, err := login(b, user, "wrong")
			best = min(best, time.Since(began))
			check(t, user, err, want)
		}
		return best
	}
	// The first costs as much as the default scheme, later ones what was seen last.
	first, slow := fastest("nobody", stranger), fastest("erin", refused)
	second, shut := fastest("nobody", stranger), fastest("shut", refused)
	if first < slow/10 || second < slow/10 || shut < slow/10 {
		t.Errorf("unknown: %v, later %v; locked: %v; known: %v", first, second, shut, slow)
	}
	if quick, third := fastest("bob", refused), fastest("nobody", stranger); third > slow/2 {
		t.Errorf("where hashes are fast, unknown: %v; known: %v", third, quick)
	}
}
