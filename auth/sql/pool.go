package sqlauth

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/go-sql-driver/mysql"
	"github.com/jackc/pgx/v5/pgconn"
	"modernc.org/sqlite"

	"dewey/auth"
)

const (
	backoff  = time.Second // after a failure to connect, in which nobody tries again
	mostText = 500         // octets of an error's text
)

// open makes a pool, which connects to nobody yet.
func (b *Backend) open() *sql.DB {
	db := sql.OpenDB(b.link)
	db.SetMaxOpenConns(b.size)
	b.keep(db)
	db.SetConnMaxIdleTime(idle)
	db.SetConnMaxLifetime(lifetime)
	return db
}

func (b *Backend) keep(db *sql.DB) {
	if b.unpooled {
		db.SetMaxIdleConns(-1)
	} else {
		db.SetMaxIdleConns(b.size)
	}
}

// row asks for one row. After a connection has broken it asks once more, on a new one: the server may have been restarted.
func (b *Backend) row(ctx context.Context, q query, name string) (columns []string, values []any, err error) {
	for try := 0; ; try++ {
		columns, values, err = b.once(ctx, q, name)
		switch {
		case err == nil || errors.Is(err, auth.ErrRejected):
			return columns, values, err
		case b.closing.Err() != nil:
			return nil, nil, errors.New("the backend was closed")
		case errors.Is(ctx.Err(), context.Canceled):
			return nil, nil, ctx.Err()
		case ctx.Err() != nil:
			b.drop() // the others may be as dead as this one
			return nil, nil, fmt.Errorf("the database did not answer in time: %w", ctx.Err())
		case try > 0 || !broken(err):
			return nil, nil, b.link.clean(err)
		}
		b.drop()
	}
}

// once asks for one row.
func (b *Backend) once(ctx context.Context, q query, name string) (columns []string, values []any, err error) {
	defer func() {
		if p := recover(); p != nil { // drivers trust servers
			b.renew()
			err = fmt.Errorf("%w: %v", errNonsense, p)
		}
	}()
	rows, err := b.db.Load().QueryContext(ctx, q.text, q.bind(name)...)
	if err != nil {
		return nil, nil, unknown(err)
	}
	defer rows.Close()
	if columns, err = rows.Columns(); err != nil {
		return nil, nil, err
	}
	if !rows.Next() {
		if err := rows.Err(); err != nil {
			return nil, nil, unknown(err)
		}
		return nil, nil, auth.ErrUnknownUser
	}
	values = make([]any, len(columns))
	into := make([]any, len(columns))
	for i := range values {
		into[i] = &values[i]
	}
	if err := rows.Scan(into...); err != nil {
		return nil, nil, err
	}
	if rows.Next() {
		return nil, nil, fmt.Errorf("%w for %q; one would be right", errRows, name)
	}
	return columns, values, rows.Err()
}

var (
	errNonsense = errors.New("what the database said can't be understood")
	errRows     = errors.New("more than one row")
	errDown     = errors.New("no connection to the database")
)

// unknown takes the complaint that a name can't be written in the database's encoding for what it says of that name:
// PostgreSQL's character_not_in_repertoire and untranslatable_character, MySQL's illegal mix of collations.
func unknown(err error) error {
	var pg *pgconn.PgError
	var my *mysql.MySQLError
	if errors.As(err, &pg) && (pg.Code == "22021" || pg.Code == "22P05") || errors.As(err, &my) && my.Number == 1267 {
		return auth.ErrUnknownUser
	}
	return err
}

// broken says whether another connection may do better: the server did not refuse the query itself.
func broken(err error) bool {
	var pg *pgconn.PgError
	var my *mysql.MySQLError
	var lite *sqlite.Error
	switch {
	case errors.As(err, &pg):
		return strings.HasPrefix(pg.Code, "57P") || strings.HasPrefix(pg.Code, "08")
	case errors.As(err, &my):
		return my.Number == 1053 || my.Number == 1927 // shut down, killed
	}
	return !errors.As(err, &lite) && !errors.Is(err, errDown) && !errors.Is(err, errRows)
}

// drop closes the connections that nobody uses.
func (b *Backend) drop() {
	b.mu.Lock()
	defer b.mu.Unlock()
	db := b.db.Load()
	db.SetMaxIdleConns(-1)
	b.keep(db)
}

// renew makes a new pool of one that a panic has left in the dark.
func (b *Backend) renew() {
	b.mu.Lock()
	defer b.mu.Unlock()
	old := b.db.Swap(b.open())
	b.link.net.cut()
	_ = old.Close()
}

// A connector makes the pool's connections.
type connector struct {
	driver.Connector
	net     *network
	timeout time.Duration
	secret  string

	mu     sync.Mutex
	err    error // of the last try, if it failed
	failed time.Time
}

// Connect implements driver.Connector. It ends in time also for the pool, which waits for ever.
func (link *connector) Connect(ctx context.Context) (driver.Conn, error) {
	link.mu.Lock()
	err, failed := link.err, link.failed
	link.mu.Unlock()
	if err != nil && time.Since(failed) < backoff {
		return nil, err
	}
	within, cancel := context.WithTimeout(ctx, link.timeout)
	defer cancel()
	conn, err := link.try(within)
	if errors.Is(ctx.Err(), context.Canceled) { // says nothing of the server
		if err == nil {
			_ = conn.Close()
		}
		return nil, ctx.Err()
	}
	if err != nil {
		err = fmt.Errorf("%w: %w", errDown, link.clean(err))
	}
	link.mu.Lock()
	link.err, link.failed = err, time.Now()
	link.mu.Unlock()
	return conn, err
}

func (link *connector) try(ctx context.Context) (conn driver.Conn, err error) {
	defer func() {
		if p := recover(); p != nil {
			conn, err = nil, fmt.Errorf("%w: %v", errNonsense, p)
		}
	}()
	return link.Connector.Connect(ctx)
}

// clean keeps of an error its text alone, as some have the password within, and of that what may be logged.
func (link *connector) clean(err error) error {
	text := strings.ToValidUTF8(err.Error(), "?")
	if link.secret != "" {
		text = strings.ReplaceAll(text, link.secret, "…")
	}
	text = strings.Join(strings.FieldsFunc(text, func(r rune) bool { return r <= ' ' || r == 0x7f }), " ")
	if len(text) > mostText {
		text = strings.ToValidUTF8(text[:mostText], "") + "…"
	}
	return errors.New(text)
}
