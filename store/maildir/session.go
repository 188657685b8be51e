package maildir

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"slices"
	"time"

	"dewey/maildrop"
	"dewey/maildrop/message"
	"dewey/store/maildir/uidlist"
)

// A session is an open Maildir: a maildrop.Maildrop.
type session struct {
	*box
	lock *lock
	snap *snapshot
	dirs dirs
	life maildrop.Life

	places  map[int]place            // where message n is, if not where the snapshot says
	refound map[string]place         // base names of the last scan for files that moved; nil: none yet
	settled bool                     // what is not in refound is gone for good
	pause   time.Duration            // after which a scan that was disturbed may come out better
	sizes   map[int]message.Sizes    // measured in this session
	suspect map[int]bool             // sizes that the file has proved wrong
	pending map[uint32]message.Sizes // to be written to the list
	removed map[uint32]bool          // uids whose records are to be struck from the list
	gone    map[uint32]bool          // uids whose files a job unlinks, and which the list says to be gone
	kept    []int                    // messages that are hidden since the scan
	dates   *dates                   // when the messages were delivered; nil: nobody has asked yet
}

// Messages implements maildrop.Maildrop.
func (s *session) Messages() []maildrop.Message { return s.snap.messages }

// Retrieve implements maildrop.Maildrop. A message whose file is not as it was measured, or that has
// not been measured yet, is measured first, which takes as long as reading it.
func (s *session) Retrieve(ctx context.Context, n int) (maildrop.Message, io.ReadCloser, error) {
	if err := ctx.Err(); err != nil {
		return maildrop.Message{}, nil, err
	}
	if n < 1 || n > len(s.snap.items) {
		return maildrop.Message{}, nil, maildrop.ErrNoMessage
	}
	n--
	file, err := s.openMessage(ctx, n)
	if err != nil {
		return maildrop.Message{}, nil, err
	}
	m, err := s.exact(ctx, n, file)
	if err != nil {
		return maildrop.Message{}, nil, errors.Join(err, file.Close())
	}
	b := &body{session: s, n: n, file: file, whole: whole{ctx: ctx, r: file, left: file.size}, left: m.Octets}
	b.r.Reset(&b.whole)
	return m, b, nil
}

// exact is the message with sizes that hold for the file that is open.
func (s *session) exact(ctx context.Context, n int, file *handle) (maildrop.Message, error) {
	it, m := &s.snap.items[n], s.snap.messages[n]
	known, stored := it.known, it.stored
	if sizes, ok := s.sizes[n]; ok {
		m.Octets, m.Surrogate = sizes.Octets(), sizes.Surrogate
		known, stored = true, sizes.Stored
	}
	if known && file.size == stored && !s.suspect[n] && m.Surrogate == 0 {
		return m, nil // the size of a surrogate is proved each time, for the way to make one may change
	}
	sizes, err := measure(ctx, file)
	if err != nil {
		return maildrop.Message{}, err
	}
	if err := file.rewind(); err != nil {
		return maildrop.Message{}, err
	}
	if known && sizes.Stored == stored && sizes.Octets() == m.Octets && sizes.Surrogate == m.Surrogate {
		return m, nil
	}
	// That a claimed size lacks the line end that sending adds is no fault.
	if known || sizes.CRLF != m.Octets {
		s.log.Warn("a message's recorded size was wrong, it is repaired (trap 11)",
			"file", file.name(), "uid", it.uid, "recorded", m.Octets, "octets", sizes.Octets())
	}
	if s.sizes == nil {
		s.sizes = map[int]message.Sizes{}
	}
	s.sizes[n] = sizes
	delete(s.suspect, n)
	s.note(it.uid, sizes)
	m.Octets, m.Surrogate = sizes.Octets(), sizes.Surrogate
	return m, nil
}

func (s *session) note(uid uint32, sizes message.Sizes) {
	if s.pending == nil {
		s.pending = map[uint32]message.Sizes{}
	}
	s.pending[uid] = sizes
}

// distrusted marks sizes that are to be struck from the list.
var distrusted = message.Sizes{Stored: -1}

func (s *session) distrust(n int) {
	if s.suspect == nil {
		s.suspect = map[int]bool{}
	}
	s.suspect[n] = true
	s.note(s.snap.items[n].uid, distrusted)
}

// A body is a message as it is sent. io.EOF comes after exactly as many octets as were announced; a
// file that holds less or more than it did ends in another error.
type body struct {
	session *session
	n       int // the message, from 0
	file    *handle
	whole   whole // of file
	r       message.Reader
	left    int64
	wrong   bool // the file holds more than was announced
}

var errContent = errors.New("the message is not what it was when it was measured")

func (b *body) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	if b.wrong {
		return 0, errContent
	}
	if b.left == 0 {
		var more [1]byte
		n, err := io.ReadFull(&b.r, more[:])
		if n > 0 {
			b.lied()
			err = errContent
		}
		return 0, err
	}
	n, err := b.r.Read(p)
	if b.left -= int64(n); b.left < 0 {
		b.lied()
		b.wrong = true
		return n + int(b.left), nil // the next Read says it
	}
	return n, b.sound(err)
}

// ReadStuffed is Read with lines byte-stuffed, as message.Reader has it.
func (b *body) ReadStuffed(p []byte) (n, stuffed int, err error) {
	n, stuffed, err = b.r.ReadStuffed(p)
	if b.left -= int64(n - stuffed); b.left < 0 && !b.wrong {
		b.lied()
		b.wrong = true
	}
	switch {
	case b.wrong:
		return 0, 0, errContent
	case err == io.EOF && b.left == 0:
		return n, stuffed, err
	}
	return n, stuffed, b.sound(err)
}

// sound is what Read says of an error, or of an end, that comes before all octets have.
func (b *body) sound(err error) error {
	switch {
	case errors.Is(err, io.ErrUnexpectedEOF): // the file is shorter than it was
		b.lied()
	case err == io.EOF && b.left > 0:
		b.lied()
		err = errContent
	case err == io.EOF:
		err = nil // the next Read says it
	}
	return err
}

// lied says that the file was not what its recorded size says.
func (b *body) lied() {
	b.session.log.Error("a message changed while it was read", "file", b.file.name())
	b.session.distrust(b.n)
}

func (b *body) Close() error { return b.file.Close() }

// openMessage opens message n, wherever it has moved to.
func (s *session) openMessage(ctx context.Context, n int) (*handle, error) {
	for range 5 {
		p, err := s.place(n)
		if err != nil {
			return nil, err
		}
		file, err := s.dirs.open(p)
		if !errors.Is(err, fs.ErrNotExist) {
			return file, err
		}
		s.dirs.close() // they may be others by now
		if err := s.refind(ctx, n, p); err != nil {
			return nil, err
		}
	}
	return nil, fmt.Errorf("%s: %w", s.snap.items[n].name, errMoving)
}

// place is where message n is by the latest news; maildrop.ErrGone if it is gone for good.
func (s *session) place(n int) (place, error) {
	if p, ok := s.places[n]; ok {
		if p.name == "" {
			return place{}, maildrop.ErrGone
		}
		return p, nil
	}
	return s.snap.items[n].place(), nil
}

func (s *session) setPlace(n int, p place) {
	if s.places == nil {
		s.places = map[int]place{}
	}
	s.places[n] = p
}

// errMoving says that a message is not found and may yet be there: the folders never come to rest.
var errMoving = errors.New("message moves all the time")

// refind looks for message n, which is not at p any more: its flags have changed, or it moved from one
// folder to the other (trap 20). One scan finds all messages that have moved by then, and says of all
// others that they are gone, if nothing changed meanwhile: until then it looks again. maildrop.ErrGone
// if this one is gone.
func (s *session) refind(ctx context.Context, n int, p place) error {
	base := s.snap.items[n].base()
	for fresh := range 5 {
		q, ok := s.refound[base]
		switch {
		case ok && (q != p || fresh > 0): // it may have come back to p
			s.setPlace(n, q)
			return nil
		case !ok && s.refound != nil && s.settled:
			s.setPlace(n, place{})
			return maildrop.ErrGone
		case s.refound != nil && !s.settled:
			select { // until the clock of the file system has moved on
			case <-time.After(s.pause):
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		if err := s.rescan(ctx); err != nil {
			return err
		}
	}
	return fmt.Errorf("%s: %w", p.name, errMoving)
}

// rescan finds where all messages are now.
func (s *session) rescan(ctx context.Context) error {
	found, err := s.whereabouts(ctx)
	if err == nil {
		s.refound, s.settled, s.pause = found.places, found.settled, found.pause
	}
	return err
}

// closeWait is how long Close waits for another program that writes the list.
const closeWait = 200 * time.Millisecond

// Close implements maildrop.Maildrop. What was measured is written to the list, and the records of
// removed messages are struck from it, if that can be done.
func (s *session) Close() error {
	s.dirs.close()
	if err := s.flush(); err != nil {
		s.log.Warn("the list of unique-ids is not brought up to date", "error", err)
	}
	s.unbind()
	return s.lock.release()
}

// flush writes the list anew if there are sizes to be written or records to be struck. Records of files
// that others have removed stay: the files may be away for a moment only, a restore or a mount under way,
// and their unique-ids must be there when they come back.
func (s *session) flush() error {
	if len(s.pending) == 0 && len(s.removed) == 0 {
		return nil
	}
	written := false
	list, err := s.update(context.Background(), closeWait, func(l *listFile) bool {
		written = s.amend(l)
		return written
	})
	if err == nil && written {
		s.publish(list)
	}
	return err
}

// amend brings a list up to date with what the session has found out and done; false if it is another list by now.
func (s *session) amend(l *listFile) bool {
	if !l.onDisk || l.Validity != s.snap.validity {
		return false
	}
	l.Next = max(l.Next, s.snap.next)
	l.Records = slices.DeleteFunc(l.Records, func(rec uidlist.Record) bool { return s.removed[rec.UID] })
	for i := range l.Records {
		if sizes, ok := s.pending[l.Records[i].UID]; ok {
			amend(&l.Records[i], sizes)
		}
	}
	return true
}

// amend writes sizes to a record, or takes those away that are not to be believed.
func amend(rec *uidlist.Record, sizes message.Sizes) {
	if sizes == distrusted {
		rec.Unset(uidlist.KeyAdded)
		rec.Unset(uidlist.KeyVirtual)
		return
	}
	record(rec, sizes)
}

// publish hands what was measured, and what has become of the messages, to the sessions to come.
func (s *session) publish(list *listFile) {
	if s.store.cache.get(s.id) != s.snap {
		return
	}
	next := *s.snap
	next.list, next.lines = list.proof, len(list.Records)
	if len(s.sizes) > 0 || len(s.suspect) > 0 || len(s.kept) > 0 {
		next.items, next.messages = slices.Clone(next.items), slices.Clone(next.messages)
	}
	for n, sizes := range s.sizes {
		it, m := &next.items[n], &next.messages[n]
		it.stored, it.known = sizes.Stored, true
		m.Octets, m.Surrogate = sizes.Octets(), sizes.Surrogate
	}
	for n := range maps.Keys(s.suspect) {
		next.items[n].known = false
	}
	for _, n := range s.kept {
		if it := &next.items[n]; !it.hidden {
			it.hidden = true
			next.hidden++
		}
	}
	if len(s.removed)+len(s.gone) > 0 {
		next.strike(func(uid uint32) bool { return s.removed[uid] || s.gone[uid] })
	}
	s.keepSnapshot(&next)
}
