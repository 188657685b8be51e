// Package sasl has the server's side of the SASL mechanisms that POP3 clients use, and of APOP. It does
// no I/O: it neither reads lines nor decodes base64, and knows users by what its Host tells of them. RFC
// 4422.
package sasl

import (
	"errors"

	"github.com/emersion/go-sasl"

	"dewey/auth"
)

// ErrForm says that a client's response is none that the mechanism allows: a fault of the client, not of
// its credentials.
var ErrForm = errors.New("sasl: malformed response")

// A Server is one exchange, from the server's side.
//
// Next takes a response and returns the next challenge. The first response is nil if the client sent
// none with its command, and not nil if it did, even if empty. A challenge that is not nil is to be sent
// when done is false; when done is true the exchange is over and nothing is sent. An error ends it: it
// wraps ErrForm, or auth.ErrRejected, or is the Host's. RFC 4422 section 3.
type Server = sasl.Server

// A Host answers what a mechanism asks while it runs. It notes the identity that it hands out last: when
// an exchange is done without error, that user is proven, and acts as the one of As.
type Host interface {
	// CheckPassword proves a user by his password.
	CheckPassword(user, password string) error
	// Secret returns what the user's proof is to be checked with; mechanism is one of package auth's. An
	// error that wraps auth.ErrRejected comes with a Secret that is made up: the exchange goes on with it
	// to its end and fails there.
	Secret(user, mechanism string) (auth.Secret, error)
	// External proves the user whom the client's certificate names.
	External() error
	// CheckToken proves the user whom a bearer token names, and that he may act as the one whom the client named with
	// it, if any. Of Token it gets all but Remote. An error that wraps auth.ErrRejected is told to the client as
	// auth.TokenRefusal says, and ends the exchange after that.
	CheckToken(t auth.Token) error
	// As names the user as whom the client wants to act; it is called at most once, when all else is
	// proven, with a name that is not empty. It may be the user's own: in another spelling, or with EXTERNAL.
	As(user string) error
}

// A Channel is what mechanisms must know of the connection.
type Channel struct {
	// Exporter and EndPoint are the channel bindings tls-exporter (RFC 9266) and tls-server-end-point (RFC
	// 5929); nil without TLS, or where there is none.
	Exporter, EndPoint []byte
	// Unique is the channel binding tls-unique, of TLS 1.2 with the extended master secret alone: without
	// that it binds nothing (RFC 7627 section 1). GNU SASL knows no other before TLS 1.3. RFC 5929 section 3.
	Unique []byte
	// Plus says that the mechanism's -PLUS form was offered too, so that a client which thinks it was not
	// was cheated. RFC 5802 section 6.
	Plus bool
	// Hostname goes into CRAM-MD5's challenge; empty: "localhost".
	Hostname string
}

// A Mechanism is one row of what this package knows.
type Mechanism struct {
	Name        string // as clients see it, in capitals
	Plaintext   bool   // the client sends the password, or a token, as it is
	ServerFirst bool   // the server speaks first: an initial response is an error (RFC 4422 section 5)
	Plus        bool   // it needs a channel binding (RFC 5802 section 6)
	External    bool   // it needs a client's certificate
	Token       bool   // it needs bearer tokens to be checked
	Secret      string // which of package auth's secrets it needs; empty if none

	start func(Host, Channel) Server
}

// NewServer begins an exchange.
func (m Mechanism) NewServer(h Host, c Channel) Server { return m.start(h, c) }
