package maildir_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"dewey/maildrop"
	"dewey/store/maildir"
)

// harm does something to the Maildir's own files that disks and crashes do. It keeps all messages.
func (f *fixture) harm(r *rand.Rand) string {
	names := []string{"dovecot-uidlist", "dovecot-uidlist", "dovecot-uidlist", "dewey-uidvalidity", "dewey-removed/list", "dewey-removed/list", "dewey.lock"}
	name := names[r.IntN(len(names))]
	path := filepath.Join(f.root, name)
	text, err := os.ReadFile(path)
	if err != nil {
		return name + " is not there"
	}
	lines := bytes.SplitAfter(text, []byte("\n"))
	what := r.IntN(9)
	switch n := len(text); {
	case what == 0 && n > 0:
		text[r.IntN(n)] ^= 1 << r.IntN(8)
	case what == 1 && n > 0:
		text = text[:r.IntN(n)]
	case what == 2: // a hole
		if n > 0 {
			at := r.IntN(n)
			clear(text[at:min(n, at+1+r.IntN(60))])
		}
	case what == 3:
		i := r.IntN(len(lines))
		text = bytes.Join(slices.Insert(lines, r.IntN(len(lines)), lines[i]), nil)
	case what == 4:
		i, j := r.IntN(len(lines)), r.IntN(len(lines))
		lines[i], lines[j] = lines[j], lines[i]
		text = bytes.Join(lines, nil)
	case what == 5:
		text = append(text, text...)
	case what == 6:
		i := r.IntN(len(lines))
		text = bytes.Join(slices.Delete(lines, i, i+1), nil)
	case what == 7:
		text = append(text, make([]byte, r.IntN(5000))...)
	default:
		f.check(os.Remove(path))
		return name + " removed"
	}
	f.check(os.WriteFile(path, text, 0o600))
	return fmt.Sprintf("%s: %d", name, what)
}

// Whatever damage there is, checking neither panics nor changes anything, and a repair loses no message, and no
// unique-id that a session would have served: each is served after it too. If nobody can log in then, that is an error.
func TestCheckRandomDamage(t *testing.T) {
	for seed := range uint64(100) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			t.Parallel()
			r := rand.New(rand.NewPCG(seed, 1))
			f := newFixture(t)
			f.owner.Life.Undelete = fortnight
			for i := range 4 + r.IntN(8) {
				f.deliver(fmt.Sprintf("Subject: %d\n\nbody\n", i))
			}
			f.remove(1, 2)
			f.ids()
			intact := f.looked()
			var did []string
			for range 1 + r.IntN(3) {
				did = append(did, f.harm(r))
			}
			tree, files := f.tree(), f.stored()
			f.restart()
			opts := maildir.CheckOptions{Sizes: r.IntN(2) == 0}
			_, err := f.store.Check(t.Context(), f.owner, opts)
			if f.tree() != tree || err != nil {
				t.Fatalf("%q: looking changed something, or failed: %v", did, err)
			}
			unrepaired := f.copy().looked()
			opts.Repair, opts.DropMissing = true, r.IntN(2) == 0
			f.restart()
			got, err := f.store.Check(t.Context(), f.owner, opts)
			if now := f.stored(); err != nil || !slices.Equal(now, files) {
				t.Fatalf("%q: %v\nmessages %q, before %q", did, err, now, files)
			}
			repaired := f.looked()
			if repaired == nil && got.Errors() == 0 {
				t.Errorf("%q: nobody can log in, and no error says so: %v\n%s", did, got.Problems, f.log)
			}
			if unrepaired != nil && repaired == nil {
				t.Errorf("%q: a repair has kept people from logging in: %v", did, got.Problems)
			}
			for text, id := range unrepaired {
				if id == intact[text] && repaired != nil && repaired[text] != id {
					t.Errorf("%q: a repair has changed the unique-id %s of %q to %s: %v", did, id, text, repaired[text], got.Problems)
				}
			}
			again, err := f.store.Check(t.Context(), f.owner, opts)
			if err != nil || again.Errors() > 0 && got.Errors() == 0 {
				t.Errorf("%q: new errors %v, %v", did, again.Problems, err)
			}
			for _, p := range again.Problems {
				if p.Repaired && p.Kind != maildir.KindMissing && p.Kind != maildir.KindTrashMissing && !opts.DropMissing && repaired != nil {
					t.Errorf("%q: left by the first repair: %v", did, p)
				}
			}
		})
	}
}

// looked are the unique-ids of messages, by their contents as stored; nil if nobody can log in.
func (f *fixture) looked() map[string]string {
	f.t.Helper()
	f.restart()
	look, err := f.store.Look(f.t.Context(), f.owner)
	if err != nil {
		return nil
	}
	ids := map[string]string{}
	for n, m := range look.Messages() {
		_, r, err := look.Stored(f.t.Context(), n+1)
		f.check(err)
		text, err := io.ReadAll(r)
		f.check(errors.Join(err, r.Close()))
		ids[string(text)] = m.UID
	}
	return ids
}

// copy is another fixture with the same Maildir.
func (f *fixture) copy() *fixture {
	f.t.Helper()
	other := newFixture(f.t)
	other.owner = f.owner
	f.check(os.CopyFS(other.root, os.DirFS(f.root)))
	return other
}

// A message that can't be read is told; so is one whose file's content is not what was measured, if mail is read.
func TestCheckSizes(t *testing.T) {
	f := sixMessages(t)
	f.store.SetFault(func(op, path string) error {
		if op == "open" && strings.Contains(path, f.any()) {
			return unix.EIO
		}
		return nil
	})
	if got := f.checked(maildir.CheckOptions{Sizes: true}); !slices.Equal(kinds(got), []maildir.Kind{maildir.KindRead}) {
		t.Errorf("%+v", got)
	}
	if got := f.checked(maildir.CheckOptions{}); len(got.Problems) > 0 {
		t.Errorf("%+v", got)
	}
	f.restart()
	f.check(os.WriteFile(f.find(f.any()), []byte("Subject: 2\r\n\nbod\n"), 0o600)) // of the same size
	if got := f.checked(maildir.CheckOptions{}); len(got.Problems) > 0 {
		t.Errorf("%+v", got)
	}
	if got := f.checked(maildir.CheckOptions{Sizes: true, Repair: true}); got.Errors() > 0 || len(got.Problems) != 1 || !got.Problems[0].Repaired {
		t.Errorf("%+v", got)
	}
	f.restart()
	f.fsck()
}

// Deliveries that died are counted, and removed; those that may be under way are not.
func TestCheckTmp(t *testing.T) {
	f := sixMessages(t)
	f.put("tmp/old", "x")
	f.put("tmp/young", "x")
	got := f.checked(maildir.CheckOptions{Repair: true})
	if len(got.Problems) > 0 { // no file can be given an old time of change
		t.Errorf("%+v", got)
	}
	later := time.Now().Add(48 * time.Hour)
	got = f.checked(maildir.CheckOptions{Now: later})
	if !slices.Equal(kinds(got), []maildir.Kind{maildir.KindTmp}) || !strings.Contains(got.Problems[0].What, "has 2 files") || !exists(f.root+"/tmp/old") {
		t.Errorf("%+v", got)
	}
	got = f.checked(maildir.CheckOptions{Repair: true, Now: later})
	if len(kinds(got)) > 0 || exists(f.root+"/tmp/old") {
		t.Errorf("%+v", got)
	}
}

// What a repair leaves out of a list stays in a file beside it.
func TestCheckKeepsOldList(t *testing.T) {
	f := sixMessages(t)
	f.edit(func(l []string) []string { l[3] = "gar bage\n"; return l })
	old := f.get("dovecot-uidlist")
	f.checked(maildir.CheckOptions{Repair: true})
	found, err := filepath.Glob(f.root + "/dewey-uidlist.*")
	if err != nil || len(found) != 1 || f.get(filepath.Base(found[0])) != old {
		t.Errorf("%q, %v", found, err)
	}
	f.edit(func(l []string) []string { return swap(l, 1, 2) })
	f.checked(maildir.CheckOptions{Repair: true})
	if found, err = filepath.Glob(f.root + "/dewey-uidlist.*"); len(found) != 1 || err != nil {
		t.Errorf("nothing was left out, and yet %q", found)
	}
}

// A repair that fails on the way, the disk being full, changes nothing, and says so.
func TestCheckRepairFails(t *testing.T) {
	for _, op := range []string{"lock", "replace", "sync"} {
		f := sixMessages(t)
		f.edit(func(l []string) []string { return swap(l, 1, 2) })
		before := f.get("dovecot-uidlist")
		f.restart()
		f.store.SetFault(func(o, path string) error {
			if o == op && strings.Contains(path, "dovecot-uidlist") {
				return unix.ENOSPC
			}
			return nil
		})
		got, err := f.store.Check(t.Context(), f.owner, maildir.CheckOptions{Repair: true})
		if !errors.Is(err, unix.ENOSPC) || got.Errors() == 0 || f.get("dovecot-uidlist") != before {
			t.Errorf("%s: %+v, %v", op, got, err)
		}
		for _, name := range []string{"dovecot-uidlist.lock", "dovecot-uidlist.tmp"} {
			if exists(filepath.Join(f.root, name)) {
				t.Errorf("%s: %s is left", op, name)
			}
		}
	}
}

// Maildirs of a real Dovecot have no problem, whoever wrote last, nor has one with Courier's lists; and Dovecot serves
// what was repaired.
func TestCheckDovecot(t *testing.T) {
	d := withDovecot(t)
	r := rand.New(rand.NewPCG(1, 2))
	for range 8 {
		d.deliverSome(r)
	}
	rows := d.session()
	wellKept := func(when string) {
		t.Helper()
		if got := d.checked(maildir.CheckOptions{Sizes: true}); got.Errors() > 0 {
			t.Errorf("%s: %v\n%s", when, got.Problems, d.get("dovecot-uidlist"))
		}
	}
	wellKept("after Dovecot")
	d.same("dewey", d.dewey(), rows)
	wellKept("after both")
	d.session("DELE 2")
	wellKept("after Dovecot has removed")
	rows = d.session()
	d.edit(func(l []string) []string { return append(swap(l, 2, 3), l[1:]...) })
	d.check(os.Chtimes(filepath.Join(d.root, "dovecot-uidlist"), time.Now(), time.Now()))
	d.restart()
	got := d.checked(maildir.CheckOptions{Repair: true})
	if got.Errors() > 0 {
		t.Errorf("%v", got.Problems)
	}
	d.same("repaired", d.dewey(), rows)
	d.same("Dovecot after the repair", d.session(), rows)

	f := newFixture(t)
	f.put("cur/1700000001.M1P1.h:2,", "Subject: a\n\nno end")
	f.put("courierpop3dsizelist", "/3 4 1795438692\n1700000001.M1P1.h:2, 20 1:1795438692:0\n")
	f.put("courierimapuiddb", "1 1111111111 9\n3 1700000001.M1P1.h:2,\n")
	f.check(os.Mkdir(f.root+"/new", 0o700))
	f.check(os.Mkdir(f.root+"/tmp", 0o700))
	before := f.tree()
	if got := f.checked(maildir.CheckOptions{Sizes: true, Repair: false}); len(got.Problems) > 0 || f.tree() != before {
		t.Errorf("%v", got.Problems)
	}
	f.ids()
	if got := f.checked(maildir.CheckOptions{Sizes: true, Repair: true}); len(got.Problems) > 0 {
		t.Errorf("%v", got.Problems)
	}
}

// As another user than the Maildir's, who can't read it, Check says so and goes on with the rest.
func TestCheckFolderFails(t *testing.T) {
	f := sixMessages(t)
	f.into(".A", "Subject: a\n")
	f.into(".B", "Subject: b\n")
	f.store.SetFault(func(op, path string) error {
		if op == "readdir" && strings.Contains(path, ".A") {
			return fs.ErrPermission
		}
		return nil
	})
	got, err := f.store.Check(t.Context(), maildrop.Owner{}, maildir.CheckOptions{})
	if !errors.Is(err, fs.ErrPermission) || !strings.Contains(err.Error(), "/.A") || got.Maildirs != 3 || got.Messages != 7 {
		t.Errorf("%+v, %v", got, err)
	}
}

// While an IMAP server changes flags all the time no record is taken for one of a message that is not there.
func TestCheckWhileRenamed(t *testing.T) {
	f := sixMessages(t)
	before := f.ids()
	stop := make(chan struct{})
	done := make(chan struct{})
	go func() {
		defer close(done)
		names := [2]string{f.any(), f.root + "/cur/" + f.any() + ":2,"}
		names[0] = f.root + "/new/" + names[0]
		for i := 0; ; i++ {
			if err := os.Rename(names[i%2], names[1-i%2]); err != nil {
				t.Error(err)
				return
			}
			select {
			case <-stop:
				return
			default:
			}
		}
	}()
	for range 8 {
		got := f.checked(maildir.CheckOptions{})
		if n := len(got.Problems); n > 0 {
			t.Errorf("%v", got.Problems)
			break
		}
	}
	f.checked(maildir.CheckOptions{Repair: true, DropMissing: true})
	close(stop)
	<-done
	f.restart()
	if now := f.ids(); !slices.Equal(now, before) {
		t.Errorf("unique-ids %q, before %q", now, before)
	}
}

// Of two names of a message the one that is to go comes back, should the other one not be there any more.
func TestCheckSecondNameStays(t *testing.T) {
	f := sixMessages(t)
	second := f.root + "/cur/" + f.any() + ":2,S"
	f.check(os.Link(f.root+"/new/"+f.any(), second))
	f.put("tmp/old", "x")
	before := f.stored()
	f.store.SetFault(func(op, path string) error { // the last thing before repairs: the folders are read in new/, cur/, tmp/
		if op == "readdir" && strings.HasSuffix(path, "/tmp") {
			_ = os.Remove(second)
		}
		return nil
	})
	f.checked(maildir.CheckOptions{Repair: true})
	if now := f.stored(); !slices.Equal(now, before) || !exists(f.root+"/new/"+f.any()) {
		t.Errorf("%q, before %q", now, before)
	}
	entries, err := os.ReadDir(f.root + "/tmp")
	if err != nil || len(entries) != 1 {
		t.Errorf("left in tmp: %v, %v", entries, err)
	}
}
