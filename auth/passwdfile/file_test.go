package passwdfile

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"dewey/auth"
	"dewey/auth/scheme"
)

var itoa = strconv.Itoa

const (
	bcrypt5 = "$2y$05$jdwwbv1sfCbIvGMvRUi.ve2njojkOPaP6YSo55EWTI.Nhai03hzt2" // a secret
	argon8  = "{ARGON2ID}$argon2id$v=19$m=8,t=1,p=1$/HgoYH/3VKuUad5sTE3+6Q$FMXMUiC64SakYG5lvWmn2aICHA9/H1vIip86deoyxuA"
)

// users writes a users file and returns its path.
func users(t testing.TB, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "users")
	write(t, path, text)
	return path
}

func write(t testing.TB, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func open(t testing.TB, path string, log io.Writer) *File {
	t.Helper()
	opts := Options{}
	if log != nil {
		opts.Logger = slog.New(slog.NewTextHandler(log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	}
	f, err := Open(path, opts)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// check logs in: a home or a name for success, "rejected", or "fault".
func check(t testing.TB, f *File, user, password string) string {
	t.Helper()
	id, err := f.CheckPassword(t.Context(), auth.Attempt{User: user, Password: password, Remote: netip.MustParseAddr("192.0.2.1")})
	switch {
	case err == nil:
		return id.User + " " + id.Home
	case !reflect.DeepEqual(id, auth.Identity{}):
		t.Errorf("%s: an identity with an error", user)
		return "both"
	case errors.Is(err, auth.ErrRejected):
		return "rejected"
	default:
		return "fault"
	}
}

func expect(t testing.TB, f *File, user, password, want string) {
	t.Helper()
	if got := check(t, f, user, password); got != want {
		t.Errorf("%q with %q: %q, not %q", user, password, got, want)
	}
}

func TestCheckPassword(t *testing.T) {
	f := open(t, users(t, "mrose:{PLAIN}tanstaaf::::/srv/mrose\n"+
		"Upper:{PLAIN}up\n"+
		"upper:{PLAIN}low\n"+
		"crypt:"+bcrypt5+"\n"+
		"spaces:{PLAIN} a  secret \n"+
		"empty:\n"+"emptyplain:{PLAIN}\n"+"locked:!{PLAIN}x\n"+
		"nologin:{PLAIN}x::::::nologin\n"+
		"near:{PLAIN}x::::::allow_nets=192.0.2.0/24\n"+
		"far:{PLAIN}x::::::allow_nets=198.51.100.0/24\n"), nil)
	expect(t, f, "mrose", "tanstaaf", "mrose /srv/mrose")
	expect(t, f, "Mrose", "tanstaaf", "mrose /srv/mrose")
	expect(t, f, "MROSE", "tanstaaf", "mrose /srv/mrose")
	expect(t, f, "mrose", "Tanstaaf", "rejected")
	expect(t, f, "mrose", "tanstaaf ", "rejected")
	expect(t, f, "mrose", "tanstaa", "rejected")
	expect(t, f, "mrose", "", "rejected")
	expect(t, f, "mrose ", "tanstaaf", "rejected")
	expect(t, f, "Upper", "up", "Upper ")
	expect(t, f, "upper", "low", "upper ")
	expect(t, f, "UPPER", "low", "upper ")
	expect(t, f, "UPPER", "up", "rejected")
	expect(t, f, "crypt", "a secret", "crypt ")
	expect(t, f, "crypt", "a Secret", "rejected")
	expect(t, f, "spaces", " a  secret ", "spaces ")
	expect(t, f, "spaces", "a  secret", "rejected")
	expect(t, f, "empty", "", "rejected")
	expect(t, f, "emptyplain", "", "rejected")
	expect(t, f, "locked", "x", "rejected")
	expect(t, f, "locked", "!{PLAIN}x", "rejected")
	expect(t, f, "nologin", "x", "rejected")
	expect(t, f, "near", "x", "near ")
	expect(t, f, "far", "x", "rejected")
	expect(t, f, "", "", "rejected")
	expect(t, f, "nobody", "tanstaaf", "rejected")
	expect(t, f, "#", "x", "rejected")
	expect(t, f, "K", "x", "rejected") // the Kelvin sign is no K
}

// Trap 42: an unknown name, a wrong password, a locked user and an empty password read the same and
// run one hash each, and over many unknown names the hashes are those of the users.
func TestTrap42UnknownAndWrongLookAlike(t *testing.T) {
	text := "locked:!\nempty:\n"
	for i := range 30 {
		text += "plain" + itoa(i) + ":{PLAIN}x\n"
	}
	for i := range 10 {
		text += "argon" + itoa(i) + ":" + argon8 + "\n"
	}
	for _, name := range []string{"SCRAM-SHA-256", "SHA512-CRYPT", "SSHA"} {
		for i := range 10 {
			field, err := scheme.All.Make(name, "x")
			if err != nil {
				t.Fatal(err)
			}
			text += name + itoa(i) + ":" + field + "\n"
		}
	}
	f, err := Open(users(t, text), Options{Weak: true})
	if err != nil {
		t.Fatal(err)
	}
	var ran []scheme.Hash
	f.ran = func(h scheme.Hash) { ran = append(ran, h) }
	try := func(user, password string) (scheme.Hash, string) {
		t.Helper()
		ran = nil
		_, err := f.CheckPassword(t.Context(), auth.Attempt{User: user, Password: password})
		if len(ran) != 1 || ran[0].Locked() {
			t.Fatalf("%s: %d hashes were run: %+v", user, len(ran), ran)
		}
		return ran[0], strings.Replace(fmt.Sprint(err), "no such user: ", "", 1) // which is for the log, and for other backends
	}
	h, wrong := try("argon1", "wrong")
	if h.Scheme != "ARGON2ID" {
		t.Errorf("the user's own hash was not run, but %s", h.Scheme)
	}
	for _, c := range [][2]string{{"argon1", ""}, {"SCRAM-SHA-2561", "wrong"}, {"SSHA1", "wrong"}, {"SHA512-CRYPT1", ""}, {"plain1", ""}, {"plain1", "wrong"}, {"locked", "x"}, {"empty", ""}, {"nobody", "x"}, {"", ""}, {"nobody", strings.Repeat("x", 1<<16)}} {
		if _, message := try(c[0], c[1]); message != wrong {
			t.Errorf("%q: %s", c[0], message)
		}
	}
	count := map[string]int{}
	for i := range 400 {
		name := "stranger" + itoa(i)
		h, _ := try(name, "x")
		count[h.Scheme]++
		if again, _ := try(strings.ToUpper(name), "y"); again.Scheme != h.Scheme || again.Memory != h.Memory {
			t.Errorf("%s: once %s, once %s", name, h.Scheme, again.Scheme)
		}
	}
	for _, name := range []string{"ARGON2ID", "SCRAM-SHA-256", "SHA512-CRYPT", "SSHA"} {
		if n := count[name]; n < 25 || n > 100 { // 57 are to be expected
			t.Errorf("of 400 unknown names: %v", count)
		}
	}

	f = open(t, filepath.Join(t.TempDir(), "users"), nil)
	f.ran = func(h scheme.Hash) { ran = append(ran, h) }
	if h, _ := try("nobody", "x"); h.Scheme != "ARGON2ID" || h.Memory == 0 {
		t.Errorf("without users: %+v", h)
	}
}

// A weak scheme is an error of its line, unless the options allow it.
func TestWeakSchemes(t *testing.T) {
	path := users(t, "sha:{SHA}5en6G6MezRroT3XKqkdPOmY/BfQ=\nmd5:$1$salt$OiZvjWTmJFjFgNfKL5OTp0\nplain:{PLAIN}x\ncoded:{CLEAR.B64}eA==\n")
	weak := Options{Weak: true}
	_, err := Open(path, Options{})
	for _, line := range []string{path + ":1: password scheme too weak: {SHA}", path + ":2: password scheme too weak: {CRYPT}"} {
		if err == nil || !strings.Contains(err.Error(), line) || strings.Count(err.Error(), "users.weak_schemes") != 2 {
			t.Errorf("%v", err)
		}
	}
	f, err := Open(path, weak)
	if err != nil {
		t.Fatal(err)
	}
	expect(t, f, "sha", "secret", "sha ")
	expect(t, f, "sha", "Secret", "rejected")
	expect(t, f, "md5", "secret", "rejected")
	if n := f.Plain(); n != 2 {
		t.Errorf("%d passwords can be read", n)
	}

	if got, err := List(path, Options{}); len(got) != 2 || err == nil {
		t.Errorf("%v, %v", got, err)
	}
	if got, err := List(path, weak); len(got) != 4 || err != nil || got[0].Scheme != "SHA" || got[3].Scheme != "CLEAR.B64" {
		t.Errorf("%v, %v", got, err)
	}
	if err := SetPassword(path, "sha", "x", "", Options{}); err == nil || !strings.Contains(err.Error(), path+":2: ") {
		t.Errorf("the other line's error is left: %v", err)
	}
	for _, name := range []string{"SSHA512", "SCRAM-SHA-256", "SCRAM-SHA-1", "PBKDF2", "PLAIN"} {
		if err := SetPassword(path, "sha", "by "+name, name, weak); err != nil {
			t.Error(err)
		}
		expect(t, f, "sha", "by "+name, "sha ")
		expect(t, f, "sha", "secret", "rejected")
	}
	if n := f.Plain(); n != 3 {
		t.Errorf("%d passwords can be read", n)
	}
	if err := SetPassword(path, "md5", "x", "PBKDF2", Options{}); err != nil { // mends the last error
		t.Error(err)
	}
	if err := Add(path, "new", "x", "CRAM-MD5", Options{}); !errors.Is(err, ErrNoScheme) || !strings.Contains(err.Error(), "users.weak_schemes") {
		t.Error(err)
	}
}

// Who waits for a turn leaves when its context ends.
func TestHashingWaitsItsTurn(t *testing.T) {
	f := open(t, users(t, "argon:"+argon8+"\nplain:{PLAIN}x\n"), nil)
	busy, done := make(chan struct{}), make(chan struct{})
	left := make(chan error)
	go func() {
		left <- f.hashing.Run(t.Context(), netip.Addr{}, scheme.Hash{Threads: 1 << 10}, func() error { // all there are
			close(busy)
			<-done
			return nil
		})
	}()
	<-busy
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := f.CheckPassword(ctx, auth.Attempt{User: "argon", Password: "x"})
	if !errors.Is(err, context.Canceled) || errors.Is(err, auth.ErrRejected) {
		t.Errorf("%v", err)
	}
	expect(t, f, "plain", "x", "plain ") // costs nothing and waits for nobody
	close(done)
	if err := <-left; err != nil {
		t.Fatal(err)
	}
	expect(t, f, "argon", "x", "rejected")
}

func TestNeverExisted(t *testing.T) {
	path := filepath.Join(t.TempDir(), "users")
	f := open(t, path, nil)
	expect(t, f, "mrose", "tanstaaf", "rejected")
	write(t, path, "mrose:{PLAIN}tanstaaf\n")
	expect(t, f, "mrose", "tanstaaf", "mrose ")
}

func TestVanishedCannotTell(t *testing.T) {
	var log bytes.Buffer
	path := users(t, "mrose:{PLAIN}tanstaaf\n")
	f := open(t, path, &log)
	expect(t, f, "mrose", "tanstaaf", "mrose ")
	if err := os.Rename(path, path+".away"); err != nil {
		t.Fatal(err)
	}
	expect(t, f, "mrose", "tanstaaf", "fault")
	expect(t, f, "mrose", "wrong", "fault")
	expect(t, f, "nobody", "x", "fault")
	if err := f.Reload(); err == nil {
		t.Error("Reload finds nothing wrong")
	}
	if n := strings.Count(log.String(), "vanished"); n != 1 {
		t.Errorf("logged %d times:\n%s", n, log.String())
	}
	if err := os.Rename(path+".away", path); err != nil {
		t.Fatal(err)
	}
	expect(t, f, "mrose", "tanstaaf", "mrose ")
	expect(t, f, "mrose", "wrong", "rejected")
}

// A file that gets errors is no reason to let in who was removed, nor to turn the others away: the lines
// without errors count, and of a user whose line has one nothing can be told.
func TestErrorsOfOthersCostNothing(t *testing.T) {
	var log bytes.Buffer
	path := users(t, "mrose:{PLAIN}tanstaaf\nremoved:{PLAIN}x\nbad:{PLAIN}x\ndouble:{PLAIN}x\n")
	f := open(t, path, &log)
	expect(t, f, "removed", "x", "removed ")
	write(t, path, "mrose:{PLAIN}changed\nwrong\n.dot:{PLAIN}x\nbad:{NOPE}x\ndouble:{PLAIN}x\ndouble:{PLAIN}y\n")
	expect(t, f, "removed", "x", "rejected")
	expect(t, f, "mrose", "tanstaaf", "rejected")
	for _, name := range []string{"bad", "Bad", "double"} {
		expect(t, f, name, "x", "fault")
	}
	write(t, path, "Bad:{PLAIN}x\nbad:{NOPE}x\n")
	expect(t, f, "Bad", "x", "Bad ")
	expect(t, f, "BAD", "x", "fault")
	write(t, path, "mrose:{PLAIN}changed\nwrong\n.dot:{PLAIN}x\n")
	log.Reset()
	for range 3 {
		expect(t, f, "mrose", "changed", "mrose ")
	}
	for _, line := range []string{path + ":2: no colon", path + ":3: a user name that starts with a dot"} {
		if n := strings.Count(log.String(), line); n != 1 {
			t.Errorf("%s: logged %d times:\n%s", line, n, log.String())
		}
	}
	if err := f.Reload(); err == nil || strings.Count(err.Error(), "\n") != 1 {
		t.Errorf("Reload: %v", err)
	}
	write(t, path, "mrose:{PLAIN}again\nwrong\n.dot:{PLAIN}x\n")
	expect(t, f, "mrose", "again", "mrose ")
	if n := strings.Count(log.String(), "no colon"); n != 2 {
		t.Errorf("two versions, logged %d times", n)
	}
	write(t, path, "mrose:{PLAIN}changed\n")
	expect(t, f, "mrose", "changed", "mrose ")
	expect(t, f, "mrose", "tanstaaf", "rejected")
}

// A file that can't be read for a while is no reason to turn users away.
func TestUnreadableLeavesTheLastGoodVersion(t *testing.T) {
	path := users(t, "mrose:{PLAIN}tanstaaf\n")
	f := open(t, path, nil)
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(path, 0o700); err != nil {
		t.Fatal(err)
	}
	expect(t, f, "mrose", "tanstaaf", "mrose ")
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	write(t, path, "mrose:{PLAIN}changed\n")
	expect(t, f, "mrose", "changed", "mrose ")
}

// A change that leaves the same size and the same times shows, as long as the file is young; an old
// file is not read again.
func TestRacyChangeIsSeen(t *testing.T) {
	path := users(t, "mrose:{PLAIN}first\n")
	f := open(t, path, nil)
	var now time.Time
	f.now = func() time.Time { return now }
	sameTick := func(text string) { // as a file system with a coarse clock would show it
		t.Helper()
		write(t, path, text)
		st := *f.state.Load()
		seen, err := stat(path)
		if err != nil {
			t.Fatal(err)
		}
		st.seen = seen
		f.state.Store(&st)
	}
	seen, err := stat(path)
	if err != nil {
		t.Fatal(err)
	}
	now = time.Unix(0, int64(seen.mtime)).Add(time.Second)
	expect(t, f, "mrose", "first", "mrose ")
	sameTick("mrose:{PLAIN}other\n")
	now = now.Add(time.Minute)
	expect(t, f, "mrose", "other", "mrose ") // read again, for the last look was at a young file
	if f.state.Load().racy {
		t.Fatal("a file a minute old is taken for young")
	}
	reads := f.begun.Load()
	expect(t, f, "mrose", "other", "mrose ")
	if f.begun.Load() != reads {
		t.Error("an old file that did not change was read again")
	}
}

func TestStampYoung(t *testing.T) {
	at := func(d time.Duration) stamp { return stamp{mtime: d, ctime: d} }
	now := time.Unix(1000, 0)
	for s, want := range map[stamp]bool{
		at(999 * time.Second): true, at(1000 * time.Second): true, at(1001 * time.Second): true,
		at(998 * time.Second): false, at(5000 * time.Second): false,
		{mtime: 0, ctime: 999 * time.Second}: true,
	} {
		if s.young(now) != want {
			t.Errorf("%v: %v", s, !want)
		}
	}
}

// Logins go on while the file changes under them: each sees a whole version, and whoever asks after a
// change sees that change.
func TestReloadUnderLogins(t *testing.T) {
	path := users(t, "mrose:{PLAIN}0\nsteady:{PLAIN}x\n")
	f := open(t, path, nil)
	done := make(chan struct{})
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for {
				select {
				case <-done:
					return
				default:
				}
				expect(t, f, "steady", "x", "steady ")
				expect(t, f, "nobody", "x", "rejected")
			}
		})
	}
	for i := 1; i <= 50; i++ {
		if err := SetPassword(path, "mrose", "p"+itoa(i), "PLAIN", Options{}); err != nil {
			t.Error(err)
			break
		}
		expect(t, f, "mrose", "p"+itoa(i), "mrose ")
		expect(t, f, "mrose", "p"+itoa(i-1), "rejected")
	}
	close(done)
	wg.Wait()
}

// No password and no hash is in any log line or error, whatever goes wrong.
func TestSecretsAreNeverLogged(t *testing.T) {
	var log bytes.Buffer
	path := users(t, "mrose:{PLAIN}tanstaaf\ncrypt:"+bcrypt5+"\n")
	if err := os.Chmod(path, 0o644); err != nil {
		t.Fatal(err)
	}
	f := open(t, path, &log)
	var all strings.Builder
	keep := func(err error) { fmt.Fprintln(&all, err) }
	for _, user := range []string{"mrose", "crypt", "nobody"} {
		for _, password := range []string{"tanstaaf", "tanstaafwrong", "tanstaaf\x00"} {
			_, err := f.CheckPassword(t.Context(), auth.Attempt{User: user, Password: password})
			if err != nil {
				keep(err)
			}
		}
	}
	write(t, path, "tanstaaf\nmrose:tanstaaf\nx:{tanstaaf}\ny:"+bcrypt5+"x\nz:{PLAIN}tanstaaf\x01\n")
	check(t, f, "mrose", "tanstaaf")
	keep(f.Reload())
	keep(Add(path, "new", "tanstaaf", "PLAIN", Options{}))
	keep(Add(path, "new", "tanstaaf:", "PLAIN", Options{}))
	keep(Add(path, "new", "tanstaaf\n", "", Options{}))
	keep(Add(path, "new", "tanstaaf", "SHA", Options{}))
	keep(SetPassword(path, "none", "tanstaaf", "PLAIN", Options{}))
	keep(CheckStrength("tanstaaf", "tanstaaf"))
	if !strings.Contains(log.String(), "everybody") || !strings.Contains(log.String(), "no colon") {
		t.Errorf("not all was logged:\n%s", log.String())
	}
	for _, text := range []string{log.String(), all.String()} {
		for _, secret := range []string{"tanstaaf", bcrypt5[10:], "jdwwbv1sf"} {
			if strings.Contains(text, secret) {
				t.Errorf("a secret shows in\n%s", text)
			}
		}
	}
}

func BenchmarkCheckPasswordPlain(b *testing.B) {
	var text strings.Builder
	for i := range 100_000 {
		fmt.Fprintf(&text, "user%d:{PLAIN}secret%d::::/srv/mail/user%d:\n", i, i, i)
	}
	path := users(b, text.String())
	old := time.Now().Add(-time.Hour)
	if err := os.Chtimes(path, old, old); err != nil {
		b.Fatal(err)
	}
	f := open(b, path, nil)
	f.now = func() time.Time { return time.Now().Add(time.Hour) } // the file is old
	if err := f.Reload(); err != nil {
		b.Fatal(err)
	}
	for name, user := range map[string]string{"known": "user77777", "unknown": "nobody"} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				_, _ = f.CheckPassword(b.Context(), auth.Attempt{User: user, Password: "secret77777"})
			}
		})
	}
}

// BenchmarkOpenMillion reads a million users.
func BenchmarkOpenMillion(b *testing.B) {
	for name, field := range map[string]string{"ARGON2ID": argon8, "PLAIN": "{PLAIN}tanstaaf", "PLAIN UTF-8": "{PLAIN}tänstaaf", "SCRAM": "{SCRAM-SHA-256}15000,QSXCR+Q6sek8bf92," + strings.Repeat("A", 43) + "=," + strings.Repeat("A", 43) + "="} {
		b.Run(name, func(b *testing.B) {
			var text strings.Builder
			for i := range 1_000_000 {
				fmt.Fprintf(&text, "user%d:%s::::::\n", i, field)
			}
			path := users(b, text.String())
			b.SetBytes(int64(text.Len()))
			b.ReportAllocs()
			for b.Loop() {
				open(b, path, nil)
			}
		})
	}
}

// Editors put a byte order mark at the file's beginning; the first user is not to suffer for it.
func TestByteOrderMark(t *testing.T) {
	path := filepath.Join(t.TempDir(), "users")
	write(t, path, "\ufeffmrose:{PLAIN}tanstaaf\nbob:{PLAIN}x\n")
	f := open(t, path, nil)
	if _, err := f.CheckPassword(t.Context(), auth.Attempt{User: "mrose", Password: "tanstaaf"}); err != nil {
		t.Error(err)
	}
}
