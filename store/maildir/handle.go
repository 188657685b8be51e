package maildir

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

// dirs are new/ and cur/, each opened when it is first needed: to open a message by its folder's path would look the
// folder up each time, and again to see that it is no link.
type dirs struct {
	*box
	fds [2]int // by folder, plus one; 0: not open
}

// open opens a message's file, which must be a regular one. fs.ErrNotExist if it is not there.
func (d *dirs) open(p place) (*handle, error) {
	if d.fds[p.in] == 0 {
		fd, _, err := d.openFolder(p.in)
		if err != nil {
			return nil, err
		}
		d.fds[p.in] = fd + 1
	}
	h := &handle{fd: -1, box: d.box, place: p}
	var err error
	if d.store.fault.Load() != nil {
		err = d.failing("open", h.name())
	}
	if err == nil {
		h.fd, err = d.openFile(p)
	}
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: h.name(), Err: err}
	}
	var st unix.Stat_t
	if err = unix.Fstat(h.fd, &st); err != nil {
		err = &os.PathError{Op: "fstat", Path: h.name(), Err: err}
	} else if st.Mode&unix.S_IFMT != unix.S_IFREG {
		err = fmt.Errorf("%s is not a regular file", h.name())
	}
	if err != nil {
		return nil, errors.Join(err, h.Close())
	}
	h.size, h.mtime = st.Size, time.Unix(st.Mtim.Unix())
	return h, nil
}

// openFile opens the file. When it was read last is not noted: nobody asks, and for most messages that are read it would
// be a write. Only a file's owner may have it so; who is refused once does not ask again.
func (d *dirs) openFile(p place) (int, error) {
	flags := unix.O_RDONLY | unix.O_NOFOLLOW | unix.O_NONBLOCK | unix.O_CLOEXEC
	if !d.store.noted.Load() {
		flags |= unix.O_NOATIME
	}
	for {
		fd, err := retried(func() (int, error) { return unix.Openat(d.fds[p.in]-1, p.name, flags, 0) })
		if !errors.Is(err, unix.EPERM) || flags&unix.O_NOATIME == 0 {
			return fd, err
		}
		d.store.noted.Store(true)
		flags &^= unix.O_NOATIME
	}
}

// close closes the folders; the next open opens them anew.
func (d *dirs) close() {
	for f, fd := range d.fds {
		if fd > 0 {
			_ = unix.Close(fd - 1)
		}
		d.fds[f] = 0
	}
}

// A handle is a message's file, open for reading. It is no os.File: to make one costs two system calls more, which
// ask the poller about a file that is always ready.
type handle struct {
	*box
	place
	fd    int // -1: closed
	size  int64
	mtime time.Time
}

// name is the file's path.
func (h *handle) name() string { return filepath.Join(h.root, h.in.String(), h.place.name) }

func (h *handle) Read(p []byte) (int, error) {
	n, err := retried(func() (int, error) { return unix.Read(h.fd, p) })
	switch {
	case err != nil:
		return 0, &os.PathError{Op: "read", Path: h.name(), Err: err}
	case n == 0 && len(p) > 0:
		return 0, io.EOF
	}
	return n, nil
}

// rewind goes back to the beginning.
func (h *handle) rewind() error {
	if _, err := unix.Seek(h.fd, 0, io.SeekStart); err != nil {
		return &os.PathError{Op: "seek", Path: h.name(), Err: err}
	}
	return nil
}

// Close may be called again.
func (h *handle) Close() error {
	fd := h.fd
	if h.fd = -1; fd < 0 {
		return nil
	}
	return os.NewSyscallError("close", unix.Close(fd))
}

// retried does a system call again that a signal interrupted: some network file systems let it.
func retried(call func() (int, error)) (n int, err error) {
	for {
		if n, err = call(); !errors.Is(err, unix.EINTR) {
			return n, err
		}
	}
}
