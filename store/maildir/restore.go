package maildir

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"dewey/maildrop"
	"dewey/store/maildir/uidlist"
)

var errTaken = errors.New("another message has its unique-id")

// Restore brings back, under their old unique-ids, those messages for which choose returns true: it is asked once for
// each that Removed lists, in each Maildir in that order. It returns those that are back, beside any error.
// maildrop.ErrInUse if a session is open. No quota refuses them.
func (s *Store) Restore(ctx context.Context, owner maildrop.Owner, choose func(Removed) bool) ([]Removed, error) {
	seen, others, err := s.lived(owner)
	boxes := slices.Concat(seen, others)
	defer unbindAll(boxes)
	errs := []error{err}
	var all []Removed
	for _, b := range boxes {
		back, err := b.restore(ctx, owner.Life, choose)
		if err != nil {
			errs = append(errs, fmt.Errorf("restoring in %s: %w", b.root, err))
		}
		all = append(all, back...)
	}
	return all, errors.Join(errs...)
}

func (b *box) restore(ctx context.Context, life maildrop.Life, choose func(Removed) bool) (back []Removed, err error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	lock, err := b.store.locks.take(ctx, b, b.store.lockWait)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, lock.release()) }()
	offers, err := b.offers(ctx, life, time.Now())
	if err != nil {
		return nil, err
	}
	offers = slices.DeleteFunc(offers, func(o offer) bool { return !choose(o.Removed) })
	if len(offers) == 0 {
		return nil, nil
	}
	var errs []error
	for some := range slices.Chunk(offers, mostAtOnce) { // so that no delivery of Dovecot's waits long
		some, err := b.restoreSome(ctx, some)
		back = append(back, some...)
		if errs = append(errs, err); len(some) == 0 && err != nil {
			break
		}
	}
	return back, errors.Join(errs...)
}

func (b *box) restoreSome(ctx context.Context, offers []offer) (back []Removed, err error) {
	listLock, err := b.lockList(ctx, max(b.store.lockWait, closeWait))
	if errors.Is(err, errListLocked) { // to try again later would be right
		err = fmt.Errorf("%w: %w", maildrop.ErrInUse, err)
	}
	if err != nil {
		return nil, err
	}
	// It is held until the files are there: who makes the list anew meanwhile leaves out what has none.
	defer func() { err = errors.Join(err, listLock.release()) }()
	r := &restorer{box: b, lock: listLock, dirs: [2]int{-1, -1}}
	defer r.close()
	return r.run(context.WithoutCancel(ctx), offers)
}

// A restorer puts messages back, in this order: their records are durable, with new uids (RFC 3501 section 2.3.1.1: a
// uid does not come back) and the old unique-ids; their files are moved; the folders are made durable.
type restorer struct {
	*box
	lock  *dotlock
	list  *listFile
	trash *trash
	dirs  [2]int // by folder; -1: not open

	here   map[string]place  // messages in new/ and cur/, by base name, and those that are about to be
	used   map[string]string // base names of the messages in here, by unique-id
	coming map[string]*offer // those that are about to be, by unique-id
	fresh  []uidlist.Record  // theirs
	bases  map[string]bool   // of fresh
	shown  map[uint32]bool   // uids of those that are hidden no more
}

func (r *restorer) close() {
	if r.trash != nil {
		r.trash.close()
	}
	for _, fd := range r.dirs {
		if fd >= 0 {
			_ = unix.Close(fd)
		}
	}
}

func (r *restorer) run(ctx context.Context, offers []offer) (back []Removed, err error) {
	if err := r.look(ctx); err != nil {
		return nil, err
	}
	var errs []error
	uids := make([]uint32, len(offers)) // of the new records; 0: none
	any := false
	for i := range offers {
		o := &offers[i]
		if uids[i], err = r.record(o); err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", o.UID, err))
		}
		any = any || uids[i] != 0
	}
	if !any {
		return nil, errors.Join(errs...)
	}
	r.amend()
	fresh := !r.list.onDisk
	if err := r.writeList(r.list, r.lock); err != nil {
		return nil, errors.Join(append(errs, err)...)
	}
	if fresh { // or its loss would not be noticed
		r.attest(r.list.Validity)
	}
	left := map[uint32]bool{}
	for i := range offers {
		o := &offers[i]
		if uids[i] == 0 {
			continue
		}
		if !o.Kept {
			if err := r.move(o); err != nil {
				errs = append(errs, fmt.Errorf("%s: %w", o.UID, err))
				left[uids[i]] = true
				continue
			}
		}
		back = append(back, o.Removed)
	}
	if len(left) > 0 { // or another message might come under that name
		r.list.Records = slices.DeleteFunc(r.list.Records, func(rec uidlist.Record) bool { return left[rec.UID] })
		errs = append(errs, r.writeList(r.list, r.lock))
	}
	if err := r.sync(); err != nil {
		errs = append(errs, fmt.Errorf("restored messages may be among those removed again after a crash: %w", err))
	}
	return back, errors.Join(errs...)
}

// look reads the list, and which of its messages are here.
func (r *restorer) look(ctx context.Context) error {
	var err error
	if r.list, err = r.readList(); err != nil {
		return err
	}
	prev := r.store.cache.get(r.id)
	if r.list.List == nil {
		witnessed, _, err := r.witness()
		if err != nil {
			return err
		}
		r.list.List = r.newList(witnessed, prev)
	}
	if prev != nil && prev.validity == r.list.Validity {
		r.list.Next = max(r.list.Next, prev.next) // trap 24
	}
	r.report(r.list)
	if r.here, err = r.places(ctx); err != nil {
		return err
	}
	r.used, r.coming = map[string]string{}, map[string]*offer{}
	r.bases, r.shown = map[string]bool{}, map[uint32]bool{}
	for i := range r.list.Records {
		rec := &r.list.Records[i]
		if _, ok := r.here[rec.Base]; ok {
			r.used[servedID(rec, r.list.Validity)] = rec.Base
		}
	}
	return nil
}

// record notes what is to become of a message's record: its uid; 0 if there is nothing to be done.
func (r *restorer) record(o *offer) (uint32, error) {
	if o.Kept {
		if r.used[o.own] != o.place.base() {
			return 0, maildrop.ErrGone
		}
		r.shown[o.uid] = true
		return o.uid, nil
	}
	if r.trash == nil {
		var err error
		if r.trash, err = r.openTrash(); err != nil {
			return 0, err
		}
		if r.trash == nil {
			return 0, maildrop.ErrGone
		}
	}
	if base, taken := r.used[o.own]; taken {
		return 0, r.taken(o, base)
	}
	base := o.entry.former.base()
	if _, taken := r.here[base]; taken {
		flags := o.entry.former.name[len(base):]
		rec := uidlist.Record{Keys: o.entry.keys}
		base = newName()
		for _, key := range []byte{uidlist.KeyStored, uidlist.KeyVirtual} {
			if n, ok := rec.GetOctets(key); ok {
				base += fmt.Sprintf(",%c=%d", key, n)
			}
		}
		o.entry.former.name = base + flags
	}
	if r.list.Next > uidlist.MaxUID {
		return 0, fmt.Errorf("%s: no uid is left", r.file(listName))
	}
	rec := uidlist.Record{UID: r.list.Next, Keys: o.entry.keys, Base: base}
	rec.Set(uidlist.KeyUniqueID, o.own)
	r.list.Next++
	r.fresh = append(r.fresh, rec)
	r.here[base], r.used[o.own], r.bases[base] = o.entry.former, base, true
	r.coming[o.own] = o
	return rec.UID, nil
}

// amend brings the list up to date. Records without a file that an attempt has left which died, or a session that
// could not strike them, make way.
func (r *restorer) amend() {
	kept := r.list.Records[:0]
	for _, rec := range r.list.Records {
		if _, again := r.coming[servedID(&rec, r.list.Validity)]; again || r.bases[rec.Base] {
			continue
		}
		if r.shown[rec.UID] {
			rec.Unset(uidlist.KeyRemoved)
		}
		kept = append(kept, rec)
	}
	r.list.Records = append(kept, r.fresh...)
}

// taken is for a message whose unique-id is in use. If it is the same file, which had two names when its removal was
// cut short, there is nothing to bring back.
func (r *restorer) taken(o *offer, base string) error {
	if c := r.coming[o.own]; c != nil {
		if c.st.id != o.st.id || c.entry.name == o.entry.name {
			return errTaken
		}
		return unix.Unlinkat(r.trash.dir, o.entry.name, 0)
	}
	p := r.here[base]
	st, err := r.stampAt(p.in.String() + "/" + p.name)
	if err != nil {
		return err
	}
	if st.id != o.st.id {
		return errTaken
	}
	return unix.Unlinkat(r.trash.dir, o.entry.name, 0)
}

// move puts the file back.
func (r *restorer) move(o *offer) error {
	p := o.entry.former
	path := r.file(p.in.String() + "/" + p.name)
	if err := r.failing("rename", path); err != nil {
		return err
	}
	if r.dirs[p.in] < 0 {
		fd, _, err := r.openFolder(p.in)
		if err != nil {
			return err
		}
		r.dirs[p.in] = fd
	}
	by := Usage{sizeOf(p.name, o.st.size), 1}
	err := r.recount(p.in, r.dirs[p.in], by, func() error {
		return moveFile(r.trash.dir, o.entry.name, r.dirs[p.in], p.name, o.st.id)
	})
	if err != nil {
		return fmt.Errorf("moving it to %s: %w", path, err)
	}
	return nil
}

// sync makes the moves durable, the folders first to which they went.
func (r *restorer) sync() error {
	for _, f := range []folder{inNew, inCur} {
		if r.dirs[f] < 0 {
			continue
		}
		if err := errors.Join(r.failing("sync", r.file(f.String())), unix.Fsync(r.dirs[f])); err != nil {
			return err
		}
	}
	if r.trash == nil {
		return nil
	}
	return r.trash.sync()
}
