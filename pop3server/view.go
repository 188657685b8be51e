package pop3server

import (
	"context"
	"fmt"
	"strings"
	"time"

	"dewey/auth"
	"dewey/maildrop"
	"dewey/sasl"
)

// called takes the name that a client logs in by: from here on the throttle and the backends see the user's alone, and
// the log sees what the client gave.
func (l *login) called(name string) error {
	l.user, l.lookup = name, name
	if !plain(name) {
		return sasl.ErrForm
	}
	user, view := l.srv.view(l.ctx, name)
	if l.view, l.nobody = view, user == ""; !l.nobody {
		l.lookup = user
	}
	return nil
}

// plain says that a name has no control octets (trap 41).
func plain(name string) bool {
	return !strings.ContainsFunc(name, func(r rune) bool { return r < ' ' || r == 0x7f })
}

// view is Server.View, or leaves names as they are.
func (srv *Server) view(ctx context.Context, name string) (user string, view maildrop.View) {
	if srv.View == nil {
		return name, maildrop.View{}
	}
	return srv.View(ctx, name)
}

// exists refuses a name that is no user's only after the backend was asked, so that it takes as long as another (trap 42).
func (l *login) exists(err error) error {
	if err == nil && l.nobody {
		err = fmt.Errorf("a name that is no user's: %w", auth.ErrRejected)
	}
	return err
}

// hold opens the maildrop of a user who was proven, as much of it as this session is to see. On error s.held may be
// open still.
func (s *session) hold(ctx context.Context, l *login) error {
	life := maildrop.Life(l.id.Life).Or(s.settings.Life)
	now := time.Now()
	var err error
	s.held, err = s.srv.Maildrops.Open(ctx, maildrop.Owner{Name: l.id.User, Home: l.id.Home, Quota: maildrop.Quota(l.id.Quota), Life: life, View: l.view})
	if err != nil {
		return err //nolint:wrapcheck // the store's
	}
	ago, newest := life.Window, life.WindowMessages
	if l.view.Recent != 0 {
		ago, newest = l.view.Recent, 0
	}
	var since time.Time
	if ago != 0 {
		since = now.Add(-ago)
	}
	seen, err := maildrop.Window(ctx, s.held, since, newest)
	if err != nil {
		return fmt.Errorf("window: %w", err)
	}
	s.held = seen
	s.expiry, s.implied = expiryOf(life), life.Deletion == maildrop.DeletionRetrieved
	return s.take()
}
