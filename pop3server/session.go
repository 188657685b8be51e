package pop3server

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math"
	"net"
	"os"
	"strings"
	"sync/atomic"
	"time"

	"dewey/internal/popwire"
	"dewey/maildrop"
	"dewey/pop3"
)

// A session is one connection's. Its goroutine alone touches it (see serve), but for abort and loggedIn.
type session struct {
	srv      *Server
	settings *Settings // as they were when it began
	conn     *conn
	local    bool      // the client is on this machine
	trusted  bool      // its address is in Settings.Trusted
	secure   bool      // TLS protects the connection, up to here or up to a proxy
	implicit bool      // TLS begins at once
	tls      *tls.Conn // nil if we do not speak TLS ourselves
	in       *popwire.Reader
	out      *popwire.Writer
	log      *slog.Logger
	info     Session
	began    time.Time
	ctx      context.Context
	cancel   context.CancelCauseFunc
	unhook   func() bool // ctx closes the connection no more
	loggedIn atomic.Bool // a login succeeded
	updating bool        // in UPDATE; srv.mu guards it
	replying bool        // done with it; srv.mu guards it

	state   pop3.State
	utf8    bool  // RFC 6856 section 2.1
	ahead   bool  // the last line came before all responses to earlier ones were sent
	implied bool  // what was retrieved is removed like what is marked: maildrop.DeletionRetrieved
	last    error // not nil: the session ends after the response
	lang    *language
	user    string // of the USER just before; empty if there was none

	timestamp string // the greeting's, for APOP; empty if APOP is not offered
	failed    int    // logins that were refused, and exchanges that were broken
	refused   int    // other commands that were, before login
	signed    int    // lines of a PROXY header's signature that came

	place  *place
	held   maildrop.Maildrop  // nil outside TRANSACTION and UPDATE
	scan   []maildrop.Message // as the maildrop gave it; sizes are mended where they proved wrong
	marks  []mark             // in step with scan
	count  int                // messages that are not marked as deleted
	total  int64              // their octets
	expiry expiry             // the user's

	end End
}

// A mark is what a session notes of a message.
type mark uint8

const (
	deleted mark = 1 << iota // by DELE
	fetched                  // by RETR, whole
)

func newSession(srv *Server, base context.Context, c net.Conn, implicit bool) *session {
	settings := srv.settings.Load()
	s := &session{
		srv:      srv,
		settings: settings,
		conn:     &conn{Conn: c, accepted: c, timeout: settings.WriteTimeout},
		began:    time.Now(),
		state:    pop3.Authorization,
		info:     Session{ID: srv.lastID.Add(1)},
		implicit: implicit,
	}
	s.log = srv.Logger            // until name
	s.conn.until = s.loginUntil() // a client that takes little at a time may not stay for ever either
	s.out = popwire.NewWriter(s.conn)
	s.ctx, s.cancel = context.WithCancelCause(base)
	return s
}

// moves lists every state change that a session may make. RFC 1939 section 3.
var moves = map[pop3.State]pop3.State{
	pop3.Authorization: pop3.Transaction | pop3.Closed,
	pop3.Transaction:   pop3.Update | pop3.Closed,
	pop3.Update:        pop3.Closed,
}

// move is the only place where the state changes.
func (s *session) move(to pop3.State) {
	if s.state != to && moves[s.state]&to == 0 {
		panic(fmt.Sprintf("session in %v moves to %v", s.state, to))
	}
	s.state = to
}

// abort ends the session from another goroutine, without a word.
func (s *session) abort(why error) {
	s.cancel(fmt.Errorf("%w: %w", errAborted, why))
	_ = s.conn.Close()
}

// serve runs the session to its end and gives back what it holds. Nothing is removed here but by run. A
// panic, also in a store's Close or in a hook, ends this session and no other.
//
// Handshakes, hashes and scans need a large stack. It goes with this goroutine: who has logged in is served by another,
// since a session that waits in TRANSACTION is to keep a small one.
func (s *session) serve() {
	_ = roomy(0)
	s.unhook = context.AfterFunc(s.ctx, func() { _ = s.conn.Close() })
	s.guard(func() { s.end.Err = s.authorize() })
	if s.end.Err == nil && s.state == pop3.Transaction {
		go s.transact()
		return
	}
	s.over()
}

func (s *session) transact() {
	s.guard(func() { s.end.Err = s.run() })
	s.over()
}

func (s *session) over() {
	defer s.srv.remove(s)
	defer s.unhook()
	s.close()
}

// wrap lets Server.Wrap have the connection first, and learns who is at its ends.
func (s *session) wrap() error {
	c := s.conn.accepted
	if s.srv.Wrap != nil {
		wrapped, err := s.srv.Wrap(s.ctx, c)
		if err != nil {
			s.info.Remote = addrPort(c.RemoteAddr())
			s.name()
			level := slog.LevelWarn
			if errors.Is(err, io.EOF) {
				level = slog.LevelDebug // a balancer that looks whether we listen
			}
			s.log.Log(s.ctx, level, "connection refused", "reason", err)
			return err
		}
		c = wrapped
	}
	s.conn.Conn = c
	s.in = popwire.NewReader(&promptReader{c, c})
	if p, ok := c.(interface{ Secured() bool }); ok {
		s.secure = p.Secured()
	}
	remote := c.RemoteAddr()
	s.info.Remote, s.info.Local = addrPort(remote), addrPort(c.LocalAddr())
	s.local = isLocal(remote) && isLocal(s.conn.accepted.RemoteAddr()) // a proxy's loopback is not ours
	s.trusted = trusted(s.settings.Trusted, s.info.Remote.Addr())
	s.name()
	return nil
}

// name names the session in the log.
func (s *session) name() {
	known := []any{"session", s.info.ID}
	if s.info.Remote.IsValid() {
		known = append(known, "remote", s.info.Remote.String())
	}
	s.log = s.srv.Logger.With(known...)
}

// run takes the commands of TRANSACTION until the session ends: nil after QUIT. While it waits for a line
// its goroutine's stack is to be shallow, or it stays twice as large: TestIdleSession.
func (s *session) run() error {
	for s.state != pop3.Closed {
		line, err := s.next((*popwire.Reader).ReadLine)
		if err := s.answer(math.MaxInt, line, err); err != nil {
			return err
		}
	}
	return s.finish()
}

// authorize greets the client and takes its commands until it has logged in, or the session ends.
func (s *session) authorize() error {
	if err := s.begin(); err != nil {
		return err
	}
	for n := 1; s.state == pop3.Authorization; n++ {
		line, err := s.next((*popwire.Reader).ReadLine)
		if err := s.answer(n, line, err); err != nil {
			return err
		}
	}
	if s.state == pop3.Closed {
		return s.finish()
	}
	return nil
}

// roomy makes a goroutine's stack as large as a login needs, at once and while little lies on it: doubled on the way
// it would be copied each time.
//
//go:noinline
func roomy(at int) byte {
	var frame [9 << 10]byte
	return frame[at]
}

// begin does all that comes before the first command.
func (s *session) begin() error {
	if err := s.wrap(); err != nil {
		return err
	}
	if err := s.admit(); err != nil {
		return err
	}
	if s.implicit {
		if err := s.startTLS(); err != nil {
			return err
		}
	}
	s.greet()
	return nil
}

// answer answers the nth line; err is what reading it met. An error ends the session.
func (s *session) answer(n int, line string, err error) error {
	switch {
	case err != nil && !errors.Is(err, popwire.ErrLongLine):
		return err
	case s.stray(n, line):
		s.log.Warn("connection refused", "reason", errStray)
		return errStray
	}
	failed := s.failed
	r, err := s.dispatch(line, err)
	if err != nil && s.failed == failed {
		s.tally()
	}
	if err := s.respond(r, err); err != nil {
		return err
	}
	if s.last != nil {
		return errors.Join(s.last, s.finish())
	}
	return nil
}

// greet sends the greeting. To a proxy that is trusted it says that XCLIENT is taken, as Dovecot's does.
func (s *session) greet() {
	var text strings.Builder
	if s.trusted {
		text.WriteString("[XCLIENT] ")
	}
	text.WriteString("dewey ")
	if s.settings.Hostname != "" {
		text.WriteString("at " + s.settings.Hostname + " ")
	}
	text.WriteString("ready")
	if s.offerAPOP(); s.timestamp != "" {
		text.WriteString(" " + s.timestamp)
	}
	_ = s.out.OK(text.String())
}

// next returns the next line that the client sends. popwire.ErrLongLine leaves the session as it is; another
// error is its end.
func (s *session) next(read func(*popwire.Reader) (string, error)) (string, error) {
	if s.ahead = s.in.Buffered(); !s.ahead {
		if err := s.out.Flush(); err != nil {
			return "", err
		}
		// Each complete line starts the timer anew, single octets do not, and it does not run
		// while a response is sent. RFC 1939 section 3; trap 35.
		_ = s.conn.SetReadDeadline(s.deadline(s.settings.IdleTimeout)) // of a closed one the read tells
	}
	line, err := read(s.in)
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded) && !s.late(): // else serve tells
		return "", ErrIdle
	case err != nil && !errors.Is(err, popwire.ErrLongLine):
		_ = s.out.Flush() // to a client that has only said all that it has to say
	}
	return line, err
}

// loginUntil is when the time to log in ends; zero if it does not, or no longer.
func (s *session) loginUntil() time.Time {
	if s.settings.LoginTimeout > 0 && s.state == pop3.Authorization {
		return s.began.Add(s.settings.LoginTimeout)
	}
	return time.Time{}
}

// late says that it has ended.
func (s *session) late() bool {
	until := s.loginUntil()
	return !until.IsZero() && !time.Now().Before(until)
}

// deadline is when something that may take so long must be done.
func (s *session) deadline(d time.Duration) time.Time {
	at := time.Now().Add(d)
	if until := s.loginUntil(); !until.IsZero() && until.Before(at) {
		return until
	}
	return at
}

// admit takes the connection's place among the others, or tells the client that there is none.
func (s *session) admit() error {
	place, oldest, err := s.srv.admission.connect(s, s.srv.settings.Load())
	if err != nil {
		s.log.Warn("connection refused", "reason", err)
		if s.srv.Hooks.Refused != nil {
			s.srv.Hooks.Refused(s.info, err)
		}
		if s.implicit {
			return err // it would read as garbage
		}
		s.conn.timeout = time.Second
		code, text, _ := refusal(err)
		_ = s.out.Err(code, s.lang.say(text))
		return errors.Join(err, s.out.Flush())
	}
	s.place = place
	for _, o := range oldest {
		o.abort(ErrPushedOut)
	}
	s.log.Debug("connected", "local", s.info.Local.String())
	if s.srv.Hooks.Connected != nil {
		s.srv.Hooks.Connected(s.info)
	}
	return nil
}

// pause waits, unless the session ends before.
func (s *session) pause(d time.Duration) error {
	if d <= 0 {
		return nil
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-s.ctx.Done():
		return context.Cause(s.ctx)
	}
}
