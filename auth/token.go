package auth

import (
	"context"
	"fmt"
	"net/netip"
)

// A Token is one try to log in with an OAuth 2 bearer token. RFC 7628 section 3.1.
type Token struct {
	// Bearer is the token, visible ASCII of at most 64 KiB, never logged. It is empty if the client asks what a token
	// must be good for: RFC 7628 section 4.3.
	Bearer string
	// User is whose maildrop the client asks for; empty: that of the user whom the token names. It proves nothing.
	User string
	// Host and Port are where the client says that it went to; empty if it does not say.
	Host, Port string
	Remote     netip.Addr // the client's address; the zero Addr if the connection has none
}

// A TokenChecker knows users by bearer tokens. Many goroutines may call it at once.
type TokenChecker interface {
	// CheckToken returns the identity of the user whom the token names, whoever Token.User is: whether he may act as
	// that one is a Directory's to say. The error wraps ErrRejected if the token is not good, and should be a
	// *TokenRefusal then. Any other error means that it could not tell. None has the token in its text.
	CheckToken(ctx context.Context, t Token) (Identity, error)
}

// What a TokenRefusal's Status may be. RFC 6750 section 3.1.
const (
	TokenInvalid      = "invalid_token" //nolint:gosec // no credential
	TokenInsufficient = "insufficient_scope"
)

// A TokenRefusal is an ErrRejected that says what a client needs for a better token; the client is told all but Err.
// RFC 7628 section 3.2.2.
type TokenRefusal struct {
	Status           string // TokenInvalid or TokenInsufficient
	Scope            string // one that a token must be good for; empty if none is wanted
	ConfigurationURL string // of the provider's OpenID configuration, https; empty if there is none
	Err              error  // why, for the log
}

func (r *TokenRefusal) Error() string {
	if r.Err == nil {
		return fmt.Sprintf("token refused: %s: %v", r.Status, ErrRejected)
	}
	return fmt.Sprintf("token refused: %s: %v: %v", r.Status, r.Err, ErrRejected)
}

// Is says that it is an ErrRejected.
func (r *TokenRefusal) Is(target error) bool { return target == ErrRejected } //nolint:errorlint // Is is what errors.Is calls

func (r *TokenRefusal) Unwrap() error { return r.Err }
