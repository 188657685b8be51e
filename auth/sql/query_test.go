package sqlauth

import (
	"slices"
	"strings"
	"testing"
)

func TestPlaceholdersBecomeParameters(t *testing.T) {
	for _, c := range []struct{ driver, query, text, args string }{
		{Postgres, "SELECT a FROM t WHERE n = {user}", "SELECT a FROM t WHERE n = $1", "{user}"},
		{MySQL, "SELECT a FROM t WHERE n={user};", "SELECT a FROM t WHERE n=?", "{user}"},
		{Postgres, "SELECT {user} WHERE l={local} AND d={domain} OR n={user}", "SELECT $1 WHERE l=$2 AND d=$3 OR n=$4", "{user}{local}{domain}{user}"},
		{Postgres, "SELECT a, '{CRYPT}' || b, '{\"a\": 1}' FROM t WHERE n::text={user}", "SELECT a, '{CRYPT}' || b, '{\"a\": 1}' FROM t WHERE n::text=$1", "{user}"},
		{Postgres, "SELECT a -- {user} '\n, b /* '{user} /* ; */ \" */ FROM t WHERE n={user} ; -- end", "SELECT a -- {user} '\n, b /* '{user} /* ; */ \" */ FROM t WHERE n=$1 ", "{user}"},
		{Postgres, `SELECT E'it\'s; {', $x$ {CRYPT}' $x$, a$1 FROM t WHERE n={user}`, `SELECT E'it\'s; {', $x$ {CRYPT}' $x$, a$1 FROM t WHERE n=$1`, "{user}"},
		{Postgres, `SELECT '\', "x''y" FROM t WHERE n={user} AND j @> '{}' AND j ? 'a'`, `SELECT '\', "x''y" FROM t WHERE n=$1 AND j @> '{}' AND j ? 'a'`, "{user}"},
		{MySQL, `SELECT 'it\'s', "a?", 'it''s;' # {user}'` + "\n, `{`--{user}", "SELECT 'it\\'s', \"a?\", 'it''s;' # {user}'\n, `{`--?", "{user}"},
		{MySQL, "SELECT a -- {user}\nFROM t WHERE n={local} /* ? /* */", "SELECT a -- {user}\nFROM t WHERE n=? /* ? /* */", "{local}"},
		{Postgres, "SELECT a FROM t WHERE likes = {user}", "SELECT a FROM t WHERE likes = $1", "{user}"},
	} {
		q, err := dialects[c.driver].compile(c.query)
		if err != nil || q.text != c.text || strings.Join(q.args, "") != c.args {
			t.Errorf("%s: %s\n  became %s %v (%v)\n  not    %s", c.driver, c.query, q.text, q.args, err, c.text)
		}
	}
	q, err := dialects[SQLite].compile("SELECT [{], \"a\", 'b' FROM t WHERE n={user}; -- {")
	if err != nil || !strings.Contains(q.text, "\nSELECT [{], \"a\", 'b' FROM t WHERE n=?\n") {
		t.Errorf("%q, %v", q.text, err)
	}
}

func TestBadQueriesSayWhatWouldBeRight(t *testing.T) {
	for _, c := range []struct{ driver, query, says string }{
		{Postgres, " ", "is missing"},
		{Postgres, "SELECT a FROM t WHERE n = '{user}'", "without the quotes"},
		{Postgres, "SELECT a FROM t WHERE n = 'x{local}y'", "without the quotes"},
		{Postgres, "SELECT a FROM t WHERE n = $$ {domain} $$", "without the quotes"},
		{MySQL, `SELECT a FROM t WHERE n = "{user}"`, "without the quotes"},
		{MySQL, "SELECT a FROM t WHERE n = `{user}`", "without the quotes"},
		{SQLite, "SELECT a FROM t WHERE n = [{user}]", "without the quotes"},
		{Postgres, "SELECT a FROM t WHERE n = {user}; DELETE FROM t", "one statement"},
		{SQLite, "SELECT a FROM t WHERE n = {user}; 'x'", "one statement"},
		{MySQL, "SELECT a FROM t; SELECT b FROM t WHERE n = {user}", "one statement"},
		{Postgres, "SELECT a FROM t WHERE n = {name}", "no placeholder"},
		{Postgres, "SELECT a FROM t WHERE n = {User}", "no placeholder"},
		{Postgres, "SELECT a FROM t WHERE n = '%u'", "{user}"},
		{Postgres, "SELECT a FROM t WHERE d = {domain}", "neither"},
		{Postgres, "SELECT a FROM t WHERE n = {user} AND d = $1", "parameter"},
		{MySQL, "SELECT a FROM t WHERE n = {user} AND d = ?", "parameter"},
		{SQLite, "SELECT a FROM t WHERE n = {user} AND d = :domain", "parameter"},
		{Postgres, "SELECT a FROM t WHERE n LIKE {user}", "pattern"},
		{Postgres, "SELECT a FROM t WHERE n ilike\n {user}", "pattern"},
		{Postgres, "SELECT 'a FROM t WHERE n = {user}", "does not end"},
		{MySQL, `SELECT a FROM t WHERE n = {user} AND b = 'x\'`, "does not end"},
		{Postgres, "SELECT a /* FROM t WHERE n = {user}", "does not end"},
		{Postgres, "SELECT $a$ FROM t WHERE n = {user}", "does not end"},
		{Postgres, "SELECT a FROM t\x00 WHERE n = {user}", "NUL"},
	} {
		if _, err := dialects[c.driver].compile(c.query); err == nil || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %s: %v, without %q", c.driver, c.query, err, c.says)
		}
	}
}

func TestNamesAreSplitAtTheLastAt(t *testing.T) {
	q := query{args: []string{"{user}", "{local}", "{domain}"}}
	for name, want := range map[string][]any{
		"a@b@c": {"a@b@c", "a@b", "c"},
		"a":     {"a", "a", ""},
		"@":     {"@", "", ""},
	} {
		if got := q.bind(name); !slices.Equal(got, want) {
			t.Errorf("%q: %v", name, got)
		}
	}
}

func FuzzCompile(f *testing.F) {
	f.Add("SELECT a FROM t WHERE n = {user}")
	f.Add(`SELECT E'\'', $x$ $x$ -- {` + "\n/* */ {local} ; ")
	f.Fuzz(func(t *testing.T, text string) {
		for driver, d := range dialects {
			q, err := d.compile(text)
			if err == nil && (len(q.args) == 0 || len(q.text) < len(q.args)) {
				t.Errorf("%s: %q: %q %v", driver, text, q.text, q.args)
			}
		}
	})
}
