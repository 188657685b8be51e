package pop3server

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"

	"dewey/internal/popwire"
	"dewey/maildrop"
	"dewey/maildrop/message"
	"dewey/pop3"
)

// summary says in words what is in the maildrop.
func (s *session) summary() string {
	if s.count == 1 {
		return s.lang.say("1 message (%d octets)", s.total)
	}
	return s.lang.say("%d messages (%d octets)", s.count, s.total)
}

// find returns the number of a message that is there and not marked as deleted. RFC 1939 section 5.
func (s *session) find(arg string) (int, error) {
	n, err := number(arg)
	switch {
	case err != nil:
		return 0, err
	case n < 1 || n > int64(len(s.scan)):
		return 0, maildrop.ErrNoMessage
	case s.marks[n-1]&deleted != 0:
		return 0, errDeleted
	}
	return int(n), nil
}

// listing is the response to LIST and UIDL without an argument: a line for each message that is not
// marked as deleted.
func (s *session) listing(line func(w *popwire.Writer, number int, m maildrop.Message) error) response {
	return response{text: s.summary(), body: func(w *popwire.Writer) error {
		for i, m := range s.scan {
			if s.marks[i]&deleted != 0 {
				continue // but the numbers stay: trap 12
			}
			if err := line(w, i+1, m); err != nil {
				return err
			}
		}
		return nil
	}}
}

func (s *session) stat(context.Context, []string) (response, error) {
	return response{text: strconv.Itoa(s.count) + " " + strconv.FormatInt(s.total, 10)}, nil
}

func (s *session) list(_ context.Context, args []string) (response, error) {
	if len(args) == 0 {
		return s.listing(func(w *popwire.Writer, n int, m maildrop.Message) error { return w.Number(n, s.octets(m)) }), nil
	}
	n, err := s.find(args[0])
	if err != nil {
		return response{}, err
	}
	return response{text: strconv.Itoa(n) + " " + strconv.FormatInt(s.octets(s.scan[n-1]), 10)}, nil
}

func (s *session) uidl(_ context.Context, args []string) (response, error) {
	if len(args) == 0 {
		return s.listing(func(w *popwire.Writer, n int, m maildrop.Message) error { return w.UID(n, m.UID) }), nil
	}
	n, err := s.find(args[0])
	if err != nil {
		return response{}, err
	}
	return response{text: strconv.Itoa(n) + " " + s.scan[n-1].UID}, nil
}

// retr sends one message. The octets it announces are those LIST announced, unless the store's record
// of them proved wrong; then LIST says so from now on too.
func (s *session) retr(ctx context.Context, args []string) (response, error) {
	n, err := s.find(args[0])
	if err != nil {
		return response{}, err
	}
	m, body, err := s.open(ctx, n)
	if err != nil {
		return response{}, err
	}
	octets := s.octets(m)
	return response{text: s.lang.say("%d octets", octets), message: body, body: func(w *popwire.Writer) error {
		err := w.Message(body, octets)
		if err == nil {
			s.marks[n-1] |= fetched // if it can't be ended, or sent, the session ends without UPDATE
		}
		s.retrieved(n, m, err)
		return err
	}}, nil
}

// top sends the header section, the empty line and the first lines of the body; with more lines than
// there are it is RETR, and fetchmail uses it so. RFC 1939 section 7.
func (s *session) top(ctx context.Context, args []string) (response, error) {
	n, err := s.find(args[0])
	if err != nil {
		return response{}, err
	}
	lines, err := number(args[1])
	if err != nil {
		return response{}, err
	}
	m, body, err := s.open(ctx, n)
	if err != nil {
		return response{}, err
	}
	return response{text: s.lang.say("top of message follows"), message: body, body: func(w *popwire.Writer) error {
		cut := &topReader{r: body, lines: lines, octets: s.octets(m)}
		err := w.Message(cut, -1)
		if !cut.cut {
			s.retrieved(n, m, err)
		}
		return err
	}}, nil
}

// open opens a message in the form that this client can have.
func (s *session) open(ctx context.Context, n int) (maildrop.Message, io.ReadCloser, error) {
	m, body, err := s.held.Retrieve(ctx, n)
	if err != nil {
		return m, nil, fmt.Errorf("message %d (unique-id %s): %w", n, s.scan[n-1].UID, err)
	}
	old := &s.scan[n-1]
	s.total += s.octets(m) - s.octets(*old)
	old.Octets, old.Surrogate = m.Octets, m.Surrogate
	if s.utf8 || m.Surrogate == 0 {
		return m, body, nil
	}
	surrogate, err := message.NewSurrogate(body)
	if err != nil {
		return m, nil, errors.Join(err, body.Close())
	}
	return m, readCloser{surrogate, body}, nil
}

type readCloser struct {
	io.Reader
	io.Closer
}

func (s *session) retrieved(n int, m maildrop.Message, err error) {
	if err == nil {
		s.end.Retrieved++
		s.end.Octets += s.octets(m)
	}
	if s.srv.Hooks.Retrieved != nil {
		s.srv.Hooks.Retrieved(s.info, n, m, err)
	}
}

func (s *session) dele(_ context.Context, args []string) (response, error) {
	n, err := s.find(args[0])
	if err != nil {
		return response{}, err
	}
	s.marks[n-1] |= deleted
	s.count--
	s.total -= s.octets(s.scan[n-1])
	return response{text: s.lang.say("message %d deleted", n)}, nil
}

func (s *session) noop(context.Context, []string) (response, error) {
	return response{}, nil
}

// rset takes the marks away, and forgets what was retrieved. It reads nothing anew: numbers and sizes stay (trap 18).
func (s *session) rset(context.Context, []string) (response, error) {
	s.count, s.total = len(s.scan), 0
	for i, m := range s.scan {
		s.marks[i] = 0
		s.total += s.octets(m)
	}
	return response{text: s.summary()}, nil
}

// quit is the one door into UPDATE; a lost connection never passes it. The maildrop and the user's place
// are free before the reply, so that the client may come back at once. RFC 1939 sections 4 and 6.
func (s *session) quit(ctx context.Context, _ []string) (response, error) {
	defer s.move(pop3.Closed)
	if s.state == pop3.Authorization {
		return response{text: s.lang.say("bye")}, nil
	}
	gone, err := s.enterUpdate()
	if err != nil {
		return response{}, err
	}
	defer s.srv.endUpdate(s)
	defer s.place.logout()
	defer s.release()
	// What the client asked for is done, even if it hangs up now or the server is told to close.
	if err := s.update(context.WithoutCancel(ctx), gone); err != nil {
		return response{}, err
	}
	return response{text: s.lang.say("bye")}, nil
}

// enterUpdate is passed by a client that can have had all that it asked for: what it pipelined before
// QUIT goes out first, so that no message is removed that there was no chance to get. It returns the numbers of
// those that are to be removed.
func (s *session) enterUpdate() ([]int, error) {
	gone := s.marked(deleted)
	if s.implied {
		gone = s.marked(deleted | fetched)
	}
	if len(gone) > 0 {
		if err := s.out.Flush(); err != nil {
			return nil, err
		}
		if s.ahead && hungUp(s.conn.accepted) { // what was sent may be unread, and only a DELE says that it need not be
			gone = s.marked(deleted)
		}
	}
	if !s.srv.beginUpdate(s) {
		<-s.ctx.Done() // Close is about to abort this session
		return nil, context.Cause(s.ctx)
	}
	s.move(pop3.Update)
	return gone, nil
}

// marked returns the numbers of the messages that have one of the marks.
func (s *session) marked(with mark) []int {
	var numbers []int
	for i, m := range s.marks {
		if m&with != 0 {
			numbers = append(numbers, i+1)
		}
	}
	return numbers
}

// update removes the messages of these numbers.
func (s *session) update(ctx context.Context, numbers []int) error {
	if len(numbers) == 0 {
		return nil
	}
	messages := make([]maildrop.Message, len(numbers))
	for i, n := range numbers {
		messages[i] = s.scan[n-1]
	}
	err := s.held.Remove(ctx, numbers)
	if err == nil {
		s.end.Removed = len(numbers)
	} else {
		s.log.Error("messages not removed", "user", s.info.User, "messages", len(numbers), "error", err)
		err = fmt.Errorf("%w: %w", errNotRemoved, err)
	}
	if s.srv.Hooks.Updated != nil {
		s.srv.Hooks.Updated(s.info, messages, err)
	}
	return err
}
