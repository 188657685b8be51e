package passwdfile

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func read(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func TestEditKeepsAllElse(t *testing.T) {
	before := "# first\r\n\r\nmrose:{PLAIN}x:1000:1000:M:/srv/m:/bin/sh:a=1 b=c:d\r\n#mrose:{PLAIN}comment\nother:\nlast:{PLAIN}z"
	path := users(t, before)
	if err := os.Chmod(path, 0o640); err != nil {
		t.Fatal(err)
	}
	steps := []struct {
		name string
		do   func() error
		want string
	}{
		{"SetPassword", func() error { return SetPassword(path, "mrose", "new", "PLAIN", Options{}) }, strings.Replace(before, "mrose:{PLAIN}x", "mrose:{PLAIN}new", 1)},
		{"SetPassword of a short line", func() error { return SetPassword(path, "other", "o", "PLAIN", Options{}) }, strings.NewReplacer("mrose:{PLAIN}x", "mrose:{PLAIN}new", "other:", "other:{PLAIN}o").Replace(before)},
		{"Add", func() error { return Add(path, "added", "a:b", "PLAIN.HEX", Options{}) }, strings.NewReplacer("mrose:{PLAIN}x", "mrose:{PLAIN}new", "other:", "other:{PLAIN}o").Replace(before) + "\nadded:{PLAIN.HEX}613a62::::::\n"},
		{"Remove", func() error { return Remove(path, "mrose", Options{}) }, "# first\r\n\r\n#mrose:{PLAIN}comment\nother:{PLAIN}o\nlast:{PLAIN}z\nadded:{PLAIN.HEX}613a62::::::\n"},
		{"Remove the last", func() error { return Remove(path, "added", Options{}) }, "# first\r\n\r\n#mrose:{PLAIN}comment\nother:{PLAIN}o\nlast:{PLAIN}z\n"},
	}
	for _, step := range steps {
		if err := step.do(); err != nil {
			t.Fatalf("%s: %v", step.name, err)
		}
		if diff := cmp.Diff(step.want, read(t, path)); diff != "" {
			t.Errorf("%s: %s", step.name, diff)
		}
	}
	if info, err := os.Stat(path); err != nil || info.Mode() != 0o640 {
		t.Errorf("%v %v", info.Mode(), err)
	}
	if _, err := os.Stat(path + ".tmp"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the temporary file stays: %v", err)
	}
}

func TestAddMakesTheFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "data", "users")
	f := open(t, path, nil)
	if err := Add(path, "mrose", "tanstaaf", "", Options{}); err != nil {
		t.Fatal(err)
	}
	expect(t, f, "Mrose", "tanstaaf", "mrose ")
	expect(t, f, "mrose", "tanstaa", "rejected")
	for name, mode := range map[string]os.FileMode{path: 0o600, filepath.Dir(path): 0o700 | os.ModeDir} {
		if info, err := os.Stat(name); err != nil || info.Mode() != mode {
			t.Errorf("%s: %v %v", name, info.Mode(), err)
		}
	}
	got, err := List(path, Options{})
	if diff := cmp.Diff([]User{{Name: "mrose", Scheme: "ARGON2ID"}}, got); diff != "" || err != nil {
		t.Error(diff, err)
	}
}

func TestEditErrors(t *testing.T) {
	good := "mrose:{PLAIN}x\n"
	path := users(t, good)
	absent := filepath.Join(t.TempDir(), "none", "users")
	for _, c := range []struct {
		name string
		err  error
		want error
	}{
		{"Add again", Add(path, "mrose", "x", "PLAIN", Options{}), ErrUserExists},
		{"Add a path", Add(path, "../x", "x", "PLAIN", Options{}), ErrBadName},
		{"Add two fields", Add(path, "a:b", "x", "PLAIN", Options{}), ErrBadName},
		{"Add two lines", Add(path, "a\nb", "x", "PLAIN", Options{}), ErrBadName},
		{"Add a comment", Add(path, "#a", "x", "PLAIN", Options{}), ErrBadName},
		{"Add nobody", Add(path, "", "x", "PLAIN", Options{}), ErrBadName},
		{"Add a long name", Add(path, strings.Repeat("x", 256), "x", "PLAIN", Options{}), ErrBadName},
		{"Add by a weak scheme", Add(path, "new", "x", "MD5", Options{}), ErrNoScheme},
		{"Add by no scheme", Add(path, "new", "x", "ROT13", Options{}), ErrNoScheme},
		{"Add a colon", Add(path, "new", "a:b", "PLAIN", Options{}), ErrBadSecret},
		{"Add nothing", Add(path, "new", "", "PLAIN", Options{}), ErrBadSecret},
		{"Add two lines of secret", Add(path, "new", "a\nb:{PLAIN}c", "PLAIN", Options{}), ErrBadSecret},
		{"SetPassword of nobody", SetPassword(path, "Mrose", "x", "PLAIN", Options{}), ErrNoUser},
		{"SetPassword without a file", SetPassword(absent, "mrose", "x", "PLAIN", Options{}), ErrNoUser},
		{"Remove nobody", Remove(path, "m", Options{}), ErrNoUser},
		{"Remove without a file", Remove(absent, "mrose", Options{}), ErrNoUser},
	} {
		if !errors.Is(c.err, c.want) {
			t.Errorf("%s: %v, not %v", c.name, c.err, c.want)
		}
	}
	if got := read(t, path); got != good {
		t.Errorf("a failed edit left %q", got)
	}
	if _, err := os.Stat(filepath.Dir(absent)); err == nil {
		t.Error("a failed edit made a folder")
	}
	if got, err := List(absent, Options{}); len(got) != 0 || err != nil {
		t.Error(got, err)
	}
}

// A file with errors is left as it is, but for a change that mends the last one.
func TestEditOfAFileWithErrors(t *testing.T) {
	text := "mrose:{PLAIN}x::::/srv/m\nbad:tanstaaf\n"
	path := users(t, text)
	for name, err := range map[string]error{
		"Add":         Add(path, "new", "x", "PLAIN", Options{}),
		"SetPassword": SetPassword(path, "mrose", "x", "PLAIN", Options{}),
		"Remove":      Remove(path, "mrose", Options{}),
	} {
		if err == nil || !strings.Contains(err.Error(), path+":2: ") {
			t.Errorf("%s: %v", name, err)
		}
	}
	if got := read(t, path); got != text {
		t.Errorf("changed to %q", got)
	}
	got, err := List(path, Options{})
	if diff := cmp.Diff([]User{{Name: "mrose", Scheme: "PLAIN", Home: "/srv/m"}}, got); diff != "" || err == nil {
		t.Error(diff, err)
	}
	if err := SetPassword(path, "bad", "mended", "PLAIN", Options{}); err != nil {
		t.Fatal(err)
	}
	if got := read(t, path); got != "mrose:{PLAIN}x::::/srv/m\nbad:{PLAIN}mended\n" {
		t.Errorf("mended to %q", got)
	}
	write(t, path, "twice:{PLAIN}x\ntwice:{PLAIN}y\n")
	if err := Remove(path, "twice", Options{}); err == nil || !strings.Contains(err.Error(), path+":2: ") {
		t.Errorf("which of two was removed? %v", err)
	}
}

func TestEditFollowsLinks(t *testing.T) {
	folder := t.TempDir()
	real := filepath.Join(folder, "real", "deep")
	if err := os.MkdirAll(real, 0o700); err != nil {
		t.Fatal(err)
	}
	for link, to := range map[string]string{
		filepath.Join(folder, "users"):         "real/chain",
		filepath.Join(folder, "real", "chain"): "deep/users",
		filepath.Join(folder, "loop"):          "loop",
	} {
		if err := os.Symlink(to, link); err != nil {
			t.Fatal(err)
		}
	}
	path := filepath.Join(folder, "users")
	f := open(t, path, nil)
	for i, do := range []func() error{ // the target is made, then replaced
		func() error { return Add(path, "mrose", "x", "PLAIN", Options{}) },
		func() error { return SetPassword(path, "mrose", "y", "PLAIN", Options{}) },
	} {
		if err := do(); err != nil {
			t.Fatal(err)
		}
		if info, err := os.Lstat(path); err != nil || info.Mode()&os.ModeSymlink == 0 {
			t.Errorf("the link is gone after step %d: %v", i, err)
		}
		if info, err := os.Lstat(filepath.Join(real, "users")); err != nil || !info.Mode().IsRegular() {
			t.Errorf("the target is no file after step %d: %v", i, err)
		}
	}
	expect(t, f, "mrose", "y", "mrose ")
	if err := Add(filepath.Join(folder, "loop"), "x", "x", "PLAIN", Options{}); err == nil {
		t.Error("a link to itself was followed")
	}
}

// Edits at the same time all take effect.
func TestEditsAtOnce(t *testing.T) {
	path := filepath.Join(t.TempDir(), "users")
	var wg sync.WaitGroup
	for i := range 16 {
		wg.Go(func() {
			if err := Add(path, "user"+itoa(i), "x", "PLAIN", Options{}); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if got, err := List(path, Options{}); len(got) != 16 || err != nil {
		t.Errorf("%d users, %v", len(got), err)
	}
}

// A temporary file left by a crash is in nobody's way, and what it links to is not written to.
func TestEditAfterACrash(t *testing.T) {
	path := users(t, "mrose:{PLAIN}x\n")
	victim := filepath.Join(t.TempDir(), "victim")
	write(t, victim, "precious")
	if err := os.Symlink(victim, path+".tmp"); err != nil {
		t.Fatal(err)
	}
	if err := Remove(path, "mrose", Options{}); err != nil {
		t.Fatal(err)
	}
	if read(t, path) != "" || read(t, victim) != "precious" {
		t.Error("the edit went astray")
	}
}

func TestCheckStrength(t *testing.T) {
	for _, c := range []struct {
		user, password string
		why            string
	}{
		{"mrose", "tanstaaf", ""},
		{"mrose", "correct horse battery", ""},
		{"mrose", "Grüße aus Köln", ""},
		{"mrose", "849302618475", ""},
		{"mrose", "", "shorter"},
		{"mrose", "x7$kQ2z", "shorter"},
		{"mrose", "üöäßéèê", "shorter"},
		{"mrose", "aaaaaaaaaaaa", "different"},
		{"mrose", "abababababab", "different"},
		{"mrose", "MRose-1234", "user's name"},
		{"margaret.rose", "margaret.rose", "user's name"},
		{"margaret.rose@example.org", "example.org!", "user's name"},
		{"margaret.rose@example.org", "margaret", "part of the user's name"},
		{"x@y", "xylophon", ""},
		{"mrose", "12345678", "row"},
		{"mrose", "1234567890", "row"},
		{"mrose", "hgfedcba", "row"},
		{"mrose", "84930261", "only digits"},
		{"mrose", "Password123!", "everybody"},
		{"mrose", "welcome2024", "everybody"},
		{"mrose", "qwertyuiop", "everybody"},
	} {
		err := CheckStrength(c.user, c.password)
		if c.why == "" && err == nil {
			continue
		}
		if c.why == "" || !errors.Is(err, ErrWeak) || !strings.Contains(err.Error(), c.why) {
			t.Errorf("%q for %q: %v, not %q", c.password, c.user, err, c.why)
		}
	}
}
