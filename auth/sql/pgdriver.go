package sqlauth

import (
	"context"
	"database/sql/driver"
	"errors"
	"io"

	"github.com/jackc/pgx/v5/pgconn"
)

// pgLink is PostgreSQL for database/sql: queries with parameters, and nothing else. pgx's own adapter prepares statements,
// which a pooler such as PgBouncer loses and a changed table breaks. Here each query is one round trip by itself, and the
// server finds the parameters' types, so that a column of type citext is compared as one.
type pgLink struct{ config *pgconn.Config }

var errUnused = errors.New("no queries without parameters, and no transactions")

func (l pgLink) Connect(ctx context.Context) (driver.Conn, error) {
	conn, err := pgconn.ConnectConfig(ctx, l.config.Copy())
	if err != nil {
		return nil, err
	}
	return pgSession{conn}, nil
}

func (l pgLink) Driver() driver.Driver { return l }

// Open implements driver.Driver.
func (l pgLink) Open(string) (driver.Conn, error) { return nil, errUnused }

type pgSession struct{ conn *pgconn.PgConn }

// The interfaces of database/sql beside driver.Conn.
var (
	_ driver.QueryerContext  = pgSession{}
	_ driver.SessionResetter = pgSession{}
	_ driver.Validator       = pgSession{}
)

// QueryContext implements driver.QueryerContext. Of the rows the first two are kept.
func (s pgSession) QueryContext(ctx context.Context, query string, args []driver.NamedValue) (driver.Rows, error) {
	if s.conn.IsClosed() {
		return nil, driver.ErrBadConn
	}
	values := make([][]byte, len(args))
	for i, arg := range args {
		values[i] = []byte(arg.Value.(string))
	}
	reader := s.conn.ExecParams(ctx, query, values, nil, nil, nil)
	rows := &pgRows{}
	for _, field := range reader.FieldDescriptions() {
		rows.columns = append(rows.columns, field.Name)
	}
	for len(rows.rows) < 2 && reader.NextRow() {
		row := make([]driver.Value, len(rows.columns))
		for i, value := range reader.Values() {
			if value != nil {
				row[i] = string(value)
			}
		}
		rows.rows = append(rows.rows, row)
	}
	switch _, err := reader.Close(); {
	case err != nil && pgconn.SafeToRetry(err):
		return nil, driver.ErrBadConn
	case err != nil:
		return nil, err
	}
	return rows, nil
}

func (s pgSession) Prepare(string) (driver.Stmt, error) { return nil, errUnused }

func (s pgSession) Begin() (driver.Tx, error) { return nil, errUnused }

func (s pgSession) IsValid() bool { return !s.conn.IsClosed() }

func (s pgSession) ResetSession(context.Context) error {
	if s.conn.IsClosed() || s.conn.TxStatus() != 'I' {
		return driver.ErrBadConn
	}
	return nil
}

func (s pgSession) Close() error {
	ctx, cancel := context.WithTimeout(context.Background(), defaultTimeout)
	defer cancel()
	return s.conn.Close(ctx)
}

type pgRows struct {
	columns []string
	rows    [][]driver.Value
}

func (r *pgRows) Columns() []string { return r.columns }

func (r *pgRows) Close() error { return nil }

func (r *pgRows) Next(dest []driver.Value) error {
	if len(r.rows) == 0 {
		return io.EOF
	}
	copy(dest, r.rows[0])
	r.rows = r.rows[1:]
	return nil
}
