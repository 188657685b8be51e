package sqlauth

import (
	"context"
	"database/sql"
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"dewey/auth"
	"dewey/auth/scheme"
)

// A database is one of the three, with the table users.
type database struct {
	kind, dsn string
	exec      func(t *testing.T, sql string)
}

func databases(t *testing.T) []database {
	t.Helper()
	all := []database{sqliteFile(t, users)}
	for _, s := range []*server{postgresServer, mariaServer} {
		s.start(t)
		all = append(all, database{s.kind, s.dsn(), func(t *testing.T, text string) {
			t.Helper()
			use := "USE test; "
			if s.kind == Postgres {
				use = "\\c test\n"
			}
			s.exec(t, use+text)
		}})
	}
	return all
}

func sqliteFile(t *testing.T, text string) database {
	t.Helper()
	file := filepath.Join(t.TempDir(), "users ?%41.sqlite")
	file = strings.ReplaceAll(file, "?", "") // a question mark is refused
	exec := func(t *testing.T, text string) {
		t.Helper()
		db, err := sql.Open("sqlite", file)
		must(t, err)
		defer db.Close()
		_, err = db.Exec(text)
		must(t, err)
	}
	exec(t, text)
	return database{SQLite, file, exec}
}

var watched sync.Map // tests whose goroutines are looked for at their end

// open makes a Backend, and looks whether anything is left of it at the test's end.
func open(t *testing.T, c Config) *Backend {
	t.Helper()
	if _, again := watched.LoadOrStore(t, true); !again {
		before := goleak.IgnoreCurrent()
		t.Cleanup(func() {
			goleak.VerifyNone(t, before, goleak.IgnoreAnyFunction("dewey/auth/sql.(*server).launch.func1"))
		})
	}
	if c.UserQuery == "" {
		c.UserQuery = userQuery
	}
	b, err := New(c)
	must(t, err)
	t.Cleanup(func() { must(t, b.Close()) })
	return b
}

func login(t *testing.T, b *Backend, user, password string) (auth.Identity, error) {
	t.Helper()
	return b.CheckPassword(t.Context(), auth.Attempt{User: user, Password: password, Remote: netip.MustParseAddr("192.0.2.1")})
}

// works asks for a user who is there.
func works(t *testing.T, b *Backend) {
	t.Helper()
	if id, err := login(t, b, "bob", "tanstaaf"); err != nil || id.User != "bob" {
		t.Fatalf("%+v, %v", id, err)
	}
}

// faults says that an error means that it could not tell, and holds no password.
func faults(t *testing.T, err error) {
	t.Helper()
	if err == nil || errors.Is(err, auth.ErrRejected) {
		t.Fatalf("no fault: %v", err)
	}
	for _, secret := range []string{dbPassword, "S3cret", "tanstaaf", "of%3Athe"} {
		if strings.Contains(err.Error(), secret) {
			t.Fatalf("a password in an error: %v", err)
		}
	}
}

func unknownTo(t *testing.T, b *Backend, name string) {
	t.Helper()
	_, err := login(t, b, name, "tanstaaf")
	_, found := b.Find(t.Context(), name, netip.Addr{})
	_, mail := b.Recipient(t.Context(), name)
	for _, err := range []error{err, found, mail} {
		if !errors.Is(err, auth.ErrUnknownUser) {
			t.Errorf("%q: %v", name, err)
		}
	}
}

func each(t *testing.T, test func(t *testing.T, d database)) {
	for _, d := range databases(t) {
		t.Run(d.kind, func(t *testing.T) { test(t, d) })
	}
}

func TestLogins(t *testing.T) {
	each(t, func(t *testing.T, d database) {
		b := open(t, Config{Driver: d.kind, DSN: d.dsn, Weak: true})
		for _, name := range []string{"bob", "Bob", "ann@example.org", "bcrypt", "md5", "o'brien", "grüße"} {
			id, err := login(t, b, name, "tanstaaf")
			if err != nil || id.User != strings.ToLower(name) {
				t.Errorf("%s: %+v, %v", name, id, err)
			}
			if _, err := login(t, b, name, "wrong"); !errors.Is(err, auth.ErrRejected) || errors.Is(err, auth.ErrUnknownUser) {
				t.Errorf("%s, wrong password: %v", name, err)
			}
		}
		if id, err := login(t, b, "bob", "tanstaaf"); err != nil || id.Home != "/var/vmail/bob" || id.Quota != (auth.Quota{Octets: 1000000, Messages: 100}) {
			t.Errorf("%+v, %v", id, err)
		}
		if id, err := login(t, b, "ann@example.org", "tanstaaf"); err != nil || id.Home != "" || id.Quota != (auth.Quota{Octets: -1}) {
			t.Errorf("%+v, %v", id, err)
		}
		for _, name := range []string{"nobody", "locked", "off"} {
			if _, err := login(t, b, name, "tanstaaf"); !errors.Is(err, auth.ErrRejected) || errors.Is(err, auth.ErrUnknownUser) {
				t.Errorf("%s: %v", name, err)
			}
			if id, err := b.Recipient(t.Context(), name); err != nil || id.User != name {
				t.Errorf("mail for %s: %v", name, err)
			}
			if _, err := b.Find(t.Context(), name, netip.Addr{}); (err == nil) == (name == "off") {
				t.Errorf("a certificate of %s: %v", name, err)
			}
		}
		for _, name := range []string{"broken", "lost"} {
			_, err := login(t, b, name, "tanstaaf")
			faults(t, err)
		}
		_, err := b.Find(t.Context(), "lost", netip.Addr{})
		faults(t, err)
		if _, err := login(t, b, "bob", ""); !errors.Is(err, auth.ErrRejected) {
			t.Errorf("an empty password: %v", err)
		}
	})
}

// What a client sends is never a part of a query. Trap 41.
func TestHostileNames(t *testing.T) {
	each(t, func(t *testing.T, d database) {
		b := open(t, Config{Driver: d.kind, DSN: d.dsn})
		for _, name := range []string{
			"", "'", `"`, "`", `\`, `\'`, "''", "bob'; DROP TABLE users; --", "' OR '1'='1", `\' OR 1=1 -- `, "%", "_ob", "b%", "bob\x00", "\x00", "bob\xff",
			"\xc0\x80", "\xed\xa0\x80", "{user}", "$1", "?", "bob/*", "bob\r\n", "😀", strings.Repeat("x", 255), strings.Repeat("b", 256), strings.Repeat("'", 255), "\u202e", "NULL",
		} {
			unknownTo(t, b, name)
		}
		works(t, b)
	})
}

// MySQL finds bob also for names that are not his: the row says whose maildrop it is, or nothing does.
func TestNamesThatADatabaseTakesForAnother(t *testing.T) {
	each(t, func(t *testing.T, d database) {
		named := open(t, Config{Driver: d.kind, DSN: d.dsn})
		unnamed := open(t, Config{Driver: d.kind, DSN: d.dsn, UserQuery: "SELECT secret AS password FROM users WHERE name = {user}"})
		works(t, unnamed)
		for _, name := range []string{"bob ", "bób", "BOB", "bob\u00ad", "bob\t"} {
			if id, err := login(t, named, name, "tanstaaf"); err == nil && id.User != "bob" || err != nil && !errors.Is(err, auth.ErrUnknownUser) {
				t.Errorf("%q: %+v, %v", name, id, err)
			}
			if id, err := login(t, unnamed, name, "tanstaaf"); err == nil && id.User != "bob" {
				t.Errorf("%q: %+v", name, id)
			}
		}
	})
}

// Where a query leaves out the domain, bob's password is not that of every bob@anywhere.
func TestNamesOfWhichAPartIsAsked(t *testing.T) {
	each(t, func(t *testing.T, d database) {
		for query, want := range map[string]string{
			"SELECT secret AS password FROM users WHERE name = {local}":                              "",
			"SELECT secret AS password, name AS user FROM users WHERE name = {local}":                "bob",
			"SELECT secret AS password FROM users WHERE name = {local} AND {domain} = 'example.org'": "bob@example.org",
		} {
			b := open(t, Config{Driver: d.kind, DSN: d.dsn, UserQuery: query})
			id, err := login(t, b, "bob@example.org", "tanstaaf")
			if id.User != want || (err == nil) != (want != "") {
				t.Errorf("%s: %+v, %v", query, id, err)
			}
			if want != "" {
				continue
			}
			faults(t, err)
			if id, err := login(t, b, "Bob", "tanstaaf"); err != nil || id.User != "bob" {
				t.Errorf("a name without a domain: %+v, %v", id, err)
			}
		}
	})
}

// Where a database finds bob for BOB, and names keep their case, they are not two users.
func TestKeepCase(t *testing.T) {
	each(t, func(t *testing.T, d database) {
		b := open(t, Config{Driver: d.kind, DSN: d.dsn, UserQuery: "SELECT secret AS password FROM users WHERE LOWER(name) = LOWER({user})", KeepCase: true})
		if id, err := login(t, b, "bob", "tanstaaf"); err != nil || id.User != "bob" {
			t.Errorf("%+v, %v", id, err)
		}
		id, err := login(t, b, "BOB", "tanstaaf")
		if id.User != "" {
			t.Errorf("%+v", id)
		}
		faults(t, err)
	})
}

// Whoever is asked for, a hash is run, so that times don't tell who is there. Trap 42.
func TestUnknownNamesRunAHash(t *testing.T) {
	workers := scheme.NewWorkers()
	b := open(t, Config{Driver: SQLite, DSN: sqliteFile(t, users).dsn, Workers: workers, Weak: true})
	if _, err := login(t, b, "md5", "wrong"); !errors.Is(err, auth.ErrRejected) { // unknown names run one like this
		t.Fatal(err)
	}
	release, taken := make(chan struct{}), make(chan struct{})
	var group sync.WaitGroup
	group.Go(func() {
		_ = workers.Run(t.Context(), netip.Addr{}, scheme.Hash{Threads: 1 << 20}, func() error {
			close(taken)
			<-release
			return nil
		})
	})
	<-taken
	for _, name := range []string{"md5", "bcrypt", "unknown", "nobody", "locked"} {
		ctx, cancel := context.WithTimeout(t.Context(), short)
		defer cancel()
		if _, err := b.CheckPassword(ctx, auth.Attempt{User: name, Password: "tanstaaf"}); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%s: no hash was run: %v", name, err)
		}
	}
	if _, err := login(t, b, "bo\x00b", "tanstaaf"); !errors.Is(err, auth.ErrUnknownUser) { // nobody can be called so
		t.Error(err)
	}
	close(release)
	group.Wait()
}

func TestAnswersThatAreNone(t *testing.T) {
	each(t, func(t *testing.T, d database) {
		for query, says := range map[string]string{
			"SELECT name AS user, secret AS password FROM users WHERE name = {user} OR name = 'md5'": "more than one row",
			"SELECT name AS user FROM users WHERE name = {user}":                                     "no column password",
			"SELECT name, secret AS password FROM users WHERE name = {user}":                         `column "name"`,
			"SELECT secret AS password, home AS password FROM users WHERE name = {user}":             "password",
			"SELECT nothing AS password FROM users WHERE name = {user}":                              "nothing",
			"SELECT secret AS password FROM no_table WHERE name = {user}":                            "no_table",
			"DELETE FROM users WHERE name = {user}":                                                  "",
		} {
			b := open(t, Config{Driver: d.kind, DSN: d.dsn, UserQuery: query})
			_, err := login(t, b, "bob", "tanstaaf")
			faults(t, err)
			if !strings.Contains(err.Error(), says) {
				t.Errorf("%s: %v", query, err)
			}
		}
		b := open(t, Config{Driver: d.kind, DSN: d.dsn, RecipientQuery: "SELECT name AS user FROM users WHERE name = {local} AND {domain} = 'example.org'"})
		if id, err := b.Recipient(t.Context(), "Bob@EXAMPLE.org"); err != nil || id.User != "bob" {
			t.Errorf("%+v, %v", id, err)
		}
		if _, err := b.Recipient(t.Context(), "bob@example.net"); !errors.Is(err, auth.ErrUnknownUser) {
			t.Error(err)
		}
		works(t, b)
	})
}

func TestDefaultSchemeAndCase(t *testing.T) {
	each(t, func(t *testing.T, d database) {
		query := "SELECT name AS user, SUBSTR(secret, 8) AS password FROM users WHERE name = {user}"
		b := open(t, Config{Driver: d.kind, DSN: d.dsn, UserQuery: query, DefaultScheme: "plain", KeepCase: true})
		works(t, b)
		if _, err := login(t, b, "Bob", "tanstaaf"); d.kind != MySQL && !errors.Is(err, auth.ErrUnknownUser) {
			t.Errorf("Bob is bob: %v", err)
		}
		strict := open(t, Config{Driver: d.kind, DSN: d.dsn})
		_, err := login(t, strict, "md5", "tanstaaf")
		faults(t, err)
	})
}

func TestSQLiteFiles(t *testing.T) {
	d := sqliteFile(t, users)
	b := open(t, Config{Driver: SQLite, DSN: d.dsn, Timeout: 300 * time.Millisecond})
	works(t, b)
	// Another file in its place is seen at once.
	other := sqliteFile(t, strings.ReplaceAll(users, "'bob'", "'rob'"))
	must(t, os.Rename(other.dsn, d.dsn))
	unknownTo(t, b, "bob")
	must(t, os.Remove(d.dsn))
	_, err := login(t, b, "bob", "tanstaaf")
	faults(t, err)
	if _, err := os.Stat(d.dsn); err == nil {
		t.Error("a file was made")
	}
	must(t, os.WriteFile(d.dsn, []byte(strings.Repeat("no database", 1000)), 0o600))
	eventually(t, "it is said to be none", func() bool {
		_, err := login(t, b, "bob", "tanstaaf")
		faults(t, err)
		return strings.Contains(err.Error(), "not a database")
	})
	must(t, os.Remove(d.dsn))
	d.exec(t, users)
	eventually(t, "it works again", func() bool { _, err := login(t, b, "bob", "tanstaaf"); return err == nil })

	d.exec(t, "PRAGMA journal_mode = WAL")
	works(t, b)

	// Whoever writes keeps us waiting, and for no longer than we want.
	db, err := sql.Open("sqlite", d.dsn)
	must(t, err)
	defer db.Close()
	db.SetMaxOpenConns(1)
	_, err = db.Exec("PRAGMA journal_mode = DELETE; PRAGMA locking_mode = EXCLUSIVE; BEGIN EXCLUSIVE")
	must(t, err)
	inTime(t, b, 300*time.Millisecond)
	_, err = db.Exec("ROLLBACK; PRAGMA locking_mode = NORMAL; SELECT * FROM users")
	must(t, err)
	db.Close()
	eventually(t, "it works again", func() bool { _, err := login(t, b, "bob", "tanstaaf"); return err == nil })

	// A query that takes for ever, before its first row and after it.
	const endless = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT 'x' AS password FROM n WHERE i = 1 AND 'bob' = {user}"
	inTime(t, open(t, Config{Driver: SQLite, DSN: d.dsn, Timeout: 300 * time.Millisecond, UserQuery: endless}), 300*time.Millisecond)
	inTime(t, open(t, Config{Driver: SQLite, DSN: d.dsn, Timeout: 300 * time.Millisecond, UserQuery: strings.ReplaceAll(endless, "i = 1", "i < 1")}), 300*time.Millisecond)
	// A text in double quotes is no text.
	_, err = login(t, open(t, Config{Driver: SQLite, DSN: d.dsn, UserQuery: `SELECT "typo" AS password FROM users WHERE name = {user}`}), "bob", "typo")
	faults(t, err)
}

// inTime says that a login fails by its timeout, and not much later.
func inTime(t *testing.T, b *Backend, timeout time.Duration) {
	t.Helper()
	start := time.Now()
	_, err := login(t, b, "bob", "tanstaaf")
	faults(t, err)
	if took := time.Since(start); took > timeout+2*time.Second {
		t.Fatalf("%v, where %v are the limit: %v", took, timeout, err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), timeout/10)
	defer cancel()
	start = time.Now()
	_, err = b.Recipient(ctx, "bob")
	faults(t, err)
	if took := time.Since(start); took > timeout/10+2*time.Second {
		t.Fatalf("%v, where the context ends after %v: %v", took, timeout/10, err)
	}
}
