package maildir

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"dewey/maildrop/message"
	"dewey/store/maildir/uidlist"
)

// manyPending is how many sizes, measured at a login, are worth writing the list at once.
const manyPending = cheapMessages + 1

// assign gives unique-ids to the files without a record, and makes them durable. If that cannot be
// done those files are hidden for this session (trap 28); if there is no list at all, it is an error.
func (l *loader) assign(ctx context.Context, known []served) (_, fresh []served, err error) {
	if !l.unwritten(known) {
		l.attestNow()
		return known, nil, nil
	}
	again, fresh, err := l.assignLocked(ctx, known)
	switch {
	case err == nil:
		l.attestNow()
		return again, fresh, nil
	case errors.Is(err, errChanged) || errors.Is(err, errUnread):
		return nil, nil, err
	case !l.list.onDisk:
		return nil, nil, fmt.Errorf("making a list of unique-ids: %w", err)
	}
	for i := range l.files {
		if l.files[i].record < 0 {
			l.hidden++
		}
	}
	l.log.Error("the list cannot be written, new messages are hidden for now", "messages", l.hidden, "error", err)
	return known, nil, nil
}

// errUnread says that the list could not be read again.
var errUnread = errors.New("list of unique-ids")

// unwritten says that the list on disk is not what it should be, and fills l.pending.
func (l *loader) unwritten(known []served) bool {
	l.pending = nil
	for i := range known {
		if f := &l.files[known[i].file]; f.state == justNow {
			if l.pending == nil {
				l.pending = map[uint32]message.Sizes{}
			}
			l.pending[known[i].record.UID] = f.sizes
		}
	}
	if len(l.files) == 0 {
		return false
	}
	return len(known) < len(l.files) || l.anew()
}

// anew says that the whole list has to be written.
func (l *loader) anew() bool {
	return !l.list.onDisk || !l.list.Appendable() || len(l.pending) >= manyPending ||
		l.stopped && len(l.pending) > 0
}

func (l *loader) assignLocked(ctx context.Context, known []served) (_, fresh []served, err error) {
	lock, err := l.lockList(ctx, max(l.store.lockWait, closeWait))
	if err != nil {
		return nil, nil, err
	}
	defer func() { err = errors.Join(err, lock.release()) }()

	now, err := l.stampAt(listName)
	if err != nil {
		return nil, nil, err
	}
	if !l.list.holds(now) {
		list, err := l.readList()
		if err != nil {
			return nil, nil, fmt.Errorf("%w: %w", errUnread, err)
		}
		for i := range l.files {
			l.files[i].record, l.files[i].hidden = -1, false
		}
		known = l.adoptList(list)
		if err := l.guard(known); err != nil {
			return nil, nil, err
		}
		if !l.unwritten(known) {
			return known, nil, nil
		}
	}
	if l.list.List == nil {
		l.list.List = l.newList(l.witnessed, l.prev)
	}
	l.report(l.list)
	records, fresh, err := l.number()
	if err != nil {
		return nil, nil, err
	}
	next := l.list.Next
	if n := len(records); n > 0 {
		l.list.Next = records[n-1].UID + 1
	}
	if l.anew() {
		all := l.list.Records
		for i := range all {
			if sizes, ok := l.pending[all[i].UID]; ok {
				record(&all[i], sizes)
			}
		}
		l.list.Records = append(all, records...)
		if err = l.writeList(l.list, lock); err != nil {
			l.list.Records = all
		} else {
			l.pending = nil
		}
	} else {
		err = l.appendList(l.list, records, lock)
	}
	if err != nil {
		l.list.Next = next
		return nil, nil, err
	}
	return known, fresh, nil
}

// number makes records for the files without one, in Dovecot's order.
func (l *loader) number() ([]uidlist.Record, []served, error) {
	type ranked struct {
		seconds    uint64
		file, rank int
	}
	var files []ranked
	var ranks []uidlist.NameRank
	for i := range l.files {
		if f := &l.files[i]; f.record < 0 {
			if files == nil {
				files, ranks = make([]ranked, 0, len(l.files)-i), make([]uidlist.NameRank, 0, len(l.files)-i)
			}
			r := uidlist.Rank(f.stem)
			files, ranks = append(files, ranked{r.Seconds(), i, len(ranks)}), append(ranks, r)
		}
	}
	slices.SortFunc(files, func(a, b ranked) int {
		if c := cmp.Compare(a.seconds, b.seconds); c != 0 {
			return c
		}
		if c := ranks[a.rank].Compare(&ranks[b.rank]); c != 0 {
			return c
		}
		return strings.Compare(l.files[a.file].name, l.files[b.file].name)
	})
	taken := map[string]bool{} // unique-ids that records name, of removed messages too, and that might look like ours
	for i := range l.list.Records {
		if _, own := l.list.Records[i].Get(uidlist.KeyUniqueID); own {
			taken[l.list.Records[i].UniqueID(l.list.Validity)] = true
		}
	}
	records := make([]uidlist.Record, len(files))
	fresh := make([]served, len(files))
	uid := l.list.Next
	arena := make([]byte, 0, 16*len(files)) // of unique-ids
	for i := range files {
		n := files[i].file
		arena = uidlist.AppendDefaultID(arena, uid, l.list.Validity)
		for taken[string(arena[16*i:])] {
			uid++
			arena = uidlist.AppendDefaultID(arena[:16*i], uid, l.list.Validity)
		}
		if uid > uidlist.MaxUID {
			return nil, nil, fmt.Errorf("%s: no uid is left", l.file(listName))
		}
		rec := &records[i]
		*rec = uidlist.Record{UID: uid, Base: l.files[n].base()}
		if l.files[n].state == justNow {
			record(rec, l.files[n].sizes)
		}
		fresh[i] = served{file: n, record: rec}
		uid++
	}
	ids := string(arena)
	for i := range fresh {
		fresh[i].id = ids[16*i:][:16]
	}
	return records, fresh, nil
}

// attestNow notes the validity that is going to be served.
func (l *loader) attestNow() {
	if l.list.onDisk && l.witnessed != l.list.Validity {
		l.attest(l.list.Validity)
		l.witnessed = l.list.Validity
	}
}

// separate gives a file another base name, since there is another message with the one it has. Left
// alone it would come up later under that message's unique-id.
func (l *loader) separate(p place) error {
	host, _ := os.Hostname()
	t := time.Now()
	name := fmt.Sprintf("%d.M%dP%dR%s.%s", t.Unix(), t.Nanosecond()/1000, os.Getpid(), rand.Text()[:8], uidlist.Base(host))
	to := place{name, inNew}
	from, path, err := l.openFolder(p.in) // not by path: cur/ may have become a link meanwhile
	if err != nil {
		return err
	}
	defer unix.Close(from)
	into, _, err := l.openFolder(to.in)
	if err != nil {
		return err
	}
	defer unix.Close(into)
	err = unix.Renameat(from, p.name, into, to.name)
	if errors.Is(err, unix.ENOENT) {
		return nil
	}
	if err == nil {
		err = errors.Join(unix.Fsync(into), unix.Fsync(from))
	}
	if err != nil {
		return fmt.Errorf("two messages with one base name: %w", &os.PathError{Op: "rename", Path: filepath.Join(path, p.name), Err: err})
	}
	l.log.Warn("two messages had one base name, the second was renamed", "from", p.in.String()+"/"+p.name, "to", to.in.String()+"/"+to.name)
	l.new.settled, l.cur.settled = false, false
	return l.found(to)
}
