package maildir_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"dewey/maildrop"
)

const trashHead = "dewey-removed 1\n"

// A list of nothing but line ends, or of lines without files, takes no memory: the owner of a Maildir writes what he
// likes.
func TestTrashListBounds(t *testing.T) {
	f := newFixture(t)
	f.owner.Life.Undelete = fortnight
	f.deliver("Subject: 1\n")
	f.remove(1)
	list := f.get("dewey-removed/list")
	for name, text := range map[string]string{
		"line ends":     strings.Repeat("\n", 60<<20),
		"bad lines":     strings.Repeat("x\n", 30<<20),
		"a long line":   strings.Repeat("x", 60<<20) + "\n",
		"without files": strings.Repeat("1 x new i :a\n", 4<<20),
		"too long":      strings.Repeat("1 x new i :a\n", 6<<20),
	} {
		f.put("dewey-removed/list", list+text)
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		got, err := f.store.Removed(t.Context(), f.owner)
		runtime.ReadMemStats(&after)
		if took := after.Sys - before.Sys; took > 64<<20 {
			t.Errorf("%s: %d octets of memory", name, took)
		}
		if good := name == "without files" || name == "a long line"; good && (err != nil || len(got) != 1) || !good && !errors.Is(err, maildrop.ErrDamaged) {
			t.Errorf("%s: %d messages, %v", name, len(got), err)
		}
	}
}

// An error that is not that there is no file keeps its line.
func TestTrashStatFails(t *testing.T) {
	f := newFixture(t)
	f.owner.Life.Undelete = fortnight
	f.deliver("Subject: 1\n")
	f.deliver("Subject: 2\n")
	f.remove(1, 2)
	list := f.get("dewey-removed/list")
	f.put("dewey-removed/list", list+"1 gone new i :a\n") // something to be purged
	failed := false
	f.store.SetFault(func(op, path string) error {
		if op == "lstat" && !failed && strings.Contains(path, "dewey-removed/") {
			failed = true
			return syscall.EIO
		}
		return nil
	})
	if _, err := f.store.Sweep(t.Context(), f.owner, time.Now()); !errors.Is(err, syscall.EIO) {
		t.Errorf("Sweep: %v, want EIO", err)
	}
	f.store.SetFault(nil)
	f.sweep(time.Now())
	if got := f.get("dewey-removed/list"); got != list {
		t.Errorf("the list is %q, want %q", got, list)
	}
}

// What a crash has left of writing the list is no message.
func TestTrashTempIsNoMessage(t *testing.T) {
	f := newFixture(t)
	f.owner.Life.Undelete = fortnight
	f.deliver("Subject: 1\n")
	f.put("dewey-removed/list", trashHead)
	f.put("dewey-removed/list.tmp", trashHead)
	if swept := f.sweep(time.Now().Add(100 * day)); swept.Purged != 0 {
		t.Errorf("%d messages are purged, there is none", swept.Purged)
	}
}

// The same line twice is one message, and brings back one.
func TestTrashLineTwice(t *testing.T) {
	f := newFixture(t)
	f.owner.Life.Undelete = fortnight
	f.deliver("Subject: 1\n")
	before := f.contents()
	f.remove(1)
	list := f.get("dewey-removed/list")
	f.put("dewey-removed/list", list+strings.TrimPrefix(list, trashHead))
	if got := f.trashed(); len(got) != 1 {
		t.Errorf("%d messages are listed, want 1", len(got))
	}
	f.restore(all)
	if after := f.contents(); fmt.Sprint(after) != fmt.Sprint(before) {
		t.Errorf("back are %q, want %q", after, before)
	}
}

// Of a message that has two names in the trash under two lines one comes back, and the other name goes.
func TestTrashNameTwice(t *testing.T) {
	f := newFixture(t)
	f.owner.Life.Undelete = fortnight
	f.deliver("Subject: 1\n")
	before := f.contents()
	f.remove(1)
	list := f.get("dewey-removed/list")
	name := strings.Fields(list)[3]
	f.check(os.Link(filepath.Join(f.root, "dewey-removed", name), filepath.Join(f.root, "dewey-removed", "another")))
	f.put("dewey-removed/list", list+strings.Replace(strings.TrimPrefix(list, trashHead), name, "another", 1))
	_, _ = f.store.Restore(t.Context(), f.owner, all)
	if after := f.contents(); fmt.Sprint(after) != fmt.Sprint(before) {
		t.Errorf("back are %q, want %q", after, before)
	}
	if names := f.folder("dewey-removed"); len(names) != 1 {
		t.Errorf("left are %q", names)
	}
}

// A list that is another file's name, or does not begin as one, is not written to, and nothing is removed.
func TestTrashListIsForeign(t *testing.T) {
	for _, text := range []string{"", "private", trashHead, "dewey-removed 2\nx\n"} {
		for _, linked := range []bool{true, false} {
			if !linked && strings.HasPrefix(trashHead, text) {
				continue
			}
			f := newFixture(t)
			f.owner.Life.Undelete = fortnight
			f.deliver("Subject: 1\n")
			before := f.ids()
			f.put("dewey-removed/list", text)
			list := filepath.Join(f.root, "dewey-removed", "list")
			if linked {
				f.check(os.Link(list, filepath.Join(filepath.Dir(f.root), "other")))
			}
			d := f.open()
			if err := d.Remove(t.Context(), []int{1}); !errors.Is(err, maildrop.ErrDamaged) {
				t.Errorf("%q, linked %v: Remove: %v, want ErrDamaged", text, linked, err)
			}
			f.close(d)
			f.wantIDs("left", f.ids(), before)
			if got := f.get("dewey-removed/list"); got != text {
				t.Errorf("linked %v: the list was %q and is %q", linked, text, got)
			}
		}
	}
}

// A list that has reached its bound loses the lines without files; if all have one, nothing is removed.
func TestTrashListIsFull(t *testing.T) {
	f := newFixture(t)
	f.owner.Life.Undelete = fortnight
	f.deliver("Subject: 1\n")
	f.deliver("Subject: 2\n")
	f.put("dewey-removed/list", trashHead+strings.Repeat("1 "+strings.Repeat("x", 50)+" new i :a\n", (64<<20-16)/62))
	f.remove(1)
	if got := f.get("dewey-removed/list"); len(got) > 400 || len(f.trashed()) != 1 {
		t.Errorf("the list has %d octets, %d messages", len(got), len(f.trashed()))
	}
	var b strings.Builder
	b.WriteString(f.get("dewey-removed/list"))
	for i := 0; b.Len() < 64<<20-60; i++ {
		name := fmt.Sprintf("x%d", i)
		f.put("dewey-removed/"+name, "")
		keys := strings.Repeat("1", min(16_000, max(1, 64<<20-80-b.Len())))
		fmt.Fprintf(&b, "%d %s new i%d S%s :a\n", time.Now().Unix(), name, i, keys)
	}
	f.put("dewey-removed/list", b.String())
	before := f.ids()
	d := f.open()
	if err := d.Remove(t.Context(), []int{1}); !errors.Is(err, maildrop.ErrFull) {
		t.Errorf("Remove: %v, want ErrFull", err)
	}
	f.close(d)
	f.wantIDs("left", f.ids(), before)
	if got := f.get("dewey-removed/list"); got != b.String() {
		t.Error("the list has changed")
	}
}

// The folder for removed messages, and its list, are for those who share the Maildir.
func TestTrashIsShared(t *testing.T) {
	f := newFixture(t)
	f.owner.Life.Undelete = fortnight
	f.deliver("Subject: 1\n")
	for _, name := range []string{".", "new"} {
		f.check(os.Chmod(filepath.Join(f.root, name), os.ModeSetgid|0o770))
	}
	f.remove(1)
	f.sweep(time.Now().Add(fortnight / 2))
	for name, want := range map[string]os.FileMode{"dewey-removed": os.ModeDir | os.ModeSetgid | 0o770, "dewey-removed/list": 0o660} {
		st, err := os.Lstat(filepath.Join(f.root, name))
		f.check(err)
		if st.Mode() != want {
			t.Errorf("%s has the mode %v, want %v", name, st.Mode(), want)
		}
	}
}
