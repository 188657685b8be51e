package config

import (
	"slices"
	"strings"
	"time"

	"github.com/pelletier/go-toml/v2/unstable"
)

// An Auth is one table of [[auth]]: a backend that knows users. The keys that its kind does not have are zero.
type Auth struct {
	Kind           string        // one of Kinds
	Name           string        // what the log calls it
	Timeout        time.Duration // of one answer
	RememberOutage time.Duration // how long a verified password is taken while it can't tell; 0: it is not
	Domains        []string      // in ASCII lower case; empty: any

	// passwd-file
	File string // may hold {data}; empty: users.file

	// ldap
	URLs                                                  []string
	StartTLS, Plaintext                                   bool
	BindDN, BindPasswordFile                              string
	Base, Scope, Filter, RecipientFilter, Mode, DN        string
	UserAttribute, PasswordAttribute                      string
	HomeAttribute, QuotaAttribute, QuotaMessagesAttribute string
	GroupBase, GroupFilter                                string

	// sql
	Driver, DSN, DSNFile, UserQuery, RecipientQuery string

	// oauth
	Issuer, Claim, IntrospectionURL, ClientID, ClientSecretFile, Users string
	Audiences, Scopes, Algorithms                                      []string
	Leeway, Remember                                                   time.Duration

	// pam
	Helper, Socket, Home, Recipients string
	Processes, MinUID                int
	Network                          bool

	// dovecot
	AuthSocket, UserdbSocket string

	// of several kinds
	CAFile        string
	Connections   int
	DefaultScheme string
	WeakSchemes   bool
	KeepCase      bool   // ldap, sql, pam
	Service       string // pam, dovecot

	at      Source // of the table
	sources map[string]Source
}

// The kinds of backends.
const (
	KindPasswdFile = "passwd-file"
	KindLDAP       = "ldap"
	KindSQL        = "sql"
	KindOAuth      = "oauth"
	KindPAM        = "pam"
	KindDovecot    = "dovecot"
)

// Kinds are the choices of auth.kind.
var Kinds = []string{KindPasswdFile, KindLDAP, KindSQL, KindOAuth, KindPAM, KindDovecot}

// What users may be, of the kind oauth: whose names in a good token count.
const (
	UsersAny   = "any"
	UsersChain = "chain" // those whom other backends know
)

// authTable is the name of the tables.
const authTable = "auth"

// Source returns where the value of a key came from, and where the table is if it came from nowhere.
func (a *Auth) Source(key string) Source { return a.sources[key] }

// At returns where the table is; the zero Source if there is none.
func (a *Auth) At() Source { return a.at }

// Fingerprint returns all keys with their values.
func (a *Auth) Fingerprint() string {
	var b strings.Builder
	for _, k := range authKeysOf(a.Kind) {
		b.WriteString(k.name + " = " + k.show(a) + "\n")
	}
	return b.String()
}

// Backends returns the backends in the order in which they are asked: the [[auth]] tables, or without any the users file.
func (c *Config) Backends() []Auth {
	if len(c.Auth) > 0 {
		return c.Auth
	}
	return []Auth{newAuth(KindPasswdFile, Source{})}
}

// Has says whether a backend of that kind is listed.
func (c *Config) Has(kind string) bool {
	return slices.ContainsFunc(c.Backends(), func(a Auth) bool { return a.Kind == kind })
}

// AuthFile returns the name of a file of an Auth with {data} put in; empty if there is none.
func (c *Config) AuthFile(name string) string {
	if name == "" {
		return ""
	}
	return c.file(name)
}

// sameAuth says whether two print alike.
func sameAuth(a, b Auth) bool {
	return a.Fingerprint() == b.Fingerprint()
}

// newAuth returns the defaults of a kind.
func newAuth(kind string, at Source) Auth {
	a := Auth{at: at, sources: map[string]Source{}}
	for _, k := range authKeysOf(kind) {
		v, f := k.split(k.def)
		if f != nil || len(k.apply(&a, v)) > 0 && !k.required {
			panic("config: bad default of auth." + k.name)
		}
	}
	a.Kind, a.Name = kind, kind
	return a
}

// notOneAuth is what is said of whatever takes [[auth]] for one table.
var notOneAuth = fault{wrong: "the backends are a list of tables", right: "write [[" + authTable + "]] and below it kind = …, once for each, in the file"}

// An authReader gathers a table, whose kind may come last.
type authReader struct {
	line   int
	keys   []string // in the order of the file
	values map[string]raw
	lines  map[string]int
}

// beginAuth begins [[auth]].
func (r *tomlReader) beginAuth(list bool, line int) {
	if !list {
		r.report(line, "["+authTable+"]", notOneAuth)
		return
	}
	r.backend = &authReader{line: line, values: map[string]raw{}, lines: map[string]int{}}
}

// authValue notes a key of the table.
func (r *tomlReader) authValue(n *unstable.Node) {
	path, line := r.path(n.Key())
	name, b := joinKey(path), r.backend
	if before, twice := b.lines[name]; twice {
		r.report(line, authTable+"."+name, fault{wrong: "is there twice in this table: first in line " + itoa(before), right: "write it once"})
		return
	}
	b.keys, b.lines[name], b.values[name] = append(b.keys, name), line, r.value(n.Value(), line)
}

// endAuth makes a backend of the table, now that it is whole.
func (r *tomlReader) endAuth() {
	b := r.backend
	if b == nil {
		return
	}
	r.backend = nil
	report := func(line int, name string, f fault) { r.report(line, authTable+"."+name, f) }
	kind, found := b.values["kind"]
	if !found {
		if !r.broken { // it may stand in the line that could not be read
			report(b.line, "kind", fault{wrong: "is missing", right: "write kind = one of " + quotedList(Kinds)})
		}
		return
	}
	if _, faults := choice(Kinds...).read(kind); len(faults) > 0 {
		report(b.lines["kind"], "kind", faults[0])
		return
	}
	a := newAuth(kind.text, Source{File: r.name, Line: b.line})
	known := authKeysOf(kind.text)
	for _, name := range b.keys {
		i := slices.IndexFunc(known, func(k authKey) bool { return k.name == name })
		if i < 0 {
			report(b.lines[name], name, unknownAuthKey(kind.text, name))
			continue
		}
		for _, f := range known[i].apply(&a, b.values[name]) {
			report(b.lines[name], name, f)
		}
		a.sources[name] = Source{File: r.name, Line: b.lines[name]}
	}
	for _, k := range known {
		if _, given := b.values[k.name]; k.required && !given && !r.broken {
			report(b.line, k.name, fault{wrong: "is missing", right: "write it: " + k.doc})
		}
	}
	r.config.Auth = append(r.config.Auth, a)
}

// unknownAuthKey says what could have been meant.
func unknownAuthKey(kind, name string) fault {
	var names []string
	for _, k := range authKeysOf(kind) {
		names = append(names, k.name)
	}
	f := fault{wrong: "is no key of the kind " + kind, right: "it has " + strings.Join(names, ", ")}
	var others []string
	for _, k := range authKeys {
		if k.name == name {
			others = append(others, k.kind)
		}
	}
	switch near := nearest(name, names); {
	case len(others) > 0:
		f.wrong += ", but of " + oneOf(others)
		f.right = "leave it out, or write the kind that has it"
	case near != "":
		f = fault{wrong: "unknown key", right: "did you mean " + near + "?"}
	}
	return f
}

// checkAuth finds what is wrong between keys, and between tables.
func (c *Config) checkAuth() Problems {
	var problems Problems
	names := map[string]int{}
	for i := range c.Auth {
		a := &c.Auth[i]
		report := func(key, wrong, right string) {
			at := a.Source(key)
			if at.IsDefault() {
				at = a.at
			}
			problems = append(problems, Problem{Source: at, Key: authTable + "." + key, Wrong: wrong, Right: right})
		}
		if before, taken := names[a.Name]; taken {
			report("name", quote(a.Name)+" is the name of the table in line "+itoa(before)+" too", "give each a name of its own")
		}
		names[a.Name] = a.at.Line
		if check := authChecks[a.Kind]; check != nil {
			check(c, a, report)
		}
	}
	for _, m := range []string{"OAUTHBEARER", "XOAUTH2"} {
		if slices.Contains(c.Login.Mechanisms, m) && !c.Has(KindOAuth) {
			problems = append(problems, Problem{Source: c.Source("login.mechanisms"), Key: "login.mechanisms", Wrong: m + " needs an identity provider", Right: `write [[auth]] with kind = "oauth"`})
		}
	}
	return problems
}

// authChecks are those of single kinds. What only a backend itself knows, it says at start.
var authChecks = map[string]func(c *Config, a *Auth, report func(key, wrong, right string)){
	KindLDAP: func(_ *Config, a *Auth, report func(key, wrong, right string)) {
		switch {
		case a.Mode == "lookup" && a.DN != "":
			report("dn", "is for mode = \"bind\" alone", "leave it out, or write mode = \"bind\"")
		case a.DN == "" && a.Base == "":
			report("base", "is missing, and so is dn", `write where users are, such as base = "ou=people,dc=example,dc=org"`)
		case a.DN == "" && a.Filter == "":
			report("filter", "is missing, and so is dn", `write how one is found, such as filter = "(uid={user})"`)
		}
		if a.GroupFilter != "" && a.GroupBase == "" {
			report("group_filter", "needs group_base", `write where groups are, such as group_base = "ou=groups,dc=example,dc=org"`)
		}
		if a.KeepCase && a.UserAttribute == "" {
			report("keep_case", "needs user_attribute: directories take Bob for bob, and each would be a maildrop", `write what has the user's one name, such as user_attribute = "uid", or leave keep_case out`)
		}
		if (a.BindDN == "") != (a.BindPasswordFile == "") {
			report("bind_dn", "needs bind_password_file, and the other way round", "write both or none")
		}
	},
	KindSQL: func(_ *Config, a *Auth, report func(key, wrong, right string)) {
		if (a.DSN == "") == (a.DSNFile == "") {
			report("dsn", "is to be given, or dsn_file, and not both", "write one of the two; a file keeps the password out of the configuration")
		}
	},
	KindPAM: func(_ *Config, a *Auth, report func(key, wrong, right string)) {
		if a.Helper != "" && a.Socket != "" {
			report("socket", "is set, and so is helper", "write one of the two")
		}
	},
	KindOAuth: func(c *Config, a *Auth, report func(key, wrong, right string)) {
		if a.Issuer == "" && a.IntrospectionURL == "" {
			report("issuer", "is missing, and so is introspection_url", `write the provider's address, such as issuer = "https://id.example.org"`)
		}
		if len(a.Audiences) == 0 && (a.IntrospectionURL == "" || len(a.Scopes) == 0) {
			report("audiences", "is missing: a token that was made for any other program would be good here", `write what the provider puts into "aud" for dewey, such as audiences = ["dewey"]`)
		}
		if a.IntrospectionURL != "" && (a.ClientID == "" || a.ClientSecretFile == "") {
			report("introspection_url", "needs client_id and client_secret_file", "write both")
		}
		if a.Users == UsersChain && !slices.ContainsFunc(c.Auth, func(b Auth) bool { return b.Kind != KindOAuth }) {
			report("users", "is \"chain\", and there is no other backend that could know a user", `list one, such as [[auth]] with kind = "passwd-file", or write users = "any"`)
		}
	},
}

// An AuthKey is what the reference says of a key of [[auth]].
type AuthKey struct {
	Kind string // empty: all
	Key
}

// AuthKeys lists the keys of [[auth]], those of all kinds first.
func AuthKeys() []AuthKey {
	defaults := map[string]*Auth{}
	list := make([]AuthKey, len(authKeys))
	for i, k := range authKeys {
		kind := k.kind
		if kind == "" {
			kind = KindPasswdFile
		}
		if defaults[kind] == nil {
			a := newAuth(kind, Source{})
			defaults[kind] = &a
		}
		def := k.show(defaults[kind])
		switch {
		case k.required:
			def = ""
		case k.name == "name":
			def = "" // the kind
		}
		list[i] = AuthKey{k.kind, Key{Name: k.name, Default: def, Doc: k.doc}}
	}
	return list
}

// kindsWith returns the rows of a kind, in the order in which Print writes them.
var kindsWith = func() map[string][]authKey {
	of := map[string][]authKey{}
	for _, kind := range Kinds {
		for _, k := range authKeys {
			if k.kind == "" || k.kind == kind {
				of[kind] = append(of[kind], k)
			}
		}
	}
	return of
}()

func authKeysOf(kind string) []authKey { return kindsWith[kind] }
