package maildir

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"dewey/maildrop"
	"dewey/store/maildir/uidlist"
)

const listName = "dovecot-uidlist"

// A proof is a stamp, and whether it can prove anything.
type proof struct {
	stamp   stamp
	settled bool
}

func (p proof) holds(now stamp) bool { return p.settled && p.stamp == now }

// A listFile is the list as it was read.
type listFile struct {
	*uidlist.List // nil if there is none
	proof
	onDisk bool        // false: there is none, or it is made of Courier's files
	stat   unix.Stat_t // of the file, if it is on disk
}

// readList reads the list; if there is none, Courier's lists. Without the lock on the list it may
// meet a record that is half written: List.Torn.
func (b *box) readList() (*listFile, error) {
	path := b.file(listName)
	b.tell("readlist", path)
	if err := b.failing("readlist", path); err != nil {
		return nil, err
	}
	start := time.Now()
	file, st, err := b.openPlain(listName)
	if errors.Is(err, fs.ErrNotExist) {
		list, err := b.takeOver()
		return &listFile{List: list, proof: proof{settled: true}}, err
	}
	if err != nil {
		return nil, err
	}
	defer file.Close()
	if st.Size > mostList {
		return nil, fmt.Errorf("%w: %s has %d octets, more than the %d of a list that is read", maildrop.ErrDamaged, path, st.Size, mostList)
	}
	if err := b.settleList(file, st); err != nil {
		return nil, err
	}
	list, err := uidlist.Parse(file)
	var format *uidlist.FormatError
	switch {
	case errors.As(err, &format):
		return nil, fmt.Errorf("%w: %s: %w", maildrop.ErrDamaged, path, err)
	case err != nil:
		return nil, err
	}
	l := &listFile{List: list, onDisk: true, stat: *st}
	l.stamp = stampOf(st)
	l.settled = l.stamp.age(start) >= b.store.settle
	return l, nil
}

// mostList is the most octets of a list: some four million messages.
const mostList = 256 << 20

// youngList is how long what was written to a list may not be on disk yet.
const youngList = 5 * time.Minute

// settleList makes a list durable that was written a while ago, perhaps by a process that died before
// it could: what it says is about to be served.
func (b *box) settleList(file *os.File, st *unix.Stat_t) error {
	if stampOf(st).age(time.Now()) > youngList {
		return nil
	}
	b.tell("sync", file.Name())
	err := errors.Join(file.Sync(), b.syncRoot())
	if errors.Is(err, unix.EROFS) || errors.Is(err, unix.EINVAL) { // nobody writes here
		return nil
	}
	return err
}

// report logs what was wrong in a list.
func (b *box) report(l *listFile) {
	for _, f := range l.Faults {
		b.log.Warn("the list has a fault, which is left out", "file", b.file(listName), "line", f.Line, "what", f.What, "record_lost", f.Lost)
	}
	if l.Torn {
		b.log.Warn("the list's last line has no end, it is left out", "file", b.file(listName), "line", l.Lines+1)
	}
}

// newList is the list of a Maildir that had none, or lost the one that was witnessed, or that the last scan knows: its
// unique-ids must not come again (trap 24).
func (b *box) newList(witnessed uint32, prev *snapshot) *uidlist.List {
	before := max(witnessed, b.highest())
	if prev != nil {
		before = max(before, prev.validity)
	}
	return newList(before)
}

// newList is an empty list with a validity higher than the one before.
func newList(before uint32) *uidlist.List {
	return &uidlist.List{Version: 3, Validity: max(uint32(time.Now().Unix()), before+1), Next: 1}
}

// writeList replaces the list, durably. The caller holds the lock on it, and l is what was read under
// that lock, changed or not.
func (b *box) writeList(l *listFile, lock *dotlock) error {
	if l.GUID == "" {
		var id [16]byte
		_, _ = rand.Read(id[:]) // it has no errors
		l.GUID = hex.EncodeToString(id[:])
	}
	var (
		owner unix.Stat_t
		mode  uint32
	)
	if l.onDisk {
		owner, mode = l.stat, l.stat.Mode&0o777
	} else {
		if err := b.statRoot(&owner); err != nil {
			return err
		}
		mode = owner.Mode&0o666 | 0o600 // as Dovecot does
	}
	st, err := b.replace(listName, l.List.Append(nil), mode, &owner, lock.held)
	if err != nil {
		return err
	}
	l.written(st)
	l.Version, l.Faults, l.Torn, l.Lines = 3, nil, false, len(l.Records)
	return nil
}

// appendList adds records to the list on disk, durably. The caller holds the lock on it and has read
// l under that lock.
func (b *box) appendList(l *listFile, records []uidlist.Record, lock *dotlock) error {
	path := b.file(listName)
	fd, err := b.openAt(listName, unix.O_WRONLY|unix.O_APPEND|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return &os.PathError{Op: "open", Path: path, Err: err}
	}
	file := os.NewFile(uintptr(fd), path)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil || stampOf(&st) != l.stamp {
		return errors.Join(fmt.Errorf("%s changed while it was locked", path), err, file.Close())
	}
	var lines []byte
	for i := range records {
		lines = records[i].Append(lines)
	}
	err = errors.Join(lock.held(), b.failing("append", path))
	if err == nil {
		_, err = file.Write(lines)
		if err == nil {
			err = errors.Join(b.failing("sync", path), file.Sync())
		}
		if err != nil { // a half record must not stay: the next one would go on in its line
			err = errors.Join(err, file.Truncate(st.Size))
		}
	}
	if err == nil {
		if err := unix.Fstat(fd, &st); err == nil {
			l.written(&st)
		}
	}
	if err := errors.Join(err, file.Close()); err != nil {
		return err
	}
	l.Records = append(l.Records, records...)
	l.Lines += len(records)
	return nil
}

// written notes the file as it is after a write of our own. The stamp is too young to prove anything.
func (l *listFile) written(st *unix.Stat_t) {
	l.onDisk, l.stat, l.proof = true, *st, proof{stamp: stampOf(st)}
}

// replace writes a file of the Maildir anew and durably, through a temporary one. before runs right
// before the old file is replaced.
func (b *box) replace(name string, content []byte, mode uint32, owner *unix.Stat_t, before func() error) (*unix.Stat_t, error) {
	path, temp := b.file(name), name+".tmp"
	if err := b.failing("replace", path); err != nil {
		return nil, err
	}
	if err := b.unlinkAt(temp); err != nil && !errors.Is(err, unix.ENOENT) {
		return nil, &os.PathError{Op: "unlink", Path: path + ".tmp", Err: err}
	}
	fd, err := b.openAt(temp, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL, 0o600)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: path + ".tmp", Err: err}
	}
	file := os.NewFile(uintptr(fd), path+".tmp")
	var st unix.Stat_t
	_, err = file.Write(content)
	if err == nil {
		err = file.Chmod(os.FileMode(mode & 0o777))
	}
	if err == nil {
		err = adoptFile(file, owner)
	}
	if err == nil {
		err = errors.Join(b.failing("sync", path), file.Sync())
	}
	if err == nil && before != nil {
		err = before()
	}
	if err == nil {
		if err = b.renameAt(temp, name); err != nil {
			err = &os.PathError{Op: "rename", Path: path, Err: err}
		}
	}
	if err != nil {
		return nil, errors.Join(err, file.Close(), b.unlinkAt(temp))
	}
	if err = unix.Fstat(int(file.Fd()), &st); err != nil {
		err = &os.PathError{Op: "fstat", Path: path, Err: err}
	}
	return &st, errors.Join(err, file.Close(), b.syncRoot())
}

// update changes the list under its lock: change gets it as it stands now, and returns false if there
// is nothing to be written.
func (b *box) update(ctx context.Context, wait time.Duration, change func(*listFile) bool) (l *listFile, err error) {
	lock, err := b.lockList(ctx, wait)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, lock.release()) }()
	l, err = b.readList()
	if err != nil || l.List == nil || !change(l) {
		return l, err
	}
	return l, b.writeList(l, lock)
}
