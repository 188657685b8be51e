package ldap

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"path"
	"strings"
	"time"

	ber "github.com/go-asn1-ber/asn1-ber"
	goldap "github.com/go-ldap/ldap/v3"
)

// A server is one URL, and how it did. The pool's lock guards what changes.
type server struct {
	url              string
	network, address string
	tls              *tls.Config // nil: none
	startTLS         bool

	failed time.Time // zero: it works, for all that is known
	err    error     // what failed
}

// servers reads the URLs.
func (c *Config) servers() ([]*server, error) {
	var errs []error
	if len(c.URLs) == 0 {
		errs = append(errs, errors.New("ldap: urls is empty; [\"ldaps://ldap.example.org\"] would be right"))
	}
	roots, err := c.roots()
	if err != nil {
		errs = append(errs, err)
	}
	var list []*server
	for _, text := range c.URLs {
		s, host, err := parseURL(text)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		secure := strings.HasPrefix(text, "ldaps:")
		switch {
		case c.StartTLS && (secure || s.network == "unix"):
			errs = append(errs, fmt.Errorf("ldap: %q: starttls is for ldap:// alone; without it, this URL would be right", text))
		case !c.StartTLS && !secure && !c.Plaintext && !local(s.network, host):
			errs = append(errs, fmt.Errorf("ldap: %q would send passwords in the clear; starttls = true, or ldaps://, would be right", text))
		}
		if secure || c.StartTLS {
			s.tls = &tls.Config{ServerName: host, RootCAs: roots, MinVersion: tls.VersionTLS12}
			s.startTLS = c.StartTLS
		}
		list = append(list, s)
	}
	return list, errors.Join(errs...)
}

// parseURL reads one URL of a server; host is empty for a socket.
func parseURL(text string) (s *server, host string, err error) {
	bad := func(what string) (*server, string, error) {
		return nil, "", fmt.Errorf("ldap: %q %s; ldaps://ldap.example.org or ldapi://%%2Frun%%2Fslapd%%2Fldapi would be right", text, what)
	}
	if socket, ok := strings.CutPrefix(text, "ldapi://"); ok { // net/url takes no %2F in a host
		name, err := url.PathUnescape(socket)
		if err != nil || !path.IsAbs(name) || path.Clean(name) != name || name == "/" || strings.ContainsAny(name, "\x00?") {
			return bad("names no socket by an absolute path")
		}
		return &server{url: text, network: "unix", address: name}, "", nil
	}
	u, err := url.Parse(text)
	switch {
	case err != nil:
		return bad("is no URL")
	case u.User != nil:
		return nil, "", errors.New("ldap: a URL with a user in it; bind_dn and bind_password_file would be right")
	case u.Scheme != "ldap" && u.Scheme != "ldaps":
		return bad("is not ldap://, ldaps:// or ldapi://")
	case u.Hostname() == "" || u.Opaque != "":
		return bad("has no host")
	case strings.Trim(u.Path, "/") != "" || u.RawQuery != "" || u.ForceQuery || u.Fragment != "":
		return bad("has more than a host and a port: base, scope and filter have keys of their own")
	}
	port := u.Port()
	if port == "" {
		port = map[string]string{"ldap": "389", "ldaps": "636"}[u.Scheme]
	}
	if n, err := net.LookupPort("tcp", port); err != nil || n == 0 {
		return bad("has no port from 1 to 65535")
	}
	return &server{url: text, network: "tcp", address: net.JoinHostPort(u.Hostname(), port)}, u.Hostname(), nil
}

// local says whether what is sent does not leave the machine.
func local(network, host string) bool {
	a, err := netip.ParseAddr(host)
	return network == "unix" || host == "localhost" || err == nil && a.IsLoopback()
}

// A conn is one connection. One goroutine uses it at a time.
type conn struct {
	server *server
	kind   kind
	raw    net.Conn
	guard  *guard
	lib    *goldap.Conn
	used   time.Time
}

// A lost error is one of the connection, which is of no more use, and not an answer.
type lost struct{ error }

func (l lost) Unwrap() error { return l.error }

// dial connects, with TLS if it is to be. Errors are lost ones.
func (s *server) dial(ctx context.Context, k kind) (*conn, error) {
	raw, err := (&net.Dialer{}).DialContext(ctx, s.network, s.address)
	if err != nil {
		return nil, lost{explain(ctx, err)}
	}
	c := &conn{server: s, kind: k, raw: raw}
	stop := c.within(ctx)
	err = c.secure(ctx)
	stop()
	if err != nil {
		raw.Close()
		return nil, lost{explain(ctx, err)}
	}
	c.lib = goldap.NewConn(c.guard, s.tls != nil)
	c.lib.Start()
	return c, nil
}

// secure turns TLS on. The library's own StartTLS is not used: it waits without bound where a server first says something
// else, and goes on with what came in clear after the answer.
func (c *conn) secure(ctx context.Context) error {
	c.guard = newGuard(c.raw)
	if c.server.tls == nil {
		return nil
	}
	if c.server.startTLS {
		if err := c.askTLS(); err != nil {
			return fmt.Errorf("STARTTLS: %w", err)
		}
	}
	over := tls.Client(c.raw, c.server.tls)
	if err := over.HandshakeContext(ctx); err != nil {
		return fmt.Errorf("TLS: %w", err)
	}
	c.guard = newGuard(over)
	return nil
}

// oidStartTLS is the name of the extended operation. RFC 4511 section 4.14.1.
const oidStartTLS = "1.3.6.1.4.1.1466.20037"

// askTLS is StartTLS up to the handshake.
func (c *conn) askTLS() error {
	request := ber.NewSequence("")
	request.AppendChild(ber.NewInteger(ber.ClassUniversal, ber.TypePrimitive, ber.TagInteger, 1, ""))
	operation := ber.Encode(ber.ClassApplication, ber.TypeConstructed, goldap.ApplicationExtendedRequest, nil, "")
	operation.AppendChild(ber.NewString(ber.ClassContext, ber.TypePrimitive, 0, oidStartTLS, ""))
	request.AppendChild(operation)
	c.guard.await(opExtended)
	if _, err := c.raw.Write(request.Bytes()); err != nil {
		return err
	}
	message, err := c.guard.next()
	if err != nil {
		return err
	}
	reply, err := ber.DecodePacketErr(message)
	if err != nil {
		return err
	}
	var e *goldap.Error
	if errors.As(goldap.GetLDAPError(reply), &e) {
		return answer{e}
	}
	if c.guard.in.Buffered() > 0 {
		return errors.New("the server sends something in the clear after its answer")
	}
	return nil
}

// within bounds what happens on the connection by ctx until stop is called; stop says whether ctx has ended.
func (c *conn) within(ctx context.Context) (stop func() (ended bool)) {
	quiet := context.AfterFunc(ctx, func() { _ = c.raw.SetDeadline(time.Unix(1, 0)) })
	return func() bool { return !quiet() }
}

// ask runs one request of the library's; final is the operation that ends the answer, others are what may come before it.
// Errors are an answer's or lost ones.
func (c *conn) ask(ctx context.Context, request func() error, final int, others ...int) error {
	c.guard.await(final, others...)
	stop := c.within(ctx)
	err := request()
	var e *goldap.Error
	switch ended := stop(); {
	case ended:
		return lost{explain(ctx, err)}
	case err == nil:
		return nil
	case errors.As(err, &e) && e.ResultCode > 0 && e.ResultCode < goldap.ErrorNetwork:
		return answer{e}
	}
	if fault := c.guard.fault(); fault != nil {
		err = fault
	}
	return lost{err}
}

// An answer is what a server says other than yes, in words that may be logged.
type answer struct{ e *goldap.Error }

// maxDiagnostic bounds what of a server's own words gets into an error, in octets.
const maxDiagnostic = 200

func (a answer) Error() string {
	words := a.e.Err.Error()
	return fmt.Sprintf("the server says %d (%s) %q", a.e.ResultCode, goldap.LDAPResultCodeMap[a.e.ResultCode], words[:min(len(words), maxDiagnostic)])
}

func (a answer) Unwrap() error { return a.e }

// bind proves who asks from now on. An empty name or password would make us nobody, and a success of it would prove nothing.
// RFC 4513 section 5.1.2.
func (c *conn) bind(ctx context.Context, dn, password string) error {
	if dn == "" || password == "" {
		return errors.New("a bind without a name or a password")
	}
	return c.ask(ctx, func() error { return c.lib.Bind(dn, password) }, opBind)
}

func (c *conn) search(ctx context.Context, r *goldap.SearchRequest) (result *goldap.SearchResult, err error) {
	if deadline, ok := ctx.Deadline(); ok {
		r.TimeLimit = int(time.Until(deadline)/time.Second) + 1
	}
	err = c.ask(ctx, func() (err error) {
		result, err = c.lib.Search(r)
		return err
	}, opDone, opEntry, opReference)
	return result, err
}

// close says goodbye, if that can be said at once, and waits for the library's goroutines.
func (c *conn) close() {
	_ = c.raw.SetDeadline(time.Now().Add(goodbye))
	_ = c.lib.Unbind()
	_ = c.lib.Close()
}

const goodbye = 100 * time.Millisecond

// explain says more of errors that an administrator meets first.
func explain(ctx context.Context, err error) error {
	var (
		unknown x509.UnknownAuthorityError
		name    x509.HostnameError
	)
	switch {
	case ctx.Err() != nil:
		return fmt.Errorf("no answer in time: %w", context.Cause(ctx))
	case errors.As(err, &unknown):
		return fmt.Errorf("%w; ca_file with the certificate of who signed it would be right", err)
	case errors.As(err, &name):
		return fmt.Errorf("%w; a URL with a name that the certificate has would be right", err)
	}
	return err
}
