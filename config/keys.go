package config

import (
	"io/fs"
	"net/netip"
	"slices"
	"strings"
	"time"

	"dewey/maildrop"
	"dewey/pop3"
)

// A row defines a key of C, and nothing else does.
type row[C any] struct {
	name  string // "table.name", or "name" for the top of the file
	def   string // the default, as --set would give it
	doc   string // one line
	split func(string) (raw, *fault)
	apply func(*C, raw) []fault
	show  func(*C) string // as TOML
}

// A key is a row of the configuration.
type key = row[Config]

// option makes a row out of a key's kind and its place in C.
func option[C, T any](name string, k kind[T], def string, field func(*C) *T, doc string) row[C] {
	return row[C]{
		name: name, def: def, doc: doc, split: k.split,
		apply: func(c *C, r raw) []fault {
			v, faults := k.read(r)
			if len(faults) == 0 {
				*field(c) = v
			}
			return faults
		},
		show: func(c *C) string { return k.show(*field(c)) },
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
		"where POP3 inside TLS is served; [] turns it off"),

	option("lmtp.listen", lmtpAddresses, "", func(c *Config) *[]string { return &c.LMTP.Listen },
		"where mail is taken in by LMTP: host:port, or unix:/path for a UNIX socket; []: nowhere"),
	option("lmtp.socket_mode", fileMode, "0600", func(c *Config) *fs.FileMode { return &c.LMTP.SocketMode },
		"the mode of the UNIX sockets: who may write may deliver"),
	option("lmtp.socket_user", text(account), "", func(c *Config) *string { return &c.LMTP.SocketUser },
		"the UNIX sockets' owner, if not dewey's user: a name or a number"),
	option("lmtp.socket_group", text(account), "", func(c *Config) *string { return &c.LMTP.SocketGroup },
		"the UNIX sockets' group, if not dewey's own: a name or a number"),
	option("lmtp.max_size", size(maxSize), "50M", func(c *Config) *int64 { return &c.LMTP.MaxSize },
		"the most octets of a message; 0: no limit"),
	option("lmtp.max_recipients", number(100, 10_000), "100", func(c *Config) *int { return &c.LMTP.MaxRecipients },
		"the most recipients of one message, at least 100 (RFC 5321 section 4.5.3.1.8); for more the sender brings it again"),
	option("lmtp.max_connections", number(1, maxCount), "100", func(c *Config) *int { return &c.LMTP.MaxConnections },
		"the most LMTP connections at once"),
	option("lmtp.timeout", duration(5*time.Minute, 24*time.Hour, ": RFC 5321 section 4.5.3.2.7"), "5m", func(c *Config) *time.Duration { return &c.LMTP.Timeout },
		"how long an LMTP client may be silent; at least 5m (RFC 5321 section 4.5.3.2.7)"),
	option("lmtp.over_quota", choice(OverQuotaReject, OverQuotaDefer), OverQuotaReject, func(c *Config) *string { return &c.LMTP.OverQuota },
		"what becomes of mail for a full maildrop: reject (552 5.2.2: it bounces), defer (452 4.2.2: it comes again)"),

	option("tls.certificate", certificates, "", func(c *Config) *[]string { return &c.TLS.Certificate },
		"PEM files, each with a certificate and its chain; which is shown depends on the name that the client asks for, the first where none fits; []: one by ACME, or one that dewey makes in {data}/tls"),
	option("tls.key", keyFiles, "", func(c *Config) *[]string { return &c.TLS.Key },
		"PEM files, each with the private key of the certificate in the same place"),
	option("tls.min_version", choice(TLS12, TLS13), TLS12, func(c *Config) *string { return &c.TLS.MinVersion },
		"the oldest version of TLS that is spoken: 1.2, 1.3"),
	option("tls.client_ca", text(file), "", func(c *Config) *string { return &c.TLS.ClientCA },
		"a PEM file with those who sign the clients' certificates, for EXTERNAL"),
	option("tls.client_name", choice(ClientNameEmail, ClientNameLocal, ClientNameDNS), ClientNameEmail,
		func(c *Config) *string { return &c.TLS.ClientName },
		"what of a client's certificate is the user's name: email (an address), local (its part before the @), dns (a host name)"),
	option("tls.acme_domains", domains, "", func(c *Config) *[]string { return &c.TLS.ACMEDomains },
		"the names for which dewey gets a certificate by ACME; []: none"),
	option("tls.acme_email", text(email), "", func(c *Config) *string { return &c.TLS.ACMEEmail },
		"where the certificate authority may write to"),
	option("tls.acme_directory", text(directory), "https://acme-v02.api.letsencrypt.org/directory",
		func(c *Config) *string { return &c.TLS.ACMEDirectory }, "the certificate authority's address; the default is Let's Encrypt"),
	option("tls.acme_roots", text(file), "", func(c *Config) *string { return &c.TLS.ACMERoots },
		"a PEM file with those who sign the authority's own certificate, if the system does not know them"),
	option("tls.acme_listen", addresses, ":80", func(c *Config) *[]string { return &c.TLS.ACMEListen },
		"where the authority's HTTP-01 challenges are answered; it asks on port 80"),

	option("login.plaintext", choice(PlaintextNever, PlaintextLoopback, PlaintextAlways), PlaintextLoopback,
		func(c *Config) *string { return &c.Login.Plaintext },
		"who may log in without TLS: never, loopback, always"),
	option("login.mechanisms", mechanisms, auto, func(c *Config) *[]string { return &c.Login.Mechanisms },
		"the ways to log in beside USER and PASS: auto, or a list of "+strings.Join(Mechanisms, ", ")),
	option("login.user_pass", boolean, "true", func(c *Config) *bool { return &c.Login.UserPass },
		"whether USER and PASS are offered, where login.plaintext allows"),
	option("login.idle_timeout", duration(pop3.MinIdle, 24*time.Hour, ": RFC 1939 section 3"), "10m",
		func(c *Config) *time.Duration { return &c.Login.IdleTimeout },
		"how long a session may be silent; at least 10m (RFC 1939 section 3)"),
	option("login.time_limit", duration(time.Minute, 24*time.Hour, ""), "30m",
		func(c *Config) *time.Duration { return &c.Login.TimeLimit }, "how long a connection may take to log in"),
	option("login.max_unauthenticated", number(1, maxCount), "1000", func(c *Config) *int { return &c.Login.MaxUnauthenticated },
		"the most connections that have not logged in; one more drops the oldest"),
	option("login.max_connections", number(1, maxCount), "100000", func(c *Config) *int { return &c.Login.MaxConnections },
		"the most connections in all"),
	option("login.max_per_user", number(1, maxCount), "10", func(c *Config) *int { return &c.Login.MaxPerUser },
		"the most sessions of one user"),
	option("login.max_per_address", number(1, maxCount), "100", func(c *Config) *int { return &c.Login.MaxPerAddress },
		"the most connections from one address"),
	option("login.max_attempts", number(1, 1000), "10", func(c *Config) *int { return &c.Login.MaxAttempts },
		"the failed logins and broken SASL exchanges after which a connection is closed"),
	option("login.failure_delay", duration(0, time.Minute, ""), "1s",
		func(c *Config) *time.Duration { return &c.Login.FailureDelay },
		"how long the reply to a failed login or a broken SASL exchange is held back"),
	option("login.max_delay", duration(0, time.Minute, ""), "8s", func(c *Config) *time.Duration { return &c.Login.MaxDelay },
		"the longest that failures make later logins from the same address, or of the same user, wait; if it is not set, no more than eight times login.failure_delay; 0s turns it off"),
	option("login.delay", duration(0, 24*time.Hour, ""), "0s", func(c *Config) *time.Duration { return &c.Login.Delay },
		"the least time between two logins of one user, in whole seconds; announced as LOGIN-DELAY; 0s turns it off"),
	option("login.remember", duration(0, time.Hour, ""), "5m", func(c *Config) *time.Duration { return &c.Login.Remember },
		"how long a verified password is remembered, so that polls do not pay for the hash again; 0s turns it off"),
	option("login.trusted_networks", networks, "", func(c *Config) *[]netip.Prefix { return &c.Login.TrustedNetworks },
		"addresses and prefixes that login.max_per_address, login.max_delay and login.delay do not count, and that may use XCLIENT"),
	option("login.proxy_networks", networks, "", func(c *Config) *[]netip.Prefix { return &c.Login.ProxyNetworks },
		"the load balancers: each connection from them must begin with a PROXY header, version 1 or 2; one from elsewhere that does is closed"),

	option("users.file", text(template("data")), "{data}/users", func(c *Config) *string { return &c.Users.File },
		"the users, in the format of a passwd-file; {data} stands for data"),
	option("users.weak_schemes", boolean, "false", func(c *Config) *bool { return &c.Users.WeakSchemes },
		"whether schemes that are easy to break are taken too, such as SSHA and MD5-CRYPT"),

	option("recipients.rules", rules, strings.Join(RecipientRules, ","), func(c *Config) *[]string { return &c.Recipients.Rules },
		"what of an address is a user's name, in the order to try: exact (all of it), local (its part before the @), detail (what follows the delimiter is cut, and the others try again)"),
	option("recipients.delimiter", text(delimiter), "+", func(c *Config) *string { return &c.Recipients.Delimiter },
		"what parts a user's name from a detail, as in mrose+lists@example.org; of several characters each does"),
	option("recipients.domains", mailDomains, "", func(c *Config) *[]string { return &c.Recipients.Domains },
		"the domains for which mail is taken in; []: any"),
	option("recipients.aliases", text(optionalTemplate), "", func(c *Config) *string { return &c.Recipients.Aliases },
		"a file of aliases, in the format of /etc/aliases; {data} stands for data"),

	option("maildir.path", text(maildirPath), "{data}/mail/{user}", func(c *Config) *string { return &c.Maildir.Path },
		"each user's Maildir: {data}, {user}, {local} and {domain} (of local@domain), {home}"),

	option("mail.quota_octets", size(maxQuota), "0", func(c *Config) *int64 { return &c.Mail.QuotaOctets },
		"the most octets that a user's maildrop may hold, unless the users file has a quota for him; 0: no limit"),
	option("mail.quota_messages", number(0, maxCount), "0", func(c *Config) *int { return &c.Mail.QuotaMessages },
		"the most messages that a user's maildrop may hold, unless the users file says another number; 0: no limit"),

	option("mail.retention", retention, "0s", func(c *Config) *time.Duration { return &c.Mail.Retention },
		"how long mail stays after its delivery, in whole days from 1d: what is older is removed at night, read or not; announced as EXPIRE; 0s: no limit"),
	option("mail.sweep_at", clock, "03:30", func(c *Config) *time.Duration { return &c.Mail.SweepAt },
		"when the night's work is done, in local time: mail past its retention goes, and so does for good what can't be brought back any more"),
	option("mail.undelete", duration(0, 3650*day, ""), "0s", func(c *Config) *time.Duration { return &c.Mail.Undelete },
		"how long what sessions and mail.retention removed can be brought back by dewey mail restore; 0s: it is gone at once"),
	option("mail.deletion", choice(deletions...), maildrop.DeletionRemove, func(c *Config) *string { return &c.Mail.Deletion },
		"what QUIT does with messages that are marked as deleted: remove; keep (they stay in the Maildir, and POP3 shows them no more); retrieved (remove, and with them all that was retrieved whole: EXPIRE 0)"),
	option("mail.window", duration(0, mostDays, ""), "0s", func(c *Config) *time.Duration { return &c.Mail.Window },
		"sessions see only what was delivered in so long a time before the login; 0s: all"),
	option("mail.window_messages", number(0, maxCount), "0", func(c *Config) *int { return &c.Mail.WindowMessages },
		"sessions see only the newest so many messages; 0: all"),
	option("mail.recent", duration(0, mostDays, ""), "30d", func(c *Config) *time.Duration { return &c.Mail.Recent },
		"what a login as recent:USER sees: all that was delivered in so long a time, also what POP3 shows no more; 0s: nobody logs in so"),
	option("mail.folders", folders, "", func(c *Config) *[]string { return &c.Mail.Folders },
		"the Maildir++ folders that sessions see too, after the user's own mail, such as Spam or Lists/dewey"),
	option("mail.folder_delimiter", text(folderDelimiter), "", func(c *Config) *string { return &c.Mail.FolderDelimiter },
		"what parts a user's name from a folder at login, as + does in mrose+Spam, which shows that folder alone; empty: nobody logs in so"),

	option("history.keep", duration(0, 3650*day, ""), "30d", func(c *Config) *time.Duration { return &c.History.Keep },
		"how long it is kept which messages each session fetched and removed, by unique-id; 0s turns it off and removes what there is"),

	option("process.user", text(account), "", func(c *Config) *string { return &c.Process.User },
		"whom dewey becomes after it has bound its ports, if it was started as root: a name or a number"),
	option("process.group", text(account), "", func(c *Config) *string { return &c.Process.Group },
		"the group that it becomes then, if not the user's own: a name or a number"),
	option("process.landlock", choice(LandlockAuto, LandlockOff, LandlockRequired), LandlockAuto,
		func(c *Config) *string { return &c.Process.Landlock },
		"whether the kernel (Landlock) is to keep dewey in the folders that it needs: auto (if it can), off, required"),
}

// maxSize is the most that lmtp.max_size may be: a tebioctet.
const maxSize = 1 << 40

// maxQuota is the most that mail.quota_octets may be: a pebioctet.
const maxQuota = 1 << 50

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
func (k row[C]) table() (table, name string) {
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

// Changed lists the keys whose values differ; "auth" stands for all [[auth]] tables.
func Changed(a, b *Config) []string {
	var names []string
	for _, k := range keys {
		if k.show(a) != k.show(b) {
			names = append(names, k.name)
		}
	}
	if !slices.EqualFunc(a.Backends(), b.Backends(), sameAuth) {
		names = append(names, authTable)
	}
	return names
}
