// Package oidc proves users by bearer tokens of an identity provider: by JWTs, whose keys OpenID Connect discovery finds,
// or by asking the provider about each token (RFC 7662).
package oidc

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"time"

	"dewey/auth"
)

// Algorithms are the signatures that a token may have: asymmetric ones alone. RFC 8725 section 3.2.
var Algorithms = []string{"RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"}

// Config says which tokens are good, and whom they name.
type Config struct {
	// Issuer is the provider's URL, https, as its tokens and its OpenID configuration have it. It may be empty with
	// Introspection.
	Issuer string
	// Audiences are those of which a token must have one: without, a token that the user gave any other program would
	// be good here. With Introspection they may be empty if Scopes are not.
	Audiences []string
	// Scopes are those of which a token must have all.
	Scopes []string
	// Claim names the user: a text. Empty: "email". With "email", "email_verified" must be true.
	Claim string
	// Domains, if not empty, are what must come after the last "@" of the name. Letters may be small or capital.
	Domains []string
	// Algorithms are some of those above; nil: all.
	Algorithms []string
	// Leeway is how much the provider's clock may differ. 0: a minute.
	Leeway time.Duration
	// Introspection, if it has a URL, is asked about each token, and no key is fetched.
	Introspection Introspection

	// Find looks up the user whom a token names, as auth.Directory says. Nil: every name is a user's, as it is.
	Find func(ctx context.Context, user string, remote netip.Addr) (auth.Identity, error)

	// Roots are whom the provider's certificate must come from. Nil: the system's.
	Roots *x509.CertPool
	// Timeout bounds each request. 0: five seconds.
	Timeout time.Duration
}

// Introspection is an endpoint of RFC 7662, and who we are there.
type Introspection struct {
	URL                    string // https
	ClientID, ClientSecret string // sent by HTTP's Basic; never logged
	// Remember is how long a good token is not asked about again, and so how long one that is revoked stays good. 0: a
	// minute; negative: not at all.
	Remember time.Duration
}

// A Checker is an auth.TokenChecker. Many goroutines may use it.
//
// It makes its requests to the provider alone, over TLS, by no proxy, whatever the environment says, and follows no
// redirection. What is slow, down or talks nonsense can't tell, and is no refusal.
type Checker struct {
	config Config
	claims func(ctx context.Context, token string) (claims, error)
	client *http.Client
}

const (
	defaultLeeway   = time.Minute
	defaultTimeout  = 5 * time.Second
	defaultRemember = time.Minute
	email           = "email"
)

// New makes a Checker, or says all that is wrong with its configuration. It asks nobody yet.
func New(c Config) (*Checker, error) {
	var errs []error
	bad := func(format string, args ...any) { errs = append(errs, fmt.Errorf("oidc: "+format, args...)) }
	asks := c.Introspection.URL != ""
	if c.Issuer != "" || !asks {
		if err := checkURL(c.Issuer); err != nil {
			bad("the issuer %w", err)
		}
	}
	if asks {
		if err := checkURL(c.Introspection.URL); err != nil {
			bad("the introspection endpoint %w", err)
		}
		if c.Introspection.ClientID == "" || c.Introspection.ClientSecret == "" {
			bad("introspection needs the client's name and secret")
		}
	}
	if len(c.Audiences) == 0 && (!asks || len(c.Scopes) == 0) {
		bad("no audience: a token that was made for any other program would be good here")
	}
	for _, list := range [][]string{c.Audiences, c.Scopes, c.Domains} {
		if slices.Contains(list, "") {
			bad("an audience, a scope or a domain is empty")
		}
	}
	for _, a := range c.Algorithms {
		if !slices.Contains(Algorithms, a) {
			bad("algorithm %q is none of %s", a, strings.Join(Algorithms, ", "))
		}
	}
	if c.Leeway < 0 || c.Timeout < 0 {
		bad("a time is negative")
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	if c.Claim == "" {
		c.Claim = email
	}
	if c.Algorithms == nil {
		c.Algorithms = Algorithms
	}
	c.Leeway, c.Timeout = orElse(c.Leeway, defaultLeeway), orElse(c.Timeout, defaultTimeout)
	c.Introspection.Remember = orElse(c.Introspection.Remember, defaultRemember)

	k := &Checker{config: c, client: newClient(c.Roots, c.Timeout)}
	if asks {
		k.claims = newIntrospector(c, k.client).claims
	} else {
		k.claims = newKeySet(c, k.client).claims
	}
	return k, nil
}

func orElse(d, otherwise time.Duration) time.Duration {
	if d == 0 {
		return otherwise
	}
	return d
}

// checkURL says what is wrong with an address of the provider's.
func checkURL(text string) error {
	u, err := url.Parse(text)
	switch {
	case text == "":
		return errors.New("is missing; https://id.example.org would be right")
	case err != nil || u.Scheme != "https" || u.Host == "" || u.User != nil || u.Fragment != "":
		return errors.New("is no https URL without a user and a fragment; https://id.example.org would be right")
	}
	return nil
}

// CheckToken implements auth.TokenChecker.
func (k *Checker) CheckToken(ctx context.Context, t auth.Token) (auth.Identity, error) {
	if t.Bearer == "" {
		return auth.Identity{}, k.refuse(auth.TokenInvalid, "no token")
	}
	about, err := k.claims(ctx, t.Bearer)
	var why refusal
	switch {
	case errors.As(err, &why):
		return auth.Identity{}, k.refuse(auth.TokenInvalid, string(why))
	case err != nil:
		return auth.Identity{}, fmt.Errorf("oidc: %w", err)
	}
	if err := about.check(&k.config, time.Now()); err != nil {
		return auth.Identity{}, k.refuse(auth.TokenInvalid, err.Error())
	}
	granted := about.scopes()
	for _, s := range k.config.Scopes {
		if !slices.Contains(granted, s) {
			r := k.refuse(auth.TokenInsufficient, "a scope is missing")
			r.Scope = s
			return auth.Identity{}, r
		}
	}
	user, err := about.user(&k.config)
	if err != nil {
		return auth.Identity{}, k.refuse(auth.TokenInvalid, err.Error())
	}
	if k.config.Find == nil {
		return auth.Identity{User: user}, nil
	}
	id, err := k.config.Find(ctx, user, t.Remote)
	switch {
	case errors.Is(err, auth.ErrRejected):
		return auth.Identity{}, k.refuse(auth.TokenInvalid, fmt.Sprintf("its user %q is none here, or may not log in", user))
	case err != nil:
		return auth.Identity{}, fmt.Errorf("oidc: %w", err)
	}
	return id, nil
}

// Close closes the connections that are kept open.
func (k *Checker) Close() { k.client.CloseIdleConnections() }

// A refusal is why a token is not good, for the log.
type refusal string

func (r refusal) Error() string { return string(r) }

// refuse tells the client which scope and provider are right: one scope, since more are not understood by all. RFC 7628
// section 3.2.2.
func (k *Checker) refuse(status, why string) *auth.TokenRefusal {
	r := &auth.TokenRefusal{Status: status, Err: refusal(why)}
	if len(k.config.Scopes) > 0 {
		r.Scope = k.config.Scopes[0]
	}
	if k.config.Issuer != "" {
		r.ConfigurationURL = strings.TrimSuffix(k.config.Issuer, "/") + "/.well-known/openid-configuration"
	}
	return r
}
