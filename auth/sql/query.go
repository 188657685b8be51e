package sqlauth

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// A query is one whose placeholders have become the driver's parameters.
type query struct {
	text string
	args []string // the placeholder of each parameter
}

// whole says whether all of a name is asked for: else many names are one user.
func (q query) whole() bool {
	has := func(placeholder string) bool { return slices.Contains(q.args, placeholder) }
	return has("{user}") || has("{local}") && has("{domain}")
}

// bind returns the values of the parameters.
func (q query) bind(name string) []any {
	local, domain := name, ""
	if at := strings.LastIndexByte(name, '@'); at >= 0 {
		local, domain = name[:at], name[at+1:]
	}
	values := map[string]any{"{user}": name, "{local}": local, "{domain}": domain}
	args := make([]any, len(q.args))
	for i, placeholder := range q.args {
		args[i] = values[placeholder]
	}
	return args
}

// A dialect is what one has to know of a database's language to tell its quotes and comments from the rest.
type dialect struct {
	numbered  bool   // parameters are $1, $2, …; else ?
	quotes    string // what begins a text or a name, and ends it: of [ it is ]
	backslash bool   // in a text it takes the next octet as it is
	dollar    bool   // $tag$ begins a text, E'…' has backslashes, comments have comments in them
	hash      bool   // # begins a comment
	spaced    bool   // -- begins a comment only before a blank
	foreign   string // what begins a parameter of the database's own
	within    string // what has the database find all rows before it gives the first
}

var dialects = map[string]dialect{
	Postgres: {numbered: true, quotes: `'"`, dollar: true, foreign: "$"},
	MySQL:    {quotes: "'\"`", backslash: true, hash: true, spaced: true, foreign: "?"},
	// modernc.org/sqlite can be interrupted up to the first row alone.
	SQLite: {quotes: "'\"`[", foreign: "?:@$", within: "WITH found AS MATERIALIZED (\n%s\n) SELECT * FROM found LIMIT 2"},
}

const braces = "{user}, {local} and {domain}"

var (
	placeholders = regexp.MustCompile(`\{(?:user|local|domain)\}`)
	wild         = regexp.MustCompile(`(?i)\b(?:I?LIKE|RLIKE|REGEXP|GLOB|SIMILAR\s+TO)\s*$`)
	tag          = regexp.MustCompile(`^\$(?:[A-Za-z_\x80-\xff][\w\x80-\xff]*)?\$`)

	errMissing = errors.New("is missing; SELECT name AS user, secret AS password FROM users WHERE name = {user} would be right")
)

// compile makes parameters of the placeholders. Comments stay as they are, and so do texts and quoted names that hold none.
func (d dialect) compile(text string) (query, error) {
	if strings.TrimSpace(text) == "" {
		return query{}, errMissing
	}
	if strings.IndexByte(text, 0) >= 0 {
		return query{}, errors.New("holds a NUL; a text would be right")
	}
	var q query
	var out strings.Builder
	end := -1 // where a semicolon ended the statement
	named := false
	for i := 0; i < len(text); {
		n, quoted, err := d.skip(text, i)
		if err != nil {
			return query{}, err
		}
		token := text[i : i+max(n, 1)]
		if found := placeholders.FindString(token); quoted && found != "" {
			return query{}, fmt.Errorf("has %s inside quotes; it becomes a parameter: without the quotes it would be right", found)
		}
		if end >= 0 && (n == 0 || quoted) && strings.Trim(token, " \t\r\n\f;") != "" {
			return query{}, errors.New("has something behind a semicolon; one statement would be right")
		}
		switch c := text[i]; {
		case n > 0:
			if end < 0 {
				out.WriteString(token)
			}
		case c == ';':
			end = i
		case end >= 0:
		case c == '{':
			token = placeholders.FindString(text[i:min(len(text), i+len("{domain}"))])
			if token == "" || !strings.HasPrefix(text[i:], token) {
				return query{}, fmt.Errorf("has a brace at octet %d that begins no placeholder; those are %s", i+1, braces)
			}
			if wild.MatchString(out.String()) {
				return query{}, fmt.Errorf("compares %s as a pattern, in which a client's %% would stand for every name; = would be right", token)
			}
			q.args = append(q.args, token)
			named = named || token != "{domain}"
			if d.numbered { // each by its own: one used twice might be of two types
				out.WriteString("$" + strconv.Itoa(len(q.args)))
			} else {
				out.WriteByte('?')
			}
		case strings.IndexByte(d.foreign, c) >= 0 && d.parameter(text, i):
			return query{}, fmt.Errorf("has a parameter %c of its own; one of %s would be right", c, braces)
		default:
			out.WriteByte(c)
		}
		i += len(token)
	}
	if !named {
		return query{}, errors.New("asks for nobody: neither {user} nor {local} is in it (Dovecot's %u is {user}, %n is {local}, %d is {domain}, without quotes)")
	}
	q.text = out.String()
	if d.within != "" {
		q.text = fmt.Sprintf(d.within, q.text)
	}
	return q, nil
}

// parameter says whether one of the database's own kind is at i; :: is a cast, and := and @> are operators.
func (d dialect) parameter(text string, i int) bool {
	next := byte(' ')
	if i+1 < len(text) {
		next = text[i+1]
	}
	if i > 0 && (word(text[i-1]) || text[i-1] == text[i]) {
		return false
	}
	switch {
	case text[i] == '?':
		return true
	case d.numbered:
		return '0' <= next && next <= '9'
	}
	return word(next)
}

func word(c byte) bool {
	return c == '_' || c >= 0x80 || '0' <= c && c <= '9' || 'A' <= c && c <= 'Z' || 'a' <= c && c <= 'z'
}

// skip returns how long the comment, text or quoted name is that begins at i; 0 if none does.
func (d dialect) skip(text string, i int) (n int, quoted bool, err error) {
	rest := text[i:]
	switch c := rest[0]; {
	case strings.HasPrefix(rest, "--") && (!d.spaced || len(rest) == 2 || rest[2] <= ' '), c == '#' && d.hash:
		if n = strings.IndexByte(rest, '\n'); n < 0 {
			n = len(rest)
		}
		return n, false, nil
	case strings.HasPrefix(rest, "/*"):
		n, err = d.comment(rest)
		return n, false, err
	case c == '$' && d.dollar && (i == 0 || !word(text[i-1])):
		mark := tag.FindString(rest)
		if mark == "" {
			return 0, false, nil
		}
		n = strings.Index(rest[len(mark):], mark)
		if n < 0 {
			return 0, false, fmt.Errorf("has a %s that does not end; another %s would be right", mark, mark)
		}
		return n + 2*len(mark), true, nil
	case strings.IndexByte(d.quotes, c) >= 0:
		escapes := d.backslash && c != '`' || d.dollar && c == '\'' && i > 0 && (text[i-1] == 'E' || text[i-1] == 'e') && (i < 2 || !word(text[i-2]))
		n, err = literal(rest, escapes)
		return n, true, err
	}
	return 0, false, nil
}

func (d dialect) comment(rest string) (int, error) {
	depth := 0
	for i := 0; i+1 < len(rest); i++ {
		switch {
		case rest[i:i+2] == "/*" && (depth == 0 || d.dollar):
			depth++
			i++
		case rest[i:i+2] == "*/":
			if depth--; depth == 0 {
				return i + 2, nil
			}
			i++
		}
	}
	return 0, errors.New("has a comment that does not end; */ would be right")
}

// literal returns where a text or quoted name ends. A quote that is doubled begins another one at once, which comes to the same.
func literal(rest string, escapes bool) (int, error) {
	last := rest[0]
	if last == '[' {
		last = ']'
	}
	for i := 1; i < len(rest); i++ {
		switch {
		case rest[i] == '\\' && escapes:
			i++
		case rest[i] == last:
			return i + 1, nil
		}
	}
	return 0, fmt.Errorf("has a %c that does not end; another %c would be right", rest[0], last)
}
