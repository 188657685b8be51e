package maildir_test

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"dewey/internal/popwire"
	"dewey/maildrop"
	"dewey/maildrop/maildroptest"
	"dewey/store/maildir"
)

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
	for name, way := range ways {
		t.Run(name, func(t *testing.T) { fileIsCut(t, way) })
	}
}

// ways are those in which a message's octets are had; in these there is nothing to be byte-stuffed.
var ways = map[string]func(io.Reader) io.Reader{
	"plain":   func(r io.Reader) io.Reader { return r },
	"stuffed": func(r io.Reader) io.Reader { return stuffed{r.(popwire.StuffedReader)} },
}

type stuffed struct{ r popwire.StuffedReader }

func (s stuffed) Read(p []byte) (int, error) {
	n, _, err := s.r.ReadStuffed(p)
	return n, err
}

func fileIsCut(t *testing.T, way func(io.Reader) io.Reader) {
	f := newFixture(t)
	content := "Subject: x\n\n" + strings.Repeat("line\n", 100_000)
	f.deliver(content)
	path := f.find(f.files[content])
	d := f.open()
	defer f.close(d)
	_, body, err := d.Retrieve(t.Context(), 1)
	f.check(err)
	_, err = io.ReadFull(way(body), make([]byte, 1000))
	f.check(err)
	f.check(os.Truncate(path, 100_000))
	if _, err := io.ReadAll(way(body)); !errors.Is(err, io.ErrUnexpectedEOF) {
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
	got, err := io.ReadAll(way(body))
	f.check(errors.Join(err, body.Close()))
	if string(got) != string(maildroptest.Wire([]byte(content[:100_000]))) {
		t.Errorf("%d octets came of a file that grew", len(got))
	}
}

// A file that was edited, its size the same, is found out while it is read, and then measured again.
func TestTrap11EditedFile(t *testing.T) {
	for _, edited := range []string{"\n\n\nabc", "a b c "} {
		for name, way := range ways {
			t.Run(name, func(t *testing.T) { edit(t, edited, way) })
		}
	}
}

func edit(t *testing.T, edited string, way func(io.Reader) io.Reader) {
	f := newFixture(t)
	const content = "a\nb cd"
	f.deliver(content)
	f.ids()
	f.put("new/"+f.files[content], edited)
	d := f.open()
	_, body, err := d.Retrieve(t.Context(), 1)
	f.check(err)
	if _, err := io.ReadAll(way(body)); err == nil {
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
