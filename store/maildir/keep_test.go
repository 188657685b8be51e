package maildir_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"pgregory.net/rapid"

	"dewey/maildrop"
	"dewey/maildrop/maildroptest"
	"dewey/store/maildir"
)

// The suite, for owners whose removed mail stays for a while, or stays where it is.
func TestStoreLife(t *testing.T) {
	for name, life := range map[string]maildrop.Life{
		"undelete": {Undelete: fortnight},
		"keep":     {Undelete: fortnight, Deletion: maildrop.DeletionKeep},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			maildroptest.Run(t, func(t maildroptest.TB) maildroptest.Maildrop {
				f := newFixture(t)
				f.owner.Life = life
				if rt, ok := t.(*rapid.T); ok {
					f.random = func(n int) int { return rapid.IntRange(0, n-1).Draw(rt, "choice") }
				}
				f.trustTimes()
				return f.suite()
			})
		})
	}
}

// What is kept despite DELE is not seen by sessions, whatever Life says later, but for those that ask for all that is
// recent; it keeps its unique-id, counts for quotas, and comes back.
func TestKeep(t *testing.T) {
	f := newFixture(t)
	f.owner.Life.Deletion = maildrop.DeletionKeep
	var bases []string
	for i := range 4 {
		bases = append(bases, f.deliver(fmt.Sprintf("Subject: %d\n", i)))
	}
	before, start := f.ids(), time.Now().Truncate(time.Second)
	d := f.open()
	f.read(d, 1)
	f.check(d.Remove(t.Context(), []int{2, 4}))
	if strings.Count(f.get("dovecot-uidlist"), " D") != 2 {
		t.Errorf("Remove returned, and the list is\n%s", f.get("dovecot-uidlist"))
	}
	f.close(d)
	seen := []string{before[0], before[2]}
	look := func(what string) {
		t.Helper()
		f.wantIDs(what, f.ids(), seen)
		f.wantIDs(what+", again", f.ids(), seen)
		f.owner.View.Recent = time.Hour
		f.wantIDs(what+", recent", f.ids(), before)
		f.owner.View.Recent = 0
		f.checkUsage()
		if u, err := f.store.Usage(t.Context(), f.owner); err != nil || u.Messages != 4 {
			t.Errorf("%s: %+v, %v", what, u, err)
		}
	}
	look("kept")
	f.restart()
	look("after a restart")
	f.owner.Life.Deletion = maildrop.DeletionRemove
	look("with another Life")
	f.flag(bases[1], "S")
	look("with a flag")
	l, err := f.store.Look(t.Context(), f.owner)
	f.check(err)
	var hidden []bool
	for n := range 6 {
		hidden = append(hidden, l.Hidden(n))
	}
	if !slices.Equal(hidden, []bool{false, false, true, false, true, false}) || len(l.Messages()) != 4 {
		t.Errorf("Look: hidden %v", hidden)
	}
	list := f.trashed()
	f.wantIDs("Removed", removedIDs(list), []string{before[1], before[3]})
	if r := list[0]; !r.Kept || r.At.Before(start) || r.At.After(time.Now()) || r.Octets != int64(len("Subject: 1\r\n")) {
		t.Errorf("%+v", r)
	}
	body, err := f.store.OpenRemoved(t.Context(), f.owner, list[0])
	f.check(err)
	f.check(body.Close())

	// Marked again, in a session that sees it, and again by the same session.
	f.owner.Life.Deletion, f.owner.View.Recent = maildrop.DeletionKeep, time.Hour
	d = f.open()
	f.check(d.Remove(t.Context(), []int{2}))
	f.check(d.Remove(t.Context(), []int{2, 2}))
	f.close(d)
	f.owner.View.Recent = 0
	look("marked again")

	f.wantIDs("restored", f.restore(func(r maildir.Removed) bool { return r.UID == before[1] }), before[1:2])
	f.wantIDs("back", f.ids(), before[:3])
	f.wantIDs("the other one", f.restore(all), before[3:])
	f.wantIDs("twice", f.restore(all), nil)
	f.restart()
	f.wantIDs("back", f.ids(), before)
	if strings.Contains(f.get("dovecot-uidlist"), " D") {
		t.Errorf("the list is\n%s", f.get("dovecot-uidlist"))
	}
	f.fsck()
}

// Where the list can't be written nothing is removed; one that others have removed counts as removed.
func TestKeepFaults(t *testing.T) {
	for _, op := range []string{"replace", "lock", "sync", "readlist"} {
		f := newFixture(t)
		f.owner.Life.Deletion = maildrop.DeletionKeep
		f.deliver("Subject: 1\n")
		base := f.deliver("Subject: 2\n")
		before := f.ids()
		d := f.open()
		f.store.SetFault(func(o, _ string) error {
			if o == op {
				return unix.ENOSPC
			}
			return nil
		})
		if err := d.Remove(t.Context(), []int{1, 2}); !errors.Is(err, unix.ENOSPC) {
			t.Errorf("%s: Remove: %v", op, err)
		}
		f.store.SetFault(nil)
		f.close(d)
		f.wantIDs(op, f.ids(), before)
		d = f.open()
		f.check(os.Remove(f.find(base)))
		l := f.list()
		l.Records = l.Records[:1]
		f.put("dovecot-uidlist", string(l.Append(nil)))
		f.check(d.Remove(t.Context(), []int{1, 2}))
		f.close(d)
		f.wantIDs(op, f.ids(), nil)
		f.wantIDs(op, removedIDs(f.trashed()), before[:1])
	}
	f := newFixture(t) // another list by now
	f.owner.Life.Deletion = maildrop.DeletionKeep
	f.deliver("Subject: 1\n")
	f.ids()
	d := f.open()
	f.put("dovecot-uidlist", "3 V77 N5 Ga4f7d52518a4036bc527000083ecc375\n")
	if d.Remove(t.Context(), []int{1}) == nil {
		t.Error("removed, and no record says so")
	}
	f.close(d)
	if got := f.ids(); len(got) != 1 {
		t.Errorf("%q", got)
	}
}

// old gives a message's file a time.
func (f *fixture) old(base string, age time.Duration) {
	f.t.Helper()
	at := time.Now().Add(-age)
	f.check(os.Chtimes(f.find(base), at, at))
}

const day = 24 * time.Hour

// What is older than the retention goes by the same door as at QUIT; hidden messages too.
func TestSweepRetention(t *testing.T) {
	for _, life := range []maildrop.Life{
		{Retention: 30 * day},
		{Retention: 30 * day, Undelete: fortnight},
		{Retention: 30 * day, Undelete: fortnight, Deletion: maildrop.DeletionKeep},
	} {
		f := newFixture(t)
		f.owner.Life = life
		var bases []string
		for i := range 4 {
			bases = append(bases, f.deliver(fmt.Sprintf("Subject: %d\n", i)))
		}
		f.old(bases[0], 29*day)
		f.old(bases[1], 31*day)
		f.old(bases[2], -10*day)
		f.old(bases[3], 31*day)
		before := f.ids()
		if life.Deletion == maildrop.DeletionKeep {
			f.remove(4)
		}
		d := f.open()
		if _, err := f.store.Sweep(t.Context(), f.owner, time.Now()); !errors.Is(err, maildrop.ErrInUse) {
			t.Errorf("Sweep beside a session: %v", err)
		}
		f.close(d)
		swept := f.sweep(time.Now())
		if len(swept.Expired) != 2 || swept.Expired[0].UID != before[1] || swept.Expired[1].UID != before[3] || swept.Purged != 0 {
			t.Errorf("%+v: %+v", life, swept)
		}
		f.wantIDs("swept", f.ids(), []string{before[0], before[2]})
		f.fsck()
		var want []string
		if life.Undelete > 0 {
			want = []string{before[1], before[3]}
		}
		f.wantIDs("to be restored", removedIDs(f.trashed()), want)
		d = f.open() // there is nothing to do: nobody is in the way
		if swept := f.sweep(time.Now()); len(swept.Expired) != 0 {
			t.Errorf("swept again: %+v", swept)
		}
		f.close(d)
	}
}

// What was removed is purged when its time is over, and no sooner: the clock set back, files that no line knows, and
// where nothing is kept any more.
func TestSweepPurge(t *testing.T) {
	f := newFixture(t)
	f.owner.Life.Undelete = fortnight
	for i := range 3 {
		f.deliver(fmt.Sprintf("Subject: %d\n", i))
	}
	before := f.ids()
	f.remove(1)
	now := time.Now()
	if swept := f.sweep(now.Add(13 * day)); swept.Purged != 0 {
		t.Errorf("purged after 13 days: %+v", swept)
	}
	if swept := f.sweep(now.Add(-1000 * day)); swept.Purged != 0 {
		t.Errorf("purged before it was removed: %+v", swept)
	}
	d := f.open()
	if _, err := f.store.Sweep(t.Context(), f.owner, now.Add(15*day)); !errors.Is(err, maildrop.ErrInUse) {
		t.Errorf("Sweep beside a session: %v", err)
	}
	f.close(d)
	f.put("dewey-removed/unknown", "Subject: on no line\n")
	if swept := f.sweep(now.Add(13 * day)); swept.Purged != 0 {
		t.Errorf("purged after 13 days: %+v", swept)
	}
	if swept := f.sweep(now.Add(15 * day)); swept.Purged != 2 {
		t.Errorf("purged after 15 days: %+v", swept)
	}
	if got := f.folder("dewey-removed"); !slices.Equal(got, []string{"list"}) || f.get("dewey-removed/list") != "dewey-removed 1\n" {
		t.Errorf("left: %q, %q", got, f.get("dewey-removed/list"))
	}
	f.wantIDs("purged", f.restore(all), nil)

	// A removal that is told as to come stays while something is kept, and goes with the rest.
	f.remove(1, 2)
	f.put("dewey-removed/list", strings.Replace(f.get("dewey-removed/list"), "\n1", "\n9", 1))
	if swept := f.sweep(now.Add(15 * day)); swept.Purged != 1 {
		t.Errorf("purged with one to come: %+v", swept)
	}
	f.owner.Life.Undelete = 0
	f.wantIDs("offered all the same", removedIDs(f.trashed()), before[1:2])
	if swept := f.sweep(now); swept.Purged != 1 {
		t.Errorf("purged when nothing is kept any more: %+v", swept)
	}
	f.wantIDs("in the end", f.ids(), nil)

	f.root = filepath.Join(f.root, "none")
	if swept := f.sweep(now); exists(f.root) || swept.Purged != 0 || len(f.trashed()) != 0 || f.restore(all) != nil {
		t.Error("a Maildir was made where there was none")
	}
	f.check(os.Mkdir(f.root, 0o700))
	f.sweep(now)
	if entries, _ := os.ReadDir(f.root); len(entries) > 0 || len(f.trashed()) != 0 || f.restore(all) != nil {
		t.Error("a Maildir was made where there was none")
	}
}

// What is over is not offered, and yet no session purges it: only the night's work knows whether the clock is right.
func TestRemovePurgesNothing(t *testing.T) {
	f := newFixture(t)
	f.owner.Life.Undelete = fortnight
	f.deliver("Subject: 1\n")
	f.deliver("Subject: 2\n")
	f.remove(1)
	list := f.get("dewey-removed/list")
	at := strings.Fields(list)[2]
	f.put("dewey-removed/list", strings.ReplaceAll(list, at+" 1", fmt.Sprint(time.Now().Add(-10*fortnight).Unix())+" 1"))
	f.remove(1)
	if got := f.folder("dewey-removed"); len(got) != 3 {
		t.Errorf("%q is left, want both messages and the list", got)
	}
	if got := len(f.trashed()); got != 1 {
		t.Errorf("%d can be restored, want 1", got)
	}
}
