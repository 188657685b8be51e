package maildir_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"dewey/maildrop"
	"dewey/store/maildir"
	"dewey/store/maildir/uidlist"
)

// withLarge is a Maildir of n messages, half of them in cur/, in which a removal of three is a large one.
func withLarge(t *testing.T, n int) *fixture {
	f := newFixture(t)
	t.Cleanup(func() { f.finish() })
	f.store.SetLarge(3)
	for i := range n {
		base := f.deliver(fmt.Sprintf("Subject: %d\n", i))
		if i%2 == 1 {
			f.flag(base, "S")
		}
	}
	return f
}

// finish waits for jobs.
func (f *fixture) finish() {
	f.t.Helper()
	f.store.SetFault(nil)
	f.check(f.store.Finish(f.t.Context()))
}

// die ends the jobs of a Store as the death of its process would, and begins another one.
func (f *fixture) die() {
	f.t.Helper()
	f.store.SetFault(func(string, string) error { panic("the process has died") })
	_ = f.store.Finish(f.t.Context())
	f.restart()
	f.store.SetLarge(3)
}

// kill is the death of a process, with a session and jobs that are held.
func (f *fixture) kill(d maildrop.Maildrop, release func(dies ...bool)) {
	f.t.Helper()
	release(true)
	maildir.Kill(d)
	f.die()
}

// hold stops jobs after so many files, until release is called: to go on, or to die there.
func (f *fixture) hold(after int) (release func(dies ...bool)) {
	gate := make(chan struct{})
	left, dead := atomic.Int64{}, atomic.Bool{}
	left.Store(int64(after))
	f.store.SetFault(func(op, _ string) error {
		if op == "unlink later" && left.Add(-1) < 0 {
			<-gate
			if dead.Load() {
				panic("the process has died")
			}
		}
		return nil
	})
	return func(dies ...bool) {
		dead.Store(len(dies) > 0)
		close(gate)
	}
}

// RFC 1939 section 6: what was acknowledged is removed. While the files are unlinked nobody sees them, by no view, and
// logins do not wait for it; what is removed meanwhile goes too; and in the end nothing is left of it all.
func TestLargeRemoval(t *testing.T) {
	f := withLarge(t, 10)
	before := f.ids()
	d := f.open()
	release := f.hold(0) // the first of each folder goes at once
	f.check(d.Remove(t.Context(), []int{1, 2, 3, 4, 5}))
	if _, _, err := d.Retrieve(t.Context(), 3); err == nil {
		t.Error("removed, and sent")
	}
	f.close(d)
	if n := f.messageFiles(); n != 8 {
		t.Fatalf("%d files are left, want 8: the test tests nothing", n)
	}
	for range 2 {
		f.wantIDs("while a job is at work", f.ids(), before[5:])
		f.store.SetLarge(3)
		if got := f.trashed(); len(got) > 0 {
			t.Errorf("can be brought back: %+v", got)
		}
		recent := f.owner
		recent.View.Recent = time.Hour
		look, err := f.store.Look(t.Context(), recent)
		f.check(err)
		if n := len(look.Messages()); n != 5 {
			t.Errorf("Look shows %d messages", n)
		}
		r, err := f.store.Open(t.Context(), recent)
		f.check(err)
		f.wantIDs("recent", uids(r), before[5:])
		f.close(r)
		old := f.owner
		old.Life.Retention = time.Nanosecond
		if swept, err := f.store.Sweep(t.Context(), maildrop.Owner{}, time.Now()); err != nil || len(swept.Expired) > 0 {
			t.Errorf("%+v, %v", swept, err)
		}
		got := f.checked(maildir.CheckOptions{})
		if want := []maildir.Kind{maildir.KindGone}; !slices.Equal(kinds(got), want) || got.Errors() > 0 || got.Messages != 5 || got.Removed != 0 {
			t.Errorf("check: %+v", got)
		}
		f.deliver("Subject: new\n")
		before = append(before, f.ids()[len(before)-5:]...)
		f.remove(len(before) - 5)
		before = before[:len(before)-1]
	}
	d = f.open()
	f.check(d.Remove(t.Context(), []int{1, 2, 3}))
	f.close(d)
	f.wantIDs("a second removal", f.ids(), before[8:])
	release()
	f.finish()
	f.wantIDs("after the job", f.ids(), before[8:])
	if n := f.messageFiles(); n != 2 || strings.Contains(f.get("dovecot-uidlist"), " D") {
		t.Errorf("%d files, want 2\n%s", n, f.get("dovecot-uidlist"))
	}
	if got := f.checked(maildir.CheckOptions{Sizes: true}); len(got.Problems) > 0 {
		t.Errorf("check: %+v", got.Problems)
	}
	f.fsck()
}

// Of a process that died while it was at it nothing comes back: the next session, a night or a repair goes on.
func TestLargeRemovalCutShort(t *testing.T) {
	for what, next := range map[string]func(f *fixture){
		"session": func(f *fixture) { f.ids() },
		"night":   func(f *fixture) { f.sweep(time.Now()) },
		"repair": func(f *fixture) {
			if got := f.checked(maildir.CheckOptions{Repair: true}); len(kinds(got)) > 0 || len(got.Problems) != 1 {
				f.t.Errorf("repair: %+v", got)
			}
		},
	} {
		f := withLarge(t, 8)
		before := f.ids()
		d := f.open()
		release := f.hold(1)
		f.check(d.Remove(t.Context(), []int{1, 2, 3, 4, 5, 6}))
		f.kill(d, release)
		if n := f.messageFiles(); n < 4 {
			t.Fatalf("%s: %d files are left: the test tests nothing", what, n)
		}
		base := f.baseOf(before[4])
		f.flag(base, "FS") // trap 20
		next(f)
		f.finish()
		if n := f.messageFiles(); n != 2 || strings.Contains(f.get("dovecot-uidlist"), " D") {
			t.Errorf("%s: %d files, want 2\n%s", what, n, f.get("dovecot-uidlist"))
		}
		f.wantIDs(what, f.ids(), before[6:])
		f.fsck()
	}
}

// What can't be unlinked stays hidden, is told in the log, and is tried again at the next login.
func TestLargeRemovalFails(t *testing.T) {
	f := withLarge(t, 6)
	before := f.ids()
	bad := f.baseOf(before[3])
	f.store.SetSettle(-1 << 62) // a warm login tries again too
	refuse := func(op, path string) error {
		if op == "unlink later" && strings.Contains(path, bad) {
			return unix.EPERM
		}
		return nil
	}
	d := f.open()
	f.store.SetFault(refuse)
	f.check(d.Remove(t.Context(), []int{1, 2, 3, 4, 5}))
	f.close(d)
	for range 2 {
		f.check(f.store.Finish(t.Context()))
		if n := f.messageFiles(); n != 2 {
			t.Errorf("%d files, want 2", n)
		}
		f.wantLog("operation not permitted")
		f.ticked()
		f.wantIDs("one can't be unlinked", f.ids(), before[5:])
	}
	f.finish()
	f.ids()
	f.finish()
	if n := f.messageFiles(); n != 1 {
		t.Errorf("%d files, want 1", n)
	}
	f.wantIDs("at last", f.ids(), before[5:])
	f.fsck()
}

// Trap 16: where nothing can be unlinked it is said, and nothing is removed. Where the list can't be written, as on a full
// disk, all is unlinked before the answer.
func TestLargeRemovalRefused(t *testing.T) {
	f := withLarge(t, 6)
	before := f.ids()
	d := f.open()
	f.store.SetFault(func(op, _ string) error {
		if op == "unlink" {
			return unix.EROFS
		}
		return nil
	})
	if err := d.Remove(t.Context(), []int{1, 2, 3, 4}); err == nil || strings.Count(err.Error(), "not removed") != 4 {
		t.Errorf("Remove: %v", err)
	}
	f.store.SetFault(nil)
	f.close(d)
	f.wantIDs("refused", f.ids(), before)

	for _, op := range []string{"replace", "lock", "sync"} {
		f := withLarge(t, 6)
		before := f.ids()
		d := f.open()
		f.store.SetFault(func(o, path string) error {
			if o == op && !strings.HasSuffix(path, "/new") && !strings.HasSuffix(path, "/cur") {
				return unix.ENOSPC
			}
			return nil
		})
		f.check(d.Remove(t.Context(), []int{1, 2, 3, 4}))
		if n := f.messageFiles(); n != 2 {
			t.Errorf("%s fails: %d files, want 2", op, n)
		}
		f.store.SetFault(nil)
		f.close(d)
		f.wantIDs(op, f.ids(), before[4:])
		f.fsck()
	}
}

// Trap 24: a message that comes under the name of one that is gone stays, and gets a unique-id of its own, whether the
// file of that one was there until then or not. A mark that can't be read unlinks nothing.
func TestTrap24LargeRemoval(t *testing.T) {
	f := withLarge(t, 8)
	before := f.ids()
	bases := []string{f.baseOf(before[2]), f.baseOf(before[4])}
	d := f.open()
	release := f.hold(0)
	f.check(d.Remove(t.Context(), []int{1, 2, 3, 4, 5, 6}))
	f.kill(d, release)
	for i, base := range bases {
		f.check(os.Remove(f.find(base)))
		f.put("new/"+base, fmt.Sprintf("Subject: another %d\n", i))
	}
	broken := f.baseOf(before[3])
	l := f.list()
	for i := range l.Records {
		if l.Records[i].Base == broken {
			l.Records[i].Set(uidlist.KeyGone, "x")
		}
	}
	f.put("dovecot-uidlist", string(l.Append(nil)))
	f.wantIDs("before the job", f.ids(), before[6:])
	f.finish()
	texts := f.contents()
	for _, id := range before[:6] {
		if texts[id] != "" {
			t.Errorf("the unique-id of a message that is gone is that of %q", texts[id])
		}
	}
	var got []string
	for _, text := range texts {
		got = append(got, strings.TrimSpace(text))
	}
	slices.Sort(got)
	if want := []string{"Subject: 3", "Subject: 6", "Subject: 7", "Subject: another 0", "Subject: another 1"}; !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
	f.fsck()
}

// A login whose scan has seen files that a job unlinks, and strikes from the list, before the list is read does not take
// them for new mail.
func TestLargeRemovalDuringScan(t *testing.T) {
	for _, restart := range []bool{false, true} {
		f := withLarge(t, 0)
		for i := range 8 { // of sizes that are believed, so that no login looks whether they are there
			f.put(fmt.Sprintf("new/%d.a.host,S=17000000,W=17000000", 1700000000+i), "Subject: x\n")
		}
		before := f.ids()
		d := f.open()
		release := f.hold(0)
		f.check(d.Remove(t.Context(), []int{1, 2, 3, 4, 5, 6}))
		f.close(d)
		other := f.store
		if restart {
			f.restart()
		}
		done := false
		f.store.SetTrace(func(op, _ string) {
			if op == "readlist" && !done {
				done = true
				f.store.SetTrace(nil)
				release()
				f.check(other.Finish(t.Context()))
			}
		})
		f.wantIDs(fmt.Sprint("restart ", restart), f.ids(), before[6:])
		if !done || f.list().Next != uint32(len(before)+1) {
			t.Errorf("restart %v: %v, the next uid is %d", restart, done, f.list().Next)
		}
	}
}

// What could meet something else than the first file is removed before the answer: files with other names, that moved
// or are gone, and those of others in a folder with the sticky bit.
func TestLargeRemovalOddFiles(t *testing.T) {
	f := withLarge(t, 9)
	before := f.ids()
	linked, moved, lost := f.baseOf(before[2]), f.baseOf(before[4]), f.baseOf(before[6])
	f.check(os.Link(f.find(linked), filepath.Join(f.root, "beside")))
	d := f.open()
	f.flag(moved, "F")
	f.check(os.Remove(f.find(lost)))
	if os.Geteuid() == 0 {
		f.check(os.Chown(f.find(f.baseOf(before[7])), 1, 1))
	}
	release := f.hold(0)
	f.check(d.Remove(t.Context(), []int{1, 2, 3, 4, 5, 6, 7, 8}))
	for _, id := range []string{before[2], before[4], before[7]} {
		if base := f.baseOf(id); os.Geteuid() == 0 && f.there(base) {
			t.Errorf("%s is there still", base)
		}
	}
	release()
	f.close(d)
	f.finish()
	f.wantIDs("odd files", f.ids(), before[8:])
	f.fsck()
}

func (f *fixture) there(base string) bool {
	return slices.ContainsFunc(append(f.folder("new"), f.folder("cur")...), func(name string) bool { return uidlist.Base(name) == base })
}

// Each folder has its own list and its own job.
func TestLargeRemovalInFolders(t *testing.T) {
	f := newFixture(t)
	t.Cleanup(func() { f.finish() })
	f.store.SetLarge(3)
	for i := range 4 {
		f.into("", fmt.Sprint("own ", i))
		f.into(".Spam", fmt.Sprint("spam ", i))
		f.into(".Few", fmt.Sprint("few ", i))
	}
	owner := including("Spam", "Few")
	f.want(owner, "own 0", "own 1", "own 2", "own 3", "spam 0", "spam 1", "spam 2", "spam 3", "few 0", "few 1", "few 2", "few 3")
	d, err := f.store.Open(t.Context(), owner)
	f.check(err)
	release := f.hold(0)
	f.check(d.Remove(t.Context(), []int{1, 2, 3, 5, 6, 7, 9, 10}))
	f.close(d)
	f.want(owner, "own 3", "spam 3", "few 2", "few 3")
	f.want(viewing("Spam"), "spam 3")
	release()
	f.finish()
	f.want(owner, "own 3", "spam 3", "few 2", "few 3")
	for folder, want := range map[string]int{"": 1, ".Spam": 1, ".Few": 2} {
		if n := len(f.folder(filepath.Join(folder, "new"))); n != want {
			t.Errorf("%q: %d files, want %d", folder, n, want)
		}
	}
}

// tar moves a Maildir with the times of its files in whole seconds, and others touch files: what was removed does not come
// back as new mail.
func TestLargeRemovalOtherTimes(t *testing.T) {
	for _, copied := range []bool{true, false} {
		otherTimes(t, copied)
	}
}

func otherTimes(t *testing.T, copied bool) {
	f := withLarge(t, 8)
	all := f.ids()
	d := f.open()
	release := f.hold(0)
	f.check(d.Remove(t.Context(), []int{1, 2, 3, 4, 5}))
	f.kill(d, release)
	for _, dir := range []string{"new", "cur"} {
		files, err := os.ReadDir(filepath.Join(f.root, dir))
		f.check(err)
		for _, file := range files {
			info, err := file.Info()
			f.check(err)
			path, at := filepath.Join(f.root, dir, file.Name()), time.Now()
			if copied {
				at = info.ModTime().Truncate(time.Second)
				text, err := os.ReadFile(path)
				f.check(errors.Join(err, os.WriteFile(path+"~", text, 0o600), os.Rename(path+"~", path)))
			}
			f.check(os.Chtimes(path, at, at))
		}
	}
	f.wantIDs("at first", f.ids(), all[5:])
	f.finish()
	f.wantIDs("in the end", f.ids(), all[5:])
}

// A login whose process knows the messages under their unique-ids is not refused because a job of another process
// unlinks them, and strikes them from the list, between its scan and its look at the list.
func TestLargeRemovalDuringScanElsewhere(t *testing.T) {
	f := withLarge(t, 0)
	for i := range 40 {
		f.put(fmt.Sprintf("new/%d.a.host,S=17000000,W=17000000", 1700000000+i), "Subject: x\n")
	}
	other := f.store
	f.restart()
	f.store.SetLarge(3)
	before := f.ids()
	serving := f.store
	f.store = other
	f.ids()
	release := f.hold(0)
	d := f.open()
	var numbers []int
	for n := range 38 {
		numbers = append(numbers, n+1)
	}
	f.check(d.Remove(t.Context(), numbers))
	f.close(d)
	f.store = serving
	done := false
	f.store.SetTrace(func(op, _ string) {
		if op == "readlist" && !done {
			done = true
			f.store.SetTrace(nil)
			release()
			f.check(other.Finish(t.Context()))
		}
	})
	f.wantIDs("the other process", f.ids(), before[38:])
	if !done {
		t.Error("the list was not read")
	}
}
