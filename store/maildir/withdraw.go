package maildir

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"dewey/store/maildir/uidlist"
)

// withdraw takes out again what was moved to new/ and could not be made durable, because of fault: who is told that
// a message is not there sends it again. It begins at the end, and returns how many are still there. A session that has
// seen one finds it gone, and the record of its unique-id stays, as for every file that somebody else has removed.
func withdraw(all []*deposit, into int, path string, fault error) (left int, err error) {
	for left = len(all); left > 0; left-- {
		d := all[left-1]
		if err = d.takeOut(into); err != nil {
			d.log.Error("a message is there of which the sender is told that it is not: it may come twice", "file", d.final, "error", err)
			break
		}
	}
	if err != nil {
		return left, fmt.Errorf("message there, but perhaps not after a crash: %w; and it can't be taken out again: %w", fault, err)
	}
	if err := all[0].settle(into, path); err != nil {
		return 0, fmt.Errorf("message not taken in, but perhaps it is there after a crash: %w; %w", fault, err)
	}
	return 0, fmt.Errorf("message not taken in: %w", fault)
}

// takeOut removes the file from new/, or from cur/ if somebody has moved it there. If it is in neither he has
// removed it.
func (d *deposit) takeOut(into int) error {
	for range 5 {
		if err := d.unlink(into, place{d.final, inNew}); !errors.Is(err, unix.ENOENT) {
			return err
		}
		if err := d.takeMoved(); !errors.Is(err, unix.ENOENT) {
			return err
		}
	}
	return fmt.Errorf("%s: %w", d.final, errMoving)
}

func (d *deposit) takeMoved() error {
	l, _, err := d.read(inCur)
	if err != nil {
		return err
	}
	for _, name := range l.names {
		if uidlist.Base(name) != uidlist.Base(d.final) {
			continue
		}
		cur, path, err := d.openFolder(inCur)
		if err != nil {
			return err
		}
		defer unix.Close(cur)
		if err := d.unlink(cur, place{name, inCur}); err != nil {
			return err
		}
		return d.settle(cur, path)
	}
	return nil
}

func (d *deposit) unlink(fd int, p place) error {
	path := d.file(p.in.String() + "/" + p.name)
	err := d.failing("unlink", path)
	if err == nil {
		var st unix.Stat_t
		if err = unix.Fstatat(fd, p.name, &st, unix.AT_SYMLINK_NOFOLLOW); err == nil {
			err = d.uncount(fd, p, &st, func() error { return unix.Unlinkat(fd, p.name, 0) })
		}
	}
	if err != nil {
		return &os.PathError{Op: "unlink", Path: path, Err: err}
	}
	return nil
}
