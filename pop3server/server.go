package pop3server

import (
	"context"
	"crypto/tls"
	"crypto/x509"
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
	// Users know passwords. An auth.SecretKeeper among them makes APOP, CRAM-MD5 and SCRAM possible, an
	// auth.Directory EXTERNAL and that one user acts as another, an auth.TokenChecker OAUTHBEARER and XOAUTH2. What one
	// with auth.Abilities can do may change while the server runs.
	Users     auth.PasswordChecker
	Maildrops maildrop.Store
	Settings  Settings // as they are when serving starts; see Reconfigure
	Hooks     Hooks

	// Logger takes a line for each session, refused login and fault, with what the client is not
	// told. A password is in none of them. nil means slog.Default.
	Logger *slog.Logger

	// BaseContext, if not nil, gives the context of the sessions of a listener. A session's context ends
	// with the session, and when it ends so does the session; but what UPDATE does is not cut short.
	BaseContext func(net.Listener) context.Context

	// TLS is for STLS, which is offered if it is not nil, and for ServeTLS. With its GetConfigForClient or
	// GetCertificate certificates may change while the server runs. RFC 2595 section 4, RFC 8314 section 3.
	TLS *tls.Config

	// Certified, if not nil, names the user of a client certificate that TLS has verified: EXTERNAL is
	// offered to who has one, if Users is an auth.Directory.
	Certified func(*x509.Certificate) (user string, err error)

	// View, if not nil, takes a name that a client gives apart: into the user's own and what this session is to see.
	// An empty user is one that does not exist. It is asked for each name to log in by, and each authorization identity,
	// before anything else is; not for names in certificates. Many goroutines may call it at once. Nil: names are as
	// they are.
	View func(ctx context.Context, name string) (user string, view maildrop.View)

	// Throttle, if not nil, makes those wait who guess passwords.
	Throttle *auth.Throttle

	// Wrap, if not nil, is called on each connection's own goroutine before anything is read or sent: it
	// may read a header that a proxy sends, and has to do so in bounded time. An error closes the
	// connection without a word. What it returns is not closed, but the connection that it was given. If
	// that has a method Secured() bool, it says whether TLS protects the client's way to the proxy.
	Wrap func(context.Context, net.Conn) (net.Conn, error)

	started   sync.Once
	tls       *tls.Config
	startErr  error
	settings  atomic.Pointer[Settings]
	least     atomic.Pointer[leastExpiry] // what EXPIRE said last before a login
	admission *admission
	lastID    atomic.Uint64

	mu        sync.Mutex
	closing   bool // by Shutdown or Close
	closed    bool // by Close: no session may begin UPDATE
	listeners map[net.Listener]struct{}
	sessions  map[*session]struct{}
	updating  int           // sessions that have begun UPDATE
	replying  int           // sessions that are done with it and send what is left
	ended     chan struct{} // closed, and made anew, when a session has ended while closing
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
		if srv.TLS != nil {
			srv.tls = tlsConfig(srv.TLS)
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
// ErrServerClosed; if l was closed by someone else it wraps net.ErrClosed; else it is the listener's, if
// that will not pass.
//
// A listener of TLS connections is not known as one, and Settings.Plaintext holds for it too: see ServeTLS.
func (srv *Server) Serve(l net.Listener) error { return srv.accept(l, false) }

// ServeTLS is Serve for connections that begin with TLS, by Server.TLS. RFC 8314 section 3.
func (srv *Server) ServeTLS(l net.Listener) error { return srv.accept(l, true) }

func (srv *Server) accept(l net.Listener, implicit bool) error {
	defer l.Close()
	if err := srv.start(); err != nil {
		return err
	}
	if implicit && srv.tls == nil {
		return errors.New("pop3server: ServeTLS without Server.TLS")
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
			var passing interface{ Temporary() bool } // net/http asks so too
			if errors.Is(err, net.ErrClosed) || !errors.As(err, &passing) || !passing.Temporary() {
				return fmt.Errorf("pop3server: %w", err)
			}
			// Out of file descriptors or the like: those who are connected must not suffer for it.
			pause = min(max(2*pause, 5*time.Millisecond), time.Second)
			srv.Logger.Error("cannot accept connections", "listener", l.Addr().String(), "error", err, "pause", pause)
			time.Sleep(pause)
			continue
		}
		pause = 0
		go srv.serve(base, c, implicit)
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
func (srv *Server) serve(base context.Context, c net.Conn, implicit bool) {
	if s := srv.add(base, c, implicit); s != nil {
		s.serve()
	}
}

// add makes a connection's session; nil, and the connection closed, if the server is closing.
func (srv *Server) add(base context.Context, c net.Conn, implicit bool) *session {
	s := newSession(srv, base, c, implicit)
	srv.mu.Lock()
	defer srv.mu.Unlock()
	if srv.closing {
		s.cancel(nil)
		_ = c.Close()
		return nil
	}
	srv.sessions[s] = struct{}{}
	return s
}

func (srv *Server) remove(s *session) {
	s.cancel(nil)
	srv.mu.Lock()
	defer srv.mu.Unlock()
	delete(srv.sessions, s)
	if s.updating {
		srv.updating--
	}
	if s.replying {
		srv.replying--
	}
	if srv.closing {
		close(srv.ended)
		srv.ended = make(chan struct{})
	}
}

// beginUpdate says that a session enters UPDATE, unless Close was faster: then it may not.
func (srv *Server) beginUpdate(s *session) bool {
	srv.mu.Lock()
	defer srv.mu.Unlock()
	if srv.closed {
		return false
	}
	s.updating = true
	srv.updating++
	return true
}

// endUpdate says that all is removed that will be, and the maildrop released; the reply is yet to be sent.
func (srv *Server) endUpdate(s *session) {
	srv.mu.Lock()
	defer srv.mu.Unlock()
	srv.updating--
	if srv.closing {
		close(srv.ended)
		srv.ended = make(chan struct{})
	}
	s.updating, s.replying = false, true
	srv.replying++
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

// stop stops accepting and aborts the sessions that pick chooses. srv.mu guards what pick looks at.
func (srv *Server) stop(pick func(*session) bool) {
	srv.mu.Lock()
	if !srv.closing {
		srv.closing = true
		srv.ended = make(chan struct{})
	}
	var listeners []net.Listener
	for l := range srv.listeners {
		listeners = append(listeners, l)
	}
	var sessions []*session
	for s := range srv.sessions {
		if pick(s) {
			sessions = append(sessions, s)
		}
	}
	srv.mu.Unlock()
	for _, l := range listeners {
		_ = l.Close()
	}
	for _, s := range sessions {
		s.abort(ErrServerClosed)
	}
}

// wait waits until no session is left of those that count counts, or until ctx ends. srv.mu guards what
// count looks at.
func (srv *Server) wait(ctx context.Context, count func() int) error {
	for {
		srv.mu.Lock()
		left, ended := count(), srv.ended
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

// Shutdown stops accepting connections, closes those that have not logged in, and waits for the
// sessions that have until they end by themselves, or until ctx does: then it returns ctx's error,
// and Close ends the rest.
func (srv *Server) Shutdown(ctx context.Context) error {
	srv.stop(func(s *session) bool { return !s.loggedIn.Load() })
	return srv.wait(ctx, func() int { return len(srv.sessions) })
}

// Close stops accepting connections and closes all that there are. Nothing is removed for a session
// that has not said QUIT. Close waits for those that have, and are in UPDATE, and for no others.
func (srv *Server) Close() error {
	srv.mu.Lock()
	srv.closed = true
	srv.mu.Unlock()
	srv.stop(func(s *session) bool { return !s.updating && !s.replying })
	err := srv.wait(context.Background(), func() int { return srv.updating })
	// Their replies have a second: a client that takes nothing must not keep us.
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	_ = srv.wait(ctx, func() int { return srv.replying })
	srv.stop(func(s *session) bool { return s.replying })
	return err
}
