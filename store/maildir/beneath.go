package maildir

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"dewey/maildrop"
)

// Whoever owns a Maildir can put a link to somebody else's in the place of one of its folders, between any two system
// calls. So a folder's box is bound to a descriptor, by which all in it is found; only the owner's own Maildir, which
// is where the administrator says, is found by its path. A job's box is bound always: the path may lead elsewhere by then.

// child is the folder of that name on the disk, bound; nil if there is none, or it is no folder itself.
func (b *box) child(disk string) (*box, error) {
	fd, err := b.openAt(disk, unix.O_PATH|unix.O_DIRECTORY|unix.O_NOFOLLOW, 0)
	switch {
	case errors.Is(err, unix.ENOENT), errors.Is(err, unix.ENAMETOOLONG), errors.Is(err, unix.ENOTDIR), errors.Is(err, unix.ELOOP):
		return nil, nil
	case err != nil:
		return nil, &os.PathError{Op: "open", Path: b.file(disk), Err: err}
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return nil, errors.Join(&os.PathError{Op: "fstat", Path: b.file(disk), Err: err}, unix.Close(fd))
	}
	f := b.store.boxAt(b.file(disk), &st)
	f.home, f.bound = b.root, fd+1
	return f, nil
}

// bind returns another box of the Maildir, bound to a descriptor of its own.
func (b *box) bind() (*box, error) {
	fd, err := b.openAt(".", unix.O_PATH|unix.O_DIRECTORY, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: b.root, Err: err}
	}
	other := *b
	other.bound = fd + 1
	return &other, nil
}

// unbind closes the descriptor. What is done after that opens the folder anew, if it is still the same.
func (b *box) unbind() {
	if b.bound > 0 {
		_ = unix.Close(b.bound - 1)
		b.bound = 0
	}
}

func unbindAll(boxes []*box) {
	for _, b := range boxes {
		b.unbind()
	}
}

// at is how a name in the Maildir is given to the system.
func (b *box) at(name string) (dir int, path string, err error) {
	if b.home == "" && b.bound == 0 {
		return unix.AT_FDCWD, b.file(name), nil
	}
	if b.bound == 0 {
		fd, err := unix.Open(b.root, unix.O_PATH|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
		if err != nil {
			return -1, "", err
		}
		var st unix.Stat_t
		if err := unix.Fstat(fd, &st); err != nil || b.id != (fileID{uint64(st.Dev), st.Ino}) {
			_ = unix.Close(fd)
			return -1, "", unix.ENOENT
		}
		b.bound = fd + 1
	}
	return b.bound - 1, name, nil
}

// openAt opens a file or folder in the Maildir. Its errors are the system's, as those of all that follow.
func (b *box) openAt(name string, flags int, mode uint32) (int, error) {
	dir, path, err := b.at(name)
	if err != nil {
		return -1, err
	}
	return unix.Openat(dir, path, flags|unix.O_CLOEXEC, mode)
}

// statAt is about the file itself, or what a link leads to if flags are 0.
func (b *box) statAt(name string, st *unix.Stat_t, flags int) error {
	dir, path, err := b.at(name)
	if err != nil {
		return err
	}
	return unix.Fstatat(dir, path, st, flags)
}

// statRoot is about the Maildir.
func (b *box) statRoot(st *unix.Stat_t) error {
	if err := b.statAt(".", st, 0); err != nil {
		return &os.PathError{Op: "stat", Path: b.root, Err: err}
	}
	return nil
}

func (b *box) mkdirAt(name string, mode uint32) error {
	dir, path, err := b.at(name)
	if err != nil {
		return err
	}
	return unix.Mkdirat(dir, path, mode)
}

func (b *box) unlinkAt(name string) error {
	dir, path, err := b.at(name)
	if err != nil {
		return err
	}
	return unix.Unlinkat(dir, path, 0)
}

func (b *box) renameAt(from, to string) error {
	dir, path, err := b.at(from)
	if err != nil {
		return err
	}
	_, target, err := b.at(to)
	if err != nil {
		return err
	}
	return unix.Renameat(dir, path, dir, target)
}

// stampAt is the stamp of a file or folder of the Maildir itself; the zero stamp if there is none.
func (b *box) stampAt(name string) (stamp, error) {
	var st unix.Stat_t
	switch err := b.statAt(name, &st, unix.AT_SYMLINK_NOFOLLOW); {
	case errors.Is(err, unix.ENOENT):
		return stamp{}, nil
	case err != nil:
		return stamp{}, &os.PathError{Op: "lstat", Path: b.file(name), Err: err}
	}
	return stampOf(&st), nil
}

// sameFile says that the open file is still the one of that name.
func (b *box) sameFile(file *os.File, name string) (bool, error) {
	here, err := b.stampAt(name)
	if err != nil {
		return false, err
	}
	var open unix.Stat_t
	if err := unix.Fstat(int(file.Fd()), &open); err != nil {
		return false, &os.PathError{Op: "fstat", Path: file.Name(), Err: err}
	}
	return here.id == fileID{uint64(open.Dev), open.Ino}, nil
}

// openPlain opens a file of the Maildir for reading that must be a regular one and no link. Its error is
// fs.ErrNotExist if there is none.
func (b *box) openPlain(name string) (*os.File, *unix.Stat_t, error) {
	path := b.file(name)
	fd, err := b.openAt(name, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if errors.Is(err, unix.ELOOP) {
		return nil, nil, fmt.Errorf("%w: %s is a symbolic link", maildrop.ErrDamaged, path)
	}
	if err != nil {
		return nil, nil, &os.PathError{Op: "open", Path: path, Err: err}
	}
	file := os.NewFile(uintptr(fd), path)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return nil, nil, errors.Join(&os.PathError{Op: "fstat", Path: path, Err: err}, file.Close())
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG {
		return nil, nil, errors.Join(fmt.Errorf("%w: %s is not a regular file", maildrop.ErrDamaged, path), file.Close())
	}
	return file, &st, nil
}

// syncRoot makes what was made, renamed or removed in the Maildir's own folder durable.
func (b *box) syncRoot() error {
	fd, err := b.openAt(".", unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		return &os.PathError{Op: "open", Path: b.root, Err: err}
	}
	err = again(func() error { return unix.Fsync(fd) })
	if err != nil {
		err = &os.PathError{Op: "fsync", Path: b.root, Err: err}
	}
	return errors.Join(err, unix.Close(fd))
}
