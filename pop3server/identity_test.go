package pop3server_test

import (
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"strings"
	"testing"

	"dewey/auth"
	"dewey/pop3server"
)

// clientCertified visits under TLS with a certificate, or without.
func (b *bench) clientCertified(t *testing.T, certs ...tls.Certificate) *visitor {
	t.Helper()
	v := b.visit(t, remote)
	_ = v.line(t)
	config := clientTLS()
	config.Certificates = certs
	v.stls(t, config)
	return v
}

// EXTERNAL by a client certificate, with an authorization identity and without, in one line and in two; TLS alone
// logs nobody in. RFC 2595 section 4, RFC 4422 appendix A.
func TestExternal(t *testing.T) {
	const in = "+OK 0 messages (0 octets)"
	for _, c := range []struct {
		name, as, want string
		client         string // who the certificate names
		user, by       string
	}{
		{name: "no authorization identity", client: "tim", want: in, user: "tim"},
		{name: "his own", client: "tim", as: "tim", want: in, user: "tim"},
		{name: "another's", client: "tim", as: "mrose", want: refused},
		{name: "another's, allowed", client: "admin", as: "mrose", want: in, user: "mrose", by: "admin"},
		{name: "nobody's, allowed", client: "admin", as: "nobody", want: refused},
		{name: "nobody's certificate", client: "nobody", want: refused},
		{name: "a certificate without a user", client: "-", want: refused},
		{name: "a name with a line end", client: "tim\r\nx", want: "-ERR malformed response"},
		{name: "an identity with a line end", client: "tim", as: "tim\r\n", want: "-ERR malformed response"},
	} {
		for _, lines := range []int{1, 2} {
			var got pop3server.Session
			b := newBench(t, newShelf(), func(s *pop3server.Server) {
				withCertificates(s)
				s.Users, s.Settings.FailureDelay = newRoster(), 0
				s.Certified = func(x *x509.Certificate) (string, error) {
					if x.Subject.CommonName != "tim" {
						t.Errorf("asked for %v", x.Subject)
					}
					if c.client == "-" {
						return "", errAway
					}
					return c.client, nil
				}
				s.Hooks.LoggedIn = func(s pop3server.Session, _ int, _ int64) { got = s }
			})
			v := b.clientCertified(t, timsCert())
			v.ask(t, "STAT", "-ERR command not valid in this state")
			response := b64(c.as)
			if lines == 2 {
				v.ask(t, "AUTH EXTERNAL", "+ ")
				v.ask(t, response, c.want)
			} else {
				if response == "" {
					response = "="
				}
				v.ask(t, "AUTH EXTERNAL "+response, c.want)
			}
			if got.User != c.user || got.By != c.by || c.user != "" && got.Method != "EXTERNAL" {
				t.Errorf("%s: logged in as %q by %q", c.name, got.User, got.By)
			}
			b.end()
		}
	}
}

// Without a certificate that was verified, or without anyone who names its user, there is no EXTERNAL.
func TestExternalIsNotOffered(t *testing.T) {
	for name, c := range map[string]struct {
		certs  []tls.Certificate
		change func(*pop3server.Server)
	}{
		"no certificate":  {nil, func(*pop3server.Server) {}},
		"not verified":    {[]tls.Certificate{timsCert()}, func(s *pop3server.Server) { s.TLS.ClientAuth = tls.RequireAnyClientCert }},
		"nobody names it": {[]tls.Certificate{timsCert()}, func(s *pop3server.Server) { s.Certified = nil }},
		"no directory":    {[]tls.Certificate{timsCert()}, func(s *pop3server.Server) { s.Users = checker{newRoster()} }},
		"turned off":      {[]tls.Certificate{timsCert()}, func(s *pop3server.Server) { s.Settings.Mechanisms = []string{"PLAIN"} }},
	} {
		b := newBench(t, newShelf(), func(s *pop3server.Server) { withCertificates(s); s.Users = newRoster(); c.change(s) })
		v := b.clientCertified(t, c.certs...)
		if tags := strings.Join(v.multi(t, "CAPA"), "\n"); strings.Contains(tags, "EXTERNAL") {
			t.Errorf("%s: %q", name, tags)
		}
		v.ask(t, "AUTH EXTERNAL =", "-ERR unknown mechanism")
		b.end()
	}
}

// A client certificate is still known when its TLS session is resumed.
func TestExternalResumed(t *testing.T) {
	_, addr := tcpBench(t, func(s *pop3server.Server) {
		withCertificates(s)
		s.TLS.SessionTicketsDisabled = false
		s.Users = newRoster()
	})
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		config := clientTLS()
		config.Certificates, config.ClientSessionCache, config.MaxVersion = []tls.Certificate{timsCert()}, tls.NewLRUClientSessionCache(3), version
		for n := range 2 {
			v, c := dialTLS(t, addr, config)
			if got := c.ConnectionState().DidResume; got != (n > 0) {
				t.Errorf("resumed: %v", got)
			}
			v.ask(t, "AUTH EXTERNAL =", "+OK 0 messages (0 octets)")
			v.ask(t, "QUIT", "+OK bye")
		}
	}
}

// Who may act as another does so in each mechanism that has an authorization identity: it is prepared, the maildrop
// is the other's, the log and the hooks name both; who may not is refused like one with a wrong password. RFC 4422
// section 3.4.1, RFC 5034 section 4, RFC 4616 section 2.
func TestAuthorizationIdentity(t *testing.T) {
	const in = "+OK 0 messages (0 octets)"
	for _, c := range []struct{ user, password, as, want, owner string }{
		{"admin", "a  b", "mrose", in, "mrose"},
		{"admin", "a  b", "mro\u00adse", in, "mrose"}, // a soft hyphen: SASLprep maps it to nothing
		{"admin", "a  b", "admin", in, "admin"},
		{"admin", "a  b", "", in, "admin"},
		{"admin", "wrong", "mrose", refused, ""},
		{"admin", "a  b", "nobody", refused, ""},
		{"admin", "a  b", "\u00ad", refused, ""}, // prepared, an empty string
		{"mrose", "tanstaaf", "tim", refused, ""},
		{"mrose", "tanstaaf", "nobody", refused, ""},
		{"nobody", "x", "tim", refused, ""},
	} {
		for _, mechanism := range []string{"PLAIN", "SCRAM-SHA-256"} {
			mail := newShelf()
			var got pop3server.Session
			b := newBench(t, mail, func(s *pop3server.Server) {
				withRoster(newRoster())(s)
				s.Hooks.LoggedIn = func(s pop3server.Session, _ int, _ int64) { got = s }
			})
			v := b.visit(t, remote)
			_ = v.line(t)
			v.stls(t, clientTLS())
			var answer string
			if mechanism == "PLAIN" {
				answer = v.say(t, "AUTH PLAIN "+plain(c.as, c.user, c.password))
			} else {
				as := ""
				if c.as != "" {
					as = "a=" + c.as
				}
				answer = v.scram(t, mechanism, &scramClient{hash: sha256.New, gs2: "n," + as + ",", user: c.user, password: c.password})
			}
			if answer != c.want {
				t.Errorf("%s: %q as %q: %q", mechanism, c.user, c.as, answer)
			}
			b.end()
			by := ""
			if c.owner != c.user && c.owner != "" {
				by = c.user
			}
			if mail.owner.Name != c.owner || got.User != c.owner || got.By != by {
				t.Errorf("%s: %q as %q: opened %q, %+v", mechanism, c.user, c.as, mail.owner.Name, got)
			}
			log := b.log.String()
			if by != "" && !strings.Contains(log, "user="+c.owner) || by != "" && !strings.Contains(log, "by="+by) {
				t.Errorf("the log does not name both:\n%s", log)
			}
			if c.want == refused && c.as == "tim" && c.user == "mrose" && !strings.Contains(log, `\"mrose\" as \"tim\"`) {
				t.Errorf("the log does not name both:\n%s", log)
			}
		}
	}
}

// Without a Directory nobody acts as another.
func TestAuthorizationWithoutDirectory(t *testing.T) {
	r := newRoster()
	b := newBench(t, newShelf(), func(s *pop3server.Server) { s.Users = secretive{r, r}; s.Settings.FailureDelay = 0 })
	v := b.visit(t, "127.0.0.1")
	_ = v.line(t)
	v.ask(t, "AUTH PLAIN "+plain("mrose", "admin", "a  b"), refused)
	v.ask(t, "AUTH PLAIN "+plain("admin", "admin", "a  b"), "+OK 0 messages (0 octets)")
}

// The bound on one user's sessions counts whose maildrop it is, not who was proven.
func TestMaxPerUserCountsTheTarget(t *testing.T) {
	b := newBench(t, newShelf(), func(s *pop3server.Server) { s.Users = newRoster(); s.Settings.MaxPerUser = 1 })
	visit := func(as, want string) *visitor {
		b.mail.mu.Lock()
		b.mail.held = false // so that only the bound can refuse
		b.mail.mu.Unlock()
		v := b.visit(t, "127.0.0.1")
		_ = v.line(t)
		v.ask(t, "AUTH PLAIN "+plain(as, "admin", "a  b"), want)
		return v
	}
	const in, busy = "+OK 0 messages (0 octets)", "-ERR [IN-USE] maildrop is in use"
	visit("mrose", in)
	visit("tim", in)
	_ = visit("mrose", busy).Close()
	own := visit("", in)
	_ = visit("admin", busy).Close()
	own.ask(t, "QUIT", "+OK bye")
	visit("admin", in)
}

// MaxAttempts counts who may not act as another, and a certificate of nobody.
func TestMaxAttemptsCountsAll(t *testing.T) {
	var ended chan pop3server.End
	b := newBench(t, newShelf(), func(s *pop3server.Server) {
		withCertificates(s)
		s.Users, s.Certified = newRoster(), func(*x509.Certificate) (string, error) { return "nobody", nil }
		s.Settings.MaxAttempts, s.Settings.FailureDelay = 6, 0
		ended = ends(s)
	})
	v := b.visit(t, remote)
	stamp := v.timestamp(t)
	config := clientTLS()
	config.Certificates = []tls.Certificate{timsCert()}
	v.stls(t, config)
	v.ask(t, "AUTH PLAIN "+plain("tim", "mrose", "tanstaaf"), refused)
	v.ask(t, "AUTH EXTERNAL =", refused)
	v.ask(t, "APOP mrose "+apopDigest(stamp, "x"), refused)
	v.ask(t, b64(cramResponse("tim", "x", unchallenge(t, v.say(t, "AUTH CRAM-MD5")))), refused)
	if got := v.scram(t, "SCRAM-SHA-256", &scramClient{hash: sha256.New, gs2: "n,,", user: "user", password: "x"}); got != refused {
		t.Error(got)
	}
	v.ask(t, "USER mrose", "+OK")
	v.ask(t, "PASS x", refused)
	v.closedClean(t)
	if e := <-ended; !errors.Is(e.Err, pop3server.ErrTooManyTries) {
		t.Error(e.Err)
	}
}

// What a backend is told: the name as it was given, and the client's address.
func TestWhatABackendIsTold(t *testing.T) {
	r := newRoster()
	b := newBench(t, newShelf(), func(s *pop3server.Server) {
		withCertificates(s)
		withTrusted(s)
		s.Users = r
		s.Settings.FailureDelay = 0
	})
	v := b.visit(t, proxy)
	stamp := v.timestampAfterXCLIENT(t)
	v.ask(t, "XCLIENT ADDR=2001:db8::7 PORT=77", "+OK")
	config := clientTLS()
	config.Certificates = []tls.Certificate{timsCert()}
	v.stls(t, config)
	v.ask(t, "APOP tim "+apopDigest(stamp, "x"), refused)
	v.ask(t, b64(cramResponse("tim", "x", unchallenge(t, v.say(t, "AUTH CRAM-MD5")))), refused)
	_ = v.scram(t, "SCRAM-SHA-256", &scramClient{hash: sha256.New, gs2: "n,,", user: "tim", password: "x"})
	v.ask(t, "AUTH PLAIN "+plain("", "Tim", "x"), refused)
	v.ask(t, "AUTH EXTERNAL =", "+OK 0 messages (0 octets)")
	want := fmt.Sprintf("[%s tim X %s tim X %s tim X password Tim X find tim X]", auth.APOP, auth.CRAMMD5, auth.SCRAMSHA256)
	if got := fmt.Sprint(r.asked); got != strings.ReplaceAll(want, "X", "2001:db8::7") {
		t.Errorf("asked %s", got)
	}
}
