package maildir

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"dewey/maildrop"
)

// lockName is the file that is locked while a session is open. It is never removed: a lock on a
// removed file would guard nothing.
const lockName = "dewey.lock"

// A fileID tells files and folders apart, by whichever path they were reached.
type fileID struct{ dev, ino uint64 }

// locks are the Maildirs that sessions of this process have open.
type locks struct {
	mu   sync.Mutex
	held map[fileID]chan struct{} // closed when the session ends
}

// A lock is a session's hold on a Maildir, in this process and against all others. The kernel frees
// the second part when the process dies.
type lock struct {
	locks *locks
	id    fileID
	file  int // its descriptor, or -1: an os.File costs system calls that ask whether it can be polled
	once  sync.Once
	err   error
}

// take locks a Maildir, and waits for that as long as it may; maildrop.ErrInUse after that.
func (l *locks) take(ctx context.Context, b *box, wait time.Duration) (*lock, error) {
	timer := time.NewTimer(max(wait, 0))
	defer timer.Stop()
	for {
		l.mu.Lock()
		ended, held := l.held[b.id]
		if !held {
			if l.held == nil {
				l.held = map[fileID]chan struct{}{}
			}
			l.held[b.id] = make(chan struct{})
			l.mu.Unlock()
			break
		}
		l.mu.Unlock()
		if wait <= 0 {
			return nil, maildrop.ErrInUse
		}
		select {
		case <-ended:
		case <-timer.C:
			return nil, maildrop.ErrInUse
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	k := &lock{locks: l, id: b.id, file: -1}
	file, err := b.lockFile(ctx, timer, wait)
	if err != nil {
		_ = k.release() // it has no file yet: no error
		return nil, err
	}
	k.file = file
	return k, nil
}

// lockFile opens and locks the file. A refused attempt closes a descriptor of its own, which
// leaves the other session's lock alone (trap 33).
func (b *box) lockFile(ctx context.Context, timer *time.Timer, wait time.Duration) (int, error) {
	pause := 5 * time.Millisecond
	for {
		fd, id, err := b.openLock()
		if err != nil {
			return -1, err
		}
		err = unix.Flock(fd, unix.LOCK_EX|unix.LOCK_NB)
		if err == nil {
			here, err := b.stampAt(lockName)
			if err == nil && here.id == id {
				return fd, nil
			}
			if err != nil {
				return -1, errors.Join(err, unix.Close(fd))
			}
		}
		_ = unix.Close(fd)
		if err != nil && !errors.Is(err, unix.EWOULDBLOCK) && !errors.Is(err, unix.EINTR) {
			return -1, &os.PathError{Op: "flock", Path: b.file(lockName), Err: err}
		}
		if wait <= 0 && errors.Is(err, unix.EWOULDBLOCK) {
			return -1, maildrop.ErrInUse
		}
		select {
		case <-time.After(pause):
			pause = min(2*pause, 100*time.Millisecond)
		case <-timer.C:
			return -1, maildrop.ErrInUse
		case <-ctx.Done():
			return -1, ctx.Err()
		}
	}
}

func (b *box) openLock() (int, fileID, error) {
	const flags = unix.O_RDWR | unix.O_NOFOLLOW | unix.O_NONBLOCK
	fd, err := b.openAt(lockName, flags, 0)
	made := errors.Is(err, unix.ENOENT)
	if made {
		fd, err = b.openAt(lockName, flags|unix.O_CREAT|unix.O_EXCL, 0o600)
		if errors.Is(err, unix.EEXIST) { // somebody was faster: it is not ours to give away
			made = false
			fd, err = b.openAt(lockName, flags, 0)
		}
	}
	path := b.file(lockName)
	if err != nil {
		return -1, fileID{}, &os.PathError{Op: "open", Path: path, Err: err}
	}
	if owner := (unix.Stat_t{}); made && b.statRoot(&owner) == nil {
		_ = adopt(fd, &owner) // at worst only root can lock it
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil || st.Mode&unix.S_IFMT != unix.S_IFREG {
		return -1, fileID{}, errors.Join(fmt.Errorf("%w: %s is not a regular file", maildrop.ErrDamaged, path), err, unix.Close(fd))
	}
	return fd, fileID{uint64(st.Dev), st.Ino}, nil
}

func (k *lock) release() error {
	k.once.Do(func() {
		if k.file >= 0 {
			// Not by Close alone: a child that is being started has a copy of the descriptor for a moment.
			k.err = errors.Join(os.NewSyscallError("flock", unix.Flock(k.file, unix.LOCK_UN)), os.NewSyscallError("close", unix.Close(k.file)))
		}
		k.locks.mu.Lock()
		close(k.locks.held[k.id])
		delete(k.locks.held, k.id)
		k.locks.mu.Unlock()
	})
	return k.err
}
