package config

import (
	"net/netip"
	"strings"
	"time"

	"dewey/pop3"
)

// A key is one row of the configuration: the only place in which it is defined.
type key struct {
	name  string // "table.name", or "name" for the top of the file
	def   string // the default, as --set would give it
	doc   string // one line
	split func(string) (raw, *fault)
	apply func(*Config, raw) []fault
	show  func(*Config) string // as TOML
}

// option makes a row out of a key's kind and its place in Config.
func option[T any](name string, k kind[T], def string, field func(*Config) *T, doc string) key {
	return key{
		name: name, def: def, doc: doc, split: k.split,
		apply: func(c *Config, r raw) []fault {
			v, faults := k.read(r)
			if len(faults) == 0 {
				*field(c) = v
			}
			return faults
		},
		show: func(c *Config) string { return k.show(*field(c)) },
	}
}

// keys are all there are, in the order in which Print writes them: a table's rows stand together,
// those without a table first.
var keys = []key{
	option("hostname", text(hostname), "localhost", func(c *Config) *string { return &c.Hostname },
		"the name that dewey goes by"),
	option("data", text(folder), "./dewey-data", func(c *Config) *string { return &c.Data },
		"the folder of all that dewey keeps; a relative one starts at the working directory"),

	option("pop3.listen", addresses, "127.0.0.1:1110", func(c *Config) *[]string { return &c.POP3.Listen },
		"where POP3 is served; [] turns it off"),
	option("pop3.show_version", boolean, "false", func(c *Config) *bool { return &c.POP3.ShowVersion },
		"whether CAPA's IMPLEMENTATION names the version"),
	option("pop3.language", choice(Languages...), "i-default", func(c *Config) *string { return &c.POP3.Language },
		"what a client gets that leaves the language to the server (LANG *): "+strings.Join(Languages, ", ")),

	option("pop3s.listen", addresses, "127.0.0.1:1995", func(c *Config) *[]string { return &c.POP3S.Listen },
		"where POP3 inside TLS is served; [] turns it off (not in this version)"),

	option("lmtp.listen", addresses, "127.0.0.1:1024", func(c *Config) *[]string { return &c.LMTP.Listen },
		"where mail is taken in by LMTP; [] turns it off (not in this version)"),

	option("tls.certificate", text(file), "", func(c *Config) *string { return &c.TLS.Certificate },
		"a PEM file with the certificate and its chain (not in this version)"),
	option("tls.key", text(file), "", func(c *Config) *string { return &c.TLS.Key },
		"a PEM file with the certificate's private key (not in this version)"),

	option("login.plaintext", choice(PlaintextNever, PlaintextLoopback, PlaintextAlways), PlaintextLoopback,
		func(c *Config) *string { return &c.Login.Plaintext },
		"who may log in without TLS: never, loopback, always"),
	option("login.idle_timeout", duration(pop3.MinIdle, 24*time.Hour, ": RFC 1939 section 3"), "10m",
		func(c *Config) *time.Duration { return &c.Login.IdleTimeout },
		"how long a session may be silent; at least 10m (RFC 1939 section 3)"),
	option("login.max_unauthenticated", number(1, maxCount), "1000", func(c *Config) *int { return &c.Login.MaxUnauthenticated },
		"the most connections that have not logged in; one more drops the oldest"),
	option("login.max_connections", number(1, maxCount), "100000", func(c *Config) *int { return &c.Login.MaxConnections },
		"the most connections in all"),
	option("login.max_per_user", number(1, maxCount), "10", func(c *Config) *int { return &c.Login.MaxPerUser },
		"the most sessions of one user"),
	option("login.max_per_address", number(1, maxCount), "100", func(c *Config) *int { return &c.Login.MaxPerAddress },
		"the most connections from one address"),
	option("login.failure_delay", duration(0, time.Minute, ""), "1s",
		func(c *Config) *time.Duration { return &c.Login.FailureDelay },
		"how long the reply to a failed login is held back"),
	option("login.trusted_networks", networks, "", func(c *Config) *[]netip.Prefix { return &c.Login.TrustedNetworks },
		"addresses and prefixes that login.max_per_address does not count"),

	option("users.file", text(template("data")), "{data}/users", func(c *Config) *string { return &c.Users.File },
		"the users, in the format of a passwd-file; {data} stands for data"),
	option("users.weak_schemes", boolean, "false", func(c *Config) *bool { return &c.Users.WeakSchemes },
		"whether schemes that are easy to break are taken too, such as SSHA and MD5-CRYPT"),

	option("maildir.path", text(maildirPath), "{data}/mail/{user}", func(c *Config) *string { return &c.Maildir.Path },
		"each user's Maildir: {data}, {user}, {local} and {domain} (of local@domain), {home}"),
}

// maxCount is the most that a limit may be: more than a machine can have.
const maxCount = 10_000_000

// defaults returns the configuration without file and command line.
func defaults() *Config {
	c := &Config{sources: map[string]Source{}}
	for _, k := range keys {
		v, f := k.split(k.def)
		if f != nil || len(k.apply(c, v)) > 0 {
			panic("config: bad default of " + k.name)
		}
	}
	return c
}

func keyNamed(name string) (key, bool) {
	for _, k := range keys {
		if k.name == name {
			return k, true
		}
	}
	return key{}, false
}

// table returns the table of a key, "" for the top of the file, and the name in it.
func (k key) table() (table, name string) {
	if t, n, found := strings.Cut(k.name, "."); found {
		return t, n
	}
	return "", k.name
}

// A Key is what the reference says of a key.
type Key struct {
	Name    string
	Default string // as TOML
	Doc     string
}

// Keys lists every key, in the order in which Print writes them.
func Keys() []Key {
	c := defaults()
	list := make([]Key, len(keys))
	for i, k := range keys {
		list[i] = Key{Name: k.name, Default: k.show(c), Doc: k.doc}
	}
	return list
}

// Changed lists the keys whose values differ.
func Changed(a, b *Config) []string {
	var names []string
	for _, k := range keys {
		if k.show(a) != k.show(b) {
			names = append(names, k.name)
		}
	}
	return names
}
