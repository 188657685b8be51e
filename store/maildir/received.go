package maildir

import (
	"context"
	"errors"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"dewey/maildrop"
)

// Dates are when messages were delivered: the times of their files, as IMAP's INTERNALDATE is with Dovecot and Courier.
// They are kept beside the snapshot, so that a window costs a stat for new messages alone, and are never changed:
// sessions share them. Messages are told by uid, so that they hold for later snapshots too.
type dates struct {
	validity uint32
	uids     []uint32
	at       []int64 // of uids, in the same order: nanoseconds since 1970, or undated
}

// undated stands for the time of a message whose file was not where the scan had seen it.
const undated = -1 << 63

// octets is how much memory they take.
func (d *dates) octets() int64 {
	if d == nil {
		return 0
	}
	return 12 * int64(len(d.uids))
}

// of returns the dates of the messages in a snapshot, as far as they are known: d itself if it has all of them and no
// others. Where the order is not that of the uids (O in the list) some that are known may be missed.
func (d *dates) of(s *snapshot) (_ *dates, complete bool) {
	if d != nil && d.validity == s.validity && d.fits(s.items) {
		return d, true
	}
	next := &dates{s.validity, make([]uint32, len(s.items)), make([]int64, len(s.items))}
	if d == nil || d.validity != s.validity {
		d = new(dates)
	}
	j := 0
	for i := range s.items {
		uid := s.items[i].uid
		for j < len(d.uids) && d.uids[j] < uid {
			j++
		}
		next.uids[i], next.at[i] = uid, undated
		if j < len(d.uids) && d.uids[j] == uid {
			next.at[i] = d.at[j]
			j++
		}
	}
	return next, false
}

func (d *dates) fits(items []item) bool {
	if len(d.uids) != len(items) {
		return false
	}
	for i := range items {
		if d.uids[i] != items[i].uid || d.at[i] == undated {
			return false
		}
	}
	return true
}

// Received implements maildrop.Dated. The first call finds out all that is not known from earlier sessions.
func (s *session) Received(ctx context.Context, n int) (time.Time, error) {
	if err := ctx.Err(); err != nil {
		return time.Time{}, err
	}
	if n < 1 || n > len(s.snap.items) {
		return time.Time{}, maildrop.ErrNoMessage
	}
	n--
	if s.dates == nil {
		if err := s.readDates(ctx); err != nil {
			return time.Time{}, err
		}
	}
	if at := s.dates.at[n]; at != undated {
		return time.Unix(0, at), nil
	}
	_, st, err := s.find(ctx, n)
	if err != nil {
		return time.Time{}, err
	}
	return time.Unix(0, st.mtime), nil
}

// readDates looks at the files whose times are not known, where the scan has seen them.
func (s *session) readDates(ctx context.Context) error {
	d, complete := s.store.cache.dates(s.id).of(s.snap)
	if complete {
		s.dates = d
		return nil
	}
	dirs := [2]int{-1, -1}
	defer func() {
		for _, fd := range dirs {
			if fd >= 0 {
				_ = unix.Close(fd)
			}
		}
	}()
	for i := range s.snap.items {
		if d.at[i] != undated {
			continue
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		p := s.snap.items[i].place()
		if dirs[p.in] < 0 {
			fd, _, err := s.openFolder(p.in)
			if err != nil {
				return err
			}
			dirs[p.in] = fd
		}
		s.tell("stat", p.name)
		var st unix.Stat_t
		err := unix.Fstatat(dirs[p.in], p.name, &st, unix.AT_SYMLINK_NOFOLLOW)
		switch {
		case err == nil:
			d.at[i] = st.Mtim.Nano()
		case !errors.Is(err, unix.ENOENT):
			return &os.PathError{Op: "stat", Path: s.file(p.in.String() + "/" + p.name), Err: err}
		}
	}
	s.dates = d
	s.store.cache.keepDates(s.id, d)
	return nil
}

// dates are those that were kept with a Maildir's snapshot, or nil.
func (c *cache) dates(id fileID) *dates {
	c.mu.Lock()
	defer c.mu.Unlock()
	if e, ok := c.byID[id]; ok {
		return e.Value.(*cached).dates
	}
	return nil
}

// keepDates keeps them for as long as a snapshot of the Maildir is kept.
func (c *cache) keepDates(id fileID, d *dates) {
	c.mu.Lock()
	defer c.mu.Unlock()
	e, ok := c.byID[id]
	if !ok {
		return
	}
	entry := e.Value.(*cached)
	more := d.octets() - entry.dates.octets()
	if entry.size+more > c.limit {
		return
	}
	entry.dates, entry.size = d, entry.size+more
	for c.size += more; c.size > c.limit; {
		c.drop(c.order.Back())
	}
}
