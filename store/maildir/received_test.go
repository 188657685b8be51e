package maildir_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"dewey/maildrop"
	"dewey/store/maildir"
)

// times are when the messages were delivered, as the maildrop says.
func (f *fixture) times(d maildrop.Maildrop) (times []time.Time) {
	f.t.Helper()
	for n := range d.Messages() {
		at, err := d.(maildrop.Dated).Received(f.t.Context(), n+1)
		f.check(err)
		times = append(times, at)
	}
	return times
}

// date delivers a message that has the time of its delivery from IMAP, say.
func (f *fixture) date(content string, at time.Time) {
	f.t.Helper()
	f.check(os.Chtimes(f.find(f.deliver(content)), time.Now(), at))
	f.changed()
}

// The time of a message is its file's. It is looked at once, whatever comes and goes, and in other snapshots too.
func TestReceived(t *testing.T) {
	f := newFixture(t)
	f.trustTimes()
	var looked []string
	watch := func() {
		looked = nil
		f.store.SetTrace(func(op, path string) {
			if op == "stat" {
				looked = append(looked, path)
			}
		})
	}
	watch()
	epoch := time.Date(2020, 1, 1, 0, 0, 0, 7, time.UTC)
	var want []time.Time
	for i := range 5 {
		want = append(want, epoch.Add(time.Duration(i*i%7)*time.Hour))
		f.date(fmt.Sprintf("Subject: %d\n", i), want[i])
	}
	check := func(what string, stats int) {
		t.Helper()
		looked = nil
		d := f.open()
		defer f.close(d)
		if got := f.times(d); !slices.EqualFunc(got, want, time.Time.Equal) {
			t.Errorf("%s: times %v, want %v", what, got, want)
		}
		if len(looked) != stats {
			t.Errorf("%s: looked at %q, want %d files", what, looked, stats)
		}
		for _, n := range []int{0, -1, len(want) + 1} {
			if _, err := d.(maildrop.Dated).Received(t.Context(), n); !errors.Is(err, maildrop.ErrNoMessage) {
				t.Errorf("message %d: %v, want ErrNoMessage", n, err)
			}
		}
	}
	check("first", 5)
	check("again", 0)
	want = append(want, epoch)
	f.date("Subject: new\n", epoch)
	check("new mail", 1)
	f.flag(f.files["Subject: 1\n"], "S")
	check("a flag", 0)
	f.check(os.Remove(f.find(f.files["Subject: 0\n"])))
	f.changed()
	want = want[1:]
	check("one is gone", 0)
	d := f.open()
	f.check(d.Remove(t.Context(), []int{2}))
	f.close(d)
	f.changed()
	want = slices.Delete(want, 1, 2)
	check("one was removed", 0)
	f.check(os.Remove(f.find(f.files["Subject: 4\n"])))
	f.date("Subject: newer\n", epoch)
	want[2], want[3] = epoch, epoch
	check("one went and one came", 1)
	f.restart()
	watch()
	check("a restart", 4)
}

// A message that moves between scan and look is found; one that is gone is maildrop.ErrGone, and no date is guessed.
func TestReceivedMoved(t *testing.T) {
	f := newFixture(t)
	epoch := time.Date(2020, 1, 1, 0, 0, 0, 0, time.UTC)
	for i := range 3 {
		f.date(fmt.Sprintf("Subject: %d\n", i), epoch.Add(time.Duration(i)*time.Hour))
	}
	for range 2 { // what was not found is not remembered
		f.restart()
		d := f.open()
		f.flag(f.files["Subject: 0\n"], "S")
		f.check(os.Rename(f.find(f.files["Subject: 1\n"]), filepath.Join(f.root, "tmp", "away")))
		for n, want := range []time.Time{epoch, {}, epoch.Add(2 * time.Hour)} {
			at, err := d.(maildrop.Dated).Received(t.Context(), n+1)
			if !at.Equal(want) || errors.Is(err, maildrop.ErrGone) != want.IsZero() || err != nil && !want.IsZero() {
				t.Errorf("message %d: %v, %v, want %v", n+1, at, err, want)
			}
		}
		f.close(d)
		f.check(os.Rename(filepath.Join(f.root, "tmp", "away"), filepath.Join(f.root, "new", f.files["Subject: 1\n"])))
		f.check(os.Rename(f.find(f.files["Subject: 0\n"]), filepath.Join(f.root, "new", f.files["Subject: 0\n"])))
		for _, want := range []int{2, 0} {
			looked := 0
			f.store.SetTrace(func(op, _ string) {
				if op == "stat" {
					looked++
				}
			})
			d = f.open()
			if got, want := f.times(d), []time.Time{epoch, epoch.Add(time.Hour), epoch.Add(2 * time.Hour)}; !slices.EqualFunc(got, want, time.Time.Equal) {
				t.Errorf("times %v, want %v", got, want)
			}
			f.close(d)
			if looked != want {
				t.Errorf("looked at %d files, want %d", looked, want)
			}
		}
	}
}

// Times are in the bound of what is kept in memory.
func TestReceivedIsBounded(t *testing.T) {
	f := newFixture(t)
	parent := filepath.Dir(f.root)
	store := maildir.New(maildir.Options{
		Path:        func(o maildrop.Owner) (string, error) { return filepath.Join(parent, o.Name), nil },
		CacheOctets: 20000,
	})
	for i := range 20 {
		f.root = filepath.Join(parent, fmt.Sprint(i))
		for range 10 {
			f.deliver("one\n")
		}
		d, err := store.Open(t.Context(), maildrop.Owner{Name: fmt.Sprint(i)})
		f.check(err)
		_, before := store.Cached()
		f.times(d)
		if _, after := store.Cached(); i == 0 && after != before+10*12 {
			t.Errorf("%d octets are kept, %d without times", after, before)
		}
		f.close(d)
	}
	if n, octets := store.Cached(); n < 2 || n > 19 || octets > 20000 {
		t.Errorf("%d scans of %d octets are kept", n, octets)
	}
}

// A login with a window that shows nearly all of a great maildrop, or its newest messages.
func BenchmarkWarmWindow(b *testing.B) {
	f := benchMaildir(b, many)
	old := filepath.Join(f.root, "cur")
	entries, err := os.ReadDir(old)
	f.check(err)
	for i, e := range entries {
		at := time.Unix(int64(1_700_000_000+i), 0)
		f.check(os.Chtimes(filepath.Join(old, e.Name()), at, at))
	}
	login := func(since time.Time, newest int64) {
		d, err := f.store.Open(b.Context(), maildrop.Owner{})
		f.check(err)
		w, err := maildrop.Window(b.Context(), d, since, newest)
		f.check(err)
		f.check(w.Close())
	}
	f.store.SetSettle(0)
	for range 3 { // the list is written, read, and believed
		login(time.Time{}, 0)
	}
	for name, c := range map[string]struct {
		since  time.Time
		newest int64
	}{
		"none": {}, "all but 9": {since: time.Unix(1_700_000_009, 0)}, "newest 500": {newest: 500},
	} {
		b.Run(name, func(b *testing.B) {
			login(c.since, c.newest)
			b.ReportAllocs()
			for b.Loop() {
				login(c.since, c.newest)
			}
		})
		b.Run(name+", times not known", func(b *testing.B) {
			for b.Loop() {
				b.StopTimer()
				f.restart()
				login(time.Time{}, 0)
				b.StartTimer()
				login(c.since, c.newest)
			}
		})
	}
}
