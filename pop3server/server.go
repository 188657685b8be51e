package pop3server

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"dewey/auth"
	"dewey/maildrop"
)

// ErrServerClosed is what Serve returns after Shutdown or Close.
var ErrServerClosed = errors.New("pop3server: server closed")

// A Server serves POP3. Fill in Users and Maildrops and call Serve; after that change no field.
type Server struct {
	Users     auth.PasswordChecker
	Maildrops maildrop.Store
	Settings  Settings // as they are when serving starts; see Reconfigure
	Hooks     Hooks

	// Logger takes a line for each session, refused login and fault, with what the client is not
	// told. A password is in none of them. nil means slog.Default.
	Logger *slog.Logger

	// BaseContext, if not nil, gives the context of the sessions of a listener. A session's context
	// ends with its connection, but what UPDATE does is not cut short by it.
	BaseContext func(net.Listener) context.Context

	started   sync.Once
	startErr  error
	settings  atomic.Pointer[Settings]
	admission *admission
	lastID    atomic.Uint64

	mu        sync.Mutex
	closing   bool
	listeners map[net.Listener]struct{}
	sessions  map[*session]struct{}
	idle      chan struct{} // closed when the last session has ended, once closing
}

// start checks the fields once.
func (srv *Server) start() error {
	srv.started.Do(func() {
		srv.admission = newAdmission()
		if srv.Logger == nil {
			srv.Logger = slog.Default()
		}
		if srv.Users == nil || srv.Maildrops == nil {
			srv.startErr = errors.New("pop3server: Server has no Users or no Maildrops")
			return
		}
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
// the bounds, which count for all from now on. On error, which tells all that is wrong, nothing changes.
func (srv *Server) Reconfigure(settings Settings) error {
	if err := srv.start(); err != nil {
		return err
	}
	return srv.set(settings)
}

// Serve takes connections from l and serves each on a goroutine of its own. It closes l when it
// returns. Several listeners may be served at once. After Shutdown or Close the error is
// ErrServerClosed; if l was closed by someone else it wraps net.ErrClosed.
func (srv *Server) Serve(l net.Listener) error {
	defer l.Close()
	if err := srv.start(); err != nil {
		return err
	}
	if !srv.track(l) {
		return ErrServerClosed
	}
	defer srv.untrack(l)
	base := context.Background()
	if srv.BaseContext != nil {
		base = srv.BaseContext(l)
	}
	for pause := time.Duration(0); ; {
		c, err := l.Accept()
		if err != nil {
			if srv.isClosing() {
				return ErrServerClosed
			}
			if errors.Is(err, net.ErrClosed) {
				return fmt.Errorf("pop3server: %w", err)
			}
			// Out of file descriptors or the like: those who are connected must not suffer for it.
			pause = min(max(2*pause, 5*time.Millisecond), time.Second)
			srv.Logger.Error("cannot accept connections", "listener", l.Addr().String(), "error", err, "pause", pause)
			time.Sleep(pause)
			continue
		}
		pause = 0
		go srv.serve(base, c)
	}
}

// ListenAndServe listens on a TCP address, as net.Listen has it, and serves it.
func (srv *Server) ListenAndServe(address string) error {
	var lc net.ListenConfig
	lc.SetMultipathTCP(false) // trap 52
	l, err := lc.Listen(context.Background(), "tcp", address)
	if err != nil {
		return err
	}
	return srv.Serve(l)
}

// serve serves a connection to its end. It is the goroutine's first function: what it calls may ask
// the connection for its addresses, which may take its time (trap 51).
func (srv *Server) serve(base context.Context, c net.Conn) {
	s := newSession(srv, base, c)
	srv.mu.Lock()
	if srv.closing {
		srv.mu.Unlock()
		_ = c.Close()
		return
	}
	srv.sessions[s] = struct{}{}
	srv.mu.Unlock()
	defer func() {
		srv.mu.Lock()
		delete(srv.sessions, s)
		if srv.closing && len(srv.sessions) == 0 {
			close(srv.idle)
		}
		srv.mu.Unlock()
	}()
	s.serve()
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

// stop stops accepting, drops the sessions that which picks, and returns a channel that is closed
// when no session is left.
func (srv *Server) stop(which func(*session) bool) <-chan struct{} {
	srv.mu.Lock()
	defer srv.mu.Unlock()
	if !srv.closing {
		srv.closing = true
		srv.idle = make(chan struct{})
		if len(srv.sessions) == 0 {
			close(srv.idle)
		}
	}
	for l := range srv.listeners {
		_ = l.Close()
	}
	for s := range srv.sessions {
		if which(s) {
			s.drop(ErrServerClosed)
		}
	}
	return srv.idle
}

// Shutdown stops accepting connections, closes those that have not logged in, and waits for the
// sessions that have until they end by themselves, or until ctx does: then it returns ctx's error,
// and Close ends the rest.
func (srv *Server) Shutdown(ctx context.Context) error {
	idle := srv.stop(func(s *session) bool { return !s.inside.Load() })
	select {
	case <-idle:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Close stops accepting connections and closes all that there are. Nothing is removed for a session
// that has not said QUIT; Close waits for those that have, and are in UPDATE.
func (srv *Server) Close() error {
	<-srv.stop(func(*session) bool { return true })
	return nil
}
