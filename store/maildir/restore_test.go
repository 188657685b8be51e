package maildir_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"dewey/maildrop"
	"dewey/store/maildir"
	"dewey/store/maildir/uidlist"
)

// Many messages come back in several goes: the lock on the list, for which Dovecot's deliveries wait, is free in between.
func TestRestoreInBatches(t *testing.T) {
	const messages = 2500
	f := newFixture(t)
	f.owner.Life.Undelete = fortnight
	f.into("", "own")
	var b strings.Builder
	b.WriteString(trashHead)
	for i := range messages {
		f.put(fmt.Sprintf("dewey-removed/x%d", i), "")
		fmt.Fprintf(&b, "%d x%d new i%d :a%d\n", time.Now().Unix(), i, i, i)
	}
	f.put("dewey-removed/list", b.String())
	locked, moved := 0, 0
	f.store.SetFault(func(op, _ string) error {
		switch op {
		case "lock":
			locked, moved = locked+1, 0
		case "rename":
			if moved++; moved == messages/2 {
				t.Error("too many are moved under one lock")
			}
		}
		return nil
	})
	if back := f.restore(all); len(back) != messages || locked < 3 {
		t.Errorf("%d of %d are back, in %d goes", len(back), messages, locked)
	}
	f.store.SetFault(nil)
	if got := f.ids(); len(got) != messages+1 {
		t.Errorf("%d messages", len(got))
	}
}

// A list that a restore makes has a validity that no other of the owner's lists has, and its loss would be noticed.
func TestRestoreMakesAList(t *testing.T) {
	f := newFixture(t)
	f.owner.Life.Undelete = fortnight
	f.owner.Life.Folders = []string{"A"}
	f.into("", "own")
	f.into(".A", "removed")
	f.remove(2)
	list := f.list()
	list.Validity += 5000
	f.put("dovecot-uidlist", string(list.Append(nil)))
	for _, name := range []string{"dovecot-uidlist", "dewey-uidvalidity"} {
		f.check(os.Remove(filepath.Join(f.root, ".A", name)))
	}
	f.restart()
	f.restore(all)
	made, err := uidlist.Parse(strings.NewReader(f.get(".A/dovecot-uidlist")))
	f.check(err)
	if made.Validity <= list.Validity {
		t.Errorf("the validity is %d, the own list's %d", made.Validity, list.Validity)
	}
	if got := f.get(".A/dewey-uidvalidity"); got != fmt.Sprint(made.Validity) {
		t.Errorf("witnessed is %q, want %d", got, made.Validity)
	}
}

// Dates for which there is no room beside the snapshot are not kept, and it stays.
func TestDatesBeyondTheCache(t *testing.T) {
	f := newFixture(t)
	f.deliver("Subject: 1\n")
	f.ids()
	_, octets := f.store.Cached()
	f.store = f.newStore(maildir.Options{CacheOctets: octets})
	d := f.open()
	_, err := d.(maildrop.Dated).Received(t.Context(), 1)
	f.check(err)
	f.close(d)
	if n, _ := f.store.Cached(); n != 1 {
		t.Errorf("%d snapshots are kept, want 1", n)
	}
}

// If the list is another than at login, the log says so.
func TestUndeleteUnderAnotherList(t *testing.T) {
	f := newFixture(t)
	f.owner.Life.Undelete = fortnight
	f.deliver("Subject: 1\n")
	d := f.open()
	list := f.list()
	list.Validity++
	f.put("dovecot-uidlist", string(list.Append(nil)))
	f.check(d.Remove(t.Context(), []int{1}))
	f.close(d)
	f.wantLog("another than at login")
}
