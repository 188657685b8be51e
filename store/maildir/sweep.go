package maildir

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"dewey/maildrop"
)

// Swept is what Sweep has done.
type Swept struct {
	Expired []maildrop.Message // older than owner.Life.Retention
	Purged  int                // could be brought back until now
}

// Sweep removes what is older than owner.Life.Retention, as UPDATE does but whatever Life.Deletion says, and for good
// what was removed longer ago than owner.Life.Undelete. It returns maildrop.ErrInUse if there is something to do while
// a session is open, and what it has done beside any error. It makes no Maildir where there is none.
func (s *Store) Sweep(ctx context.Context, owner maildrop.Owner, now time.Time) (Swept, error) {
	var all Swept
	boxes, err := s.livedIn(owner)
	defer unbindAll(boxes)
	errs := []error{err}
	for _, b := range boxes {
		if err := b.sweep(ctx, owner, now, &all); err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", b.root, err))
		}
	}
	return all, errors.Join(errs...)
}

func (b *box) sweep(ctx context.Context, owner maildrop.Owner, now time.Time, done *Swept) (err error) {
	if err := ctx.Err(); err != nil {
		return err
	}
	expired, err := b.anyExpired(ctx, owner.Life, now)
	if err != nil {
		return err
	}
	t, err := b.openTrash()
	if err != nil {
		return err
	}
	late := purge{}
	if t != nil {
		defer func() { t.close() }()
		if late, err = t.plan(owner.Life, now); err != nil {
			return err
		}
	}
	if !expired && !late.due() {
		return nil
	}
	lock, err := b.store.locks.take(ctx, b, b.store.lockWait)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, lock.release()) }()
	if late.due() {
		n, err2 := t.purge(owner.Life, now)
		done.Purged += n
		err = err2
	}
	if expired {
		err = errors.Join(err, b.expire(ctx, lock, owner, now, done))
	}
	return err
}

// anyExpired says that there is a message to be removed, by a look that needs no lock.
func (b *box) anyExpired(ctx context.Context, life maildrop.Life, now time.Time) (bool, error) {
	if life.Retention <= 0 {
		return false, nil
	}
	c, err := b.census(ctx)
	if err != nil {
		return false, err
	}
	for _, p := range c.places {
		st, err := b.stampAt(p.in.String() + "/" + p.name)
		if err != nil {
			return false, err
		}
		if st != (stamp{}) && expires(time.Unix(0, st.mtime), life, now) {
			return true, nil
		}
	}
	return false, nil
}

func expires(received time.Time, life maildrop.Life, now time.Time) bool {
	return now.Sub(received) > life.Retention
}

// expire removes what is too old.
func (b *box) expire(ctx context.Context, lock *lock, owner maildrop.Owner, now time.Time, done *Swept) error {
	s, err := b.open(ctx, lock, owner)
	if err != nil {
		return err
	}
	var numbers []int
	for i := range s.snap.items {
		_, st, err := s.find(ctx, i)
		if errors.Is(err, maildrop.ErrGone) {
			continue
		}
		if err != nil {
			return err
		}
		if expires(time.Unix(0, st.mtime), owner.Life, now) {
			numbers = append(numbers, i+1)
		}
	}
	err = s.remove(context.WithoutCancel(ctx), numbers)
	for _, n := range numbers {
		if s.removed[s.snap.items[n-1].uid] {
			done.Expired = append(done.Expired, s.snap.messages[n-1])
		}
	}
	if err := s.flush(); err != nil {
		b.log.Warn("the list of unique-ids is not brought up to date", "error", err)
	}
	return err
}

// A purge is what is to be done to a trash.
type purge struct {
	files []string  // to be unlinked
	lines bool      // there are some whose time is over
	left  []trashed // lines that stay
}

func (p *purge) due() bool { return len(p.files) > 0 || p.lines }

// over says that what was removed at a time, in seconds since 1970, can't be brought back any more. A time to come is
// that of a clock that was wrong, now or then.
func over(at int64, life maildrop.Life, now time.Time) bool {
	return life.Undelete <= 0 || now.Sub(time.Unix(at, 0)) > life.Undelete
}

// plan finds out what is to be purged. A file that is on no line stays for as long as one that is.
func (t *trash) plan(life maildrop.Life, now time.Time) (purge, error) {
	s, err := t.stock()
	if err != nil {
		return purge{}, err
	}
	p := purge{lines: s.missing > 0 && over(s.oldest, life, now)}
	for _, e := range s.entries {
		if over(e.at, life, now) {
			p.files = append(p.files, e.name)
		} else {
			p.left = append(p.left, e)
		}
	}
	p.lines = p.lines || len(p.left) < len(s.entries)
	for name, st := range s.others {
		if over(time.Unix(0, st.ctime).Unix(), life, now) {
			p.files = append(p.files, name)
		}
	}
	return p, nil
}

// names are the messages' files: a rename is a change of ctime.
func (t *trash) names() (map[string]stamp, error) {
	fd, err := unix.Openat(t.dir, ".", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: t.file(trashName), Err: err}
	}
	dir := os.NewFile(uintptr(fd), t.file(trashName))
	defer dir.Close()
	all, err := dir.Readdirnames(-1)
	if err != nil {
		return nil, err
	}
	names := make(map[string]stamp, len(all))
	for _, name := range all {
		if name == trashList || name == trashTemp || !isName(name) {
			continue
		}
		var st unix.Stat_t
		err := t.failing("lstat", t.path(name))
		if err == nil {
			err = unix.Fstatat(t.dir, name, &st, unix.AT_SYMLINK_NOFOLLOW)
		}
		switch {
		case errors.Is(err, unix.ENOENT):
		case err != nil: // one that is there must not lose its line
			return nil, &os.PathError{Op: "lstat", Path: t.path(name), Err: err}
		case st.Mode&unix.S_IFMT == unix.S_IFREG:
			names[name] = stampOf(&st)
		}
	}
	return names, nil
}

// purge removes for good what can't be brought back any more: first the files, then their lines. It says how many
// files. The caller has locked the Maildir. No session purges: the night's work knows when the clock is in doubt.
func (t *trash) purge(life maildrop.Life, now time.Time) (int, error) {
	p, err := t.plan(life, now)
	if err != nil || !p.due() {
		return 0, err
	}
	n := 0
	for _, name := range p.files {
		err := t.failing("unlink", t.path(name))
		if err == nil {
			err = unix.Unlinkat(t.dir, name, 0)
		}
		if err != nil && !errors.Is(err, unix.ENOENT) {
			return n, &os.PathError{Op: "unlink", Path: t.path(name), Err: err}
		}
		n++
	}
	if err := t.sync(); err != nil {
		return n, err
	}
	return n, t.replace(p.left)
}
