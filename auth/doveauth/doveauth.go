// Package doveauth proves users by the auth process of a Dovecot that runs beside: by its sockets auth-client, for
// passwords, and auth-userdb, for users by name alone.
//
// Source: Dovecot's Authentication Protocol, https://doc.dovecot.org/2.3/developer_manual/design/auth_protocol/, and what
// Dovecot 2.3.19 says.
package doveauth

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"net/netip"
	"path/filepath"
	"strings"
	"time"

	"dewey/auth"
)

// Config says where the sockets are.
type Config struct {
	// AuthSocket is Dovecot's auth-client. Empty: /run/dovecot/auth-client.
	AuthSocket string
	// UserDBSocket is its auth-userdb. Empty: none, and then Dovecot tells nothing but whether a password is right: no
	// home, no quota, no Recipient, no Find, and an unknown user looks as one with a wrong password.
	UserDBSocket string
	// Service is what Dovecot calls us, its %s. Empty: "pop3".
	Service string
	// Timeout bounds every call; Dovecot itself holds back a refusal for two seconds (auth_failure_delay). 0: five
	// seconds.
	Timeout time.Duration
}

const (
	defaultSocket  = "/run/dovecot/auth-client"
	defaultService = "pop3"
	defaultTimeout = 5 * time.Second
	maxName        = 255
	maxPassword    = 4096 // a line of Dovecot's has 8192 octets
)

// A Backend is an auth.PasswordChecker, and knows recipients. Many goroutines may use it.
type Backend struct {
	c            Config
	auth, userdb *client // userdb: nil if there is none
}

// New checks a configuration, and says all that is wrong with it. It connects to nobody.
func New(c Config) (*Backend, error) {
	var errs []error
	bad := func(format string, args ...any) { errs = append(errs, fmt.Errorf("dovecot: "+format, args...)) }
	if c.AuthSocket == "" {
		c.AuthSocket = defaultSocket
	}
	if c.Service == "" {
		c.Service = defaultService
	}
	for _, path := range []string{c.AuthSocket, c.UserDBSocket} {
		if path != "" && (!filepath.IsAbs(path) || strings.ContainsRune(path, 0)) {
			bad("%q is not absolute; %s is", path, defaultSocket)
		}
	}
	if strings.ContainsFunc(c.Service, func(r rune) bool { return r <= ' ' || r > '~' }) {
		bad("service: %q has more than visible ASCII in it; pop3 would be right", c.Service)
	}
	if c.Timeout < 0 {
		bad("timeout: %v is negative", c.Timeout)
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	if c.Timeout == 0 {
		c.Timeout = defaultTimeout
	}
	b := &Backend{c: c, auth: newClient(c.AuthSocket, true)}
	if c.UserDBSocket != "" {
		b.userdb = newClient(c.UserDBSocket, false)
	}
	return b, nil
}

// Close closes the connections. Calls that wait for an answer get an error.
func (b *Backend) Close() error {
	b.auth.close()
	if b.userdb != nil {
		b.userdb.close()
	}
	return nil
}

// CheckPassword implements auth.PasswordChecker, by Dovecot's mechanism PLAIN. What Dovecot refuses is asked of its
// userdb: only that tells an unknown user from a wrong password.
func (b *Backend) CheckPassword(ctx context.Context, a auth.Attempt) (auth.Identity, error) {
	if err := possible(a.User); err != nil {
		return auth.Identity{}, err
	}
	if a.Password == "" || len(a.Password) > maxPassword || strings.ContainsRune(a.Password, 0) {
		return auth.Identity{}, fmt.Errorf("dovecot: a password that nobody can have: %w", auth.ErrRejected)
	}
	ctx, cancel := context.WithTimeout(ctx, b.c.Timeout)
	defer cancel()
	user, err := b.prove(ctx, a)
	if b.userdb == nil {
		return auth.Identity{User: user}, err
	}
	if errors.Is(err, errRefused) {
		if _, e := b.lookUp(ctx, a.User, a.Remote); errors.Is(e, auth.ErrUnknownUser) {
			return auth.Identity{}, e
		} else if e != nil {
			return auth.Identity{}, fmt.Errorf("dovecot: the password was refused, and whether there is such a user can't be told: %w", e)
		}
	}
	if err != nil {
		return auth.Identity{}, err
	}
	id, err := b.lookUp(ctx, user, a.Remote)
	if errors.Is(err, auth.ErrRejected) { // the password was right: no other backend is to be asked
		return auth.Identity{}, fmt.Errorf("dovecot: its passdb has the user %q, and its userdb has not", user)
	}
	return id, err
}

// errRefused is a FAIL that does not say why: an unknown user or a wrong password.
var errRefused = fmt.Errorf("dovecot: refused: %w", auth.ErrRejected)

// prove asks Dovecot whether the password is right, and returns the name by which it knows the user.
func (b *Backend) prove(ctx context.Context, a auth.Attempt) (string, error) {
	// That the connection is good enough for a password is dewey's to say (login.plaintext), and so is who has to wait.
	line := "PLAIN\tservice=" + b.c.Service + "\tsecured\tno-penalty\tnologin" + address(a.Remote) +
		"\tresp=" + base64.StdEncoding.EncodeToString([]byte("\x00"+a.User+"\x00"+a.Password)) // always the last one
	answer, err := b.auth.ask(ctx, "AUTH", line)
	if err != nil {
		return "", fmt.Errorf("dovecot: auth: %w", err)
	}
	p := parameters(answer[2:])
	switch answer[0] {
	case "OK":
	case "FAIL":
		return "", failure(p)
	default: // CONT among them: PLAIN has nothing to go on with
		return "", fmt.Errorf("dovecot: auth: %w: %q", errNonsense, answer[0])
	}
	if _, found := p["proxy"]; found {
		return "", fmt.Errorf("dovecot: the mail of %q is on another server (proxy), where dewey does not go", a.User)
	}
	if _, found := p["nologin"]; found {
		return "", fmt.Errorf("dovecot: %q may not log in (nologin): %w", a.User, auth.ErrRejected)
	}
	user := p["user"]
	if possible(user) != nil || strings.ContainsFunc(user, func(r rune) bool { return r < ' ' || r == 0x7f }) {
		return "", fmt.Errorf("dovecot: auth: %w: it calls the user %q", errNonsense, user)
	}
	return user, nil
}

// failure says what a FAIL means. Before 2.3 it had words for codes.
func failure(p map[string]string) error {
	code := p["code"]
	for _, word := range []string{"temp", "authz", "user_disabled", "pass_expired"} {
		if _, found := p[word]; found && code == "" {
			code = word
		}
	}
	switch code {
	case "":
		return errRefused
	case "authz", "authz_fail", "user_disabled", "pass_expired":
		return fmt.Errorf("dovecot: %s: %w", code, auth.ErrRejected)
	}
	return fmt.Errorf("dovecot: could not tell: %q %q", code, p["reason"]) // temp_fail, or a fault of the configuration
}

// Recipient implements auth.Recipients: Dovecot's userdb knows for whom there is mail.
func (b *Backend) Recipient(ctx context.Context, user string) (auth.Identity, error) {
	return b.Find(ctx, user, netip.Addr{})
}

// Find returns a user by his name alone. Whether he may log in, and from where, only Dovecot's passdb would know.
func (b *Backend) Find(ctx context.Context, user string, remote netip.Addr) (auth.Identity, error) {
	if err := possible(user); err != nil {
		return auth.Identity{}, err
	}
	if b.userdb == nil {
		return auth.Identity{}, fmt.Errorf("dovecot: there is no userdb_socket to ask: %w", auth.ErrUnknownUser)
	}
	ctx, cancel := context.WithTimeout(ctx, b.c.Timeout)
	defer cancel()
	return b.lookUp(ctx, user, remote)
}

// lookUp asks the userdb.
func (b *Backend) lookUp(ctx context.Context, user string, remote netip.Addr) (auth.Identity, error) {
	answer, err := b.userdb.ask(ctx, "USER", escape(user)+"\tservice="+b.c.Service+address(remote))
	if err != nil {
		return auth.Identity{}, fmt.Errorf("dovecot: userdb: %w", err)
	}
	switch answer[0] {
	case "NOTFOUND":
		return auth.Identity{}, fmt.Errorf("dovecot: userdb: %w", auth.ErrUnknownUser)
	case "FAIL":
		return auth.Identity{}, fmt.Errorf("dovecot: userdb: could not tell: %q; Dovecot's log says more", strings.Join(answer[2:], " "))
	case "USER":
		if len(answer) >= 3 {
			return identity(answer[2], answer[3:])
		}
	}
	return auth.Identity{}, fmt.Errorf("dovecot: userdb: %w: %q", errNonsense, answer[0])
}

// identity is what the userdb says of a user.
func identity(user string, fields []string) (auth.Identity, error) {
	if possible(user) != nil || strings.ContainsFunc(user, func(r rune) bool { return r < ' ' || r == 0x7f }) {
		return auth.Identity{}, fmt.Errorf("dovecot: userdb: %w: it calls the user %q", errNonsense, user)
	}
	id := auth.Identity{User: user}
	p := parameters(fields)
	if h := p["home"]; h != "" {
		for part := range strings.SplitSeq(h, "/") {
			if !filepath.IsAbs(h) || strings.ContainsRune(h, 0) || part == ".." {
				return auth.Identity{}, fmt.Errorf("dovecot: userdb: the home of %q is %q, which is not absolute, or has .. in it", user, h)
			}
		}
		id.Home = filepath.Clean(h)
	}
	if rule, found := p["quota_rule"]; found && !id.Quota.ApplyRule(rule) {
		return auth.Identity{}, fmt.Errorf("dovecot: userdb: the quota_rule of %q is %q; *:storage=2G:messages=1000 would be understood", user, rule)
	}
	return id, nil
}

// possible says whether there can be a user of that name.
func possible(user string) error {
	if user == "" || len(user) > maxName || strings.ContainsRune(user, 0) {
		return fmt.Errorf("dovecot: no name that a user can have: %w", auth.ErrUnknownUser)
	}
	return nil
}

// address is the parameter with the client's address, for allow_nets and Dovecot's log.
func address(a netip.Addr) string {
	if !a.IsValid() {
		return ""
	}
	return "\trip=" + a.Unmap().WithZone("").String()
}
