package pop3server

import (
	"net/netip"
	"time"

	"dewey/maildrop"
)

// Hooks are functions that the server calls when something happens in a session, on the session's
// own goroutine: for counting, for a record of one's own. Each may be nil. They must be quick, and
// must not keep the session waiting, and may not call the Server's Shutdown or Close.
type Hooks struct {
	// Refused is called for a connection that found no place; nothing else is called for it.
	Refused   func(s Session, err error)
	Connected func(Session)
	// LoginFailed is called for whatever keeps a user out; only an err that wraps auth.ErrRejected may
	// be a guess.
	LoginFailed func(s Session, user string, err error)
	LoggedIn    func(s Session, messages int, octets int64)
	// Retrieved is called when RETR, or a TOP that asked for more lines than there are, has handed the
	// whole message to the connection; err tells why it was cut off, or is nil.
	Retrieved func(s Session, number int, m maildrop.Message, err error)
	// Updated is called in UPDATE when there was something to remove, marked or retrieved; on error some may remain.
	Updated func(s Session, removed []maildrop.Message, err error)
	Closed  func(s Session, end End)
}

// Session says which session a hook is called for.
type Session struct {
	ID     uint64 // counts from 1 with each connection that a Server takes
	Remote netip.AddrPort
	Local  netip.AddrPort
	TLS    bool          // up to here, not only up to a proxy
	User   string        // empty before login
	By     string        // who was proven, if he acts as User
	Method string        // PASS, APOP or the SASL mechanism; empty before login
	View   maildrop.View // what it asked for with its name
}

// End says how a session ended.
type End struct {
	// Err is nil after QUIT; io.EOF if the client closed the connection without one, or
	// io.ErrUnexpectedEOF in the middle of a line; ErrIdle, ErrPushedOut, ErrCutShort or ErrServerClosed,
	// wrapped; else the connection's error.
	Err       error
	Duration  time.Duration
	Retrieved int   // messages handed over whole
	Octets    int64 // theirs, as announced
	Removed   int   // messages removed in UPDATE
}
