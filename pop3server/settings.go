package pop3server

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"dewey/auth"
	"dewey/maildrop"
	"dewey/pop3"
	"dewey/sasl"
)

// Plaintext says on which connections a password may be sent as it is, when TLS does not protect it.
type Plaintext int

const (
	// PlaintextLoopback allows it from this machine: from a loopback address, a unix socket, a pipe.
	PlaintextLoopback Plaintext = iota
	// PlaintextNever forbids it.
	PlaintextNever
	// PlaintextAlways allows it from anywhere.
	PlaintextAlways
)

// Settings are what may be changed while a Server runs, by Reconfigure. The zero value is of use.
type Settings struct {
	// Hostname is shown in the greeting. Empty: none is shown.
	Hostname string

	// Plaintext says who may use USER, PASS, and the SASL mechanisms PLAIN, LOGIN, OAUTHBEARER and XOAUTH2
	// without TLS; from others they are hidden and refused.
	Plaintext Plaintext

	// NoUserPass turns USER and PASS off for everybody.
	NoUserPass bool

	// Mechanisms are the SASL mechanisms that are offered, and "APOP", in capitals: see sasl.Names. nil
	// offers each by which every user could log in, since clients pick the strongest that they see and do not
	// fall back.
	Mechanisms []string

	// LoginTimeout bounds how long a connection may take to log in, however much it says. 0: no bound.
	LoginTimeout time.Duration

	// MaxAttempts is how many logins may be refused on one connection before it is closed. SASL exchanges that the
	// client breaks off, or gets wrong, are among them; faults of a backend are not. 0: no bound.
	MaxAttempts int

	// IdleTimeout is the inactivity autologout timer: a session that sends no complete command for so
	// long is closed without a word and without removing anything. 0 means pop3.MinIdle, and less than
	// that is an error. RFC 1939 section 3.
	IdleTimeout time.Duration

	// WriteTimeout closes a session whose client takes none of what is sent for so long. 0 means 5 minutes.
	WriteTimeout time.Duration

	// LoginDelay is the least time between two logins of one user; announced, and enforced, but for
	// Trusted. Whole seconds. RFC 2449 section 6.5.
	LoginDelay time.Duration

	// Life holds for users of whom the database says nothing else. Its Retention is announced by EXPIRE; it is for
	// others to keep to it. RFC 2449 section 6.7.
	Life maildrop.Life

	// FailureDelay is how long the refusal of a login is held back, and that of a broken SASL exchange.
	FailureDelay time.Duration

	// MaxConnections bounds the connections in all, MaxPerAddress those from one address (of IPv6,
	// from one /64), MaxPerUser the sessions of one user, those that wait for the maildrop counted.
	// Beyond them a client is told and sent away. 0 means no bound.
	MaxConnections, MaxPerAddress, MaxPerUser int

	// MaxUnauthenticated bounds the connections that have not logged in. Beyond it the oldest of them
	// is dropped without a word. 0 means no bound.
	MaxUnauthenticated int

	// Trusted are networks from which MaxPerAddress and LoginDelay do not count and XCLIENT is taken: a webmail
	// host, say.
	Trusted []netip.Prefix

	// Implementation is what CAPA says of the server, visible ASCII. Empty: "dewey". RFC 2449 section 6.9.
	Implementation string

	// Language is the tag, one of Languages, that a client gets which asks for the language that the
	// administrator prefers. Empty: DefaultLanguage. RFC 6856 section 3.2.
	Language string
}

const (
	defaultWriteTimeout   = 5 * time.Minute
	defaultImplementation = "dewey"
)

// checked returns the settings with defaults in place of what is not set, or all that is wrong with them.
func (s Settings) checked() (Settings, error) {
	var errs []error
	bad := func(format string, args ...any) { errs = append(errs, fmt.Errorf("pop3server: "+format, args...)) }

	if s.IdleTimeout == 0 {
		s.IdleTimeout = pop3.MinIdle
	}
	if s.IdleTimeout < pop3.MinIdle {
		bad("IdleTimeout %v is shorter than the %v of RFC 1939 section 3", s.IdleTimeout, pop3.MinIdle)
	}
	if s.WriteTimeout == 0 {
		s.WriteTimeout = defaultWriteTimeout
	}
	if s.WriteTimeout < 0 || s.FailureDelay < 0 || s.LoginTimeout < 0 || s.LoginDelay < 0 {
		bad("a time is negative: WriteTimeout %v, FailureDelay %v, LoginTimeout %v, LoginDelay %v", s.WriteTimeout, s.FailureDelay, s.LoginTimeout, s.LoginDelay)
	}
	life := s.Life
	if min(life.Retention, life.Undelete, life.Window) < maildrop.Off || life.WindowMessages < maildrop.Off {
		bad("a bound of Life is negative and not Off: Retention %v, Undelete %v, Window %v, WindowMessages %d", life.Retention, life.Undelete, life.Window, life.WindowMessages)
	}
	if life.Retention > 0 && life.Retention%day != 0 {
		bad("Life.Retention %v is not of whole days", life.Retention)
	}
	if !slices.Contains([]string{"", maildrop.DeletionRemove, maildrop.DeletionKeep, maildrop.DeletionRetrieved}, life.Deletion) {
		bad("Life.Deletion %q is none of %q, %q, %q", life.Deletion, maildrop.DeletionRemove, maildrop.DeletionKeep, maildrop.DeletionRetrieved)
	}
	if s.LoginDelay%time.Second != 0 {
		bad("LoginDelay %v is not of whole seconds", s.LoginDelay)
	}
	for _, name := range s.Mechanisms {
		if name != auth.APOP && !slices.Contains(sasl.Names(), name) {
			bad("mechanism %q is none of APOP, %s", name, strings.Join(sasl.Names(), ", "))
		}
	}
	if min(s.MaxAttempts, s.MaxConnections, s.MaxPerAddress, s.MaxPerUser, s.MaxUnauthenticated) < 0 {
		bad("a bound is negative")
	}
	if s.Plaintext < PlaintextLoopback || s.Plaintext > PlaintextAlways {
		bad("Plaintext %d is none of the defined values", s.Plaintext)
	}
	if s.Implementation == "" {
		s.Implementation = defaultImplementation
	}
	for _, text := range []string{s.Implementation, s.Hostname} {
		// "<" and ">" would make an APOP timestamp of the greeting. RFC 1939 section 7.
		if len(text) > 255 || slices.ContainsFunc([]byte(text), func(c byte) bool { return c <= ' ' || c > '~' || c == '<' || c == '>' }) {
			bad("%q is longer than 255 octets or has some that are not visible ASCII", text)
		}
	}
	if s.Language == "" {
		s.Language = DefaultLanguage
	}
	if !slices.Contains(Languages(), s.Language) {
		bad("Language %q is none of %v", s.Language, Languages())
	}
	return s, errors.Join(errs...)
}
