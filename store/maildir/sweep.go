package maildir

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"dewey/maildrop"
)

// Swept is what Sweep has done.
type Swept struct {
	Expired []maildrop.Message // older than owner.Life.Retention
	Purged  int                // could be brought back until now
}

const (
	// mostAtOnce is how many messages are swept or brought back in one go, so that no session waits long.
	mostAtOnce = 1000
	// giveWay is for how long who waits has the lock to himself after that.
	giveWay = 10 * time.Millisecond
)

// Sweep removes what is older than owner.Life.Retention, as UPDATE does but whatever Life.Deletion says, and for good
// what was removed longer ago than owner.Life.Undelete. It returns maildrop.ErrInUse if there is something to do while
// a session is open, and what it has done beside any error. It makes no Maildir where there is none, and leaves mail
// alone that no session sees but for what was removed there.
func (s *Store) Sweep(ctx context.Context, owner maildrop.Owner, now time.Time) (Swept, error) {
	var all Swept
	seen, others, err := s.lived(owner)
	boxes := slices.Concat(seen, others)
	defer unbindAll(boxes)
	errs := []error{err}
	for i, b := range boxes {
		err := errors.Join(b.goOn(ctx, owner), b.purge(ctx, owner.Life, now, &all))
		if i < len(seen) {
			err = errors.Join(err, b.expire(ctx, owner, now, &all))
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", b.root, err))
		}
	}
	return all, errors.Join(errs...)
}

// goOn has a large removal finished that was cut short, where no session comes any more that would do it.
func (b *box) goOn(ctx context.Context, owner maildrop.Owner) error {
	if any, err := b.anyGone(); err != nil || !any || b.store.jobs.busy(b.id) {
		return err
	}
	return b.locked(ctx, func(lock *lock) (left bool, err error) {
		_, err = b.open(ctx, lock, owner)
		return false, err
	})
}

// locked calls f while the Maildir is locked, for a while at most: it is done again until it says that nothing is left.
func (b *box) locked(ctx context.Context, f func(*lock) (left bool, err error)) error {
	once := func() (left bool, err error) {
		lock, err := b.store.locks.take(ctx, b, b.store.lockWait)
		if err != nil {
			return false, err
		}
		defer func() { err = errors.Join(err, lock.release()) }()
		return f(lock)
	}
	for {
		if err := ctx.Err(); err != nil {
			return err
		}
		if left, err := once(); !left || err != nil {
			return err
		}
		select {
		case <-time.After(giveWay):
		case <-ctx.Done():
		}
	}
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
	for i, p := range c.places {
		if i%mostAtOnce == 0 && ctx.Err() != nil {
			return false, ctx.Err()
		}
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
func (b *box) expire(ctx context.Context, owner maildrop.Owner, now time.Time, done *Swept) error {
	if any, err := b.anyExpired(ctx, owner.Life, now); err != nil || !any {
		return err
	}
	return b.locked(ctx, func(lock *lock) (left bool, err error) { return b.expireSome(ctx, lock, owner, now, done) })
}

func (b *box) expireSome(ctx context.Context, lock *lock, owner maildrop.Owner, now time.Time, done *Swept) (left bool, err error) {
	s, err := b.open(ctx, lock, owner)
	if err != nil {
		return false, err
	}
	var numbers []int
	for i := 0; i < len(s.snap.items) && len(numbers) < mostAtOnce; i++ {
		if i%mostAtOnce == 0 && ctx.Err() != nil {
			return false, ctx.Err()
		}
		_, st, err := s.find(ctx, i)
		if errors.Is(err, maildrop.ErrGone) {
			continue
		}
		if err != nil {
			return false, err
		}
		if expires(time.Unix(0, st.mtime), owner.Life, now) {
			numbers = append(numbers, i+1)
		}
	}
	err = s.remove(context.WithoutCancel(ctx), numbers)
	for _, n := range numbers {
		if s.removed[s.snap.items[n-1].uid] {
			m := s.snap.messages[n-1]
			m.UID = suffixed(m.UID, b.served)
			done.Expired = append(done.Expired, m)
		}
	}
	if err := s.flush(); err != nil {
		b.log.Warn("the list of unique-ids is not brought up to date", "error", err)
	}
	return len(numbers) == mostAtOnce, err
}

// A purge is what is to be done to a trash.
type purge struct {
	files []string // to be unlinked
	lines bool     // there are some whose time is over
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
		}
	}
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

// purge removes for good what can't be brought back any more: first the files, then their lines. No session purges: the
// night's work knows when the clock is in doubt.
func (b *box) purge(ctx context.Context, life maildrop.Life, now time.Time, done *Swept) error {
	t, err := b.openTrash()
	if t == nil || err != nil {
		return err
	}
	defer t.close()
	p, err := t.plan(life, now)
	if err != nil || !p.due() {
		return err
	}
	files := p.files // names that no other message gets
	return b.locked(ctx, func(*lock) (left bool, err error) {
		some := files[:min(len(files), mostAtOnce)]
		files = files[len(some):]
		for _, name := range some {
			err := t.failing("unlink", t.path(name))
			if err == nil {
				err = unix.Unlinkat(t.dir, name, 0)
			}
			switch {
			case errors.Is(err, unix.ENOENT): // brought back meanwhile
			case err != nil:
				return false, &os.PathError{Op: "unlink", Path: t.path(name), Err: err}
			default:
				done.Purged++
			}
		}
		if len(files) > 0 {
			return true, nil
		}
		if err := t.sync(); err != nil {
			return false, err
		}
		s, err := t.stock()
		if err != nil {
			return false, err
		}
		return false, t.replace(s.entries)
	})
}
