package passwdfile

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// youth is how long a file's times prove nothing: a later change may fall into the same tick of the
// file system's clock.
const youth = 2 * time.Second

// A stamp tells one version of a file from another. The zero stamp is that of no file.
type stamp struct {
	dev, ino     uint64
	size         int64
	mtime, ctime time.Duration // since 1970
	mode         uint32
}

// young says that a change after the one that set this stamp might not show in it. Times ahead of the
// clock by more than the span are no sign of youth: they were set by hand, and the next change brings
// others.
func (s stamp) young(now time.Time) bool {
	since := time.Duration(now.UnixNano())
	return (since-s.mtime).Abs() < youth || (since-s.ctime).Abs() < youth
}

// stat returns a file's stamp, following links; the zero stamp if there is no file.
func stat(path string) (stamp, error) {
	var st unix.Stat_t
	for {
		err := unix.Stat(path, &st)
		switch {
		case err == nil:
			return stampOf(&st), nil
		case errors.Is(err, unix.EINTR):
		case errors.Is(err, unix.ENOENT):
			return stamp{}, nil
		default:
			return stamp{}, &fs.PathError{Op: "stat", Path: path, Err: err}
		}
	}
}

func stampOf(st *unix.Stat_t) stamp {
	return stamp{
		dev: uint64(st.Dev), ino: st.Ino, size: st.Size, mode: st.Mode,
		mtime: time.Duration(st.Mtim.Nano()), ctime: time.Duration(st.Ctim.Nano()),
	}
}

// readFile returns a file's text, and the stamp that it had before it was read: if it changes
// meanwhile, the stamp at the next look is another. Only regular files are read, up to maxFile.
func readFile(path string) (string, stamp, error) {
	file, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0) // a FIFO would hold us up
	if err != nil {
		return "", stamp{}, err
	}
	defer file.Close()
	var st unix.Stat_t
	if err := unix.Fstat(int(file.Fd()), &st); err != nil {
		return "", stamp{}, &fs.PathError{Op: "stat", Path: path, Err: err}
	}
	seen := stampOf(&st)
	if st.Mode&unix.S_IFMT != unix.S_IFREG {
		return "", seen, fmt.Errorf("%s: not a regular file; a users file would be right", path)
	}
	if seen.size > maxFile {
		return "", seen, tooLarge(path)
	}
	var text strings.Builder
	text.Grow(int(seen.size))
	n, err := io.Copy(&text, io.LimitReader(file, maxFile+1))
	if err != nil {
		return "", seen, fmt.Errorf("%s: %w", path, err)
	}
	if n > maxFile {
		return "", seen, tooLarge(path)
	}
	return strings.TrimPrefix(text.String(), "\ufeff"), seen, nil // editors put a byte order mark there
}

func tooLarge(path string) error {
	return fmt.Errorf("%s: over %d MiB; a smaller file, or a database, would be right", path, maxFile>>20)
}
