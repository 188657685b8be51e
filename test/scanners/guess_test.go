package scanners

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

var hydra = tool{"hydra", "hydra"}

// Hydra guesses with 16 connections at once. It must come to a handful of guesses a minute; meanwhile the
// users get in: from elsewhere at once, from the same address within seconds, and the one at whom it
// guesses, too. fail2ban then finds each guess in the log.
func TestHydra(t *testing.T) {
	t.Parallel()
	const (
		words = 60
		limit = 45 * time.Second
		// Unhindered, 16 connections with a second's delay each would be through with the words in four
		// seconds. Slowed down, an address has about three guesses free and then 7.5 a minute; a few more
		// may be under way.
		most = 30
	)
	s := startDewey(t, user, "alice", "bob")
	var list strings.Builder
	for i := range words {
		fmt.Fprintf(&list, "wrong%d\n", i)
	}
	dir := t.TempDir()
	path := filepath.Join(dir, "words")
	if err := os.WriteFile(path, []byte(list.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	program, err := exec.LookPath(hydra.program)
	if err != nil {
		t.Fatalf("install Debian's package %s (make test does): %v", hydra.pkg, err)
	}
	guesses := func() int { return strings.Count(s.log.String(), `msg="login refused"`) }

	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	var said lockedBuffer
	cmd := exec.CommandContext(ctx, program, "-I", "-l", user, "-P", path, "-t", "16", "-s", port(s.pop3), "127.0.0.1", "pop3")
	cmd.Dir, cmd.Stdout, cmd.Stderr = dir, &said, &said
	cmd.Env = []string{"HOME=" + dir, "PATH=/usr/bin:/bin", "TERM=dumb"}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // it has children
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = 5 * time.Second
	began := time.Now()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan time.Duration, 1)
	go func() {
		_ = cmd.Wait() // the time is up, or its words are
		ended <- time.Since(began)
	}()
	t.Cleanup(func() {
		cancel()
		if t.Failed() {
			t.Logf("hydra:\n%s", tail(said.String(), 30))
		}
	})

	await(t, 30*time.Second, "hydra has guessed a few times", func() bool { return guesses() >= 3 })
	for _, who := range []struct {
		name, from, what string
		most             time.Duration
	}{
		{"alice", "127.0.0.2", "another user, from elsewhere", 3 * time.Second},
		{"bob", "127.0.0.1", "another user, from the same address", 20 * time.Second},
		{"alice", "127.0.0.2", "a user who was there before", 3 * time.Second},
		{user, "127.0.0.3", "the one it guesses at, from elsewhere", 20 * time.Second},
	} {
		took := s.login(t, who.from, who.name)
		t.Logf("%s: in after %v", who.what, took.Round(time.Millisecond))
		if took > who.most {
			t.Errorf("%s: in after %v, want at most %v", who.what, took, who.most)
		}
	}
	took := <-ended
	n := guesses()
	t.Logf("hydra guessed %d times in %v: %.1f a minute", n, took.Round(time.Second), float64(n)/took.Minutes())
	if n > most {
		t.Errorf("%d guesses in %v, want at most %d", n, took, most)
	}
	if strings.Contains(said.String(), "host:") {
		t.Errorf("hydra found a password")
	}

	found := findIn(t, "", s.log.String())
	if len(found) != 2*n {
		t.Errorf("fail2ban finds %d of %d guesses", len(found)/2, n)
	}
	for i := 1; i < len(found); i += 2 {
		if found[i] != "127.0.0.1" {
			t.Errorf("fail2ban finds %s", found[i])
		}
	}
}
