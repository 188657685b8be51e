package maildir_test

import (
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// What root makes in somebody's folder is his, parents and files too, whether a login makes it or a delivery; what is made in
// root's own stays root's.
func TestMadeForTheOwnerAbove(t *testing.T) {
	for name, make := range map[string]func(*fixture){
		"a login":    func(f *fixture) { f.ids() },
		"a delivery": func(f *fixture) { f.deposit("Subject: x\r\n") },
	} {
		f := newFixture(t)
		home := filepath.Dir(f.root)
		f.check(os.MkdirAll(home, 0o700))
		uid, gid := uint32(os.Getuid()), uint32(os.Getgid())
		if uid == 0 {
			uid, gid = 65534, 65533
			f.check(os.Chown(home, int(uid), int(gid)))
		}
		f.root = filepath.Join(home, "example.org", "mrose", "Maildir")
		make(f)
		seen := 0
		f.check(filepath.WalkDir(filepath.Join(home, "example.org"), func(path string, _ fs.DirEntry, err error) error {
			f.check(err)
			var st unix.Stat_t
			f.check(unix.Lstat(path, &st))
			if st.Uid != uid || st.Gid != gid || st.Mode&0o777&^0o700 != 0 {
				t.Errorf("%s: %s belongs to %d:%d with mode %o, want %d:%d", name, path, st.Uid, st.Gid, st.Mode, uid, gid)
			}
			seen++
			return nil
		}))
		if seen < 6 {
			t.Errorf("%s: %d files and folders", name, seen)
		}
	}
	f := newFixture(t)
	f.root = filepath.Join(filepath.Dir(f.root), "none", "Maildir")
	f.check(os.MkdirAll(filepath.Dir(filepath.Dir(f.root)), 0o700))
	f.check(os.WriteFile(filepath.Dir(f.root), nil, 0o600))
	if err := f.tryDeposit("x"); err == nil {
		t.Error("a Maildir below a file")
	}
}
