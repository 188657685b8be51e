// Package sqlauth knows users from a database, by the administrator's own queries: PostgreSQL, MariaDB or MySQL, SQLite.
//
// A query names what it asks by {user}, {local} and {domain} (of local@domain, parted at the last @), each of which becomes
// a parameter that is bound: no octet that a client sends is ever a part of a query's text. It returns one row, or none.
// The row's columns count by their names: user, password, home, quota_octets, quota_messages, disabled.
package sqlauth

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"time"
	"unicode/utf8"

	"dewey/auth"
	"dewey/auth/scheme"
)

// The drivers.
const (
	Postgres = "postgres"
	MySQL    = "mysql"
	SQLite   = "sqlite"
)

const (
	defaultTimeout     = 5 * time.Second
	defaultConnections = 8
	mostConnections    = 1000
	maxName            = 255              // octets
	idle               = time.Minute      // after which an unused connection is closed
	lifetime           = 10 * time.Minute // of a connection: a name may mean another server by then
)

// Config says where the database is, and what to ask it.
type Config struct {
	Driver string // Postgres, MySQL or SQLite
	// DSN says where the database is, and who we are there: of PostgreSQL a URL or keywords, as libpq has them; of MySQL
	// user:password@tcp(host:port)/database or …@unix(/socket)/database; of SQLite the absolute path of the file. It is
	// never logged.
	DSN string
	// UserQuery is asked for logins, RecipientQuery for mail in; empty: the same one.
	UserQuery, RecipientQuery string
	// Connections bounds how many are open at once. 0: 8.
	Connections int
	// Timeout bounds how long the database is asked, the waiting for a connection and a second try included. 0: five seconds.
	// A hash that is to be run waits for its turn as long as the caller does.
	Timeout time.Duration
	// DefaultScheme is the scheme of passwords without {SCHEME}; empty: that of crypt(3).
	DefaultScheme string
	Weak          bool            // whether weak schemes are taken; without it they are faults of their rows
	Workers       *scheme.Workers // run the hashes; nil: own ones
	// KeepCase asks for names as they were sent; else they are put into ASCII lower case first.
	KeepCase bool
	// CA is the PEM text of whom the server's certificate must come from; nil: what the DSN says, or the system's roots.
	CA []byte
}

// A Backend asks a database. Many goroutines may use it.
//
// An error that does not wrap auth.ErrRejected means that it could not tell: the database was down or slow, or what it
// said can't be understood. No error has a password in it, nor the DSN.
type Backend struct {
	timeout time.Duration
	fold    bool
	scheme  string
	set     scheme.Set
	hashing *scheme.Workers

	users, recipients query

	link     *connector
	size     int // of the pool
	unpooled bool
	db       atomic.Pointer[sql.DB]
	mu       sync.Mutex // of who replaces the pool
	closing  context.Context
	close    context.CancelFunc

	// stranger is the hash that unknown names run: that of the user last seen, so that it takes as long.
	stranger atomic.Pointer[scheme.Hash]
}

var errRejected = fmt.Errorf("sql: %w", auth.ErrRejected)

// New makes a Backend, or says all that is wrong with its configuration. It connects to nobody yet, but reads files that
// the DSN names.
func New(c Config) (*Backend, error) {
	var errs []error
	bad := func(format string, args ...any) { errs = append(errs, fmt.Errorf("sql: "+format, args...)) }
	b := &Backend{timeout: c.Timeout, fold: !c.KeepCase, scheme: c.DefaultScheme, hashing: c.Workers, size: c.Connections}
	if c.Weak {
		b.set = scheme.All
	}
	if b.hashing == nil {
		b.hashing = scheme.NewWorkers()
	}
	if b.timeout == 0 {
		b.timeout = defaultTimeout
	}
	if b.timeout < time.Millisecond {
		bad("a timeout of %v; %v would be right", c.Timeout, defaultTimeout)
	}
	if b.size == 0 {
		b.size = defaultConnections
	}
	if b.size < 1 || b.size > mostConnections {
		bad("%d connections; 1 to %d would be right", c.Connections, mostConnections)
	}
	if c.DefaultScheme != "" {
		if _, err := b.set.Parse("{" + c.DefaultScheme + "}*"); err != nil {
			bad("the default scheme: %w", err)
		}
	}
	if d, known := dialects[c.Driver]; !known {
		bad("driver %q is none of %s, %s, %s", c.Driver, Postgres, MySQL, SQLite)
	} else {
		var err error
		if b.users, err = d.compile(c.UserQuery); err != nil {
			bad("user_query: %w", err)
		}
		b.recipients = b.users
		if c.RecipientQuery != "" {
			if b.recipients, err = d.compile(c.RecipientQuery); err != nil {
				bad("recipient_query: %w", err)
			}
		}
		b.unpooled = c.Driver == SQLite // each look opens the file that is there now
		if b.link, err = connect(c, b.timeout); err != nil {
			bad("%w", err)
		}
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	decoy := scheme.Decoy()
	b.stranger.Store(&decoy)
	b.closing, b.close = context.WithCancel(context.Background())
	b.db.Store(b.open())
	return b, nil
}

// CheckPassword implements auth.PasswordChecker. A name that no row is found for is an auth.ErrUnknownUser. Each try of a
// name that could be a user's runs one hash, whatever comes of it (trap 42). Who is disabled, or has no password, is
// rejected as for a wrong one.
func (b *Backend) CheckPassword(ctx context.Context, a auth.Attempt) (auth.Identity, error) {
	if a.Password == "" {
		return auth.Identity{}, errRejected
	}
	rec, err := b.ask(ctx, b.users, a.User)
	if errors.Is(err, auth.ErrRejected) {
		if !askable(a.User) {
			return auth.Identity{}, err
		}
		if _, wait := b.verify(ctx, a, *b.stranger.Load()); wait != nil {
			return auth.Identity{}, wait
		}
		return auth.Identity{}, err
	}
	if err != nil {
		return auth.Identity{}, err
	}
	if !rec.has(colPassword) {
		return auth.Identity{}, errors.New("sql: user_query returns no column password; SELECT … AS password would be right")
	}
	stored := rec.password
	if b.scheme != "" && stored != "" && !strings.HasPrefix(stored, "{") {
		stored = "{" + b.scheme + "}" + stored
	}
	h, err := b.set.Parse(stored)
	if err != nil {
		return auth.Identity{}, fmt.Errorf("sql: the password column of %q: %w", rec.identity.User, err)
	}
	if h.Locked() {
		h, rec.disabled = *b.stranger.Load(), true
	} else {
		b.stranger.Store(&h)
	}
	fits, err := b.verify(ctx, a, h)
	switch {
	case err != nil:
		return auth.Identity{}, err
	case !fits || rec.disabled:
		return auth.Identity{}, errRejected
	}
	return rec.identity, nil
}

func (b *Backend) verify(ctx context.Context, a auth.Attempt, h scheme.Hash) (fits bool, err error) {
	err = b.hashing.Run(ctx, a.Remote, h, func() error {
		fits = h.Verify(a.Password)
		return nil
	})
	if err != nil {
		return false, fmt.Errorf("sql: %w", err)
	}
	return fits, nil
}

// Recipient implements auth.Recipients. Who is disabled gets mail.
func (b *Backend) Recipient(ctx context.Context, user string) (auth.Identity, error) {
	rec, err := b.ask(ctx, b.recipients, user)
	return rec.identity, err
}

// Find returns the identity of a user who was proven elsewhere, by a certificate or a token. Who is disabled is rejected;
// who has no password is not.
func (b *Backend) Find(ctx context.Context, user string, _ netip.Addr) (auth.Identity, error) {
	rec, err := b.ask(ctx, b.users, user)
	if err == nil && rec.disabled {
		return auth.Identity{}, errRejected
	}
	return rec.identity, err
}

// Close cuts off what is being asked, and closes all connections.
func (b *Backend) Close() error {
	b.close()
	b.mu.Lock()
	defer b.mu.Unlock()
	_ = b.db.Load().Close() // of connections that have broken it says no more than that
	b.link.net.close()
	return nil
}

// askable says whether a name could be a user's. What is not UTF-8, PostgreSQL refuses and MySQL would change.
func askable(name string) bool {
	return name != "" && len(name) <= maxName && strings.IndexByte(name, 0) < 0 && utf8.ValidString(name)
}

// ask returns the row of a name; an auth.ErrUnknownUser if there is none.
func (b *Backend) ask(ctx context.Context, q query, name string) (record, error) {
	if !askable(name) {
		return record{}, fmt.Errorf("sql: %w", auth.ErrUnknownUser)
	}
	asked := name
	if b.fold {
		asked = auth.Lower(name)
	}
	ctx, cancel := context.WithTimeout(ctx, b.timeout)
	defer cancel()
	defer context.AfterFunc(b.closing, cancel)()
	columns, values, err := b.row(ctx, q, asked)
	if err != nil {
		return record{}, fmt.Errorf("sql: %w", err)
	}
	rec, err := read(columns, values, asked)
	if err != nil {
		return record{}, fmt.Errorf("sql: the row of %q: %w", asked, err)
	}
	switch {
	case rec.has(colUser):
	case !q.whole() && strings.Contains(asked, "@"):
		return record{}, fmt.Errorf("sql: the row of %q: %w", asked, errPart)
	case asked != auth.Lower(asked): // MySQL finds bob for it
		return record{}, fmt.Errorf("sql: the row of %q: %w", asked, errCase)
	}
	return rec, nil
}

var (
	errPart = errors.New("the query asks for a part of the name alone, and there is no column user, so that many names are one user; SELECT name AS user would be right")
	errCase = errors.New("the case of names is kept, and there is no column user, so that Bob may be bob; SELECT name AS user would be right")
)
