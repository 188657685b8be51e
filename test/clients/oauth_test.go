package clients

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"dewey/auth"
	"dewey/auth/oidc"
	"dewey/auth/oidc/oidctest"
	"dewey/pop3server"
	"dewey/store/mem"
)

// A tokenServer is the server as a library, whose users come with tokens of a provider.
type tokenServer struct {
	server
	store    *mem.Store
	provider *oidctest.Server
}

// tokensOnly is a PasswordChecker of nobody, and a TokenChecker.
type tokensOnly struct {
	auth.PasswordFunc
	*oidc.Checker
}

// startForTokens starts one that offers these mechanisms alone; with none, what it offers by itself.
func startForTokens(t *testing.T, mechanisms ...string) *tokenServer {
	t.Helper()
	own, _ := authorities()
	s := &tokenServer{store: mem.New(), provider: oidctest.New(t)}
	s.ca = own.pem
	log, err := os.Create(filepath.Join(t.TempDir(), "log"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = log.Close() })
	s.log = logFile(log.Name())
	c := own.forServer()
	cert, err := tls.X509KeyPair([]byte(c.chain), []byte(c.key))
	if err != nil {
		t.Fatal(err)
	}
	checker, err := oidc.New(oidc.Config{Issuer: s.provider.Issuer(), Audiences: []string{oidctest.Audience}, Scopes: []string{"mail"}, Roots: s.provider.Roots()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(checker.Close)
	srv := &pop3server.Server{
		Users: tokensOnly{func(context.Context, auth.Attempt) (auth.Identity, error) {
			return auth.Identity{}, auth.ErrRejected
		}, checker},
		Maildrops: s.store,
		TLS:       &tls.Config{Certificates: []tls.Certificate{cert}},
		Settings:  pop3server.Settings{Mechanisms: mechanisms},
		Logger:    slog.New(slog.NewTextHandler(log, nil)),
	}
	for _, serve := range []struct {
		address *string
		run     func(net.Listener) error
	}{{&s.address, srv.Serve}, {&s.secure, srv.ServeTLS}} {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		*serve.address = l.Addr().String()
		ended := make(chan error, 1)
		go func() { ended <- serve.run(l) }()
		t.Cleanup(func() {
			_ = srv.Close()
			if err := <-ended; !errors.Is(err, pop3server.ErrServerClosed) {
				t.Error(err)
			}
		})
	}
	return s
}

// owner is whom the tests' tokens name, and who claims it.
const owner = user + "@example.org"

// tokenRuns is how each client that can fetches what there is and deletes it, with the token that the file "token" has.
// Debian's getmail6 can by IMAP alone; a newer one sends its two lines as the script does. Curl takes OAUTHBEARER wherever
// it is offered.
var tokenRuns = []struct {
	name, mechanism string
	run             func(t *testing.T, a *account) outcome
}{
	{"curl", "OAUTHBEARER", curlWithToken("login-options=AUTH=OAUTHBEARER")},
	{"curl sasl-ir", "OAUTHBEARER", curlWithToken("login-options=AUTH=OAUTHBEARER\nsasl-ir")},
	{"curl", "XOAUTH2", curlWithToken("login-options=AUTH=XOAUTH2")},
	{"curl sasl-ir", "XOAUTH2", curlWithToken("login-options=AUTH=XOAUTH2\nsasl-ir")},
	{itself, "OAUTHBEARER", curlWithToken("")},
	{"mpop", "OAUTHBEARER", mpopWithToken},
	{"mpop", "XOAUTH2", mpopWithToken},
	{"mutt", "OAUTHBEARER", muttWithToken("mutt")},
	{"mutt", "XOAUTH2", muttWithToken("mutt")},
	{"neomutt", "OAUTHBEARER", muttWithToken("neomutt")},
	{"two lines", "XOAUTH2", twoLines},
}

func (a *account) protocol() string {
	if a.way.tls == implicit {
		return "pop3s"
	}
	return "pop3"
}

func curlWithToken(options string) func(*testing.T, *account) outcome {
	return func(t *testing.T, a *account) outcome {
		t.Helper()
		url := fmt.Sprintf("url=\"%s://127.0.0.1:%s/1\"\n", a.protocol(), a.port)
		common := fmt.Sprintf("user=%q\noauth2-bearer=%q\nssl-reqd\ncacert=%q\n%s\n", owner, a.password, a.ca, options)
		config := common + url + fmt.Sprintf("output=%q\nnext\n", filepath.Join(a.out(), "1")) + common + "head\nrequest=DELE\n" + url
		return a.command(t, nil, "curl", "-sS", "--fail-early", "--max-time", "60", "-K", a.write(t, "curlrc", config))
	}
}

func mpopWithToken(t *testing.T, a *account) outcome {
	t.Helper()
	a.makeMaildir(t)
	started := "on"
	if a.way.tls == implicit {
		started = "off"
	}
	rc := a.write(t, "mpoprc", fmt.Sprintf(`account default
host 127.0.0.1
port %s
tls on
tls_starttls %s
tls_trust_file %s
auth %s
user %s
passwordeval cat %s
timeout 60
keep off
uidls_file %s
received_header off
delivery maildir %s
`, a.port, started, a.ca, strings.ToLower(a.way.mechanism), owner, filepath.Join(a.home, "token"), filepath.Join(a.home, "uidls"), a.out()))
	return a.command(t, nil, "mpop", "-C", rc)
}

func muttWithToken(program string) func(*testing.T, *account) outcome {
	return func(t *testing.T, a *account) outcome {
		t.Helper()
		protocol := "pop"
		if a.way.tls == implicit {
			protocol = "pops"
		}
		rc := a.write(t, "muttrc", fmt.Sprintf(`set pop_user=%q
set pop_authenticators=%q
set pop_oauth_refresh_command="cat %s"
set certificate_file=%q
set ssl_force_tls=yes ssl_starttls=yes
set pop_delete=yes delete=yes quit=yes
set sleep_time=0
set pipe_split=yes pipe_sep=""
set folder=%q
push "<tag-pattern>~A<enter><tag-prefix><pipe-message>sh %s<enter><delete-pattern>~A<enter><quit>"
`, owner, strings.ToLower(a.way.mechanism), filepath.Join(a.home, "token"), a.ca, a.home, a.write(t, "store", fmt.Sprintf("cat > %s/$$\n", a.out()))))
		open := fmt.Sprintf("%s -n -F %s -f %s://127.0.0.1:%s/", program, rc, protocol, a.port)
		return a.command(t, []string{"TERM=xterm"}, "script", "-qec", open, "/dev/null")
	}
}

// twoLines sends AUTH alone, and its response after the empty challenge; of an error's challenge it knows nothing.
func twoLines(t *testing.T, a *account) outcome {
	t.Helper()
	script := a.write(t, "two.py", `import base64, poplib, ssl, sys
port, ca, user, token, out, implicit = sys.argv[1:]
context = ssl.create_default_context(cafile=ca)
if implicit == "pop3s":
    p = poplib.POP3_SSL("127.0.0.1", int(port), context=context)
else:
    p = poplib.POP3("127.0.0.1", int(port))
    p.stls(context)
p._putcmd("AUTH XOAUTH2")
assert p._getline()[0] == b"+ ", "no empty challenge"
p._putline(base64.b64encode(("user=%s\1auth=Bearer %s\1\1" % (user, token)).encode()))
answer = p._getline()[0]
if answer.startswith(b"+ "):
    print(base64.b64decode(answer[2:]).decode())
    p._putline(b"")
    answer = p._getline()[0]
if not answer.startswith(b"+OK"):
    sys.exit(answer.decode())
with open(out + "/1", "wb") as f:
    f.write(b"".join(line + b"\r\n" for line in p.retr(1)[1]))
p.dele(1)
p.quit()
`)
	return a.command(t, nil, "/usr/bin/python3", script, a.port, a.ca, owner, a.password, a.out(), a.protocol())
}

// TestTokens has each client that can log in with a token, with one that has expired, and with somebody else's. The server
// keeps in step with whatever they do about its challenge.
func TestTokens(t *testing.T) {
	if testing.Short() {
		t.Skip("starts programs; -short")
	}
	servers := map[string]*tokenServer{"": startForTokens(t)}
	for _, mechanism := range []string{"OAUTHBEARER", "XOAUTH2"} {
		servers[mechanism] = startForTokens(t, mechanism)
	}
	for _, c := range tokenRuns {
		for _, over := range []transport{stls, implicit} {
			t.Run(fmt.Sprintf("%s/%s/%s", c.name, over, c.mechanism), func(t *testing.T) {
				s := servers[c.mechanism]
				length := 8 << 10 // some providers' tokens are as long
				switch c.name {
				case itself:
					s = servers[""]
				case "mpop": // its lines have 4 KiB at most
					length = 1500
				case "neomutt": // it refuses a token that is over 2.5 KiB in base64
					length = 0
				}
				long := map[string]any{"padding": strings.Repeat("x", length)}
				w := way{tls: over, mechanism: c.mechanism}
				try := func(token string) ([][]byte, outcome) {
					a := newAccount(t, &s.server, token)
					a.way, a.port = w, s.port(over)
					a.write(t, "token", token+"\n")
					a.clear(t)
					p := &program{}
					o := c.run(t, a)
					return p.received(t, a), o
				}
				for name, claims := range map[string]map[string]any{
					"expired":   s.provider.Claims(owner, map[string]any{"exp": time.Now().Add(-time.Hour).Unix()}),
					"another's": s.provider.Claims("mallory@example.org", nil),
				} {
					uid := s.store.Deliver(owner, []byte("Subject: x\n\none\n"))
					m := s.mark()
					if got, o := try(s.provider.Token(claims)); len(got) != 0 || len(s.store.Messages(owner)) != 1 {
						t.Errorf("%s: fetched %d messages\n%s", name, len(got), o.text())
					}
					s.await(t, func() bool { return len(m.logins()) > 0 }) // curl may be gone before
					m.mustShow(t, "login refused", w)
					s.store.Expunge(owner, uid)
				}
				uid := s.store.Deliver(owner, []byte("Subject: x\n\none\n"))
				defer s.store.Expunge(owner, uid)
				m := s.mark()
				got, o := try(s.provider.Token(s.provider.Claims(owner, long)))
				if len(got) != 1 || len(s.store.Messages(owner)) != 0 {
					t.Errorf("fetched %d messages, %d remain\n%s", len(got), len(s.store.Messages(owner)), o.text())
				}
				m.mustShow(t, "logged in", w)
			})
		}
	}
	for _, s := range servers {
		if log := s.log.String(); strings.Contains(log, "eyJ") || !strings.Contains(log, "logged in") {
			t.Error("a token is in the log, or nothing is")
		}
	}
}
