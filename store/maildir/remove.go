package maildir

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"dewey/maildrop"
	"dewey/store/maildir/uidlist"
)

// Remove implements maildrop.Maildrop. It stops at nothing once it has begun, ctx included: what can
// be removed is, and the error names the rest.
func (s *session) Remove(ctx context.Context, numbers []int) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	for _, n := range numbers {
		if n < 1 || n > len(s.snap.items) {
			return maildrop.ErrNoMessage
		}
	}
	switch {
	case len(numbers) == 0:
		return nil
	case s.life.Deletion == maildrop.DeletionKeep:
		return s.keep(ctx, numbers)
	case len(numbers) >= s.store.large && s.life.Undelete <= 0:
		return s.removeLarge(context.WithoutCancel(ctx), numbers)
	}
	return s.remove(context.WithoutCancel(ctx), numbers)
}

// remove takes messages out of the maildrop, for good or, with Life.Undelete, for a while.
func (s *session) remove(ctx context.Context, numbers []int) error {
	u := &unlinker{session: s, dirs: [2]int{-1, -1}}
	defer u.close()
	if s.life.Undelete > 0 {
		if err := u.enter(ctx, numbers); err != nil {
			return fmt.Errorf("no message removed: %w", err)
		}
	}
	var errs []error
	removed := make(map[uint32]bool, len(numbers))
	for _, n := range numbers {
		if err := u.remove(ctx, n-1); err != nil {
			errs = append(errs, fmt.Errorf("message %d not removed: %w", n, err))
		} else {
			removed[s.snap.items[n-1].uid] = true
		}
	}
	if err := u.otherNames(ctx); err != nil {
		errs = append(errs, err)
		for _, n := range numbers { // it may still be there, under the unique-id that it had
			if _, ok := u.linked[s.snap.items[n-1].base()]; ok {
				delete(removed, s.snap.items[n-1].uid)
			}
		}
	}
	if err := u.sync(); err != nil {
		return errors.Join(append(errs, err)...)
	}
	// A message that comes later under the same name is another one, with a unique-id of its own (trap 24).
	if s.removed == nil {
		s.removed = removed
	} else {
		maps.Copy(s.removed, removed)
	}
	return errors.Join(errs...)
}

// find finds where message n is; maildrop.ErrGone if it is gone for good.
func (s *session) find(ctx context.Context, n int) (place, stamp, error) {
	for range 5 {
		p, err := s.place(n)
		if err != nil {
			return place{}, stamp{}, err
		}
		st, err := s.stampAt(p.in.String() + "/" + p.name)
		if err != nil || st != (stamp{}) {
			return p, st, err
		}
		if err := s.refind(ctx, n, p); err != nil {
			return place{}, stamp{}, err
		}
	}
	return place{}, stamp{}, fmt.Errorf("%s: %w", s.snap.items[n].name, errMoving)
}

// An unlinker removes files, and opens each folder once for that.
type unlinker struct {
	*session
	dirs    [2]int // by folder; -1: not open
	touched [2]bool
	linked  map[string]fileID // base names of removed files that have other names somewhere
	trash   *trash            // nil: they are removed for good
	names   map[int]string    // that messages get in the trash
}

// enter puts the messages that are about to be removed on the list of the trash, durably: from then on there is no
// moment at which one of them is neither in the maildrop nor to be brought back.
func (u *unlinker) enter(ctx context.Context, numbers []int) error {
	at := time.Now()
	u.names = make(map[int]string, len(numbers))
	uids := make(map[uint32]int, len(numbers))
	entries := make([]trashed, 0, len(numbers))
	for _, n := range numbers {
		n--
		if _, double := u.names[n]; double {
			continue
		}
		p, _, err := u.find(ctx, n)
		if errors.Is(err, maildrop.ErrGone) {
			continue
		}
		if err != nil {
			return err
		}
		u.names[n] = newName()
		uids[u.snap.items[n].uid] = len(entries)
		entries = append(entries, trashed{at: at.Unix(), name: u.names[n], uid: u.snap.messages[n].UID, former: p})
	}
	if len(entries) == 0 {
		return nil
	}
	u.recall(uids, entries)
	var err error
	if u.trash, err = u.makeTrash(); err != nil {
		return err
	}
	return u.trash.add(entries)
}

// recall takes down what the list of unique-ids says of the messages. Where it can't be read they are measured anew
// should they come back.
func (u *unlinker) recall(uids map[uint32]int, entries []trashed) {
	list, err := u.readList()
	if err == nil && (list.List == nil || list.Validity != u.snap.validity) {
		err = errors.New("the list is gone, or another than at login")
	}
	if err != nil {
		u.log.Warn("the sizes of removed messages are not kept", "error", err)
		return
	}
	for _, rec := range list.Records {
		n, ok := uids[rec.UID]
		if !ok {
			continue
		}
		if sizes, ok := u.pending[rec.UID]; ok {
			amend(&rec, sizes)
		}
		rec.Unset(uidlist.KeyUniqueID)
		rec.Unset(uidlist.KeyRemoved)
		entries[n].keys = rec.Keys
	}
}

// otherNames removes what names removed messages still have here, if somebody moves by linking and
// unlinking and was met in between: or they would be back.
func (u *unlinker) otherNames(ctx context.Context) error {
	for try := 0; len(u.linked) > 0 && try < 5; try++ {
		if err := u.rescan(ctx); err != nil {
			return err
		}
		found := false
		for base, id := range u.linked {
			p, ok := u.refound[base]
			if !ok {
				continue
			}
			if s, err := u.stampAt(p.in.String() + "/" + p.name); err != nil || s.id != id {
				continue // gone by now, or another message
			}
			found = true
			if err := u.away(p, ""); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return err
			}
		}
		if !found {
			return nil
		}
	}
	return nil
}

func (u *unlinker) remove(ctx context.Context, n int) error {
	as := u.names[n]
	for _, p := range u.snap.extra[n] {
		if as != "" {
			break // otherNames has them: one name must stay until the message is in the trash
		}
		if err := u.away(p, ""); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	for range 5 {
		p, err := u.place(n)
		if err == nil {
			err = u.away(p, as)
			if err == nil {
				u.setPlace(n, place{})
				return nil
			}
			if errors.Is(err, fs.ErrNotExist) {
				err = u.refind(ctx, n, p)
			}
		}
		if errors.Is(err, maildrop.ErrGone) {
			u.touched = [2]bool{true, true} // somebody else's removal is to be as durable
			return nil
		}
		if err != nil {
			return err
		}
	}
	return fmt.Errorf("%s: %w", u.snap.items[n].name, errMoving)
}

func (u *unlinker) dir(f folder) (int, error) {
	if u.dirs[f] < 0 {
		fd, _, err := u.openFolder(f)
		if err != nil {
			return -1, err
		}
		u.dirs[f] = fd
	}
	return u.dirs[f], nil
}

// away unlinks a name, or moves it to the trash if it has one there.
func (u *unlinker) away(p place, as string) error {
	path, op := u.file(p.in.String()+"/"+p.name), "unlink"
	if as != "" {
		op = "rename"
	}
	if err := u.failing(op, path); err != nil {
		return &os.PathError{Op: op, Path: path, Err: err}
	}
	fd, err := u.dir(p.in)
	if err != nil {
		return err
	}
	var st unix.Stat_t
	err = unix.Fstatat(fd, p.name, &st, unix.AT_SYMLINK_NOFOLLOW)
	id := fileID{uint64(st.Dev), st.Ino}
	if err == nil && st.Nlink > 1 {
		if u.linked == nil {
			u.linked = map[string]fileID{}
		}
		u.linked[p.base()] = id
	}
	if as != "" && err == nil && st.Mode&unix.S_IFMT != unix.S_IFREG {
		return fmt.Errorf("%s is not a regular file", path)
	}
	err = u.uncount(fd, p, &st, func() error {
		if as == "" {
			return unix.Unlinkat(fd, p.name, 0)
		}
		return moveFile(fd, p.name, u.trash.dir, as, id)
	})
	if err != nil {
		return &os.PathError{Op: op, Path: path, Err: err}
	}
	u.touched[p.in] = true
	return nil
}

func (u *unlinker) sync() error {
	if u.trash != nil { // before the folders from which they came
		if err := u.trash.sync(); err != nil {
			return fmt.Errorf("removed messages may come back after a crash: %w", err)
		}
	}
	for _, f := range []folder{inNew, inCur} {
		if !u.touched[f] {
			continue
		}
		fd, err := u.dir(f)
		if err == nil {
			err = errors.Join(u.failing("sync", u.file(f.String())), unix.Fsync(fd))
		}
		if err != nil {
			return fmt.Errorf("removed messages may come back after a crash: %w", &os.PathError{Op: "fsync", Path: u.file(f.String()), Err: err})
		}
	}
	return nil
}

func (u *unlinker) close() {
	if u.trash != nil {
		u.trash.close()
	}
	for _, fd := range u.dirs {
		if fd >= 0 {
			_ = unix.Close(fd)
		}
	}
}
