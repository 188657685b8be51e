package maildir

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"dewey/maildrop"
	"dewey/store/maildir/uidlist"
)

// Removed is a message that can be brought back.
type Removed struct {
	UID      string
	Octets   int64     // as sent, if that is known; else as stored
	Received time.Time // when it was delivered
	At       time.Time // when it was removed
	Folder   string    // in whose Maildir it was; empty: the owner's own
	Kept     bool      // it is where it was, and hidden: maildrop.DeletionKeep
}

// livedIn are the Maildirs among boxes that mail was ever in.
func (s *Store) livedIn(owner maildrop.Owner) ([]*box, error) {
	boxes, err := s.boxes(owner)
	if err != nil {
		return nil, err
	}
	var lived []*box
	for _, b := range boxes {
		bare, err := b.bare()
		if err != nil {
			unbindAll(boxes)
			return nil, err
		}
		if bare {
			b.unbind()
		} else {
			lived = append(lived, b)
		}
	}
	return lived, nil
}

// An offer is a message that can be brought back, and how.
type offer struct {
	Removed
	entry trashed // unless it is kept
	st    stamp   // of its file there
	uid   uint32  // if it is kept
	place place
}

// offers are the messages that can be brought back, the one that was removed last at the end. Where nothing is kept for
// a while any more, what is still there is offered until Sweep comes.
func (b *box) offers(ctx context.Context, life maildrop.Life, now time.Time) ([]offer, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	all, err := b.trashed(life, now)
	if err != nil {
		return nil, err
	}
	kept, err := b.kept(ctx)
	if err != nil {
		return nil, err
	}
	all = append(all, kept...)
	slices.SortStableFunc(all, func(x, y offer) int { return x.At.Compare(y.At) })
	return all, nil
}

func (b *box) trashed(life maildrop.Life, now time.Time) ([]offer, error) {
	t, err := b.openTrash()
	if t == nil || err != nil {
		return nil, err
	}
	defer t.close()
	stock, err := t.stock()
	if err != nil {
		return nil, err
	}
	all := make([]offer, 0, len(stock.entries))
	for i, e := range stock.entries {
		if life.Undelete > 0 && over(e.at, life, now) {
			continue
		}
		st := stock.stamps[i]
		all = append(all, offer{entry: e, st: st, Removed: Removed{
			UID: e.uid, Octets: e.size(st.size), Received: time.Unix(0, st.mtime), At: time.Unix(e.at, 0), Folder: b.name,
		}})
	}
	return all, nil
}

// kept are the messages that are hidden.
func (b *box) kept(ctx context.Context) ([]offer, error) {
	list, err := b.readList()
	if err != nil || list.List == nil {
		return nil, err
	}
	var (
		all    []offer
		places map[string]place
	)
	for i := range list.Records {
		rec := &list.Records[i]
		value, ok := rec.Get(uidlist.KeyRemoved)
		if !ok {
			continue
		}
		if places == nil {
			if places, err = b.places(ctx); err != nil {
				return nil, err
			}
		}
		p, here := places[rec.Base]
		if !here {
			continue
		}
		st, err := b.stampAt(p.in.String() + "/" + p.name)
		if err != nil {
			return nil, err
		}
		if st == (stamp{}) {
			continue
		}
		at, _ := strconv.ParseInt(value, 10, 64) // 0 if it is none: long ago
		e := trashed{former: p, keys: rec.Keys}
		all = append(all, offer{uid: rec.UID, place: p, Removed: Removed{
			UID: servedID(rec, list.Validity), Octets: e.size(st.size), Received: time.Unix(0, st.mtime),
			At: time.Unix(at, 0), Folder: b.name, Kept: true,
		}})
	}
	return all, nil
}

// servedID is the unique-id under which a message is served: see loader.identify.
func servedID(rec *uidlist.Record, validity uint32) string {
	if id := rec.UniqueID(validity); maildrop.ValidUID(id) {
		return id
	}
	return uidlist.DefaultID(rec.UID, validity)
}

// places are where the messages of new/ and cur/ are, by base name.
func (b *box) places(ctx context.Context) (map[string]place, error) {
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
	all := make(map[string]place, len(lists[inNew].names)+len(lists[inCur].names))
	for f, l := range lists {
		for _, name := range l.names {
			p := place{name, folder(f)}
			all[p.base()] = p
		}
	}
	return all, nil
}

// Removed lists what can be brought back, the one that was removed last at the end. It takes no lock, and makes no
// Maildir where there is none. With an error it returns what it knows of the Maildirs that can be read.
func (s *Store) Removed(ctx context.Context, owner maildrop.Owner) ([]Removed, error) {
	boxes, err := s.livedIn(owner)
	defer unbindAll(boxes)
	errs := []error{err}
	var all []Removed
	for _, b := range boxes {
		offers, err := b.offers(ctx, owner.Life, time.Now())
		if err != nil {
			errs = append(errs, fmt.Errorf("removed messages in %s: %w", b.root, err))
		}
		for i := range offers {
			all = append(all, offers[i].Removed)
		}
	}
	slices.SortStableFunc(all, func(x, y Removed) int { return x.At.Compare(y.At) })
	return all, errors.Join(errs...)
}

// OpenRemoved returns a message that can be brought back, as it is stored. maildrop.ErrGone if it can't any more. The
// caller closes the reader.
func (s *Store) OpenRemoved(ctx context.Context, owner maildrop.Owner, r Removed) (io.ReadCloser, error) {
	boxes, err := s.livedIn(owner)
	defer unbindAll(boxes)
	for _, b := range boxes {
		if b.name != r.Folder {
			continue
		}
		var offers []offer
		if offers, err = b.offers(ctx, owner.Life, time.Now()); err != nil {
			return nil, err
		}
		for _, o := range slices.Backward(offers) {
			if o.UID != r.UID || o.Kept != r.Kept || o.At.Unix() != r.At.Unix() {
				continue
			}
			file, err := b.openOffer(&o)
			if errors.Is(err, fs.ErrNotExist) {
				break
			}
			return file, err
		}
	}
	return nil, cmp.Or(err, fmt.Errorf("%s: %w", r.UID, maildrop.ErrGone))
}

func (b *box) openOffer(o *offer) (io.ReadCloser, error) {
	if o.Kept {
		from := dirs{box: b}
		defer from.close()
		file, err := from.open(o.place)
		if err != nil {
			return nil, err
		}
		return file, nil
	}
	t, err := b.openTrash()
	if err == nil && t == nil {
		err = fs.ErrNotExist
	}
	if err != nil {
		return nil, err
	}
	defer t.close()
	file, _, err := t.open(o.entry.name, unix.O_RDONLY)
	if err != nil {
		return nil, err
	}
	return file, nil
}
