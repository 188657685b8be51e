package maildir_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
	"pgregory.net/rapid"

	"dewey/maildrop"
	"dewey/maildrop/maildroptest"
	"dewey/store/maildir"
)

func TestDeposits(t *testing.T) {
	inMemory(t)
	maildroptest.RunDeposits(t, func(t maildroptest.TB) maildroptest.Maildrop {
		f := newFixture(t)
		if rt, ok := t.(*rapid.T); ok {
			f.random = func(n int) int { return rapid.IntRange(0, n-1).Draw(rt, "choice") }
		}
		s := f.suite()
		s.Check = func(maildroptest.TB) { f.fsck(); f.fsckDeposits() }
		return s
	})
}

// deposit takes a message in, and fails the test if that fails.
func (f *fixture) deposit(content string) {
	f.t.Helper()
	f.check(f.tryDeposit(content))
}

func (f *fixture) tryDeposit(content string) error {
	d, err := f.store.Deposit(context.Background(), maildrop.Owner{})
	if err != nil {
		return err
	}
	defer d.Discard()
	if _, err := d.Write([]byte(content)); err != nil {
		return err
	}
	return d.Commit(context.Background())
}

func (f *fixture) folder(name string) []string {
	f.t.Helper()
	entries, err := os.ReadDir(filepath.Join(f.root, name))
	f.check(err)
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

// fsckDeposits is the full check of what deposits leave: nothing in tmp/, and true sizes in the names.
func (f *fixture) fsckDeposits() {
	f.t.Helper()
	if left := f.folder("tmp"); len(left) > 0 {
		f.t.Errorf("left in tmp/: %q", left)
	}
	for _, dir := range []string{"new", "cur"} {
		for _, name := range f.folder(dir) {
			parts := depositName.FindStringSubmatch(name)
			if parts == nil {
				continue // not one of ours
			}
			content := f.get(dir + "/" + name)
			virtual := len(maildroptest.Wire([]byte(content)))
			if content != "" && !strings.HasSuffix(content, "\n") {
				virtual -= 2 // Dovecot counts no line end that is not there
			}
			if parts[1] != fmt.Sprint(len(content)) || parts[2] != fmt.Sprint(virtual) {
				f.t.Errorf("%s has %d octets, %d with CRLF", name, len(content), virtual)
			}
		}
	}
}

// depositName is a name by the Maildir convention, with the sizes that Dovecot adds.
var depositName = regexp.MustCompile(`^\d{10,}\.M\d{6}P\d+Q\d+\.[^:/,]+,S=(\d+),W=(\d+)(?::2,[A-Z]*)?$`)

// A Maildir that is not there is made; the message lies in new/ under a name by the convention, for its
// owner alone, with LF line ends.
func TestDepositOnDisk(t *testing.T) {
	f := newFixture(t)
	f.deposit("Subject: x\r\n\r\na\rb\r\r\n\x00\xff\n.\r\nno end")
	for _, name := range []string{".", "tmp", "new", "cur"} {
		if st, err := os.Stat(filepath.Join(f.root, name)); err != nil || st.Mode() != os.ModeDir|0o700 {
			t.Errorf("%s: %v, %v", name, st.Mode(), err)
		}
	}
	names := f.folder("new")
	if len(names) != 1 || !depositName.MatchString(names[0]) {
		t.Fatalf("new/ has %q", names)
	}
	if got, want := f.get("new/"+names[0]), "Subject: x\n\na\rb\r\r\n\x00\xff\n.\nno end"; got != want {
		t.Errorf("stored %q, want %q", got, want)
	}
	if st, err := os.Stat(filepath.Join(f.root, "new", names[0])); err != nil || st.Mode() != 0o600 {
		t.Errorf("mode %v, %v", st.Mode(), err)
	}
	f.fsckDeposits()
	if entries := f.folder("."); !slices.Equal(entries, []string{"cur", "new", "tmp"}) {
		t.Errorf("the Maildir has %q", entries)
	}
	f.check(os.Remove(filepath.Join(f.root, "tmp"))) // and is made again
	f.deposit("Subject: y\r\n")
	if n := len(f.ids()); n != 2 {
		t.Errorf("%d messages", n)
	}
}

// Root gives what it takes in to whom the Maildir belongs.
func TestDepositOwner(t *testing.T) {
	f := newFixture(t)
	uid, gid := uint32(os.Getuid()), uint32(os.Getgid())
	f.deposit("first\r\n")
	if uid == 0 {
		uid, gid = 65534, 65534
		f.check(os.Chown(f.root, int(uid), int(gid)))
		f.check(os.Remove(filepath.Join(f.root, "tmp")))
	}
	before := f.folder("new")
	f.deposit("second\r\n")
	names := append([]string{"tmp"}, slices.DeleteFunc(f.folder("new"), func(n string) bool { return slices.Contains(before, n) })...)
	names[1] = "new/" + names[1]
	for _, name := range names {
		var st unix.Stat_t
		f.check(unix.Stat(filepath.Join(f.root, name), &st))
		if st.Uid != uid || st.Gid != gid {
			t.Errorf("%s belongs to %d:%d, want %d:%d", name, st.Uid, st.Gid, uid, gid)
		}
	}
}

// Nothing is written through a link, and a Maildir that lacks a folder beside its list is not made
// anew (trap 19).
func TestDepositDamaged(t *testing.T) {
	for _, folder := range []string{"tmp", "new"} {
		f := newFixture(t)
		f.deposit("one\r\n")
		away := filepath.Join(filepath.Dir(f.root), "away")
		f.check(os.Rename(filepath.Join(f.root, folder), away))
		f.check(os.Symlink(away, filepath.Join(f.root, folder)))
		if err := f.tryDeposit("two\r\n"); !errors.Is(err, maildrop.ErrDamaged) {
			t.Errorf("%s is a link: %v", folder, err)
		}
		f.check(os.Remove(filepath.Join(f.root, folder)))
		f.check(os.Rename(away, filepath.Join(f.root, folder)))
		if n := len(f.ids()); n != 1 {
			t.Errorf("%s was a link: %d messages", folder, n)
		}
		f.fsckDeposits()
	}
	f := newFixture(t)
	f.deposit("one\r\n")
	f.ids()
	f.check(os.Rename(filepath.Join(f.root, "cur"), filepath.Join(f.root, "away")))
	if err := f.tryDeposit("two\r\n"); err == nil || exists(filepath.Join(f.root, "cur")) {
		t.Errorf("cur/ is missing: %v", err)
	}
}

// Names rise, within a microsecond too, and hold nothing that a name may not hold. Maildir: / is \057 and : is
// \072.
func TestDepositNames(t *testing.T) {
	before := ""
	seen := map[string]bool{}
	for range 20_000 {
		name := maildir.NewName()
		if seen[name] {
			t.Fatalf("%s came twice", name)
		}
		seen[name] = true
		sec, rest, _ := strings.Cut(name, ".M")
		if rising := sec + rest[:6]; rising <= before {
			t.Fatalf("%s after %s", rising, before)
		} else {
			before = rising
		}
	}
	for host, want := range map[string]string{
		"":                       "localhost",
		"mail.example.org":       "mail.example.org",
		"a/b:c":                  `a\057b\072c`,
		"a,S=1\n b\xff":          `a\054S=1\012\040b\377`,
		strings.Repeat("h", 300): strings.Repeat("h", 100),
	} {
		if got := maildir.NameHost(host); got != want {
			t.Errorf("host %q: %q, want %q", host, got, want)
		}
	}
}

// A name that is taken is tried again with another, in tmp/ and in new/; what has it is not overwritten.
func TestDepositNameTaken(t *testing.T) {
	for _, op := range []string{"create", "rename", "link"} {
		f := newFixture(t)
		tries := 0
		f.store.SetFault(func(o, path string) error {
			if o == "rename" && op == "link" {
				return unix.EINVAL // as NFS answers to RENAME_NOREPLACE
			}
			if o == op {
				if tries++; tries <= 3 {
					return os.WriteFile(path, []byte("another's"), 0o600)
				}
			}
			return nil
		})
		f.deposit("mine\r\n")
		if tries != 4 {
			t.Errorf("%s: %d tries", op, tries)
		}
		f.store.SetFault(nil)
		others := 0
		for _, dir := range []string{"tmp", "new"} {
			for _, name := range f.folder(dir) {
				if f.get(dir+"/"+name) == "another's" {
					others++
				} else if f.get(dir+"/"+name) != "mine\n" || dir != "new" {
					t.Errorf("%s: %s/%s has %q", op, dir, name, f.get(dir+"/"+name))
				}
			}
		}
		if others != 3 {
			t.Errorf("%s: %d of 3 files of others are left", op, others)
		}
		f.store.SetFault(func(o, _ string) error {
			if o == op {
				return unix.EEXIST
			}
			if o == "rename" && op == "link" {
				return unix.EINVAL
			}
			return nil
		})
		if err := f.tryDeposit("never\r\n"); !errors.Is(err, unix.EEXIST) {
			t.Errorf("%s: %v", op, err)
		}
	}
}

// A file system that can't rename without overwriting gets link and unlink.
func TestDepositByLink(t *testing.T) {
	for _, answer := range []error{unix.EINVAL, unix.ENOSYS, unix.ENOTSUP} {
		f := newFixture(t)
		f.store.SetFault(func(op, _ string) error {
			if op == "rename" {
				return answer
			}
			return nil
		})
		f.deposit("one\r\n")
		f.fsckDeposits()
		var st unix.Stat_t
		f.check(unix.Stat(filepath.Join(f.root, "new", f.folder("new")[0]), &st))
		if n := len(f.ids()); n != 1 || st.Nlink != 1 {
			t.Errorf("%v: %d messages, %d names", answer, n, st.Nlink)
		}
	}
}

// A file server moves the file, its answer is lost, and the call is made again: that is no failure, or the
// sender would deliver it again.
func TestDepositAnswerLost(t *testing.T) {
	for _, answer := range []error{unix.ENOENT, unix.EIO, unix.EEXIST} {
		f := newFixture(t)
		f.store.SetFault(func(op, path string) error {
			if op != "rename" {
				return nil
			}
			f.check(os.Rename(filepath.Join(f.root, "tmp", f.folder("tmp")[0]), path))
			return answer
		})
		f.deposit("one\r\n")
		f.store.SetFault(nil)
		if n := len(f.ids()); n != 1 {
			t.Errorf("%v: %d messages", answer, n)
		}
		f.fsckDeposits()
	}
}

// Faults of the disk at each step, the sync of new/ too: nothing is seen of a message of which the sender was told
// that it is not there, and nothing is left of it; when the fault has passed all works.
func TestDepositFaults(t *testing.T) {
	content := strings.Repeat("Subject: a line\r\n", 5000)
	for _, step := range []string{"create tmp", "write tmp", "sync tmp", "rename new", "link new", "sync new"} {
		for _, fault := range []error{unix.EIO, unix.ENOSPC, unix.EDQUOT, unix.EMFILE} {
			f := newFixture(t)
			f.deposit("before\r\n")
			before := f.ids()
			op, folder, _ := strings.Cut(step, " ")
			met := false
			f.store.SetFault(func(o, path string) error {
				if o == "rename" && op == "link" {
					return unix.EINVAL
				}
				if o == op && (strings.Contains(path, "/"+folder+"/") || filepath.Base(path) == folder) {
					met = true
					return fault
				}
				return nil
			})
			err := f.tryDeposit(content)
			if !errors.Is(err, fault) || !met {
				t.Errorf("%s: %v, want %v", step, err, fault)
			}
			f.store.SetFault(nil)
			const want = 1
			if step == "sync new" && !strings.Contains(err.Error(), "perhaps it is there after a crash") {
				t.Errorf("%s: the error does not say that the message may come back: %v", step, err)
			}
			for range 2 {
				d := f.open()
				if got := uids(d); len(got) != want || got[0] != before[0] {
					t.Errorf("%s, %v: unique-ids %q, before %q", step, fault, got, before)
				}
				f.close(d)
				f.restart()
			}
			f.fsckDeposits()
			f.deposit("after\r\n")
			if n := len(f.ids()); n != want+1 {
				t.Errorf("%s: %d messages after the fault has passed", step, n)
			}
			f.fsckDeposits()
		}
	}
}

// A write that fails in the middle can't be made good by a later one that does not.
func TestDepositWriteFails(t *testing.T) {
	f := newFixture(t)
	writes := 0
	f.store.SetFault(func(op, _ string) error {
		if op == "write" {
			if writes++; writes == 2 {
				return unix.ENOSPC
			}
		}
		return nil
	})
	d, err := f.store.Deposit(t.Context(), maildrop.Owner{})
	f.check(err)
	defer d.Discard()
	piece := bytes.Repeat([]byte("x"), 20_000)
	failed := false
	for range 10 {
		_, err := d.Write(piece)
		if failed && !errors.Is(err, unix.ENOSPC) {
			t.Errorf("Write after an error: %v", err)
		}
		failed = failed || err != nil
	}
	if err := d.Commit(t.Context()); !errors.Is(err, unix.ENOSPC) {
		t.Errorf("Commit: %v", err)
	}
	d.Discard()
	if n := len(f.ids()); n != 0 {
		t.Errorf("%d messages", n)
	}
	f.fsckDeposits()
}

// A file that somebody has cut while it was written is no message.
func TestDepositCut(t *testing.T) {
	f := newFixture(t)
	f.store.SetFault(func(op, path string) error {
		if op == "write" {
			return os.Truncate(path, 7)
		}
		return nil
	})
	d, err := f.store.Deposit(t.Context(), maildrop.Owner{})
	f.check(err)
	_, err = d.Write([]byte("whole\r\n"))
	f.check(err)
	if err := d.Commit(t.Context()); err == nil {
		t.Error("committed")
	}
	f.fsckDeposits()
}

// A login whose scan is kept as proof of what new/ holds sees what is deposited next, at once.
func TestDepositAfterWarmLogin(t *testing.T) {
	f := newFixture(t)
	f.store.SetSettle(0) // a change proves something as soon as the clock of the file system has moved on
	reads := 0
	f.store.SetTrace(func(op, _ string) {
		if op == "readdir" {
			reads++
		}
	})
	for i := range 20 {
		for tries := 0; ; tries++ {
			reads = 0
			if n := len(f.ids()); n != i {
				t.Fatalf("%d messages, want %d", n, i)
			}
			if reads == 0 {
				break
			}
			if tries == 100_000 {
				t.Fatal("still reading")
			}
		}
		f.deposit(fmt.Sprintf("Subject: %d\r\n", i))
	}
}

// Dovecot finds the sizes in the names right, and gives the messages the same unique-ids in the same order.
func TestDovecotReadsDeposits(t *testing.T) {
	d := withDovecot(t)
	d.check(os.Chown(d.root, 65534, 65534))
	for name, content := range maildroptest.Awkward() {
		if len(content) == 0 {
			continue
		}
		content = append([]byte("X-Name: "+name+"\r\n"), content...)
		if !bytes.HasSuffix(content, []byte("\n")) {
			d.unended[string(maildroptest.Wire(content))] = true
		}
		d.deposit(string(content))
	}
	theirs := d.session("RETR 1")
	d.same("Dovecot first", d.dewey(), theirs)
	for i := range 10 {
		d.deposit(fmt.Sprintf("Subject: %d\r\n", i))
	}
	ours := d.dewey()
	d.same("dewey first", ours, d.session("RETR 3"))
	d.fsckDeposits()
}
