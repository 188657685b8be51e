package maildir_test

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"dewey/maildrop"
)

// tree is what is in a folder, with contents and times.
func tree(t *testing.T, root string) string {
	t.Helper()
	var b strings.Builder
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		text, _ := os.ReadFile(path)
		st, err := os.Lstat(path)
		if err == nil {
			b.WriteString(path + " " + st.ModTime().String() + " " + string(text) + "\n")
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// A user puts, time and again, a link to another user's Maildir in the place of his folder, and of the folders in his
// Maildir: of the other's mail he sees, removes and brings back nothing, and nothing is made or changed there.
func TestSwappedFolders(t *testing.T) {
	for _, swapped := range []string{".Spam", "new", "cur", "dewey-removed", ".Spam/new", ".Spam/dewey-removed"} {
		t.Run(swapped, func(t *testing.T) {
			f := newFixture(t)
			f.store.SetSettle(time.Nanosecond)
			f.owner = maildrop.Owner{Life: maildrop.Life{Undelete: fortnight, Folders: []string{"Spam"}}}
			other := filepath.Join(filepath.Dir(f.root), "other")
			for _, root := range []string{f.root, other} {
				text := "Subject: " + filepath.Base(root) + "\n"
				for _, sub := range []string{"", ".Spam/"} {
					for _, name := range []string{"new/17000001.M1P1.host", "cur/17000002.M2P1.host:2,S", "dewey-removed/17000003.M3P1.host"} {
						path := filepath.Join(root, sub, name)
						f.check(os.MkdirAll(filepath.Dir(path), 0o700))
						f.check(os.WriteFile(path, []byte(text), 0o600))
					}
					list := "dewey-removed 1\n" + "1795400728 17000003.M3P1.host new gone" + strings.Trim(sub, "./") + " :17000003.M3P1.host\n"
					f.check(os.WriteFile(filepath.Join(root, sub, "dewey-removed/list"), []byte(list), 0o600))
				}
			}
			before := tree(t, other)
			link, at := filepath.Join(f.root, "swap"), filepath.Join(f.root, swapped)
			f.check(os.Symlink(filepath.Join(other, swapped), link))
			stop, done := make(chan struct{}), make(chan struct{})
			go func() {
				defer close(done)
				for {
					select {
					case <-stop:
						return
					default:
						_ = unix.Renameat2(unix.AT_FDCWD, link, unix.AT_FDCWD, at, unix.RENAME_EXCHANGE)
					}
				}
			}()
			foreign := func(what string, body io.ReadCloser, err error) {
				if err != nil {
					return // it may be gone
				}
				text, _ := io.ReadAll(body)
				f.check(body.Close())
				if strings.Contains(string(text), "other") {
					t.Errorf("%s: mail of the other is read", what)
				}
			}
			opened := 0
			for i := range 60 {
				owner := f.owner
				if i%2 == 1 {
					owner.View.Folder = "Spam"
				}
				d, err := f.store.Open(t.Context(), owner)
				if err == nil {
					opened++
					for n := range d.Messages() {
						_, body, err := d.Retrieve(t.Context(), n+1)
						foreign("Retrieve", body, err)
					}
					if n := len(d.Messages()); n > 0 {
						_ = d.Remove(t.Context(), []int{1 + i%n})
					}
					_ = d.Close()
				}
				list, _ := f.store.Removed(t.Context(), owner)
				for _, r := range list {
					body, err := f.store.OpenRemoved(t.Context(), owner, r)
					foreign("OpenRemoved", body, err)
				}
				_, _ = f.store.Sweep(t.Context(), owner, time.Now().Add(time.Hour))
				_, _ = f.store.Restore(t.Context(), owner, all)
			}
			close(stop)
			<-done
			if opened == 0 {
				t.Error("no login succeeded")
			}
			if after := tree(t, other); after != before {
				t.Errorf("the other's mail was\n%s\nand is\n%s", before, after)
			}
		})
	}
}

// A folder that has become another one since it was found is not gone on with; one that is the same is.
func TestSwappedFolderLook(t *testing.T) {
	f := newFixture(t)
	f.into(".Spam", "mine")
	f.into(".Other", "other")
	look, err := f.store.Look(t.Context(), viewing("Spam"))
	f.check(err)
	_, body, err := look.Retrieve(t.Context(), 1)
	f.check(err)
	text, _ := io.ReadAll(body)
	f.check(body.Close())
	if string(text) != "mine\r\n" && string(text) != "mine" {
		t.Errorf("%q", text)
	}
	names := f.folder(".Other/new")
	f.check(os.Rename(filepath.Join(f.root, ".Other/new", names[0]), filepath.Join(f.root, ".Other/new", f.folder(".Spam/new")[0])))
	f.check(unix.Renameat2(unix.AT_FDCWD, filepath.Join(f.root, ".Spam"), unix.AT_FDCWD, filepath.Join(f.root, ".Other"), unix.RENAME_EXCHANGE))
	if _, _, err := look.Retrieve(t.Context(), 1); err == nil || errors.Is(err, maildrop.ErrDamaged) {
		t.Errorf("a message of another folder is served: %v", err)
	}
	if open := openFiles(t); slices.ContainsFunc(open, func(path string) bool { return strings.HasPrefix(path, f.root) }) {
		t.Errorf("descriptors are left open: %q", open)
	}
}

// openFiles are the paths that this process has open.
func openFiles(t *testing.T) (paths []string) {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if path, err := os.Readlink("/proc/self/fd/" + e.Name()); err == nil {
			paths = append(paths, path)
		}
	}
	return paths
}
