package clients

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// nobody is who a client runs as when the tests run as root: no mail client should be run by root,
// and getmail and fdm know it.
const nobody = 65534

// An account is a maildrop as one client sees it.
type account struct {
	port, password string
	home           string // a folder of the client's own: configuration, and what it remembers
	keep           bool   // leave mail on the server
	way            way    // the zero value: as the client does by itself, starting without TLS

	ca        string // the file with whom the client believes
	cert, key string // the files of a certificate of the client's own, if it has one
	input     string // what is typed
}

func newAccount(t *testing.T, s *server, password string) *account {
	t.Helper()
	home, err := os.MkdirTemp("", "client") // not t.TempDir, whose parent only its owner may enter
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(home) })
	a := &account{password: password, home: home}
	a.give(t, a.home)
	if s != nil {
		a.port = s.port("")
		if s.ca != "" { // the control has no TLS
			a.certify(t, s.ca)
		}
	}
	return a
}

// out is the folder that takes the messages: one a file, or a Maildir.
func (a *account) out() string { return filepath.Join(a.home, "out") }

// clear makes the folder out anew.
func (a *account) clear(t *testing.T) {
	t.Helper()
	if err := errors.Join(os.RemoveAll(a.out()), os.Mkdir(a.out(), 0o700)); err != nil {
		t.Fatal(err)
	}
	a.give(t, a.out())
}

// makeMaildir makes a Maildir of the folder out.
func (a *account) makeMaildir(t *testing.T) {
	t.Helper()
	makeMaildir(t, a.out())
	for _, dir := range []string{"tmp", "new", "cur"} {
		a.give(t, filepath.Join(a.out(), dir))
	}
}

// write writes a file of the client's, for instance its configuration, and returns its path.
func (a *account) write(t *testing.T, name, content string) string {
	t.Helper()
	path := filepath.Join(a.home, name)
	writeFile(t, path, content)
	a.give(t, path)
	return path
}

// script copies a script from testdata to where the client can read it, whoever owns the checkout.
func (a *account) script(t *testing.T, name string) string {
	t.Helper()
	content, err := os.ReadFile(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	return a.write(t, name, string(content))
}

// give makes a file the client's own.
func (a *account) give(t *testing.T, path string) {
	t.Helper()
	if os.Getuid() != 0 {
		return
	}
	if err := os.Chown(path, nobody, nobody); err != nil {
		t.Fatal(err)
	}
}

func (a *account) mode() string {
	if a.keep {
		return "keep"
	}
	return "delete"
}

// remembered is the set of unique-ids that remember has written down, for a client that leaves that
// to its user.
func (a *account) remembered(t *testing.T) map[string]bool {
	t.Helper()
	seen := map[string]bool{}
	content, err := os.ReadFile(filepath.Join(a.home, "seen"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	for _, uid := range strings.Fields(string(content)) {
		seen[uid] = true
	}
	return seen
}

func (a *account) remember(t *testing.T, uid string) {
	t.Helper()
	content, err := os.ReadFile(filepath.Join(a.home, "seen"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	a.write(t, "seen", string(content)+uid+"\n")
}

// An outcome is how a command ended.
type outcome struct {
	command        string
	exit           int
	stdout, stderr string
}

func (o outcome) text() string {
	return fmt.Sprintf("$ %s\n%s%s(exit %d)", o.command, tail(o.stdout, 30), tail(o.stderr, 30), o.exit)
}

// command runs one command with the account's home as its home, and no longer than two minutes.
func (a *account) command(t *testing.T, env []string, name string, args ...string) outcome {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir = a.home
	cmd.WaitDelay = 5 * time.Second
	cmd.Env = append([]string{
		"HOME=" + a.home, "FETCHMAILHOME=" + a.home, "TMPDIR=" + a.home,
		"PATH=/usr/bin:/bin:/usr/sbin:/sbin", "LC_ALL=C.UTF-8", "TERM=dumb",
	}, env...)
	if os.Getuid() == 0 {
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
	}
	var stdout, stderr bytes.Buffer
	cmd.Stdin = strings.NewReader(a.input)
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err := cmd.Run()
	o := outcome{cmd.String(), cmd.ProcessState.ExitCode(), stdout.String(), stderr.String()}
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Logf("%s: %v", name, err)
	}
	if ctx.Err() != nil {
		t.Fatalf("no end after two minutes:\n%s", o.text())
	}
	return o
}
