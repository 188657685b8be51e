package maildir_test

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"dewey/maildrop"
)

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
	t.Run("while it is in memory, and so is all mail that had one", func(t *testing.T) {
		f := newFixture(t)
		for range 5 {
			f.deliver("old\n")
		}
		before := f.ids()
		f.check(os.RemoveAll(filepath.Join(f.root, "new")))
		f.check(os.Mkdir(filepath.Join(f.root, "new"), 0o700))
		f.check(os.Remove(filepath.Join(f.root, "dovecot-uidlist")))
		for range 5 {
			f.deliver("new\n")
		}
		if after := f.ids(); len(after) != 5 || slices.ContainsFunc(after, func(id string) bool { return slices.Contains(before, id) }) {
			t.Errorf("unique-ids %q, before %q: no message that was served is there, and none is used again", after, before)
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
