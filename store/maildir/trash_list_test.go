package maildir_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"dewey/maildrop"
)

// A link in the place of the folder, or of its list, is not followed, and nothing is removed.
func TestTrashIsNoLink(t *testing.T) {
	for _, link := range []string{"dewey-removed", "dewey-removed/list"} {
		f := newFixture(t)
		f.owner.Life.Undelete = fortnight
		f.deliver("Subject: 1\n")
		before := f.ids()
		outside := filepath.Join(filepath.Dir(f.root), "outside")
		f.check(os.MkdirAll(outside, 0o700))
		f.check(os.MkdirAll(filepath.Dir(filepath.Join(f.root, link)), 0o700))
		f.check(os.Symlink(outside, filepath.Join(f.root, link)))
		d := f.open()
		if err := d.Remove(t.Context(), []int{1}); err == nil {
			t.Errorf("%s: removed", link)
		}
		f.close(d)
		f.wantIDs(link, f.ids(), before)
		if _, err := f.store.Sweep(t.Context(), f.owner, time.Now()); err == nil {
			t.Errorf("%s: swept", link)
		}
		if entries, _ := os.ReadDir(outside); len(entries) > 0 {
			t.Errorf("%s: %v", link, entries)
		}
	}
}

// Whoever may write to the folder can name no file outside of it, and put nothing into the list of unique-ids.
func TestTrashListIsNotTrusted(t *testing.T) {
	f := newFixture(t)
	f.owner.Life.Undelete = fortnight
	f.deliver("Subject: 1\n")
	f.remove(1)
	f.put("dovecot-uidlist.copy", f.get("dovecot-uidlist"))
	at := fmt.Sprint(time.Now().Unix())
	f.put("dewey-removed/x", "Subject: x\n")
	for _, line := range []string{
		at + " ../dovecot-uidlist.copy new id :1.a", at + " list new id :1.a", at + " x new id :../a", at + " x new id :.a",
		at + " x tmp id :1.a", at + " x new i\xffd :1.a", at + " x new id lower :1.a", at + " x new id S1\x00 :1.a", at + " x new id :",
		at + " x new id ::2,", at + " x new", at, "", "x x new id :1.a", at + " x new id S5", at + " x new id :1.a\r",
		at + " x new " + strings.Repeat("i", 71) + " :1.a", at + " x new id :" + strings.Repeat("n", 300),
	} {
		f.put("dewey-removed/list", "dewey-removed 1\n"+line+"\n")
		if got := f.trashed(); len(got) != 0 {
			t.Errorf("%q is believed: %v", line, got)
		}
		f.restore(all)
		f.sweep(time.Now())
	}
	f.put("dewey-removed/list", "dewey-removed 1\n"+at+" x new id :1.a")
	if got := f.trashed(); len(got) != 0 {
		t.Errorf("a line without an end is believed: %v", got)
	}
	if f.get("dewey-removed/x") != "Subject: x\n" || !exists(filepath.Join(f.root, "dovecot-uidlist.copy")) {
		t.Error("a file was touched")
	}
	for _, head := range []string{"", "dewey-removed 2\n", "dewey-removed 1", "\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\n"} {
		f.put("dewey-removed/list", head)
		_, err := f.store.Removed(context.Background(), f.owner)
		if cut := strings.HasPrefix("dewey-removed 1\n", head); cut && err != nil || !cut && !errors.Is(err, maildrop.ErrDamaged) {
			t.Errorf("a list that begins with %q: %v", head, err)
		}
	}
}

// A write to the list that was cut spoils no other line.
func TestTrashListCut(t *testing.T) {
	f := newFixture(t)
	f.owner.Life.Undelete = fortnight
	f.deliver("Subject: 1\n")
	f.deliver("Subject: 2\n")
	before := f.ids()
	for _, cut := range []string{"1795400728 17954007", "", "dewey"} {
		if cut == "dewey" || cut == "" { // who made the list died at once
			f.put("dewey-removed/list", cut)
		} else {
			f.remove(1)
			f.put("dewey-removed/list", f.get("dewey-removed/list")+cut)
		}
		d := f.open()
		f.check(d.Remove(t.Context(), []int{1}))
		f.close(d)
		f.restore(all)
		if got := len(f.ids()); got != 2 {
			t.Fatalf("after %q: %d messages, want 2 of %q", cut, got, before)
		}
	}
}
