package sqlauth

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/pelletier/go-toml/v2"

	"dewey/auth"
)

// A section is one of docs/SQL.md with its SQL and its configuration.
type section struct {
	sql  string
	auth struct {
		Kind, Driver, DSN, UserQuery, RecipientQuery string
		WeakSchemes                                  bool
	}
}

func sections(t *testing.T) map[string]section {
	t.Helper()
	page, err := os.ReadFile("../../docs/SQL.md")
	must(t, err)
	found := make(map[string]section)
	for _, part := range strings.Split(string(page), "\n## ")[1:] {
		title, _, _ := strings.Cut(part, "\n")
		block := func(kind string) string {
			all := regexp.MustCompile("(?s)\n```"+kind+"\n(.*?\n)```\n").FindAllStringSubmatch(part, -1)
			if len(all) == 0 {
				return ""
			}
			return all[0][1]
		}
		config := block("toml")
		if config == "" {
			continue
		}
		var file struct {
			Auth []struct {
				Kind           string `toml:"kind"`
				Driver         string `toml:"driver"`
				DSN            string `toml:"dsn"`
				UserQuery      string `toml:"user_query"`
				RecipientQuery string `toml:"recipient_query"`
				WeakSchemes    bool   `toml:"weak_schemes"`
			}
		}
		must(t, toml.Unmarshal([]byte(config), &file))
		s := section{sql: block("sql")}
		s.auth = struct {
			Kind, Driver, DSN, UserQuery, RecipientQuery string
			WeakSchemes                                  bool
		}(file.Auth[0])
		found[title] = s
	}
	return found
}

// prepare runs a section's SQL in a database of that name, and returns the section's configuration with our port and socket.
func prepare(t *testing.T, s section, database, before string) Config {
	t.Helper()
	dsn := s.auth.DSN
	switch s.auth.Driver {
	case Postgres:
		srv := postgresServer.start(t)
		srv.exec(t, "DROP DATABASE IF EXISTS mail")
		srv.exec(t, "DROP DATABASE IF EXISTS postfix")
		srv.exec(t, "DROP ROLE IF EXISTS dewey")
		srv.exec(t, "CREATE DATABASE "+database+";\n\\c "+database+"\n"+before+s.sql)
		dsn = strings.Replace(dsn, "5432", fmt.Sprint(srv.port), 1)
	case MySQL:
		srv := mariaServer.start(t)
		srv.exec(t, "DROP DATABASE IF EXISTS "+database+"; DROP USER IF EXISTS dewey@localhost")
		if before != "" {
			srv.exec(t, "CREATE DATABASE "+database+"; USE "+database+";\n"+before)
		}
		srv.exec(t, s.sql)
		dsn = strings.Replace(dsn, "/run/mysqld", srv.folder, 1)
	default:
		dsn = sqliteFile(t, s.sql).dsn
	}
	return Config{Driver: s.auth.Driver, DSN: dsn, UserQuery: s.auth.UserQuery, RecipientQuery: s.auth.RecipientQuery, Weak: s.auth.WeakSchemes}
}

func TestPageWithTablesOfItsOwn(t *testing.T) {
	all := sections(t)
	for _, title := range []string{"PostgreSQL", "MariaDB or MySQL", "SQLite"} {
		t.Run(title, func(t *testing.T) {
			b := open(t, prepare(t, all[title], "mail", ""))
			for _, name := range []string{"bob@example.org", "Bob@Example.org"} {
				id, err := login(t, b, name, "tanstaaf")
				if err != nil || id.User != "bob@example.org" || id.Quota != (auth.Quota{Octets: 2 << 30}) {
					t.Errorf("%s: %+v, %v", name, id, err)
				}
			}
			unknownTo(t, b, "rob@example.org")
			if id, err := b.Recipient(t.Context(), "bob@example.org"); err != nil || id.User != "bob@example.org" {
				t.Errorf("%+v, %v", id, err)
			}
		})
	}
}

func TestPageWithPostfixadmin(t *testing.T) {
	all := sections(t)
	for title, kind := range map[string]string{"postfixadmin on PostgreSQL": Postgres, "postfixadmin on MariaDB or MySQL": MySQL} {
		t.Run(kind, func(t *testing.T) {
			var tables string
			for _, name := range []string{kind, "rows"} {
				text, err := os.ReadFile(filepath.Join("testdata", "postfixadmin."+name+".sql"))
				must(t, err)
				tables += string(text)
			}
			c := prepare(t, all[title], "postfix", tables)
			b := open(t, c)
			for name, quota := range map[string]int64{"sha512": 1024000000, "crypt": -1, "bcrypt": -1, "blf": -1, "md5": -1} {
				name += "@example.org"
				id, err := login(t, b, name, "tanstaaf")
				if err != nil || id.User != name || id.Quota.Octets != quota || id.Home != "" {
					t.Errorf("%s: %+v, %v", name, id, err)
				}
				if _, err := login(t, b, name, "other"); !errors.Is(err, auth.ErrRejected) || errors.Is(err, auth.ErrUnknownUser) {
					t.Errorf("%s: %v", name, err)
				}
				if id, err := b.Recipient(t.Context(), name); err != nil || id.User != name || id.Quota.Octets != quota {
					t.Errorf("mail for %s: %+v, %v", name, id, err)
				}
			}
			for _, name := range []string{"off@example.org", "bob@closed.example"} {
				if _, err := login(t, b, name, "tanstaaf"); !errors.Is(err, auth.ErrRejected) || errors.Is(err, auth.ErrUnknownUser) {
					t.Errorf("%s: %v", name, err)
				}
				if _, err := b.Find(t.Context(), name, netip.Addr{}); !errors.Is(err, auth.ErrRejected) {
					t.Errorf("%s: %v", name, err)
				}
				if _, err := b.Recipient(t.Context(), name); !errors.Is(err, auth.ErrUnknownUser) {
					t.Errorf("mail for %s: %v", name, err)
				}
			}
			unknownTo(t, b, "info@example.org") // an alias

			strict := c
			strict.Weak = false
			_, err := login(t, open(t, strict), "md5@example.org", "tanstaaf")
			faults(t, err)

			// The role may read what the queries need, and do nothing else.
			for _, query := range []string{"UPDATE mailbox SET quota = 1 WHERE username = {user}", "SELECT goto AS password FROM alias WHERE address = {user}"} {
				nosy := c
				nosy.UserQuery = query
				_, err := login(t, open(t, nosy), "md5@example.org", "tanstaaf")
				faults(t, err)
				if !strings.Contains(err.Error(), "denied") {
					t.Error(err)
				}
			}
			home := c
			concat := "'/var/vmail/' || m.maildir AS home, "
			if kind == MySQL {
				concat = "CONCAT('/var/vmail/', m.maildir) AS home, "
			}
			home.UserQuery = strings.Replace(c.UserQuery, "SELECT ", "SELECT "+concat, 1)
			if id, err := login(t, open(t, home), "bcrypt@example.org", "tanstaaf"); err != nil || id.Home != "/var/vmail/example.org/bcrypt" {
				t.Errorf("%+v, %v", id, err)
			}
		})
	}
}
