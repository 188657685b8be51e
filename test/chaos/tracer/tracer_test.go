package tracer_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"dewey/test/chaos/tracer"
)

// As a child it does what is traced.
func TestMain(m *testing.M) {
	if dir := os.Getenv("TRACED"); dir != "" {
		name := filepath.Join(dir, "a")
		f, err := os.Create(name)
		for i := 0; err == nil && i < 3; i++ {
			_, err = fmt.Fprintf(f, "line %d\n", i)
		}
		if err == nil {
			err = f.Sync()
		}
		if err == nil {
			err = os.Rename(name, filepath.Join(dir, "b"))
		}
		if err == nil {
			err = os.Remove(filepath.Join(dir, "b"))
		}
		if err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

func trace(t *testing.T, opts tracer.Options) (*tracer.Run, string, int) {
	t.Helper()
	opts.Root, opts.Armed = t.TempDir(), true
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), "TRACED="+opts.Root)
	r, err := tracer.Start(cmd, opts)
	if err != nil {
		t.Fatal(err)
	}
	code, err := r.Wait()
	if err != nil {
		t.Fatal(err)
	}
	return r, opts.Root, code
}

func TestRecord(t *testing.T) {
	r, _, code := trace(t, tracer.Options{Record: true})
	var kinds []string
	var written string
	for i, e := range r.Events() {
		kinds = append(kinds, e.Kind.String())
		written += string(e.Data)
		if e.Begun != i {
			t.Errorf("%v: %d events before it, and it is number %d", e, e.Begun, i)
		}
		if e.Kind == tracer.Write && e.Offset != int64(len(written)-len(e.Data)) {
			t.Errorf("%v", e)
		}
	}
	if got, want := strings.Join(kinds, " "), "make write write write sync rename unlink"; got != want || code != 0 || len(r.Calls()) != 7 {
		t.Errorf("%d: %s, want %s; %d", code, got, want, len(r.Calls()))
	}
	if written != "line 0\nline 1\nline 2\n" {
		t.Errorf("%q", written)
	}
}

// What is left is that of the calls before the one at which it was killed, and of that one if it was killed after it.
func TestKill(t *testing.T) {
	left := func(n int, after bool) string {
		r, root, code := trace(t, tracer.Options{Kill: n, After: after})
		if code != -1 || r.Killed() == "" {
			t.Errorf("%d, %v: exit code %d, killed at %q", n, after, code, r.Killed())
		}
		var all []string
		found, _ := filepath.Glob(filepath.Join(root, "*"))
		for _, name := range found {
			text, err := os.ReadFile(name)
			if err != nil {
				t.Fatal(err)
			}
			all = append(all, fmt.Sprintf("%s %d", filepath.Base(name), len(text)))
		}
		return strings.Join(all, ", ")
	}
	states := []string{"", "a 0", "a 7", "a 14", "a 21", "a 21", "b 21", ""}
	for n := 1; n < len(states); n++ {
		if got := left(n, false); got != states[n-1] {
			t.Errorf("before %d: %q, want %q", n, got, states[n-1])
		}
		if got := left(n, true); got != states[n] {
			t.Errorf("after %d: %q, want %q", n, got, states[n])
		}
	}
	if r, _, code := trace(t, tracer.Options{Kill: len(states)}); code != 0 || r.Killed() != "" {
		t.Errorf("%d, %q", code, r.Killed())
	}
}
