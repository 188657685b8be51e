package clients

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// A transport is how a client's connection is protected.
type transport string

const (
	plain    transport = "plain"    // not at all
	stls     transport = "stls"     // from STLS on
	implicit transport = "implicit" // from the start
)

// A way is how a client logs in.
type way struct {
	tls       transport
	mechanism string // as dewey's log calls it
	initial   bool   // with an initial response, where the client leaves that to its user
}

func (w way) String() string {
	name := string(w.tls) + "/" + w.mechanism
	if w.initial {
		name += "/initial response"
	}
	return name
}

// by crosses transports with mechanisms.
func by(mechanisms string, transports ...transport) []way {
	var ways []way
	for _, t := range transports {
		for _, m := range strings.Fields(mechanisms) {
			ways = append(ways, way{tls: t, mechanism: m})
		}
	}
	return ways
}

func initially(ways []way) []way {
	for i := range ways {
		ways[i].initial = true
	}
	return ways
}

// logins is every way to log in that each client has.
var logins = []struct {
	program string
	ways    []way
	// untrusted is what the client says of a certificate that nobody signed whom it knows. Without a
	// text, it does not look.
	untrusted ending
	logins    int      // how many a run needs, where that is sure
	settings  []string // of dewey, beside those of all
	refuseAll bool     // whether to try a wrong password in each of the ways, not once for each mechanism
}{
	{
		program: "curl",
		ways: slices.Concat(
			by("APOP PLAIN LOGIN CRAM-MD5", plain, stls, implicit),
			initially(by("PLAIN LOGIN", plain, implicit)),
			by("EXTERNAL", stls, implicit), initially(by("EXTERNAL", implicit))),
		untrusted: ending{60, says(`SSL certificate problem`)},
		refuseAll: true,
		logins:    2, // for the list, then for 52 URLs that fetch and delete
	},
	{program: "poplib", ways: by("PASS APOP", plain, stls, implicit), untrusted: ending{1, says(`CERTIFICATE_VERIFY_FAILED`)}},
	{
		// With protocol APOP fetchmail does not even look for STLS, whatever sslcertck and sslproto say: it
		// goes on in plain.
		program:   "fetchmail",
		ways:      slices.Concat(by("PASS APOP CRAM-MD5", plain, implicit), by("PASS CRAM-MD5", stls)),
		untrusted: ending{2, says(`verify failed`)},
	},
	{program: "getmail6", ways: by("PASS APOP", plain, implicit), untrusted: ending{127, says(`CERTIFICATE_VERIFY_FAILED`)}},
	{
		program: "mpop",
		ways: slices.Concat(by("PASS APOP PLAIN LOGIN CRAM-MD5 SCRAM-SHA-1 SCRAM-SHA-256", plain, stls, implicit),
			by("EXTERNAL", stls, implicit)),
		untrusted: ending{69, says(`certificate is NOT trusted`)},
	},
	{
		// After STLS fdm forgets the timestamp, and does not use APOP.
		program:   "fdm",
		ways:      slices.Concat(by("PASS APOP", plain, implicit), by("PASS", stls)),
		untrusted: ending{0, says(`certificate verification failed`)}, // and goes on to the next account
	},
	{program: "movemail", ways: by("PASS APOP", stls, implicit)},
	{
		program: "perl",
		ways: slices.Concat(by("PASS APOP PLAIN LOGIN CRAM-MD5", plain, stls, implicit),
			by("EXTERNAL", stls, implicit)),
		untrusted: ending{1, says(`verify failed`)},
	},
	{program: "ruby", ways: by("PASS APOP", plain, implicit), untrusted: ending{1, says(`verify failed`)}},
	// Its STLS asks for SSL 3, and Debian's tcltls knows that no more.
	{program: "tcllib", ways: by("PASS", plain, implicit), untrusted: ending{1, says(`software caused connection abort`)}},
	{program: "emacs", ways: by("PASS APOP", plain, stls, implicit), untrusted: ending{255, says(`Certificate validation failed`)}},
	// Of an unknown certificate mutt and neomutt ask the person at the terminal.
	{program: "mutt", ways: by("PASS APOP PLAIN LOGIN CRAM-MD5 SCRAM-SHA-1 SCRAM-SHA-256", plain, stls, implicit)},
	{
		// It uses the strongest mechanism that is offered, even -PLUS, which it can't do: see picks.
		program:  "neomutt",
		ways:     by("PASS APOP SCRAM-SHA-256", plain, stls, implicit),
		settings: []string{"login.mechanisms=APOP,PLAIN,LOGIN,SCRAM-SHA-256"},
	},
}

// TestLogins has every client log in by every way that it has, with the right password and with a wrong
// one; dewey's log must say that it was this way.
func TestLogins(t *testing.T) {
	if testing.Short() {
		t.Skip("starts programs; -short")
	}
	for _, l := range logins {
		t.Run(l.program, func(t *testing.T) {
			t.Parallel()
			p := programNamed(l.program)
			p.mustExist(t)
			s := startForLogins(t, l.settings...)
			for i, w := range l.ways {
				t.Run(w.String(), func(t *testing.T) {
					messages := []message{mail("one", "One.\n"), mail("two", "Two.\n.\n")}
					if w.tls != plain && (i == 0 || l.ways[i-1].tls != w.tls) {
						messages = p.messages() // in plain is what TestClients does
					}
					mark := s.mark()
					p.testLogin(t, s, w, messages)
					if n := len(mark.logins()); l.logins != 0 && n != l.logins {
						t.Errorf("%d logins, want %d", n, l.logins)
					}
					again := slices.ContainsFunc(l.ways[:i], func(x way) bool { return x.mechanism == w.mechanism })
					if !again || l.refuseAll { // a wrong password is wrong inside TLS too, and mutt thinks about it for long
						p.testWrong(t, s, w)
					}
				})
			}
			t.Run("self-made certificate", func(t *testing.T) { p.testSelfMade(t, l.ways) })
			t.Run("unknown authority", func(t *testing.T) { p.testUnknown(t, s, l.ways, l.untrusted) })
		})
	}
}

// startForLogins starts dewey with a user who can log in by all mechanisms. A wrong password makes
// nobody wait: that is not what these tests are about.
func startForLogins(t *testing.T, settings ...string) *server {
	t.Helper()
	own, _ := authorities()
	ca := t.TempDir() + "/client-ca.pem"
	writeFile(t, ca, own.pem)
	settings = append(settings, "tls.client_ca="+ca, "tls.client_name=local",
		"login.failure_delay=0s", "login.max_delay=0s")
	return deweyWith(t, "plain", append(settings, servedBy(t, nil)...)...)
}

// as makes an account that logs in one way. Whoever shall fail has the wrong password, or the
// certificate of somebody whom the server does not know.
func (s *server) as(t *testing.T, w way, right bool) *account {
	t.Helper()
	a := newAccount(t, s, password)
	a.way, a.port = w, s.port(w.tls)
	name := user
	if !right {
		a.password, name = "wrong", "mallory"
	}
	if w.mechanism == "EXTERNAL" {
		own, _ := authorities()
		a.password = ""
		a.present(t, own.forUser(name+"@example.org"))
	}
	return a
}

// testLogin fetches the messages and deletes them.
func (p *program) testLogin(t *testing.T, s *server, w way, messages []message) {
	s.empty(t) // if an earlier test failed
	s.deliver(t, 0, messages)
	mark := s.mark()
	a := s.as(t, w, true)
	p.mustSucceed(t, a, 0)
	p.compare(t, p.received(t, a), messages)
	if n := s.remaining(t); n != 0 {
		t.Errorf("%d messages left in the maildrop, want none", n)
	}
	mark.mustShow(t, "logged in", w)
}

// testWrong logs in as somebody who may not.
func (p *program) testWrong(t *testing.T, s *server, w way) {
	mark := s.mark()
	p.mustFail(t, s.as(t, w, false), p.rejected)
	mark.mustShow(t, "login refused", w)
}

// testSelfMade logs in to a server whose certificate the client knows because it was given it.
func (p *program) testSelfMade(t *testing.T, ways []way) {
	s := deweyWith(t, "plain", "login.failure_delay=0s")
	for _, tls := range []transport{stls, implicit} {
		i := slices.IndexFunc(ways, func(w way) bool { return w.tls == tls })
		if i < 0 {
			continue
		}
		messages := []message{mail("one", "One.\n")}
		s.deliver(t, 0, messages)
		mark := s.mark()
		a := s.as(t, ways[i], true)
		p.mustSucceed(t, a, 0)
		p.compare(t, p.received(t, a), messages)
		mark.mustShow(t, "logged in", ways[i])
	}
}

// testUnknown shows the client a certificate that it cannot know: it says so and tells no password.
// The server goes on.
func (p *program) testUnknown(t *testing.T, s *server, ways []way, untrusted ending) {
	if untrusted.text == nil {
		return
	}
	_, unknown := authorities()
	s.empty(t)
	messages := []message{mail("one", "One.\n")}
	s.deliver(t, 0, messages)
	for _, tls := range []transport{stls, implicit} {
		i := slices.IndexFunc(ways, func(w way) bool { return w.tls == tls })
		if i < 0 {
			continue
		}
		mark := s.mark()
		a := s.as(t, ways[i], true)
		a.certify(t, unknown.pem)
		p.mustFail(t, a, untrusted)
		if about := mark.since(); regexp.MustCompile(`msg="log(ged in|in refused)"`).MatchString(about) {
			t.Errorf("logged in, or tried:\n%s", about)
		}
	}
	a := s.as(t, ways[0], true)
	p.mustSucceed(t, a, 0)
	p.compare(t, p.received(t, a), messages)
}

// A mark is a place in a server's log.
type mark struct {
	s  *server
	at int
}

func (s *server) mark() mark { return mark{s, len(s.log.String())} }

// since is what the server has logged since.
func (m mark) since() string { return m.s.log.String()[m.at:] }

// logins is the lines that tell of a login, or of a failed one.
func (m mark) logins() []string {
	return regexp.MustCompile(`(?m)^.*msg="(logged in|login refused)".*$`).FindAllString(m.since(), -1)
}

// mustShow checks that the logins since ended as wanted, in the wanted way.
func (m mark) mustShow(t *testing.T, ended string, w way) {
	t.Helper()
	lines := m.logins()
	if ended != "logged in" {
		lines = lines[:min(1, len(lines))] // some then try in other ways
	}
	wanted := fmt.Sprintf(` msg=%q .*\bmethod=%s\b`, ended, w.mechanism)
	if ended == "logged in" {
		wanted += fmt.Sprintf(` tls=%t\b`, w.tls != plain)
	}
	pattern := regexp.MustCompile(wanted)
	for _, line := range lines {
		if !pattern.MatchString(line) {
			t.Errorf("a login in another way than %s:\n%s", w, line)
		}
	}
	if len(lines) == 0 {
		t.Errorf("dewey has no login in its log:\n%s", m.since())
	}
}
