package oidc

import (
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-jose/go-jose/v4"

	"dewey/auth"
	"dewey/auth/oidc/oidctest"
)

// A provider without a network, so that hours can pass.
type provider struct {
	keys  map[string]any // by their names
	down  bool
	asked int // for keys
}

func (p *provider) RoundTrip(r *http.Request) (*http.Response, error) {
	if p.down {
		return nil, errors.New("down")
	}
	var answer any = map[string]string{"issuer": "https://id.example.org", "jwks_uri": "https://id.example.org/keys"}
	if r.URL.Path == "/keys" {
		p.asked++
		var set jose.JSONWebKeySet
		for kid, key := range p.keys {
			set.Keys = append(set.Keys, jose.JSONWebKey{Key: key, KeyID: kid})
		}
		answer = set
	}
	data, err := json.Marshal(answer)
	return &http.Response{StatusCode: http.StatusOK, Header: http.Header{"Content-Type": {"application/json"}}, Body: io.NopCloser(strings.NewReader(string(data)))}, err
}

// What a token gets, by its key and by when it comes.
func TestKeysOverTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		first, second := oidctest.NewKey(), oidctest.NewKey()
		p := &provider{keys: map[string]any{"first": first.Public()}}
		c := Config{Issuer: "https://id.example.org", Audiences: []string{"mail"}}
		k, err := New(c)
		if err != nil {
			t.Fatal(err)
		}
		c = k.config
		k.claims = newKeySet(c, &http.Client{Transport: guard{p}}).claims
		try := func(kid string, key any) error {
			_, err := k.CheckToken(t.Context(), auth.Token{Bearer: oidctest.Sign(jose.ES256, key, map[jose.HeaderKey]any{"kid": kid}, map[string]any{
				"iss": c.Issuer, "aud": "mail", "exp": time.Now().Add(time.Hour).Unix(), "email": "a@example.org", "email_verified": true,
			})})
			return err
		}
		expect := func(what string, err, want error, asked int) {
			t.Helper()
			if (err == nil) != (want == nil) || want != nil && errors.Is(err, auth.ErrRejected) != errors.Is(want, auth.ErrRejected) || p.asked != asked {
				t.Errorf("%s: %v, want %v; asked %d times, want %d", what, err, want, p.asked, asked)
			}
		}
		away := errors.New("could not tell")
		expect("first", try("first", first), nil, 1)
		// Rotated: the new one is looked for, but not at once after a look.
		p.keys["second"] = second.Public()
		expect("too soon", try("second", second), auth.ErrRejected, 1)
		time.Sleep(keysPause)
		expect("rotated", try("second", second), nil, 2)
		expect("still", try("first", first), nil, 2)
		// A wrong signature by a known key looks for nothing.
		time.Sleep(keysPause)
		expect("forged", try("first", second), auth.ErrRejected, 2)
		// One that is withdrawn ends within the hour.
		delete(p.keys, "first")
		expect("not noticed yet", try("first", first), nil, 2)
		time.Sleep(keysAge)
		expect("withdrawn", try("first", first), auth.ErrRejected, 3)
		// The last good keys serve over an outage, for a day; of unknown ones nothing can be said.
		p.down = true
		time.Sleep(keysLast - time.Minute)
		expect("an outage", try("second", second), nil, 3)
		expect("an unknown key in an outage", try("third", first), away, 3)
		time.Sleep(time.Minute)
		expect("a long outage", try("second", second), away, 3)
		p.down = false
		expect("too soon after the last try", try("second", second), away, 3)
		time.Sleep(keysPause)
		expect("back", try("second", second), nil, 4)
	})
}

// Of a set of keys, those count with which tokens can be verified.
func TestParseKeys(t *testing.T) {
	good, err := json.Marshal(jose.JSONWebKey{Key: oidctest.NewKey().Public(), KeyID: "good", Use: "sig"})
	if err != nil {
		t.Fatal(err)
	}
	private, _ := json.Marshal(jose.JSONWebKey{Key: oidctest.NewKey(), KeyID: "private"})
	for _, other := range []string{
		`{"kty":"oct","k":"c2VjcmV0","kid":"x"}`, `{"kty":"unknown"}`, `7`, `{}`, string(private), strings.Replace(string(good), `"sig"`, `"enc"`, 1),
		`{"kty":"RSA","e":"AQAB","n":"` + strings.Repeat("u", 170) + `"}`, // 1020 bits
	} {
		if keys, err := parseKeys([]byte(`{"keys":[` + other + `,` + string(good) + `]}`)); err != nil || len(keys) != 1 || keys[0].KeyID != "good" {
			t.Errorf("%s: %v, %v", other, keys, err)
		}
		if keys, err := parseKeys([]byte(`{"keys":[` + other + `]}`)); err == nil {
			t.Errorf("%s: %v", other, keys)
		}
	}
	if _, err := parseKeys([]byte(`{"keys":[` + strings.Repeat(`{},`, maxKeys) + string(good) + `]}`)); err == nil {
		t.Error("too many keys were taken")
	}
}

// FuzzToken: no token panics, and none but a good one is good.
func FuzzToken(f *testing.F) {
	key := oidctest.NewKey()
	s := &keySet{algorithms: []jose.SignatureAlgorithm{jose.ES256, jose.RS256}, fetched: time.Now().Add(time.Hour), keys: []jose.JSONWebKey{{Key: key.Public(), KeyID: "k"}}}
	good := oidctest.Sign(jose.ES256, key, map[jose.HeaderKey]any{"kid": "k"}, map[string]any{"iss": "x"})
	for _, seed := range []string{good, good + ".", "..", "eyJhbGciOiJub25lIn0.e30.", good[:len(good)-4], "{}"} {
		f.Add(seed)
	}
	head, _, _ := strings.Cut(good, ".")
	f.Fuzz(func(t *testing.T, token string) {
		_, err := s.claims(t.Context(), token)
		if err == nil && !strings.HasPrefix(token, head) {
			t.Errorf("%q is good", token)
		}
	})
}
