package maildir_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
	"pgregory.net/rapid"

	"dewey/maildrop"
	"dewey/maildrop/maildroptest"
	"dewey/store/maildir"
	"dewey/store/maildir/uidlist"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// A fixture is a Maildir in a folder of its own, and what others do to it.
type fixture struct {
	t      maildroptest.TB
	root   string
	store  *maildir.Store
	log    *logBuffer
	serial int
	files  map[string]string // stored content → base name
	random func(n int) int   // which of n: drawn in random tests, else always the first
	clock  time.Time         // unless zero: the time of the last change, see trustTimes
	quota  maildrop.Quota
	owner  maildrop.Owner
}

type logBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func newFixture(t maildroptest.TB) *fixture {
	parent, err := os.MkdirTemp("", "maildir")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(parent) })
	f := &fixture{t: t, root: filepath.Join(parent, "home", "Maildir"), log: new(logBuffer), files: map[string]string{}}
	f.random = func(int) int { return 0 }
	f.restart()
	return f
}

// restart makes a Store that knows nothing of the earlier one's memory.
func (f *fixture) restart() {
	f.store = f.newStore(maildir.Options{LockWait: -1})
	if !f.clock.IsZero() {
		f.store.SetSettle(-1 << 62)
	}
}

// trustTimes makes the Store believe the times of files however young they are, and gives each change
// that the fixture makes a time of its own, so that this is sound.
func (f *fixture) trustTimes() {
	f.clock = time.Now().Add(-1000 * time.Hour)
	f.restart()
}

// changed gives what the fixture has changed a time of its own.
func (f *fixture) changed() {
	f.t.Helper()
	if f.clock.IsZero() {
		return
	}
	for _, name := range []string{"new", "cur"} {
		f.clock = f.clock.Add(time.Second)
		if path := filepath.Join(f.root, name); exists(path) {
			f.check(os.Chtimes(path, f.clock, f.clock))
		}
	}
}

func (f *fixture) newStore(o maildir.Options) *maildir.Store {
	o.Path = func(maildrop.Owner) (string, error) { return f.root, nil }
	o.Logger = slog.New(slog.NewTextHandler(f.log, nil))
	o.Quota = func() maildrop.Quota { return f.quota }
	return maildir.New(o)
}

func (f *fixture) open() maildrop.Maildrop {
	f.t.Helper()
	d, err := f.store.Open(f.t.Context(), f.owner)
	if err != nil {
		f.t.Fatalf("Open: %v", err)
	}
	return d
}

// ids opens the Maildir and returns its unique-ids.
func (f *fixture) ids() []string {
	f.t.Helper()
	d := f.open()
	defer f.close(d)
	return uids(d)
}

func uids(d maildrop.Maildrop) []string {
	var ids []string
	for _, m := range d.Messages() {
		ids = append(ids, m.UID)
	}
	return ids
}

func (f *fixture) close(d maildrop.Maildrop) {
	f.t.Helper()
	if err := d.Close(); err != nil {
		f.t.Errorf("Close: %v", err)
	}
}

func (f *fixture) check(err error) {
	f.t.Helper()
	if err != nil {
		f.t.Fatal(err)
	}
}

// put writes a file of the Maildir.
func (f *fixture) put(name, content string) {
	f.t.Helper()
	path := filepath.Join(f.root, name)
	f.check(os.MkdirAll(filepath.Dir(path), 0o700))
	f.check(os.WriteFile(path, []byte(content), 0o600))
}

func (f *fixture) get(name string) string {
	f.t.Helper()
	b, err := os.ReadFile(filepath.Join(f.root, name))
	f.check(err)
	return string(b)
}

// list is the list on disk.
func (f *fixture) list() *uidlist.List {
	f.t.Helper()
	l, err := uidlist.Parse(strings.NewReader(f.get("dovecot-uidlist")))
	f.check(err)
	return l
}

// deliver adds a message as a delivery agent does, and returns its base name.
func (f *fixture) deliver(content string) string {
	f.t.Helper()
	f.serial++
	base := fmt.Sprintf("%d.M%dP1.host", 1700000000+f.serial/2, f.serial)
	f.put("tmp/"+base, content)
	f.check(os.MkdirAll(filepath.Join(f.root, "new"), 0o700))
	f.check(os.Rename(filepath.Join(f.root, "tmp", base), filepath.Join(f.root, "new", base)))
	f.files[content] = base
	f.changed()
	return base
}

// find returns the path of the file with a base name.
func (f *fixture) find(base string) string {
	f.t.Helper()
	for _, dir := range []string{"new", "cur"} {
		entries, err := os.ReadDir(filepath.Join(f.root, dir))
		f.check(err)
		for _, e := range entries {
			if uidlist.Base(e.Name()) == base {
				return filepath.Join(f.root, dir, e.Name())
			}
		}
	}
	f.t.Fatalf("no file %s", base)
	return ""
}

// flag moves a message to cur/ with the given flags, as an IMAP server does.
func (f *fixture) flag(base, flags string) {
	f.t.Helper()
	f.check(os.MkdirAll(filepath.Join(f.root, "cur"), 0o700))
	f.check(os.Rename(f.find(base), filepath.Join(f.root, "cur", base+":2,"+flags)))
	f.changed()
}

// disturb does one of the things that others do.
func (f *fixture) disturb() {
	bases := slices.Sorted(func(yield func(string) bool) {
		for _, dir := range []string{"new", "cur"} {
			entries, _ := os.ReadDir(filepath.Join(f.root, dir))
			for _, e := range entries {
				if !yield(uidlist.Base(e.Name())) {
					return
				}
			}
		}
	})
	if len(bases) == 0 {
		return
	}
	flags := []string{"", "S", "RS", "T"}[f.random(4)]
	switch f.random(3) {
	case 0:
		f.flag(bases[f.random(len(bases))], flags)
	case 1:
		for _, base := range bases {
			f.flag(base, flags)
		}
	case 2: // Dovecot writes the list anew
		if path := filepath.Join(f.root, "dovecot-uidlist"); exists(path) {
			f.put("dovecot-uidlist.other", string(f.list().Append(nil)))
			f.check(os.Rename(path+".other", path))
			f.changed()
		}
	}
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

// fsck is the full check of what is on disk.
func (f *fixture) fsck() {
	f.t.Helper()
	path := filepath.Join(f.root, "dovecot-uidlist")
	if !exists(path) {
		return
	}
	l := f.list()
	if len(l.Faults) > 0 || l.Torn || l.Version != 3 {
		f.t.Errorf("the list is left with faults: %+v", l)
	}
	if got, want := f.get("dovecot-uidlist"), string(l.Append(nil)); !strings.HasSuffix(got, want[strings.IndexByte(want, '\n'):]) {
		f.t.Errorf("the list is not in its usual form:\n%s", got)
	}
	known := map[string]uidlist.Record{}
	for _, r := range l.Records {
		if r.UID >= l.Next {
			f.t.Errorf("uid %d is not below the next uid %d", r.UID, l.Next)
		}
		known[r.Base] = r
	}
	for _, dir := range []string{"new", "cur"} {
		entries, err := os.ReadDir(filepath.Join(f.root, dir))
		f.check(err)
		for _, e := range entries {
			r, ok := known[uidlist.Base(e.Name())]
			if !ok {
				f.t.Errorf("%s is not in the list", e.Name())
				continue
			}
			content, err := os.ReadFile(filepath.Join(f.root, dir, e.Name()))
			f.check(err)
			w, _ := r.GetOctets('W')
			e, _ := r.GetOctets('E')
			if want := int64(len(maildroptest.Wire(content))); w+e != want {
				f.t.Errorf("record %+v: W and E are %d octets, want %d", r, w+e, want)
			}
		}
	}
	for _, name := range []string{"dovecot-uidlist.lock", "dovecot-uidlist.tmp", "dewey-uidvalidity.tmp"} {
		if exists(filepath.Join(f.root, name)) {
			f.t.Errorf("%s is left over", name)
		}
	}
}

// baseOf is the base name of the message that the list gives a unique-id.
func (f *fixture) baseOf(uid string) string {
	f.t.Helper()
	l := f.list()
	for i := range l.Records {
		if rec := &l.Records[i]; rec.UniqueID(l.Validity) == uid {
			return rec.Base
		}
	}
	f.t.Fatalf("no message has the unique-id %q", uid)
	return ""
}

func (f *fixture) suite() maildroptest.Maildrop {
	return maildroptest.Maildrop{
		Store:   f.store,
		Owner:   f.owner,
		Deliver: func(_ maildroptest.TB, stored []byte) { f.deliver(string(stored)) },
		Expunge: func(_ maildroptest.TB, stored []byte, uid string) {
			base, delivered := f.files[string(stored)]
			if !delivered {
				base = f.baseOf(uid)
			}
			f.check(os.Remove(f.find(base)))
			f.changed()
		},
		Disturb: func(maildroptest.TB) { f.disturb() },
		Restart: func(_ maildroptest.TB, open maildrop.Maildrop) maildrop.Store {
			if open != nil {
				maildir.Kill(open)
			}
			f.restart()
			return f.store
		},
		Check: func(maildroptest.TB) { f.fsck() },
	}
}

func TestStore(t *testing.T) {
	maildroptest.Run(t, func(t maildroptest.TB) maildroptest.Maildrop {
		f := newFixture(t)
		if rt, ok := t.(*rapid.T); ok {
			f.random = func(n int) int { return rapid.IntRange(0, n-1).Draw(rt, "choice") }
		}
		return f.suite()
	})
}

// read retrieves message n whole.
func (f *fixture) read(d maildrop.Maildrop, n int) string {
	f.t.Helper()
	m, body, err := d.Retrieve(f.t.Context(), n)
	if err != nil {
		f.t.Fatalf("Retrieve(%d): %v", n, err)
	}
	got, err := io.ReadAll(body)
	if err != nil {
		f.t.Errorf("reading message %d: %v", n, err)
	}
	f.check(body.Close())
	if int64(len(got)) != m.Octets {
		f.t.Errorf("message %d came with %d octets, %d were announced", n, len(got), m.Octets)
	}
	return string(got)
}

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
