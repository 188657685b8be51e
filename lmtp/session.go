package lmtp

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

	"dewey/maildrop"
)

// A session is one connection's. Its goroutine alone touches it, but for what srv.mu guards.
type session struct {
	*wire
	srv      *Server
	settings *Settings // as they were when it began
	log      *slog.Logger
	ctx      context.Context
	cancel   context.CancelCauseFunc

	waiting    bool // for a command, and in no transaction; srv.mu guards it
	committing bool // srv.mu guards it
	replying   bool // what was committed; srv.mu guards it

	name     string // LHLO's; empty before it
	tx       *transaction
	begun    bool        // MAIL was tried, and what it was to begin has not ended
	nonsense int         // lines that were no command
	untold   []mark      // delivered, and the client has not shown that it knows
	last     error       // not nil: the session ends after the reply
	broken   atomic.Bool // what is behind us panicked: the same
}

var (
	errQuit       = errors.New("quit")
	errStray      = errors.New("the client speaks another protocol")
	errNonsense   = errors.New("too many lines that are no command")
	errTooMany    = errors.New("too many connections")
	errInnerFault = errors.New("panic behind the server")
)

var tooSlow = reply{code: 421, status: "4.4.2", text: "nothing came for too long"}

func newSession(srv *Server, c net.Conn) *session {
	s := &session{wire: newWire(c), srv: srv, settings: srv.settings.Load()}
	s.log = srv.Logger.With("session", srv.lastID.Add(1))
	if remote := addressLiteral(c.RemoteAddr()); remote != "" {
		s.log = s.log.With("remote", c.RemoteAddr().String())
	}
	s.ctx, s.cancel = context.WithCancelCause(context.Background())
	return s
}

// abort ends the session from another goroutine, without a word.
func (s *session) abort(why error) {
	s.cancel(why)
	_ = s.conn.Close()
}

// serve runs the session to its end. A panic ends this session and no other.
func (s *session) serve() {
	defer s.cancel(nil)
	err := s.guarded()
	s.reset()
	_ = s.conn.Close()
	if !errors.Is(err, errQuit) && err != io.EOF {
		// The client may not know what has been delivered: when it tries again that is not done twice.
		s.srv.memory.add(s.untold)
	}
	level := slog.LevelDebug
	if why := context.Cause(s.ctx); why != nil {
		err = why
	}
	if errors.Is(err, errTooMany) || errors.Is(err, errStray) || errors.Is(err, errNonsense) {
		level = slog.LevelWarn
	}
	s.log.Log(context.WithoutCancel(s.ctx), level, "session ended", "reason", err)
}

func (s *session) guarded() (err error) {
	defer func() {
		if p := recover(); p != nil {
			s.log.Error("panic in session", "panic", p, "stack", string(debug.Stack()))
			err = ErrPanic
		}
	}()
	return s.run()
}

// run greets the client and takes its commands until the session ends.
func (s *session) run() error {
	if !s.srv.admit() {
		s.say(reply{code: 421, status: "4.3.2", text: "too many connections"})
		return s.leave(errTooMany)
	}
	defer s.srv.release()
	s.say(reply{code: 220, text: s.settings.Hostname + " LMTP dewey ready"}) // RFC 5321 section 4.2
	for {
		line, err := s.next()
		switch {
		case err == nil:
			s.say(s.dispatch(line))
		case errors.Is(err, errLongLine):
			s.say(s.bad(reply{code: 500, status: "5.5.2", text: "the line is too long"}))
		case errors.Is(err, errSyntax):
			s.say(s.bad(reply{code: 500, status: "5.5.2", text: "a line ends in CRLF"}))
		case errors.Is(err, ErrServerClosed): // RFC 5321 section 3.8
			s.say(reply{code: 421, status: "4.3.2", text: "going down"})
			return s.leave(err)
		case isTimeout(err):
			s.say(tooSlow)
			return s.leave(err)
		default:
			return err
		}
		if s.last != nil {
			return s.leave(s.last)
		}
		if s.broken.Load() {
			return s.leave(errInnerFault)
		}
	}
}

// next returns the next command line. Replies go out when no whole command is waiting. RFC 2920.
func (s *session) next() (string, error) {
	ready := s.ready()
	if !ready {
		if err := s.flush(); err != nil {
			return "", err
		}
	}
	if !s.srv.wait(s, !ready) {
		return "", ErrServerClosed
	}
	line, err := s.readLine()
	if !s.srv.awake(s) && isTimeout(err) {
		return "", ErrServerClosed // it was Shutdown that ended the time
	}
	if err == nil && !ready {
		s.untold = nil // who goes on has read the replies
	}
	return line, err
}

// flush sends what is in the buffer.
func (s *session) flush() error {
	s.srv.writeDeadline(s)
	return s.out.Flush()
}

// leave sends what is left and ends the session, for the reason given. To close a connection with octets in
// it that nobody has read would make TCP reset it, and the client might lose the last reply.
func (s *session) leave(why error) error {
	if err := s.flush(); err != nil {
		return fmt.Errorf("%w, at the end: %v", err, why) //nolint:errorlint // it is no QUIT if the reply was lost
	}
	if half, ok := s.conn.(interface{ CloseWrite() error }); ok && s.ctx.Err() == nil && half.CloseWrite() == nil {
		_ = s.conn.SetReadDeadline(time.Now().Add(time.Second))
		_, _ = io.CopyN(io.Discard, s.conn, 64<<10)
	}
	return why
}

func isTimeout(err error) bool { return errors.Is(err, os.ErrDeadlineExceeded) }

func attr(key string, value any) slog.Attr { return slog.Any(key, value) }

// level says how loud the log is: what a recipient or a sender caused is no fault of ours.
func (s *session) level(err error) slog.Level {
	if errors.Is(err, ErrUnknown) || errors.Is(err, maildrop.ErrFull) || errors.Is(err, ErrTooLarge) {
		return slog.LevelInfo
	}
	return slog.LevelError
}
