package passwdfile

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"reflect"
	"strings"
	"testing"
	"time"

	"dewey/auth"
	"dewey/auth/scheme"
)

var (
	home = netip.MustParseAddr("192.0.2.1")
	away = netip.MustParseAddr("198.51.100.7")
	key  = bytes.Repeat([]byte{7}, 32)
)

func openWith(t testing.TB, text string, opts Options) *File {
	t.Helper()
	f, err := Open(users(t, text), opts)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// field makes a password field.
func field(t testing.TB, name, password string) string {
	t.Helper()
	text, err := scheme.All.Make(name, password)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// secret returns what there is for a mechanism, and whether it is real.
func secret(t testing.TB, f *File, user, mechanism string) (auth.Secret, bool) {
	t.Helper()
	s, err := f.Secret(t.Context(), user, mechanism, home)
	if err != nil && !errors.Is(err, auth.ErrRejected) {
		t.Fatalf("%s for %s: %v", user, mechanism, err)
	}
	if reflect.DeepEqual(s.Identity, auth.Identity{}) == (err == nil) {
		t.Errorf("%s for %s: %+v with %v", user, mechanism, s.Identity, err)
	}
	return s, err == nil
}

// Whom each mechanism serves. A SCRAM secret is right if its ServerKey comes out again from the password.
func TestSecret(t *testing.T) {
	scram1, scram256 := field(t, "SCRAM-SHA-1", "tanstaaf"), field(t, "SCRAM-SHA-256", "tanstaaf")
	f := openWith(t, "plain:{PLAIN}tanstaaf::::/srv/plain\nscram1:"+scram1+"\nscram256:"+scram256+"\ncram:"+field(t, "CRAM-MD5", "tanstaaf")+
		"\nargon:"+argon8+"\nlocked:!{PLAIN}tanstaaf\nempty:\nnologin:{PLAIN}tanstaaf::::::nologin\n"+
		"near:{PLAIN}tanstaaf::::::allow_nets=192.0.2.0/24\nfar:{PLAIN}tanstaaf::::::allow_nets=198.51.100.0/24\n"+
		"prepared:{PLAIN}tan\u00adstaaf\nforbidden:{PLAIN}tan\u0627staaf\nnul:{PLAIN.HEX}7461006e\n", Options{Weak: true})
	states, _ := func() ([32]byte, bool) { h, _ := scheme.All.Parse("{PLAIN}tanstaaf"); return h.CRAMMD5() }()
	for mechanism, serves := range map[string]string{
		auth.APOP:        "plain near prepared forbidden",
		auth.CRAMMD5:     "plain near prepared forbidden cram",
		auth.SCRAMSHA1:   "plain near prepared scram1",
		auth.SCRAMSHA256: "plain near prepared scram256",
	} {
		for user := range strings.FieldsSeq("plain PLAIN scram1 scram256 cram argon locked empty nologin near far prepared forbidden nul nobody") {
			s, real := secret(t, f, user, mechanism)
			if want := strings.Contains(" "+serves+" ", " "+strings.ToLower(user)+" "); real != want {
				t.Errorf("%s for %s: %v", user, mechanism, real)
			}
			var fits bool
			switch mechanism {
			case auth.APOP:
				fits = strings.HasPrefix(s.Password, "tan")
				if s.Password == "" {
					t.Errorf("%s for %s: no password", user, mechanism)
				}
			case auth.CRAMMD5:
				fits = s.CRAMMD5 == states || real && s.CRAMMD5 != [32]byte{} && strings.Contains("prepared forbidden", user)
			default:
				keys, err := scheme.Derive(mechanism, "tanstaaf", s.SCRAM.Salt, s.SCRAM.Iterations)
				fits = err == nil && bytes.Equal(keys.StoredKey, s.SCRAM.StoredKey) && bytes.Equal(keys.ServerKey, s.SCRAM.ServerKey)
				if len(s.SCRAM.Salt) != 16 || len(s.SCRAM.StoredKey) != len(keys.StoredKey) || len(s.SCRAM.ServerKey) != len(keys.ServerKey) {
					t.Errorf("%s for %s: %+v", user, mechanism, s.SCRAM)
				}
			}
			if fits != real {
				t.Errorf("%s for %s: the secret fits: %v", user, mechanism, fits)
			}
			if again, _ := secret(t, f, strings.ToUpper(user), mechanism); fmt.Sprint(again) != fmt.Sprint(s) {
				t.Errorf("%s for %s: another secret each time", user, mechanism)
			}
		}
	}
	s, _ := secret(t, f, "Plain", auth.APOP)
	if !reflect.DeepEqual(s.Identity, auth.Identity{User: "plain", Home: "/srv/plain"}) {
		t.Errorf("%+v", s.Identity)
	}
	if _, err := f.Secret(t.Context(), "plain", "PLAIN", home); err == nil || errors.Is(err, auth.ErrRejected) {
		t.Error(err)
	}
}

// Trap 42: the same name is shown the same after a restart and after changes of others, with the same
// key; nobody can compute it without. A name that is added or locked keeps its salt if it is of {PLAIN}.
func TestTrap42MadeUpSecretsAreStable(t *testing.T) {
	text := "argon:" + argon8 + "\n"
	for i := range 30 {
		text += fmt.Sprintf("plain%d:{PLAIN}x\n", i)
	}
	for i := range 10 {
		text += fmt.Sprintf("scram%d:{SCRAM-SHA-256}20000,QSXCR+Q6sek8bf92,%s=,%[2]s=\n", i, strings.Repeat("A", 43))
	}
	f, again := openWith(t, text, Options{Key: key}), openWith(t, text, Options{Key: bytes.Clone(key)})
	other, random := openWith(t, text, Options{Key: bytes.Repeat([]byte{8}, 32)}), openWith(t, text, Options{})
	more := openWith(t, text+"plain30:{PLAIN}y\n# b\nscram10:"+field(t, "SCRAM-SHA-256", "z")+"\n", Options{Key: key})
	count, moved := map[int]int{}, 0
	const n = 300
	for i := range n {
		name := "name" + itoa(i)
		s, real := secret(t, f, name, auth.SCRAMSHA256)
		if real {
			t.Fatal("a real secret")
		}
		count[s.SCRAM.Iterations]++
		if salt := map[int]int{4096: 16, 20000: 12}[s.SCRAM.Iterations]; len(s.SCRAM.Salt) != salt {
			t.Errorf("%d iterations with a salt of %d octets", s.SCRAM.Iterations, len(s.SCRAM.Salt))
		}
		for mechanism := range strings.FieldsSeq("APOP CRAM-MD5 SCRAM-SHA-1 SCRAM-SHA-256") {
			a, _ := secret(t, f, name, mechanism)
			b, _ := secret(t, again, name, mechanism)
			c, _ := secret(t, other, name, mechanism)
			d, _ := secret(t, random, name, mechanism)
			if fmt.Sprint(a) != fmt.Sprint(b) || fmt.Sprint(a) == fmt.Sprint(c) || fmt.Sprint(a) == fmt.Sprint(d) {
				t.Errorf("%s for %s: not stable, or known without the key", name, mechanism)
			}
			if i > 20 {
				break
			}
		}
		if after, _ := secret(t, more, name, auth.SCRAMSHA256); fmt.Sprint(after) != fmt.Sprint(s) {
			moved++
		}
	}
	if count[4096] < n*60/100 || count[20000] < n*15/100 || len(count) != 2 { // three quarters, one quarter
		t.Errorf("iterations of unknown names: %v", count)
	}
	if moved > n*6/100 { // one of 42 has a new shape, which has to take its share
		t.Errorf("two lines more changed %d of %d names", moved, n)
	}
	newcomers := strings.Fields("name1 name2 name3 name4 name5 name6 name7 name8 name9")
	added := openWith(t, text+strings.Join(newcomers, ":{PLAIN}y\n")+":{PLAIN}y\n", Options{Key: key})
	same := 0
	for _, name := range newcomers {
		before, _ := secret(t, f, name, auth.SCRAMSHA256)
		after, real := secret(t, added, name, auth.SCRAMSHA256)
		if real && bytes.Equal(after.SCRAM.Salt, before.SCRAM.Salt) {
			same++
		} else if !real || before.SCRAM.Iterations == after.SCRAM.Iterations {
			t.Errorf("%s: another salt now that the user is there", name)
		}
	}
	if same < 4 {
		t.Errorf("%d salts of 9 stayed", same)
	}
	if _, err := Open(users(t, text), Options{Key: key[:31]}); err == nil || !strings.Contains(err.Error(), "32 would be right") {
		t.Error(err)
	}
	none := openWith(t, "argon:"+argon8+"\n", Options{})
	if s, _ := secret(t, none, "nobody", auth.SCRAMSHA1); s.SCRAM.Iterations != scheme.SCRAMIterations || len(s.SCRAM.Salt) != 16 || len(s.SCRAM.StoredKey) != 20 {
		t.Errorf("without users to look like: %+v", s.SCRAM)
	}
}

// Trap 42: what a name costs says nothing of it. Known ones derive keys if they are of {PLAIN}; so do as
// many of the unknown ones, each always or never.
func TestTrap42SecretsCostTheSame(t *testing.T) {
	text := "nologin:{PLAIN}x::::::nologin\nlocked:!\n"
	for i := range 20 {
		text += fmt.Sprintf("plain%d:{PLAIN}x\nscram%d:%s\n", i, i, field(t, "SCRAM-SHA-256", "x"))
	}
	f := openWith(t, text, Options{Key: key})
	runs := 0
	f.ran = func(h scheme.Hash) {
		runs++
		if h.Threads != 1 {
			t.Errorf("it did not wait for a worker: %+v", h)
		}
	}
	cost := func(user, mechanism string) int {
		t.Helper()
		runs = 0
		s, _ := secret(t, f, user, mechanism)
		first := runs
		if secret(t, f, user, mechanism); runs != 2*first || first > 1 {
			t.Errorf("%s for %s: %d runs, then %d", user, mechanism, first, runs-first)
		}
		if (first == 1) != (s.SCRAM.Iterations == scheme.DerivedIterations) {
			t.Errorf("%s for %s: %d runs for %d iterations", user, mechanism, first, s.SCRAM.Iterations)
		}
		return first
	}
	if cost("plain1", auth.SCRAMSHA256) != 1 || cost("scram1", auth.SCRAMSHA256) != 0 {
		t.Error("known users cost something else")
	}
	derived := 0
	for i := range 200 {
		derived += cost("name"+itoa(i), auth.SCRAMSHA256)
	}
	if derived < 70 || derived > 130 {
		t.Errorf("of 200 unknown names %d derive keys", derived)
	}
	for _, user := range []string{"nologin", "locked", "scram1", "nobody"} { // all of SCRAM-SHA-1 are of {PLAIN}
		if cost(user, auth.SCRAMSHA1) != 1 {
			t.Errorf("%s derives no key", user)
		}
	}
	runs = 0
	for _, mechanism := range []string{auth.APOP, auth.CRAMMD5} {
		for _, user := range []string{"plain1", "scram1", "nobody", "locked"} {
			secret(t, f, user, mechanism)
		}
	}
	if runs != 0 {
		t.Errorf("%d runs for nothing", runs)
	}
}

// Users who come hardly change which hash an unknown name runs: who measures it before and after would know that
// there is no such user, since those that there are keep theirs.
func TestTrap42StrangersKeepTheirHash(t *testing.T) {
	text := ""
	for i := range 20 {
		text += fmt.Sprintf("argon%d:%s\nscram%d:%s\ncrypt%d:%s\n", i, field(t, "ARGON2ID", "x"), i, field(t, "SCRAM-SHA-256", "x"), i, bcrypt5)
	}
	before := openWith(t, text, Options{Key: key})
	after := openWith(t, "another:"+bcrypt5+"\n"+text+"one more:"+bcrypt5+"\n", Options{Key: key})
	changed := 0
	for i := range 500 {
		name := "stranger" + itoa(i)
		if before.stranger(before.state.Load().table, name).Cost() != after.stranger(after.state.Load().table, name).Cost() {
			changed++
		}
	}
	if changed > 25 {
		t.Errorf("%d of 500 names run another hash", changed)
	}
}

// A line with an error is a fault, as with CheckPassword; so is a context that ends in line.
func TestSecretFaults(t *testing.T) {
	path := users(t, "plain:{PLAIN}x\nbad:{PLAIN}x\n")
	f := open(t, path, nil)
	write(t, path, "plain:{PLAIN}x\nbad:{NOPE}x\nadmin:::::::login_as=*\nsome:::::::login_as=plain\n")
	for _, user := range []string{"bad", "Bad"} {
		for _, mechanism := range mechanisms {
			if s, err := f.Secret(t.Context(), user, mechanism, home); err == nil || errors.Is(err, auth.ErrRejected) || fmt.Sprint(s) != fmt.Sprint(auth.Secret{}) {
				t.Errorf("%s for %s: %v", user, mechanism, err)
			}
		}
		if _, err := f.Find(t.Context(), user, home); err == nil || errors.Is(err, auth.ErrRejected) {
			t.Errorf("Find %s: %v", user, err)
		}
		if _, err := f.Authorize(t.Context(), auth.Identity{User: "admin"}, user); err == nil || errors.Is(err, auth.ErrRejected) {
			t.Errorf("Authorize %s: %v", user, err)
		}
		if _, err := f.Authorize(t.Context(), auth.Identity{User: "some"}, user); !errors.Is(err, auth.ErrRejected) {
			t.Errorf("Authorize %s of one who may not: %v", user, err)
		}
	}
	if _, err := f.Authorize(t.Context(), auth.Identity{User: "bad"}, "plain"); err == nil || errors.Is(err, auth.ErrRejected) {
		t.Errorf("Authorize for bad: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := f.Secret(ctx, "plain", auth.SCRAMSHA256, home); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if _, err := f.Secret(t.Context(), "plain", auth.APOP, home); !errors.Is(err, errVanished) {
		t.Error(err)
	}
	if !f.Serves(auth.APOP) { // what is announced does not change for that: locked users do not count
		t.Error("it serves nobody")
	}
}

func TestServes(t *testing.T) {
	path := users(t, "")
	f, err := Open(path, Options{Weak: true})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ text, serves string }{
		{"", ""},
		{"a:{PLAIN}x\n", "APOP CRAM-MD5 SCRAM-SHA-1 SCRAM-SHA-256"},
		{"a:{PLAIN}x\nb:!{PLAIN}x\nc:\nd:" + argon8 + "::::::nologin\n", "APOP CRAM-MD5 SCRAM-SHA-1 SCRAM-SHA-256"},
		{"a:{PLAIN}x\nb:" + argon8 + "\n", ""},
		{"a:{PLAIN}x\nb:{CLEARTEXT.B64}eA==\nc:" + field(t, "CRAM-MD5", "x") + "\n", "CRAM-MD5"},
		{"a:{PLAIN}x\nc:" + field(t, "SCRAM-SHA-256", "x") + "\n", "SCRAM-SHA-256"},
		{"c:" + field(t, "SCRAM-SHA-1.B64", "x") + "::::::allow_nets=192.0.2.1\n", "SCRAM-SHA-1"},
		{"a:{PLAIN}\u0627x\n", "APOP CRAM-MD5"},
		{"a:!\n", ""},
		{"a:{PLAIN}x::::::nologin\n", ""},
	} {
		write(t, path, c.text)
		aged(f)
		for _, mechanism := range append(mechanisms[:], "PLAIN", "") {
			if want := mechanism != "" && strings.Contains(" "+c.serves+" ", " "+mechanism+" "); f.Serves(mechanism) != want {
				t.Errorf("%q: %s: %v", c.text, mechanism, !want)
			}
		}
	}
}

// A password that was found right is not hashed again, as long as nothing has changed.
func TestRemember(t *testing.T) {
	text := "crypt:" + bcrypt5 + "\nother:" + bcrypt5 + "\nfar:" + bcrypt5 + "::::::allow_nets=198.51.100.0/24\n"
	path := users(t, text)
	f, err := Open(path, Options{Remember: time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	runs := 0
	f.ran = func(scheme.Hash) { runs++ }
	try := func(user, password, want string, hashes int) {
		t.Helper()
		runs = 0
		expect(t, f, user, password, want)
		if runs != hashes {
			t.Errorf("%s with %q: %d hashes, not %d", user, password, runs, hashes)
		}
	}
	try("crypt", "a secret", "crypt ", 1)
	try("crypt", "a secret", "crypt ", 0)
	try("Crypt", "a secret", "crypt ", 0)
	try("other", "a secret", "other ", 1) // the same hash, but another user
	try("nobody", "a secret", "rejected", 1)
	try("crypt", "a secret", "crypt ", 0)
	try("crypt", "a Secret", "rejected", 1) // which ends it
	try("crypt", "a secret", "crypt ", 1)
	try("other", "a secret", "other ", 0)

	try("far", "a secret", "rejected", 1)
	try("far", "a secret", "rejected", 1) // the time tells nothing
	for want := 1; want >= 0; want-- {
		runs = 0
		if _, err := f.CheckPassword(t.Context(), auth.Attempt{User: "far", Password: "a secret", Remote: away}); err != nil || runs != want {
			t.Errorf("%d hashes, %v", runs, err)
		}
	}
	try("far", "a secret", "rejected", 1)

	write(t, path, text+"new:{PLAIN}x\n")
	try("crypt", "a secret", "crypt ", 1)
	try("crypt", "a secret", "crypt ", 0)
	write(t, path, strings.Replace(text, "\nother:"+bcrypt5, "::::::nologin\nother:{PLAIN}x", 1))
	try("crypt", "a secret", "rejected", 1)
	try("other", "a secret", "rejected", 1)
	write(t, path, strings.Replace(text, "crypt:", "crypt:!", 1))
	try("crypt", "a secret", "rejected", 1)
	write(t, path, strings.Replace(text, "crypt:", "crypt:{NOPE}", 1))
	try("crypt", "a secret", "fault", 0)
	write(t, path, text)
	try("crypt", "a secret", "crypt ", 1)

	off := openWith(t, text, Options{})
	off.ran = func(scheme.Hash) { runs++ }
	runs = 0
	expect(t, off, "crypt", "a secret", "crypt ")
	expect(t, off, "crypt", "a secret", "crypt ")
	if runs != 2 {
		t.Errorf("%d hashes", runs)
	}
}

func BenchmarkSecret(b *testing.B) {
	f := openWith(b, "plain:{PLAIN}tanstaaf\nother:{PLAIN}x\n", Options{})
	for _, mechanism := range mechanisms {
		for _, user := range []string{"plain", "nobody"} {
			b.Run(mechanism+"/"+user, func(b *testing.B) {
				for b.Loop() {
					_, _ = f.Secret(b.Context(), user, mechanism, home)
				}
			})
		}
	}
}

// aged has a second pass since the file was looked at last.
func aged(f *File) { f.looked.Store(int64(time.Since(f.opened) - time.Second)) }

// What is announced may be a second old, until somebody logs in.
func TestServesRecent(t *testing.T) {
	path := users(t, "a:{PLAIN}x\n")
	f := open(t, path, nil)
	_, _ = f.CheckPassword(t.Context(), auth.Attempt{User: "a", Password: "x"})
	f.looked.Store(int64(time.Hour)) // however long this test takes
	write(t, path, "a:!\n")
	if !f.Serves(auth.APOP) {
		t.Error("the file is looked at for each mechanism")
	}
	_, _ = f.CheckPassword(t.Context(), auth.Attempt{User: "a", Password: "x"})
	if f.Serves(auth.APOP) {
		t.Error("a login has looked, and what it saw is not announced")
	}
}
