package pop3server

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"runtime/debug"
	"time"

	"dewey/pop3"
)

// Why a session ended, in End.Err.
var (
	// ErrIdle says that no complete command came within Settings.IdleTimeout.
	ErrIdle = errors.New("no command within the autologout time")
	// ErrTooSlow says that the client had not logged in within Settings.LoginTimeout.
	ErrTooSlow = errors.New("no login within the time for it")
	// ErrTooManyTries says that the client had failed to log in Settings.MaxAttempts times.
	ErrTooManyTries = errors.New("too many failed logins")
	// ErrTooManyErrors says that MaxRefused commands were refused before login.
	ErrTooManyErrors = errors.New("too many refused commands")
	// ErrPushedOut says that there were too many connections that had not logged in, and this was the oldest.
	ErrPushedOut = errors.New("too many connections that have not logged in")
	// ErrCutShort says that a response could not be finished.
	ErrCutShort = errors.New("response cut short")
)

// errAborted wraps the reason why the session was ended from outside.
var errAborted = errors.New("aborted")

// finish sends what is left after QUIT.
func (s *session) finish() error {
	if s.srv.isClosing() {
		s.conn.timeout = time.Second
	}
	more := s.in.More()
	err := s.out.Flush()
	if err == nil && s.tls != nil {
		s.conn.timeout = min(s.conn.timeout, time.Second)
		_ = s.tls.CloseWrite() // so that the client sees that nothing was cut off. RFC 8446 section 6.1
	}
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
	_, _ = io.CopyN(io.Discard, s.conn.Conn, 64<<10)
}

// close gives back what the session holds, and tells of its end.
func (s *session) close() {
	if errors.Is(s.end.Err, os.ErrDeadlineExceeded) && s.late() {
		s.end.Err = fmt.Errorf("%w: %w", ErrTooSlow, s.end.Err)
	}
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

// release releases the maildrop, if one is held.
func (s *session) release() {
	if s.held == nil {
		return
	}
	held := s.held
	s.held, s.scan, s.marks = nil, nil, nil
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
