package oidc_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"

	"dewey/auth"
	"dewey/auth/oidc"
	"dewey/auth/oidc/oidctest"
)

func get(t *testing.T, s *oidctest.Server, path string) []byte {
	t.Helper()
	transport := &http.Transport{TLSClientConfig: nil}
	transport.TLSClientConfig = tlsOf(s.Roots())
	defer transport.CloseIdleConnections()
	r, err := (&http.Client{Transport: transport}).Get(s.Issuer() + path)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Body.Close()
	data, err := io.ReadAll(r.Body)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// couldNotTell checks that an error is no refusal, and has neither a token nor a secret nor what a provider sent.
func couldNotTell(t *testing.T, what string, err error) {
	t.Helper()
	if err == nil || errors.Is(err, auth.ErrRejected) || len(err.Error()) > 600 || strings.Contains(err.Error(), "s3cret") || strings.Contains(err.Error(), "nonsense") {
		t.Errorf("%s: %v", what, err)
	}
}

// faults is what a provider may do instead of answering.
func faults(elsewhere *oidctest.Server) map[string]http.HandlerFunc {
	says := func(status int, kind, text string) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", kind)
			w.WriteHeader(status)
			_, _ = io.WriteString(w, text)
		}
	}
	return map[string]http.HandlerFunc{
		"HTML":           says(200, "text/html", "<html>nonsense</html>"),
		"HTML as JSON":   says(200, "application/json", "<html>nonsense</html>"),
		"no type":        says(200, "", `{"active":true}`),
		"an empty body":  says(200, "application/json", ""),
		"null":           says(200, "application/json", "null"),
		"a list":         says(200, "application/json", "[]"),
		"another object": says(200, "application/json", `{"a":"nonsense"}`),
		"active as text": says(200, "application/json", `{"active":"true"}`),
		"500":            says(500, "application/json", `{"active":true}`),
		"401":            says(401, "application/json", `{"error":"nonsense"}`),
		"204":            says(204, "application/json", ""),
		"half":           says(200, "application/json", `{"active":true,`),
		"huge": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			_, _ = io.WriteString(w, `{"active":true,"x":"`)
			for range 4 << 10 {
				if _, err := io.WriteString(w, strings.Repeat("x", 1<<10)); err != nil {
					return
				}
			}
			_, _ = io.WriteString(w, `"}`)
		},
		"cut": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			w.Header().Set("Content-Length", "1000")
			_, _ = io.WriteString(w, `{"active":true`)
		},
		"elsewhere": func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, elsewhere.Issuer()+r.URL.Path, http.StatusTemporaryRedirect)
		},
		"to plain HTTP": func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "http://127.0.0.1:1/", http.StatusFound)
		},
		"hangs up": func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) },
		"slow": func(_ http.ResponseWriter, r *http.Request) {
			_, _ = io.Copy(io.Discard, r.Body) // else the server does not notice who hangs up
			<-r.Context().Done()
		},
	}
}

// A provider that fails is no refusal, and no token or secret goes elsewhere.
func TestFaults(t *testing.T) {
	elsewhere := oidctest.New(t)
	for name, fault := range faults(elsewhere) {
		for _, way := range []string{"keys", "introspection"} {
			s := oidctest.New(t)
			c := config(s)
			c.Timeout = 300 * time.Millisecond
			token := s.Token(s.Claims(user, nil))
			if way == "introspection" {
				c.Introspection = introspection(s)
				s.Issue(token, s.Claims(user, nil))
			}
			k := checker(t, c)
			s.Fail(fault)
			_, err := check(k, token)
			couldNotTell(t, name+", "+way, err)
			if way == "keys" && name != "slow" { // discovery works, and the keys do not
				s := oidctest.New(t)
				c.Issuer, c.Roots = s.Issuer(), s.Roots()
				s.Fail(func(w http.ResponseWriter, r *http.Request) {
					if r.URL.Path == oidctest.Keys {
						fault(w, r)
						return
					}
					s.Answer(w, r)
				})
				_, err := check(checker(t, c), s.Token(s.Claims(user, nil)))
				couldNotTell(t, name+", keys alone", err)
			}
		}
	}
	if n := elsewhere.Requests(oidctest.Introspect) + elsewhere.Requests(oidctest.Keys) + elsewhere.Requests(oidctest.Discovery); n != 0 {
		t.Errorf("%d requests went elsewhere", n)
	}
}

// A provider whose certificate is nobody's whom we know, one that is not there, and one that claims to be another.
func TestWrongProvider(t *testing.T) {
	s := oidctest.New(t)
	c := config(s)
	c.Roots = x509.NewCertPool()
	_, err := check(checker(t, c), s.Token(s.Claims(user, nil)))
	couldNotTell(t, "unknown authority", err)
	c = config(s)
	c.Issuer = "https://127.0.0.1:1"
	_, err = check(checker(t, c), s.Token(s.Claims(user, nil)))
	couldNotTell(t, "nobody there", err)
	for name, document := range map[string]string{
		"another issuer": `{"issuer":"https://id.example.net","jwks_uri":"` + s.Issuer() + `/keys"}`,
		"plain keys":     `{"issuer":"` + s.Issuer() + `","jwks_uri":"http://127.0.0.1/keys"}`,
		"keys in a file": `{"issuer":"` + s.Issuer() + `","jwks_uri":"file:///etc/passwd"}`,
		"no keys":        `{"issuer":"` + s.Issuer() + `"}`,
	} {
		s.Fail(func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			_, _ = io.WriteString(w, document)
		})
		_, err := check(checker(t, config(s)), s.Token(s.Claims(user, nil)))
		couldNotTell(t, name, err)
	}
}

// A proxy of the environment's does not see tokens.
func TestNoProxy(t *testing.T) {
	t.Setenv("HTTPS_PROXY", "http://127.0.0.1:1")
	t.Setenv("https_proxy", "http://127.0.0.1:1")
	s := oidctest.New(t)
	if _, err := check(checker(t, config(s)), s.Token(s.Claims(user, nil))); err != nil {
		t.Error(err)
	}
}

// Many bad tokens at once, of as many unknown keys, cost a fetch and no more; and one that the provider has put in place
// since is found. Trap 47.
func TestTrap47UnknownKeys(t *testing.T) {
	s := oidctest.New(t)
	k := checker(t, config(s))
	key := oidctest.NewKey()
	var wg sync.WaitGroup
	for n := range 50 {
		token := oidctest.Sign(jose.ES256, key, map[jose.HeaderKey]any{"kid": fmt.Sprint("made up ", n)}, s.Claims(user, nil))
		wg.Go(func() {
			_, err := check(k, token)
			refused(t, "made up", token, err)
		})
	}
	wg.Wait()
	if n, d := s.Requests(oidctest.Keys), s.Requests(oidctest.Discovery); n != 1 || d != 1 {
		t.Errorf("%d fetches of keys, %d discoveries", n, d)
	}
}

// A client that hangs up ends its own wait alone.
func TestClientGone(t *testing.T) {
	s := oidctest.New(t)
	k := checker(t, config(s))
	asked, answer := make(chan struct{}), make(chan struct{})
	var once sync.Once
	s.Fail(func(w http.ResponseWriter, r *http.Request) {
		once.Do(func() { close(asked); <-answer })
		s.Answer(w, r)
	})
	ctx, cancel := context.WithCancel(context.Background())
	gone := make(chan error)
	go func() {
		_, err := k.CheckToken(ctx, auth.Token{Bearer: s.Token(s.Claims(user, nil))})
		gone <- err
	}()
	<-asked
	cancel()
	couldNotTell(t, "gone", <-gone)
	close(answer)
	if _, err := check(k, s.Token(s.Claims(user, nil))); err != nil {
		t.Error(err)
	}
	if n := s.Requests(oidctest.Discovery); n != 1 {
		t.Errorf("%d discoveries", n)
	}
}

func introspection(s *oidctest.Server) oidc.Introspection {
	return oidc.Introspection{URL: s.Issuer() + oidctest.Introspect, ClientID: oidctest.ClientID, ClientSecret: oidctest.Secret}
}

// Introspection asks once a minute about a good token, each time about a bad one, and believes what it hears as it
// believes a JWT. RFC 7662 section 2.2.
func TestIntrospection(t *testing.T) {
	s := oidctest.New(t)
	c := config(s)
	c.Introspection = introspection(s)
	k := checker(t, c)
	s.Issue("opaque", s.Claims(user, nil))
	for range 3 {
		if id, err := check(k, "opaque"); err != nil || id.User != user {
			t.Errorf("%+v, %v", id, err)
		}
	}
	if n := s.Requests(oidctest.Introspect); n != 1 {
		t.Errorf("asked %d times", n)
	}
	for range 2 {
		_, err := check(k, "unknown.t0ken.that.nobody.issued")
		refused(t, "unknown", "unknown.t0ken.that.nobody.issued", err)
	}
	if n := s.Requests(oidctest.Introspect); n != 3 {
		t.Errorf("asked %d times", n)
	}
	for name, changes := range map[string]map[string]any{
		"expired": {"exp": time.Now().Add(-time.Hour).Unix()}, "not yet valid": {"nbf": time.Now().Add(time.Hour).Unix()},
		"another issuer": {"iss": "https://id.example.net"}, "another audience": {"aud": "calendar"}, "no audience": {"aud": nil},
		"not bearer": {"token_type": "DPoP"}, "bound": {"cnf": map[string]any{}}, "no name": {"email": nil}, "not verified": {"email_verified": false},
	} {
		s.Issue(name, s.Claims(user, changes))
		_, err := check(k, name)
		refused(t, name, "", err)
	}
	s.Issue("less", s.Claims(user, map[string]any{"iss": nil, "exp": nil, "iat": nil, "token_type": "bearer"}))
	if _, err := check(k, "less"); err != nil {
		t.Error(err)
	}
	// 64 KiB of any visible ASCII arrive as they are.
	long := strings.Repeat("&=%+ \"~"[:4]+"~", 13<<10)
	s.Issue(long, s.Claims(user, nil))
	if _, err := check(k, long); err != nil {
		t.Error(err)
	}
	// What was remembered ends with the token, and with Remember.
	c.Introspection.Remember = -1
	k = checker(t, c)
	if _, err := check(k, "opaque"); err != nil {
		t.Error(err)
	}
	s.Issue("opaque", nil)
	_, err := check(k, "opaque")
	refused(t, "revoked", "", err)
	// The wrong secret is the administrator's fault, and no client's.
	c.Introspection.ClientSecret = "s3cret but wrong"
	_, err = check(checker(t, c), "opaque")
	couldNotTell(t, "wrong secret", err)
}

func tlsOf(roots *x509.CertPool) *tls.Config { return &tls.Config{RootCAs: roots} }
