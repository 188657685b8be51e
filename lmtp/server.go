package lmtp

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"dewey/maildrop"
)

// ErrServerClosed is what Serve returns after Shutdown or Close.
var ErrServerClosed = errors.New("lmtp: server closed")

// A Server takes mail in by LMTP. Fill in Recipients and Mail and call Serve; after that change no field.
//
// It asks for no password: whoever can connect can deliver, so listen where nobody else can. RFC 2033 section 1
// forbids port 25.
type Server struct {
	// Recipients finds the owners that an address means, more than one if it is an alias. The address is
	// clean, and quoted only where it has to be; it may have no domain. An error that wraps ErrUnknown
	// refuses it for good; after any other, and if there are no owners, the sender tries again later.
	Recipients func(ctx context.Context, address string) ([]maildrop.Owner, error)

	Mail     maildrop.Depositor
	Settings Settings // as they are when serving starts; see Reconfigure

	// Logger takes a line for each message, session and fault, with what the client is not told. nil
	// means slog.Default.
	Logger *slog.Logger

	// Delivered, if not nil, is called for each copy that was committed, or was not after all of the
	// message had come, before the client is told. It must be quick, and may not call Shutdown or Close.
	Delivered func(Delivery)

	started  sync.Once
	startErr error
	settings atomic.Pointer[Settings]
	lastID   atomic.Uint64 // of sessions
	lastMail atomic.Uint64
	born     string // what sets the ids of this server's messages apart from those of others
	places   atomic.Int64
	memory   memory

	mu        sync.Mutex
	closing   bool // by Shutdown or Close
	closed    bool // by Close: no session may begin to commit
	listeners map[net.Listener]struct{}
	sessions  map[*session]struct{}
	ended     chan struct{} // closed, and made anew, when a session has ended, or has committed, while closing
}

// A Delivery is one copy of one message.
type Delivery struct {
	ID      string // as in Received, in the log and in the reply
	From    string // empty: the null sender
	Address string // as RCPT named it
	Owner   maildrop.Owner
	Octets  int64 // of the message as it came, without the trace
	Err     error // nil: it is there for good
}

// start checks the fields once.
func (srv *Server) start() error {
	srv.started.Do(func() {
		if srv.Logger == nil {
			srv.Logger = slog.Default()
		}
		if srv.Recipients == nil || srv.Mail == nil {
			srv.startErr = errors.New("lmtp: Server has no Recipients or no Mail")
			return
		}
		srv.born = strconv.FormatInt(time.Now().UnixNano(), 36)
		srv.startErr = srv.set(srv.Settings)
	})
	return srv.startErr
}

func (srv *Server) set(settings Settings) error {
	settings, err := settings.checked()
	if err != nil {
		return err
	}
	srv.settings.Store(&settings)
	return nil
}

// Reconfigure replaces the settings. Sessions that are under way keep those they began with, but for
// MaxConnections. On error, which tells all that is wrong, nothing changes.
func (srv *Server) Reconfigure(settings Settings) error {
	if err := srv.start(); err != nil {
		return err
	}
	return srv.set(settings)
}

// newID returns an id for a message: in Received, in the log, in the reply.
func (srv *Server) newID() string {
	return srv.born + "." + strconv.FormatUint(srv.lastMail.Add(1), 36)
}

// Serve takes connections from l, of TCP or of a unix socket, and serves each on a goroutine of its own. It
// closes l when it returns. Several listeners may be served at once. After Shutdown or Close the error is
// ErrServerClosed; if l was closed by someone else it wraps net.ErrClosed; else it is the listener's, if
// that will not pass.
func (srv *Server) Serve(l net.Listener) error {
	defer l.Close()
	if err := srv.start(); err != nil {
		return err
	}
	if !srv.track(l) {
		return ErrServerClosed
	}
	defer srv.untrack(l)
	for pause := time.Duration(0); ; {
		c, err := l.Accept()
		if err != nil {
			if srv.isClosing() {
				return ErrServerClosed
			}
			var passing interface{ Temporary() bool } // net/http asks so too
			if errors.Is(err, net.ErrClosed) || !errors.As(err, &passing) || !passing.Temporary() {
				return fmt.Errorf("lmtp: %w", err)
			}
			// Out of file descriptors or the like: those who are connected must not suffer for it.
			pause = min(max(2*pause, 5*time.Millisecond), time.Second)
			srv.Logger.Error("cannot accept connections", "listener", l.Addr().String(), "error", err, "pause", pause)
			time.Sleep(pause)
			continue
		}
		pause = 0
		srv.begin(c)
	}
}

// begin serves a connection, unless Shutdown or Close was faster.
func (srv *Server) begin(c net.Conn) {
	s := newSession(srv, c)
	srv.mu.Lock()
	defer srv.mu.Unlock()
	if srv.closing {
		s.abort(ErrServerClosed)
		return
	}
	srv.sessions[s] = struct{}{}
	go func() {
		defer srv.end(s)
		s.serve()
	}()
}

func (srv *Server) end(s *session) {
	srv.mu.Lock()
	defer srv.mu.Unlock()
	delete(srv.sessions, s)
	srv.notify()
}

// notify wakes who waits for sessions. srv.mu is held.
func (srv *Server) notify() {
	if srv.closing {
		close(srv.ended)
		srv.ended = make(chan struct{})
	}
}

// admit counts a connection, if there is a place for it.
func (srv *Server) admit() bool {
	n, bound := srv.places.Add(1), srv.settings.Load().MaxConnections
	if bound > 0 && n > int64(bound) {
		srv.places.Add(-1)
		return false
	}
	return true
}

func (srv *Server) release() { srv.places.Add(-1) }

// wait says that a session waits for a command, and sets its time. False if the server goes down and the
// session is in no transaction.
func (srv *Server) wait(s *session, flushed bool) bool {
	srv.mu.Lock()
	defer srv.mu.Unlock()
	if flushed {
		s.replying = false
	}
	if srv.closing && s.tx == nil {
		return false
	}
	s.waiting = s.tx == nil
	_ = s.conn.SetReadDeadline(time.Now().Add(s.settings.Timeout)) // of a closed one the read tells
	return true
}

// awake ends wait. False if the server goes down, and the time has perhaps been ended for that.
func (srv *Server) awake(s *session) bool {
	srv.mu.Lock()
	defer srv.mu.Unlock()
	idle := s.waiting
	s.waiting = false
	return !(srv.closing && idle)
}

// writeDeadline sets the time for what a session sends now.
func (srv *Server) writeDeadline(s *session) {
	srv.mu.Lock()
	defer srv.mu.Unlock()
	d := s.settings.Timeout
	if srv.closing {
		d = time.Second // a client that takes nothing must not keep us
	}
	_ = s.conn.SetWriteDeadline(time.Now().Add(d))
}

// beginCommit says that a session commits, unless Close was faster: then it may not.
func (srv *Server) beginCommit(s *session) bool {
	srv.mu.Lock()
	defer srv.mu.Unlock()
	s.committing = !srv.closed
	return s.committing
}

// endCommit says that all is committed that will be; the replies are yet to be sent.
func (srv *Server) endCommit(s *session) {
	srv.mu.Lock()
	defer srv.mu.Unlock()
	s.replying, s.committing = s.committing, false
	srv.notify()
}

func (srv *Server) track(l net.Listener) bool {
	srv.mu.Lock()
	defer srv.mu.Unlock()
	if srv.closing {
		return false
	}
	if srv.listeners == nil {
		srv.listeners = make(map[net.Listener]struct{})
		srv.sessions = make(map[*session]struct{})
	}
	srv.listeners[l] = struct{}{}
	return true
}

func (srv *Server) untrack(l net.Listener) {
	srv.mu.Lock()
	defer srv.mu.Unlock()
	delete(srv.listeners, l)
}

func (srv *Server) isClosing() bool {
	srv.mu.Lock()
	defer srv.mu.Unlock()
	return srv.closing
}

// stop stops accepting. srv.mu is held.
func (srv *Server) stop() {
	if !srv.closing {
		srv.closing = true
		srv.ended = make(chan struct{})
	}
	for l := range srv.listeners {
		_ = l.Close()
	}
}

// await waits until no session is left of those that pick chooses, or until ctx ends.
func (srv *Server) await(ctx context.Context, pick func(*session) bool) error {
	for {
		srv.mu.Lock()
		left, ended := 0, srv.ended
		for s := range srv.sessions {
			if pick(s) {
				left++
			}
		}
		srv.mu.Unlock()
		if left == 0 {
			return nil
		}
		select {
		case <-ended:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// Shutdown stops accepting connections, sends away those that are in no transaction, with 421, and the others
// when theirs has ended. It waits for that, or until ctx ends: then it returns ctx's error, and Close ends
// the rest. RFC 5321 section 3.8.
func (srv *Server) Shutdown(ctx context.Context) error {
	srv.mu.Lock()
	srv.stop()
	for s := range srv.sessions {
		if s.waiting {
			_ = s.conn.SetReadDeadline(time.Unix(1, 0)) // as if its time were over
		}
	}
	srv.mu.Unlock()
	return srv.await(ctx, func(*session) bool { return true })
}

// Close stops accepting connections and closes all that there are. Nothing is delivered of a message that has
// not come to its end. Close waits for messages that are being committed, and a second for the replies and
// for the other sessions to throw away what they hold.
func (srv *Server) Close() error {
	srv.mu.Lock()
	srv.closed = true
	srv.stop()
	for s := range srv.sessions {
		if !s.committing && !s.replying {
			s.abort(ErrServerClosed)
		}
		_ = s.conn.SetWriteDeadline(time.Now().Add(time.Second))
	}
	srv.mu.Unlock()
	err := srv.await(context.Background(), func(s *session) bool { return s.committing })
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	_ = srv.await(ctx, func(*session) bool { return true })
	srv.mu.Lock()
	defer srv.mu.Unlock()
	for s := range srv.sessions {
		s.abort(ErrServerClosed)
	}
	return err
}
