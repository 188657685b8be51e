package maildir_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"testing"
	"testing/synctest"
	"time"

	"dewey/maildrop"
	"dewey/store/maildir"
)

// A session in another process; its lock dies with it, and a refused one takes nothing away.
func TestTrap33LockAcrossProcesses(t *testing.T) {
	if root := os.Getenv("MAILDIR_HOLD"); root != "" {
		s := maildir.New(maildir.Options{Path: func(maildrop.Owner) (string, error) { return root, nil }})
		if _, err := s.Open(t.Context(), maildrop.Owner{}); err != nil {
			t.Fatal(err)
		}
		fmt.Println("held")
		select {}
	}
	f := newFixture(t)
	f.deliver("one\n")
	cmd := exec.Command(os.Args[0], "-test.run", "^"+t.Name()+"$")
	cmd.Env = append(os.Environ(), "MAILDIR_HOLD="+f.root)
	out, err := cmd.StdoutPipe()
	f.check(err)
	f.check(cmd.Start())
	if _, err := io.ReadFull(out, make([]byte, len("held\n"))); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		f.openErr(maildrop.ErrInUse)
		f.restart() // another Store has a lock file of its own open
	}
	f.check(cmd.Process.Kill())
	_ = cmd.Wait()
	if got := len(f.ids()); got != 1 {
		t.Errorf("%d messages", got)
	}
}

// A second login waits for the first to end, and no longer than LockWait.
func TestLockWait(t *testing.T) {
	f := newFixture(t)
	f.deliver("one\n")
	f.ids()
	synctest.Test(t, func(t *testing.T) {
		stores := []*maildir.Store{f.newStore(maildir.Options{}), f.newStore(maildir.Options{})}
		for i, second := range stores { // the same Store, then as another process
			first, err := stores[0].Open(t.Context(), maildrop.Owner{})
			if err != nil {
				t.Fatal(err)
			}
			start := time.Now()
			if _, err := second.Open(t.Context(), maildrop.Owner{}); !errors.Is(err, maildrop.ErrInUse) {
				t.Errorf("second Open: %v, want ErrInUse", err)
			}
			if waited := time.Since(start); waited != 2*time.Second {
				t.Errorf("store %d waited %v, want 2s", i, waited)
			}
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			if _, err := second.Open(ctx, maildrop.Owner{}); !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("Open with a deadline: %v", err)
			}
			cancel()
			time.AfterFunc(time.Second, func() { _ = first.Close() })
			d, err := second.Open(t.Context(), maildrop.Owner{})
			if err != nil {
				t.Fatalf("Open after Close: %v", err)
			}
			if err := d.Close(); err != nil {
				t.Error(err)
			}
		}
	})
}
