// Package mem keeps maildrops in memory, for examples and tests. Nothing in it survives the process.
package mem

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"dewey/maildrop"
	"dewey/maildrop/message"
)

// A Store keeps a maildrop for each owner's name. Its zero value is empty and ready for use; it must
// not be copied. Its methods may be called from many goroutines at once.
type Store struct {
	// LockWait is how long Open waits for a maildrop that is in use; zero or less: not at all. It is
	// set before the first Open.
	LockWait time.Duration

	mu    sync.Mutex
	boxes map[string]*box
}

// A box is one owner's mail. The Store's mutex guards it.
type box struct {
	free     chan struct{} // holds one token while no session has the maildrop
	validity string        // tells this box's unique-ids from those of any other
	last     uint64        // the number in the latest unique-id
	mail     []mail
}

type mail struct {
	maildrop.Message
	received time.Time
	stored   []byte // never changed
}

// New returns an empty Store.
func New() *Store { return new(Store) }

func (s *Store) box(name string) *box {
	b := s.boxes[name]
	if b == nil {
		if s.boxes == nil {
			s.boxes = map[string]*box{}
		}
		b = &box{free: make(chan struct{}, 1), validity: rand.Text()}
		b.free <- struct{}{}
		s.boxes[name] = b
	}
	return b
}

// Deliver adds a copy of a message, its lines ending in LF or CRLF, to an owner's maildrop and
// returns its unique-id. A session that is under way does not see it.
func (s *Store) Deliver(name string, stored []byte) string {
	return s.DeliverAt(name, stored, time.Now())
}

// DeliverAt delivers a message as at another time.
func (s *Store) DeliverAt(name string, stored []byte, received time.Time) string {
	sizes, _ := message.Measure(bytes.NewReader(stored)) // such a reader has no errors
	s.mu.Lock()
	defer s.mu.Unlock()
	b := s.box(name)
	b.last++
	m := mail{
		Message: maildrop.Message{
			UID:       fmt.Sprintf("%s.%d", b.validity, b.last),
			Octets:    sizes.Octets(),
			Surrogate: sizes.Surrogate,
		},
		received: received,
		stored:   bytes.Clone(stored),
	}
	b.mail = append(b.mail, m)
	return m.UID
}

// Deposit implements maildrop.Depositor. It keeps what comes in octet for octet.
func (s *Store) Deposit(ctx context.Context, owner maildrop.Owner) (maildrop.Deposit, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	return &deposit{store: s, name: owner.Name}, nil
}

type deposit struct {
	store *Store
	name  string
	text  bytes.Buffer
	over  bool
}

var errOver = errors.New("the deposit is over")

func (d *deposit) Write(p []byte) (int, error) {
	if d.over {
		return 0, errOver
	}
	return d.text.Write(p)
}

func (d *deposit) Commit(ctx context.Context) error {
	if d.over {
		return errOver
	}
	defer d.Discard()
	if err := ctx.Err(); err != nil {
		return err
	}
	d.store.Deliver(d.name, d.text.Bytes())
	return nil
}

func (d *deposit) Discard() { d.over, d.text = true, bytes.Buffer{} }

// Expunge removes a message as somebody else than a POP3 session would, and tells whether it was there.
func (s *Store) Expunge(name, uid string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.box(name).remove(uid)
}

// Messages returns what an owner's maildrop holds.
func (s *Store) Messages(name string) []maildrop.Message {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.box(name).scan()
}

func (b *box) scan() []maildrop.Message {
	scan := make([]maildrop.Message, len(b.mail))
	for i := range b.mail {
		scan[i] = b.mail[i].Message
	}
	return scan
}

func (b *box) find(uid string) (int, bool) {
	for i := range b.mail {
		if b.mail[i].UID == uid {
			return i, true
		}
	}
	return 0, false
}

func (b *box) remove(uid string) bool {
	i, ok := b.find(uid)
	if ok {
		b.mail = append(b.mail[:i], b.mail[i+1:]...)
	}
	return ok
}

// Open implements maildrop.Store. Maildrops are told apart by the owner's Name; one that nothing was
// delivered to is empty.
func (s *Store) Open(ctx context.Context, owner maildrop.Owner) (maildrop.Maildrop, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	s.mu.Lock()
	b := s.box(owner.Name)
	s.mu.Unlock()

	if err := b.lock(ctx, s.LockWait); err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return &session{store: s, box: b, scan: b.scan()}, nil
}

func (b *box) lock(ctx context.Context, wait time.Duration) error {
	select {
	case <-b.free:
		return nil
	default:
	}
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-b.free:
		return nil
	case <-timer.C:
		return maildrop.ErrInUse
	case <-ctx.Done():
		return ctx.Err()
	}
}

type session struct {
	store *Store
	box   *box
	scan  []maildrop.Message
	done  bool
}

func (d *session) Messages() []maildrop.Message { return d.scan }

func (d *session) Retrieve(ctx context.Context, n int) (maildrop.Message, io.ReadCloser, error) {
	m, err := d.find(ctx, n)
	if err != nil {
		return maildrop.Message{}, nil, err
	}
	return d.scan[n-1], io.NopCloser(message.NewReader(bytes.NewReader(m.stored))), nil
}

// Received implements maildrop.Dated.
func (d *session) Received(ctx context.Context, n int) (time.Time, error) {
	m, err := d.find(ctx, n)
	return m.received, err
}

func (d *session) find(ctx context.Context, n int) (mail, error) {
	if err := ctx.Err(); err != nil {
		return mail{}, err
	}
	if n < 1 || n > len(d.scan) {
		return mail{}, maildrop.ErrNoMessage
	}
	d.store.mu.Lock()
	defer d.store.mu.Unlock()
	i, ok := d.box.find(d.scan[n-1].UID)
	if !ok {
		return mail{}, maildrop.ErrGone
	}
	return d.box.mail[i], nil
}

func (d *session) Remove(ctx context.Context, numbers []int) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	gone := make(map[string]bool, len(numbers))
	for _, n := range numbers {
		if n < 1 || n > len(d.scan) {
			return maildrop.ErrNoMessage
		}
		gone[d.scan[n-1].UID] = true
	}
	d.store.mu.Lock()
	defer d.store.mu.Unlock()
	var kept []mail
	for _, m := range d.box.mail {
		if !gone[m.UID] {
			kept = append(kept, m)
		}
	}
	d.box.mail = kept
	return nil
}

func (d *session) Close() error {
	if !d.done {
		d.done = true
		d.box.free <- struct{}{}
	}
	return nil
}
