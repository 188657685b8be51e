package maildir

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"

	"golang.org/x/sys/unix"

	"dewey/maildrop"
	"dewey/maildrop/message"
	"dewey/store/maildir/uidlist"
)

// A file is a message found in a scan.
type file struct {
	place
	stem   string // its base name
	record int    // in the list, or -1
	sizes  message.Sizes
	state  state
	hidden bool // see item
}

func (f *file) base() string { return f.stem }

type state uint8

const (
	unknown    state = iota
	claimed          // sizes.CRLF is what a list or the name says
	measured         // and the list says so
	justNow          // measured, and the list does not say so yet
	unreadable       // sizes.Stored is the best guess
	moved            // it was not there any more when it was to be measured
)

// A served message is one that has a unique-id.
type served struct {
	file   int
	record *uidlist.Record
	id     string
	order  uint64 // POP3 order; those without one come last
}

// worthKeeping is how many messages must have been measured for a login that ends early to write
// what it knows to the list.
const worthKeeping = 100

// A loader makes a snapshot.
type loader struct {
	*box
	prev      *snapshot // the last one, or nil
	new, cur  proof
	files     []file
	byBase    map[string]int
	extra     map[int][]place
	list      *listFile
	pending   map[uint32]message.Sizes // to be written to records that are in the list
	known     map[string]message.Sizes // measured in an earlier attempt, by base name
	witnessed uint32                   // validity in the witness, or 0
	hidden    int
	before    stamp      // of the list, before the scan
	gone      []goneFile // what the list says to be removed already
	stopped   bool       // the context ended while much had been measured
}

// mostAttempts is how often a scan is taken anew because files moved while they were measured.
const mostAttempts = 5

// errMoved says that files moved while they were measured: the scan is to be taken again.
var errMoved = errors.New("files moved during the scan")

// open makes the session of a box that is locked.
func (b *box) open(ctx context.Context, lock *lock, owner maildrop.Owner) (*session, error) {
	prev := b.store.cache.get(b.id)
	l := &loader{box: b, prev: prev, known: map[string]message.Sizes{}}
	for attempt := 1; ; attempt++ {
		snap, err := l.load(ctx, attempt == mostAttempts)
		if errors.Is(err, errMoved) {
			continue
		}
		if err != nil {
			return nil, err
		}
		if snap != prev {
			b.keepSnapshot(snap)
		}
		s := &session{box: b, lock: lock, snap: snap, dirs: dirs{box: b}, life: owner.Life, pending: l.pending}
		s.resume(l.gone)
		return s, nil
	}
}

// load takes the scan. The order matters: new/ before cur/ (see the package comment), both before the
// list, since Dovecot writes the list before it adds the files.
func (l *loader) load(ctx context.Context, last bool) (*snapshot, error) {
	var err error
	if l.prev != nil {
		l.before = l.prev.list.stamp
	} else if l.before, err = l.stampAt(listName); err != nil {
		return nil, err
	}
	now, err := l.stampAt(inNew.String())
	if err != nil {
		return nil, err
	}
	newNames, err := l.names(ctx, inNew, now, &l.new)
	if err != nil {
		return nil, err
	}
	now, err = l.stampAt(inCur.String())
	if err != nil {
		return nil, err
	}
	curNames, err := l.names(ctx, inCur, now, &l.cur)
	if err != nil {
		return nil, err
	}
	if curNames != nil {
		if newNames, err = l.back(ctx, newNames); err != nil {
			return nil, err
		}
	}
	now, err = l.stampAt(listName)
	if err != nil {
		return nil, err
	}
	if l.prev != nil && newNames == nil && curNames == nil && l.prev.list.holds(now) {
		return l.prev, nil
	}
	if err := l.index(newNames, curNames); err != nil {
		return nil, err
	}
	if l.prev != nil && l.prev.list.holds(now) {
		if snap := l.again(); snap != nil {
			return snap, nil
		}
	}
	return l.full(ctx, last)
}

// back adds to the names in new/ what has moved there from cur/ while that was read.
func (l *loader) back(ctx context.Context, newNames []string) ([]string, error) {
	list := &listing{stamp: l.new.stamp, stable: true, names: newNames}
	if newNames == nil {
		for i := range l.prev.items {
			if it := &l.prev.items[i]; it.in == inNew {
				list.names = append(list.names, it.name)
			}
		}
	}
	quiet, err := l.box.back(ctx, list)
	if err != nil || quiet {
		return newNames, err
	}
	l.new = proof{list.stamp, false}
	return list.names, nil
}

// names reads a folder, unless the last snapshot still holds for it: then the names are nil.
func (l *loader) names(ctx context.Context, f folder, now stamp, p *proof) ([]string, error) {
	if l.prev != nil {
		before := l.prev.new
		if f == inCur {
			before = l.prev.cur
		}
		if before.holds(now) {
			*p = before
			return nil, nil
		}
	}
	list, err := l.scan(ctx, f)
	if err != nil {
		return nil, err
	}
	*p = proof{list.stamp, list.settled}
	return list.names, nil
}

// index lists the files, each base name once. Names that are nil are those of the last snapshot.
func (l *loader) index(newNames, curNames []string) error {
	n := len(newNames) + len(curNames)
	if newNames == nil || curNames == nil {
		n += len(l.prev.items)
	}
	l.files, l.extra = make([]file, 0, n), nil
	l.byBase = make(map[string]int, n)
	for _, f := range []folder{inNew, inCur} {
		names := newNames
		if f == inCur {
			names = curNames
		}
		if names == nil {
			for i := range l.prev.items {
				if it := &l.prev.items[i]; it.in == f {
					if err := l.found(it.place()); err != nil {
						return err
					}
				}
			}
			continue
		}
		for _, name := range names {
			if err := l.found(place{name, f}); err != nil {
				return err
			}
		}
	}
	return nil
}

// found adds a file. Two names of one file are one message: a mover that died halfway, or was met at
// work. Two files with one base name are two messages, the second of which gets another name.
func (l *loader) found(p place) error {
	base := p.base()
	i, double := l.byBase[base]
	if !double {
		l.byBase[base] = len(l.files)
		l.files = append(l.files, file{place: p, stem: base, record: -1})
		return nil
	}
	first, err1 := l.lstat(l.files[i].place)
	second, err2 := l.lstat(p)
	switch {
	case errors.Is(err2, unix.ENOENT):
	case errors.Is(err1, unix.ENOENT):
		l.files[i].place = p
	case err1 != nil || err2 != nil:
		return errors.Join(err1, err2)
	case first.id == second.id:
		if l.extra == nil {
			l.extra = map[int][]place{}
		}
		l.extra[i] = append(l.extra[i], l.files[i].place)
		l.files[i].place = p
	case second.mtime < first.mtime: // the older one is more likely to be known
		p, l.files[i].place = l.files[i].place, p
		return l.separate(p)
	default:
		return l.separate(p)
	}
	return nil
}

func (l *loader) lstat(p place) (stamp, error) {
	s, err := l.stampAt(p.in.String() + "/" + p.name)
	if err == nil && s == (stamp{}) {
		err = unix.ENOENT
	}
	return s, err
}

// again makes a snapshot of the last one, if that has all the files.
func (l *loader) again() *snapshot {
	if len(l.files) > len(l.prev.items) {
		return nil
	}
	s := *l.prev
	s.new, s.cur, s.extra, s.hidden = l.new, l.cur, nil, 0
	s.items = make([]item, 0, len(l.files))
	s.messages = make([]maildrop.Message, 0, len(l.files))
	for i := range l.prev.items {
		it := l.prev.items[i]
		n, ok := l.byBase[it.base()]
		if !ok {
			continue
		}
		if !it.known && it.stored < 0 {
			return nil // its size is to be found out
		}
		it.name, it.in = l.files[n].name, l.files[n].in
		if it.known && !l.holds(l.files[n].place, it.stored) {
			return nil
		}
		l.keepExtra(&s, n)
		s.add(it, l.prev.messages[i])
	}
	if len(s.items) < len(l.files) {
		return nil
	}
	return &s
}

// keepExtra notes the other names of file n, which comes next in s. It proves nothing then: the names
// have to be found again.
func (l *loader) keepExtra(s *snapshot, n int) {
	if places := l.extra[n]; places != nil {
		if s.extra == nil {
			s.extra = map[int][]place{}
		}
		s.extra[len(s.items)] = places
		s.new.settled, s.cur.settled = false, false
	}
}

// full makes a snapshot of the files and the list, and gives unique-ids to those that have none.
func (l *loader) full(ctx context.Context, last bool) (*snapshot, error) {
	l.pending, l.hidden = nil, 0
	list, err := l.readList()
	if err != nil {
		return nil, err
	}
	known := l.adoptList(list)
	found, err := l.ghosts(ctx, list)
	switch {
	case err != nil:
		return nil, err
	case found && !last:
		return nil, errMoved
	case found:
		known = l.adoptList(list)
	}
	if err := l.guard(known); err != nil { // after ghosts: it would take them for messages with other unique-ids
		return nil, err
	}
	l.prove()
	away, stop := l.measure(ctx)
	if stop == nil && away > 0 && !last {
		return nil, errMoved
	}
	if l.stopped = stop != nil && len(l.known) >= worthKeeping; stop != nil && !l.stopped {
		return nil, stop
	}
	// Even if the time is over, what was measured is kept, so that the next login goes on from there.
	known, fresh, err := l.assign(context.WithoutCancel(ctx), known)
	if err := cmp.Or(stop, err); err != nil {
		return nil, err
	}
	return l.build(known, fresh), nil
}

// adoptList matches the files with a list that was read, and takes the sizes that it knows. guard is to say whether
// its unique-ids are those served before.
func (l *loader) adoptList(list *listFile) []served {
	l.list = list
	if l.prev != nil && list.List != nil && list.Validity == l.prev.validity {
		list.Next = max(list.Next, l.prev.next) // trap 24
	}
	var known []served
	if list.List != nil {
		l.passOver(list)
		known = make([]served, 0, len(l.files))
		for i := range list.Records {
			rec := &list.Records[i]
			n, ok := l.byBase[rec.Base]
			if !ok {
				continue
			}
			l.files[n].record = i
			l.files[n].recorded(rec)
			known = append(known, served{file: n, record: rec, order: order(rec)})
		}
		slices.SortStableFunc(known, func(a, b served) int { return cmp.Compare(a.order, b.order) })
		l.identify(known)
	}
	return known
}

func order(rec *uidlist.Record) uint64 {
	if value, ok := rec.Get(uidlist.KeyOrder); ok {
		if n, err := strconv.ParseUint(value, 10, 32); err == nil {
			return n
		}
	}
	return 1<<64 - 1
}

// identify gives each message its unique-id (traps 25, 27). One that RFC 1939 does not allow, or that
// another message has, is not served; the one made of uid and validity stands in for it.
func (l *loader) identify(known []served) {
	arena := make([]byte, 0, 16*len(known))
	for i := range known {
		arena = uidlist.AppendDefaultID(arena, known[i].record.UID, l.list.Validity)
	}
	ids, own := string(arena), false
	for i := range known {
		known[i].id = ids[16*i:][:16]
		_, has := known[i].record.Get(uidlist.KeyUniqueID)
		own = own || has
	}
	if !own {
		return
	}
	taken := make(map[string]int, len(known))
	for i := range known {
		taken[known[i].id] = i
	}
	for i := range known {
		m := &known[i]
		id := m.record.UniqueID(l.list.Validity)
		if id == m.id {
			continue
		}
		if !maildrop.ValidUID(id) {
			l.log.Warn("a unique-id that RFC 1939 does not allow is not served", "uid", m.record.UID, "unique_id", id, "instead", m.id)
			continue
		}
		if _, double := taken[id]; double {
			l.log.Warn("two messages have one unique-id, the second is given another", "uid", m.record.UID, "unique_id", id, "instead", m.id)
			// For good: it must not get that unique-id when the other message is gone.
			m.record.Set(uidlist.KeyUniqueID, m.id)
			l.list.Faults = append(l.list.Faults, uidlist.Fault{What: fmt.Sprintf("unique-id twice: %q", id)})
			continue
		}
		taken[id] = i
		m.id = id
	}
}

// build makes the snapshot of messages that have unique-ids.
func (l *loader) build(known, fresh []served) *snapshot {
	s := &snapshot{new: l.new, cur: l.cur, list: l.list.proof, witnessed: l.witnessed != 0}
	if l.list.List != nil {
		s.validity, s.next, s.lines = l.list.Validity, l.list.Next, l.list.Lines
	}
	s.items = make([]item, 0, len(known)+len(fresh))
	s.messages = make([]maildrop.Message, 0, len(known)+len(fresh))
	missing := l.hidden > 0
	for _, list := range [][]served{known, fresh} {
		for i := range list {
			f := &l.files[list[i].file]
			// One that was not where it was seen, time and again, is not hidden for that.
			missing = missing || f.state == moved
			it, m := f.item()
			it.uid, m.UID = list[i].record.UID, list[i].id
			l.keepExtra(s, list[i].file)
			missing = missing || !it.known && it.stored < 0
			s.add(it, m)
		}
	}
	if missing { // they have to be found at the next login
		s.new.settled, s.cur.settled = false, false
	}
	return s
}
