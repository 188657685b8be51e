package pop3server

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"runtime/debug"
	"sync/atomic"
	"time"

	"dewey/internal/popwire"
	"dewey/maildrop"
	"dewey/pop3"
)

// A session is one connection's. Its goroutine alone touches it, but for abort and loggedIn.
type session struct {
	srv      *Server
	settings *Settings // as they were when it began
	conn     *conn
	local    bool // the client is on this machine
	in       *popwire.Reader
	out      *popwire.Writer
	log      *slog.Logger
	info     Session
	began    time.Time
	ctx      context.Context
	cancel   context.CancelCauseFunc
	loggedIn atomic.Bool // a login succeeded
	updating bool        // in UPDATE; srv.mu guards it
	replying bool        // done with it; srv.mu guards it

	state pop3.State
	lang  *language
	utf8  bool   // RFC 6856 section 2.1
	user  string // of the USER just before; empty if there was none

	place   *place
	held    maildrop.Maildrop  // nil outside TRANSACTION and UPDATE
	scan    []maildrop.Message // as the maildrop gave it; sizes are mended where they proved wrong
	deleted []bool             // the marks, in step with scan
	count   int                // messages that are not marked
	total   int64              // their octets

	end End
}

// Why a session ended, in End.Err.
var (
	// ErrIdle says that no complete command came within Settings.IdleTimeout.
	ErrIdle = errors.New("no command within the autologout time")
	// ErrPushedOut says that there were too many connections that had not logged in, and this was the oldest.
	ErrPushedOut = errors.New("too many connections that have not logged in")
	// ErrCutShort says that a response could not be finished.
	ErrCutShort = errors.New("response cut short")
)

// errAborted wraps the reason why the session was ended from outside.
var errAborted = errors.New("aborted")

func newSession(srv *Server, base context.Context, c net.Conn) *session {
	settings := srv.settings.Load()
	s := &session{
		srv:      srv,
		settings: settings,
		conn:     &conn{Conn: c, timeout: settings.WriteTimeout},
		began:    time.Now(),
		state:    pop3.Authorization,
		info:     Session{ID: srv.lastID.Add(1)},
	}
	s.log = srv.Logger.With("session", s.info.ID)
	s.in, s.out = popwire.NewReader(promptReader{c}), popwire.NewWriter(s.conn)
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
func (s *session) serve() {
	defer context.AfterFunc(s.ctx, func() { _ = s.conn.Close() })()
	s.guard(func() {
		remote, local := s.conn.RemoteAddr(), s.conn.LocalAddr()
		s.info.Remote, s.info.Local, s.local = addrPort(remote), addrPort(local), isLocal(remote)
		if s.info.Remote.IsValid() {
			s.log = s.log.With("remote", s.info.Remote.String())
		}
		s.end.Err = s.run()
	})
	_ = s.conn.Close()
	s.out.Discard()
	s.guard(s.release)
	if s.place != nil {
		s.place.leave()
	}
	if why := context.Cause(s.ctx); s.end.Err != nil && why != nil {
		s.end.Err = why
	}
	s.cancel(nil)
	s.move(pop3.Closed)
	s.end.Duration = time.Since(s.began)
	s.logEnd()
	if s.place != nil && s.srv.Hooks.Closed != nil {
		s.guard(func() { s.srv.Hooks.Closed(s.info, s.end) })
	}
}

// guard calls f and catches its panic.
func (s *session) guard(f func()) {
	defer func() {
		if p := recover(); p != nil {
			s.end.Err = fmt.Errorf("panic: %v", p)
			s.log.Error("panic in session", "panic", p, "stack", string(debug.Stack()))
		}
	}()
	f()
}

// release releases the maildrop, if one is held.
func (s *session) release() {
	if s.held == nil {
		return
	}
	held := s.held
	s.held, s.scan, s.deleted = nil, nil, nil
	if err := held.Close(); err != nil {
		s.log.Error("maildrop not closed", "user", s.info.User, "error", err)
	}
}

func (s *session) logEnd() {
	reason := "quit"
	if s.end.Err != nil {
		reason = s.end.Err.Error()
	}
	level := slog.LevelInfo
	if s.info.User == "" {
		level = slog.LevelDebug
	}
	s.log.Log(context.WithoutCancel(s.ctx), level, "session ended", "user", s.info.User, "reason", reason,
		"retrieved", s.end.Retrieved, "octets", s.end.Octets, "removed", s.end.Removed, "duration", s.end.Duration)
}

// run greets the client and takes its commands until the session ends: nil after QUIT.
func (s *session) run() error {
	if err := s.admit(); err != nil {
		return err
	}
	greeting := "dewey ready"
	if s.settings.Hostname != "" {
		greeting = "dewey at " + s.settings.Hostname + " ready"
	}
	_ = s.out.OK(greeting)
	for s.state != pop3.Closed {
		if !s.in.Buffered() {
			if err := s.out.Flush(); err != nil {
				return err
			}
			// Each complete command starts the timer anew, single octets do not, and it does not run
			// while a response is sent. RFC 1939 section 3; trap 35.
			_ = s.conn.SetReadDeadline(time.Now().Add(s.settings.IdleTimeout)) // of a closed one ReadLine tells
		}
		line, err := s.in.ReadLine()
		switch {
		case errors.Is(err, os.ErrDeadlineExceeded):
			return ErrIdle
		case err != nil && !errors.Is(err, popwire.ErrLongLine):
			_ = s.out.Flush() // to a client that has only said all that it has to say
			return err
		}
		if err := s.respond(s.dispatch(line, err)); err != nil {
			return err
		}
	}
	return s.finish()
}

// admit takes the connection's place among the others, or tells the client that there is none.
func (s *session) admit() error {
	place, oldest, err := s.srv.admission.connect(s, s.srv.settings.Load())
	if err != nil {
		s.log.Warn("connection refused", "reason", err)
		if s.srv.Hooks.Refused != nil {
			s.srv.Hooks.Refused(s.info, err)
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

// finish sends what is left after QUIT.
func (s *session) finish() error {
	if s.srv.isClosing() {
		s.conn.timeout = time.Second
	}
	more := s.in.More()
	err := s.out.Flush()
	if err == nil && more {
		s.linger()
	}
	return err
}

// linger waits for the client to close, for a second at most. To close a connection with octets in it
// that nobody has read would make TCP reset it, and the client might lose the last response.
func (s *session) linger() {
	half, ok := s.conn.Conn.(interface{ CloseWrite() error })
	if !ok || half.CloseWrite() != nil {
		return
	}
	_ = s.conn.SetReadDeadline(time.Now().Add(time.Second))
	_, _ = io.CopyN(io.Discard, s.conn, 64<<10)
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
