package pop3server

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"dewey/auth"
	"dewey/internal/popwire"
	"dewey/maildrop"
	"dewey/sasl"
)

// A login is one try to log in, by whatever method. It is the sasl.Host of its exchange.
type login struct {
	*session
	ctx    context.Context
	method string
	user   string        // as the client gave it
	lookup string        // the user's name in it
	nobody bool          // there is none
	view   maildrop.View // what the client asked for in it, or in the name of whom it acts as
	id     auth.Identity // handed out last; proven when the exchange is done
	by     string        // who was proven, if he acts as another
	turn   *auth.Turn
	cancel context.CancelCauseFunc
	watch  *time.Timer // until when it is looked whether the client has hung up

	refused  error // why a token was, while the client is told; then it has failed, whatever it answers
	unproven bool  // the proof for user comes with the client's next response
}

// errHungUp is why a try was given up: nobody waits for what comes of it.
var errHungUp = errors.New("the client hung up while its login waited")

// newLogin begins a try. To wait its turn, and to be checked, may take it long: it ends if the client hangs up
// meanwhile, or those who do so would keep a place among the connections, and work for nothing. close ends it.
func (s *session) newLogin(ctx context.Context, method string) *login {
	ctx, cancel := context.WithCancelCause(ctx)
	l := &login{session: s, ctx: ctx, cancel: cancel, method: method}
	l.watch = time.AfterFunc(math.MaxInt64, func() {
		switch {
		case ctx.Err() != nil:
		case hungUp(s.conn.accepted):
			cancel(errHungUp)
		default:
			l.watch.Reset(time.Second)
		}
	})
	l.watch.Reset(time.Second) // not before it is known here
	return l
}

// close gives the turn back, whatever happened: a backend may panic. Nothing is left that would hold memory.
func (l *login) close() {
	l.turn.Done(auth.Undecided)
	l.cancel(nil)
	l.watch.Stop()
}

// begin waits for the turn of a try to log in under a name.
func (l *login) begin(name string) error {
	// To check takes time: what was answered does not wait for it, nor is a buffer held.
	if err := l.out.Flush(); err != nil {
		return fatal{err}
	}
	l.place.trying()
	turn, err := l.srv.Throttle.Wait(l.ctx, name, l.info.Remote.Addr(), l.failed)
	l.turn, l.ctx = turn, turn.Mark(l.ctx)
	return err //nolint:wrapcheck // a sentinel, or the context's
}

// CheckPassword implements sasl.Host.
func (l *login) CheckPassword(user, password string) error {
	if err := l.called(user); err != nil {
		return err
	}
	if err := l.begin(l.lookup); err != nil {
		return err
	}
	var err error
	l.id, err = l.srv.Users.CheckPassword(l.ctx, auth.Attempt{User: l.lookup, Password: password, Remote: l.info.Remote.Addr()})
	return l.exists(err)
}

// Secret implements sasl.Host.
func (l *login) Secret(user, mechanism string) (auth.Secret, error) {
	keeper, ok := l.keeper()
	if !ok {
		return auth.Secret{}, errMechanism
	}
	if err := l.called(user); err != nil {
		return auth.Secret{}, err
	}
	if strings.HasPrefix(mechanism, "SCRAM-") {
		l.unproven = true // A turn would be held while the client says nothing: see exchange.
	} else if err := l.begin(l.lookup); err != nil {
		return auth.Secret{}, err
	}
	secret, err := keeper.Secret(l.ctx, l.lookup, mechanism, l.info.Remote.Addr())
	l.id = secret.Identity
	return secret, l.exists(err) // the mechanism tells rejections by it
}

// CheckToken implements sasl.Host. The throttle knows a client that names nobody by its token's digest: under one name
// for all of them, failures from anywhere would keep all of them waiting. A refusal counts at once, since the client is
// still to be told, and may cancel then or hang up.
func (l *login) CheckToken(t auth.Token) error {
	checker, ok := l.tokens()
	if !ok {
		return errMechanism
	}
	name := fmt.Sprintf("\x00%x", sha256.Sum256([]byte(t.Bearer)))
	if t.User != "" {
		if err := l.called(t.User); err != nil {
			return err
		}
		name = l.lookup
	}
	if err := l.begin(name); err != nil {
		return err
	}
	t.User, t.Remote = l.lookup, l.info.Remote.Addr()
	var err error
	if l.id, err = checker.CheckToken(l.ctx, t); err == nil {
		l.lookup = l.id.User // who is proven; As says what is his own
		if l.user != "" {
			err = l.As(l.user)
		}
	}
	if errors.Is(err, auth.ErrRejected) {
		l.turn.Done(auth.Failed)
		l.refused = err
	}
	return err
}

// External implements sasl.Host: the user is whom the client's certificate names, which asks for no view.
func (l *login) External() error {
	users, ok := l.srv.Users.(auth.Directory)
	if !ok || !l.certified() {
		return errMechanism
	}
	user, err := l.srv.Certified(l.tls.ConnectionState().PeerCertificates[0])
	if err != nil {
		return fmt.Errorf("client certificate: %w: %w", err, auth.ErrRejected)
	}
	if l.user, l.lookup = user, user; !plain(user) {
		return sasl.ErrForm
	}
	if err := l.begin(l.lookup); err != nil {
		return err
	}
	l.id, err = users.Find(l.ctx, user, l.info.Remote.Addr())
	return err //nolint:wrapcheck // the backend's
}

// As implements sasl.Host: the user who was proven acts as another, or sees his own maildrop otherwise. What he asked
// for with his own name is of his own mail. RFC 4422 section 3.4.1.
func (l *login) As(name string) error {
	user, view := l.srv.view(l.ctx, name)
	own := user == l.lookup || user == l.id.User
	if user != "" && !own {
		users, ok := l.srv.Users.(auth.Directory)
		if !ok {
			return fmt.Errorf("%q as %q: nobody acts as another here: %w", l.id.User, name, auth.ErrRejected)
		}
		id, err := users.Authorize(l.ctx, l.id, user)
		if err != nil {
			return fmt.Errorf("%q as %q: %w", l.id.User, name, err)
		}
		if own = id.User == l.id.User; !own { // else it was his name in another spelling
			l.by, l.id = l.id.User, id
		}
	}
	switch {
	case user == "":
		return fmt.Errorf("%q as %q: a name that is no user's: %w", l.id.User, name, auth.ErrRejected)
	case !own || view != (maildrop.View{}):
		l.view = view
	}
	return nil
}

// finish ends the try: err is nil if the user was proven.
func (l *login) finish(err error) (response, error) {
	switch {
	case err == nil:
		l.turn.Done(auth.Passed)
		return l.enter(l.session.ctx, l)
	case errors.Is(err, auth.ErrRejected):
		l.turn.Done(auth.Failed)
	case errors.Is(context.Cause(l.ctx), errHungUp):
		l.turn.Done(auth.Undecided)
		return response{}, fatal{errHungUp}
	default:
		l.turn.Done(auth.Undecided)
	}
	return response{}, l.refuse(l, err)
}

// offered says whether this client may use a SASL mechanism now.
func (s *session) offered(m sasl.Mechanism) bool {
	switch {
	case s.settings.Mechanisms != nil && !slices.Contains(s.settings.Mechanisms, m.Name),
		m.Plaintext && !s.plaintext(),
		m.Plus && s.tls == nil,
		m.External && !s.certified(),
		m.Token && !s.bearers(),
		m.Secret != "" && !s.serves(m.Secret):
		return false
	case m.Plus:
		exporter, endPoint := s.bindings()
		return exporter != nil || endPoint != nil
	}
	return true
}

// serves says whether users can log in by a mechanism that needs a secret: every one of them if it is left to us,
// since clients pick the strongest that they see and do not fall back.
func (s *session) serves(mechanism string) bool {
	keeper, ok := s.keeper()
	return ok && (s.settings.Mechanisms != nil || keeper.Serves(mechanism))
}

// keeper is who keeps secrets, if there is one now.
func (s *session) keeper() (auth.SecretKeeper, bool) {
	keeper, ok := s.srv.Users.(auth.SecretKeeper)
	if able, says := s.srv.Users.(auth.Abilities); says && !able.KeepsSecrets() {
		return nil, false
	}
	return keeper, ok
}

// tokens is who knows bearer tokens, if there is one now.
func (s *session) tokens() (auth.TokenChecker, bool) {
	checker, ok := s.srv.Users.(auth.TokenChecker)
	if able, says := s.srv.Users.(auth.Abilities); says && !able.ChecksTokens() {
		return nil, false
	}
	return checker, ok
}

// bearers says whether there is. Who has a token picks such a mechanism, and nobody else.
func (s *session) bearers() bool {
	_, ok := s.tokens()
	return ok
}

// certified says that the client has a certificate of an authority that we trust.
func (s *session) certified() bool {
	_, ok := s.srv.Users.(auth.Directory)
	return ok && s.srv.Certified != nil && s.tls != nil && len(s.tls.ConnectionState().VerifiedChains) > 0
}

// mechanisms are the names of those that this client may use now, the strongest first.
func (s *session) mechanisms() []string {
	var names []string
	for _, m := range sasl.All() {
		if s.offered(m) {
			names = append(names, m.Name)
		}
	}
	return names
}

// auth runs a SASL exchange. A bare AUTH is how Outlook asks which mechanisms there are (trap 40). RFC 5034
// section 4.
func (s *session) auth(ctx context.Context, args []string) (response, error) {
	if len(args) == 0 {
		return response{body: func(w *popwire.Writer) error {
			for _, name := range s.mechanisms() {
				if err := w.Line(name); err != nil {
					return err
				}
			}
			return nil
		}}, nil
	}
	m, ok := sasl.Find(args[0])
	switch {
	case !ok:
		return response{}, errMechanism
	case m.Plaintext && !s.plaintext():
		return response{}, errPlaintext
	case !s.offered(m):
		return response{}, errMechanism
	}
	l := s.newLogin(ctx, m.Name)
	defer l.close()
	var first []byte
	if len(args) > 1 {
		var err error
		if first, err = initialResponse(args[1]); err == nil && m.ServerFirst {
			err = errInitial
		}
		if err != nil {
			return l.finish(err)
		}
	}
	return l.finish(l.exchange(m.NewServer(l, s.channel(m)), first))
}

// exchange sends challenges and takes responses until the mechanism is done; nil if the user is proven.
func (l *login) exchange(server sasl.Server, response []byte) error {
	s := l.session
	for {
		if l.unproven {
			l.unproven = false
			if err := l.begin(l.lookup); err != nil {
				return err
			}
		}
		challenge, done, err := server.Next(response)
		if err != nil || done {
			return err //nolint:wrapcheck // the mechanism's, or the backend's through it
		}
		if err := s.out.Challenge(challenge); err != nil {
			return fatal{err}
		}
		line, err := s.next((*popwire.Reader).ReadResponse)
		switch {
		case l.refused != nil && (err == nil || errors.Is(err, popwire.ErrLongLine)):
			return l.refused // also after "*": RFC 7628 section 3.2.3
		case l.refused != nil:
			_ = s.report(l, l.refused)
			return fatal{err}
		case errors.Is(err, popwire.ErrLongLine):
			return err
		case err != nil:
			return fatal{err}
		case line == "*":
			return errCancelled
		}
		if response, err = decode(line); err != nil {
			return err
		}
	}
}

// initialResponse is what the client sent with its AUTH: "=" is an empty one. RFC 5034 section 4.
func initialResponse(arg string) ([]byte, error) {
	if arg == "=" {
		return []byte{}, nil
	}
	return decode(arg)
}

// decode undoes base64 and refuses foreign octets, and padding that is missing or not at the end. RFC 5034
// section 4.
func decode(line string) ([]byte, error) {
	octets, err := base64.StdEncoding.Strict().DecodeString(line)
	if err != nil || strings.ContainsAny(line, "\r\n") { // which Go's decoder skips
		return nil, errBase64
	}
	return append([]byte{}, octets...), nil // not nil, which would be no response
}

// apop logs in by a digest of the greeting's timestamp and the password. RFC 1939 section 7.
func (s *session) apop(ctx context.Context, args []string) (response, error) {
	if s.timestamp == "" {
		return response{}, errAPOP
	}
	l := s.newLogin(ctx, auth.APOP)
	defer l.close()
	return l.finish(sasl.APOP(l, s.timestamp, args[0], args[1]))
}

// offerAPOP makes the timestamp for the greeting, where APOP is offered: clients that see one do not fall back.
func (s *session) offerAPOP() {
	if (s.settings.Mechanisms == nil || slices.Contains(s.settings.Mechanisms, auth.APOP)) && s.serves(auth.APOP) {
		s.timestamp = sasl.NewTimestamp(s.settings.Hostname)
	}
}
