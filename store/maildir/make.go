package maildir

import (
	"errors"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// makeAll makes a folder and those above it that are missing. Root gives each to whom the one above it belongs: a Maildir
// in somebody's home is his, and the delivery agent's that runs as he does.
func makeAll(path string) error {
	var above unix.Stat_t
	parent := filepath.Dir(path)
	err := unix.Stat(parent, &above)
	if errors.Is(err, unix.ENOENT) && parent != path {
		if err := makeAll(parent); err != nil {
			return err
		}
		err = unix.Stat(parent, &above)
	}
	if err != nil {
		return &os.PathError{Op: "stat", Path: parent, Err: err}
	}
	err = os.Mkdir(path, 0o700)
	if errors.Is(err, os.ErrExist) {
		return nil // prepare looks whether it is a folder
	}
	if err != nil || os.Geteuid() != 0 || above.Uid == 0 {
		return err
	}
	// Whoever may write above could have put something else there: only a folder is given away, and no link is followed.
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return &os.PathError{Op: "open", Path: path, Err: err}
	}
	made := os.NewFile(uintptr(fd), path)
	return errors.Join(made.Chown(int(above.Uid), int(above.Gid)), made.Close())
}

// makeFolder makes a folder in a Maildir, for those who have that: owner is the Maildir's. os.ErrExist if it is there.
func (b *box) makeFolder(name string, owner *unix.Stat_t) error {
	path, mode := b.file(name), owner.Mode&0o777|0o700
	if err := b.mkdirAt(name, mode); err != nil {
		return &os.PathError{Op: "mkdir", Path: path, Err: err}
	}
	// By its descriptor alone, as above.
	fd, err := b.openAt(name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW, 0)
	if err != nil {
		return &os.PathError{Op: "open", Path: path, Err: err}
	}
	made := os.NewFile(uintptr(fd), path)
	var st unix.Stat_t
	if err = unix.Fstat(fd, &st); err == nil && st.Mode&0o777 != mode { // the umask
		err = unix.Fchmod(fd, st.Mode&0o7000|mode)
	}
	if err != nil {
		err = &os.PathError{Op: "chmod", Path: path, Err: err}
	}
	return errors.Join(err, adoptFile(made, owner), made.Close())
}
