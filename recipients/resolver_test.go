package recipients

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"

	"dewey/auth"
	"dewey/maildrop"
)

var errBackend = errors.New("the users can't be read")

// people are users by name. They are found as at login: exactly, then in ASCII lower case.
type people struct {
	names  []string
	faulty string
}

func (p people) Recipient(_ context.Context, user string) (auth.Identity, error) {
	if user == p.faulty || lower(user) == p.faulty {
		return auth.Identity{}, errBackend
	}
	for _, form := range []string{user, lower(user)} {
		for _, name := range p.names {
			if name == form {
				return auth.Identity{User: name, Home: "/home/" + name, Quota: auth.Quota{Octets: int64(len(name)), Messages: -1}}, nil
			}
		}
	}
	return auth.Identity{}, fmt.Errorf("people: %w", auth.ErrRejected)
}

var town = people{
	names: []string{
		"mrose", "bob@example.org", "Ann@example.org", "mrose@example.com", "a b", "x+y", "tim@Example.NET", "müller",
		"hans@bücher.example", "archive", "a..b", "pam@[192.0.2.1]", "e@f@example.org",
	},
	faulty: "broken@example.org",
}

func write(t testing.TB, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// resolver is one for the town; log may be nil.
func resolver(t testing.TB, rules Rules, aliases string, log *bytes.Buffer) *Resolver {
	t.Helper()
	path := filepath.Join(t.TempDir(), "aliases")
	write(t, path, aliases)
	var logger *slog.Logger
	if log != nil {
		logger = slog.New(slog.NewTextHandler(log, nil))
	}
	r, err := New(town, rules, path, logger)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// resolve returns the owners' names, "unknown" or "fault".
func resolve(t testing.TB, r *Resolver, address string) string {
	t.Helper()
	owners, err := r.Resolve(t.Context(), address)
	switch {
	case errors.Is(err, ErrUnknown):
		return "unknown"
	case err != nil:
		return "fault"
	case len(owners) == 0:
		return "nobody, and no error"
	}
	names := make([]string, len(owners))
	for i, o := range owners {
		if names[i] = o.Name; o.Home != "/home/"+o.Name {
			t.Errorf("%s: home %q", o.Name, o.Home)
		}
	}
	return strings.Join(names, " ")
}

func expect(t *testing.T, r *Resolver, want map[string]string) {
	t.Helper()
	for address, owners := range want {
		if got := resolve(t, r, address); got != owners {
			t.Errorf("%q: %q, not %q", address, got, owners)
		}
	}
}

var ours = []string{"example.org", "example.com", "example.net", "bücher.example", "[192.0.2.1]"}

// RFC 5321 sections 4.1.2, 4.5.1 and 2.4: spellings of an address, and what is none.
func TestResolveUsers(t *testing.T) {
	r := resolver(t, Rules{Delimiter: "+", Domains: ours}, "", nil)
	expect(t, r, map[string]string{
		"mrose@example.org": "mrose", "MRose@EXAMPLE.ORG": "mrose", `"mrose"@example.org`: "mrose", `"m\rose"@example.org`: "mrose",
		"mrose@example.com": "mrose@example.com", "mrose@Example.Com": "mrose@example.com", "mrose": "mrose", "MROSE": "mrose",
		"bob@example.org": "bob@example.org", "Bob@Example.Org": "bob@example.org", "bob": "unknown", "bob@example.com": "unknown",
		"Ann@example.org": "Ann@example.org", "ann@example.org": "unknown", // as at login
		`"a b"@example.org`: "a b", `"a\ b"@example.org`: "a b", `"a b"`: "a b", "a b@example.org": "unknown", `a\ b@example.org`: "unknown",
		"tim@Example.NET":        "tim@Example.NET", // spelt so in the users file
		"mrose+news@example.org": "mrose", "bob+a+b@example.org": "bob@example.org", "x+y@example.org": "x+y", "+mrose@example.org": "unknown", "mrose+@example.org": "mrose",
		"mrose+news": "mrose", `"mrose+a b"@example.org`: "mrose",
		"müller@example.org": "müller", "MÜLLER@example.org": "unknown",
		"hans@bücher.example": "hans@bücher.example", "hans@xn--bcher-kva.example": "unknown",
		"a..b@example.org": "a..b", "pam@[192.0.2.1]": "pam@[192.0.2.1]", "pam@[192.0.2.2]": "unknown",
		"@relay.example,@b.example:mrose@example.org": "mrose", "@relay.example:mrose": "mrose",
		"mrose@example.edu": "unknown", "mrose@sub.example.org": "unknown", "mrose@example.org.": "unknown",
		"broken@example.org": "fault", "Broken@example.org": "fault", "broken+x@example.org": "fault",
		"postmaster": "unknown", "": "unknown", "@": "unknown", "@example.org": "unknown", "mrose@": "unknown", `""@example.org`: "unknown",
		"<mrose@example.org>": "unknown", "mrose@example.org ": "unknown", " mrose@example.org": "unknown", "mrose@example..org": "unknown",
		"mrose@-example.org": "unknown", "mrose@example.org\x00": "unknown", "mrose\n@example.org": "unknown", "m\xffrose@example.org": "unknown",
		`"mrose@example.org`: "unknown", `"mrose\`: "unknown", `"mrose"x@example.org`: "unknown", "e@f@example.org": "unknown", `"e@f"@example.org`: "e@f@example.org",
		"@a:@b:mrose": "unknown", "mrose@[": "unknown", "mrose@[]": "unknown", "mrose@exa mple.org": "unknown",
		strings.Repeat("x", 2000) + "@example.org": "unknown", "mrose@" + strings.Repeat("x", 300): "unknown",
	})
}

func TestResolveOrder(t *testing.T) {
	for _, test := range []struct {
		rules Rules
		want  map[string]string
	}{
		{Rules{Delimiter: "+"}, map[string]string{"mrose@example.edu": "mrose", "mrose@example.com": "mrose@example.com", "mrose+x@example.com": "mrose@example.com"}},
		{Rules{Order: []string{"local", "exact"}, Delimiter: "+"}, map[string]string{"mrose@example.com": "mrose", "mrose+x@example.com": "unknown", "bob@example.org": "bob@example.org"}},
		{Rules{Order: []string{"exact"}}, map[string]string{"mrose@example.org": "unknown", "mrose@example.com": "mrose@example.com", "mrose": "mrose", "mrose+x": "unknown"}},
		{Rules{Order: []string{"local"}}, map[string]string{"mrose@example.com": "mrose", "bob@example.org": "unknown"}},
		{Rules{Order: []string{"detail", "local"}, Delimiter: "+"}, map[string]string{"x+y@example.org": "x+y", "mrose+y@example.org": "mrose"}},
		{Rules{Delimiter: "-+"}, map[string]string{"mrose-x+y@example.org": "mrose", "mrose+x-y@example.org": "mrose"}},
		{Rules{}, map[string]string{"mrose+x@example.org": "unknown"}},
	} {
		r, err := New(town, test.rules, "", nil)
		if err != nil {
			t.Fatal(err)
		}
		expect(t, r, test.want)
		if err := r.Reload(); err != nil {
			t.Error(err)
		}
	}
	for _, order := range [][]string{{}, {"detail"}, {"exact", "exact"}, {"Exact"}, {""}} {
		if _, err := New(town, Rules{Order: order}, "", nil); err == nil {
			t.Errorf("%q was taken", order)
		}
	}
}

const streets = `# who gets what
Postmaster: mrose
info@example.org: mrose, bob@example.org,
	"a b"
# between
	, mrose@example.org # twice the same user
mrose: mrose, archive
bob@example.org: \bob@example.org, archive
all@example.org: info@example.org, x+y, mrose+list@example.org
x+y@example.org: archive
sales: gone@example.org, mrose
@example.org: Ann@example.org
@example.net: sales
team@example.com: mrose@example.com
weak@example.org: broken@example.org
`

// An alias of the address beats a user, a user beats a catch-all; each owner comes out once.
func TestResolveAliases(t *testing.T) {
	var log bytes.Buffer
	r := resolver(t, Rules{Delimiter: "+", Domains: ours}, streets, &log)
	if n := strings.Count(log.String(), "gone@example.org"); n != 1 || strings.Count(log.String(), "ERROR") != 1 || !strings.Contains(log.String(), "aliases:11: ") {
		t.Errorf("what is nobody's is told at once, and once: %s", &log)
	}
	expect(t, r, map[string]string{
		"postmaster": "mrose archive", "POSTMASTER@example.com": "mrose archive", "postmaster@example.edu": "unknown",
		"info@example.org": "mrose archive bob@example.org a b", "INFO+x@example.org": "mrose archive bob@example.org a b", "info@example.com": "unknown",
		"mrose@example.org": "mrose archive", "mrose@example.com": "mrose@example.com", "mrose": "mrose archive", "mrose+x": "mrose archive",
		"bob@example.org": "bob@example.org archive", "all@example.org": "mrose archive bob@example.org a b x+y",
		"x+y@example.org": "archive", "x+y@example.com": "x+y",
		"nobody@example.org": "Ann@example.org", "nobody@example.com": "unknown", "nobody": "unknown",
		"sales@example.com": "fault", "sales": "fault", "nobody@example.net": "fault", "team@example.com": "mrose@example.com",
		"broken@example.org": "fault", "weak@example.org": "fault", // never into the catch-all
	})
	if n := strings.Count(log.String(), "gone@example.org"); n != 1 {
		t.Errorf("told %d times", n)
	}
	r = resolver(t, Rules{Order: []string{"exact"}}, "postmaster: bob@example.org\n*: mrose", nil)
	expect(t, r, map[string]string{
		"postmaster@example.org": "bob@example.org", "postmaster": "bob@example.org", "any@where.example": "mrose", "any": "mrose",
		"bob@example.org": "bob@example.org", "any\x00": "unknown", "broken@example.org": "fault",
	})
}

// A changed file is seen; one with errors, or none at all, leaves what was, and is told once.
func TestAliasesChange(t *testing.T) {
	var log bytes.Buffer
	r := resolver(t, Rules{Domains: []string{"example.org"}}, "info: mrose\n", &log)
	expect(t, r, map[string]string{"info": "mrose", "help": "unknown"})
	write(t, r.path, "help: mrose\n")
	expect(t, r, map[string]string{"info": "unknown", "help": "mrose"})

	write(t, r.path, "help: |program\ninfo: /file\n")
	for range 3 {
		expect(t, r, map[string]string{"help": "mrose", "info": "unknown"})
	}
	if n := strings.Count(log.String(), "aliases stay as they were"); n != 2 || !strings.Contains(log.String(), "aliases:1: a command") || !strings.Contains(log.String(), "aliases:2: a file") {
		t.Errorf("%s", &log)
	}
	if err := r.Reload(); err == nil || strings.Count(err.Error(), "\n") != 1 {
		t.Errorf("Reload: %v", err)
	}
	log.Reset()
	if err := os.Remove(r.path); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		expect(t, r, map[string]string{"help": "mrose"})
	}
	if n := strings.Count(log.String(), "no such file"); n != 1 {
		t.Errorf("%s", &log)
	}
	write(t, r.path, "info: mrose@example.org\n")
	expect(t, r, map[string]string{"info": "mrose", "help": "unknown"})

	// Rules that the file does not fit change nothing.
	if err := r.Reconfigure(Rules{Domains: []string{"example.com"}}); err == nil || !strings.Contains(err.Error(), "aliases:1: the domain of") {
		t.Errorf("%v", err)
	}
	if err := r.Reconfigure(Rules{Order: []string{"x"}}); err == nil {
		t.Error("a wrong rule was taken")
	}
	expect(t, r, map[string]string{"info@example.org": "mrose"})
	if err := r.Reconfigure(Rules{Domains: []string{"example.com", "example.org"}, Delimiter: "+"}); err != nil {
		t.Error(err)
	}
	expect(t, r, map[string]string{"info+x@example.com": "mrose"})
	if _, err := New(town, Rules{}, filepath.Join(t.TempDir(), "none"), nil); err == nil {
		t.Error("a file that is not there was taken")
	}
	if _, err := New(town, Rules{}, t.TempDir(), nil); err == nil || !strings.Contains(err.Error(), "not a regular file") {
		t.Errorf("%v", err)
	}
}

// A change within the same tick of the clock is seen too, and an old file is not read again.
func TestRacyChangeIsSeen(t *testing.T) {
	r := resolver(t, Rules{}, "info: mrose\n", nil)
	if !r.state.Load().racy {
		t.Error("a young file is not looked at again")
	}
	r.now = func() time.Time { return time.Now().Add(time.Hour) }
	expect(t, r, map[string]string{"info": "mrose"})
	st := r.state.Load()
	expect(t, r, map[string]string{"info": "mrose"})
	if st.racy || r.state.Load() != st {
		t.Error("an old file was read again")
	}
}

func TestReloadUnderLoad(t *testing.T) {
	r := resolver(t, Rules{Delimiter: "+"}, "info: mrose\n", nil)
	stop := make(chan struct{})
	var all sync.WaitGroup
	for range 4 {
		all.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				if got := resolve(t, r, "info+x@example.org"); got != "mrose" && got != "archive" {
					t.Errorf("%q", got)
				}
			}
		})
	}
	for i := range 60 {
		switch i % 4 {
		case 0:
			write(t, r.path+".new", "info: archive\n")
			if err := os.Rename(r.path+".new", r.path); err != nil {
				t.Error(err)
			}
		case 1:
			if err := r.Reload(); err != nil {
				t.Error(err)
			}
		case 2:
			if err := r.Reconfigure(Rules{Delimiter: "+", Domains: []string{"example.org"}}); err != nil {
				t.Error(err)
			}
		case 3:
			write(t, r.path+".new", "info: |x\n")
			if err := os.Rename(r.path+".new", r.path); err != nil {
				t.Error(err)
			}
		}
		time.Sleep(time.Millisecond)
	}
	close(stop)
	all.Wait()
}

func BenchmarkResolve(b *testing.B) {
	r := resolver(b, Rules{Delimiter: "+", Domains: ours}, streets, nil)
	r.now = func() time.Time { return time.Now().Add(time.Hour) }
	for b.Loop() {
		if _, err := r.Resolve(b.Context(), "bob+x@example.org"); err != nil {
			b.Fatal(err)
		}
	}
}

// The store learns what the users file says of a quota.
func TestOwnersHaveTheirQuota(t *testing.T) {
	owners, err := resolver(t, Rules{}, "info: mrose\n", nil).Resolve(t.Context(), "info@example.org")
	want := maildrop.Owner{Name: "mrose", Home: "/home/mrose", Quota: maildrop.Quota{Octets: 5, Messages: maildrop.NoQuota}}
	if err != nil || len(owners) != 1 || !reflect.DeepEqual(owners[0], want) {
		t.Errorf("%+v, %v; want %+v", owners, err, want)
	}
}
