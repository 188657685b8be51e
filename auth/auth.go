// Package auth is the contract between the protocol and whatever knows the users: who is this, and
// may they come in. Backends implement it and import nothing of the protocol.
package auth

import (
	"context"
	"errors"
	"net/netip"
)

// ErrRejected says that the credentials are not good: an unknown user, a wrong password, a user who
// may not log in. Which of them it was must not show in what the client sees, nor in how long it
// takes. RFC 3206 section 5. Any other error of a backend means that it could not tell.
var ErrRejected = errors.New("credentials rejected")

// An Attempt is one try to log in with a password.
type Attempt struct {
	User     string
	Password string     // never logged
	Remote   netip.Addr // the client's address; the zero Addr if the connection has none
}

// An Identity is a user that was proven.
type Identity struct {
	User string // the name in the user database, which may be spelt otherwise than in the Attempt
	Home string // an absolute path; empty if the database names none
}

// A PasswordChecker knows users and their passwords. Many goroutines may call it at once.
type PasswordChecker interface {
	// CheckPassword returns the user's identity, an error that wraps ErrRejected, or another error if
	// it could not tell.
	CheckPassword(ctx context.Context, a Attempt) (Identity, error)
}

// PasswordFunc lets a function be a PasswordChecker.
type PasswordFunc func(ctx context.Context, a Attempt) (Identity, error)

// CheckPassword calls f.
func (f PasswordFunc) CheckPassword(ctx context.Context, a Attempt) (Identity, error) {
	return f(ctx, a)
}
