package maildir_test

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"dewey/maildrop"
	"dewey/maildrop/message"
)

// A message that comes under the name of one that a session removed is another message: it has a
// unique-id and sizes of its own, at once and after a restart.
func TestTrap24SameNameAgain(t *testing.T) {
	for _, restart := range []bool{false, true} {
		f := newFixture(t)
		f.deliver("Subject: kept\n")
		base := f.deliver("Subject: removed\n")
		d := f.open()
		before := uids(d)
		f.check(d.Remove(t.Context(), []int{2}))
		f.close(d)
		if restart {
			f.restart()
		}
		f.put("new/"+base, "Subject: another one, and longer\n")
		d = f.open()
		after := uids(d)
		if len(after) != 2 || after[0] != before[0] || slices.Contains(before, after[1]) {
			t.Errorf("restart %v: unique-ids %q, before %q", restart, after, before)
		}
		if got, want := d.Messages()[1].Octets, int64(len("Subject: another one, and longer\r\n")); got != want {
			t.Errorf("restart %v: %d octets, want %d", restart, got, want)
		}
		f.close(d)
		f.fsck()
	}
}

// A file that somebody has put in another's place, outside of a session, is announced with its own size.
func TestTrap11ReplacedFile(t *testing.T) {
	for _, restart := range []bool{false, true} {
		f := newFixture(t)
		base := f.deliver("Subject: old\n")
		f.ids()
		if restart {
			f.restart()
		}
		f.check(os.Remove(filepath.Join(f.root, "new", base)))
		f.put("new/"+base, "Subject: mended, and longer\n")
		d := f.open()
		if got, want := d.Messages()[0].Octets, int64(len("Subject: mended, and longer\r\n")); got != want {
			t.Errorf("restart %v: %d octets, want %d", restart, got, want)
		}
		f.close(d)
	}
}

// once does something when a folder is read for the first time.
func (f *fixture) once(folder string, do func()) {
	done := false
	f.store.SetTrace(func(op, path string) {
		if !done && op == "readdir" && filepath.Base(path) == folder {
			done = true
			do()
		}
	})
}

// mutt moves messages back to new/. One that does so between the scans of the two folders is neither
// missed by a login nor taken for gone by a session.
func TestTrap20MovedBack(t *testing.T) {
	f := newFixture(t)
	base := f.deliver("Subject: 1\n")
	f.deliver("Subject: 2\n")
	f.flag(base, "S")
	back := func() { f.check(os.Rename(f.find(base), filepath.Join(f.root, "new", base))) }
	f.once("cur", back)
	d := f.open()
	if n := len(d.Messages()); n != 2 {
		t.Fatalf("a login sees %d of 2 messages", n)
	}
	f.flag(base, "RS")
	f.once("cur", back)
	for n := 1; n <= 2; n++ {
		_, body, err := d.Retrieve(t.Context(), n)
		if err != nil {
			t.Errorf("message %d: %v", n, err)
			continue
		}
		f.check(body.Close())
	}
	f.flag(base, "FS")
	f.once("cur", back)
	f.check(d.Remove(t.Context(), []int{1, 2}))
	f.close(d)
	if left := f.ids(); len(left) != 0 {
		t.Errorf("removed, and still there: %q", left)
	}
}

// A message that has a second name, since a mover by link and unlink was met at work, does not come back
// under that name.
func TestTrap20SecondName(t *testing.T) {
	f := newFixture(t)
	base := f.deliver("one\n")
	f.check(os.MkdirAll(filepath.Join(f.root, "cur"), 0o700))
	d := f.open()
	f.check(os.Link(filepath.Join(f.root, "new", base), filepath.Join(f.root, "cur", base+":2,S")))
	f.check(d.Remove(t.Context(), []int{1}))
	f.close(d)
	if ids := f.ids(); len(ids) != 0 {
		t.Errorf("removed, and back: %q", ids)
	}
}

// A folder that is missing beside a list of messages is no empty maildrop, and is not made.
func TestTrap19FolderMissing(t *testing.T) {
	f := newFixture(t)
	f.flag(f.deliver("one\n"), "S")
	before := f.ids()
	away := filepath.Join(f.root, "elsewhere")
	f.check(os.Rename(filepath.Join(f.root, "cur"), away))
	if _, err := f.store.Open(t.Context(), maildrop.Owner{}); err == nil || errors.Is(err, maildrop.ErrDamaged) {
		t.Errorf("Open: %v", err)
	}
	f.check(os.Rename(away, filepath.Join(f.root, "cur")))
	if after := f.ids(); !slices.Equal(after, before) {
		t.Errorf("unique-ids %q, before %q", after, before)
	}
}

// Files that are away while a session removes others keep their unique-ids.
func TestTrap23AwayForAWhile(t *testing.T) {
	f := newFixture(t)
	for range 300 {
		f.deliver("Subject: x\n")
	}
	before := f.ids()
	all, away := filepath.Join(f.root, "new"), filepath.Join(f.root, "away")
	f.check(os.Rename(all, away))
	f.check(os.Mkdir(all, 0o700))
	f.restart()
	f.deliver("Subject: meanwhile\n")
	d := f.open()
	f.check(d.Remove(t.Context(), []int{1}))
	f.close(d)
	f.check(os.RemoveAll(all))
	f.check(os.Rename(away, all))
	if after := f.ids(); !slices.Equal(after, before) {
		t.Errorf("%d unique-ids, %d before, or others", len(after), len(before))
	}
}

// The size of a surrogate that the list claims is proved before the message is sent: it may have been
// computed by another version.
func TestTrap11SurrogateSize(t *testing.T) {
	f := newFixture(t)
	f.deliver("Subject: Gr\u00fc\u00dfe\n\nb\n")
	f.ids()
	for _, claim := range []string{"48", "9223372036854775807", "-1", "-7", "x"} {
		l := f.list()
		l.Records[0].Set('U', claim)
		f.put("dovecot-uidlist", string(l.Append(nil)))
		f.restart()
		d := f.open()
		m, body, err := d.Retrieve(t.Context(), 1)
		f.check(err)
		r, err := message.NewSurrogate(body)
		f.check(err)
		n, err := io.Copy(io.Discard, r)
		f.check(err)
		f.check(body.Close())
		if n != m.Surrogate {
			t.Errorf("U%s: announced %d, sent %d", claim, m.Surrogate, n)
		}
		f.close(d)
		f.restart()
		d = f.open()
		if got := d.Messages()[0].Surrogate; got != n {
			t.Errorf("U%s: the next session says %d, want %d", claim, got, n)
		}
		f.close(d)
	}
}

// A size is never guessed for want of file descriptors: the login is refused for now.
func TestTrap19NoDescriptors(t *testing.T) {
	f := newFixture(t)
	f.deliver("Subject: x\n\n\nb\n")
	f.store.SetFault(func(op, _ string) error {
		if op == "open" {
			return unix.EMFILE
		}
		return nil
	})
	if _, err := f.store.Open(t.Context(), maildrop.Owner{}); !errors.Is(err, unix.EMFILE) {
		t.Errorf("Open: %v", err)
	}
	f.store.SetFault(nil)
	d := f.open()
	if got := d.Messages()[0].Octets; got != int64(len("Subject: x\r\n\r\n\r\nb\r\n")) {
		t.Errorf("%d octets", got)
	}
	f.close(d)
}

// A panic while a message is measured, on a goroutine of the store's own, costs that message's size; one
// elsewhere in Open does not leave the maildrop locked.
func TestPanics(t *testing.T) {
	f := newFixture(t)
	f.deliver("Subject: x\n")
	panics := func(op string) {
		f.store.SetFault(func(o, _ string) error {
			if o == op {
				panic("ordered")
			}
			return nil
		})
	}
	panics("open")
	f.ids()
	f.wantLog("panic while a message was measured")
	f.restart()
	panics("readdir")
	func() {
		defer func() {
			if recover() == nil {
				t.Error("the panic is lost")
			}
		}()
		_, _ = f.store.Open(context.Background(), maildrop.Owner{})
	}()
	f.store.SetFault(nil)
	if ids := f.ids(); len(ids) != 1 {
		t.Errorf("%q", ids)
	}
}

// What an earlier process wrote to the list and perhaps could not sync is synced before it is served.
func TestYoungListIsSynced(t *testing.T) {
	f := newFixture(t)
	f.deliver("Subject: x\n")
	f.ids()
	f.restart()
	synced := false
	f.store.SetTrace(func(op, path string) { synced = synced || op == "sync" && strings.HasSuffix(path, "dovecot-uidlist") })
	f.ids()
	if !synced {
		t.Error("served without a sync")
	}
}

// A list that is absurdly large is refused, not read.
func TestListTooLarge(t *testing.T) {
	f := newFixture(t)
	f.deliver("Subject: x\n")
	f.ids()
	f.check(os.Truncate(filepath.Join(f.root, "dovecot-uidlist"), 3<<30))
	f.openErr(maildrop.ErrDamaged)
}

// Messages that a session removed and that somebody puts back, under the same names, are new ones; that is
// no alarm.
func TestTrap24PutBack(t *testing.T) {
	f := newFixture(t)
	f.deliver("Subject: kept\n")
	var bases []string
	for i := range 5 {
		bases = append(bases, f.deliver(strings.Repeat("x", i+1)+"\n"))
	}
	d := f.open()
	before := uids(d)
	f.check(d.Remove(t.Context(), []int{2, 3}))
	f.check(d.Remove(t.Context(), []int{4, 5, 6}))
	f.close(d)
	for _, base := range bases {
		f.put("new/"+base, "Subject: back\n")
	}
	after := f.ids()
	if len(after) != 6 || after[0] != before[0] {
		t.Fatalf("unique-ids %q, before %q", after, before)
	}
	for _, id := range after[1:] {
		if slices.Contains(before, id) {
			t.Errorf("the unique-id %s was used before", id)
		}
	}
}

// A removal that fails leaves the message its unique-id.
func TestTrap16FailedRemovalKeepsID(t *testing.T) {
	f := newFixture(t)
	base := f.deliver("one\n")
	f.check(os.MkdirAll(filepath.Join(f.root, "cur"), 0o700))
	before := f.ids()
	d := f.open()
	f.check(os.Link(filepath.Join(f.root, "new", base), filepath.Join(f.root, "cur", base+":2,S")))
	f.store.SetFault(func(op, path string) error {
		if op == "unlink" && filepath.Base(filepath.Dir(path)) == "cur" {
			return unix.EIO
		}
		return nil
	})
	if err := d.Remove(t.Context(), []int{1}); !errors.Is(err, unix.EIO) {
		t.Errorf("Remove: %v", err)
	}
	f.close(d)
	f.store.SetFault(nil)
	if after := f.ids(); !slices.Equal(after, before) {
		t.Errorf("unique-ids %q, before %q", after, before)
	}
}

// What the list says of a file's size on disk is mended when the file is read, also where the size as
// sent is the same.
func TestTrap11StoredSizeMended(t *testing.T) {
	f := newFixture(t)
	base := ""
	for range 250 { // so many that a login does not look
		base = f.deliver("Subject: x\n\nb\n")
	}
	f.ids()
	f.put("new/"+base, "Subject: x\r\n\r\nb\r\n")
	f.restart()
	d := f.open()
	f.read(d, 250)
	f.close(d)
	if got, _ := f.list().Records[249].Get('S'); got != "17" {
		t.Errorf("S%s, the file has 17", got)
	}
}

// Courier's IMAP list alone, a list of version 1, is taken over: its uids and validity stay.
func TestCourierIMAPAlone(t *testing.T) {
	f := newFixture(t)
	f.put("cur/1700000001.M1P1.h:2,S", "Subject: a\n")
	f.put("new/1700000002.M2P1.h", "Subject: b\n")
	f.put("new/1700000003.M3P1.h", "Subject: new\n")
	f.put("courierimapuiddb", "1 1111111111 9\n3 1700000001.M1P1.h\n8 1700000002.M2P1.h\n")
	want := []string{"00000003423a35c7", "00000008423a35c7", "00000009423a35c7"}
	for range 2 {
		if got := f.ids(); !slices.Equal(got, want) {
			t.Errorf("unique-ids %q, want %q", got, want)
		}
		f.restart()
	}
}

// Sizes are computed once: a login that finds them in the list opens no message, also in a process that
// knows nothing yet.
func TestColdLoginOpensNothing(t *testing.T) {
	f := newFixture(t)
	for range 10 {
		f.deliver("Subject: Gr\u00fc\u00dfe\n\nno last line end")
	}
	d := f.open()
	before := slices.Clone(d.Messages())
	f.close(d)
	f.restart()
	opened := 0
	f.store.SetFault(func(op, _ string) error {
		if op == "open" {
			opened++
		}
		return nil
	})
	d = f.open()
	defer f.close(d)
	if !slices.Equal(d.Messages(), before) || opened != 0 {
		t.Errorf("%d messages were opened; %v, before %v", opened, d.Messages(), before)
	}
}
