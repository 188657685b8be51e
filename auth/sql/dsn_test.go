package sqlauth

import (
	"crypto/tls"
	"fmt"
	"strings"
	"testing"
	"time"
)

func TestBadConfigurationsAreToldAllAtOnce(t *testing.T) {
	_, err := New(Config{Driver: "oracle", Connections: -1, Timeout: -time.Second, DefaultScheme: "ROT13"})
	if err == nil || strings.Count(err.Error(), "\n") != 3 {
		t.Error(err)
	}
	_, err = New(Config{Driver: Postgres, DSN: "postgres://dewey:S3cret@[", UserQuery: "SELECT", RecipientQuery: "SELECT '{user}'", CA: []byte("no PEM")})
	if err == nil || strings.Count(err.Error(), "\n") != 2 {
		t.Error(err)
	}
}

// No error holds what the DSN has in it, however it is mistyped.
func TestBadDSNs(t *testing.T) {
	for _, c := range []struct{ driver, dsn, says string }{
		{Postgres, "", "can't be read"},
		{Postgres, "dewey:S3cret@db.example.org/mail", "can't be read"},
		{Postgres, "postgres://dewey:S3cret@db.example.org:S3cret/mail", "can't be read"},
		{Postgres, "postgres://dewey:S3cret/x@db.example.org:port/mail?sslmode=S3cret", "can't be read"},
		{Postgres, "host=db.example.org password=S3cret sslmode=perhaps", "can't be read"},
		{Postgres, "host=db.example.org password='S3cret", "can't be read"},
		{Postgres, "postgres://dewey:S3cret@db.example.org/mail?sslrootcert=/no/such/file", "/no/such/file"},
		{Postgres, "postgres://dewey:S3cret@db.example.org/mail?default_query_exec_mode=simple_protocol", "leave it out"},
		{MySQL, "", "can't be read"},
		{MySQL, "dewey:S3cret@db.example.org/mail", "tcp("},
		{MySQL, "dewey:S3cret/mail", "would be right"},
		{MySQL, "dewey:S3cret@tcp(db.example.org/mail", "can't be read"},
		{MySQL, "dewey:S3cret@tcp(db.example.org)/mail?strict=true", "can't be read"},
		{MySQL, "dewey:S3cret@tcp(db.example.org)/mail?readTimeout=S3cret", "can't be read"},
		{MySQL, "mysql://dewey:S3cret@db.example.org/mail", "would be right"},
		{MySQL, "dewey:S3cret@tcp(db.example.org)/mail?multiStatements=true", "multiStatements"},
		{MySQL, "dewey:S3cret@tcp(db.example.org)/mail?interpolateParams=true", "interpolateParams"},
		{MySQL, "dewey:S3cret@tcp(db.example.org)/mail?allowAllFiles=true", "allowAllFiles"},
		{MySQL, "dewey:S3cret@tcp(db.example.org)/mail?allowCleartextPasswords=1", "allowCleartextPasswords"},
		{MySQL, "dewey:S3cret@tcp(db.example.org)/mail?allowOldPasswords=true", "allowOldPasswords"},
		{SQLite, "", "absolute path"},
		{SQLite, "users.sqlite", "absolute path"},
		{SQLite, ":memory:", "absolute path"},
		{SQLite, "/var/lib/users.sqlite?mode=rwc", "parameters"},
		{SQLite, "file:///", "absolute path"},
	} {
		_, err := New(Config{Driver: c.driver, DSN: c.dsn, UserQuery: userQuery})
		if err == nil || !strings.Contains(err.Error(), c.says) || strings.Contains(err.Error(), "S3cret") {
			t.Errorf("%s %q: %v", c.driver, c.dsn, err)
		}
	}
}

// To another host no password goes in the clear, nor to whoever answers there.
func TestTLSWithServersElsewhere(t *testing.T) {
	const verified, unverified, plain = "verified", "unverified", "plain"
	of := func(c *tls.Config, host string) string {
		switch {
		case c == nil:
			return plain
		case !c.InsecureSkipVerify && c.ServerName == host && c.MinVersion >= tls.VersionTLS12:
			return verified
		}
		return unverified
	}
	for host, want := range map[string]map[string]string{
		"db.example.org": {"": verified, "prefer": verified, "allow": verified, "require": verified, "verify-ca": verified, "verify-full": verified, "disable": plain},
		"192.0.2.1":      {"": verified, "prefer": verified, "disable": plain},
		"127.0.0.1":      {"": unverified, "verify-full": verified, "disable": plain},
	} {
		for mode, is := range want {
			dsn := fmt.Sprintf("postgres://dewey:S3cret@%s/mail", host)
			if mode != "" {
				dsn += "?sslmode=" + mode
			}
			b, err := New(Config{Driver: Postgres, DSN: dsn, UserQuery: userQuery})
			must(t, err)
			config := b.link.Connector.(pgLink).config
			if mode == "verify-full" && host == "127.0.0.1" { // pgx's own, with Go's least version
				config.TLSConfig.MinVersion = tls.VersionTLS12
			}
			if got := of(config.TLSConfig, host); got != is {
				t.Errorf("%s: %s", dsn, got)
			}
			if is == verified && len(config.Fallbacks) > 0 {
				t.Errorf("%s: falls back to %v", dsn, config.Fallbacks[0])
			}
			if is == plain && host != "127.0.0.1" && config.RequireAuth != "!password" {
				t.Errorf("%s: the server may ask for the password itself", dsn)
			}
		}
	}
	s := mariaServer.start(t)
	for dsn, tls := range map[string]bool{
		"dewey@tcp(db.example.org)/mail": true, "dewey@tcp(db.example.org:3306)/mail?tls=preferred": true, "dewey@tcp(192.0.2.1:3306)/mail?tls=skip-verify": true,
		"dewey@tcp(db.example.org)/mail?tls=false": false, "dewey@tcp(127.0.0.1)/mail": false, "dewey@unix(/run/mysqld/mysqld.sock)/mail": false, "dewey@tcp(localhost:3306)/mail": false,
	} {
		config, err := parseMySQL(dsn)
		must(t, err)
		must(t, mysqlTLS(config, nil))
		host := config.Addr[:strings.LastIndexByte(config.Addr, ':')+1]
		if got := of(config.TLS, strings.TrimSuffix(host, ":")); (got == verified) != tls || !tls && got != plain || config.AllowFallbackToPlaintext {
			t.Errorf("%s: %s", dsn, got)
		}
	}
	if _, err := New(Config{Driver: MySQL, DSN: s.dsn() + "?tls=false", CA: s.ca, UserQuery: userQuery}); err == nil {
		t.Error("a CA, and no TLS")
	}
}

func TestTLSIsVerified(t *testing.T) {
	stranger, _, _ := certificates(t)
	servers(t, func(t *testing.T, s *server) {
		works(t, open(t, Config{Driver: s.kind, DSN: s.dsn(), CA: s.ca}))
		for what, c := range map[string]Config{
			"another authority": {DSN: s.dsn(), CA: stranger},
			"another name":      {DSN: strings.Replace(s.dsn(), "127.0.0.1", "localhost", 1), CA: s.ca},
		} {
			c.Driver = s.kind
			_, err := login(t, open(t, c), "bob", "tanstaaf")
			faults(t, err)
			if !strings.Contains(err.Error(), "certificate") {
				t.Errorf("%s: %v", what, err)
			}
		}
		// It is TLS that was used, and not something else that worked.
		s.exec(t, map[string]string{Postgres: "SELECT 1", MySQL: "ALTER USER tester REQUIRE SSL"}[s.kind])
		works(t, open(t, Config{Driver: s.kind, DSN: s.dsn(), CA: s.ca}))
		s.exec(t, map[string]string{Postgres: "SELECT 1", MySQL: "ALTER USER tester REQUIRE NONE"}[s.kind])
	})
	s := postgresServer
	works(t, open(t, Config{Driver: Postgres, DSN: s.dsn() + "?sslmode=verify-full&sslrootcert=" + s.folder + "/ca.pem"}))
	encrypted := "SELECT secret AS password, name AS user FROM users, pg_stat_ssl WHERE pid = pg_backend_pid() AND ssl AND name = {user}"
	works(t, open(t, Config{Driver: Postgres, DSN: s.dsn(), CA: s.ca, UserQuery: encrypted}))
}
