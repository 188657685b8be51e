package pam

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"dewey/auth"
)

// serve starts a dewey-pam as a service of its own.
func (f *fixture) serve(socket, allow string) *exec.Cmd {
	f.t.Helper()
	cmd := exec.Command(built(f.t), "-listen", socket, "-allow", allow, "-confdir", f.dir)
	cmd.Stderr = f.log
	if err := cmd.Start(); err != nil {
		f.t.Fatal(err)
	}
	f.t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	return cmd
}

// dewey-pam as a service of its own: it may be down at dewey's start, and come and go.
func TestService(t *testing.T) {
	dir := t.TempDir()
	socket := filepath.Join(dir, "socket")
	f := newFixture(t, permit, func(c *Config) { c.Helper, c.Socket = "", socket })
	f.expect(cantTell, "mrose", "a secret")
	for _, how := range []syscall.Signal{syscall.SIGKILL, syscall.SIGTERM} {
		cmd := f.serve(socket, "nobody")
		f.whole()
		worker := children(cmd.Process.Pid)[0]
		if err := cmd.Process.Signal(how); err != nil {
			t.Fatal(err)
		}
		err := cmd.Wait()
		if how == syscall.SIGTERM && err != nil {
			t.Errorf("told to end: %v\n%s", err, f.log)
		}
		until(t, "the end of the worker", func() bool { return gone(worker) })
		f.expect(cantTell, "mrose", "a secret")
	}
	first := f.serve(socket, "nobody")
	f.whole()
	second := f.serve(socket, "nobody") // one is enough
	if err := second.Wait(); err == nil {
		t.Error("two dewey-pams listen on one socket")
	}
	f.expect(in, "mrose", "a secret")
	_ = first
}

// Who has nothing to ask at the time keeps no process from others.
func TestServiceShared(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "socket")
	f := newFixture(t, permit, func(c *Config) { c.Helper, c.Socket = "", socket })
	f.serve(socket, "nobody")
	f.whole()
	for range 2 { // as many as there are processes
		c, err := f.open(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		f.keep(c)
	}
	other, err := New(f.c)
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	if _, err := other.CheckPassword(t.Context(), auth.Attempt{User: "mrose", Password: "a secret"}); err != nil {
		t.Error(err)
	}
}

// Only programs of those who may ask are answered.
func TestServiceAllow(t *testing.T) {
	if !needsRoot(t) {
		return
	}
	dir, err := os.MkdirTemp("", "pam") // for nobody, too
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	f := &fixture{t: t, dir: t.TempDir(), log: &log{}}
	f.service("dewey", permit)
	for allow, want := range map[string]string{"nobody": in, "65534": in, "daemon,nobody": in, "daemon": cantTell, "nosuchuser": cantTell} {
		socket := filepath.Join(dir, allow)
		f.serve(socket, allow)
		until(t, "the socket", func() bool { st, err := os.Stat(socket); return err == nil && st.Mode().Perm() == 0o666 })
		binary := filepath.Join(dir, "test")
		self, err := os.ReadFile("/proc/self/exe")
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(binary, self, 0o755); err != nil {
			t.Fatal(err)
		}
		cmd := exec.Command(binary, "-socket", socket)
		cmd.Env = append(os.Environ(), "DEWEY_PAM_CHILD=1")
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
		if out, err := cmd.CombinedOutput(); string(out) != want+"\n" {
			t.Errorf("-allow %s: %q, %v; want %s\n%s", allow, out, err, want, f.log)
		}
	}
}

// askSocket is what the test binary does as a child that is nobody.
func askSocket(args []string) error {
	b, err := New(Config{Socket: args[1], Virtual: true, Timeout: patience})
	if err != nil {
		return err
	}
	defer b.Close()
	_, err = b.CheckPassword(context.Background(), auth.Attempt{User: "mrose", Password: "a secret", Remote: netip.IPv6LinkLocalAllNodes()})
	fmt.Println(outcome(err))
	return nil
}

// Close in the middle of a start leaves no program behind.
func TestCloseWhileStarting(t *testing.T) {
	dir := t.TempDir()
	path, begun, on := filepath.Join(dir, "helper"), filepath.Join(dir, "begun"), filepath.Join(dir, "on")
	text := "#!/bin/sh\necho $$ >" + begun + "\nwhile ! test -e " + on + "; do sleep 0.01; done\necho 'dewey-pam 1' >&3\ncat <&3\n"
	if err := os.WriteFile(path, []byte(text), 0o755); err != nil {
		t.Fatal(err)
	}
	b, err := New(Config{Helper: path, Timeout: patience})
	if err != nil {
		t.Fatal(err)
	}
	started, closed := make(chan error), make(chan error)
	go func() { started <- b.Start(t.Context()) }()
	var pid int
	until(t, "a program that starts", func() bool {
		text, _ := os.ReadFile(begun)
		pid, _ = strconv.Atoi(strings.TrimSpace(string(text)))
		return pid != 0
	})
	go func() { closed <- b.Close() }()
	until(t, "a close", func() bool {
		b.helper.mu.Lock()
		defer b.helper.mu.Unlock()
		return b.helper.closed
	})
	if err := os.WriteFile(on, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(<-started, <-closed); err != nil {
		t.Error(err)
	}
	if !gone(pid) {
		t.Error("the program runs on")
	}
}
