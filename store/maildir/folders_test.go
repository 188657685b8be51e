package maildir_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"dewey/maildrop"
	"dewey/maildrop/maildroptest"
	"dewey/store/maildir"
)

// into adds a message to a folder, which is made if it is not there; "" is the owner's own Maildir.
func (f *fixture) into(disk, content string) {
	f.t.Helper()
	for _, sub := range []string{"tmp", "new", "cur"} {
		f.check(os.MkdirAll(filepath.Join(f.root, disk, sub), 0o700))
	}
	f.serial++
	f.put(fmt.Sprintf("%s/new/%d.M%dP1.host", disk, 1700000000+f.serial, f.serial), content)
}

// seen opens the maildrop with folders and returns unique-ids by contents, and the contents in their order.
func (f *fixture) seen(owner maildrop.Owner) (ids map[string]string, contents []string) {
	f.t.Helper()
	d, err := f.store.Open(f.t.Context(), owner)
	if err != nil {
		f.t.Fatalf("Open of %+v: %v", owner, err)
	}
	defer f.close(d)
	ids = map[string]string{}
	for i, m := range d.Messages() {
		content := strings.TrimSpace(f.read(d, i+1))
		if sent, body, err := d.Retrieve(f.t.Context(), i+1); err != nil || sent.UID != m.UID || body.Close() != nil {
			f.t.Errorf("message %d is %+v, listed as %+v, %v", i+1, sent, m, err)
		}
		ids[content], contents = m.UID, append(contents, content)
	}
	if n := len(slices.Compact(slices.Sorted(func(yield func(string) bool) {
		for _, m := range d.Messages() {
			if !maildrop.ValidUID(m.UID) {
				f.t.Errorf("unique-id %q", m.UID)
			}
			yield(m.UID)
		}
	}))); n != len(contents) {
		f.t.Errorf("%d unique-ids for %d messages", n, len(contents))
	}
	return ids, contents
}

func including(folders ...string) maildrop.Owner {
	return maildrop.Owner{Life: maildrop.Life{Folders: folders}}
}

func viewing(folder string, included ...string) maildrop.Owner {
	return maildrop.Owner{Life: maildrop.Life{Folders: included}, View: maildrop.View{Folder: folder}}
}

func (f *fixture) want(owner maildrop.Owner, want ...string) {
	f.t.Helper()
	if _, got := f.seen(owner); !slices.Equal(got, want) {
		f.t.Errorf("%+v %+v: messages %q, want %q", owner.Life.Folders, owner.View, got, want)
	}
}

func TestFolders(t *testing.T) {
	f := newFixture(t)
	f.into("", "own")
	f.into(".Spam", "spam")
	f.into(".Lists.dewey", "list")
	f.into(".Entw&APw-rfe", "draft")
	f.into(".Entwürfe", "not this one") // that in modified UTF-7 goes first
	f.into(".Gelöscht", "deleted")      // Dovecot with names in UTF-8
	f.into(".Gr&APw-n", "green")
	f.into(".R&-D", "research")
	f.into(".TWICE", "twice")
	f.into(".Twice", "Twice")
	f.into(".&ZeVnLIqe-", "日本語")
	f.want(maildrop.Owner{}, "own")
	f.want(including(), "own")
	f.want(including("Spam"), "own", "spam")
	f.want(including("Lists/dewey", "None", "Spam"), "own", "list", "spam")
	f.want(including("spam", "Spam", "inbox", "SPAM", "Entwürfe", "../Spam", "日本語"), "own", "spam", "draft", "日本語")
	f.want(including("twice", "Twice", "Gelöscht", "r&d", "LISTS/Dewey"), "own", "Twice", "deleted", "research", "list")
	for folder, want := range map[string]string{
		"INBOX": "own", "inbox": "own", "Spam": "spam", "sPAM": "spam", "lists/DEWEY": "list", "gRüN": "green",
		"gelöscht": "deleted", "TWICE": "twice", "R&d": "research", "日本語": "日本語",
	} {
		f.want(viewing(folder, "Spam", "Lists/dewey"), want)
	}
	for _, folder := range []string{
		"None", "Lists", "twice", "Spam/new", "", "/", "..", ".", "../Maildir", "new", "Lists.dewey", ".Spam", "Spam\x00", "\xff",
		"ENTWürfe", "GRÜN", "&zEvNliQE-", strings.Repeat("x", 300),
	} {
		if folder == "" {
			continue // asks for none
		}
		if d, err := f.store.Open(t.Context(), viewing(folder)); !errors.Is(err, maildrop.ErrNoFolder) || d != nil {
			t.Errorf("View of %q: %v, want ErrNoFolder", folder, err)
		}
	}
	for _, name := range []string{".None", ".Lists", ".twice"} {
		if exists(filepath.Join(f.root, name)) {
			t.Errorf("%s was made", name)
		}
	}
	roots, names, err := f.store.Boxes(including("Spam", "None", "LISTS/dewey"))
	f.check(err)
	if want := []string{f.root, filepath.Join(f.root, ".Spam"), filepath.Join(f.root, ".Lists.dewey")}; !slices.Equal(roots, want) ||
		!slices.Equal(names, []string{"", "Spam", "LISTS/dewey"}) {
		t.Errorf("boxes %q, %q, want %q", roots, names, want)
	}
}

// Nothing is made for who asks for a folder and has no Maildir.
func TestFoldersMakeNothing(t *testing.T) {
	f := newFixture(t)
	if _, err := f.store.Open(t.Context(), viewing("Spam")); !errors.Is(err, maildrop.ErrNoFolder) {
		t.Errorf("Open: %v, want ErrNoFolder", err)
	}
	if roots, _, err := f.store.Boxes(including("Spam")); len(roots) > 0 || err != nil {
		t.Errorf("boxes %q, %v", roots, err)
	}
	if exists(f.root) {
		t.Errorf("%s was made", f.root)
	}
}

// What is no folder itself is none; one whose mail is away for now is not left out without a word (trap 19).
func TestFoldersThatAreNone(t *testing.T) {
	f := newFixture(t)
	f.into("", "own")
	f.into("../elsewhere", "of somebody else")
	f.check(os.Symlink("../elsewhere", filepath.Join(f.root, ".Link")))
	f.put(".File", "x")
	f.check(os.MkdirAll(filepath.Join(f.root, ".Empty"), 0o700))
	f.check(os.MkdirAll(filepath.Join(f.root, ".Half", "new"), 0o700))
	f.want(including("Link", "File", "Empty", "Half"), "own")
	for _, folder := range []string{"Link", "link", "File", "Empty", "Half"} {
		if _, err := f.store.Open(t.Context(), viewing(folder)); !errors.Is(err, maildrop.ErrNoFolder) {
			t.Errorf("View of %q: %v, want ErrNoFolder", folder, err)
		}
	}
	f.into(".Spam", "spam")
	f.want(including("Spam"), "own", "spam")
	f.check(os.Rename(filepath.Join(f.root, ".Spam", "cur"), filepath.Join(f.root, ".Spam", "away")))
	for _, owner := range []maildrop.Owner{including("Spam"), viewing("Spam"), including("spam")} {
		if _, err := f.store.Open(t.Context(), owner); err == nil || errors.Is(err, maildrop.ErrNoFolder) || !strings.Contains(err.Error(), ".Spam") {
			t.Errorf("Open: %v, want an error that names the folder", err)
		}
	}
	f.want(maildrop.Owner{}, "own") // the lock is free
}

// A folder that can't be served refuses the login as the own Maildir does, and holds nothing.
func TestFolderIsDamaged(t *testing.T) {
	for name, c := range map[string]struct {
		damage func(f *fixture)
		want   func(error) bool
	}{
		"list": {
			func(f *fixture) { f.put(".Spam/dovecot-uidlist", "no list\n") },
			func(err error) bool { return errors.Is(err, maildrop.ErrDamaged) },
		},
		"other ids": { // trap 23
			func(f *fixture) { f.put(".Spam/dovecot-uidlist", "3 V5 N9\n") },
			func(err error) bool { return strings.Contains(err.Error(), "would change") },
		},
		"cur": {
			func(f *fixture) {
				f.check(os.Rename(filepath.Join(f.root, ".Spam/cur"), filepath.Join(f.root, ".Spam/elsewhere")))
				f.check(os.Symlink("elsewhere", filepath.Join(f.root, ".Spam/cur")))
			},
			func(err error) bool { return errors.Is(err, maildrop.ErrDamaged) },
		},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t)
			f.into("", "own")
			f.into(".Lists", "list")
			for i := range 60 { // so many that the guard minds
				f.into(".Spam", fmt.Sprint("spam", i))
			}
			owner := including("Lists", "Spam")
			f.seen(owner)
			c.damage(f)
			f.restart()
			for _, owner := range []maildrop.Owner{owner, viewing("Spam")} {
				if d, err := f.store.Open(t.Context(), owner); err == nil || !c.want(err) || !strings.Contains(err.Error(), ".Spam") {
					t.Errorf("Open: %v, %v", d, err)
				}
			}
			f.want(including("Lists"), "own", "list")
			f.check(os.RemoveAll(filepath.Join(f.root, ".Spam")))
			f.want(owner, "own", "list")
		})
	}
}

// A message in a folder is removed there and nowhere else, also if others have its uid; and what fails in one folder
// leaves the others alone.
func TestFoldersRemove(t *testing.T) {
	f := newFixture(t)
	for _, disk := range []string{"", ".Spam", ".Lists"} {
		for i := range 3 {
			f.into(disk, fmt.Sprint(disk, i))
		}
	}
	owner := including("Spam", "Lists")
	d, err := f.store.Open(t.Context(), owner)
	f.check(err)
	if err := d.Remove(t.Context(), []int{2, 10}); !errors.Is(err, maildrop.ErrNoMessage) {
		t.Errorf("Remove: %v, want ErrNoMessage", err)
	}
	f.check(d.Remove(t.Context(), []int{5, 9}))
	f.close(d)
	f.want(owner, "0", "1", "2", ".Spam0", ".Spam2", ".Lists0", ".Lists1")
	d, err = f.store.Open(t.Context(), owner)
	f.check(err)
	broken := errors.New("broken")
	f.store.SetFault(func(op, path string) error {
		if op == "unlink" && strings.Contains(path, ".Spam") {
			return broken
		}
		return nil
	})
	if err := d.Remove(t.Context(), []int{1, 4, 6}); !errors.Is(err, broken) {
		t.Errorf("Remove: %v, want that it is broken", err)
	}
	f.close(d)
	f.store.SetFault(nil)
	f.want(owner, "1", "2", ".Spam0", ".Spam2", ".Lists1")
	f.want(viewing("Spam"), ".Spam0", ".Spam2")
}

// Sessions that see a folder together with others, in any order, and alone: one at a time has it, none waits for ever.
func TestFoldersAtOnce(t *testing.T) {
	f := newFixture(t)
	for _, disk := range []string{"", ".A", ".B"} {
		f.into(disk, disk)
	}
	f.seen(including("A", "B"))
	for name, stores := range map[string][]*maildir.Store{
		"one process":   {f.store},
		"two processes": {f.newStore(maildir.Options{LockWait: 5 * time.Millisecond}), f.newStore(maildir.Options{LockWait: -1})},
	} {
		t.Run(name, func(t *testing.T) {
			owners := []maildrop.Owner{including("A", "B"), including("B", "A"), viewing("A", "A", "B"), viewing("B"), viewing("INBOX")}
			held := map[string]*sync.Mutex{"": {}, ".A": {}, ".B": {}}
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			var wg sync.WaitGroup
			var mu sync.Mutex
			opened, inUse := 0, 0
			for g := range 20 {
				wg.Go(func() {
					for i := range 50 {
						d, err := stores[g%len(stores)].Open(ctx, owners[(g+i)%len(owners)])
						mu.Lock()
						if err == nil {
							opened++
						} else {
							inUse++
						}
						mu.Unlock()
						if errors.Is(err, maildrop.ErrInUse) {
							continue
						}
						if err != nil {
							t.Errorf("Open: %v", err)
							return
						}
						var mine []*sync.Mutex
						for n := range d.Messages() {
							_, body, err := d.Retrieve(ctx, n+1)
							if err != nil {
								t.Errorf("Retrieve: %v", err)
								continue
							}
							content := make([]byte, 2)
							k, _ := body.Read(content)
							_ = body.Close()
							if m := held[strings.TrimSpace(string(content[:k]))]; m.TryLock() {
								mine = append(mine, m)
							} else {
								t.Errorf("two sessions have %q", content[:k])
							}
						}
						for _, m := range mine {
							m.Unlock()
						}
						_ = d.Close()
					}
				})
			}
			wg.Wait()
			if opened == 0 || inUse == 0 {
				t.Errorf("%d opened, %d refused", opened, inUse)
			}
			f.want(including("A", "B"), "", ".A", ".B")
		})
	}
}

// A folder that goes while a session is being opened is not there; one that stays is not left out.
func TestFolderVanishes(t *testing.T) {
	f := newFixture(t)
	for _, disk := range []string{"", ".A", ".B", ".C"} {
		f.into(disk, "in "+disk)
	}
	f.seen(including("A", "B", "C"))
	for _, when := range []string{"readdir .A/new", "readdir .B/new", "readlist .B/dovecot-uidlist"} {
		f.restart()
		gone := false
		f.store.SetTrace(func(op, path string) {
			if name, _ := filepath.Rel(f.root, path); op+" "+name == when && !gone {
				gone = true
				f.check(os.Rename(filepath.Join(f.root, ".B"), filepath.Join(f.root, "..DOVECOT-TRASHED"))) // as Dovecot does
			}
		})
		_, got := f.seen(including("A", "B", "C"))
		if want := []string{"in", "in .A", "in .C"}; when != "readlist .B/dovecot-uidlist" && !slices.Equal(got, want) {
			t.Errorf("%s: messages %q, want %q", when, got, want)
		}
		f.check(os.Rename(filepath.Join(f.root, "..DOVECOT-TRASHED"), filepath.Join(f.root, ".B")))
		f.store.SetTrace(nil)
		f.want(including("A", "B", "C"), "in", "in .A", "in .B", "in .C")
	}
	f.restart()
	f.store.SetTrace(func(op, path string) {
		if op == "readdir" && strings.HasSuffix(path, ".B/new") {
			f.check(os.RemoveAll(filepath.Join(f.root, ".B")))
		}
	})
	if _, err := f.store.Open(t.Context(), viewing("B")); !errors.Is(err, maildrop.ErrNoFolder) {
		t.Errorf("View of a folder that goes: %v, want ErrNoFolder", err)
	}
}

// What is put together from a Maildir and its folders passes the suite that every store passes, whichever the mail is
// delivered to.
func TestFoldersAreAMaildrop(t *testing.T) {
	maildroptest.Run(t, func(t maildroptest.TB) maildroptest.Maildrop {
		f := newFixture(t)
		owner := including("Spam", "Lists/dewey")
		disks := []string{".Spam", "", ".Lists.dewey"}
		f.into(".Lists.dewey", "x")
		f.check(os.RemoveAll(filepath.Join(f.root, ".Lists.dewey", "new")))
		f.check(os.Mkdir(filepath.Join(f.root, ".Lists.dewey", "new"), 0o700))
		paths := map[string]string{}
		return maildroptest.Maildrop{
			Store: f.store,
			Owner: owner,
			Deliver: func(_ maildroptest.TB, stored []byte) {
				f.into(disks[f.serial%3], string(stored))
				found, err := filepath.Glob(filepath.Join(f.root, disks[(f.serial-1)%3], "new", fmt.Sprintf("*.M%dP1.host", f.serial)))
				if err != nil || len(found) != 1 {
					t.Fatalf("%q, %v", found, err)
				}
				paths[string(stored)] = found[0]
			},
			Expunge: func(t maildroptest.TB, stored []byte, _ string) {
				if err := os.Remove(paths[string(stored)]); err != nil && !errors.Is(err, fs.ErrNotExist) {
					t.Error(err)
				}
			},
			Restart: func(_ maildroptest.TB, open maildrop.Maildrop) maildrop.Store {
				if open != nil {
					_ = open.Close()
				}
				f.restart()
				return f.store
			},
		}
	})
}
