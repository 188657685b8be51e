package maildir_test

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"dewey/maildrop"
	"dewey/store/maildir"
)

const fortnight = 14 * 24 * time.Hour

// all chooses every message.
func all(maildir.Removed) bool { return true }

func (f *fixture) trashed() []maildir.Removed {
	f.t.Helper()
	list, err := f.store.Removed(f.t.Context(), f.owner)
	f.check(err)
	return list
}

func removedIDs(list []maildir.Removed) []string {
	var ids []string
	for _, r := range list {
		ids = append(ids, r.UID)
	}
	return ids
}

func (f *fixture) restore(choose func(maildir.Removed) bool) []string {
	f.t.Helper()
	back, err := f.store.Restore(f.t.Context(), f.owner, choose)
	f.check(err)
	return removedIDs(back)
}

func (f *fixture) sweep(now time.Time) maildir.Swept {
	f.t.Helper()
	swept, err := f.store.Sweep(f.t.Context(), f.owner, now)
	f.check(err)
	return swept
}

func (f *fixture) remove(numbers ...int) {
	f.t.Helper()
	d := f.open()
	f.check(d.Remove(f.t.Context(), numbers))
	f.close(d)
}

// contents are the messages as sent, by unique-id.
func (f *fixture) contents() map[string]string {
	f.t.Helper()
	d := f.open()
	defer f.close(d)
	texts := map[string]string{}
	for n, m := range d.Messages() {
		texts[m.UID] = f.read(d, n+1)
	}
	return texts
}

func (f *fixture) wantIDs(what string, got, want []string) {
	f.t.Helper()
	if !slices.Equal(got, want) {
		f.t.Errorf("%s: unique-ids %q, want %q", what, got, want)
	}
}

// What was removed is out of the maildrop, and comes back with its unique-id, its sizes (nothing is read again), its
// flags, its time and its content; a second time nothing happens.
func TestUndelete(t *testing.T) {
	f := newFixture(t)
	f.owner.Life.Undelete = fortnight
	var bases []string
	for i := range 4 {
		bases = append(bases, f.deliver(fmt.Sprintf("Subject: %d\n\nno end", i)))
	}
	f.flag(bases[1], "FS")
	delivered := time.Now().Add(-100 * time.Hour).Truncate(time.Second)
	f.check(os.Chtimes(f.find(bases[1]), delivered, delivered))
	l := func() []string { return f.ids() }
	before := l()
	rec := f.list()
	rec.Records[1].Set('G', "aguid")
	f.put("dovecot-uidlist", string(rec.Append(nil)))
	sizes := f.contents()
	start := time.Now().Truncate(time.Second)
	f.remove(2, 4)
	f.wantIDs("after Remove", l(), []string{before[0], before[2]})
	if n := len(f.folder("new")) + len(f.folder("cur")); n != 2 || exists(filepath.Join(f.root, "dewey-removed", "tmp")) {
		t.Errorf("%d files are left in new/ and cur/, want 2", n)
	}
	st, err := os.Lstat(filepath.Join(f.root, "dewey-removed"))
	f.check(err)
	if st.Mode() != os.ModeDir|0o700 {
		t.Errorf("dewey-removed/ has the mode %v", st.Mode())
	}

	list := f.trashed()
	f.wantIDs("Removed", removedIDs(list), []string{before[1], before[3]})
	r := list[0]
	if want := int64(len(sizes[r.UID])); r.Octets != want || !r.Received.Equal(delivered) || r.At.Before(start) || r.At.After(time.Now()) || r.Kept {
		t.Errorf("%+v, want %d octets, received %v", r, want, delivered)
	}
	body, err := f.store.OpenRemoved(t.Context(), f.owner, r)
	f.check(err)
	text, err := io.ReadAll(body)
	f.check(errors.Join(err, body.Close()))
	if string(text) != "Subject: 1\n\nno end" {
		t.Errorf("OpenRemoved gave %q", text)
	}

	for _, restart := range []bool{true, false} {
		if restart {
			f.restart()
		}
		if restart {
			f.wantIDs("restored", f.restore(all), []string{before[1], before[3]})
		} else {
			f.wantIDs("restored twice", f.restore(all), nil)
		}
	}
	opened := 0
	f.store.SetFault(func(op, _ string) error {
		if op == "open" {
			opened++
		}
		return nil
	})
	now := l()
	f.wantIDs("after Restore", now, []string{before[0], before[2], before[1], before[3]})
	if opened > 0 {
		t.Errorf("%d messages were measured again", opened)
	}
	f.store.SetFault(nil)
	for id, text := range f.contents() {
		if text != sizes[id] {
			t.Errorf("%s came back as %q, was %q", id, text, sizes[id])
		}
	}
	path := f.find(bases[1])
	if got := filepath.Base(filepath.Dir(path)) + "/" + filepath.Base(path); got != "cur/"+bases[1]+":2,FS" {
		t.Errorf("it came back as %s", got)
	}
	if st, err := os.Stat(path); err != nil || !st.ModTime().Equal(delivered) {
		t.Errorf("its time is %v, was %v", st.ModTime(), delivered)
	}
	back := f.list()
	for _, r := range back.Records {
		if r.Base == bases[1] {
			if g, _ := r.Get('G'); g != "aguid" || r.UID <= 4 {
				t.Errorf("record %+v: no GUID, or a uid again", r)
			}
		}
	}
	f.restart()
	f.wantIDs("after a restart", l(), now)
	f.remove(3)
	f.wantIDs("removed again", removedIDs(f.trashed()), []string{before[1]})
	f.wantIDs("restored again", f.restore(all), []string{before[1]})
	f.fsck()
	if _, err := f.store.OpenRemoved(t.Context(), f.owner, r); !errors.Is(err, maildrop.ErrGone) {
		t.Errorf("OpenRemoved of what is back: %v", err)
	}
}

// Unique-ids of all kinds come back as they were: Courier's, a base name's, with the characters that mean something in
// names and lists.
func TestUndeleteUniqueIDs(t *testing.T) {
	f := newFixture(t)
	f.owner.Life.Undelete = fortnight
	long := strings.Repeat("~", 70)
	lines := "3 V1795400728 N20 Ga4f7d52518a4036bc527000083ecc375\n"
	var want []string
	f.check(os.MkdirAll(filepath.Join(f.root, "new"), 0o700))
	for i, p := range []string{"PUID1-2", "Pa/b:c,d=e", "P :", "P:x", "P", "", "P" + long, "P../../etc"} {
		base := fmt.Sprintf("%d.base name", i)
		f.put("cur/"+base+":2,S", fmt.Sprintf("Subject: %d\n", i))
		if p == "P :" {
			p = "P\\:"
		}
		lines += strings.ReplaceAll(fmt.Sprintf("%d %s :%s\n", i+1, p, base), "  ", " ")
		want = append(want, strings.TrimPrefix(p, "P"))
	}
	f.put("dovecot-uidlist", lines)
	before := f.contents()
	ids := f.ids()
	for i, id := range []string{4: ids[4], 5: "000000066b03a418", 7: ""} {
		if id != "" {
			want[i] = id
		}
	}
	f.wantIDs("before", ids, want)
	f.remove(1, 2, 3, 4, 5, 6, 7, 8)
	f.wantIDs("removed", f.ids(), nil)
	f.restart()
	f.wantIDs("restored", f.restore(all), ids)
	for range 2 {
		f.wantIDs("back", f.ids(), ids)
		for id, text := range f.contents() {
			if before[id] != text {
				t.Errorf("%s is %q, was %q", id, text, before[id])
			}
		}
		f.restart()
	}
	f.fsck()
}

// Two messages had one base name, one after the other, and a third has it now: all come back, each with its own
// content, under names of their own.
func TestUndeleteSameName(t *testing.T) {
	f := newFixture(t)
	f.owner.Life.Undelete = fortnight
	want := map[string]string{}
	for i := range 3 {
		f.put("new/1700000001.M1P1.host", fmt.Sprintf("Subject: %d\n", i))
		for id, text := range f.contents() {
			want[id] = text
		}
		if i < 2 {
			f.remove(1)
		}
	}
	if got := len(f.restore(all)); got != 2 || len(want) != 3 {
		t.Fatalf("%d are back, want 2 of %d", got, len(want))
	}
	for range 2 {
		got := f.contents()
		if len(got) != 3 {
			t.Errorf("%d messages", len(got))
		}
		for id, text := range got {
			if want[id] != text {
				t.Errorf("%s is %q, was %q", id, text, want[id])
			}
		}
		f.restart()
	}
	f.fsck()
}

// A unique-id that another message has now: that one is not brought back, the others are.
func TestRestoreTakenUniqueID(t *testing.T) {
	f := newFixture(t)
	f.owner.Life.Undelete = fortnight
	f.deliver("Subject: 1\n")
	f.deliver("Subject: 2\n")
	before := f.ids()
	f.remove(1, 2)
	f.deliver("Subject: 3\n")
	f.ids()
	l := f.list()
	l.Records[0].Set('P', before[0])
	f.put("dovecot-uidlist", string(l.Append(nil)))
	back, err := f.store.Restore(t.Context(), f.owner, all)
	if err == nil || !strings.Contains(err.Error(), before[0]) {
		t.Errorf("Restore: %v", err)
	}
	f.wantIDs("back", removedIDs(back), before[1:])
	f.wantIDs("in the maildrop", f.ids(), before)
	f.wantIDs("left", removedIDs(f.trashed()), before[:1])
	if got := f.contents()[before[0]]; got != "Subject: 3\r\n" {
		t.Errorf("%s is %q", before[0], got)
	}
}

// A move that fails leaves the message where it is; nothing is unlinked instead.
func TestUndeleteFaults(t *testing.T) {
	for _, op := range []string{"mkdir", "append", "rename", "sync list", "sync dewey-removed"} {
		for _, fault := range []error{unix.ENOSPC, unix.EDQUOT, unix.EROFS} {
			f := newFixture(t)
			f.owner.Life.Undelete = fortnight
			f.deliver("Subject: 1\n")
			f.deliver("Subject: 2\n")
			before := f.ids()
			f.store.SetFault(func(o, path string) error {
				if o == op || o == "unlink" || op == o+" "+filepath.Base(path) {
					return fault
				}
				return nil
			})
			d := f.open()
			if err := d.Remove(t.Context(), []int{1, 2}); !errors.Is(err, fault) {
				t.Errorf("%s: Remove: %v", op, err)
			}
			f.close(d)
			f.wantIDs(op, f.ids(), before)
			if got := f.trashed(); len(got) > 0 {
				t.Errorf("%s: both in the maildrop and to be restored: %v", op, got)
			}
			f.store.SetFault(nil)
			f.remove(1, 2)
			f.wantIDs(op+", then restored", f.restore(all), before)
			f.wantIDs(op+", then restored", f.ids(), before)
			f.fsck()
		}
	}
}

func ownerOf(st os.FileInfo) int { return int(st.Sys().(*syscall.Stat_t).Uid) }

// The order of writes is the promise: the list is durable before a file is moved, and the moves before Remove returns;
// the record is durable before a file comes back. The list appears with its head. However many messages there are, that is
// one append and four syncs.
func TestUndeleteOrder(t *testing.T) {
	f := newFixture(t)
	f.owner.Life.Undelete = fortnight
	for i := range 6 {
		f.deliver(fmt.Sprintf("Subject: %d\n", i))
	}
	f.flag(f.files["Subject: 1\n"], "S")
	f.ids()
	trace := func(do func()) string {
		var ops []string
		f.store.SetFault(func(op, path string) error {
			if name := filepath.Base(path); op == "rename" {
				ops = append(ops, "rename "+filepath.Base(filepath.Dir(path)))
			} else if op != "readdir" && op != "lstat" && op != "readlist" && op != "lock" && op != "open" {
				ops = append(ops, op+" "+name)
			}
			return nil
		})
		defer f.store.SetFault(nil)
		do()
		return strings.Join(ops, ", ")
	}
	remove := func(numbers ...int) func() {
		d := f.open()
		t.Cleanup(func() { f.close(d) })
		return func() { f.check(errors.Join(d.Remove(t.Context(), numbers), d.Close())) }
	}
	end := ", sync dewey-removed, sync new, sync cur, replace dovecot-uidlist, sync dovecot-uidlist"
	if got, want := trace(remove(2, 1)), "mkdir dewey-removed, replace list, sync list.tmp, sync dewey-removed, append list, sync list, rename cur, rename new"+end; got != want {
		t.Errorf("the first removal:\n%s, want\n%s", got, want)
	}
	if got, want := trace(remove(4, 3, 2, 1)), "append list, sync list, rename new, rename new, rename new, rename new"+
		strings.Replace(end, ", sync cur", "", 1); got != want {
		t.Errorf("a removal:\n%s, want\n%s", got, want)
	}
	if got, want := trace(func() { f.restore(all) }), "replace dovecot-uidlist, sync dovecot-uidlist, rename cur"+
		strings.Repeat(", rename new", 5)+", sync new, sync cur, sync dewey-removed"; got != want {
		t.Errorf("a restore:\n%s, want\n%s", got, want)
	}
}

// A message with several names is removed under all of them, and comes back once.
func TestUndeleteSecondName(t *testing.T) {
	for _, when := range []string{"before the login", "after it"} {
		f := newFixture(t)
		f.owner.Life.Undelete = fortnight
		base := f.deliver("Subject: 1\n")
		f.check(os.MkdirAll(filepath.Join(f.root, "cur"), 0o700))
		link := func() {
			f.check(os.Link(filepath.Join(f.root, "new", base), filepath.Join(f.root, "cur", base+":2,S")))
		}
		before := f.ids()
		if when == "before the login" {
			link()
		}
		d := f.open()
		if when == "after it" {
			link()
		}
		f.check(d.Remove(t.Context(), []int{1}))
		f.close(d)
		f.wantIDs(when, f.ids(), nil)
		f.wantIDs(when, f.restore(all), before)
		f.wantIDs(when, f.ids(), before)
		if n := len(f.folder("new")) + len(f.folder("cur")); n != 1 {
			t.Errorf("%s: it has %d names", when, n)
		}
		f.checkUsage()
		f.fsck()
	}
}

// Names that changed since the login, and a message that is gone: the new flags come back, and all count as removed.
func TestTrap20Undelete(t *testing.T) {
	f := newFixture(t)
	f.owner.Life.Undelete = fortnight
	base, gone := f.deliver("Subject: 1\n"), f.deliver("Subject: 2\n")
	d := f.open()
	before := uids(d)
	f.flag(base, "RS")
	f.check(os.Remove(f.find(gone)))
	f.check(d.Remove(t.Context(), []int{1, 2}))
	f.close(d)
	f.wantIDs("removed", f.ids(), nil)
	f.wantIDs("restored", f.restore(all), before[:1])
	f.wantIDs("restored", f.ids(), before[:1])
	if !exists(filepath.Join(f.root, "cur", base+":2,RS")) {
		t.Errorf("it came back as %s", f.find(base))
	}
}

// Removed mail counts for no quota, also after a restart; restored mail does, and is refused by none.
func TestUndeleteQuota(t *testing.T) {
	f := newFixture(t)
	f.owner.Life.Undelete = fortnight
	f.quota = maildrop.Quota{Messages: 2}
	f.deposit("one\r\n")
	f.deposit("two\r\n")
	for _, restart := range []bool{false, true} {
		if err := f.tryDeposit("more\r\n"); !errors.Is(err, maildrop.ErrFull) {
			t.Errorf("restart %v: a third message: %v", restart, err)
		}
		f.remove(1, 2)
		if restart {
			f.restart()
		}
		f.checkUsage()
		f.deposit("three\r\n")
		f.deposit("four\r\n")
		if got := len(f.restore(all)); got != 2 {
			t.Errorf("restart %v: %d are back", restart, got)
		}
		if got := f.checkUsage(); got.Messages != 4 {
			t.Errorf("restart %v: %+v", restart, got)
		}
		if restart {
			f.restart()
		}
		if got := f.checkUsage(); got.Messages != 4 {
			t.Errorf("restart %v: %+v", restart, got)
		}
		d := f.open()
		f.owner.Life.Undelete = 0 // for good
		f.close(d)
		f.remove(3, 4)
		f.owner.Life.Undelete = fortnight
	}
}

// A restore waits for nobody's session.
func TestRestoreInUse(t *testing.T) {
	f := newFixture(t)
	f.owner.Life.Undelete = fortnight
	f.deliver("Subject: 1\n")
	f.remove(1)
	d := f.open()
	if _, err := f.store.Restore(t.Context(), f.owner, all); !errors.Is(err, maildrop.ErrInUse) {
		t.Errorf("Restore beside a session: %v", err)
	}
	f.close(d)
	if got := len(f.restore(all)); got != 1 {
		t.Errorf("%d are back", got)
	}
}
