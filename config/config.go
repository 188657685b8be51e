package config

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/netip"
	"os"
	"strings"
	"time"
)

// maxFile is the most octets of a configuration file. A larger one is a mistake (a log, a disk).
const maxFile = 1 << 20

// Config is everything that can be configured. Get one from Load; the zero Config is of no use.
type Config struct {
	Hostname   string
	Data       string // the folder of all that dewey keeps; relative to the working directory
	POP3       POP3
	POP3S      Listener
	LMTP       LMTP
	TLS        TLS
	Login      Login
	Users      Users
	Auth       []Auth // as the file lists them; see Backends
	Recipients Recipients
	Maildir    Maildir
	Mail       Mail
	History    History
	Process    Process

	sources map[string]Source // by key; what is missing is a default
}

// POP3 is the table [pop3].
type POP3 struct {
	Listen      []string // host:port; empty: the listener is off
	ShowVersion bool     // CAPA's IMPLEMENTATION names the version. RFC 2449 section 6.9
	Language    string   // one of Languages
}

// Listener is a table that has nothing but addresses.
type Listener struct {
	Listen []string // host:port; empty: the listener is off
}

// LMTP is the table [lmtp].
type LMTP struct {
	Listen                  []string // host:port, or UnixPrefix and an absolute path; empty: the listener is off
	SocketMode              fs.FileMode
	SocketUser, SocketGroup string // names or numbers; empty: nothing is changed
	MaxSize                 int64  // octets; 0: no limit
	MaxRecipients           int    // of one message
	MaxConnections          int
	Timeout                 time.Duration
	OverQuota               string // OverQuotaReject or OverQuotaDefer
}

// UnixPrefix begins an address that is a UNIX socket's.
const UnixPrefix = "unix:"

// What lmtp.over_quota may be: what is said of a message for whose owner there is no room.
const (
	OverQuotaReject = "reject" // for good
	OverQuotaDefer  = "defer"  // for now
)

// TLS is the table [tls].
type TLS struct {
	Certificate   []string // PEM files, one for each of Key; both empty: dewey makes its own, or has it by ACME
	Key           []string
	MinVersion    string   // TLS12 or TLS13
	ClientCA      string   // a PEM file; empty: clients are not asked for certificates
	ClientName    string   // ClientNameEmail, ClientNameLocal or ClientNameDNS
	ACMEDomains   []string // in lower case; empty: no ACME
	ACMEEmail     string
	ACMEDirectory string   // an https URL
	ACMERoots     string   // a PEM file; empty: the system's
	ACMEListen    []string // host:port; not empty if ACMEDomains is not
}

// Login is the table [login].
type Login struct {
	Plaintext          string   // PlaintextNever, PlaintextLoopback or PlaintextAlways
	Mechanisms         []string // of the known ones; nil: dewey chooses; empty and not nil: none
	UserPass           bool     // USER and PASS are offered where Plaintext allows
	IdleTimeout        time.Duration
	TimeLimit          time.Duration // for a connection to log in
	MaxUnauthenticated int
	MaxConnections     int
	MaxPerUser         int
	MaxPerAddress      int
	MaxAttempts        int // failed logins on one connection
	FailureDelay       time.Duration
	Delay              time.Duration // between two logins of one user; 0: none
	MaxDelay           time.Duration // 0: failures do not delay later logins
	Remember           time.Duration // 0: a verified password is not remembered
	TrustedNetworks    []netip.Prefix
	ProxyNetworks      []netip.Prefix
}

// Users is the table [users].
type Users struct {
	File        string // may hold {data}; see UsersFile
	WeakSchemes bool
}

// Recipients is the table [recipients].
type Recipients struct {
	Rules     []string // in the order to try: some of RecipientRules
	Delimiter string   // each octet of it cuts; empty: none does
	Domains   []string // in ASCII lower case; empty: any
	Aliases   string   // a file; empty: none. May hold {data}; see AliasesFile
}

// RecipientRules are what recipients.rules may list. They are those that package recipients knows; a test in
// cmd/dewey holds the two lists together.
var RecipientRules = []string{"exact", "local", "detail"}

// Maildir is the table [maildir].
type Maildir struct {
	Path string // holds placeholders; see MaildirPath
}

// Mail is the table [mail].
type Mail struct {
	QuotaOctets   int64 // 0: no limit
	QuotaMessages int   // 0: no limit

	Retention       time.Duration // in whole days; 0: no limit
	SweepAt         time.Duration // after midnight, local time
	Undelete        time.Duration // 0: what is removed is gone
	Deletion        string        // one of maildrop.DeletionRemove, DeletionKeep, DeletionRetrieved
	Window          time.Duration // 0: none
	WindowMessages  int           // 0: no limit
	Recent          time.Duration // what recent:USER shows; 0: nobody logs in so
	Folders         []string      // in UTF-8, with / between a folder and one in it
	FolderDelimiter string        // before a folder in USER+FOLDER; empty: nobody logs in so
}

// History is the table [history].
type History struct {
	Keep time.Duration // how long after its end a day's record is kept; 0: none is made
}

// Process is the table [process].
type Process struct {
	User, Group string // names or numbers; empty: nothing is changed
	Landlock    string // LandlockAuto, LandlockOff or LandlockRequired
}

// What tls.min_version may be.
const (
	TLS12 = "1.2"
	TLS13 = "1.3"
)

// What tls.client_name may be: the kind of the subject alternative name (RFC 5280 section 4.2.1.6) that
// is the user's name.
const (
	ClientNameEmail = "email" // the whole address
	ClientNameLocal = "local" // an address's part before the @
	ClientNameDNS   = "dns"
)

// What login.plaintext may be: who may log in with a password in clear, without TLS.
const (
	PlaintextNever    = "never"
	PlaintextLoopback = "loopback"
	PlaintextAlways   = "always"
)

// What process.landlock may be.
const (
	LandlockAuto     = "auto"
	LandlockOff      = "off"
	LandlockRequired = "required"
)

// Languages are the choices of pop3.language. They are those that pop3server speaks; a test in
// cmd/dewey holds the two lists together.
var Languages = []string{"i-default", "en", "de", "fr", "es"}

// A Source is where a value came from. The zero Source is the default.
type Source struct {
	File string // the name as given
	Line int    // from 1
	Set  bool   // from --set, which wins over the file
}

// IsDefault tells whether neither the file nor the command line gave the value.
func (s Source) IsDefault() bool { return s == Source{} }

// String returns "default", "--set" or "file:line".
func (s Source) String() string {
	switch {
	case s.Set:
		return "--set"
	case s.IsDefault():
		return "default"
	}
	return fmt.Sprintf("%s:%d", printable(s.File), s.Line)
}

// Source returns where the value of a key came from.
func (c *Config) Source(key string) Source { return c.sources[key] }

// Load reads the file ("" for none), applies sets on top (each "key=value", the last of a key wins)
// and checks the whole. The error is of type Problems and holds everything that is wrong, or says
// why the file could not be read; the Config is nil then.
func Load(file string, sets []string) (*Config, error) {
	var data []byte
	var problems Problems
	if file != "" {
		var err error
		data, err = readFile(file)
		if err != nil {
			problems = append(problems, Problem{Source: Source{File: file}, Wrong: err.Error()})
		}
	}
	c, more := parse(file, data, sets)
	if problems = append(problems, more...); len(problems) > 0 {
		return nil, problems
	}
	return c, nil
}

// readFile reads at most maxFile octets. Its errors do not name the file: the caller does.
func readFile(name string) ([]byte, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, bare(err)
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err != nil {
		return nil, bare(err)
	}
	if len(data) > maxFile {
		return nil, fmt.Errorf("larger than %d octets; name a configuration file in TOML", maxFile)
	}
	return data, nil
}

// bare takes operation and name out of an error of package os.
func bare(err error) error {
	var pe *fs.PathError
	if errors.As(err, &pe) {
		return pe.Err
	}
	return err
}

// parse is Load without the file system.
func parse(name string, data []byte, sets []string) (*Config, Problems) {
	c := defaults()
	var problems Problems
	problems = append(problems, c.readTOML(name, data)...)
	for _, s := range sets {
		problems = append(problems, c.set(s)...)
	}
	if len(problems) == 0 { // what depends on several keys says nothing new about wrong ones
		problems = c.check()
	}
	return c, problems
}

// set applies one key=value of the command line.
func (c *Config) set(s string) Problems {
	name, value, found := strings.Cut(s, "=")
	name = strings.TrimSpace(name)
	problem := func(f fault) Problem {
		return Problem{Source: Source{Set: true}, Key: name, Wrong: f.wrong, Right: f.right}
	}
	if !found {
		return Problems{problem(fault{wrong: "has no value", right: "write --set key=value"})}
	}
	k, ok := keyNamed(name)
	if !ok {
		return Problems{problem(unknownKey(strings.Split(name, ".")))}
	}
	v, f := k.split(value)
	if f != nil {
		return Problems{problem(*f)}
	}
	var problems Problems
	for _, f := range k.apply(c, v) {
		problems = append(problems, problem(f))
	}
	c.sources[name] = Source{Set: true}
	return problems
}
