package confine

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// patience is how long a test waits for a child.
const patience = 30 * time.Second

// children are what the test binary does when it is a child: what can be done to a process once only.
var children = map[string]func(args []string){}

func TestMain(m *testing.M) {
	if name := os.Getenv("CONFINE_CHILD"); name != "" {
		children[name](os.Args[1:])
		os.Exit(0)
	}
	code := m.Run()
	if staticDir != "" {
		_ = os.RemoveAll(staticDir)
	}
	os.Exit(code)
}

var staticDir string

// static builds the test binary as dewey is built, without cgo: the race detector's has cgo.
var static = sync.OnceValues(func() (string, error) {
	var err error
	if staticDir, err = os.MkdirTemp("", "confine"); err != nil {
		return "", err
	}
	if err := os.Chmod(staticDir, 0o755); err != nil { // for children that are not root
		return "", err
	}
	name := filepath.Join(staticDir, "child")
	cmd := exec.Command("go", "test", "-c", "-o", name, ".")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("%w: %s", err, out)
	}
	return name, nil
})

// needsRoot ends a test that only root can do. Away from CI that is no fault of the code.
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

func child(t *testing.T, name string, args ...string) *exec.Cmd {
	t.Helper()
	binary, err := static()
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience) // a cleanup waits for it
	t.Cleanup(cancel)
	cmd := exec.CommandContext(ctx, binary, args...)
	cmd.Env = append(os.Environ(), "CONFINE_CHILD="+name)
	return cmd
}

// run returns what a child said, by what it was about.
func run(t *testing.T, cmd *exec.Cmd) map[string]string {
	t.Helper()
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	said := map[string]string{}
	for line := range strings.Lines(string(out)) {
		about, what, _ := strings.Cut(strings.TrimSuffix(line, "\n"), ": ")
		said[about] = what
	}
	return said
}

// say tells the parent how something went: "ok", or the system's error.
func say(about string, err error) {
	var errno syscall.Errno
	switch {
	case err == nil:
		fmt.Printf("%s: ok\n", about)
	case errors.As(err, &errno):
		fmt.Printf("%s: %s\n", about, errno.Error())
	default:
		fmt.Printf("%s: %v\n", about, err)
	}
}

// expect compares what a child said with what it should have.
func expect(t *testing.T, said, want map[string]string) {
	t.Helper()
	for about, what := range want {
		if said[about] != what {
			t.Errorf("%s: %q, want %q", about, said[about], what)
		}
	}
	for about, what := range said {
		if _, ok := want[about]; !ok {
			t.Errorf("unexpected: %s: %s", about, what)
		}
	}
}

// threads starts goroutines on threads of their own. Each waits, then does f; the last one is started
// after the wait, by a thread that was there before.
func threads(n int, f func() error) (release func() error) {
	begin, done := make(chan struct{}), make(chan error, n)
	var ready sync.WaitGroup
	for range n {
		ready.Add(1)
		go func() {
			runtime.LockOSThread()
			ready.Done()
			<-begin
			done <- f()
		}()
	}
	ready.Wait()
	return func() error {
		close(begin)
		var all []error
		for range n {
			all = append(all, <-done)
		}
		later := make(chan error)
		go func() {
			runtime.LockOSThread()
			later <- f()
		}()
		all = append(all, <-later)
		for _, err := range all {
			if fmt.Sprint(err) != fmt.Sprint(all[0]) {
				return fmt.Errorf("threads differ: %w", errors.Join(all...))
			}
		}
		return all[0]
	}
}

// pause says what the child is ready for and waits until the parent closes its standard input.
func pause(about string) {
	say(about, nil)
	_, _ = io.Copy(io.Discard, os.Stdin)
}

// paused starts a child and returns when it has said about.
func paused(t *testing.T, cmd *exec.Cmd, about string) (rest *bufio.Scanner) {
	t.Helper()
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = stdin.Close()
		_, _ = io.Copy(io.Discard, stdout)
		if err := cmd.Wait(); err != nil {
			t.Error(err)
		}
	})
	rest = bufio.NewScanner(stdout)
	for rest.Scan() {
		if rest.Text() == about+": ok" {
			return rest
		}
		t.Log(rest.Text())
	}
	t.Fatalf("the child never said %q", about)
	return nil
}
