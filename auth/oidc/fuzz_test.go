package oidc

import (
	"crypto/rsa"
	"strings"
	"testing"
	"time"
	"unicode/utf8"
)

// Whatever a provider or a token claims: no panic, the name is one line of text of the right domain, and it counts now
// alone.
func FuzzClaims(f *testing.F) {
	for _, seed := range []string{
		`{"iss":"https://i","aud":["dewey"],"exp":2000000000,"email":"mrose@example.org","email_verified":true,"scope":"a b"}`,
		`{"active":true,"aud":"dewey","exp":2e9,"iss":"https://i","email":"x@example.org","email_verified":"true"}`,
		`{"exp":1e308,"nbf":-1e308,"aud":[7],"iss":null}`, `{"exp":"2000000000","email":{"a":[]}}`, `{"email":"\u0000@example.org","cnf":{}}`,
		`null`, `[]`, `{}`, `{"iss":"https://i","iss":"x"}`, strings.Repeat(`[`, 20_000), `{"email":"` + strings.Repeat("x", 300) + `@example.org"}`,
	} {
		f.Add([]byte(seed), true)
		f.Add([]byte(seed), false)
	}
	config := &Config{Issuer: "https://i", Audiences: []string{"dewey"}, Claim: email, Domains: []string{"example.org"}, Leeway: time.Minute}
	now := time.Unix(1_800_000_000, 0)
	f.Fuzz(func(t *testing.T, data []byte, signed bool) {
		c, ok := parseClaims(data, signed)
		if !ok {
			return
		}
		_ = c.scopes()
		if c.check(config, now) == nil {
			if until, has, ok := c.time("exp"); !ok || signed && !has || has && until.Before(now.Add(-time.Minute)) {
				t.Fatalf("%s holds for ever, or no longer", data)
			}
		}
		name, err := c.user(config)
		if err == nil && (!utf8.ValidString(name) || len(name) > maxName || strings.ContainsAny(name, "\r\n\x00\x1b") || !strings.EqualFold(name[strings.LastIndex(name, "@")+1:], "example.org")) {
			t.Fatalf("%s names %q", data, name)
		}
	})
}

// Of a provider's keys public ones of a fair size count alone.
func FuzzKeys(f *testing.F) {
	for _, seed := range []string{
		`{"keys":[{"kty":"EC","crv":"P-256","x":"f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU","y":"x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0","kid":"k"}]}`,
		`{"keys":[{"kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}]}`, `{"keys":[{"kty":"oct","k":"AA"}]}`,
		`{"keys":[{"kty":"RSA","n":"AQ","e":"AQAB"},7,null]}`, `{"keys":{}}`, `{}`, ``, `{"keys":[{"kty":"EC","crv":"P-256","x":"","y":""}]}`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		keys, err := parseKeys(data)
		if (err == nil) != (len(keys) > 0) || len(keys) > maxKeys {
			t.Fatalf("%d keys, %v", len(keys), err)
		}
		for _, k := range keys {
			if r, is := k.Key.(*rsa.PublicKey); !k.IsPublic() || !k.Valid() || is && r.N.BitLen() < 2048 {
				t.Fatalf("%s: %T", data, k.Key)
			}
		}
	})
}
