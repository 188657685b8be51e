package maildir_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"pgregory.net/rapid"

	"dewey/maildrop"
	"dewey/maildrop/maildroptest"
	"dewey/store/maildir"
)

// Two seconds after the last change a login reads no folder and no list.
func TestWarmLogin(t *testing.T) {
	f := newFixture(t)
	for i := range 5 {
		f.deliver(fmt.Sprintf("Subject: %d\n", i))
	}
	before := f.ids()
	var reads []string
	f.store.SetTrace(func(op, path string) { reads = append(reads, op+" "+filepath.Base(path)) })
	deadline := time.Now().Add(20 * time.Second)
	for {
		reads = nil
		if got := f.ids(); !slices.Equal(got, before) {
			t.Fatalf("unique-ids %q, before %q", got, before)
		}
		if len(reads) == 0 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("still reading %q", reads)
		}
		time.Sleep(100 * time.Millisecond) // the clock of the file system has to move on
	}
	// One delivery: the other folder is not read.
	f.deliver("Subject: new\n")
	reads = nil
	if got := f.ids(); len(got) != 6 || !slices.Equal(got[:5], before) {
		t.Errorf("unique-ids %q, before %q", got, before)
	}
	if slices.Contains(reads, "readdir cur") {
		t.Errorf("reads %q", reads)
	}
	// A message's flags change, and its file is removed: no list has to be read.
	f.flag(f.files["Subject: 3\n"], "S")
	f.check(os.Remove(f.find(f.files["Subject: 0\n"])))
	if got := f.ids(); !slices.Equal(got[:4], before[1:]) {
		t.Errorf("unique-ids %q, before %q", got, before)
	}
	f.fsck()
}

// So it is where there are more sizes that names claim than a login measures: each login would measure some more, and
// write the list.
func TestWarmLoginOfClaims(t *testing.T) {
	f := newFixture(t)
	f.trustTimes()
	for _, dir := range []string{"new", "cur"} {
		f.check(os.MkdirAll(filepath.Join(f.root, dir), 0o700))
	}
	const messages = 3100
	for i := range messages {
		f.put(fmt.Sprintf("cur/%d.M1P%d.host,S=11,W=12:2,S", 1700000000+i, i), "Subject: x\n")
	}
	for range 2 { // the first measures some, the second reads what it wrote
		f.ids()
	}
	var reads []string
	f.store.SetTrace(func(op, path string) { reads = append(reads, op+" "+filepath.Base(path)) })
	if n := len(f.ids()); n != messages || len(reads) > 0 {
		t.Errorf("the third login, of %d messages of %d, reads %q", n, messages, reads)
	}
}

// The cache as the proof of everything, in random operations: each change gets a time of its own.
func TestWarmRandom(t *testing.T) {
	maildroptest.Run(t, func(t maildroptest.TB) maildroptest.Maildrop {
		f := newFixture(t)
		f.trustTimes()
		if rt, ok := t.(*rapid.T); ok {
			f.random = func(n int) int { return rapid.IntRange(0, n-1).Draw(rt, "choice") }
		}
		return f.suite()
	})
}

func TestCacheIsBounded(t *testing.T) {
	f := newFixture(t)
	parent := filepath.Dir(f.root)
	store := maildir.New(maildir.Options{
		Path:        func(o maildrop.Owner) (string, error) { return filepath.Join(parent, o.Name), nil },
		CacheOctets: 5000,
	})
	for i := range 40 {
		f.root = filepath.Join(parent, fmt.Sprint(i))
		f.deliver("one\n")
		d, err := store.Open(t.Context(), maildrop.Owner{Name: fmt.Sprint(i)})
		f.check(err)
		f.close(d)
	}
	if n, octets := store.Cached(); n < 2 || n > 10 || octets > 5000 {
		t.Errorf("%d scans of %d octets are kept", n, octets)
	}
}

// A login that is cut short while it measures keeps what it has.
func TestFirstLoginGoesOn(t *testing.T) {
	f := newFixture(t)
	for i := range 300 {
		f.deliver(fmt.Sprintf("Subject: %d\n", i))
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var opened atomic.Int32
	f.store.SetFault(func(op, _ string) error {
		if op == "open" && opened.Add(1) == 200 {
			cancel()
		}
		return nil
	})
	if _, err := f.store.Open(ctx, maildrop.Owner{}); !errors.Is(err, context.Canceled) {
		t.Fatalf("Open: %v, want context.Canceled", err)
	}
	f.restart()
	opened.Store(1000)
	f.store.SetFault(func(op, _ string) error {
		if op == "open" {
			opened.Add(1)
		}
		return nil
	})
	if got := len(f.ids()); got != 300 {
		t.Errorf("%d messages", got)
	}
	if n := opened.Load() - 1000; n > 150 {
		t.Errorf("the second login measured %d messages of 300", n)
	}
	f.fsck()
}
