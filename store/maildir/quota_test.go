package maildir_test

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"pgregory.net/rapid"

	"dewey/maildrop"
	"dewey/store/maildir"
)

// checkUsage holds the count against the files themselves, which have true sizes.
func (f *fixture) checkUsage() maildir.Usage {
	f.t.Helper()
	want := f.usage()
	got, err := f.store.Usage(f.t.Context(), maildrop.Owner{})
	f.check(err)
	if got != want {
		f.t.Fatalf("counted %+v, there is %+v", got, want)
	}
	return got
}

// usage is what the files themselves say.
func (f *fixture) usage() (want maildir.Usage) {
	f.t.Helper()
	for _, dir := range []string{"new", "cur"} {
		entries, err := os.ReadDir(filepath.Join(f.root, dir))
		if !errors.Is(err, fs.ErrNotExist) {
			f.check(err)
		}
		for _, e := range entries {
			info, err := e.Info()
			f.check(err)
			want.Messages++
			want.Octets += info.Size()
		}
	}
	return want
}

// text is a message of so many octets.
func text(octets int) string { return strings.Repeat("x", octets) }

// ticked waits until the clock of the file system has moved on, so that times prove something.
func (f *fixture) ticked() {
	f.t.Helper()
	time.Sleep(50 * time.Millisecond)
}

func (f *fixture) fill(octets int, want error) {
	f.t.Helper()
	if err := f.tryDeposit(text(octets)); !errors.Is(err, want) {
		f.t.Fatalf("a message of %d octets: %v, want %v", octets, err, want)
	}
	f.checkUsage()
}

func TestQuota(t *testing.T) {
	f := newFixture(t)
	f.quota = maildrop.Quota{Octets: 100}
	f.fill(101, maildrop.ErrFull) // alone larger than the quota
	f.fill(60, nil)
	f.fill(41, maildrop.ErrFull)
	f.fill(40, nil)
	if _, err := f.store.Deposit(t.Context(), maildrop.Owner{}); !errors.Is(err, maildrop.ErrFull) {
		t.Errorf("Deposit into a full maildrop: %v", err)
	}
	// His own quota counts more than that of all; what it does not say is that of all.
	for quota, want := range map[maildrop.Quota]error{
		{Octets: 101}: nil, {Octets: maildrop.NoQuota}: nil, {Messages: 3}: maildrop.ErrFull, {}: maildrop.ErrFull,
		{Octets: maildrop.NoQuota, Messages: 2}: maildrop.ErrFull, {Octets: maildrop.NoQuota, Messages: 3}: nil,
	} {
		d, err := f.store.Deposit(t.Context(), maildrop.Owner{Quota: quota})
		if !errors.Is(err, want) {
			t.Errorf("%+v: %v, want %v", quota, err, want)
		}
		if err == nil {
			d.Discard()
		}
	}
	// Who has too much can log in, reads it all, and has room when he has removed some.
	f.quota = maildrop.Quota{Octets: 50, Messages: 1}
	d := f.open()
	if n := len(d.Messages()); n != 2 {
		t.Fatalf("%d messages", n)
	}
	f.read(d, 1)
	f.fill(1, maildrop.ErrFull)
	f.check(d.Remove(t.Context(), []int{1}))
	f.checkUsage()
	f.fill(1, maildrop.ErrFull)
	f.check(d.Remove(t.Context(), []int{2}))
	f.close(d)
	f.fill(50, nil)
	f.fsckDeposits()
}

// The count against a model: deposits, sessions that remove, others who deliver, move, flag and remove, restarts.
func TestQuotaRandom(t *testing.T) {
	inMemory(t)
	for _, trust := range []bool{true, false} {
		t.Run(fmt.Sprintf("trust=%v", trust), func(t *testing.T) {
			rapid.Check(t, func(rt *rapid.T) { quotaRandom(rt, trust) })
		})
	}
}

func quotaRandom(t *rapid.T, trust bool) {
	f := newFixture(t)
	f.random = func(n int) int { return rapid.IntRange(0, n-1).Draw(t, "choice") }
	// Each change of others gets a time of its own, so that it is sound to trust a count as long as they hold.
	f.trustTimes()
	if trust {
		f.store.SetSettle(time.Hour)
	}
	for _, dir := range []string{"new", "cur"} {
		f.check(os.MkdirAll(filepath.Join(f.root, dir), 0o700))
	}
	var session maildrop.Maildrop
	serial := 0
	t.Repeat(map[string]func(*rapid.T){
		"": func(*rapid.T) {
			if f.random(3) == 0 { // not each time: several changes are to meet
				f.checkUsage()
			}
		},
		"quota": func(t *rapid.T) {
			f.quota = maildrop.Quota{Octets: rapid.Int64Range(0, 300).Draw(t, "octets"), Messages: rapid.Int64Range(0, 6).Draw(t, "messages")}
		},
		"deposit": func(t *rapid.T) {
			used, octets := f.usage(), rapid.IntRange(1, 120).Draw(t, "octets")
			var want error
			if q := f.quota; q.Octets > 0 && used.Octets+int64(octets) > q.Octets || q.Messages > 0 && used.Messages+1 > q.Messages {
				want = maildrop.ErrFull
			}
			if err := f.tryDeposit(text(octets)); !errors.Is(err, want) {
				t.Fatalf("%d octets: %v, want %v; there is %+v, the quota is %+v", octets, err, want, used, f.quota)
			}
		},
		"deliver": func(t *rapid.T) {
			serial++
			f.deliver(fmt.Sprintf("%d%s\n", serial, text(rapid.IntRange(0, 50).Draw(t, "octets"))))
		},
		"expunge": func(*rapid.T) {
			found, err := filepath.Glob(filepath.Join(f.root, "???", "*"))
			f.check(err)
			var files []string
			for _, path := range found {
				if dir := filepath.Base(filepath.Dir(path)); dir != "tmp" {
					files = append(files, path)
				}
			}
			if len(files) > 0 {
				f.check(os.Remove(files[f.random(len(files))]))
				f.changed()
			}
		},
		"disturb": func(*rapid.T) { f.disturb() },
		"open": func(*rapid.T) {
			if session == nil {
				session = f.open()
			}
		},
		"remove": func(*rapid.T) {
			if session == nil {
				return
			}
			var numbers []int
			for n := range session.Messages() {
				if f.random(2) == 0 {
					numbers = append(numbers, n+1)
				}
			}
			f.check(session.Remove(f.t.Context(), numbers))
		},
		"close": func(*rapid.T) {
			if session != nil {
				f.close(session)
				session = nil
			}
		},
		"restart": func(*rapid.T) {
			if session != nil {
				maildir.Kill(session)
				session = nil
			}
			f.restart()
			if trust {
				f.store.SetSettle(time.Hour)
			}
		},
	})
	if session != nil {
		f.close(session)
	}
}

// However many come at once, they take what fits in and not more.
func TestQuotaAtTheBorder(t *testing.T) {
	inMemory(t)
	for _, quota := range []maildrop.Quota{{Octets: 205}, {Messages: 20}} {
		f := newFixture(t)
		f.quota = quota
		var taken atomic.Int64
		var all sync.WaitGroup
		for range 60 {
			all.Go(func() {
				switch err := f.tryDeposit(text(10)); {
				case err == nil:
					taken.Add(1)
				case !errors.Is(err, maildrop.ErrFull):
					t.Error(err)
				}
			})
		}
		all.Wait()
		if used := f.checkUsage(); taken.Load() != 20 || used.Messages != 20 {
			t.Errorf("%+v: %d were taken in, %d are there", quota, taken.Load(), used.Messages)
		}
		// And while sessions remove: what is gone at the end is free, no more.
		for range 20 {
			all.Go(func() { _ = f.tryDeposit(text(10)) })
		}
		d := f.open()
		f.check(d.Remove(t.Context(), []int{1, 2, 3}))
		f.close(d)
		all.Wait()
		for f.tryDeposit(text(10)) == nil {
			taken.Add(1)
		}
		if used := f.checkUsage(); used.Messages != 20 {
			t.Errorf("%+v: %d are there", quota, used.Messages)
		}
	}
}

// A delivery into a maildrop of many does not read it, nor does a removal, nor a refusal after the first.
func TestQuotaReadsNoFolder(t *testing.T) {
	f := newFixture(t)
	for i := range 300 {
		f.put(fmt.Sprintf("cur/%d.M1.host,S=7:2,S", i), "1234567")
	}
	f.put("new/300.M1.host,S=7", "1234567")
	f.trustTimes()
	f.ticked()
	f.quota = maildrop.Quota{Octets: 301*7 + 50}
	reads := 0
	f.store.SetTrace(func(op, path string) {
		if op == "readdir" && filepath.Base(path) != "tmp" {
			reads++
		}
	})
	for range 5 {
		f.fill(10, nil)
	}
	if reads != 2 {
		t.Errorf("5 deposits read folders %d times, want 2: once each", reads)
	}
	f.store.SetSettle(time.Hour)
	f.fill(1, maildrop.ErrFull) // a count in doubt refuses nobody
	reads = 0
	for range 5 {
		f.fill(1, maildrop.ErrFull)
	}
	if reads != 0 {
		t.Errorf("5 refusals read folders %d times", reads)
	}
	d := f.open()
	reads = 0
	f.check(d.Remove(t.Context(), []int{1, 2, 304}))
	f.fill(24, nil)
	f.close(d)
	if reads != 0 {
		t.Errorf("a removal and a deposit read folders %d times", reads)
	}
	// After a login the scan is there to be counted.
	f.restart()
	f.ticked()
	f.ids()
	f.store.SetTrace(func(op, path string) {
		if op == "readdir" && filepath.Base(path) != "tmp" {
			t.Errorf("%s is read", path)
		}
	})
	f.checkUsage()
	// If it still holds, for both folders.
	for _, name := range []string{"new/1000.host", "cur/1001.host:2,"} {
		f.restart()
		f.ticked()
		f.ids()
		f.put(name, "x")
		f.checkUsage()
	}
}

// A message with two names counts once, and is subtracted once.
func TestQuotaTwoNames(t *testing.T) {
	f := newFixture(t)
	f.trustTimes()
	f.store.SetSettle(time.Hour)
	f.put("cur/1.host,S=7:2,S", "1234567")
	f.put("cur/2.host,S=5:2,S", "12345")
	f.put("new/3.host", "1")
	f.check(os.Link(filepath.Join(f.root, "cur/1.host,S=7:2,S"), filepath.Join(f.root, "new/1.host,S=7")))
	d := f.open()
	if got, err := f.store.Usage(t.Context(), maildrop.Owner{}); err != nil || got != (maildir.Usage{Octets: 13, Messages: 3}) {
		t.Fatalf("%+v, %v", got, err)
	}
	f.check(d.Remove(t.Context(), []int{1}))
	f.checkUsage()
	f.check(d.Remove(t.Context(), []int{2, 3}))
	f.checkUsage()
	f.close(d)
}

// What somebody else removes in the very instant of a delivery is not seen at once; nobody is refused for it.
func TestQuotaInDoubt(t *testing.T) {
	f := newFixture(t)
	f.trustTimes()
	f.quota = maildrop.Quota{Octets: 100}
	f.put("cur/1.host", "")
	f.check(os.Remove(filepath.Join(f.root, "cur/1.host")))
	base := f.deliver(text(50))
	f.ticked()
	f.fill(1, nil)
	reads := 0
	f.store.SetTrace(func(op, path string) {
		if op == "readdir" && filepath.Base(path) != "tmp" {
			reads++
		}
	})
	f.store.SetFault(func(op, _ string) error {
		if op == "rename" {
			f.check(os.Remove(f.find(base)))
			f.store.SetFault(nil)
		}
		return nil
	})
	for i, octets := range []int{30, 50} {
		if err := f.tryDeposit(text(octets)); err != nil || (reads > 0) != (i > 0) {
			t.Fatalf("%d octets: %v, folders were read %d times", octets, err, reads)
		}
	}
	f.fill(19, nil)
	f.fill(1, maildrop.ErrFull)
}

// A fault or a crash around the rename leaves nothing wrong behind, here or in the next process.
func TestQuotaAfterFaults(t *testing.T) {
	for _, op := range []string{"create", "write", "sync", "rename", "sync new"} {
		f := newFixture(t)
		f.quota = maildrop.Quota{Octets: 100}
		f.fill(50, nil)
		panics := strings.HasSuffix(op, "new")
		f.store.SetFault(func(o, path string) error {
			if o+" "+filepath.Base(path) == op && panics {
				panic("between rename and sync")
			}
			if o == op {
				return syscall.EIO
			}
			return nil
		})
		func() {
			defer func() { _ = recover() }()
			if err := f.tryDeposit(text(50)); err == nil {
				t.Errorf("%s: no error", op)
			}
		}()
		f.store.SetFault(nil)
		left := 100 - f.checkUsage().Octets
		f.restart()
		f.checkUsage()
		f.fill(int(left)+1, maildrop.ErrFull)
		if left > 0 {
			f.fill(int(left), nil)
		}
	}
}

// A name's word for the size counts, files that are no messages do not, two names of one file do once; and a fault is no
// empty maildrop.
func TestUsage(t *testing.T) {
	f := newFixture(t)
	usage := func() maildir.Usage {
		t.Helper()
		u, err := f.store.Usage(t.Context(), maildrop.Owner{})
		f.check(err)
		return u
	}
	if got := usage(); got != (maildir.Usage{}) || exists(f.root) {
		t.Errorf("no Maildir: %+v", got)
	}
	f.check(os.MkdirAll(f.root, 0o700))
	if got := usage(); got != (maildir.Usage{}) || exists(filepath.Join(f.root, "new")) {
		t.Errorf("an empty folder: %+v", got)
	}
	f.put("new/1.host,S=1000", "x")
	f.put("new/2.host,S=9999999999999999", "12345")
	f.put("new/.3.host", "x")
	f.put("cur/4.host:2,S", "1234567")
	f.put("cur/5.host/file", "x")
	f.put(".Sent/cur/6.host", "x")
	f.check(os.Link(filepath.Join(f.root, "cur/4.host:2,S"), filepath.Join(f.root, "new/4.host")))
	f.put("new/7.host", "1")
	f.put("cur/7.host:2,", "22")
	if got, want := usage(), (maildir.Usage{Octets: 1000 + 5 + 7 + 3, Messages: 5}); got != want {
		t.Errorf("%+v, want %+v", got, want)
	}
	f.check(os.RemoveAll(filepath.Join(f.root, "cur")))
	f.put("cur", "x")
	if got, err := f.store.Usage(t.Context(), maildrop.Owner{}); !errors.Is(err, maildrop.ErrDamaged) {
		t.Errorf("%+v, %v", got, err)
	}
	f.check(os.Remove(filepath.Join(f.root, "cur")))
	if got, err := f.store.Usage(t.Context(), maildrop.Owner{}); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("%+v, %v", got, err)
	}
}
