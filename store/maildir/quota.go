package maildir

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"dewey/maildrop"
	"dewey/store/maildir/uidlist"
)

// doubt is how long a count is believed to which only our own changes were added since the folders were read:
// what somebody else does in the same instant as we, between two ticks of the clock that stamps the folders, is
// not seen.
const doubt = 10 * time.Minute

// Usage is what a maildrop holds.
type Usage struct {
	Octets   int64 // as stored
	Messages int64
}

// A tally is the count of one Maildir, in memory alone: it can't outlive a crash, and be wrong after it. The
// stamps of the folders prove it, as they prove a scan.
type tally struct {
	users int // guarded by the mutex of tallies

	mu      sync.Mutex // held over each of our own changes, so that none is counted twice or not at all
	counted bool
	used    Usage
	stamps  [2]stamp // of new/ and cur/
	read    time.Time
	proved  bool // the stamps were old enough when the folders were read
	changed bool // by ourselves, since the folders were read
}

// tallies are the Maildirs that were counted. The zero value is ready for use.
type tallies struct {
	mu   sync.Mutex
	byID map[fileID]*tally
}

// hold locks the tally of a Maildir; nil if there is none and none is wanted.
func (t *tallies) hold(id fileID, wanted bool) *tally {
	t.mu.Lock()
	one := t.byID[id]
	if one == nil {
		if !wanted {
			t.mu.Unlock()
			return nil
		}
		one = t.add(id)
	}
	one.users++
	t.mu.Unlock()
	one.mu.Lock()
	return one
}

// add forgets those that nobody holds if there are too many: they are only counted again.
func (t *tallies) add(id fileID) *tally {
	if len(t.byID) >= mostKnown {
		for id, one := range t.byID {
			if one.users == 0 {
				delete(t.byID, id)
			}
		}
	}
	if t.byID == nil {
		t.byID = map[fileID]*tally{}
	}
	one := new(tally)
	t.byID[id] = one
	return one
}

func (t *tallies) release(one *tally) {
	one.mu.Unlock()
	t.mu.Lock()
	one.users--
	t.mu.Unlock()
}

// quotaOf is what holds for an owner; 0: no bound.
func (s *Store) quotaOf(owner maildrop.Owner) maildrop.Quota {
	var common maildrop.Quota
	if s.quota != nil {
		common = s.quota()
	}
	return owner.Quota.Or(common)
}

// Usage counts what is in an owner's maildrop, without its lock and without reading mail. It makes no Maildir: where
// there is none there is no mail.
func (s *Store) Usage(ctx context.Context, owner maildrop.Owner) (Usage, error) {
	if err := ctx.Err(); err != nil {
		return Usage{}, err
	}
	b, err := s.own(owner)
	if b == nil || err != nil {
		return Usage{}, err
	}
	if bare, err := b.bare(); bare || err != nil {
		return Usage{}, err
	}
	t := s.tallies.hold(b.id, true)
	defer s.tallies.release(t)
	return t.current(ctx, b)
}

// bare says that there is a folder and no Maildir in it: a home, say.
func (b *box) bare() (bool, error) {
	for _, f := range []folder{inNew, inCur} {
		st, err := b.stampAt(f.String())
		if st != (stamp{}) || err != nil {
			return false, err
		}
	}
	return !b.listsMail(), nil
}

// full says that a maildrop has reached its quota: no message fits in.
func (b *box) full(ctx context.Context, quota maildrop.Quota) error {
	if quota == (maildrop.Quota{}) {
		return nil
	}
	err := b.reached(ctx, quota)
	if errors.Is(err, maildrop.ErrFull) && b.cleared(ctx) {
		err = b.reached(ctx, quota)
	}
	return err
}

func (b *box) reached(ctx context.Context, quota maildrop.Quota) error {
	t := b.store.tallies.hold(b.id, true)
	defer b.store.tallies.release(t)
	return t.room(ctx, b, quota, 0)
}

// admit takes a message of so many octets into new/, by move, if the quota has room for it. Nobody else of this
// Store moves one there meanwhile, so that no two pass the quota together.
func (b *box) admit(into int, quota maildrop.Quota, stored int64, move func() error) error {
	err := b.tryAdmit(into, quota, stored, move)
	if errors.Is(err, maildrop.ErrFull) && b.cleared(context.Background()) {
		err = b.tryAdmit(into, quota, stored, move)
	}
	return err
}

func (b *box) tryAdmit(into int, quota maildrop.Quota, stored int64, move func() error) error {
	t := b.store.tallies.hold(b.id, quota != (maildrop.Quota{}))
	if t == nil {
		return move()
	}
	defer b.store.tallies.release(t)
	if quota != (maildrop.Quota{}) {
		if err := t.room(context.Background(), b, quota, stored); err != nil {
			return err
		}
	}
	return t.change(inNew, into, Usage{stored, 1}, move)
}

// uncount removes a file, by remove, from the count too if there is one.
func (b *box) uncount(fd int, p place, st *unix.Stat_t, remove func() error) error {
	t := b.store.tallies.hold(b.id, false)
	if t == nil {
		return remove()
	}
	defer b.store.tallies.release(t)
	err := t.change(p.in, fd, Usage{-sizeOf(p.name, st.Size), -1}, remove)
	if st.Nlink != 1 { // of two names one was counted; 0: it was gone
		t.counted = false
	}
	return err
}

// recount adds a change of our own to the count, if there is one.
func (b *box) recount(f folder, fd int, by Usage, do func() error) error {
	t := b.store.tallies.hold(b.id, false)
	if t == nil {
		return do()
	}
	defer b.store.tallies.release(t)
	return t.change(f, fd, by, do)
}

// sizeOf is the size of a file for the count.
func sizeOf(name string, size int64) int64 {
	if claimed, ok := nameSize(uidlist.Base(name), 'S'); ok && claimed <= mostClaimed {
		return claimed
	}
	return size
}

// room returns maildrop.ErrFull if a message of so many octets passes the quota; one of 0 octets does so too where
// the quota is reached. Nobody is refused by a count that is in doubt.
func (t *tally) room(ctx context.Context, b *box, quota maildrop.Quota, stored int64) error {
	used, err := t.current(ctx, b)
	if err != nil {
		return fmt.Errorf("counting for the quota: %w", err)
	}
	if !used.passes(quota, stored) {
		return nil
	}
	if t.changed && time.Since(t.read) >= b.store.settle {
		if err := t.count(ctx, b); err != nil {
			return fmt.Errorf("counting for the quota: %w", err)
		}
		if used = t.used; !used.passes(quota, stored) {
			return nil
		}
	}
	return fmt.Errorf("%w: %d octets in %d messages, and %d octets more; the quota is %d octets, %d messages (0: none)",
		maildrop.ErrFull, used.Octets, used.Messages, stored, quota.Octets, quota.Messages)
}

func (u Usage) passes(q maildrop.Quota, stored int64) bool {
	return q.Octets > 0 && u.Octets+max(stored, 1) > q.Octets || q.Messages > 0 && u.Messages >= q.Messages
}

// current is the count as it is now. Who calls it holds the tally.
func (t *tally) current(ctx context.Context, b *box) (Usage, error) {
	if t.counted {
		for _, f := range []folder{inNew, inCur} {
			now, err := b.stampAt(f.String())
			if err != nil {
				return Usage{}, err
			}
			t.counted = t.counted && now == t.stamps[f]
		}
	}
	age := time.Since(t.read)
	if t.counted && (t.proved && (!t.changed || age < doubt) || age < b.store.settle) {
		return t.used, nil
	}
	err := t.count(ctx, b)
	return t.used, err
}

// change does what changes a folder by one message. A change of somebody else's that came before it shows in the
// folder's stamp, and then the folders are to be read again.
func (t *tally) change(f folder, fd int, by Usage, do func() error) error {
	if !t.counted {
		return do()
	}
	var before, after unix.Stat_t
	err1 := unix.Fstat(fd, &before)
	t.counted = false // should do panic
	err := do()
	err2 := unix.Fstat(fd, &after)
	if err1 != nil || err2 != nil || stampOf(&before) != t.stamps[f] {
		return err
	}
	t.changed = true
	if err != nil {
		t.counted = stampOf(&before) == stampOf(&after) // or who knows what it has done
		return err
	}
	t.counted = true
	t.stamps[f] = stampOf(&after)
	t.used.Octets += by.Octets
	t.used.Messages += by.Messages
	return nil
}

// count reads the folders, or takes the last scan if that holds.
func (t *tally) count(ctx context.Context, b *box) error {
	t.counted = false
	start := time.Now()
	c, err := b.census(ctx)
	if err != nil {
		return err
	}
	used, err := c.usage()
	if err != nil {
		return err
	}
	t.counted, t.used, t.read, t.changed = true, used, start, false
	t.stamps, t.proved = c.stamps, c.proved
	return nil
}

// A census is the files of messages that are in a Maildir.
type census struct {
	*box
	stamps [2]stamp
	proved bool
	places []place
	sizes  []int64 // of places; -1: not known; nil: none is
}

func (b *box) census(ctx context.Context) (*census, error) {
	c := &census{box: b}
	for _, f := range []folder{inNew, inCur} {
		var err error
		if c.stamps[f], err = b.stampAt(f.String()); err != nil {
			return nil, err
		}
	}
	if s := b.store.cache.get(b.id); s != nil && s.new.holds(c.stamps[inNew]) && s.cur.holds(c.stamps[inCur]) {
		c.proved = true
		for i := range s.items {
			c.places = append(c.places, s.items[i].place())
			c.sizes = append(c.sizes, s.items[i].stored)
		}
		return c, nil
	}
	var lists [2]*listing
	for _, f := range []folder{inNew, inCur} {
		l, err := b.scan(ctx, f)
		if err != nil {
			return nil, err
		}
		lists[f] = l
	}
	if _, err := b.back(ctx, lists[inNew]); err != nil {
		return nil, err
	}
	c.proved = lists[inNew].settled && lists[inCur].settled
	for f, l := range lists {
		c.stamps[f] = l.stamp
		for _, name := range l.names {
			c.places = append(c.places, place{name, folder(f)})
		}
	}
	return c, nil
}

// usage adds up. A message that is met on its way from one name to another has both and counts once.
func (c *census) usage() (Usage, error) {
	var sum Usage
	seen := make(map[string]int, len(c.places))
	for i, p := range c.places {
		known := int64(-1)
		if c.sizes != nil {
			known = c.sizes[i]
		}
		first, double := seen[p.base()]
		seen[p.base()] = i
		if double {
			same, err := c.same(c.places[first], p)
			if err != nil {
				return Usage{}, err
			}
			if same {
				continue
			}
		}
		size := sizeOf(p.name, known)
		if size < 0 {
			st, err := c.stampAt(p.in.String() + "/" + p.name)
			if err != nil {
				return Usage{}, err
			}
			size = st.size // 0 if it is gone: then the folder's stamp shows that
		}
		sum.Octets += size
		sum.Messages++
	}
	return sum, nil
}

// same says that two names are one message's: one file's, or one of them is gone.
func (c *census) same(p, q place) (bool, error) {
	first, err1 := c.stampAt(p.in.String() + "/" + p.name)
	second, err2 := c.stampAt(q.in.String() + "/" + q.name)
	return first.id == second.id || first == (stamp{}) || second == (stamp{}), errors.Join(err1, err2)
}
