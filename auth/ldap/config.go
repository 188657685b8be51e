package ldap

import (
	"crypto/x509"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"

	"dewey/auth/scheme"
)

// The modes: who checks a password.
const (
	ModeBind   = "bind"   // the directory: dewey binds as the user
	ModeLookup = "lookup" // dewey, with the hash that it reads
)

// Config says where the directory is, how a user is found there, and what of his entry counts. In filters and DN
// stand {user} for the name that was asked for, {local} and {domain} for its parts around the last "@"; they are escaped.
type Config struct {
	// URLs are the servers, in the order in which they are asked: ldap://host:port, ldaps://host:port,
	// ldapi://%2Frun%2Fslapd%2Fldapi (or ldapi:///run/slapd/ldapi). All have the same data.
	URLs []string
	// StartTLS turns TLS on before anything is said to a server with ldap://.
	StartTLS bool
	// Plaintext lets passwords travel in the clear, by ldap:// without StartTLS, to a server on another machine.
	Plaintext bool
	// CA is PEM: whom the servers' certificates must come from. Nil: the system's roots.
	CA []byte

	// BindDN and BindPassword are as whom dewey searches. Both empty: as nobody.
	BindDN, BindPassword string

	// Base is below which entry users are searched; Scope is "sub" (or empty), "one" or "base".
	Base, Scope string
	// Filter finds the one entry of a user: "(uid={user})".
	Filter string
	// RecipientFilter is Filter's counterpart for mail that comes in. Empty: Filter.
	RecipientFilter string

	// Mode is ModeBind (or empty) or ModeLookup.
	Mode string
	// DN, with ModeBind, is as whom a user binds, without a search: "uid={user},ou=people,dc=example,dc=org". Base and
	// Filter are then for Recipient and Find alone; without them the entry of that name is read.
	DN string

	// UserAttribute has the user's name. Empty: the name that was asked for, which then is of visible ASCII alone.
	UserAttribute string
	// KeepCase needs UserAttribute, whose value is the name with its capitals. Without UserAttribute the name that was asked
	// for becomes ASCII lower case.
	KeepCase bool
	// PasswordAttribute has hashes, for ModeLookup; any of several may fit. Empty: "userPassword".
	PasswordAttribute string
	// HomeAttribute has an absolute path. Empty: there is none.
	HomeAttribute string
	// QuotaAttribute has octets, or a number with B, K, M, G or T; 0 is no limit. QuotaMessagesAttribute has a number.
	QuotaAttribute, QuotaMessagesAttribute string

	// GroupBase is below which entry GroupFilter must find something for the user to come in: {dn} is his entry's name.
	// Empty: no group is needed.
	GroupBase string
	// GroupFilter, with GroupBase, is "(&(objectClass=groupOfNames)(member={dn}))" if empty.
	GroupFilter string

	// Connections bounds those that are open at once. 0: 8.
	Connections int
	// Timeout bounds each call. 0: five seconds.
	Timeout time.Duration

	// Weak takes the hashes of scheme.All; else those of scheme.Strong.
	Weak bool
	// DefaultScheme is that of values without {SCHEME}. Empty: CRYPT.
	DefaultScheme string
	// Workers run the hashes. Nil: own ones.
	Workers *scheme.Workers
}

const (
	defaultConnections = 8
	defaultTimeout     = 5 * time.Second
	defaultGroupFilter = "(&(objectClass=groupOfNames)(member={dn}))"
)

// attributeName is an AttributeDescription. RFC 4512 section 2.5.
var attributeName = regexp.MustCompile(`^([A-Za-z][A-Za-z0-9-]*|[0-9]+(\.[0-9]+)*)(;[A-Za-z0-9-]+)*$`)

// check puts the defaults in and says all that is wrong.
func (c *Config) check() (*plan, error) {
	var errs []error
	bad := func(format string, args ...any) { errs = append(errs, fmt.Errorf("ldap: "+format, args...)) }
	or := func(s *string, otherwise string) {
		if *s == "" {
			*s = otherwise
		}
	}
	or(&c.Scope, "sub")
	or(&c.Mode, ModeBind)
	or(&c.PasswordAttribute, "userPassword")
	or(&c.RecipientFilter, c.Filter)
	if c.GroupBase != "" {
		or(&c.GroupFilter, defaultGroupFilter)
	}
	if c.Connections == 0 {
		c.Connections = defaultConnections
	}
	if c.Timeout == 0 {
		c.Timeout = defaultTimeout
	}
	if c.Connections < 0 || c.Timeout < 0 {
		bad("connections and timeout must not be negative; 8 and 5s would be right")
	}

	p := &plan{}
	var err error
	if p.servers, err = c.servers(); err != nil {
		errs = append(errs, err)
	}
	if p.scope, err = scopeOf(c.Scope); err != nil {
		errs = append(errs, err)
	}
	switch {
	case c.Mode != ModeBind && c.Mode != ModeLookup:
		bad("mode %q; %q or %q would be right", c.Mode, ModeBind, ModeLookup)
	case c.Mode == ModeLookup && c.DN != "":
		bad("dn is for mode %q alone; base and filter would be right", ModeBind)
	case c.DN == "" && (c.Base == "" || c.Filter == ""):
		bad(`base and filter are needed to find a user; base = "ou=people,dc=example,dc=org" and filter = "(uid={user})" would be right`)
	case (c.Base == "") != (c.Filter == "" && c.RecipientFilter == ""):
		bad("base and filter belong together; both or none of them would be right")
	}
	switch {
	case (c.BindDN == "") != (c.BindPassword == ""):
		// With a name and no password a server takes us for nobody, and says yes. RFC 4513 section 5.1.2.
		bad("bind_dn and its password belong together; both, or none to search as nobody, would be right")
	case c.GroupFilter != "" && c.GroupBase == "":
		bad(`group_filter without group_base; group_base = "ou=groups,dc=example,dc=org" would be right`)
	case c.KeepCase && c.UserAttribute == "":
		// A directory takes Bob for bob: uid, cn and mail are compared without regard to capitals.
		bad("with keep_case Bob and bob would be two maildrops of one user; user_attribute, which has his one name, would be right")
	case c.Mode == ModeLookup && c.BindDN == "":
		bad("mode %q reads password hashes, which nobody may without a bind_dn; one that may would be right", ModeLookup)
	}
	errs = append(errs, p.templates(c), checkScheme(c))
	for _, dn := range []struct{ key, dn string }{{"bind_dn", c.BindDN}, {"base", c.Base}, {"group_base", c.GroupBase}} {
		// Active Directory takes a userPrincipalName in a bind as well.
		principal := dn.key == "bind_dn" && strings.Contains(dn.dn, "@") && !strings.Contains(dn.dn, "=")
		if err := checkDN(dn.dn); err != nil && !principal {
			bad("%s: %w", dn.key, err)
		}
	}
	for _, a := range []struct{ key, name string }{
		{"user_attribute", c.UserAttribute},
		{"password_attribute", c.PasswordAttribute},
		{"home_attribute", c.HomeAttribute},
		{"quota_attribute", c.QuotaAttribute},
		{"quota_messages_attribute", c.QuotaMessagesAttribute},
	} {
		if a.name != "" && !attributeName.MatchString(a.name) {
			bad("%s: %q is no name of an attribute; one of letters, digits and -, such as mail, would be right", a.key, a.name)
		} else if a.name != "" && a.key != "password_attribute" && !slices.Contains(p.attributes, a.name) {
			p.attributes = append(p.attributes, a.name)
		}
	}
	return p, errors.Join(errs...)
}

// templates reads the filters and the DN.
func (p *plan) templates(c *Config) error {
	var errs []error
	read := func(key, text string, to *filter, known ...string) {
		var err error
		if *to, err = parseFilter(text, known...); err != nil {
			errs = append(errs, fmt.Errorf("ldap: %s: %w", key, err))
		}
	}
	names := []string{"user", "local", "domain"}
	if c.Filter != "" {
		read("filter", c.Filter, &p.filter, names...)
	}
	if c.RecipientFilter != "" {
		read("recipient_filter", c.RecipientFilter, &p.recipient, names...)
	}
	if c.GroupFilter != "" {
		read("group_filter", c.GroupFilter, &p.group, append(names, "dn")...)
	}
	if c.DN != "" {
		var err error
		if p.dn, err = parseDN(c.DN, names...); err != nil {
			errs = append(errs, fmt.Errorf("ldap: dn: %w", err))
		}
	}
	if errs != nil || c.UserAttribute != "" {
		return errors.Join(errs...)
	}
	// Without an attribute the name that was asked for is the maildrop's: two names must never be one user.
	if c.RecipientFilter != c.Filter || c.DN != "" && c.Filter != "" {
		errs = append(errs, errors.New("ldap: mail and logins find a user in different ways, and so under different names; user_attribute, which has his one name, would be right"))
	}
	for _, t := range []struct{ key, text string }{{"filter", c.Filter}, {"dn", c.DN}} {
		if t.text != "" && !contains(t.text, "user") && (!contains(t.text, "local") || !contains(t.text, "domain")) {
			errs = append(errs, fmt.Errorf("ldap: %s leaves out a part of the name, so that many names are one user; user_attribute, which has his one name, would be right", t.key))
		}
	}
	return errors.Join(errs...)
}

// checkScheme says whether DefaultScheme is one that is taken: an empty hash of it is a locked one.
func checkScheme(c *Config) error {
	if c.DefaultScheme == "" {
		return nil
	}
	if _, err := c.set().Parse("{" + c.DefaultScheme + "}"); err != nil {
		return fmt.Errorf("ldap: default_scheme: %w", err)
	}
	return nil
}

func (c *Config) set() scheme.Set {
	if c.Weak {
		return scheme.All
	}
	return scheme.Strong
}

// roots returns whom to trust. The system's are read here, as later on they may be out of reach.
func (c *Config) roots() (*x509.CertPool, error) {
	if c.CA == nil {
		pool, err := x509.SystemCertPool()
		if err != nil {
			return nil, fmt.Errorf("ldap: the system's certificates: %w", err)
		}
		return pool, nil
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(c.CA) {
		return nil, errors.New("ldap: ca_file has no certificate in it; one that starts with -----BEGIN CERTIFICATE----- would be right")
	}
	return pool, nil
}
