package maildir

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path/filepath"
	"slices"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"dewey/maildrop"
	"dewey/store/maildir/uidlist"
)

// Removed is a message that can be brought back.
type Removed struct {
	UID      string    // as it was served
	Octets   int64     // as sent, if that is known; else as stored
	Received time.Time // when it was delivered
	At       time.Time // when it was removed
	Folder   string    // in whose Maildir it was; empty: the owner's own
	Kept     bool      // it is where it was, and hidden: maildrop.DeletionKeep

	disk string // the folder's name on the disk
	file place  // in new/ or cur/ if it is kept; else the name in the trash
	st   stamp
}

// lived are the Maildirs that mail was ever in: those that sessions see, and others among the owner's folders in which
// something was removed that can be brought back, by who asked for one of them. With an error it returns those that could
// be found. Who calls it unbinds them.
func (s *Store) lived(owner maildrop.Owner) (seen, others []*box, err error) {
	boxes, err := s.boxes(owner)
	errs := []error{err}
	for _, b := range boxes {
		if bare, err := b.bare(); err != nil || bare {
			errs = append(errs, err)
			b.unbind()
			continue
		}
		seen = append(seen, b)
	}
	if owner.View.Folder == "" && len(boxes) > 0 {
		others, err = boxes[0].otherTrashes(boxes)
		errs = append(errs, err)
	}
	return seen, others, errors.Join(append(errs, s.name(owner, seen, others))...)
}

// otherTrashes are the folders with a trash that are not among some.
func (b *box) otherTrashes(but []*box) (others []*box, err error) {
	known := map[fileID]bool{}
	for _, b := range but {
		known[b.id] = true
	}
	disks, err := b.diskFolders()()
	errs := []error{err}
	for _, disk := range disks {
		f, err := b.child(disk)
		if f == nil || err != nil {
			errs = append(errs, err)
			continue
		}
		st, err := f.stampAt(trashName)
		if err != nil || st == (stamp{}) || known[f.id] {
			errs = append(errs, err)
			f.unbind()
			continue
		}
		known[f.id] = true
		f.name = folderName(disk)
		others = append(others, f)
	}
	return others, errors.Join(errs...)
}

// name notes which folders' unique-ids are served with a suffix: see distinct.
func (s *Store) name(owner maildrop.Owner, seen, others []*box) error {
	var before []uint32
	var errs []error
	for i, b := range slices.Concat(seen, others) {
		if owner.View.Folder != "" {
			var err error
			before, err = s.validitiesBefore(owner, b)
			errs = append(errs, err)
		}
		v, err := b.validity()
		errs = append(errs, err)
		if b.home != "" && v != 0 && slices.Contains(before, v) {
			b.served = b.suffix()
		}
		if i < len(seen) {
			before = append(before, v)
		}
	}
	return errors.Join(errs...)
}

// An offer is a message that can be brought back, and how.
type offer struct {
	Removed
	own   string  // its unique-id in the list: without a suffix
	entry trashed // unless it is kept
	st    stamp   // of its file
	uid   uint32  // if it is kept
	place place
}

// offer is one with what Removed needs to find its file.
func (b *box) offer(o offer) offer {
	o.UID, o.Folder, o.Removed.st = suffixed(o.own, b.served), b.name, o.st
	if b.home != "" {
		o.disk = filepath.Base(b.root)
	}
	if o.file = o.place; !o.Kept {
		o.file.name = o.entry.name
	}
	return o
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
		all = append(all, b.offer(offer{own: e.uid, entry: e, st: st, Removed: Removed{
			Octets: e.size(st.size), Received: time.Unix(0, st.mtime), At: time.Unix(e.at, 0),
		}}))
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
		if _, gone := goneRecord(rec); !ok || gone {
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
		all = append(all, b.offer(offer{own: servedID(rec, list.Validity), uid: rec.UID, place: p, st: st, Removed: Removed{
			Octets: e.size(st.size), Received: time.Unix(0, st.mtime), At: time.Unix(at, 0), Kept: true,
		}}))
	}
	return all, nil
}

// servedID is the unique-id under which a message is served, but for a suffix: see loader.identify.
func servedID(rec *uidlist.Record, validity uint32) string {
	if id := rec.UniqueID(validity); maildrop.ValidUID(id) {
		return id
	}
	return uidlist.DefaultID(rec.UID, validity)
}

// places are where the messages of new/ and cur/ are, by base name.
func (b *box) places(ctx context.Context) (map[string]place, error) {
	found, err := b.whereabouts(ctx)
	return found.places, err
}

// Removed lists what can be brought back, the one that was removed last at the end. It takes no lock, and makes no
// Maildir where there is none. With an error it returns what it knows of the Maildirs that can be read.
func (s *Store) Removed(ctx context.Context, owner maildrop.Owner) ([]Removed, error) {
	seen, others, err := s.lived(owner)
	boxes := slices.Concat(seen, others)
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

// OpenRemoved returns a message that Removed has listed, as it is stored. maildrop.ErrGone if it is not there any more.
// The caller closes the reader.
func (s *Store) OpenRemoved(ctx context.Context, owner maildrop.Owner, r Removed) (io.ReadCloser, error) {
	b, err := s.own(owner)
	if b != nil && r.disk != "" {
		b, err = b.child(r.disk)
	}
	if err != nil {
		return nil, err
	}
	gone := fmt.Errorf("%s: %w", r.UID, maildrop.ErrGone)
	if b == nil || r.file.name == "" {
		return nil, gone
	}
	defer b.unbind()
	file, err := b.openRemoved(ctx, &r)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, gone
	}
	return file, err
}

// openRemoved returns fs.ErrNotExist if the message is not there, or another under its name.
func (b *box) openRemoved(ctx context.Context, r *Removed) (io.ReadCloser, error) {
	if !r.Kept {
		return b.openTrashed(r)
	}
	file, err := b.openKept(r, r.file)
	if errors.Is(err, fs.ErrNotExist) { // its flags have changed, perhaps
		var places map[string]place
		if places, err = b.places(ctx); err == nil {
			file, err = b.openKept(r, places[r.file.base()])
		}
	}
	return file, err
}

func (b *box) openKept(r *Removed, p place) (io.ReadCloser, error) {
	if p.name == "" {
		return nil, fs.ErrNotExist
	}
	from := dirs{box: b}
	defer from.close()
	file, err := from.open(p)
	if err != nil {
		return nil, err
	}
	return r.same(file, file.fd)
}

func (b *box) openTrashed(r *Removed) (io.ReadCloser, error) {
	t, err := b.openTrash()
	if err == nil && t == nil {
		err = fs.ErrNotExist
	}
	if err != nil {
		return nil, err
	}
	defer t.close()
	file, _, err := t.open(r.file.name, unix.O_RDONLY)
	if err != nil {
		return nil, err
	}
	return r.same(file, int(file.Fd()))
}

// same returns the file if it is the message's; else it closes it.
func (r *Removed) same(file io.ReadCloser, fd int) (io.ReadCloser, error) {
	var st unix.Stat_t
	err := unix.Fstat(fd, &st)
	if now := stampOf(&st); err == nil && (now.id != r.st.id || now.mtime != r.st.mtime || now.size != r.st.size) {
		err = fs.ErrNotExist
	}
	if err != nil {
		return nil, errors.Join(err, file.Close())
	}
	return file, nil
}
