package maildir_test

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
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

// checked is Check without an error.
func (f *fixture) checked(opts maildir.CheckOptions) maildir.Checked {
	f.t.Helper()
	got, err := f.store.Check(f.t.Context(), f.owner, opts)
	f.check(err)
	return got
}

// kinds are those of the problems that are left.
func kinds(c maildir.Checked) []maildir.Kind {
	var all []maildir.Kind
	for _, p := range c.Problems {
		if !p.Repaired {
			all = append(all, p.Kind)
		}
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// tree is all there is below the fixture's folder, with times, but not those of reading.
func (f *fixture) tree() string {
	f.t.Helper()
	var b strings.Builder
	f.check(filepath.WalkDir(filepath.Dir(f.root), func(path string, d fs.DirEntry, err error) error {
		var st unix.Stat_t
		if err = errors.Join(err, unix.Lstat(path, &st)); err != nil {
			return err
		}
		fmt.Fprintf(&b, "%s %d %o %d %d %d %d", path, st.Ino, st.Mode, st.Uid, st.Size, st.Mtim.Nano(), st.Ctim.Nano())
		if d.Type().IsRegular() {
			text, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			fmt.Fprintf(&b, " %x", sha256.Sum256(text))
		}
		b.WriteByte('\n')
		return nil
	}))
	return b.String()
}

// stored are the contents of all messages there are, also of those that were removed, sorted.
func (f *fixture) stored() []string {
	f.t.Helper()
	var all []string
	for _, dir := range []string{"new", "cur", "dewey-removed"} {
		entries, err := os.ReadDir(filepath.Join(f.root, dir))
		if err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, unix.ENOTDIR) {
			f.t.Fatal(err)
		}
		for _, e := range entries {
			if e.Type().IsRegular() && !(dir == "dewey-removed" && strings.HasPrefix(e.Name(), "list")) {
				all = append(all, f.get(dir+"/"+e.Name()))
			}
		}
	}
	slices.Sort(all)
	return slices.Compact(all) // a message may have two names
}

// served are the unique-ids of messages, by content; nil if nobody can log in.
func (f *fixture) served() map[string]string {
	f.t.Helper()
	f.restart()
	d, err := f.store.Open(f.t.Context(), f.owner)
	if err != nil {
		return nil
	}
	defer f.close(d)
	ids := map[string]string{}
	for n, m := range d.Messages() {
		ids[f.read(d, n+1)] = m.UID
	}
	return ids
}

// sixMessages is a Maildir as sessions leave it.
func sixMessages(t *testing.T) *fixture {
	f := newFixture(t)
	for i := range 6 {
		f.deliver(fmt.Sprintf("Subject: %d\n\nbody\n", i))
	}
	f.flag(f.files["Subject: 0\n\nbody\n"], "S")
	f.ids()
	return f
}

func (f *fixture) lines() []string {
	return strings.SplitAfter(strings.TrimSuffix(f.get("dovecot-uidlist"), "\n"), "\n")
}

// edit writes the list anew.
func (f *fixture) edit(change func(lines []string) []string) {
	lines := f.lines()
	lines[len(lines)-1] += "\n"
	f.put("dovecot-uidlist", strings.Join(change(lines), ""))
}

func swap(lines []string, i, j int) []string {
	lines[i], lines[j] = lines[j], lines[i]
	return lines
}

// A damage is one kind of what can be wrong.
type damage struct {
	kind     maildir.Kind
	severity maildir.Severity
	do       func(f *fixture)
	opts     maildir.CheckOptions
	left     bool // a person has to see to it
	changes  int  // messages that a repair leaves with another unique-id: no more than a session would
}

var damages = map[string]damage{
	"no tmp":        {kind: maildir.KindFolder, severity: maildir.SeverityWarning, do: func(f *fixture) { f.check(os.Remove(f.root + "/tmp")) }},
	"new is a link": {kind: maildir.KindFolder, severity: maildir.SeverityError, left: true, do: func(f *fixture) { f.move("new", "elsewhere"); f.check(os.Symlink("elsewhere", f.root+"/new")) }},
	"new is a file": {kind: maildir.KindFolder, severity: maildir.SeverityError, left: true, do: func(f *fixture) { f.move("new", "elsewhere"); f.put("new", "") }},
	"new is away":   {kind: maildir.KindFolder, severity: maildir.SeverityError, left: true, do: func(f *fixture) { f.move("new", "elsewhere") }},
	"mode":          {kind: maildir.KindMode, severity: maildir.SeverityError, left: true, do: func(f *fixture) { f.check(os.Chmod(f.find(f.any()), 0)) }},
	"open to all":   {kind: maildir.KindMode, severity: maildir.SeverityWarning, left: true, do: func(f *fixture) { f.check(os.Chmod(f.root+"/new", 0o777)) }},
	"owner":         {kind: maildir.KindOwner, severity: maildir.SeverityWarning, left: true, do: func(f *fixture) { f.check(os.Chown(f.find(f.any()), 12345, 12345)) }},
	"a pipe":        {kind: maildir.KindNoFile, severity: maildir.SeverityWarning, left: true, do: func(f *fixture) { f.check(unix.Mkfifo(f.root+"/new/1.pipe", 0o600)) }},
	"a link":        {kind: maildir.KindNoFile, severity: maildir.SeverityWarning, left: true, do: func(f *fixture) { f.check(os.Symlink("/etc/passwd", f.root+"/cur/1.link")) }},
	"a name":        {kind: maildir.KindBadName, severity: maildir.SeverityWarning, left: true, do: func(f *fixture) { f.put("cur/a\nb", "x\n") }},
	"no base name":  {kind: maildir.KindBadName, severity: maildir.SeverityWarning, left: true, do: func(f *fixture) { f.put("cur/:2,S", "x\n") }},
	"one base name": {kind: maildir.KindSame, severity: maildir.SeverityError, do: func(f *fixture) { f.put("cur/"+f.any()+":2,S", "Subject: another\n") }},
	"two names": {kind: maildir.KindTwo, severity: maildir.SeverityNote, do: func(f *fixture) {
		f.check(os.Link(f.find(f.any()), f.root+"/cur/"+f.any()+":2,S"))
	}},
	"linked": {kind: maildir.KindLinked, severity: maildir.SeverityNote, left: true, do: func(f *fixture) { f.check(os.Link(f.find(f.any()), f.root+"/cur/1800000000.M1P1.host:2,S")) }},

	"an empty list":  {kind: maildir.KindList, severity: maildir.SeverityError, left: true, do: func(f *fixture) { f.put("dovecot-uidlist", "") }},
	"no header":      {kind: maildir.KindList, severity: maildir.SeverityError, left: true, do: func(f *fixture) { f.edit(func(l []string) []string { return l[1:] }) }},
	"header is torn": {kind: maildir.KindList, severity: maildir.SeverityError, left: true, do: func(f *fixture) { f.put("dovecot-uidlist", "3 V12 N5") }},
	"list is a link": {kind: maildir.KindList, severity: maildir.SeverityError, left: true, do: func(f *fixture) { f.move("dovecot-uidlist", "x"); f.check(os.Symlink("x", f.root+"/dovecot-uidlist")) }},
	"four bad lines": {kind: maildir.KindList, severity: maildir.SeverityError, left: true, do: func(f *fixture) {
		f.edit(func(l []string) []string { return append(l[:2], "a\n", "b\n", "c\n", "d\n") })
	}},
	"a bad line": {kind: maildir.KindListLine, severity: maildir.SeverityError, changes: 1, do: func(f *fixture) { f.edit(func(l []string) []string { l[3] = "gar bage\n"; return l }) }},
	"a bad key": {kind: maildir.KindListLine, severity: maildir.SeverityWarning, do: func(f *fixture) {
		f.edit(func(l []string) []string { l[3] = strings.Replace(l[3], " ", " lower ", 1); return l })
	}},
	"empty lines":     {kind: maildir.KindListLine, severity: maildir.SeverityWarning, do: func(f *fixture) { f.edit(func(l []string) []string { return append(l, "\n", "\n", "\n", "\n", "\n") }) }},
	"wrong order":     {kind: maildir.KindListOrder, severity: maildir.SeverityError, do: func(f *fixture) { f.edit(func(l []string) []string { return swap(l, 2, 4) }) }},
	"all turned over": {kind: maildir.KindListOrder, severity: maildir.SeverityError, do: func(f *fixture) { f.edit(func(l []string) []string { slices.Reverse(l[1:]); return l }) }},
	"lines twice":     {kind: maildir.KindListTwice, severity: maildir.SeverityWarning, do: func(f *fixture) { f.edit(func(l []string) []string { return append(l, l[1:]...) }) }},
	"a uid twice":     {kind: maildir.KindUIDTwice, severity: maildir.SeverityError, changes: 1, do: func(f *fixture) { f.edit(func(l []string) []string { l[4] = "3" + l[4][1:]; return l }) }},
	"a uid twice, P": {kind: maildir.KindUIDTwice, severity: maildir.SeverityError, do: func(f *fixture) {
		f.edit(func(l []string) []string { l[4] = strings.Replace(l[4], " ", " Pown ", 1); return l })
		f.edit(func(l []string) []string { l[4] = "3" + l[4][1:]; return l })
	}},
	"a file twice": {kind: maildir.KindBaseTwice, severity: maildir.SeverityWarning, changes: 1, do: func(f *fixture) {
		f.edit(func(l []string) []string { _, name, _ := strings.Cut(l[2], ":"); return append(l, "7 :"+name) })
	}},
	"torn":      {kind: maildir.KindListTorn, severity: maildir.SeverityWarning, changes: 1, do: func(f *fixture) { f.put("dovecot-uidlist", strings.TrimSuffix(f.get("dovecot-uidlist"), "host\n")) }},
	"version 1": {kind: maildir.KindListOld, severity: maildir.SeverityNote, do: func(f *fixture) { l := f.list(); f.version1(l.Validity, l.Next) }},
	"GUID": {kind: maildir.KindListOld, severity: maildir.SeverityNote, do: func(f *fixture) {
		f.edit(func(l []string) []string { l[0] = strings.Replace(l[0], " G", " Gx", 1); return l })
	}},
	"no uid is left": {kind: maildir.KindListNext, severity: maildir.SeverityError, left: true, do: func(f *fixture) {
		f.edit(func(l []string) []string { _, rest, _ := strings.Cut(l[5], " "); l[5] = "4294967294 " + rest; return l })
	}},
	"lost":     {kind: maildir.KindListLost, severity: maildir.SeverityError, left: true, do: func(f *fixture) { f.check(os.Remove(f.root + "/dovecot-uidlist")) }},
	"validity": {kind: maildir.KindValidity, severity: maildir.SeverityError, left: true, do: func(f *fixture) { f.put("dewey-uidvalidity", "77") }},
	"witness":  {kind: maildir.KindWitness, severity: maildir.SeverityWarning, do: func(f *fixture) { f.put("dewey-uidvalidity", "12x") }},
	"witness, folder": {kind: maildir.KindWitness, severity: maildir.SeverityError, left: true, do: func(f *fixture) {
		f.check(os.Remove(f.root + "/dewey-uidvalidity"))
		f.check(os.Mkdir(f.root+"/dewey-uidvalidity", 0o700))
	}},
	"an illegal id": {kind: maildir.KindBadID, severity: maildir.SeverityWarning, left: true, do: func(f *fixture) {
		f.edit(func(l []string) []string { l[2] = strings.Replace(l[2], " ", " Pgr\xc3\xbcn ", 1); return l })
	}},
	"an id twice": {kind: maildir.KindIDTwice, severity: maildir.SeverityError, changes: 1, do: func(f *fixture) {
		f.edit(func(l []string) []string {
			l[2], l[3] = strings.Replace(l[2], " ", " Psame ", 1), strings.Replace(l[3], " ", " Psame ", 1)
			return l
		})
	}},
	"kept when": {kind: maildir.KindKept, severity: maildir.SeverityWarning, do: func(f *fixture) {
		f.edit(func(l []string) []string { l[2] = strings.Replace(l[2], " ", " Dlong_ago ", 1); return l })
	}},
	"missing":       {kind: maildir.KindMissing, severity: maildir.SeverityNote, left: true, do: func(f *fixture) { f.check(os.Remove(f.find(f.any()))) }},
	"missing, drop": {kind: maildir.KindMissing, severity: maildir.SeverityNote, opts: maildir.CheckOptions{DropMissing: true}, do: func(f *fixture) { f.check(os.Remove(f.find(f.any()))) }},
	"all is missing": {kind: maildir.KindMissing, severity: maildir.SeverityWarning, left: true, opts: maildir.CheckOptions{DropMissing: true}, do: func(f *fixture) {
		f.move("new", "elsewhere")
		f.move("cur", "else")
		f.put("new/.x", "")
		f.put("cur/.x", "")
	}},
	"S": {kind: maildir.KindSize, severity: maildir.SeverityError, do: func(f *fixture) {
		f.edit(func(l []string) []string { l[2] = strings.Replace(l[2], "S", "S9", 1); return l })
	}},
	"E": {kind: maildir.KindSize, severity: maildir.SeverityWarning, do: func(f *fixture) {
		f.edit(func(l []string) []string { l[2] = strings.Replace(l[2], " E0", " E7", 1); return l })
	}},
	"W": {kind: maildir.KindSize, severity: maildir.SeverityError, opts: maildir.CheckOptions{Sizes: true}, do: func(f *fixture) {
		f.edit(func(l []string) []string { l[2] = strings.Replace(l[2], " W20", " W21", 1); return l })
	}},
	"U": {kind: maildir.KindSize, severity: maildir.SeverityError, opts: maildir.CheckOptions{Sizes: true}, do: func(f *fixture) {
		f.edit(func(l []string) []string { l[2] = strings.Replace(l[2], " ", " U30 ", 1); return l })
	}},
	"name": {kind: maildir.KindNameSize, severity: maildir.SeverityWarning, left: true, do: func(f *fixture) { f.put("cur/1700000099.M1P1.h,S=12:2,S", "Subject: 99\n\n9\n") }},
	"Courier": {kind: maildir.KindCourier, severity: maildir.SeverityError, left: true, do: func(f *fixture) {
		f.check(os.Remove(f.root + "/dovecot-uidlist"))
		f.check(os.Remove(f.root + "/dewey-uidvalidity"))
		f.put("courierimapuiddb", "garbage")
	}},

	"removed is a file": {kind: maildir.KindTrash, severity: maildir.SeverityError, left: true, do: func(f *fixture) { f.move("dewey-removed", "x"); f.put("dewey-removed", "") }},
	"another list":      {kind: maildir.KindTrash, severity: maildir.SeverityError, left: true, do: func(f *fixture) { f.put("dewey-removed/list", "x"+f.get("dewey-removed/list")) }},
	"list is a folder": {kind: maildir.KindTrash, severity: maildir.SeverityError, left: true, do: func(f *fixture) {
		f.move("dewey-removed/list", "x")
		f.check(os.Mkdir(f.root+"/dewey-removed/list", 0o700))
	}},
	"removed, bad line": {kind: maildir.KindTrashLine, severity: maildir.SeverityWarning, do: func(f *fixture) { f.put("dewey-removed/list", f.get("dewey-removed/list")+"garbage\n") }},
	"removed, file's line": {kind: maildir.KindTrashLine, severity: maildir.SeverityWarning, left: true, do: func(f *fixture) {
		f.put("dewey-removed/list", strings.Replace(f.get("dewey-removed/list"), "new", "old", 1))
	}},
	"removed, torn": {kind: maildir.KindTrashLine, severity: maildir.SeverityNote, do: func(f *fixture) { f.put("dewey-removed/list", f.get("dewey-removed/list")+"1234 17") }},
	"removed, twice": {kind: maildir.KindTrashTwice, severity: maildir.SeverityWarning, do: func(f *fixture) {
		head, lines, _ := strings.Cut(f.get("dewey-removed/list"), "\n")
		f.put("dewey-removed/list", head+"\n"+lines+lines)
	}},
	"removed, missing":       {kind: maildir.KindTrashMissing, severity: maildir.SeverityNote, left: true, do: func(f *fixture) { f.check(os.Remove(f.inTrash())) }},
	"removed, missing, drop": {kind: maildir.KindTrashMissing, severity: maildir.SeverityNote, opts: maildir.CheckOptions{DropMissing: true}, do: func(f *fixture) { f.check(os.Remove(f.inTrash())) }},
	"removed, stray":         {kind: maildir.KindTrashStray, severity: maildir.SeverityWarning, left: true, do: func(f *fixture) { f.put("dewey-removed/1700.stray", "Subject: stray\n") }},
	"removed, id": {kind: maildir.KindTrashID, severity: maildir.SeverityNote, left: true, do: func(f *fixture) {
		id := strings.Fields(f.get("dewey-removed/list"))[5]
		f.edit(func(l []string) []string { l[2] = strings.Replace(l[2], " ", " P"+id+" ", 1); return l })
	}},

	"lock is a link": {kind: maildir.KindLock, severity: maildir.SeverityError, left: true, do: func(f *fixture) { f.move("dewey.lock", "x"); f.check(os.Symlink("x", f.root+"/dewey.lock")) }},
	"stale lock": {kind: maildir.KindListLock, severity: maildir.SeverityWarning, do: func(f *fixture) {
		host, _ := os.Hostname()
		f.put("dovecot-uidlist.lock", "999999999:"+host)
	}},
	"lock of a list": {kind: maildir.KindListLock, severity: maildir.SeverityError, left: true, do: func(f *fixture) { f.check(os.Mkdir(f.root+"/dovecot-uidlist.lock", 0o700)) }},
	"temporary": {kind: maildir.KindTemporary, severity: maildir.SeverityNote, do: func(f *fixture) {
		f.put("dovecot-uidlist.tmp", "3 V1 N")
		f.put("dewey-uidvalidity.tmp", "")
		f.put("dewey-removed/list.tmp", "dewey")
	}},
	"over quota": {kind: maildir.KindQuota, severity: maildir.SeverityNote, left: true, do: func(f *fixture) { f.quota.Messages = 2 }},
}

func (f *fixture) any() string { return f.files["Subject: 2\n\nbody\n"] }

func (f *fixture) move(from, to string) {
	f.t.Helper()
	f.check(os.Rename(filepath.Join(f.root, from), filepath.Join(f.root, to)))
}

func (f *fixture) version1(validity, next uint32) {
	text := fmt.Sprintf("1 %d %d\n", validity, next)
	for _, r := range f.list().Records {
		text += fmt.Sprintf("%d %s\n", r.UID, r.Base)
	}
	f.put("dovecot-uidlist", text)
}

func (f *fixture) inTrash() string {
	f.t.Helper()
	found, err := filepath.Glob(f.root + "/dewey-removed/1*")
	f.check(err)
	return found[0]
}

// Each kind of damage is found without a change; what can be repaired is, and clients see what they saw; of the rest it
// is said what a person should do, and nothing is changed.
func TestCheckDamages(t *testing.T) {
	seen := map[maildir.Kind]bool{}
	for name, d := range damages {
		seen[d.kind] = true
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := sixMessages(t)
			f.owner.Life.Undelete = fortnight
			f.remove(6)
			if name == "a uid twice, P" { // which clients have seen
				f.edit(func(l []string) []string { l[4] = strings.Replace(l[4], " ", " Pown ", 1); return l })
				f.served()
				f.edit(func(l []string) []string { l[4] = strings.Replace(l[4], " Pown ", " ", 1); return l })
			}
			before := f.served()
			if name == "a uid twice, P" {
				before["Subject: 3\r\n\r\nbody\r\n"] = "own"
			}
			d.do(f)
			files, tree := f.stored(), f.tree()
			f.restart()
			got := f.checked(maildir.CheckOptions{Sizes: d.opts.Sizes})
			if diff := f.tree(); diff != tree {
				t.Fatalf("looking changed\n%s\nto\n%s", tree, diff)
			}
			if !slices.Contains(kinds(got), d.kind) || !slices.ContainsFunc(got.Problems, func(p maildir.Problem) bool {
				return p.Kind == d.kind && p.Severity == d.severity && p.What != "" && p.Advice != ""
			}) {
				t.Fatalf("found %v", got.Problems)
			}
			for _, p := range got.Problems {
				if p.Severity == maildir.SeverityError && d.severity < maildir.SeverityError {
					t.Errorf("an error too many: %v", p)
				}
			}
			d.opts.Repair = true
			got = f.checked(d.opts)
			if slices.Contains(kinds(got), d.kind) != d.left {
				t.Errorf("after the repair: %v", got.Problems)
			}
			if diff := f.stored(); !slices.Equal(diff, files) {
				t.Errorf("the messages are %q, and were %q", diff, files)
			}
			if d.left {
				return
			}
			if !slices.ContainsFunc(got.Problems, func(p maildir.Problem) bool { return p.Kind == d.kind && p.Repaired }) {
				t.Errorf("repaired, and it is not said: %v", got.Problems)
			}
			changed := 0
			for text, id := range f.served() {
				if before[text] != "" && before[text] != id {
					changed++
				}
			}
			if f.served() == nil || changed != d.changes {
				t.Errorf("%d unique-ids changed, want %d: %v, before %v\n%s", changed, d.changes, f.served(), before, f.log)
			}
			if got := f.checked(maildir.CheckOptions{Sizes: true}); got.Errors() > 0 || slices.Contains(kinds(got), d.kind) {
				t.Errorf("after a session: %v", got.Problems)
			}
		})
	}
	for _, k := range []maildir.Kind{maildir.KindInUse, maildir.KindRead, maildir.KindSharedValidity, maildir.KindTmp} {
		seen[k] = true // in tests of their own
	}
	if len(seen) != 41 {
		t.Errorf("%d kinds are tested", len(seen))
	}
}

// A Maildir that is not there, or is none, has no problem, and is not made.
func TestCheckNothing(t *testing.T) {
	f := newFixture(t)
	if got := f.checked(maildir.CheckOptions{Repair: true}); got.Maildirs != 0 || len(got.Problems) > 0 || exists(f.root) {
		t.Errorf("%+v", got)
	}
	f.put("notes.txt", "")
	if got := f.checked(maildir.CheckOptions{Repair: true}); got.Maildirs != 0 || len(got.Problems) > 0 || exists(f.root+"/new") {
		t.Errorf("%+v", got)
	}
	f.check(os.RemoveAll(f.root))
	f.check(os.WriteFile(f.root, nil, 0o600))
	if got := f.checked(maildir.CheckOptions{}); got.Errors() != 1 {
		t.Errorf("%+v", got)
	}
}

// Mail in which no session was yet is checked without a lock's being made, and so is one with removed and kept mail, and
// with folders; they have no problem.
func TestCheckHealthy(t *testing.T) {
	f := newFixture(t)
	f.deliver("Subject: new\n")
	f.put("cur/x", "")
	f.check(os.Remove(f.root + "/cur/x"))
	before := f.tree()
	if got := f.checked(maildir.CheckOptions{Sizes: true}); len(got.Problems) > 0 || got.Messages != 1 || got.Octets != 13 || f.tree() != before {
		t.Errorf("%+v", got)
	}
	f = sixMessages(t)
	f.owner.Life.Undelete = fortnight
	f.remove(1, 2)
	f.owner.Life.Deletion = maildrop.DeletionKeep
	f.remove(1)
	f.into(".Lists", "Subject: in a folder\n")
	f.put(".Lists/tmp/x", "")
	f.put(".git/config", "")
	f.owner.Life.Folders = []string{"Lists"}
	f.ids()
	before = f.tree()
	got := f.checked(maildir.CheckOptions{Sizes: true})
	if len(got.Problems) > 0 || got.Maildirs != 2 || got.Messages != 5 || got.Removed != 3 || f.tree() != before {
		t.Errorf("%+v", got)
	}
	if got := f.checked(maildir.CheckOptions{Sizes: true, Repair: true, DropMissing: true}); len(got.Problems) > 0 || f.tree() != before {
		t.Errorf("%+v", got)
	}
	if got := f.checked(maildir.CheckOptions{OwnAlone: true}); got.Maildirs != 1 {
		t.Errorf("%+v", got)
	}
	f.put(".Lists/dovecot-uidlist", f.get("dovecot-uidlist"))
	if got := f.checked(maildir.CheckOptions{}); !slices.Contains(kinds(got), maildir.KindSharedValidity) {
		t.Errorf("%+v", got)
	}
}

// A session goes on undisturbed beside a check, which says that it could not look.
func TestCheckBesideSession(t *testing.T) {
	f := sixMessages(t)
	d := f.open()
	f.edit(func(l []string) []string { return swap(l, 2, 3) })
	other := f.newStore(maildir.Options{}) // as that of another process
	for _, store := range []*maildir.Store{f.store, other} {
		for _, opts := range []maildir.CheckOptions{{}, {Repair: true, Wait: time.Millisecond}} {
			got, err := store.Check(t.Context(), f.owner, opts)
			if err != nil || got.Busy != 1 || !slices.Equal(kinds(got), []maildir.Kind{maildir.KindInUse}) {
				t.Errorf("%+v, %v", got, err)
			}
		}
	}
	if got := f.read(d, 2); got != "Subject: 1\r\n\r\nbody\r\n" {
		t.Errorf("%q", got)
	}
	f.close(d)
	if got := f.checked(maildir.CheckOptions{Repair: true}); got.Busy > 0 || got.Errors() > 0 {
		t.Errorf("%+v", got)
	}
	// Nor does another program, which writes the list.
	f.put("dovecot-uidlist.lock", "")
	f.put("dovecot-uidlist", strings.TrimSuffix(f.get("dovecot-uidlist"), "\n"))
	before := f.tree()
	if got := f.checked(maildir.CheckOptions{}); got.Busy != 1 || f.tree() != before {
		t.Errorf("%+v", got)
	}
	if got, err := f.store.Check(t.Context(), f.owner, maildir.CheckOptions{Repair: true}); got.Busy != 1 || err != nil || f.tree() != before {
		t.Errorf("%+v, %v", got, err)
	}
}
