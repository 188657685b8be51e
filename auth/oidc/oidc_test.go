package oidc_test

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"go.uber.org/goleak"

	"dewey/auth"
	"dewey/auth/oidc"
	"dewey/auth/oidc/oidctest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const user = "mrose@example.org"

func config(s *oidctest.Server) oidc.Config {
	return oidc.Config{Issuer: s.Issuer(), Audiences: []string{"other", oidctest.Audience}, Scopes: []string{"mail"}, Roots: s.Roots()}
}

func checker(t testing.TB, c oidc.Config) *oidc.Checker {
	t.Helper()
	k, err := oidc.New(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(k.Close)
	return k
}

func check(k *oidc.Checker, token string) (auth.Identity, error) {
	return k.CheckToken(context.Background(), auth.Token{Bearer: token, User: "whoever", Remote: netip.MustParseAddr("192.0.2.1")})
}

// refused checks that a token is, and that no error repeats it.
func refused(t testing.TB, what, token string, err error) *auth.TokenRefusal {
	t.Helper()
	r := new(auth.TokenRefusal)
	if !errors.Is(err, auth.ErrRejected) || !errors.As(err, &r) {
		t.Errorf("%s: %v", what, err)
		return new(auth.TokenRefusal)
	}
	if text := err.Error(); len(text) > 400 || len(token) > 20 && strings.Contains(text, token[len(token)-20:]) {
		t.Errorf("%s: %s", what, text)
	}
	return r
}

// A good token names its user, whatever of these its claims and its signature look like. RFC 7519 section 4.1.
func TestGood(t *testing.T) {
	s := oidctest.New(t)
	k := checker(t, config(s))
	for name, changes := range map[string]map[string]any{
		"as it is":         nil,
		"several audience": {"aud": []string{"x", oidctest.Audience}},
		"scp":              {"scope": nil, "scp": []string{"openid", "mail"}},
		"scp as text":      {"scope": nil, "scp": "openid mail"},
		"verified as text": {"email_verified": "true"},
		"a fraction":       {"exp": float64(time.Now().Unix()) + 60.5},
		"expired a moment": {"exp": time.Now().Add(-30 * time.Second).Unix()},
		"a fast clock":     {"nbf": time.Now().Add(30 * time.Second).Unix(), "iat": time.Now().Add(30 * time.Second).Unix()},
		"long":             {"padding": strings.Repeat("x", 45<<10)},
	} {
		if id, err := check(k, s.Token(s.Claims(user, changes))); err != nil || id.User != user {
			t.Errorf("%s: %+v, %v", name, id, err)
		}
	}
	if n := s.Requests(oidctest.Keys); n != 1 {
		t.Errorf("the keys were fetched %d times", n)
	}
}

// Each algorithm that is taken works, and with a list no other is.
func TestAlgorithms(t *testing.T) {
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	_, edKey, _ := ed25519.GenerateKey(rand.Reader)
	ec := func(c elliptic.Curve) crypto.Signer { k, _ := ecdsa.GenerateKey(c, rand.Reader); return k }
	for _, alg := range oidc.Algorithms {
		s := oidctest.New(t)
		key := map[string]crypto.Signer{"RS": rsaKey, "PS": rsaKey, "Ed": edKey}[alg[:2]]
		switch alg {
		case "ES256":
			key = ec(elliptic.P256())
		case "ES384":
			key = ec(elliptic.P384())
		case "ES512":
			key = ec(elliptic.P521())
		}
		s.Rotate("k", jose.SignatureAlgorithm(alg), key)
		token := s.Token(s.Claims(user, nil))
		if _, err := check(checker(t, config(s)), token); err != nil {
			t.Errorf("%s: %v", alg, err)
		}
		c := config(s)
		c.Algorithms = slices.DeleteFunc(slices.Clone(oidc.Algorithms), func(a string) bool { return a == alg })
		_, err := check(checker(t, c), token)
		refused(t, alg, token, err)
	}
}

// What is wrong with a token, and what the client is told of it.
func TestBad(t *testing.T) {
	s := oidctest.New(t)
	c := config(s)
	c.Domains = []string{"Example.ORG"}
	k := checker(t, c)
	now := time.Now()
	for name, changes := range map[string]map[string]any{
		"another issuer":             {"iss": "https://id.example.net"},
		"issuer with a slash":        {"iss": s.Issuer() + "/"},
		"no issuer":                  {"iss": nil},
		"issuers":                    {"iss": []string{s.Issuer()}},
		"another audience":           {"aud": "calendar"},
		"no audience":                {"aud": nil},
		"an audience of numbers":     {"aud": []int{1}},
		"expired":                    {"exp": now.Add(-2 * time.Minute).Unix()},
		"no expiry":                  {"exp": nil},
		"expiry as text":             {"exp": "tomorrow"},
		"expiry out of range":        {"exp": 1e300},
		"not yet valid":              {"nbf": now.Add(2 * time.Minute).Unix()},
		"from the future":            {"iat": now.Add(time.Hour).Unix()},
		"bound to a key":             {"cnf": map[string]any{"jkt": "x"}},
		"address not verified":       {"email_verified": false},
		"address said nothing of":    {"email_verified": nil},
		"no name":                    {"email": nil},
		"an empty name":              {"email": ""},
		"a number as name":           {"email": 7},
		"a name with a line end":     {"email": "mrose\r\n@example.org"},
		"a name with a blank":        {"email": " " + user},
		"a name that is too long":    {"email": strings.Repeat("m", 250) + "@example.org"},
		"another domain":             {"email": "mrose@example.net"},
		"another domain, at its end": {"email": "mrose@badexample.org"},
		"two domains":                {"email": "mrose@example.org@example.net"},
		"no domain":                  {"email": "mrose"},
	} {
		token := s.Token(s.Claims(user, changes))
		_, err := check(k, token)
		if r := refused(t, name, token, err); r.Status != auth.TokenInvalid || r.Scope != "mail" || r.ConfigurationURL != s.Issuer()+oidctest.Discovery {
			t.Errorf("%s: %+v", name, r)
		}
	}
	for name, changes := range map[string]map[string]any{"no scope": {"scope": nil}, "another scope": {"scope": "openid mail.read"}, "a number": {"scope": 1}} {
		token := s.Token(s.Claims(user, changes))
		_, err := check(k, token)
		if r := refused(t, name, token, err); r.Status != auth.TokenInsufficient || r.Scope != "mail" {
			t.Errorf("%s: %+v", name, r)
		}
	}
	for _, token := range []string{
		"", ".", "..", "a.b.c", "e30.e30.", "garbage", strings.Repeat("x", 64<<10), strings.Repeat(".", 64<<10), strings.Repeat("e30.", 16<<10),
		`{"payload":"e30","signatures":[]}`, "eyJhbGciOiJSUzI1NiJ9." + strings.Repeat("A", 60<<10) + ".AAAA",
	} {
		_, err := check(k, token)
		refused(t, "garbage", token, err)
	}
}

// No trick with a signature lets a token in. RFC 8725 section 2.
func TestSignatureTricks(t *testing.T) {
	s := oidctest.New(t)
	k := checker(t, config(s))
	good := s.Token(s.Claims(user, nil))
	if _, err := check(k, good); err != nil {
		t.Fatal(err)
	}
	mallory := oidctest.NewKey()
	claims := s.Claims(user, nil)
	parts := strings.Split(good, ".")
	raw := base64.RawURLEncoding.EncodeToString
	none, _ := json.Marshal(claims)
	set := publicKey(t, s)
	der, _ := x509.MarshalPKIXPublicKey(set.Key)
	jwk, _ := set.MarshalJSON()
	header := func(more map[jose.HeaderKey]any) map[jose.HeaderKey]any {
		h := map[jose.HeaderKey]any{"kid": "first"}
		for name, v := range more {
			h[name] = v
		}
		return h
	}
	own := jose.JSONWebKey{Key: mallory.Public(), KeyID: "first"}
	for name, token := range map[string]string{
		"alg none":               raw([]byte(`{"alg":"none","kid":"first"}`)) + "." + raw(none) + ".",
		"alg None":               raw([]byte(`{"alg":"None","kid":"first"}`)) + "." + raw(none) + ".",
		"no alg":                 raw([]byte(`{"kid":"first"}`)) + "." + raw(none) + "." + parts[2],
		"no signature":           parts[0] + "." + parts[1] + ".",
		"another's payload":      parts[0] + "." + raw(none[:len(none)-1]) + "." + parts[2],
		"HS256 with the DER":     oidctest.Sign(jose.HS256, der, header(nil), claims),
		"HS256 with the JWK":     oidctest.Sign(jose.HS256, jwk, header(nil), claims),
		"another key":            oidctest.Sign(jose.ES256, mallory, header(nil), claims),
		"another key, no kid":    oidctest.Sign(jose.ES256, mallory, nil, claims),
		"a jwk of its own":       oidctest.Sign(jose.ES256, mallory, header(map[jose.HeaderKey]any{"jwk": own}), claims),
		"a jku of its own":       oidctest.Sign(jose.ES256, mallory, header(map[jose.HeaderKey]any{"jku": "https://127.0.0.1:1/"}), claims),
		"kid as a path":          oidctest.Sign(jose.ES256, mallory, map[jose.HeaderKey]any{"kid": "../../../../dev/null"}, claims),
		"kid as SQL":             oidctest.Sign(jose.ES256, mallory, map[jose.HeaderKey]any{"kid": "' OR 1=1 --"}, claims),
		"an empty kid":           oidctest.Sign(jose.ES256, mallory, map[jose.HeaderKey]any{"kid": ""}, claims),
		"something critical":     oidctest.Sign(jose.ES256, mallory, header(map[jose.HeaderKey]any{"crit": []string{"x"}, "x": 1}), claims),
		"all signatures at once": `{"payload":"` + parts[1] + `","protected":"` + parts[0] + `","signature":"` + parts[2] + `"}`,
		"with a line end":        good + "\n",
		"twice":                  good + "." + good,
	} {
		_, err := check(k, token)
		refused(t, name, token, err)
	}
	for _, kind := range []string{"logout+jwt", "dpop+jwt", "application/secevent+jwt", "JOSE"} {
		key := oidctest.NewKey()
		s.Rotate("typed", jose.ES256, key)
		token := oidctest.Sign(jose.ES256, key, map[jose.HeaderKey]any{"kid": "typed", "typ": kind}, claims)
		_, err := check(checker(t, config(s)), token)
		refused(t, kind, token, err)
	}
}

// publicKey reads the provider's key as anybody may.
func publicKey(t *testing.T, s *oidctest.Server) jose.JSONWebKey {
	t.Helper()
	data := get(t, s, oidctest.Keys)
	var set jose.JSONWebKeySet
	if err := json.Unmarshal(data, &set); err != nil || len(set.Keys) != 1 {
		t.Fatal(err)
	}
	return set.Keys[0]
}

// Whom the token names is looked up: by the claim that the configuration says, and with the client's address.
func TestFind(t *testing.T) {
	s := oidctest.New(t)
	c := config(s)
	c.Claim = "preferred_username"
	away := errors.New("the database is away")
	c.Find = func(_ context.Context, name string, remote netip.Addr) (auth.Identity, error) {
		switch {
		case remote != netip.MustParseAddr("192.0.2.1"):
			return auth.Identity{}, fmt.Errorf("from %v", remote)
		case name == "mrose":
			return auth.Identity{User: user, Home: "/srv/mrose"}, nil
		case name == "away":
			return auth.Identity{}, away
		}
		return auth.Identity{}, fmt.Errorf("no: %w", auth.ErrRejected)
	}
	k := checker(t, c)
	token := func(name string) string { return s.Token(s.Claims("", map[string]any{"preferred_username": name})) }
	if id, err := check(k, token("mrose")); err != nil || id.User != user || id.Home != "/srv/mrose" {
		t.Errorf("%+v, %v", id, err)
	}
	_, err := check(k, token("nobody"))
	refused(t, "nobody", "", err)
	if _, err := check(k, token("away")); !errors.Is(err, away) || errors.Is(err, auth.ErrRejected) {
		t.Error(err)
	}
}

// A configuration that would let in too many, or go anywhere but over TLS, is refused whole.
func TestConfig(t *testing.T) {
	good := oidc.Config{Issuer: "https://id.example.org", Audiences: []string{"mail"}}
	asks := oidc.Introspection{URL: "https://id.example.org/i", ClientID: "a", ClientSecret: "b"}
	if _, err := oidc.New(good); err != nil {
		t.Error(err)
	}
	if _, err := oidc.New(oidc.Config{Introspection: asks, Scopes: []string{"mail"}}); err != nil {
		t.Error(err)
	}
	for want, change := range map[string]func(*oidc.Config){
		"issuer":                        func(c *oidc.Config) { c.Issuer = "" },
		"https":                         func(c *oidc.Config) { c.Issuer = "http://id.example.org" },
		"https URL":                     func(c *oidc.Config) { c.Issuer = "https://u:p@id.example.org" },
		"no audience":                   func(c *oidc.Config) { c.Audiences = nil },
		"is empty":                      func(c *oidc.Config) { c.Domains = []string{""} },
		`"HS256"`:                       func(c *oidc.Config) { c.Algorithms = []string{"RS256", "HS256"} },
		`"none"`:                        func(c *oidc.Config) { c.Algorithms = []string{"none"} },
		"negative":                      func(c *oidc.Config) { c.Leeway = -1 },
		"introspection endpoint":        func(c *oidc.Config) { c.Introspection = asks; c.Introspection.URL = "http://x/" },
		"introspection needs":           func(c *oidc.Config) { c.Introspection = asks; c.Introspection.ClientSecret = "" },
		"no audience: a token that was": func(c *oidc.Config) { c.Introspection = asks; c.Audiences = nil },
	} {
		c := good
		change(&c)
		if _, err := oidc.New(c); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", want, err)
		}
	}
}
