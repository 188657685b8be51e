package config

import (
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
)

// An authKey is a row of [[auth]], of one kind or of all.
type authKey struct {
	row[Auth]
	kind     string // empty: all
	required bool
}

// rowsOf gives rows their kind; a row without a default that could stand is required.
func rowsOf(kind string, rows ...row[Auth]) []authKey {
	list := make([]authKey, len(rows))
	for i, r := range rows {
		_, required := strings.CutPrefix(r.def, mustGive)
		r.def = strings.TrimPrefix(r.def, mustGive)
		list[i] = authKey{row: r, kind: kind, required: required}
	}
	return list
}

// mustGive begins the default of a key that has none.
const mustGive = "\x00"

// authKeys are all there are, in the order in which Print writes them.
var authKeys = slices.Concat(
	rowsOf("",
		option("kind", choice(Kinds...), mustGive+KindPasswdFile, func(a *Auth) *string { return &a.Kind },
			"what knows the users: "+strings.Join(Kinds, ", ")),
		option("name", text(backendName), KindPasswdFile, func(a *Auth) *string { return &a.Name },
			"what the log and dewey auth test call it; if it is not given, the kind"),
		option("timeout", duration(100*time.Millisecond, 2*time.Minute, ""), "5s", func(a *Auth) *time.Duration { return &a.Timeout },
			"how long one answer may take; then the login fails with [SYS/TEMP], and mail comes again"),
		option("remember_outage", duration(0, 30*day, ""), "0s", func(a *Auth) *time.Duration { return &a.RememberOutage },
			"how long after a login its name and password are taken once more while the backend can't tell; 0s: they are not"),
		option("domains", mailDomains, "", func(a *Auth) *[]string { return &a.Domains },
			"the domains of the names that it is asked about, after the last @; []: it is asked about all names"),
	),
	rowsOf(KindPasswdFile,
		option("file", text(optionalTemplate), "", func(a *Auth) *string { return &a.File },
			"the users, in the format of a passwd-file; {data} stands for data; empty: users.file"),
		option("weak_schemes", boolean, "false", func(a *Auth) *bool { return &a.WeakSchemes },
			"whether schemes that are easy to break are taken too; for users.file users.weak_schemes says so as well"),
	),
	rowsOf(KindLDAP,
		option("urls", urls("ldap", "ldaps", "ldapi"), mustGive, func(a *Auth) *[]string { return &a.URLs },
			"the servers, in the order to try: ldap://, ldaps:// or ldapi://"),
		option("starttls", boolean, "false", func(a *Auth) *bool { return &a.StartTLS },
			"whether ldap:// is to become TLS before anything is said"),
		option("plaintext", boolean, "false", func(a *Auth) *bool { return &a.Plaintext },
			"whether passwords may go to another machine as they are, by ldap:// without starttls"),
		option("ca_file", text(optionalTemplate), "", func(a *Auth) *string { return &a.CAFile },
			"a PEM file with those who sign the servers' certificates; empty: the system's"),
		option("bind_dn", text(anyText), "", func(a *Auth) *string { return &a.BindDN },
			"as whom dewey searches; empty: as nobody"),
		option("bind_password_file", text(optionalTemplate), "", func(a *Auth) *string { return &a.BindPasswordFile },
			"a file whose first line is the password of bind_dn"),
		option("base", text(anyText), "", func(a *Auth) *string { return &a.Base },
			"where users are searched"),
		option("scope", choice("sub", "one", "base"), "sub", func(a *Auth) *string { return &a.Scope },
			"how deep: sub, one, base"),
		option("filter", text(anyText), "", func(a *Auth) *string { return &a.Filter },
			"how a user is found, such as (uid={user}); {user}, {local} and {domain} are escaped"),
		option("recipient_filter", text(anyText), "", func(a *Auth) *string { return &a.RecipientFilter },
			"the same for mail that comes in; empty: filter"),
		option("mode", choice("bind", "lookup"), "bind", func(a *Auth) *string { return &a.Mode },
			"bind: the server checks the password; lookup: dewey checks it with password_attribute"),
		option("dn", text(anyText), "", func(a *Auth) *string { return &a.DN },
			"who binds, without a search, such as uid={user},ou=people,dc=example,dc=org; mode = \"bind\" alone"),
		option("user_attribute", text(anyText), "", func(a *Auth) *string { return &a.UserAttribute },
			"what has the user's name; empty: the name that was given"),
		option("keep_case", boolean, "false", func(a *Auth) *bool { return &a.KeepCase },
			"whether a name keeps its capitals: as user_attribute has it, which must then be set; without user_attribute a name becomes ASCII lower case"),
		option("password_attribute", text(anyText), "userPassword", func(a *Auth) *string { return &a.PasswordAttribute },
			"what has the hash, for mode = \"lookup\""),
		option("home_attribute", text(anyText), "", func(a *Auth) *string { return &a.HomeAttribute },
			"what has the home, an absolute path, for {home} in maildir.path"),
		option("quota_attribute", text(anyText), "", func(a *Auth) *string { return &a.QuotaAttribute },
			"what has the quota: octets, or a number with K, M, G or T"),
		option("quota_messages_attribute", text(anyText), "", func(a *Auth) *string { return &a.QuotaMessagesAttribute },
			"what has the most messages"),
		option("group_base", text(anyText), "", func(a *Auth) *string { return &a.GroupBase },
			"where group_filter is searched"),
		option("group_filter", text(anyText), "", func(a *Auth) *string { return &a.GroupFilter },
			"what must be found for the user to come in, such as (&(objectClass=groupOfNames)(member={dn})); {dn} and {user} are escaped; empty: nothing"),
		option("connections", number(1, 1000), "8", func(a *Auth) *int { return &a.Connections },
			"the most connections at once"),
		option("default_scheme", text(anyText), "", func(a *Auth) *string { return &a.DefaultScheme },
			"the scheme of hashes that name none; empty: crypt(3)'s"),
		option("weak_schemes", boolean, "false", func(a *Auth) *bool { return &a.WeakSchemes },
			"whether schemes that are easy to break are taken too, such as SSHA"),
	),
	rowsOf(KindSQL,
		option("driver", choice("postgres", "mysql", "sqlite"), mustGive, func(a *Auth) *string { return &a.Driver },
			"postgres, mysql (MariaDB too), sqlite"),
		option("dsn", text(anyText), "", func(a *Auth) *string { return &a.DSN },
			"where the database is, in the driver's words"),
		option("dsn_file", text(optionalTemplate), "", func(a *Auth) *string { return &a.DSNFile },
			"a file whose first line is the dsn, which may have a password in it"),
		option("user_query", text(query), mustGive, func(a *Auth) *string { return &a.UserQuery },
			"finds a user: {user}, {local} and {domain} become parameters; the columns count by name: user, password, home, quota_octets, quota_messages, disabled"),
		option("recipient_query", text(anyText), "", func(a *Auth) *string { return &a.RecipientQuery },
			"the same for mail that comes in; empty: user_query"),
		option("keep_case", boolean, "false", func(a *Auth) *bool { return &a.KeepCase },
			"whether queries get names as they were given, and must return the column user; else in ASCII lower case"),
		option("ca_file", text(optionalTemplate), "", func(a *Auth) *string { return &a.CAFile },
			"a PEM file with those who sign the server's certificate; empty: what the dsn says, or the system's"),
		option("connections", number(1, 1000), "8", func(a *Auth) *int { return &a.Connections },
			"the most connections at once"),
		option("default_scheme", text(anyText), "", func(a *Auth) *string { return &a.DefaultScheme },
			"the scheme of hashes that name none; empty: crypt(3)'s"),
		option("weak_schemes", boolean, "false", func(a *Auth) *bool { return &a.WeakSchemes },
			"whether schemes that are easy to break are taken too, such as MD5-CRYPT"),
	),
	rowsOf(KindOAuth,
		option("issuer", text(webAddress), "", func(a *Auth) *string { return &a.Issuer },
			"the provider's address, https, as its tokens have it in iss"),
		option("audiences", texts(`["dewey"]`), "", func(a *Auth) *[]string { return &a.Audiences },
			"what a token must be for: one of these in aud"),
		option("scopes", texts(`["mail"]`), "", func(a *Auth) *[]string { return &a.Scopes },
			"the scopes that a token must have, all of them"),
		option("claim", text(anyText), "email", func(a *Auth) *string { return &a.Claim },
			"what of a token is the user's name; of email email_verified must be true"),
		option("algorithms", texts(`["ES256"]`), "", func(a *Auth) *[]string { return &a.Algorithms },
			"the signatures that a token may have; []: all that are safe"),
		option("leeway", duration(time.Second, 10*time.Minute, ""), "1m", func(a *Auth) *time.Duration { return &a.Leeway },
			"how much the provider's clock may differ"),
		option("introspection_url", text(webAddress), "", func(a *Auth) *string { return &a.IntrospectionURL },
			"asked about each token (RFC 7662), which then may be opaque; empty: the provider's keys prove it"),
		option("client_id", text(anyText), "", func(a *Auth) *string { return &a.ClientID },
			"who dewey is at introspection_url"),
		option("client_secret_file", text(optionalTemplate), "", func(a *Auth) *string { return &a.ClientSecretFile },
			"a file whose first line is client_id's secret"),
		option("remember", duration(0, time.Hour, ""), "1m", func(a *Auth) *time.Duration { return &a.Remember },
			"how long introspection_url is not asked again about a good token, and so how long a revoked one stays good"),
		option("ca_file", text(optionalTemplate), "", func(a *Auth) *string { return &a.CAFile },
			"a PEM file with those who sign the provider's certificate; empty: the system's"),
		option("users", choice(UsersChain, UsersAny), UsersChain, func(a *Auth) *string { return &a.Users },
			"who may log in by a token: chain (whom another backend knows), any (whomever the provider names)"),
	),
	rowsOf(KindPAM,
		option("helper", text(optionalTemplate), "", func(a *Auth) *string { return &a.Helper },
			"the program dewey-pam; empty: beside dewey, or else /usr/libexec/dewey/dewey-pam"),
		option("socket", text(file), "", func(a *Auth) *string { return &a.Socket },
			"the socket of a dewey-pam that runs as a service of its own, in place of helper; it says itself what service, min_uid and network say here"),
		option("service", text(service), "dewey", func(a *Auth) *string { return &a.Service },
			"the file in /etc/pam.d that is followed"),
		option("processes", number(1, 64), "2", func(a *Auth) *int { return &a.Processes },
			"how many users are proven at the same time"),
		option("min_uid", number(1, 1<<31), "1000", func(a *Auth) *int { return &a.MinUID },
			"the lowest number of a user who may log in and gets mail"),
		option("network", boolean, "false", func(a *Auth) *bool { return &a.Network },
			"whether PAM's modules may use the network"),
		option("keep_case", boolean, "false", func(a *Auth) *bool { return &a.KeepCase },
			"whether names are asked for as they were given; else in ASCII lower case"),
		option("home", text(pamHome), "", func(a *Auth) *string { return &a.Home },
			"the user's home, such as /home/{user}; empty: the account's home"),
		option("recipients", choice("system", "none"), "system", func(a *Auth) *string { return &a.Recipients },
			"who gets mail: system (whom getpwnam knows), none (nobody by this backend; then who is no user of the system may log in too)"),
	),
	rowsOf(KindDovecot,
		option("auth_socket", text(present), "/run/dovecot/auth-client", func(a *Auth) *string { return &a.AuthSocket },
			"Dovecot's socket for logins"),
		option("userdb_socket", text(file), "/run/dovecot/auth-userdb", func(a *Auth) *string { return &a.UserdbSocket },
			"Dovecot's socket for users by name; empty: it takes in no mail, and knows nobody by name alone"),
		option("service", text(service), "pop3", func(a *Auth) *string { return &a.Service },
			"the service that Dovecot is told"),
	),
)

// anyText is a text without NUL.
var anyText = textual{"dewey", func(s string) *fault {
	if strings.ContainsRune(s, 0) {
		return faultf("write it without", "has a NUL in it")
	}
	return nil
}}

// query is SQL.
var query = textual{"SELECT password FROM users WHERE name = {user}", func(s string) *fault {
	if strings.TrimSpace(s) == "" {
		return faultf(`write a query, such as "SELECT password FROM users WHERE name = {user}"`, "is empty")
	}
	return anyText.check(s)
}}

// backendName is what the log calls a backend.
var backendName = textual{"staff", func(s string) *fault {
	ok := func(r rune) bool {
		return 'a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' || '0' <= r && r <= '9' || r == '-'
	}
	if s == "" || len(s) > 64 || strings.ContainsFunc(s, func(r rune) bool { return !ok(r) }) {
		return faultf(`write at most 64 letters, digits and hyphens, such as "staff"`, "%s is no name for a backend", quote(s))
	}
	return nil
}}

// service is the name of a service: a file's name, without a path.
var service = textual{"dewey", func(s string) *fault {
	if s == "" || strings.ContainsFunc(s, func(r rune) bool { return isControl(r) || strings.ContainsRune(" /.", r) }) {
		return faultf(`write a name such as "dewey"`, "%s is no name of a service", quote(s))
	}
	return nil
}}

// pamHome is a template for a home, or nothing.
var pamHome = textual{"/home/{user}", func(s string) *fault {
	if s == "" {
		return nil
	}
	if s[0] != '/' {
		return faultf(`write an absolute path, such as "/home/{user}"`, "%s is not absolute", quote(s))
	}
	return template("user", "local", "domain").check(s)
}}

// webAddress is an https URL, or nothing.
var webAddress = textual{"https://id.example.org", func(s string) *fault {
	if s == "" {
		return nil
	}
	u, err := url.Parse(s)
	if err != nil || u.Scheme != "https" || u.Hostname() == "" || u.User != nil || u.Fragment != "" {
		return faultf(`write a URL such as "https://id.example.org"`, "%s is not an https URL", quote(s))
	}
	return nil
}}

// texts is a list of texts that are not empty.
func texts(example string) kind[[]string] {
	return list(text(textual{"dewey", func(s string) *fault {
		if s == "" {
			return faultf("leave it out", "an element is empty")
		}
		return anyText.check(s)
	}}), example, func(s string) string { return s })
}

// urls is a list of URLs with one of these schemes.
func urls(schemes ...string) kind[[]string] {
	example := schemes[0] + "://" + schemes[0] + ".example.org"
	of := list(text(textual{example, func(s string) *fault {
		u, err := url.Parse(s)
		switch {
		case strings.HasPrefix(s, "ldapi://"): // a path, in one dress or another
			return anyText.check(s)
		case err != nil || !slices.Contains(schemes, u.Scheme) || u.Host == "":
			return faultf("write a URL such as "+quoteTOML(example), "%s is not a URL with %s://", quote(s), strings.Join(schemes, "://, "))
		case u.User != nil:
			return faultf("write bind_dn and bind_password_file", "%s has a user in it", quote(u.Redacted()))
		}
		return nil
	}}), "["+quoteTOML(example)+"]", func(s string) string { return s })
	read := of.read
	of.read = func(r raw) ([]string, []fault) {
		v, faults := read(r)
		if len(v)+len(faults) == 0 {
			faults = []fault{{line: r.line, wrong: "is empty", right: "write [" + quoteTOML(example) + "]"}}
		}
		return v, faults
	}
	return of
}

// quotedList writes words as TOML.
func quotedList(words []string) string {
	quoted := make([]string, len(words))
	for i, w := range words {
		quoted[i] = quoteTOML(w)
	}
	return strings.Join(quoted, ", ")
}

func itoa(n int) string { return strconv.Itoa(n) }
