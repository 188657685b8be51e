package maildir_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"
	"pgregory.net/rapid"

	"dewey/maildrop"
	"dewey/maildrop/maildroptest"
	"dewey/store/maildir"
)

func (f *fixture) openErr(want error) {
	f.t.Helper()
	d, err := f.store.Open(f.t.Context(), maildrop.Owner{})
	if !errors.Is(err, want) {
		f.t.Errorf("Open: error %v, want %v", err, want)
	}
	if d != nil {
		f.close(d)
	}
}

func (f *fixture) wantLog(part string) {
	f.t.Helper()
	if !strings.Contains(f.log.String(), part) {
		f.t.Errorf("the log does not say %q:\n%s", part, f.log)
	}
}

func octets(d maildrop.Maildrop) []int64 {
	var all []int64
	for _, m := range d.Messages() {
		all = append(all, m.Octets)
	}
	return all
}

// Sizes over 32 bits: one message, and all together.
func TestTrap09FiveGiB(t *testing.T) {
	f := newFixture(t)
	const size = 5 << 30
	for i := range 3 {
		name := fmt.Sprintf("cur/%d.M1P1.h,S=%d,W=%d:2,", 1700000000+i, size, size)
		f.put(name, "Subject: x\n\n")
		f.check(os.Truncate(filepath.Join(f.root, name), size))
	}
	d := f.open()
	defer f.close(d)
	if got := octets(d); !slices.Equal(got, []int64{size, size, size}) {
		t.Errorf("octets %v", got)
	}
	if testing.Short() {
		t.Skip("reading 5 GiB takes some seconds")
	}
	m, body, err := d.Retrieve(t.Context(), 1)
	f.check(err)
	if m.Octets != size+2+2 { // two line ends are LF, and one is missing
		t.Errorf("measured %d octets", m.Octets)
	}
	head := make([]byte, 16)
	_, err = io.ReadFull(body, head)
	f.check(errors.Join(err, body.Close()))
	if string(head) != "Subject: x\r\n\r\n\x00\x00" {
		t.Errorf("it starts %q", head)
	}
}

// A wrong S= or W= in a name keeps nobody out; it is repaired at the first reading, and logged.
func TestTrap11WrongSizeInName(t *testing.T) {
	f := newFixture(t)
	const text = "Subject: x\n\nbody\n" // 17, sent as 20
	f.put("cur/1.a,S=5:2,S", text)
	f.put("cur/2.a,S=20000000,W=20000000:2,S", text)        // too great to be measured at login
	f.put("cur/3.a,S=17,W=99999999999999999999:2,S", text)  // cannot be true: measured at login
	f.put("cur/4.a,S=x,W=-1:2,S", text)                     //
	f.put("cur/5.a,W=20000000:2,S", "Subject: x\n\nno end") // 18, sent as 22
	d := f.open()
	if got := octets(d); !slices.Equal(got, []int64{20, 20000000, 20, 20, 20000000}) {
		t.Errorf("octets at login: %v", got)
	}
	for n, want := range []int64{20, 20, 20, 20, 22} {
		m, body, err := d.Retrieve(t.Context(), n+1)
		f.check(err)
		f.check(body.Close())
		if m.Octets != want || m.UID != d.Messages()[n].UID {
			t.Errorf("message %d came as %+v, want %d octets", n+1, m, want)
		}
		if got := f.read(d, n+1); int64(len(got)) != want {
			t.Errorf("message %d came with %d octets", n+1, len(got))
		}
	}
	f.close(d)
	f.wantLog("recorded=20000000 octets=20")
	f.wantLog("recorded=20000000 octets=22")
	for range 2 {
		d := f.open()
		if got := octets(d); !slices.Equal(got, []int64{20, 20, 20, 20, 22}) {
			t.Errorf("octets at the next login: %v", got)
		}
		f.close(d)
		f.restart()
	}
	f.fsck()
}

// That Dovecot's W lacks the line end that RETR adds is no lie, and is not logged.
func TestTrap03DovecotsWIsNoLie(t *testing.T) {
	f := newFixture(t)
	body := strings.Repeat("x", 17<<20) // more than a login measures
	f.put(fmt.Sprintf("cur/1.a,S=%d,W=%d:2,", len(body), len(body)), body)
	d := f.open()
	if got := f.read(d, 1); len(got) != len(body)+2 {
		t.Errorf("%d octets came", len(got))
	}
	f.close(d)
	if log := f.log.String(); strings.Contains(log, "wrong") {
		t.Errorf("logged: %s", log)
	}
	f.restart()
	d = f.open()
	if got := octets(d); !slices.Equal(got, []int64{int64(len(body)) + 2}) {
		t.Errorf("octets %v at the next login", got)
	}
	f.close(d)
}

// A folder or a list that cannot be read is an error, never an empty maildrop.
func TestTrap19ListingFails(t *testing.T) {
	f := newFixture(t)
	f.deliver("one\n")
	f.ids()
	for _, op := range []string{"readdir", "readlist"} {
		for range 2 {
			f.store.SetFault(func(o, _ string) error {
				if o == op {
					return unix.EIO
				}
				return nil
			})
			f.openErr(unix.EIO)
			f.restart()
		}
	}
	f.check(os.Rename(filepath.Join(f.root, "new"), filepath.Join(f.root, "elsewhere")))
	f.check(os.Symlink("elsewhere", filepath.Join(f.root, "new")))
	f.openErr(maildrop.ErrDamaged)
	f.check(os.Remove(filepath.Join(f.root, "new")))
	f.put("new", "a file")
	f.openErr(maildrop.ErrDamaged)
}

// Flags that change and moves to cur/ during a session hide nothing, and cost one scan.
func TestTrap20FlagRename(t *testing.T) {
	f := newFixture(t)
	var bases []string
	for i := range 50 {
		bases = append(bases, f.deliver(fmt.Sprintf("Subject: %d\n", i)))
	}
	f.flag(bases[1], "")
	d := f.open()
	for i, base := range bases {
		f.flag(base, []string{"S", "RS"}[i%2])
	}
	scans := 0
	f.store.SetTrace(func(op, path string) {
		if filepath.Base(path) == "cur" {
			scans++
		}
	})
	for n := range bases {
		if got := f.read(d, n+1); got != fmt.Sprintf("Subject: %d\r\n", n) {
			t.Errorf("message %d is %q", n+1, got)
		}
	}
	if scans > 5 { // five times if it must make sure, for all messages together
		t.Errorf("%d scans for %d messages", scans, len(bases))
	}
	f.flag(bases[7], "T") // and once more
	f.flag(bases[8], "T")
	f.read(d, 8)
	f.check(d.Remove(t.Context(), []int{8, 9}))
	f.close(d)
	if got := len(f.ids()); got != 48 {
		t.Errorf("%d messages are left, want 48", got)
	}
	f.fsck()
}

// The list is lost, or another one is in its place: no login, not even after a restart, until a
// person accepts it.
func TestTrap23ListLost(t *testing.T) {
	for _, test := range []struct {
		name string
		harm func(f *fixture)
	}{
		{"removed", func(f *fixture) { f.check(os.Remove(filepath.Join(f.root, "dovecot-uidlist"))) }},
		{"replaced", func(f *fixture) {
			l := f.list()
			l.Validity++
			f.put("dovecot-uidlist", string(l.Append(nil)))
		}},
		{"made anew", func(f *fixture) { f.put("dovecot-uidlist", "3 V5 N1 Ga4f7d52518a4036bc527000083ecc375\n") }},
	} {
		t.Run(test.name, func(t *testing.T) {
			f := newFixture(t)
			for i := range 5 {
				f.deliver(fmt.Sprintf("Subject: %d\n", i))
			}
			f.put("dovecot-uidlist", "3 V1000 N1 Ga4f7d52518a4036bc527000083ecc375\n")
			before := f.ids()
			test.harm(f)
			kept := ""
			if test.name != "removed" {
				kept = f.get("dovecot-uidlist")
			}
			for range 2 {
				_, err := f.store.Open(t.Context(), maildrop.Owner{})
				if err == nil || errors.Is(err, maildrop.ErrDamaged) || !strings.Contains(err.Error(), "dewey-uidvalidity") {
					t.Fatalf("Open: error %v, want one that says what to do", err)
				}
				f.restart()
			}
			f.wantLog("ALARM")
			if kept != "" && kept != f.get("dovecot-uidlist") {
				t.Error("the list was changed by a login that was refused")
			}
			f.check(os.Remove(filepath.Join(f.root, "dewey-uidvalidity")))
			after := f.ids()
			if len(after) != 5 || slices.ContainsFunc(after, func(id string) bool { return slices.Contains(before, id) }) {
				t.Errorf("unique-ids %q, before %q: those of before must not come again for others", after, before)
			}
			f.restart()
			if again := f.ids(); !slices.Equal(again, after) {
				t.Errorf("unique-ids %q, then %q", after, again)
			}
		})
	}
	t.Run("while it is in memory, uids shuffled", func(t *testing.T) {
		f := newFixture(t)
		for i := range 5 {
			f.deliver(fmt.Sprintf("Subject: %d\n", i))
		}
		f.ids()
		l := f.list()
		for i := range 4 {
			l.Records[i].Base, l.Records[i+1].Base = l.Records[i+1].Base, l.Records[i].Base
		}
		f.put("dovecot-uidlist", string(l.Append(nil)))
		if _, err := f.store.Open(t.Context(), maildrop.Owner{}); err == nil {
			t.Error("served under other unique-ids")
		}
	})
	t.Run("of a few messages only", func(t *testing.T) {
		f := newFixture(t)
		f.deliver("one\n")
		before := f.ids()
		f.check(os.Remove(filepath.Join(f.root, "dovecot-uidlist")))
		if after := f.ids(); slices.Equal(before, after) {
			t.Errorf("the unique-id %q was used again", after)
		}
	})
}

// Uids are not used again, also when the list was made shorter and its last record is gone.
func TestTrap24NextUIDStays(t *testing.T) {
	f := newFixture(t)
	var numbers []int
	for i := range 250 {
		f.deliver(fmt.Sprintf("Subject: %d\n", i))
		numbers = append(numbers, i+1)
	}
	d := f.open()
	before := uids(d)
	f.check(d.Remove(t.Context(), numbers))
	f.close(d)
	if l := f.list(); len(l.Records) != 0 || l.Next != 251 {
		t.Errorf("%d records are left, next uid %d", len(l.Records), l.Next)
	}
	f.restart()
	f.deliver("Subject: new\n")
	if after := f.ids(); len(after) != 1 || slices.Contains(before, after[0]) {
		t.Errorf("unique-id %q was used before", after)
	}
	f.fsck()
}

// Nothing but 1 to 70 octets from 0x21 to 0x7E, and nothing twice, whatever lists and names say.
func TestTrap27LegalUniqueIDs(t *testing.T) {
	f := newFixture(t)
	long := strings.Repeat("x", 71)
	for i, base := range []string{"1.a b", "2.\xff", "3." + long, "4.d", "5.e", "6.f", "7.g"} {
		f.put("cur/"+base+":2,", fmt.Sprintf("Subject: %d\n", i))
	}
	f.put("dovecot-uidlist", "3 V1795400728 N9 Ga4f7d52518a4036bc527000083ecc375\n"+
		"1 P :1.a b\n2 P :2.\xff\n3 P :3."+long+"\n4 PSAME :4.d\n5 PSAME :5.e\n6 P000000016b03a418 :6.f\n7 P0000000a6b03a418 :7.g\n")
	for range 3 {
		f.deliver(fmt.Sprintf("Subject: %d\n", f.serial))
		var want []string
		for _, uid := range []string{"1", "2", "3", "SAME", "5", "6", "0000000a6b03a418", "9", "b", "c"} {
			if len(uid) == 1 {
				uid = "0000000" + uid + "6b03a418"
			}
			want = append(want, uid)
		}
		d := f.open()
		for i, id := range uids(d) {
			if id != want[i] {
				t.Errorf("message %d: unique-id %q, want %q", i+1, id, want[i])
			}
		}
		f.close(d)
		f.restart()
	}
	// The one that was given another keeps it when the first of the two is gone.
	d := f.open()
	f.check(d.Remove(t.Context(), []int{4}))
	f.close(d)
	f.restart()
	if ids := f.ids(); slices.Contains(ids, "SAME") {
		t.Errorf("a unique-id came again for another message: %q", ids)
	}
}

// If new unique-ids cannot be stored the new mail is hidden, and the rest is served.
func TestTrap28DiskFull(t *testing.T) {
	for _, op := range []string{"lock", "append", "sync", "replace"} {
		t.Run(op, func(t *testing.T) {
			f := newFixture(t)
			full := func(o, path string) error {
				if o == op && filepath.Base(path) != "dewey-uidvalidity" {
					return unix.ENOSPC
				}
				return nil
			}
			f.deliver("one\n")
			if op != "append" { // without any list there is nothing to be served
				f.store.SetFault(full)
				f.openErr(unix.ENOSPC)
				f.store.SetFault(nil)
			}
			before := f.ids()
			f.deliver("two\n")
			if op == "replace" { // force the list to be written anew
				f.put("dovecot-uidlist", f.get("dovecot-uidlist")+"torn")
			}
			f.store.SetFault(full)
			for range 2 {
				if got := f.ids(); !slices.Equal(got, before) {
					t.Errorf("unique-ids %q on a full disk, want %q", got, before)
				}
			}
			f.wantLog("hidden")
			f.store.SetFault(nil)
			after := f.ids()
			if len(after) != 2 || after[0] != before[0] {
				t.Errorf("unique-ids %q when there is room again, before %q", after, before)
			}
			f.restart()
			if got := f.ids(); !slices.Equal(got, after) {
				t.Errorf("unique-ids %q after a restart, want %q", got, after)
			}
			f.fsck()
		})
	}
}

// The same when another program holds the lock on the list; a lock whose process died is removed.
func TestTrap28ListLocked(t *testing.T) {
	host, _ := os.Hostname()
	dead := exec.Command("true")
	if err := dead.Run(); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		name, content string
		age           time.Duration
		hidden        bool
	}{
		{"by a live process", fmt.Sprintf("%d:%s", os.Getppid(), host), time.Hour, true},
		{"by a dead process", fmt.Sprintf("%d:%s", dead.Process.Pid, host), 0, false},
		{"by our own pid, from before", fmt.Sprintf("%d:%s", os.Getpid(), host), 0, false},
		{"by another host", "1:elsewhere." + host, 0, true},
		{"by nobody", "", 0, true},
	} {
		t.Run(test.name, func(t *testing.T) {
			f := newFixture(t)
			f.deliver("one\n")
			f.ids()
			f.deliver("two\n")
			f.put("dovecot-uidlist.lock", test.content)
			old := time.Now().Add(-test.age)
			f.check(os.Chtimes(filepath.Join(f.root, "dovecot-uidlist.lock"), old, old))
			want := 2
			if test.hidden {
				want = 1
			}
			if got := len(f.ids()); got != want {
				t.Errorf("%d messages, want %d", got, want)
			}
			if got := exists(filepath.Join(f.root, "dovecot-uidlist.lock")); got != test.hidden {
				t.Errorf("the lock is there: %v", got)
			}
		})
	}
}

// A session in another process; its lock dies with it, and a refused one takes nothing away.
func TestTrap33LockAcrossProcesses(t *testing.T) {
	if root := os.Getenv("MAILDIR_HOLD"); root != "" {
		s := maildir.New(maildir.Options{Path: func(maildrop.Owner) (string, error) { return root, nil }})
		if _, err := s.Open(t.Context(), maildrop.Owner{}); err != nil {
			t.Fatal(err)
		}
		fmt.Println("held")
		select {}
	}
	f := newFixture(t)
	f.deliver("one\n")
	cmd := exec.Command(os.Args[0], "-test.run", "^"+t.Name()+"$")
	cmd.Env = append(os.Environ(), "MAILDIR_HOLD="+f.root)
	out, err := cmd.StdoutPipe()
	f.check(err)
	f.check(cmd.Start())
	if _, err := io.ReadFull(out, make([]byte, len("held\n"))); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		f.openErr(maildrop.ErrInUse)
		f.restart() // another Store has a lock file of its own open
	}
	f.check(cmd.Process.Kill())
	_ = cmd.Wait()
	if got := len(f.ids()); got != 1 {
		t.Errorf("%d messages", got)
	}
}

// A second login waits for the first to end, and no longer than LockWait.
func TestLockWait(t *testing.T) {
	f := newFixture(t)
	f.deliver("one\n")
	f.ids()
	synctest.Test(t, func(t *testing.T) {
		stores := []*maildir.Store{f.newStore(maildir.Options{}), f.newStore(maildir.Options{})}
		for i, second := range stores { // the same Store, then as another process
			first, err := stores[0].Open(t.Context(), maildrop.Owner{})
			if err != nil {
				t.Fatal(err)
			}
			start := time.Now()
			if _, err := second.Open(t.Context(), maildrop.Owner{}); !errors.Is(err, maildrop.ErrInUse) {
				t.Errorf("second Open: %v, want ErrInUse", err)
			}
			if waited := time.Since(start); waited != 2*time.Second {
				t.Errorf("store %d waited %v, want 2s", i, waited)
			}
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			if _, err := second.Open(ctx, maildrop.Owner{}); !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("Open with a deadline: %v", err)
			}
			cancel()
			time.AfterFunc(time.Second, func() { _ = first.Close() })
			d, err := second.Open(t.Context(), maildrop.Owner{})
			if err != nil {
				t.Fatalf("Open after Close: %v", err)
			}
			if err := d.Close(); err != nil {
				t.Error(err)
			}
		}
	})
}

// Only regular files are served, and nothing outside is read.
func TestOnlyRegularFiles(t *testing.T) {
	f := newFixture(t)
	f.deliver("one\n")
	f.put("outside", "secret\n")
	f.put("new/.hidden", "x\n")
	f.put("new/:2,S", "x\n")
	f.put("new/line\nend", "x\n")
	f.check(os.Symlink("../outside", filepath.Join(f.root, "new", "1.link")))
	f.check(os.Mkdir(filepath.Join(f.root, "new", "2.dir"), 0o700))
	f.check(unix.Mkfifo(filepath.Join(f.root, "new", "3.fifo"), 0o600))
	d := f.open()
	if n := len(d.Messages()); n != 1 {
		t.Errorf("%d messages, want 1", n)
	}
	// A message that becomes a link or a FIFO during the session is not read either.
	path := f.find(f.files["one\n"])
	f.check(os.Remove(path))
	f.check(os.Symlink("../outside", path))
	if _, _, err := d.Retrieve(t.Context(), 1); err == nil {
		t.Error("a link was followed")
	}
	f.check(os.Remove(path))
	f.check(unix.Mkfifo(path, 0o600))
	if _, _, err := d.Retrieve(t.Context(), 1); err == nil {
		t.Error("a FIFO was read")
	}
	f.close(d)
}

// The list itself may be a trap.
func TestListIsNoRegularFile(t *testing.T) {
	for _, name := range []string{"dovecot-uidlist", "dewey.lock", "dewey-uidvalidity", "courierpop3dsizelist", "courierimapuiddb"} {
		f := newFixture(t)
		f.deliver("one\n")
		path := filepath.Join(f.root, name)
		f.check(unix.Mkfifo(path, 0o600))
		f.openErr(maildrop.ErrDamaged)
		f.check(os.Remove(path))
		f.check(os.Mkdir(path, 0o700))
		if _, err := f.store.Open(t.Context(), maildrop.Owner{}); err == nil {
			t.Errorf("%s is a folder, and that is no error", name)
		}
	}
}

// A message that cannot be read keeps nobody out (trap 2's other half).
func TestTrap02UnreadableMessage(t *testing.T) {
	f := newFixture(t)
	bad := f.deliver("Subject: bad\n")
	f.deliver("Subject: good\n")
	f.store.SetFault(func(op, path string) error {
		if op == "open" && strings.Contains(path, bad) {
			return unix.EIO
		}
		return nil
	})
	d := f.open()
	if got := octets(d); !slices.Equal(got, []int64{13, 15}) {
		t.Errorf("octets %v", got)
	}
	if _, _, err := d.Retrieve(t.Context(), 1); !errors.Is(err, unix.EIO) {
		t.Errorf("Retrieve: %v, want EIO", err)
	}
	f.read(d, 2)
	f.store.SetFault(nil)
	m, body, err := d.Retrieve(t.Context(), 1)
	f.check(err)
	f.check(body.Close())
	if m.Octets != 14 {
		t.Errorf("when it can be read again it has %d octets", m.Octets)
	}
	f.close(d)
	f.fsck()
}

// A file that is cut while it is read ends in an error, never in io.EOF.
func TestTrap02FileIsCut(t *testing.T) {
	f := newFixture(t)
	content := "Subject: x\n\n" + strings.Repeat("line\n", 100_000)
	f.deliver(content)
	path := f.find(f.files[content])
	d := f.open()
	defer f.close(d)
	_, body, err := d.Retrieve(t.Context(), 1)
	f.check(err)
	_, err = io.ReadFull(body, make([]byte, 1000))
	f.check(err)
	f.check(os.Truncate(path, 100_000))
	if _, err := io.ReadAll(body); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("reading on: %v, want io.ErrUnexpectedEOF", err)
	}
	f.check(body.Close())
	// Read anew it is what it is now.
	if got := f.read(d, 1); got != string(maildroptest.Wire([]byte(content[:100_000]))) {
		t.Errorf("%d octets came", len(got))
	}
	f.wantLog("repaired")
	// What is added while it is read is left alone.
	_, body, err = d.Retrieve(t.Context(), 1)
	f.check(err)
	f.put("new/"+filepath.Base(path), content+"more\n")
	got, err := io.ReadAll(body)
	f.check(errors.Join(err, body.Close()))
	if string(got) != string(maildroptest.Wire([]byte(content[:100_000]))) {
		t.Errorf("%d octets came of a file that grew", len(got))
	}
}

// A file that was edited, its size the same, is found out while it is read, and then measured again.
func TestTrap11EditedFile(t *testing.T) {
	for _, edited := range []string{"\n\n\nabc", "a b c "} {
		f := newFixture(t)
		const content = "a\nb cd"
		f.deliver(content)
		f.ids()
		f.put("new/"+f.files[content], edited)
		d := f.open()
		_, body, err := d.Retrieve(t.Context(), 1)
		f.check(err)
		if _, err := io.ReadAll(body); err == nil {
			t.Error("a message of another size than announced ended well")
		}
		f.check(body.Close())
		f.close(d)
		for range 2 {
			d := f.open()
			if got := f.read(d, 1); got != string(maildroptest.Wire([]byte(edited))) {
				t.Errorf("%q came", got)
			}
			f.close(d)
			f.restart()
		}
		f.fsck()
	}
}

// Removal is as durable as +OK says, and an error says what is left.
func TestTrap16RemoveFails(t *testing.T) {
	f := newFixture(t)
	bases := []string{f.deliver("one\n"), f.deliver("two\n"), f.deliver("three\n")}
	d := f.open()
	f.store.SetFault(func(op, path string) error {
		if op == "unlink" && strings.Contains(path, bases[1]) {
			return unix.EACCES
		}
		return nil
	})
	err := d.Remove(t.Context(), []int{1, 2, 3})
	if !errors.Is(err, unix.EACCES) || !strings.Contains(err.Error(), "message 2") {
		t.Errorf("Remove: %v", err)
	}
	f.store.SetFault(func(op, path string) error {
		if op == "sync" && filepath.Base(path) == "new" {
			return unix.EIO
		}
		return nil
	})
	if err := d.Remove(t.Context(), []int{2}); !errors.Is(err, unix.EIO) {
		t.Errorf("Remove without sync: %v", err)
	}
	f.store.SetFault(nil)
	f.check(d.Remove(t.Context(), []int{2}))
	f.close(d)
	if got := f.ids(); len(got) != 0 {
		t.Errorf("%q is left", got)
	}
}

// A mover that died between link and unlink leaves one message with two names. Two messages under one
// base name are two.
func TestTwoNames(t *testing.T) {
	f := newFixture(t)
	base := f.deliver("one\n")
	f.ids()
	f.check(os.Link(f.find(base), filepath.Join(f.root, "cur", base+":2,S")))
	f.restart()
	d := f.open()
	if n := len(d.Messages()); n != 1 {
		t.Errorf("%d messages, want 1", n)
	}
	f.read(d, 1)
	f.check(d.Remove(t.Context(), []int{1}))
	f.close(d)
	if got := f.ids(); len(got) != 0 {
		t.Errorf("%q came back", got)
	}

	f.put("cur/5.x:2,", "first\n")
	first := f.ids()
	old := time.Now().Add(-time.Hour)
	f.check(os.Chtimes(filepath.Join(f.root, "cur", "5.x:2,"), old, old))
	f.put("cur/5.x:2,S", "second\n")
	for range 2 {
		ids := f.ids()
		if len(ids) != 2 || ids[0] != first[0] {
			t.Errorf("unique-ids %q, the first was %q", ids, first)
		}
		f.restart()
	}
	f.fsck()
}

// What a damaged list holds is not thrown away.
func TestDamagedList(t *testing.T) {
	f := newFixture(t)
	for i := range 6 {
		f.deliver(fmt.Sprintf("Subject: %d\n", i))
	}
	before := f.ids()
	good := f.get("dovecot-uidlist")
	lines := strings.SplitAfter(good, "\n")

	f.put("dovecot-uidlist", strings.TrimSuffix(good, "\n"))
	f.restart()
	after := f.ids()
	if !slices.Equal(after[:5], before[:5]) || slices.Contains(before, after[5]) {
		t.Errorf("a torn line: unique-ids %q, before %q", after, before)
	}
	f.wantLog("no end")
	f.fsck()

	f.put("dovecot-uidlist", lines[0]+lines[1]+"garbage\n"+strings.Join(lines[3:], ""))
	f.restart()
	after = f.ids()
	if after[0] != before[0] || !slices.Equal(after[1:5], before[2:]) {
		t.Errorf("a bad line: unique-ids %q, before %q", after, before)
	}
	f.wantLog("line=3")
	f.fsck()

	for _, bad := range []string{"", "garbage\n", "2 V1 N1\n", lines[0] + "a\nb\nc\nd\n", lines[0] + lines[6] + lines[5] + lines[4] + lines[3] + lines[2]} {
		f.put("dovecot-uidlist", bad)
		f.restart()
		f.openErr(maildrop.ErrDamaged)
		if got := f.get("dovecot-uidlist"); got != bad {
			t.Errorf("a damaged list was changed to %q", got)
		}
	}
}

// What Courier's POP3 server served stays. The file is one that courierpop3d 1.0.16 wrote.
func TestCourierTakeOver(t *testing.T) {
	f := newFixture(t)
	f.put("cur/1700000001.M1P1.h:2,", "Subject: a\n\nno end")
	f.put("cur/1700000002.M2P1.h:2,RS", "Subject: gr\xc3\xbc\n\nbody\n")
	f.put("cur/1700000003.M3P1.h,S=17:2,S", "Subject: b\n\nbody\n")
	f.put("courierpop3dsizelist", `/3 4 1795438692
1700000001.M1P1.h:2, 20 1:1795438692:0
1700000002.M2P1.h:2,RS 23 2:1795438692:1
1700000003.M3P1.h,S=17:2,S 20 3:1795438692:0
`)
	f.put("courierimapuiddb", "1 1111111111 9\n3 1700000001.M1P1.h:2,\n8 1700000003.M3P1.h,S=17\n")
	f.deliver("Subject: new\n")
	want := []string{"UID1-1795438692", "UID3-1795438692", "UID2-1795438692"}
	for range 2 {
		d := f.open()
		got := uids(d)
		if len(got) != 4 || !slices.Equal(got[:3], want) && !slices.Equal(got[1:], want) {
			t.Errorf("unique-ids %q, want %q and a new one", got, want)
		}
		for n := range got {
			f.read(d, n+1)
		}
		f.close(d)
		f.restart()
	}
	l := f.list()
	if l.Validity != 1111111111 || l.Records[0].UID != 3 || l.Records[1].UID != 8 {
		t.Errorf("IMAP's uids are not kept: %+v", l)
	}
	f.fsck()
}

// Two seconds after the last change a login reads no folder and no list.
func TestWarmLogin(t *testing.T) {
	f := newFixture(t)
	for i := range 5 {
		f.deliver(fmt.Sprintf("Subject: %d\n", i))
	}
	before := f.ids()
	var reads []string
	f.store.SetTrace(func(op, path string) { reads = append(reads, op+" "+filepath.Base(path)) })
	deadline := time.Now().Add(20 * time.Second)
	for {
		reads = nil
		if got := f.ids(); !slices.Equal(got, before) {
			t.Fatalf("unique-ids %q, before %q", got, before)
		}
		if len(reads) == 0 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("still reading %q", reads)
		}
		time.Sleep(100 * time.Millisecond) // the clock of the file system has to move on
	}
	// One delivery: the other folder is not read.
	f.deliver("Subject: new\n")
	reads = nil
	if got := f.ids(); len(got) != 6 || !slices.Equal(got[:5], before) {
		t.Errorf("unique-ids %q, before %q", got, before)
	}
	if slices.Contains(reads, "readdir cur") {
		t.Errorf("reads %q", reads)
	}
	// A message's flags change, and its file is removed: no list has to be read.
	f.flag(f.files["Subject: 3\n"], "S")
	f.check(os.Remove(f.find(f.files["Subject: 0\n"])))
	if got := f.ids(); !slices.Equal(got[:4], before[1:]) {
		t.Errorf("unique-ids %q, before %q", got, before)
	}
	f.fsck()
}

// The cache as the proof of everything, in random operations: each change gets a time of its own.
func TestWarmRandom(t *testing.T) {
	maildroptest.Run(t, func(t maildroptest.TB) maildroptest.Maildrop {
		f := newFixture(t)
		f.trustTimes()
		if rt, ok := t.(*rapid.T); ok {
			f.random = func(n int) int { return rapid.IntRange(0, n-1).Draw(rt, "choice") }
		}
		return f.suite()
	})
}

func TestCacheIsBounded(t *testing.T) {
	f := newFixture(t)
	parent := filepath.Dir(f.root)
	store := maildir.New(maildir.Options{
		Path:        func(o maildrop.Owner) (string, error) { return filepath.Join(parent, o.Name), nil },
		CacheOctets: 5000,
	})
	for i := range 40 {
		f.root = filepath.Join(parent, fmt.Sprint(i))
		f.deliver("one\n")
		d, err := store.Open(t.Context(), maildrop.Owner{Name: fmt.Sprint(i)})
		f.check(err)
		f.close(d)
	}
	if n, octets := store.Cached(); n < 2 || n > 10 || octets > 5000 {
		t.Errorf("%d scans of %d octets are kept", n, octets)
	}
}

// A login that is cut short while it measures keeps what it has.
func TestFirstLoginGoesOn(t *testing.T) {
	f := newFixture(t)
	for i := range 300 {
		f.deliver(fmt.Sprintf("Subject: %d\n", i))
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var opened atomic.Int32
	f.store.SetFault(func(op, _ string) error {
		if op == "open" && opened.Add(1) == 200 {
			cancel()
		}
		return nil
	})
	if _, err := f.store.Open(ctx, maildrop.Owner{}); !errors.Is(err, context.Canceled) {
		t.Fatalf("Open: %v, want context.Canceled", err)
	}
	f.restart()
	opened.Store(1000)
	f.store.SetFault(func(op, _ string) error {
		if op == "open" {
			opened.Add(1)
		}
		return nil
	})
	if got := len(f.ids()); got != 300 {
		t.Errorf("%d messages", got)
	}
	if n := opened.Load() - 1000; n > 150 {
		t.Errorf("the second login measured %d messages of 300", n)
	}
	f.fsck()
}

// Strange places for a Maildir.
func TestPaths(t *testing.T) {
	f := newFixture(t)
	store := maildir.New(maildir.Options{Path: func(o maildrop.Owner) (string, error) {
		if o.Name == "nobody" {
			return "", errors.New("no such user")
		}
		return o.Home, nil
	}})
	parent := filepath.Dir(filepath.Dir(f.root))
	f.check(os.WriteFile(filepath.Join(parent, "file"), nil, 0o600))
	f.check(os.MkdirAll(filepath.Join(parent, "half", "new"), 0o700))
	f.check(os.Symlink("half", filepath.Join(parent, "link")))
	for _, test := range []struct {
		owner maildrop.Owner
		ok    bool
	}{
		{maildrop.Owner{Name: "nobody"}, false},
		{maildrop.Owner{Home: "relative"}, false},
		{maildrop.Owner{Home: ""}, false},
		{maildrop.Owner{Home: filepath.Join(parent, "file")}, false},
		{maildrop.Owner{Home: filepath.Join(parent, "a", "b", "c")}, true},
		{maildrop.Owner{Home: filepath.Join(parent, "half")}, true},
		{maildrop.Owner{Home: filepath.Join(parent, "link")}, true},
	} {
		d, err := store.Open(t.Context(), test.owner)
		if (err == nil) != test.ok {
			t.Errorf("%+v: error %v", test.owner, err)
		}
		if d != nil {
			if n := len(d.Messages()); n != 0 {
				t.Errorf("%+v: %d messages", test.owner, n)
			}
			f.close(d)
		}
	}
	for _, path := range []string{"a/b/c", "half"} {
		for _, dir := range []string{"new", "cur", "tmp"} {
			if st, err := os.Stat(filepath.Join(parent, path, dir)); err != nil || st.Mode().Perm() != 0o700 {
				t.Errorf("%s/%s: %v, %v", path, dir, st, err)
			}
		}
	}
}
