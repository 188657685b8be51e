package confine

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// ErrOthers says that a file is neither root's nor w's, or is more than a file or a folder.
var ErrOthers = errors.New("is somebody else's, or no file or folder of its own")

// Own gives w a file or folder that root has just made. It leaves alone what is w's already, and
// returns ErrOthers for what is a third one's, for a link, and for a file with several names: whoever
// may write in a folder on the way could have put it there, to be given what is root's.
func (w Who) Own(path string) error {
	if err := w.own(path); err != nil {
		return fmt.Errorf("give %s to %s: %w", path, w.Name, err)
	}
	return nil
}

func (w Who) own(path string) error {
	if w.UID <= 0 || w.GID <= 0 {
		return ErrRoot
	}
	fd, err := reach(path)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return os.NewSyscallError("fstat", err)
	}
	kind := st.Mode & unix.S_IFMT
	switch {
	case kind != unix.S_IFDIR && (kind != unix.S_IFREG || st.Nlink != 1):
		return ErrOthers
	case int(st.Uid) == w.UID:
		return nil
	case st.Uid != 0:
		return ErrOthers
	}
	return os.NewSyscallError("chown", unix.Fchownat(fd, "", w.UID, w.GID, unix.AT_EMPTY_PATH))
}

// reach opens a path for its attributes alone. It follows links only in folders that are root's alone.
func reach(path string) (int, error) {
	path, err := filepath.Abs(path)
	if err != nil {
		return -1, err //nolint:wrapcheck // Own does
	}
	fd, err := unix.Open("/", unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, os.NewSyscallError("open", err)
	}
	parts := strings.FieldsFunc(path, func(r rune) bool { return r == '/' })
	for i, part := range parts {
		var st unix.Stat_t
		if err := unix.Fstat(fd, &st); err != nil {
			_ = unix.Close(fd)
			return -1, os.NewSyscallError("fstat", err)
		}
		flags := unix.O_PATH | unix.O_CLOEXEC
		if i == len(parts)-1 || st.Uid != 0 || st.Mode&0o022 != 0 {
			flags |= unix.O_NOFOLLOW // a link is opened itself, and leads nowhere
		}
		next, err := unix.Openat(fd, part, flags, 0)
		_ = unix.Close(fd)
		if err != nil {
			return -1, os.NewSyscallError("open", err)
		}
		fd = next
	}
	return fd, nil
}
