package main

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/go-sql-driver/mysql"
	"github.com/jackc/pgx/v5/pgconn"

	"dewey/auth/chain"
	"dewey/auth/doveauth"
	"dewey/auth/ldap"
	"dewey/auth/oidc"
	"dewey/auth/pam"
	sqlauth "dewey/auth/sql"
	"dewey/config"
	"dewey/internal/confine"
)

// A build makes what answers.
type build func() (any, error)

// makers read the files of a table, say what the backend must reach, and how it is made. They ask nobody.
var makers = map[string]func(*backends, *config.Config, *config.Auth, *fileReader, *reach) (build, error){
	config.KindPasswdFile: func(_ *backends, c *config.Config, a *config.Auth, _ *fileReader, r *reach) (build, error) {
		path, _ := usersPath(c, a)
		r.read = append(r.read, confine.Folders(path)...)
		return nil, nil
	},
	config.KindLDAP: func(b *backends, _ *config.Config, a *config.Auth, files *fileReader, r *reach) (build, error) {
		made := ldap.Config{
			URLs: a.URLs, StartTLS: a.StartTLS, Plaintext: a.Plaintext, CA: files.pem(a.CAFile),
			BindDN: a.BindDN, BindPassword: files.secret(a.BindPasswordFile),
			Base: a.Base, Scope: a.Scope, Filter: a.Filter, RecipientFilter: a.RecipientFilter, Mode: a.Mode, DN: a.DN,
			UserAttribute: a.UserAttribute, PasswordAttribute: a.PasswordAttribute, HomeAttribute: a.HomeAttribute,
			QuotaAttribute: a.QuotaAttribute, QuotaMessagesAttribute: a.QuotaMessagesAttribute,
			GroupBase: a.GroupBase, GroupFilter: a.GroupFilter, KeepCase: a.KeepCase,
			Connections: a.Connections, Timeout: a.Timeout, Weak: a.WeakSchemes, DefaultScheme: a.DefaultScheme, Workers: b.workers,
		}
		for _, u := range a.URLs {
			r.url(u)
		}
		return func() (any, error) { return ldap.New(made) }, nil
	},
	config.KindSQL: func(b *backends, c *config.Config, a *config.Auth, files *fileReader, r *reach) (build, error) {
		dsn := a.DSN
		if a.DSNFile != "" {
			dsn = files.secret(a.DSNFile)
		}
		if a.Driver == sqlauth.SQLite {
			dsn = sqliteFile(c, dsn)
		}
		made := sqlauth.Config{
			Driver: a.Driver, DSN: dsn, UserQuery: a.UserQuery, RecipientQuery: a.RecipientQuery, KeepCase: a.KeepCase, CA: files.pem(a.CAFile),
			Connections: a.Connections, Timeout: a.Timeout, Weak: a.WeakSchemes, DefaultScheme: a.DefaultScheme, Workers: b.workers,
		}
		r.database(a.Driver, dsn)
		return func() (any, error) { return sqlauth.New(made) }, nil
	},
	config.KindOAuth: func(b *backends, _ *config.Config, a *config.Auth, files *fileReader, r *reach) (build, error) {
		made := oidc.Config{
			Issuer: a.Issuer, Audiences: a.Audiences, Scopes: a.Scopes, Claim: a.Claim, Domains: a.Domains, Leeway: a.Leeway, Timeout: a.Timeout,
			Introspection: oidc.Introspection{URL: a.IntrospectionURL, ClientID: a.ClientID, ClientSecret: files.secret(a.ClientSecretFile), Remember: a.Remember},
		}
		if len(a.Algorithms) > 0 {
			made.Algorithms = a.Algorithms
		}
		if a.Remember == 0 {
			made.Introspection.Remember = -1
		}
		if a.Users == config.UsersChain {
			made.Find = b.Find
		}
		if pem := files.pem(a.CAFile); pem != nil {
			made.Roots = x509.NewCertPool()
			if !made.Roots.AppendCertsFromPEM(pem) && len(files.errs) == 0 {
				return nil, errors.New("ca_file has no certificate in it; one that starts with -----BEGIN CERTIFICATE----- would be right")
			}
		}
		if a.IntrospectionURL != "" {
			r.url(a.IntrospectionURL)
		} else { // its keys may be at any port, as its configuration says
			r.any = true
			r.lookUp()
		}
		return func() (any, error) { return closingTokens(oidc.New(made)) }, nil
	},
	config.KindPAM: func(b *backends, c *config.Config, a *config.Auth, _ *fileReader, _ *reach) (build, error) {
		made := pam.Config{
			Socket: absolute(a.Socket), Service: a.Service, Processes: a.Processes, Timeout: a.Timeout, MinUID: uint(a.MinUID), //nolint:gosec // not negative
			Virtual: a.Recipients == "none", Network: a.Network, Home: a.Home, KeepCase: a.KeepCase, Logger: b.log,
		}
		if a.Socket == "" {
			made.Helper = pamHelper(c.AuthFile(a.Helper))
		}
		return func() (any, error) { return pam.New(made) }, nil
	},
	config.KindDovecot: func(_ *backends, _ *config.Config, a *config.Auth, _ *fileReader, _ *reach) (build, error) {
		made := doveauth.Config{AuthSocket: absolute(a.AuthSocket), UserDBSocket: absolute(a.UserdbSocket), Service: a.Service, Timeout: a.Timeout}
		return func() (any, error) { return doveauth.New(made) }, nil
	},
}

// closingTokens gives a Checker a Close as others have it.
func closingTokens(k *oidc.Checker, err error) (any, error) {
	if err != nil {
		return nil, err
	}
	return &tokens{k}, nil
}

type tokens struct{ *oidc.Checker }

func (t *tokens) Close() error {
	t.Checker.Close()
	return nil
}

// pamHelper says where dewey-pam is.
func pamHelper(name string) string {
	if name != "" {
		return absolute(name)
	}
	if own, err := os.Executable(); err == nil {
		if beside := filepath.Join(filepath.Dir(own), "dewey-pam"); present(beside) {
			return beside
		}
	}
	return "/usr/libexec/dewey/dewey-pam"
}

// sqliteFile puts {data} into the name of a database.
func sqliteFile(c *config.Config, dsn string) string {
	if strings.HasPrefix(dsn, "{data}") {
		return absolute(c.Data + strings.TrimPrefix(dsn, "{data}"))
	}
	return dsn
}

// start starts the programs that backends need, with the rights that the process has now.
func (o *opened) start(ctx context.Context, before opened) error {
	var errs []error
	for _, l := range o.list {
		program, ok := l.Users.(interface {
			Start(ctx context.Context) error
		})
		if ok && !slices.ContainsFunc(before.list, func(b chain.Backend) bool { return b.Users == l.Users }) {
			if err := program.Start(ctx); err != nil {
				errs = append(errs, fmt.Errorf("auth %s: %w", l.Name, err))
			}
		}
	}
	return errors.Join(errs...)
}

// reach is what backends must reach once the process is confined.
type reach struct {
	read  []string // files and folders
	ports []uint16 // TCP
	any   bool     // all of them
	names bool     // of hosts are looked up, and certificates checked
}

// url adds a server's port. One that has none, or a path for a host, is reached anyhow.
func (r *reach) url(text string) {
	defaults := map[string]string{"ldap": "389", "ldaps": "636", "https": "443"}
	u, err := url.Parse(text)
	if err != nil || defaults[u.Scheme] == "" {
		return
	}
	port := u.Port()
	if port == "" {
		port = defaults[u.Scheme]
	}
	r.host(port)
}

// lookUp adds what looking up a host needs: an answer that is too long for UDP comes by TCP.
func (r *reach) lookUp() {
	r.names, r.ports = true, append(r.ports, 53)
}

func (r *reach) host(port string) {
	r.lookUp()
	if n, err := strconv.ParseUint(port, 10, 16); err == nil {
		r.ports = append(r.ports, uint16(n))
	}
}

// database adds what a DSN names. What is wrong with it the backend says.
func (r *reach) database(driver, dsn string) {
	switch driver {
	case sqlauth.SQLite:
		r.read = append(r.read, confine.Folders(strings.TrimPrefix(dsn, "file:"))...)
	case sqlauth.MySQL:
		defer func() { _ = recover() }() // ParseDSN panics at strict=true
		if c, err := mysql.ParseDSN(dsn); err == nil && c.Net != "unix" {
			_, port, _ := net.SplitHostPort(c.Addr)
			r.host(port)
		}
	default:
		c, err := pgconn.ParseConfig(dsn)
		if err != nil {
			return
		}
		for _, way := range append([]*pgconn.FallbackConfig{{Host: c.Host, Port: c.Port}}, c.Fallbacks...) {
			if !strings.HasPrefix(way.Host, "/") {
				r.host(strconv.Itoa(int(way.Port)))
			}
		}
	}
}

// within returns an error if a process that is confined to all lacks something of r. What is not there at all is no lack.
func (r reach) within(all reach) error {
	lacks := func(format string, args ...any) error {
		return fmt.Errorf("auth: a backend needs "+format+", out of this process's reach (process.landlock): restart dewey", args...)
	}
	if r.any && !all.any {
		return lacks("all ports")
	}
	for _, p := range r.ports {
		if !all.any && !slices.Contains(all.ports, p) {
			return lacks("port %d", p)
		}
	}
	if r.names && !all.names {
		return lacks("to look up hosts and check certificates")
	}
	for _, path := range existing(r.read...) {
		if !slices.ContainsFunc(all.read, func(folder string) bool { return below(path, folder) }) {
			return lacks("%s", path)
		}
	}
	return nil
}

// existing returns the paths that are there, without links.
func existing(paths ...string) []string {
	var list []string
	for _, path := range paths {
		path = absolute(path)
		switch resolved, err := filepath.EvalSymlinks(path); {
		case err == nil:
			list = append(list, resolved)
		case !errors.Is(err, fs.ErrNotExist): // it is there, and not to be seen by us
			list = append(list, path)
		}
	}
	return list
}

// below says that a path is a folder's, or the folder.
func below(path, folder string) bool {
	rest, in := strings.CutPrefix(path, strings.TrimSuffix(folder, "/"))
	return in && (rest == "" || rest[0] == '/')
}
