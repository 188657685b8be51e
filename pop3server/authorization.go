package pop3server

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"dewey/auth"
	"dewey/internal/popwire"
	"dewey/maildrop"
	"dewey/pop3"
	"dewey/sasl"
)

// plaintext says whether TLS protects the connection, or a password may be sent over this connection as it is.
func (s *session) plaintext() bool {
	switch s.settings.Plaintext {
	case PlaintextAlways:
		return true
	case PlaintextLoopback:
		return s.secure || s.local
	}
	return s.secure
}

// capa lists the capabilities, in AUTHORIZATION and TRANSACTION the same but for STLS and EXPIRE. RFC 2449 section 5.
func (s *session) capa(context.Context, []string) (response, error) {
	tags := []string{"TOP", "UIDL"} // RFC 2449 sections 6.1, 6.8
	if s.plaintext() && !s.settings.NoUserPass {
		tags = append(tags, "USER") // RFC 2449 section 6.2
	}
	if names := s.mechanisms(); len(names) > 0 {
		tags = append(tags, "SASL "+strings.Join(names, " ")) // RFC 5034 section 3
	}
	if d := s.loginDelay(); d > 0 {
		tags = append(tags, fmt.Sprintf("LOGIN-DELAY %d", d/time.Second)) // RFC 2449 section 6.5
	}
	if s.srv.tls != nil && !s.secure && s.state == pop3.Authorization {
		tags = append(tags, "STLS") // where it is permitted: RFC 2595 section 4; trap 31
	}
	tags = append(tags,
		"RESP-CODES",     // RFC 2449 section 6.4
		"AUTH-RESP-CODE", // RFC 3206 section 6
		"PIPELINING",     // RFC 2449 section 6.6
		s.expire(),       // RFC 2449 section 6.7
		"UTF8",           // RFC 6856 section 2, without USER: names and passwords are octets here
		"LANG",           // RFC 6856 section 3
		"IMPLEMENTATION "+s.settings.Implementation, // RFC 2449 section 6.9
	)
	return response{text: s.lang.say("capability list follows"), body: func(w *popwire.Writer) error {
		for _, tag := range tags {
			if err := w.Line(tag); err != nil {
				return err
			}
		}
		return nil
	}}, nil
}

// setUTF8 switches to UTF-8 mode for good. RFC 6856 section 2.1.
func (s *session) setUTF8(context.Context, []string) (response, error) {
	s.utf8 = true
	return response{text: s.lang.say("UTF-8 mode")}, nil
}

// setUser takes a name, whoever's it is: to tell would help those who guess. RFC 1939 section 13.
func (s *session) setUser(_ context.Context, args []string) (response, error) {
	switch {
	case s.settings.NoUserPass:
		return response{}, errUserPass
	case !s.plaintext():
		return response{}, errPlaintext
	}
	s.user = args[0]
	return response{}, nil
}

// pass logs in. RFC 1939 section 7.
func (s *session) pass(ctx context.Context, args []string) (response, error) {
	user := s.user
	s.user = ""
	if user == "" {
		return response{}, errNoUser
	}
	l := s.newLogin(ctx, "PASS")
	defer l.close()
	return l.finish(l.CheckPassword(user, args[0]))
}

// refuse logs a login that failed, and counts and holds back the refusal of bad credentials, and of a broken exchange:
// that costs the client nothing, and us a line in the log.
func (s *session) refuse(l *login, err error) error {
	if errors.As(err, new(fatal)) {
		return err
	}
	err = s.report(l, err)
	if errors.Is(err, auth.ErrRejected) || broken(err) {
		if s.failed++; s.settings.MaxAttempts > 0 && s.failed >= s.settings.MaxAttempts {
			s.last = ErrTooManyTries
		}
		if err := s.pause(s.settings.FailureDelay); err != nil {
			return err
		}
	}
	return err
}

// MaxRefused is how many commands may be refused before login, besides what Settings.MaxAttempts counts. Clients that
// probe send a few.
const MaxRefused = 100

// tally counts a command that was refused and is no failed login.
func (s *session) tally() {
	if s.state != pop3.Authorization {
		return
	}
	if s.refused++; s.refused >= MaxRefused {
		s.last = ErrTooManyErrors
	}
}

// broken says that the client broke off a SASL exchange, or did not keep to its form.
func broken(err error) bool {
	for _, form := range []error{errBase64, errInitial, errCancelled, sasl.ErrForm, popwire.ErrLongLine} {
		if errors.Is(err, form) {
			return true
		}
	}
	return false
}

// report tells the log and the hook of a login that failed. It returns the error as respond is to log it.
func (s *session) report(l *login, err error) error {
	_, _, known := refusal(err)
	switch {
	case errors.Is(err, auth.ErrRejected): // what contrib/fail2ban looks for
		s.log.Warn("login refused", "method", l.method, "user", l.user, "error", err)
	case known:
		s.log.Warn("login failed", "method", l.method, "user", l.user, "error", err)
	default:
		err = fmt.Errorf("login of %q by %s: %w", l.user, l.method, err) // respond logs it as the fault that it is
	}
	if s.srv.Hooks.LoginFailed != nil {
		s.srv.Hooks.LoginFailed(s.info, l.user, err)
	}
	return err
}

// enter opens the maildrop of a user who was proven: only then is there a +OK (trap 34), and
// TRANSACTION. Where it can't be opened there is an -ERR and never an empty maildrop (trap 19). RFC
// 1939 section 4.
func (s *session) enter(ctx context.Context, l *login) (response, error) {
	id := l.id
	if id.User == "" {
		return response{}, s.refuse(l, errNobody)
	}
	if s.srv.admission.soon(id.User, s.loginDelay()) {
		return response{}, s.refuse(l, errLoginDelay)
	}
	if err := s.place.login(id.User, s.srv.settings.Load()); err != nil {
		return response{}, s.refuse(l, err)
	}
	if err := s.hold(ctx, l); err != nil {
		s.release()
		s.place.logout()
		return response{}, s.refuse(l, err)
	}
	s.place.loggedIn(s.srv.settings.Load())
	s.loggedIn.Store(true)
	s.info.User, s.info.By, s.info.Method, s.info.View = id.User, l.by, l.method, l.view
	s.move(pop3.Transaction)
	s.conn.until = time.Time{}
	about := []any{"user", id.User, "method", l.method, "tls", s.info.TLS, "messages", s.count, "octets", s.total}
	if l.by != "" {
		about = append(about, "by", l.by)
	}
	if l.view.Recent != 0 {
		about = append(about, "recent", l.view.Recent)
	}
	if l.view.Folder != "" {
		about = append(about, "folder", l.view.Folder)
	}
	s.log.Info("logged in", about...)
	if s.srv.Hooks.LoggedIn != nil {
		s.srv.Hooks.LoggedIn(s.info, s.count, s.total)
	}
	return response{text: s.summary()}, nil
}

// errNobody is met where a PasswordChecker breaks its contract.
var errNobody = errors.New("the password checker proved a user without a name")

// loginDelay is how long this client must wait between two logins of one user.
func (s *session) loginDelay() time.Duration {
	if s.trusted {
		return 0
	}
	return s.settings.LoginDelay
}

// take takes the scan over, with nothing marked as deleted. A store that breaks its contract is found
// out here and not by a client.
func (s *session) take() error {
	scan := slices.Clone(s.held.Messages())
	var total int64
	for i, m := range scan {
		if !maildrop.ValidUID(m.UID) || m.Octets < 0 || m.Surrogate < 0 {
			return fmt.Errorf("%w: message %d has unique-id %q, %d octets, %d as surrogate",
				maildrop.ErrDamaged, i+1, m.UID, m.Octets, m.Surrogate)
		}
		total += s.octets(m)
	}
	s.scan, s.marks, s.count, s.total = scan, make([]mark, len(scan)), len(scan), total
	return nil
}

// octets is the size of a message as this client gets it. RFC 6856 section 2.1.
func (s *session) octets(m maildrop.Message) int64 {
	if !s.utf8 && m.Surrogate > 0 {
		return m.Surrogate
	}
	return m.Octets
}
