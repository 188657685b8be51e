package lmtp

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"
	"runtime/debug"
	"slices"
	"time"

	"dewey/maildrop"
)

const (
	maxCopies  = 1000 // of one transaction, but for those of a single address
	maxCommits = 16   // of one transaction, at a time
)

// A transaction is what MAIL begins, and the last octet of the message, RSET, LHLO or the connection's end
// ends. RFC 5321 section 3.3.
type transaction struct {
	id         string
	began      time.Time
	from       string
	utf8       bool         // RFC 6531 section 3.4
	recipients []*recipient // in the order of RCPT
	once       []*recipient // each of them once; from the first octet of the message on
	chunked    bool         // BDAT has begun
	octets     int64
	sum        hash.Hash // of the content
	identity   identity
}

// A recipient is an address and who is meant by it. If RCPT named it twice it is in the list twice.
type recipient struct {
	address string
	copies  []*copyOf
	err     error // not nil: it will not get the message
	partly  bool  // although some of its copies were committed
}

// A copyOf a message is for one owner.
type copyOf struct {
	owner     maildrop.Owner
	deposit   maildrop.Deposit
	discarded bool
	mark      mark
	had       bool // the owner has it since an earlier try
	committed bool
	duration  time.Duration
}

// safely calls what is not ours and makes an error of its panic. The session ends then, after its reply.
func (s *session) safely(f func() error) (err error) {
	defer func() {
		if p := recover(); p != nil {
			s.broken.Store(true)
			s.log.Error("panic in session", "panic", p, "stack", string(debug.Stack()))
			err = fmt.Errorf("%w: %v", ErrPanic, p)
		}
	}()
	return f()
}

func (s *session) discard(c *copyOf) {
	if c.discarded {
		return
	}
	c.discarded = true
	_ = s.safely(func() error { c.deposit.Discard(); return nil })
}

// reset ends the transaction. What was not committed is thrown away.
func (s *session) reset() {
	s.begun = false
	if s.tx == nil {
		return
	}
	for _, r := range s.tx.recipients {
		for _, c := range r.copies {
			s.discard(c)
		}
	}
	s.tx = nil
}

// drop says that a recipient will not get the message.
func (s *session) drop(r *recipient, err error) {
	if r.err == nil {
		r.err = err
	}
	for _, c := range r.copies {
		s.discard(c)
	}
}

// find looks up a recipient and begins a deposit for each of its owners: for all, or for none.
func (s *session) find(address string) (*recipient, error) {
	r := &recipient{address: address}
	var owners []maildrop.Owner
	err := s.safely(func() (err error) {
		owners, err = s.srv.Recipients(s.ctx, address)
		return err
	})
	if err == nil && len(owners) == 0 {
		err = errors.New("the address has no owners") // to take the message would be to lose it
	}
	if err != nil {
		return nil, err
	}
	for i, owner := range owners {
		if slices.ContainsFunc(owners[:i], func(o maildrop.Owner) bool { return o.Name == owner.Name && o.Home == owner.Home }) {
			continue // named twice by one address
		}
		err := s.safely(func() error {
			d, err := s.srv.Mail.Deposit(s.ctx, owner)
			if err == nil && d == nil {
				err = errors.New("no Deposit and no error")
			}
			if err == nil {
				r.copies = append(r.copies, &copyOf{owner: owner, deposit: d})
			}
			return err
		})
		if err != nil {
			s.drop(r, err)
			return nil, fmt.Errorf("for %s: %w", owner.Name, err)
		}
	}
	return r, nil
}

// start writes the traces, once, before the first octets of the message: who sends nothing makes us open nothing.
func (s *session) start() {
	t := s.tx
	if t.once != nil {
		return
	}
	t.sum = sha256.New()
	for i, r := range t.recipients {
		if !slices.Contains(t.recipients[:i], r) {
			t.once = append(t.once, r)
			s.write(r, []byte(s.trace(t, r.address)))
		}
	}
}

// take takes the next octets of the message. What has no taker any more is still read, to its end.
func (s *session) take(p []byte) {
	t := s.tx
	if len(p) == 0 {
		return
	}
	s.start()
	// A blank would make the message's first line a part of our Received field. RFC 5322 section 2.2.3.
	folds := t.octets == 0 && (p[0] == ' ' || p[0] == '\t')
	t.octets += int64(len(p))
	if t.tooLarge(s.settings) {
		for _, r := range t.once {
			s.drop(r, ErrTooLarge)
		}
		return
	}
	_, _ = t.sum.Write(p)
	t.identity.look(p)
	for _, r := range t.once {
		if folds {
			s.write(r, []byte("\r\n"))
		}
		s.write(r, p)
	}
}

func (t *transaction) tooLarge(settings *Settings) bool {
	return settings.MaxSize > 0 && t.octets > settings.MaxSize
}

func (s *session) write(r *recipient, p []byte) {
	for _, c := range r.copies {
		if r.err != nil {
			return
		}
		err := s.safely(func() error {
			n, err := c.deposit.Write(p)
			if err == nil && n < len(p) {
				err = io.ErrShortWrite
			}
			return err
		})
		if err != nil {
			s.drop(r, fmt.Errorf("for %s: %w", c.owner.Name, err))
		}
	}
}

// deliver commits all there is to commit, ends the transaction and gives each RCPT its reply, in their order.
// RFC 2033 section 4.2. Not cut short by Shutdown or Close; if Close was faster nothing is committed.
func (s *session) deliver() {
	s.start() // of a message without octets
	t := s.tx
	content := t.sum.Sum(nil)
	if !s.srv.beginCommit(s) {
		for _, r := range t.once {
			s.drop(r, ErrServerClosed)
		}
	}
	ctx := context.WithoutCancel(s.ctx)
	slots := make(chan struct{}, maxCommits)
	for _, r := range t.once {
		if r.err != nil {
			continue
		}
		slots <- struct{}{}
		go func() {
			defer func() { <-slots }()
			s.commit(ctx, r, content)
		}()
	}
	for range cap(slots) {
		slots <- struct{}{} // all have ended
	}
	for _, r := range t.once {
		s.tell(r)
	}
	s.srv.endCommit(s)
	for _, r := range t.recipients {
		if r.err != nil {
			s.say(s.refusal(r.err))
		} else {
			s.say(reply{code: 250, status: "2.0.0", text: "delivered, id " + t.id})
		}
	}
	s.reset()
}

// commit commits a recipient's copies, one after the other, so that as few as possible have a message that
// not all have. It is called on a goroutine of its own.
func (s *session) commit(ctx context.Context, r *recipient, content []byte) {
	for _, c := range r.copies {
		c.mark = marked(content, s.tx.from, r.address, c.owner)
		c.had = s.tx.identity.found && s.srv.memory.take(c.mark)
		if r.err == nil && !c.had {
			began := time.Now()
			r.err = s.safely(func() error { return c.deposit.Commit(ctx) })
			c.duration = time.Since(began)
			c.committed = r.err == nil
			if r.err != nil {
				r.err = fmt.Errorf("for %s: %w", c.owner.Name, r.err)
			}
		}
		s.discard(c)
	}
	var done []mark
	for _, c := range r.copies {
		if c.committed || c.had {
			done = append(done, c.mark)
		}
	}
	if r.partly = r.err != nil && len(done) > 0; r.partly && s.tx.identity.found {
		s.srv.memory.add(done)
	}
}

// tell writes the log and calls the hook for each copy, and notes of whom the sender is about to be told.
func (s *session) tell(r *recipient) {
	t := s.tx
	for _, c := range r.copies {
		err := r.err
		if c.committed || c.had {
			err = nil
		}
		if r.err == nil && t.identity.found {
			s.untold = append(s.untold[max(len(s.untold)-memorySize+1, 0):], c.mark) // of who never waits for replies
		}
		log := s.log.With("id", t.id, "from", t.from, "to", r.address, "user", c.owner.Name, "octets", t.octets)
		switch {
		case err != nil:
			log.LogAttrs(s.ctx, s.level(err), "message not delivered", attr("error", err))
		case c.had:
			log.Info("message was delivered at an earlier try")
		case r.partly:
			log.Error("message delivered to some owners of an address and not to all", "error", r.err)
		default:
			log.Info("message delivered", "duration", c.duration)
		}
		if s.srv.Delivered != nil && !c.had {
			_ = s.safely(func() error {
				s.srv.Delivered(Delivery{ID: t.id, From: t.from, Address: r.address, Owner: c.owner, Octets: t.octets, Err: err})
				return nil
			})
		}
	}
}
