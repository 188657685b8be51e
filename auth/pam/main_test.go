package pam

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"dewey/auth"
)

// patience is how long a test waits for something that is to come.
const patience = 20 * time.Second

var buildDir string

func TestMain(m *testing.M) {
	if os.Getenv("DEWEY_PAM_CHILD") != "" {
		child := asChild
		if os.Args[1] == "-socket" {
			child = askSocket
		}
		if err := child(os.Args[1:]); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	code := m.Run()
	if buildDir != "" {
		_ = os.RemoveAll(buildDir)
	}
	os.Exit(code)
}

// program is dewey-pam, built as make pam does.
var program = sync.OnceValues(func() (string, error) {
	if _, err := os.Stat("/usr/include/security/pam_appl.h"); err != nil {
		return "", fmt.Errorf("%w: apt-get install libpam0g-dev", err)
	}
	var err error
	if buildDir, err = os.MkdirTemp("", "dewey-pam"); err != nil {
		return "", err
	}
	if err := os.Chmod(buildDir, 0o755); err != nil {
		return "", err
	}
	name := filepath.Join(buildDir, "dewey-pam")
	cmd := exec.Command("go", "build", "-C", "../../pam-helper", "-trimpath", "-o", name, ".")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=1")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("%w: %s", err, out)
	}
	return name, os.Chmod(name, 0o755)
})

func built(t *testing.T) string {
	t.Helper()
	name, err := program()
	if err != nil {
		t.Fatal(err)
	}
	return name
}

// needsRoot fails a test that only root can do, where it must be done: CI is root.
func needsRoot(t *testing.T) bool {
	t.Helper()
	if os.Geteuid() == 0 {
		return true
	}
	if os.Getenv("CI") != "" {
		t.Fatal("not root: this test can only be done by root, and CI is to do it")
	}
	t.Log("NOT TESTED: only root can do this; run it as root")
	return false
}

// A log is what was logged.
type log struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *log) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *log) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// A fixture is a Backend with a dewey-pam of its own, and services in a folder of the test.
type fixture struct {
	*Backend
	t   *testing.T
	dir string
	log *log
}

// newFixture starts one with a service called dewey; change may change the rest.
func newFixture(t *testing.T, service string, change func(*Config)) *fixture {
	t.Helper()
	f := &fixture{t: t, dir: t.TempDir(), log: &log{}}
	f.service("dewey", service)
	c := Config{Helper: built(t), ServiceFolder: f.dir, Timeout: patience, Virtual: true, Logger: slog.New(slog.NewTextHandler(f.log, nil))}
	if change != nil {
		change(&c)
	}
	leaks := goleak.IgnoreCurrent()
	b, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	f.Backend = b
	t.Cleanup(func() {
		if err := b.Close(); err != nil {
			t.Error(err)
		}
		goleak.VerifyNone(t, leaks)
		if strings.Contains(f.log.String(), "a secret") {
			t.Errorf("the log has a password:\n%s", f.log)
		}
	})
	if err := b.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	return f
}

func (f *fixture) service(name, text string) {
	f.t.Helper()
	if err := os.WriteFile(filepath.Join(f.dir, name), []byte(text), 0o644); err != nil {
		f.t.Fatal(err)
	}
}

// script writes a program that pam_exec runs; $DIR is the fixture's folder.
func (f *fixture) script(name, text string) string {
	f.t.Helper()
	path := filepath.Join(f.dir, name)
	if err := os.WriteFile(path, []byte("#!/bin/sh\nDIR="+f.dir+"\n"+text+"\n"), 0o755); err != nil {
		f.t.Fatal(err)
	}
	return path
}

func (f *fixture) login(user, password string) (auth.Identity, error) {
	return f.CheckPassword(f.t.Context(), auth.Attempt{User: user, Password: password, Remote: netip.MustParseAddr("192.0.2.7")})
}

// What a login comes to.
const (
	in       = "in"
	rejected = "rejected"
	unknown  = "unknown"
	cantTell = "can't tell"
)

func outcome(err error) string {
	switch {
	case err == nil:
		return in
	case errors.Is(err, auth.ErrUnknownUser):
		return unknown
	case errors.Is(err, auth.ErrRejected):
		return rejected
	}
	return cantTell
}

func (f *fixture) expect(want, user, password string) {
	f.t.Helper()
	if _, err := f.login(user, password); outcome(err) != want {
		f.t.Errorf("%q with %q: %v; want %s\n%s", user, password, err, want, f.log)
	}
}

// until waits for a condition.
func until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatalf("%s: not in %v", what, patience)
		}
	}
}

// children are the processes that a process has started.
func children(pid int) []int {
	var list []int
	names, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid))
	for _, name := range names {
		text, _ := os.ReadFile(name)
		for field := range strings.FieldsSeq(string(text)) {
			n, _ := strconv.Atoi(field)
			list = append(list, n)
		}
	}
	return list
}

// supervisor is the number of the dewey-pam that was started here.
func (f *fixture) supervisor() (found int) {
	f.t.Helper()
	until(f.t, "a dewey-pam that runs", func() bool { // what the kernel lists while threads end is not always whole
		for _, pid := range children(os.Getpid()) {
			if text, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid)); strings.Contains(string(text), "-confdir="+f.dir+"\x00") && !gone(pid) {
				found = pid
				return true
			}
		}
		return false
	})
	return found
}

// gone says that there is no such process, or only what its parent has not read yet.
func gone(pid int) bool {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	return err != nil || strings.Contains(string(text), ") Z ")
}
