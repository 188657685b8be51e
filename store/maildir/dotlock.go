package maildir

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// staleAfter is how old a lock on the list must be, and the list too, to be taken for forgotten if
// nothing is known of its process: Dovecot's figure.
const staleAfter = 2 * time.Minute

var errListLocked = errors.New("another program holds the lock on the list")

// A dotlock is the lock under which Dovecot, and so dewey, writes the list: a file that is made if it
// is not there, with "pid:host" in it.
type dotlock struct {
	*box
	file *os.File
}

// writing are the Maildirs whose lists this process has locked: the file says nothing of that to one of its own.
var writing struct {
	mu   sync.Mutex
	held map[fileID]chan struct{} // closed when the lock is free
}

// turn waits until nobody in this process has the lock on the list: errListLocked when the time is over.
func (b *box) turn(ctx context.Context, over <-chan time.Time) error {
	for {
		writing.mu.Lock()
		free, held := writing.held[b.id]
		if !held {
			if writing.held == nil {
				writing.held = map[fileID]chan struct{}{}
			}
			writing.held[b.id] = make(chan struct{})
		}
		writing.mu.Unlock()
		if !held {
			return nil
		}
		select {
		case <-free:
		case <-over:
			return errListLocked
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (b *box) passTurn() {
	writing.mu.Lock()
	defer writing.mu.Unlock()
	close(writing.held[b.id])
	delete(writing.held, b.id)
}

const listLockName = listName + ".lock"

// lockList takes the lock on the list, and waits for it as long as it may: errListLocked after that.
func (b *box) lockList(ctx context.Context, wait time.Duration) (lock *dotlock, err error) {
	path := b.file(listLockName)
	timer := time.NewTimer(max(wait, 0))
	defer timer.Stop()
	if err := b.turn(ctx, timer.C); err != nil {
		return nil, err
	}
	defer func() { // also after a panic
		if lock == nil {
			b.passTurn()
		}
	}()
	pause := 5 * time.Millisecond
	for {
		if err := b.failing("lock", path); err != nil {
			return nil, err
		}
		l, err := b.makeLock()
		if !errors.Is(err, unix.EEXIST) {
			return l, err
		}
		if stale, why := b.staleLock(); stale {
			b.log.Warn("removing a forgotten lock on the list", "file", path, "why", why)
			if err := b.unlinkAt(listLockName); err != nil && !errors.Is(err, unix.ENOENT) {
				return nil, &os.PathError{Op: "unlink", Path: path, Err: err}
			}
			// Somebody else may have found it stale too: he must not remove the next one.
			select {
			case <-time.After(50*time.Millisecond + rand.N(100*time.Millisecond)):
				continue
			case <-ctx.Done():
				return nil, ctx.Err()
			}
		}
		if wait <= 0 {
			return nil, errListLocked
		}
		select {
		case <-time.After(pause):
			pause = min(2*pause, 100*time.Millisecond)
		case <-timer.C:
			return nil, errListLocked
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// lockTemp becomes the lock. Two processes may make it at a time, a session and a job of another one.
const lockTemp = listLockName + ".tmp"

// makeLock makes the lock on the list; unix.EEXIST if it is there. It appears with its content: from an empty one, whose
// maker died, nobody could tell that he did.
func (b *box) makeLock() (_ *dotlock, err error) {
	path := b.file(listLockName)
	var st unix.Stat_t
	if b.statAt(listLockName, &st, unix.AT_SYMLINK_NOFOLLOW) == nil {
		return nil, unix.EEXIST
	}
	if err := b.unlinkAt(lockTemp); err != nil && !errors.Is(err, unix.ENOENT) {
		return nil, &os.PathError{Op: "unlink", Path: b.file(lockTemp), Err: err}
	}
	fd, err := b.openAt(lockTemp, unix.O_RDWR|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW, 0o644)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: b.file(lockTemp), Err: err}
	}
	file := os.NewFile(uintptr(fd), path)
	defer func() {
		if err != nil {
			_ = b.unlinkAt(lockTemp)
			_ = file.Close()
		}
	}()
	host, _ := os.Hostname()
	if _, err := fmt.Fprintf(file, "%d:%s", os.Getpid(), host); err != nil {
		return nil, err
	}
	if err := unix.Fstat(fd, &st); err != nil {
		return nil, &os.PathError{Op: "fstat", Path: path, Err: err}
	}
	dir, from, err := b.at(lockTemp)
	if err != nil {
		return nil, err
	}
	_, to, err := b.at(listLockName)
	if err != nil {
		return nil, err
	}
	err = moveFile(dir, from, dir, to, fileID{uint64(st.Dev), st.Ino})
	if errors.Is(err, unix.ENOENT) { // the other one has taken it for left over
		return nil, unix.EEXIST
	}
	if err != nil {
		return nil, &os.PathError{Op: "rename", Path: path, Err: err}
	}
	if same, err := b.sameFile(file, listLockName); err != nil || !same { // it was his already that was moved
		return nil, cmp.Or(err, error(unix.EEXIST))
	}
	return &dotlock{b, file}, nil
}

// staleLock tells, by Dovecot's rules, whether the lock is one whose process has died.
func (b *box) staleLock() (stale bool, why string) {
	var before, after, list unix.Stat_t
	if b.statAt(listLockName, &before, unix.AT_SYMLINK_NOFOLLOW) != nil || before.Mode&unix.S_IFMT != unix.S_IFREG {
		return false, ""
	}
	pid, blank := b.lockPID()
	last := latest(&before)
	switch {
	case blank && last < booted():
		// Whoever makes one writes his number at once. The power was lost before that was on the disk, and its name was.
		return true, "it names nobody, and is older than the machine's start"
	case pid > 0:
		// Our own pid is that of an earlier process: it is our turn, so that no other session or job of ours holds it.
		if err := unix.Kill(pid, 0); pid != os.Getpid() && !errors.Is(err, unix.ESRCH) && !startedAfter(pid, latest(&before)) {
			return false, ""
		}
		if b.statAt(listLockName, &after, unix.AT_SYMLINK_NOFOLLOW) != nil || before.Ino != after.Ino || before.Mtim != after.Mtim {
			return false, ""
		}
		return true, fmt.Sprintf("its process %d has died", pid)
	}
	if b.statAt(listName, &list, 0) == nil {
		last = max(last, latest(&list))
	}
	if time.Since(time.Unix(0, last)) <= staleAfter {
		return false, ""
	}
	return true, fmt.Sprintf("nothing has changed for %v", staleAfter)
}

// booted is when the machine was started, in nanoseconds since 1970.
func booted() int64 {
	var up unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &up); err != nil {
		return 0
	}
	return time.Now().UnixNano() - up.Nano()
}

// startedAfter says that a process has begun since a time, in nanoseconds since 1970: it has the number
// of one that has died, before the machine was started again, say. False if that can't be told. proc(5).
func startedAfter(pid int, t int64) bool {
	const hz = 100 // of the times in /proc, on all that Go runs on
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return false
	}
	fields := bytes.Fields(text[bytes.LastIndexByte(text, ')')+1:]) // the name before it may hold anything
	var up unix.Sysinfo_t
	if len(fields) < 20 || unix.Sysinfo(&up) != nil {
		return false
	}
	ticks, err := strconv.ParseInt(string(fields[19]), 10, 64) // starttime, since boot
	if err != nil {
		return false
	}
	begun := time.Now().Add(-time.Duration(up.Uptime)*time.Second + time.Duration(ticks)*time.Second/hz)
	return begun.UnixNano() > t+int64(10*time.Second) // these clocks agree to a few seconds
}

// lockPID is the process that the lock names, or 0 if it names none on this host; blank: it names nothing at all.
func (b *box) lockPID() (pid int, blank bool) {
	fd, err := b.openAt(listLockName, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return 0, false
	}
	buf := make([]byte, 512)
	n, err := unix.Read(fd, buf)
	_ = unix.Close(fd)
	if err != nil {
		return 0, false
	}
	if len(bytes.Trim(buf[:n], "\x00")) == 0 {
		return 0, true
	}
	name, at, ok := bytes.Cut(bytes.TrimSuffix(buf[:n], []byte("\n")), []byte(":"))
	host, err := os.Hostname()
	if !ok || err != nil || string(at) != host {
		return 0, false
	}
	if pid, err = strconv.Atoi(string(name)); err != nil || pid < 0 {
		return 0, false
	}
	return pid, false
}

// held says that nobody has taken the lock for a forgotten one and removed it.
func (l *dotlock) held() error {
	same, err := l.sameFile(l.file, listLockName)
	if err == nil && !same {
		err = fmt.Errorf("%s was removed while it was held", l.file.Name())
	}
	return err
}

func (l *dotlock) release() error {
	defer l.passTurn()
	var err error
	if l.held() == nil {
		if err = l.unlinkAt(listLockName); err != nil {
			err = &os.PathError{Op: "unlink", Path: l.file.Name(), Err: err}
		}
	}
	return errors.Join(err, l.file.Close())
}
