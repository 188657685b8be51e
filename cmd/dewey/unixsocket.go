package main

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"dewey/config"
	"dewey/internal/confine"
)

// socketRights are those of the files of UNIX sockets: who may connect. unix(7).
type socketRights struct {
	mode     fs.FileMode
	uid, gid int // -1: unchanged
}

// rightsOf reads them from the configuration. What names no user is dewey's: process.user's, if root is to become
// that, so that its own `dewey deliver` can connect.
func rightsOf(c *config.Config) (socketRights, error) {
	r := socketRights{mode: c.LMTP.SocketMode, uid: -1, gid: -1}
	if c.Process.User != "" && os.Geteuid() == 0 {
		who, err := confine.LookUp(c.Process.User, c.Process.Group)
		if err != nil {
			return r, fmt.Errorf("process.user: %w", err)
		}
		r.uid, r.gid = who.UID, who.GID
	}
	if name := c.LMTP.SocketUser; name != "" {
		u, err := user.Lookup(name)
		if err != nil {
			u = &user.User{Uid: name}
		}
		if r.uid, err = strconv.Atoi(u.Uid); err != nil || r.uid < 0 {
			return r, fmt.Errorf("lmtp.socket_user: there is no user %q", name)
		}
	}
	if name := c.LMTP.SocketGroup; name != "" {
		g, err := user.LookupGroup(name)
		if err != nil {
			g = &user.Group{Gid: name}
		}
		if r.gid, err = strconv.Atoi(g.Gid); err != nil || r.gid < 0 {
			return r, fmt.Errorf("lmtp.socket_group: there is no group %q", name)
		}
	}
	return r, nil
}

// A unixListener removes its file when it is closed.
type unixListener struct {
	net.Listener
	path string
	file int // the socket's file, held, so that no other can get its inode's number
	once sync.Once
}

// Close implements net.Listener. A file that another process has put in the place of ours stays.
func (l *unixListener) Close() error {
	l.once.Do(func() {
		if l.there() {
			_ = unix.Unlink(l.path) // what is left is replaced at the next start
		}
		_ = unix.Close(l.file)
	})
	return l.Listener.Close() //nolint:wrapcheck // net's own
}

// there says that the path still leads to our file. Not after Close.
func (l *unixListener) there() bool {
	var own, there unix.Stat_t
	return unix.Fstat(l.file, &own) == nil && unix.Lstat(l.path, &there) == nil && own.Dev == there.Dev && own.Ino == there.Ino
}

// listenUnix binds a UNIX socket. What lies there already is replaced if it is a socket that nobody listens at:
// one that a process left behind. The file has its rights before anybody can connect, which is from listen(2) on.
func listenUnix(path string, rights socketRights) (net.Listener, error) {
	unlock, err := lockFolder(filepath.Dir(path))
	if err != nil {
		return nil, err
	}
	defer unlock()
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, os.NewSyscallError("socket", err)
	}
	file := os.NewFile(uintptr(fd), path)
	defer file.Close() // the listener has a descriptor of its own
	err = unix.Bind(fd, &unix.SockaddrUnix{Name: path})
	if errors.Is(err, unix.EADDRINUSE) {
		if err := removeStale(path); err != nil {
			return nil, err
		}
		err = unix.Bind(fd, &unix.SockaddrUnix{Name: path})
	}
	if err != nil {
		return nil, err //nolint:wrapcheck // an errno, which listenError puts into words
	}
	l := &unixListener{path: path}
	if l.file, err = secureSocket(path, rights); err != nil {
		_ = unix.Unlink(path)
		return nil, err
	}
	if err = os.NewSyscallError("listen", unix.Listen(fd, unix.SOMAXCONN)); err == nil {
		l.Listener, err = net.FileListener(file)
	}
	if err != nil {
		_ = unix.Unlink(path)
		_ = unix.Close(l.file)
		return nil, err
	}
	return l, nil
}

// unixError says in one line why a UNIX socket can't be bound, and what would help.
func unixError(address string, err error) error {
	errno, bare := err.(unix.Errno) //nolint:errorlint // wrapped ones say more than we could
	switch {
	case bare && errno == unix.EADDRINUSE:
		return fmt.Errorf("%s is busy: a program listens there; stop it, or choose another path", address)
	case bare && errno == unix.ENOENT:
		return fmt.Errorf("%s can't be made: its folder does not exist; make that", address)
	case bare && (errno == unix.EACCES || errno == unix.EPERM || errno == unix.EROFS):
		return fmt.Errorf("%s can't be made: its folder may not be written (%w); choose another, restart dewey if it is running and confined, or let systemd bind it (dewey-lmtp.socket)", address, errno)
	}
	return fmt.Errorf("%s: %w", address, err)
}

// secureSocket gives the file its rights, and returns a descriptor of it: in a folder where others may write, the name may
// come to mean another file.
func secureSocket(path string, rights socketRights) (int, error) {
	fd, err := unix.Open(path, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, os.NewSyscallError("open", err)
	}
	if err := rights.give(fd); err != nil {
		_ = unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

func (r socketRights) give(fd int) error {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return os.NewSyscallError("fstat", err)
	}
	if st.Mode&unix.S_IFMT != unix.S_IFSOCK {
		return errors.New("somebody else has put another file there meanwhile")
	}
	if r.uid >= 0 || r.gid >= 0 {
		if err := unix.Fchownat(fd, "", r.uid, r.gid, unix.AT_EMPTY_PATH); err != nil {
			return fmt.Errorf("may not be given to user %d, group %d (%w); start as root with process.user, or leave lmtp.socket_user and lmtp.socket_group empty", r.uid, r.gid, err)
		}
	}
	if err := os.Chmod("/proc/self/fd/"+strconv.Itoa(fd), r.mode); err != nil {
		return fmt.Errorf("chmod: %w", cause(err))
	}
	return nil
}

// lockFolder keeps other processes from replacing a socket in the folder at the same time, each taking the other's
// for a stale one.
func lockFolder(folder string) (unlock func(), err error) {
	fd, err := unix.Open(folder, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	switch {
	case errors.Is(err, unix.EACCES):
		return func() {}, nil // to bind needs no right to read
	case err != nil:
		return nil, err //nolint:wrapcheck // an errno, which listenError puts into words
	}
	for deadline := time.Now().Add(2 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		err = unix.Flock(fd, unix.LOCK_EX|unix.LOCK_NB)
		if err == nil {
			return func() { _ = unix.Close(fd) }, nil
		}
		if !errors.Is(err, unix.EWOULDBLOCK) && !errors.Is(err, unix.EINTR) || time.Now().After(deadline) {
			_ = unix.Close(fd)
			return nil, fmt.Errorf("its folder is locked by another process (%w)", err)
		}
	}
}

// removeStale removes a socket that nobody listens at. Anything else is an error.
func removeStale(path string) error {
	var st unix.Stat_t
	if err := unix.Lstat(path, &st); err != nil {
		return err //nolint:wrapcheck // an errno
	}
	if st.Mode&unix.S_IFMT != unix.S_IFSOCK {
		return errors.New("there is a file that is no socket; remove it, or choose another path")
	}
	c, err := net.DialTimeout("unix", path, time.Second)
	if err == nil {
		_ = c.Close()
	}
	if !errors.Is(err, unix.ECONNREFUSED) { // a full queue, or no right to connect, means that somebody is there
		return unix.EADDRINUSE
	}
	return unix.Unlink(path) //nolint:wrapcheck // an errno
}
