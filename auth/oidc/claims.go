package oidc

import (
	"encoding/json"
	"math"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// claims are what is said of a token, in it or by the provider. RFC 7519 section 4, RFC 7662 section 2.2.
type claims struct {
	all    map[string]json.RawMessage
	signed bool // it is a JWT: issuer, audience and expiry have to be there. RFC 9068 section 2.2
}

// maxName bounds a user's name, in octets.
const maxName = 255

func parseClaims(data []byte, signed bool) (claims, bool) {
	c := claims{signed: signed}
	err := json.Unmarshal(data, &c.all)
	return c, err == nil && c.all != nil
}

// get reads a claim that should be a T. has is false if it is not there.
func get[T any](c claims, name string) (v T, has, ok bool) {
	raw, has := c.all[name]
	if !has || string(raw) == "null" {
		return v, false, true
	}
	err := json.Unmarshal(raw, &v)
	return v, true, err == nil
}

// list reads a claim that is a text or several.
func (c claims) list(name string) (l []string, has, ok bool) {
	if one, has, ok := get[string](c, name); ok {
		return []string{one}, has, true
	}
	return get[[]string](c, name)
}

// time reads a NumericDate, which may have a fraction. RFC 7519 section 2.
func (c claims) time(name string) (at time.Time, has, ok bool) {
	seconds, has, ok := get[float64](c, name)
	if !has || !ok || math.Abs(seconds) > 1<<40 {
		return at, has, ok && !has
	}
	return time.UnixMilli(int64(seconds * 1000)), true, true
}

// check says whether a token is for us and good now.
func (c claims) check(config *Config, now time.Time) error {
	if _, bound := c.all["cnf"]; bound { // RFC 9449 section 7.2
		return refusal("it is bound to a key, and so no bearer token")
	}
	issuer, has, ok := get[string](c, "iss")
	if !ok || config.Issuer != "" && (has || c.signed) && issuer != config.Issuer {
		return refusal("it is from another issuer")
	}
	audience, has, ok := c.list("aud")
	if len(config.Audiences) > 0 && (!has || !ok || !slices.ContainsFunc(audience, func(a string) bool { return slices.Contains(config.Audiences, a) })) {
		return refusal("it is for another audience")
	}
	until, has, ok := c.time("exp")
	switch {
	case !ok, !has && c.signed:
		return refusal("it does not say when it ends")
	case has && !now.Before(until.Add(config.Leeway)):
		return refusal("it has expired")
	}
	for _, name := range []string{"nbf", "iat"} {
		if from, has, ok := c.time(name); !ok || has && from.After(now.Add(config.Leeway)) {
			return refusal("it is not valid yet")
		}
	}
	return nil
}

// scopes are what a token is good for: "scope" of RFC 9068 section 2.2.3, or the "scp" that some providers have.
func (c claims) scopes() []string {
	var all []string
	for _, name := range []string{"scope", "scp"} {
		texts, _, _ := c.list(name)
		for _, t := range texts {
			all = append(all, strings.Fields(t)...)
		}
	}
	return all
}

// user is whom the token names.
func (c claims) user(config *Config) (string, error) {
	name, has, ok := get[string](c, config.Claim)
	switch {
	case !has || !ok || name == "":
		return "", refusal("it has no claim " + config.Claim + " that is a text")
	case len(name) > maxName || !utf8.ValidString(name) || strings.ContainsFunc(name, func(r rune) bool { return !unicode.IsPrint(r) || r == utf8.RuneError }) || strings.TrimSpace(name) != name:
		return "", refusal("its claim " + config.Claim + " is no user's name")
	}
	if config.Claim == email && !c.verified() {
		return "", refusal("its email_verified is not true: anybody may have entered that address")
	}
	_, domain, _ := cutLast(name, "@")
	if len(config.Domains) > 0 && !slices.ContainsFunc(config.Domains, func(d string) bool { return strings.EqualFold(d, domain) }) {
		return "", refusal("its user is of another domain")
	}
	return name, nil
}

// verified reads email_verified, which some providers send as a text.
func (c claims) verified() bool {
	if yes, _, ok := get[bool](c, "email_verified"); ok {
		return yes
	}
	text, _, _ := get[string](c, "email_verified")
	return text == "true"
}

func cutLast(s, sep string) (before, after string, found bool) {
	if i := strings.LastIndex(s, sep); i >= 0 {
		return s[:i], s[i+len(sep):], true
	}
	return s, "", false
}
