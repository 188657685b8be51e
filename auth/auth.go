// Package auth is the contract between the protocol and whatever knows the users: who is this, and
// may they come in. Backends implement it and import nothing of the protocol.
package auth

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"time"
)

// ErrRejected says that the credentials are not good: an unknown user, a wrong password, a user who
// may not log in. Which of them it was must not show in what the client sees, nor in how long it
// takes. RFC 3206 section 5. Any other error of a backend means that it could not tell.
var ErrRejected = errors.New("credentials rejected")

// ErrUnknownUser is the ErrRejected of a backend that has no user of that name: another one may know him. Who has one
// backend alone, and any client, is told no more than by ErrRejected.
var ErrUnknownUser = fmt.Errorf("no such user: %w", ErrRejected)

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
	// Quota is how much he may keep.
	Quota Quota
	// Life is how long his mail stays, and what of it he sees.
	Life Life
	// Backend is the name of the one that knows him, where several are asked; they leave it empty themselves.
	Backend string
}

// A Quota is how much mail a user may keep. 0: the database does not say; negative: as much as he likes.
type Quota struct {
	Octets, Messages int64
}

// A Life is what the database says of how long a user's mail stays, and of what his sessions see. The zero value says
// nothing. Package maildrop says what its fields mean: maildrop.Life has the same ones.
type Life struct {
	Retention, Undelete time.Duration
	Deletion            string
	Window              time.Duration
	WindowMessages      int64
	Folders             []string
}

// Lives is a database that knows what holds for all of its users. Many goroutines may call it at once.
type Lives interface {
	// Lives returns a Life for each combination of Retention and Deletion that some user has, the zero one included; no
	// other field of them counts. CAPA tells from it the least that holds for any user. RFC 2449 section 6.7. Nobody
	// changes a list that was returned: as long as nothing is new it is the same one, and not looked through again.
	Lives() []Life
}

// A PasswordChecker knows users and their passwords. Many goroutines may call it at once.
type PasswordChecker interface {
	// CheckPassword returns the user's identity, an error that wraps ErrRejected, or another error if
	// it could not tell.
	CheckPassword(ctx context.Context, a Attempt) (Identity, error)
}

// Abilities is what a PasswordChecker has that has more methods than it can answer at the time, as one whose backends
// come and go. Many goroutines may call it at once.
type Abilities interface {
	// KeepsSecrets and ChecksTokens say whether it is a SecretKeeper and a TokenChecker now.
	KeepsSecrets() bool
	ChecksTokens() bool
}

// PasswordFunc lets a function be a PasswordChecker.
type PasswordFunc func(ctx context.Context, a Attempt) (Identity, error)

// The mechanisms that need a secret of their own kind to be stored: see Secret.
const (
	APOP        = "APOP"          // RFC 1939 section 7
	CRAMMD5     = "CRAM-MD5"      // RFC 2195
	SCRAMSHA1   = "SCRAM-SHA-1"   // RFC 5802
	SCRAMSHA256 = "SCRAM-SHA-256" // RFC 7677
)

// A Secret is what a mechanism checks a client's proof with when the client does not send the password.
// Never logged.
type Secret struct {
	Identity Identity
	Password string // for APOP
	// CRAMMD5 is for CRAM-MD5: the states of MD5 after HMAC's padded keys, the outer one first, each 16
	// octets in MD5's own order. RFC 2104 section 4.
	CRAMMD5 [32]byte
	SCRAM   SCRAM // for SCRAM-SHA-1 and SCRAM-SHA-256
}

// SCRAM is a secret of one of the SCRAM mechanisms. RFC 5802 section 3.
type SCRAM struct {
	Salt                 []byte
	Iterations           int
	StoredKey, ServerKey []byte
}

// A SecretKeeper is a PasswordChecker that can also hand out secrets. Many goroutines may call it at once.
type SecretKeeper interface {
	// Secret returns what is stored of a user for a mechanism, one of those above. Where there is
	// nothing (an unknown user, one who may not log in, one whose password is stored in a form that does
	// not serve) the error wraps ErrRejected and the Secret is made up, as that of a user might look: the
	// same each time, also after a restart, so that a client can't tell which names exist (trap 42). Any
	// other error means that it could not tell.
	Secret(ctx context.Context, user, mechanism string, remote netip.Addr) (Secret, error)
	// Serves says whether every user could log in by the mechanism; false if there are no users.
	Serves(mechanism string) bool
}

// A Directory knows users by their names alone. Many goroutines may call it at once.
type Directory interface {
	// Find returns the identity of a user who was proven elsewhere, by a certificate. ErrRejected, wrapped,
	// if there is none of that name, or he may not log in from there.
	Find(ctx context.Context, user string, remote netip.Addr) (Identity, error)
	// Authorize returns the identity of another user in whose name id may act: an administrator who logs
	// in as a user. ErrRejected, wrapped, if id may not, or there is none. RFC 4422 section 3.4.1.
	Authorize(ctx context.Context, id Identity, as string) (Identity, error)
}

// Recipients knows for whom mail is taken in. Many goroutines may call it at once.
type Recipients interface {
	// Recipient returns the identity of the user of that name, whether or not he may log in. ErrRejected,
	// wrapped, if there is none; any other error means that it could not tell, and that the mail is to be
	// sent again later.
	Recipient(ctx context.Context, user string) (Identity, error)
}

// CheckPassword calls f.
func (f PasswordFunc) CheckPassword(ctx context.Context, a Attempt) (Identity, error) {
	return f(ctx, a)
}
