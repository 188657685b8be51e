package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// static builds dewey as `make build` does: rights can't be given up by a program that is linked with cgo,
// as one under the race detector is.
var static = sync.OnceValues(func() (string, error) {
	folder, err := os.MkdirTemp("", "dewey-static")
	if err != nil {
		return "", err
	}
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	name := filepath.Join(folder, "dewey")
	build := exec.CommandContext(ctx, "go", "build", "-o", name, ".")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		return "", fmt.Errorf("go build: %w\n%s", err, out)
	}
	return name, os.Chmod(folder, 0o755)
})

func startStatic(t *testing.T, args ...string) *process {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Fatal("this test gives up root's rights: run it as root")
	}
	name, err := static()
	if err != nil {
		t.Fatal(err)
	}
	return start(t, name, append([]string{"serve", "--set", "pop3.listen=127.0.0.1:0", "--set", "login.failure_delay=0s"}, args...))
}

// status reads a line of /proc/PID/status.
func (p *process) status(key string) string {
	p.t.Helper()
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.cmd.Process.Pid))
	if err != nil {
		p.t.Fatal(err)
	}
	for line := range strings.Lines(string(data)) {
		if value, ok := strings.CutPrefix(line, key+":"); ok {
			return strings.Join(strings.Fields(value), " ")
		}
	}
	p.t.Fatalf("no %s in\n%s", key, data)
	return ""
}

// Started as root, dewey binds, reads what only root may read, and becomes process.user for good: what it
// keeps is that user's, who may read it again at the next start and at SIGHUP.
func TestRootIsGivenUp(t *testing.T) {
	parent, err := os.MkdirTemp("", "dewey-rights") // t.TempDir lies in a folder that is root's alone
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(parent) })
	if err := os.Chmod(parent, 0o755); err != nil {
		t.Fatal(err)
	}
	data := filepath.Join(parent, "data")
	addUser(t, data, "mrose")
	for range 2 {
		p := startStatic(t, "--set", "data="+data, "--set", "process.user=nobody", "--set", "process.landlock=required")
		address := field(p.wait("msg=listening"), "address")
		for key, want := range map[string]string{
			"Uid": "65534 65534 65534 65534", "Gid": "65534 65534 65534 65534", "CapEff": "0000000000000000", "CapPrm": "0000000000000000", "NoNewPrivs": "1",
		} {
			if got := p.status(key); got != want {
				t.Errorf("%s is %s, want %s", key, got, want)
			}
		}
		c := dial(t, address)
		c.login("mrose")
		c.ok("QUIT")
		p.signal(syscall.SIGHUP)
		p.wait("msg=reloaded")
		p.signal(syscall.SIGTERM)
		if code := p.end(); code != 0 {
			t.Errorf("exit code %d", code)
		}
		if p.saw("level=ERROR") || p.saw("permission denied") {
			t.Error("not all could be read")
		}
	}
	if left, err := os.ReadDir(filepath.Join(data, "tls")); err != nil || len(left) == 0 {
		t.Error(left, err)
	}
}

// A user who does not exist, or root, is an error and nothing is served.
func TestProcessUserWrong(t *testing.T) {
	for _, user := range []string{"no-such-user", "root", "0"} {
		p := startStatic(t, "--set", "data="+t.TempDir(), "--set", "process.user="+user, "--log-level", "error")
		if code := p.end(); code != 1 || len(p.seen) != 1 || !p.saw("dewey: process.user: ") {
			t.Errorf("%s: exit code %d, %q", user, code, p.seen)
		}
	}
}

// Even root reaches no more than the configuration names: a users file that has become a link out of the folders
// can't be read, and one beside the configuration can.
func TestLandlock(t *testing.T) {
	data, outside := t.TempDir(), t.TempDir()
	users := filepath.Join(data, "users")
	addUser(t, data, "mrose")
	p := startStatic(t, "--set", "data="+data, "--set", "process.landlock=required", "--log-level", "debug")
	address := field(p.wait("msg=listening"), "address")
	if !p.saw("confined by Landlock") {
		t.Error("not confined")
	}
	secret := filepath.Join(outside, "users")
	if err := os.Rename(users, secret); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(secret, users); err != nil {
		t.Fatal(err)
	}
	p.signal(syscall.SIGHUP)
	p.wait("users file has errors", "permission denied")
	if err := os.Rename(secret, users); err != nil {
		t.Fatal(err)
	}
	c := dial(t, address)
	c.login("mrose")
	c.ok("QUIT")
	p.signal(syscall.SIGTERM)
	if code := p.end(); code != 0 {
		t.Errorf("exit code %d", code)
	}

	p = startStatic(t, "--set", "data="+data, "--set", "process.landlock=required", "--set", "maildir.path={home}/Maildir", "--log-level", "error")
	if code := p.end(); code != 1 || !p.saw("process.landlock: maildir.path begins with {home}") {
		t.Errorf("exit code %d, %q", code, p.seen)
	}
}
