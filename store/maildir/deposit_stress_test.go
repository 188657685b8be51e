package maildir_test

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"
	"pgregory.net/rapid"

	"dewey/maildrop"
	"dewey/store/maildir"
)

// inMemory has a test's Maildirs in memory, if it can: the less there is to wait for, the more happens.
func inMemory(t *testing.T) {
	if unix.Access("/dev/shm", unix.W_OK) == nil {
		t.Setenv("TMPDIR", "/dev/shm")
	}
}

// A ledger is the model of what was taken in and what became of it.
type ledger struct {
	mu       sync.Mutex
	texts    map[string][32]byte // first line → digest of the message as sent
	taken    map[string]bool     // acknowledged
	uids     map[string]string   // unique-id → first line
	seen     map[string]string   // first line → unique-id
	removed  map[string]bool
	last     uint64 // greatest uid
	sessions int
}

// Many writers of two Stores, and so of one process, deliver to one Maildir while a session reads and
// removes, and somebody moves messages to cur/: nothing is lost, doubled or cut, what was acknowledged before a
// login is in its scan, no unique-id comes twice, and those of new messages rise.
func TestDepositsWhileSessionsRun(t *testing.T) {
	inMemory(t)
	f := newFixture(t)
	stores := []*maildir.Store{f.store, f.newStore(maildir.Options{LockWait: -1})}
	book := &ledger{
		texts: map[string][32]byte{}, taken: map[string]bool{}, uids: map[string]string{},
		seen: map[string]string{}, removed: map[string]bool{},
	}
	total := 20_000
	if raceEnabled {
		total = 4_000
	}
	const writers = 16
	tokens := make(chan struct{}, 150) // messages to be delivered, so that many sessions come in between
	var next atomic.Int64
	var wg sync.WaitGroup
	start := time.Now()
	for w := range writers {
		wg.Go(func() {
			r := rand.New(rand.NewPCG(uint64(w), 1))
			for {
				n := int(next.Add(1))
				if n > total {
					return
				}
				<-tokens
				if err := book.deliver(stores[w%2], r, n); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	done := make(chan struct{})
	go func() { wg.Wait(); close(done) }()
	r := rand.New(rand.NewPCG(99, 1))
	for end := false; !end; {
		select {
		case <-done:
			end = true
		default:
		}
		for full := false; !full; {
			select {
			case tokens <- struct{}{}:
			default:
				full = true
			}
		}
		book.session(f, stores[r.IntN(2)], r)
		names := f.folder("new")
		for range min(20, len(names)) {
			name := names[r.IntN(len(names))]
			_ = os.Rename(filepath.Join(f.root, "new", name), filepath.Join(f.root, "cur", name+":2,S")) // or it is gone
		}
	}
	t.Logf("%d messages in %v, %d sessions", total, time.Since(start).Round(time.Millisecond), book.sessions)
	if len(book.taken) != total || len(book.seen) != total {
		t.Errorf("%d of %d messages were taken in, %d were served", len(book.taken), total, len(book.seen))
	}
	f.restart()
	book.session(f, f.store, r)
	f.fsck()
	f.fsckDeposits()
}

// deliver takes one message in, of a size and cut as it comes; some are discarded before.
func (b *ledger) deliver(store *maildir.Store, r *rand.Rand, n int) error {
	first := fmt.Sprintf("Subject: %d", n)
	text := first + "\r\n\r\n" + strings.Repeat(fmt.Sprintf("line of %d\r\n", n), r.IntN(20))
	if n%500 == 0 {
		text += strings.Repeat("x", r.IntN(200_000)) + "\r\n"
	}
	b.mu.Lock()
	b.texts[first] = sha256.Sum256([]byte(text))
	b.mu.Unlock()
	for _, discard := range []bool{true, false} {
		if discard && n%10 != 0 {
			continue
		}
		d, err := store.Deposit(context.Background(), maildrop.Owner{})
		if err != nil {
			return err
		}
		for rest := text; rest != ""; {
			k := 1 + r.IntN(min(len(rest), 100_000))
			if _, err := io.WriteString(d, rest[:k]); err != nil {
				return err
			}
			rest = rest[k:]
		}
		if !discard {
			err = d.Commit(context.Background())
		}
		d.Discard()
		if err != nil {
			return err
		}
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.taken[first] = true
	return nil
}

// session holds a scan against the ledger, reads what is new, and removes most.
func (b *ledger) session(f *fixture, store *maildir.Store, r *rand.Rand) {
	t := f.t
	b.sessions++
	must := map[string]bool{}
	b.mu.Lock()
	for first := range b.taken {
		if !b.removed[first] {
			must[first] = true
		}
	}
	b.mu.Unlock()
	d, err := store.Open(context.Background(), maildrop.Owner{})
	if err != nil {
		t.Fatal(err)
	}
	defer f.close(d)
	var remove []int
	var firsts []string
	last := b.last
	here := map[string]bool{}
	for i, m := range d.Messages() {
		first, known := b.uids[m.UID]
		if !known {
			text := f.read(d, i+1)
			first, _, _ = strings.Cut(text, "\r\n")
			b.mu.Lock()
			digest, sent := b.texts[first]
			b.mu.Unlock()
			uid, err := strconv.ParseUint(m.UID[:8], 16, 32)
			switch {
			case !sent || sha256.Sum256([]byte(text)) != digest:
				t.Errorf("%q came out otherwise than it went in: %.60q", first, text)
			case b.seen[first] != "":
				t.Errorf("%q is there as %s and as %s", first, b.seen[first], m.UID)
			case err != nil || uid <= last:
				t.Errorf("%q is new and has the unique-id %s, the last was %d", first, m.UID, last)
			}
			last = uid
			b.uids[m.UID], b.seen[first] = first, m.UID
		}
		if b.removed[first] || here[first] {
			t.Errorf("%q was removed, or is in the scan twice", first)
		}
		here[first] = true
		delete(must, first)
		firsts = append(firsts, first)
		if r.IntN(10) < 6 {
			remove = append(remove, i+1)
		}
	}
	b.last = last
	for first := range must {
		t.Errorf("%q was acknowledged and is not in the scan", first)
	}
	if err := d.Remove(context.Background(), remove); err != nil {
		t.Error(err)
	}
	for _, n := range remove {
		b.removed[firsts[n-1]] = true
	}
}

// A sync of a folder may be shared by those alone who came before it began, and is that of the same folder.
func TestSyncsCover(t *testing.T) {
	var syncs maildir.Syncs
	var clock atomic.Int64
	type span struct{ folder, begin, end int64 }
	var mu sync.Mutex
	runs := map[string]span{}
	ended := map[int64]int64{} // when a folder's last sync ended
	calls := 0
	var wg sync.WaitGroup
	for i := range 16 {
		wg.Go(func() {
			folder := int64(i % 3)
			for n := range 500 {
				call := span{folder: folder, begin: clock.Add(1)}
				err := syncs.Cover(uint64(folder), func() error {
					r := span{folder: folder, begin: clock.Add(1)}
					for range n % 5 {
						runtime.Gosched()
					}
					r.end = clock.Add(1)
					mu.Lock()
					defer mu.Unlock()
					runs[fmt.Sprint(r.begin)] = r
					if r.begin < ended[folder] {
						t.Errorf("two syncs of one folder at once: %v", r)
					}
					ended[folder] = r.end
					return errors.New(fmt.Sprint(r.begin))
				})
				call.end = clock.Add(1)
				mu.Lock()
				calls++
				if r := runs[err.Error()]; r.folder != folder || r.begin < call.begin || r.end > call.end {
					t.Errorf("the call %v was told of the sync %v", call, r)
				}
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	t.Logf("%d syncs for %d calls", len(runs), calls)
	if len(runs) > calls || !syncs.Idle() {
		t.Errorf("%d syncs for %d calls, idle: %v", len(runs), calls, syncs.Idle())
	}
}

// Commits that come while a folder is synced share the sync after it.
func TestDepositsShareSyncs(t *testing.T) {
	f := newFixture(t)
	f.deposit("first\r\n")
	const writers = 32
	var folderSyncs, renamed atomic.Int32
	first := true
	f.store.SetFault(func(op, path string) error {
		switch {
		case op == "rename":
			renamed.Add(1)
		case op == "sync" && filepath.Base(path) == "new":
			folderSyncs.Add(1)
			if first { // one sync of a folder at a time: no race
				first = false
				for renamed.Load() < writers {
					runtime.Gosched()
				}
			}
		}
		return nil
	})
	var wg sync.WaitGroup
	for i := range writers {
		wg.Go(func() {
			if err := f.tryDeposit(fmt.Sprintf("Subject: %d\r\n", i)); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if n := folderSyncs.Load(); n > writers/2 {
		t.Errorf("%d syncs of the folder for %d messages", n, writers)
	}
	if n := len(f.ids()); n != writers+1 {
		t.Errorf("%d messages", n)
	}
}

// A panic in a sync, the bug of some other day, is no success of those who wait for it.
func TestSyncPanics(t *testing.T) {
	var syncs maildir.Syncs
	func() {
		defer func() {
			if recover() == nil {
				t.Error("the panic is lost")
			}
		}()
		_ = syncs.Cover(1, func() error { panic("ordered") })
	}()
	if err := syncs.Cover(1, func() error { return nil }); err != nil || !syncs.Idle() {
		t.Errorf("%v, idle: %v", err, syncs.Idle())
	}
}

// What deliveries that died have left in tmp/ goes after 36 hours, by a deposit, once an hour at most; what is
// younger stays, and so does what is no file. Maildir: 36 hours.
func TestDepositTidiesTmp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t)
		f.deposit("first\r\n")
		made := time.Unix(0, 0)
		for i := range 3 {
			name := fmt.Sprintf("tmp/1700000000.M%dP1.host", i)
			f.put(name, "half a mess")
			var st unix.Stat_t
			f.check(unix.Stat(filepath.Join(f.root, name), &st))
			made = time.Unix(0, st.Ctim.Nano())
		}
		f.check(os.Mkdir(filepath.Join(f.root, "tmp", "folder"), 0o700))
		f.check(os.Symlink("/etc/passwd", filepath.Join(f.root, "tmp", "link")))
		f.put("tmp/.hidden", "x")
		// One was given an old date just now, one has been written to since.
		f.check(os.Chtimes(filepath.Join(f.root, "tmp/1700000000.M0P1.host"), time.Unix(1, 0), time.Unix(1, 0)))
		later := made.Add(2 * time.Hour)
		f.check(os.Chtimes(filepath.Join(f.root, "tmp/1700000000.M1P1.host"), later, later))
		all := []string{".hidden", "1700000000.M0P1.host", "1700000000.M1P1.host", "1700000000.M2P1.host", "folder", "link"}
		someLeft := []string{".hidden", "1700000000.M1P1.host", "folder", "link"}
		noneLeft := []string{".hidden", "folder", "link"}
		for _, step := range []struct {
			after time.Duration
			want  []string
		}{
			{36*time.Hour - time.Minute, all},
			{36*time.Hour + 5*time.Minute, all}, // less than an hour since
			{37 * time.Hour, someLeft},
			{38*time.Hour - 5*time.Minute, someLeft},
			{38*time.Hour + time.Minute, noneLeft},
		} {
			time.Sleep(time.Until(made.Add(step.after))) // in the bubble's time
			f.deposit(fmt.Sprintf("after %v\r\n", step.after))
			if got := f.folder("tmp"); !slices.Equal(got, step.want) {
				t.Errorf("after %v: tmp/ has %q, want %q", step.after, got, step.want)
			}
		}
		if n := len(f.folder("new")); n != 6 {
			t.Errorf("%d messages", n)
		}
	})
}

// A deposit that takes its time, and whose file somebody has tidied away, is an error and no message.
func TestDepositTidiedAway(t *testing.T) {
	f := newFixture(t)
	d, err := f.store.Deposit(t.Context(), maildrop.Owner{})
	f.check(err)
	_, err = d.Write([]byte("x\r\n"))
	f.check(err)
	f.check(os.Remove(filepath.Join(f.root, "tmp", f.folder("tmp")[0])))
	if err := d.Commit(t.Context()); !errors.Is(err, unix.ENOENT) {
		t.Errorf("Commit: %v", err)
	}
	d.Discard()
	if n := len(f.ids()); n != 0 {
		t.Errorf("%d messages", n)
	}
}

// The folders that a deposit made, or another process just before, are durable before the message is
// acknowledged; once is enough.
func TestDepositFoldersAreDurable(t *testing.T) {
	f := newFixture(t)
	var synced []string
	f.store.SetTrace(func(op, path string) {
		if op == "sync" {
			synced = append(synced, path)
		}
	})
	f.deposit("one\r\n")
	home := filepath.Dir(f.root)
	want := []string{f.root, home, filepath.Dir(home)}
	if !slices.Equal(synced[:3], want) || synced[len(synced)-1] != filepath.Join(f.root, "new") {
		t.Errorf("synced %q, want %q and then new/", synced, want)
	}
	synced = nil
	f.deposit("two\r\n")
	if !slices.Equal(synced, []string{filepath.Join(f.root, "new")}) {
		t.Errorf("synced again %q", synced)
	}
	d := f.open()
	f.check(d.Remove(t.Context(), []int{1, 2}))
	f.close(d)
	f.check(os.RemoveAll(f.root)) // and another one is made, perhaps under the same number
	synced = nil
	f.deposit("three\r\n")
	if len(synced) < 4 {
		t.Errorf("synced %q", synced)
	}
	f.restart()
	f.store.SetFault(func(op, path string) error {
		if op == "sync" && path == home {
			return unix.EIO
		}
		return nil
	})
	for range 2 { // also not taken for done
		if err := f.tryDeposit("four\r\n"); !errors.Is(err, unix.EIO) {
			t.Errorf("Deposit: %v", err)
		}
	}
}

// Writes and reads of any kind by one goroutine: the Maildir holds what the model says, also when names in
// new/ are taken and a file system has no RENAME_NOREPLACE.
func TestDepositRandomFaults(t *testing.T) {
	inMemory(t)
	rapid.Check(t, func(rt *rapid.T) {
		f := newFixture(rt)
		ops := []string{"create", "write", "sync", "rename", "link", "unlink"}
		want := map[string]bool{}
		maybe := map[string]bool{}
		for n := range rapid.IntRange(1, 15).Draw(rt, "messages") {
			at := rapid.SampledFrom(append(ops, "none", "none")).Draw(rt, "fault")
			skip := rapid.IntRange(0, 2).Draw(rt, "skip")
			fault := rapid.SampledFrom([]error{unix.EIO, unix.ENOSPC, unix.EINVAL, unix.EEXIST, io.ErrShortWrite}).Draw(rt, "error")
			f.store.SetFault(func(op, path string) error {
				if at == "unlink" && op == "sync" && filepath.Base(path) == "new" {
					return fault // or nothing would be unlinked
				}
				if op == at {
					if skip--; skip < 0 {
						return fault
					}
				}
				return nil
			})
			content := fmt.Sprintf("Subject: %d\r\n", n) + strings.Repeat("x", rapid.SampledFrom([]int{0, 10, 70_000}).Draw(rt, "size"))
			err := f.tryDeposit(content)
			f.store.SetFault(nil)
			wire := content
			if !strings.HasSuffix(wire, "\n") {
				wire += "\r\n"
			}
			switch {
			case err == nil:
				want[wire] = true
			case strings.Contains(err.Error(), "can't be taken out again"):
				maybe[wire] = true
			}
			d := f.open()
			got := map[string]bool{}
			for n := range d.Messages() {
				text := f.read(d, n+1)
				if !want[text] && !maybe[text] || got[text] {
					rt.Errorf("not acknowledged, or twice, and there: %.30q", text)
				}
				got[text] = true
			}
			for text := range want {
				if !got[text] {
					rt.Errorf("acknowledged and not there: %.30q", text)
				}
			}
			f.close(d)
		}
		f.fsckDeposits()
	})
}
