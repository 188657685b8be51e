// Package scanners holds no code of its own. Its tests turn what attackers and auditors use, as Debian 12
// ships it, on a running dewey, each as a process of its own: what it offers in TLS, what it is taken
// for, how fast a password can be guessed and whether the users still get in meanwhile; and what fail2ban
// makes of its log.
//
// The programs are installed by make test; test/packages.txt at the top of the checkout names them. A
// program that is missing fails the test: a scanner that nobody runs proves nothing.
package scanners

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"
)

var buildDir string

func TestMain(m *testing.M) {
	flag.Parse()
	dir, err := os.MkdirTemp("", "dewey")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	buildDir = dir
	code := m.Run()
	_ = os.RemoveAll(dir)
	os.Exit(code)
}

// A tool is a program and Debian's package that has it.
type tool struct{ program, pkg string }

// run runs the tool in a folder of its own, with nothing of the environment but env and a PATH, for two
// minutes at most.
func (p tool) run(t *testing.T, env []string, args ...string) (stdout, stderr string, exit int) {
	t.Helper()
	return p.runWith(t, nil, env, args...)
}

// runWith runs the tool and lets somebody type, who sees what it says; what it reads from stays open to
// its end.
func (p tool) runWith(t *testing.T, typist func(said func() string, keys io.Writer), env []string, args ...string) (stdout, stderr string, exit int) {
	t.Helper()
	path, err := exec.LookPath(p.program)
	if err != nil {
		t.Fatalf("%s does not run: install Debian's package %s (make test does): %v", p.program, p.pkg, err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, path, args...)
	cmd.Dir = t.TempDir()
	cmd.WaitDelay = 5 * time.Second
	cmd.Env = append([]string{
		"HOME=" + cmd.Dir, "TMPDIR=" + cmd.Dir,
		"PATH=/usr/bin:/bin:/usr/sbin:/sbin", "LC_ALL=C.UTF-8", "TERM=dumb",
	}, env...)
	var out, errs lockedBuffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if typist != nil {
		stdin, keys, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		defer stdin.Close()
		defer keys.Close()
		cmd.Stdin = stdin
		typed := make(chan struct{})
		defer func() { <-typed }()
		go func() {
			defer close(typed)
			typist(out.String, keys)
		}()
	}
	err = cmd.Run()
	if other := (*exec.ExitError)(nil); ctx.Err() != nil || err != nil && !errors.As(err, &other) {
		t.Fatalf("%s: %v, %v\n%s%s", cmd, err, ctx.Err(), tail(out.String(), 30), tail(errs.String(), 30))
	}
	return out.String(), errs.String(), cmd.ProcessState.ExitCode()
}

func tail(text string, lines int) string {
	all := strings.SplitAfter(text, "\n")
	return strings.Join(all[max(0, len(all)-lines):], "")
}
