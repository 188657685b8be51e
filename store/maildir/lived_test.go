package maildir_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"dewey/maildrop"
	"dewey/store/maildir"
)

// What was removed by who asked for a folder that no session sees otherwise can be listed, read, brought back and purged;
// nothing else happens to that folder's mail.
func TestRemovedInOtherFolders(t *testing.T) {
	for _, disk := range []string{".Entw&APw-rfe", ".Entwürfe", ".Lists.dewey", ".R&D"} {
		f := newFixture(t)
		f.owner.Life = maildrop.Life{Undelete: fortnight, Retention: 30 * day}
		f.into("", "own")
		f.into(disk, "mine")
		f.into(disk, "stays")
		name := map[string]string{".Lists.dewey": "Lists/dewey", ".R&D": "R&D"}[disk]
		if name == "" {
			name = "Entwürfe"
		}
		view := f.owner
		view.View.Folder = name
		d, err := f.store.Open(t.Context(), view)
		f.check(err)
		id := d.Messages()[0].UID
		f.check(d.Remove(t.Context(), []int{1}))
		f.check(d.Close())
		list := f.trashed()
		if len(list) != 1 || list[0].Folder != name || list[0].UID != id {
			t.Fatalf("%s: Removed: %+v, want %s in %s", disk, list, id, name)
		}
		body, err := f.store.OpenRemoved(t.Context(), f.owner, list[0])
		f.check(err)
		text, _ := io.ReadAll(body)
		f.check(body.Close())
		if strings.TrimSpace(string(text)) != "mine" {
			t.Errorf("%s: %q", disk, text)
		}
		f.wantIDs(disk, f.restore(all), []string{id})
		d, err = f.store.Open(t.Context(), view)
		f.check(err)
		f.check(d.Remove(t.Context(), []int{1}))
		f.check(d.Close())
		if swept := f.sweep(time.Now().Add(31 * day)); swept.Purged != 1 || len(swept.Expired) != 1 {
			t.Errorf("%s: %+v, want one purged and the own one expired", disk, swept)
		}
		if left := f.folder(disk + "/new"); len(left) != 1 {
			t.Errorf("%s: left are %q", disk, left)
		}
	}
}

// A folder's trash whose name on the disk is no folder's is shown under that.
func TestRemovedUnderForeignName(t *testing.T) {
	f := newFixture(t)
	f.owner.Life.Undelete = fortnight
	f.into("", "own")
	for _, disk := range []string{".&APw", ".a..b", ".\xff"} {
		f.into(disk, "x")
		f.put(disk+"/dewey-removed/x", "x\n")
		f.put(disk+"/dewey-removed/list", fmt.Sprintf("%s%d x new id%x :a\n", trashHead, time.Now().Unix(), disk))
	}
	seen := map[string]bool{}
	for _, r := range f.trashed() {
		seen[r.Folder] = true
	}
	if fmt.Sprint(seen) != fmt.Sprint(map[string]bool{"&APw": true, ".a..b": true, ".\xff": true}) {
		t.Errorf("%+q", slices.Sorted(maps.Keys(seen)))
	}
}

// A folder that can't be opened is told of, and the others' mail is listed, swept and brought back.
func TestBrokenFolderStopsNothing(t *testing.T) {
	f := newFixture(t)
	f.owner.Life = maildrop.Life{Undelete: fortnight, Folders: []string{"Broken", "Whole"}}
	f.into("", "own")
	f.into(".Whole", "whole")
	f.into(".Broken", "broken")
	f.remove(1, 3)
	f.ids()
	f.check(os.RemoveAll(filepath.Join(f.root, ".Broken/cur")))
	list, err := f.store.Removed(t.Context(), f.owner)
	if len(list) != 2 || err == nil {
		t.Errorf("Removed: %v, %v", list, err)
	}
	back, err := f.store.Restore(t.Context(), f.owner, all)
	if len(back) != 2 || err == nil {
		t.Errorf("Restore: %v, %v", back, err)
	}
	f.owner.Life.Retention = day
	swept, err := f.store.Sweep(t.Context(), f.owner, time.Now().Add(2*day))
	if len(swept.Expired) != 2 || err == nil {
		t.Errorf("Sweep: %v, %v", swept, err)
	}
}

// To open what Removed has listed costs no other look at all that was removed.
func TestOpenRemovedReadsNoList(t *testing.T) {
	f := newFixture(t)
	f.owner.Life.Undelete = fortnight
	for i := range 20 {
		f.deliver(fmt.Sprintf("Subject: %d\n", i))
	}
	f.remove(1, 2, 3, 4, 5, 6, 7, 8)
	f.owner.Life.Deletion = maildrop.DeletionKeep
	f.remove(1, 2, 3, 4)
	f.owner.Life.Deletion = ""
	list := f.trashed()
	reads := 0
	f.store.SetTrace(func(string, string) { reads++ })
	for _, r := range list {
		body, err := f.store.OpenRemoved(t.Context(), f.owner, r)
		f.check(err)
		f.check(body.Close())
	}
	f.store.SetTrace(nil)
	if len(list) != 12 || reads > 0 {
		t.Errorf("%d messages, %d folders and lists read", len(list), reads)
	}
	r := list[0]
	name := f.folder("dewey-removed")[0]
	f.check(os.Remove(filepath.Join(f.root, "dewey-removed", name)))
	f.put("dewey-removed/"+name, "another\n")
	if _, err := f.store.OpenRemoved(t.Context(), f.owner, r); !errors.Is(err, maildrop.ErrGone) {
		t.Errorf("another file under its name: %v, want ErrGone", err)
	}
}

// Unique-ids are listed and brought back as they are served: with the suffix, in a folder that is a copy.
func TestRemovedIsAsServed(t *testing.T) {
	f := newFixture(t)
	f.owner.Life = maildrop.Life{Undelete: fortnight, Retention: 30 * day, Folders: []string{"A", "B"}}
	f.into(".A", "a")
	f.into(".B", "b")
	f.into(".C", "c")
	f.ids()
	f.want(viewing("C"), "c")
	f.restart()
	for _, disk := range []string{".B", ".C"} {
		list := f.get(".A/dovecot-uidlist")
		f.put(disk+"/dovecot-uidlist", strings.Replace(list, f.folder(".A/new")[0], f.folder(disk + "/new")[0], 1))
		f.check(os.RemoveAll(filepath.Join(f.root, disk, "dewey-uidvalidity")))
	}
	before := f.ids()
	view := f.owner
	view.View.Folder = "C"
	d, err := f.store.Open(t.Context(), view)
	f.check(err)
	before = append(before, d.Messages()[0].UID)
	f.check(d.Remove(t.Context(), []int{1}))
	f.check(d.Close())
	if !strings.Contains(before[1], ".") || !strings.Contains(before[2], ".") {
		t.Fatalf("served are %q", before)
	}
	f.remove(1, 2)
	got := map[string]string{}
	for _, r := range f.trashed() {
		got[r.Folder] = r.UID
	}
	if want := map[string]string{"A": before[0], "B": before[1], "C": before[2]}; fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("removed are %q, served were %q", got, want)
	}
	f.owner.View.Folder = "B"
	f.wantIDs("Removed in B", removedIDs(f.trashed()), before[1:2])
	f.owner.View.Folder = ""
	f.restore(all)
	f.wantIDs("back", f.ids(), before[:2])
	if swept := f.sweep(time.Now().Add(31 * day)); len(swept.Expired) != 2 || swept.Expired[1].UID != before[1] {
		t.Errorf("expired are %+v", swept.Expired)
	}
}

// However many folders are missing, a login reads the names of those that are there once.
func TestMissingFoldersAreSoughtOnce(t *testing.T) {
	f := newFixture(t)
	f.into("", "own")
	reads := 0
	f.store.SetTrace(func(op, path string) {
		if op == "readdir" && path == f.root {
			reads++
		}
	})
	f.seen(including("A", "B", "C", "D"))
	f.seen(including("A", "B", "C", "D"))
	if reads < 1 || reads > 3 {
		t.Errorf("the Maildir is read %d times in two logins", reads)
	}
}

// A purge gives the lock back in between to who waits for it, and ends when it is told to.
func TestPurgeInBatches(t *testing.T) {
	const messages = 3500
	fill := func() *fixture {
		f := newFixture(t)
		f.store = f.newStore(maildir.Options{LockWait: time.Minute})
		f.owner.Life.Undelete = day
		f.into("", "own")
		var b strings.Builder
		b.WriteString(trashHead)
		for i := range messages {
			f.put(fmt.Sprintf("dewey-removed/x%d", i), "")
			fmt.Fprintf(&b, "1 x%d new i%d :a%d\n", i, i, i)
		}
		f.put("dewey-removed/list", b.String())
		return f
	}
	f := fill()
	unlinked, at := 0, make(chan int, 1)
	f.store.SetFault(func(op, _ string) error {
		switch {
		case op == "unlink":
			unlinked++
			if unlinked == 1 {
				go func() {
					d, err := f.store.Open(t.Context(), f.owner)
					if err == nil {
						at <- unlinked // nobody unlinks while it is open
						err = d.Close()
					}
					if err != nil {
						t.Errorf("Open: %v", err)
						at <- messages
					}
				}()
			}
		}
		return nil
	})
	if swept := f.sweep(time.Now()); swept.Purged != messages || unlinked != messages {
		t.Errorf("%d purged, %d files unlinked", swept.Purged, unlinked)
	}
	if n := <-at; n >= messages {
		t.Errorf("a login came in after %d of %d", n, messages)
	}
	if got := f.get("dewey-removed/list"); got != trashHead {
		t.Errorf("the list has %d octets", len(got))
	}
	f = fill()
	ctx, cancel := context.WithCancel(t.Context())
	f.store.SetFault(func(op, _ string) error {
		if op == "unlink" {
			cancel()
		}
		return nil
	})
	swept, err := f.store.Sweep(ctx, f.owner, time.Now())
	if !errors.Is(err, context.Canceled) || swept.Purged == 0 || swept.Purged > messages/2 {
		t.Errorf("told to end: %d purged, %v", swept.Purged, err)
	}
}

// So does the removal of what is too old.
func TestExpireInBatches(t *testing.T) {
	const messages = 2500
	f := newFixture(t)
	f.owner.Life.Retention = day
	for range messages {
		f.into("", "old")
	}
	f.ids()
	ctx, cancel := context.WithCancel(t.Context())
	f.store.SetFault(func(op, _ string) error {
		if op == "unlink" {
			cancel()
		}
		return nil
	})
	swept, err := f.store.Sweep(ctx, f.owner, time.Now().Add(2*day))
	if n := len(swept.Expired); !errors.Is(err, context.Canceled) || n == 0 || n > messages/2 {
		t.Errorf("told to end: %d removed, %v", n, err)
	}
	f.store.SetFault(nil)
	if rest := f.sweep(time.Now().Add(2 * day)); len(rest.Expired)+len(swept.Expired) != messages {
		t.Errorf("%d and %d of %d removed", len(swept.Expired), len(rest.Expired), messages)
	}
}
