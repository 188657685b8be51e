package oidc

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"
)

// Bounds of introspection: requests at once, and tokens that are remembered.
const (
	maxAsking     = 16
	maxRemembered = 10_000
)

// An introspector asks the provider about tokens. Of those that are good it remembers a digest, under a key that lives as
// long as the process, and what was said. RFC 7662.
type introspector struct {
	Introspection
	client *http.Client
	leeway time.Duration
	places chan struct{}
	key    [32]byte

	mu    sync.Mutex
	known map[[sha256.Size]byte]remembered
}

type remembered struct {
	about claims
	until time.Time
}

func newIntrospector(c Config, client *http.Client) *introspector {
	i := &introspector{
		Introspection: c.Introspection, client: client, leeway: c.Leeway,
		places: make(chan struct{}, maxAsking), known: make(map[[sha256.Size]byte]remembered),
	}
	_, _ = rand.Read(i.key[:]) // never fails
	return i
}

// claims returns what the provider says of a token.
func (i *introspector) claims(ctx context.Context, token string) (claims, error) {
	mac := hmac.New(sha256.New, i.key[:])
	mac.Write([]byte(token))
	digest := [sha256.Size]byte(mac.Sum(nil))
	i.mu.Lock()
	r, found := i.known[digest]
	i.mu.Unlock()
	if found && time.Now().Before(r.until) {
		return r.about, nil
	}
	select {
	case i.places <- struct{}{}:
	case <-ctx.Done():
		return claims{}, fmt.Errorf("waiting to ask the provider: %w", context.Cause(ctx))
	}
	defer func() { <-i.places }()
	asked := time.Now()
	about, err := i.ask(ctx, token)
	if err == nil && i.Remember > 0 {
		i.remember(digest, about, asked)
	}
	return about, err
}

// remember keeps an answer, never past the token's end.
func (i *introspector) remember(digest [sha256.Size]byte, about claims, asked time.Time) {
	until := asked.Add(i.Remember)
	if end, has, _ := about.time("exp"); has && end.Before(until) {
		until = end
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	if len(i.known) >= maxRemembered {
		for d, r := range i.known {
			if !asked.Before(r.until) {
				delete(i.known, d)
			}
		}
	}
	if len(i.known) >= maxRemembered {
		clear(i.known)
	}
	i.known[digest] = remembered{about, until}
}

// ask makes the request. RFC 7662 section 2.1; the client's name and secret are encoded as RFC 6749 section 2.3.1 has it.
func (i *introspector) ask(ctx context.Context, token string) (claims, error) {
	form := url.Values{"token": {token}, "token_type_hint": {"access_token"}}
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, i.URL, strings.NewReader(form.Encode()))
	if err != nil {
		return claims{}, brief("introspection", err)
	}
	request.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	request.Header.Set("Accept", "application/json")
	request.SetBasicAuth(url.QueryEscape(i.ClientID), url.QueryEscape(i.ClientSecret))
	response, err := i.client.Do(request)
	if err != nil {
		return claims{}, brief("introspection", err)
	}
	defer response.Body.Close()
	data, err := io.ReadAll(response.Body)
	if err != nil {
		return claims{}, brief("introspection", err)
	}
	about, ok := parseClaims(data, false)
	active, has, isBool := get[bool](about, "active")
	switch {
	case !ok || !has || !isBool:
		return claims{}, errors.New("introspection: the answer has no active that is true or false")
	case !active:
		return claims{}, refusal("the provider says that it is not active")
	}
	if kind, _, _ := get[string](about, "token_type"); kind != "" && !strings.EqualFold(kind, "Bearer") {
		return claims{}, refusal("it is no bearer token")
	}
	return about, nil
}
