package config

import (
	"bytes"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"sort"
	"strings"

	"github.com/pelletier/go-toml/v2"
	"github.com/pelletier/go-toml/v2/unstable"
)

// A tomlReader goes through a file's expressions one by one, so that every value has its line, and
// goes on after an error, so that all errors are found.
type tomlReader struct {
	config   *Config
	name     string
	data     []byte
	lines    []int // where each line begins
	base     int   // where in data the parser was started
	parser   unstable.Parser
	table    []string       // the table that the last header named
	ignored  bool           // that table is unknown, and was reported
	first    map[string]int // line of each key and table header seen
	backend  *authReader    // the [[auth]] table that is being read
	broken   bool           // a syntax error was found
	problems Problems
}

// readTOML applies a file to the configuration and returns all that is wrong with it.
func (c *Config) readTOML(name string, data []byte) Problems {
	data = slices.Clip(bytes.TrimPrefix(data, []byte("\xef\xbb\xbf"))) // the parser needs len == cap to place an error at the end
	r := &tomlReader{config: c, name: name, data: data, lines: []int{0}, first: map[string]int{}}
	for i, b := range data {
		if b == '\n' {
			r.lines = append(r.lines, i+1)
		}
	}
	r.parser.Reset(data)
	for {
		for r.parser.NextExpression() {
			r.expression(r.parser.Expression())
		}
		if r.parser.Error() == nil || !r.resume(r.parser.Error()) {
			break
		}
	}
	r.endAuth()
	if !r.broken {
		r.document()
	}
	byLine(r.problems)
	return r.problems
}

// maxProblems bounds what a file that is no configuration at all can say.
const maxProblems = 100

// begins matches a line with which an expression seems to begin, so that reading can go on there.
var begins = regexp.MustCompile(`(?m)^[ \t]*(\[{1,2}[ \t]*[A-Za-z]|[A-Za-z0-9_.-]+[ \t]*[="'])`)

// resume reports a syntax error and sets the parser on the next line with which an expression seems
// to begin. It returns false if there is none.
func (r *tomlReader) resume(err error) bool {
	r.broken = true
	at, message := r.base, err.Error()
	var pe *unstable.ParserError
	if errors.As(err, &pe) {
		at = r.base + int(r.parser.Range(pe.Highlight).Offset)
	}
	line := r.lineAt(at)
	r.report(line, "", fault{wrong: "not valid TOML: " + printable(message), right: syntaxHint(message)})
	if bytes.HasPrefix(bytes.TrimLeft(r.data[r.lines[line-1]:], " \t"), []byte("[")) {
		r.endAuth()
		r.ignored = true // it is not known which table the keys that follow are in
	}
	if line >= len(r.lines) || len(r.problems) >= maxProblems {
		return false
	}
	next := r.lines[line] // lines count from 1: this is the one after
	found := begins.FindIndex(r.data[next:])
	if found == nil {
		return false
	}
	r.base = next + found[0]
	r.parser.Reset(r.data[r.base:])
	return true
}

// syntaxHint says what would be right where the parser found something else.
func syntaxHint(message string) string {
	switch {
	case strings.Contains(message, "start of value"), strings.Contains(message, "must be quoted"), strings.Contains(message, "keyword"):
		return `write strings in double quotes, as in key = "value"`
	case strings.Contains(message, "'=' after key"):
		return "write key = value"
	case strings.Contains(message, "array"):
		return `write a list as ["one", "two"]`
	case strings.Contains(message, "close"):
		return "write [table]"
	}
	return `write one key = "value" a line, tables as [table]`
}

// lineAt returns the line, from 1, of an offset in the file.
func (r *tomlReader) lineAt(offset int) int {
	return sort.Search(len(r.lines), func(i int) bool { return r.lines[i] > offset })
}

func (r *tomlReader) lineOf(n *unstable.Node) int { return r.lineAt(r.base + int(n.Raw.Offset)) }

func (r *tomlReader) report(line int, key string, f fault) {
	if f.line > 0 {
		line = f.line
	}
	if len(r.problems) < maxProblems {
		r.problems = append(r.problems, Problem{
			Source: Source{File: r.name, Line: line}, Key: key, Wrong: f.wrong, Right: f.right,
		})
	}
}

func (r *tomlReader) expression(n *unstable.Node) {
	switch n.Kind {
	case unstable.Table, unstable.ArrayTable:
		r.header(n)
	case unstable.KeyValue:
		if r.backend != nil {
			r.authValue(n)
		} else if !r.ignored {
			r.keyValue(r.table, n)
		}
	}
}

// header reads [table].
func (r *tomlReader) header(n *unstable.Node) {
	path, line := r.path(n.Key())
	name := joinKey(path)
	r.table, r.ignored = path, true
	r.endAuth()
	if name == authTable {
		r.beginAuth(n.Kind == unstable.ArrayTable, line)
		return
	}
	if !slices.Contains(tables(), name) {
		f := unknownTable(name)
		if _, isKey := keyNamed(name); isKey {
			f = fault{wrong: "is a key, not a table", right: "write " + path[len(path)-1] + " = …" + inTable(path[:len(path)-1])}
		}
		r.report(line, "["+name+"]", f)
		return
	}
	r.ignored = false
	if n.Kind == unstable.ArrayTable {
		r.report(line, "[["+name+"]]", fault{wrong: "there is one table of that name, not a list of them", right: "write [" + name + "]"})
		return
	}
	r.once(line, "["+name+"]")
}

func inTable(path []string) string {
	if len(path) == 0 {
		return " above the first table"
	}
	return " below [" + joinKey(path) + "]"
}

// once reports a key or a table that was there before, and returns false then.
func (r *tomlReader) once(line int, name string) bool {
	if before, twice := r.first[name]; twice {
		r.report(line, name, fault{wrong: fmt.Sprintf("is there twice: first in line %d", before), right: "write it once"})
		return false
	}
	r.first[name] = line
	return true
}

// path returns the parts of a key, and its line.
func (r *tomlReader) path(it unstable.Iterator) (path []string, line int) {
	for it.Next() {
		if line == 0 {
			line = r.lineOf(it.Node())
		}
		path = append(path, string(it.Node().Data))
	}
	return path, line
}

// keyValue reads key = value inside a table. An inline table is one more way to write a table.
func (r *tomlReader) keyValue(table []string, n *unstable.Node) {
	below, line := r.path(n.Key())
	path := append(slices.Clone(table), below...)
	name, value := joinKey(path), n.Value()
	k, known := keyNamed(name)
	switch {
	case known && r.once(line, name):
		source := Source{File: r.name, Line: line}
		for _, f := range k.apply(r.config, r.value(value, line)) {
			r.report(line, name, f)
		}
		r.config.sources[name] = source
	case known:
	case value.Kind == unstable.InlineTable && slices.Contains(tables(), name):
		for it := value.Children(); it.Next(); {
			r.keyValue(path, it.Node())
		}
	default:
		r.report(line, name, unknownKey(path))
	}
}

// value turns a node into a raw value. Lists and tables have no place of their own: they get line.
func (r *tomlReader) value(n *unstable.Node, line int) raw {
	v := raw{what: aDate, text: string(n.Data), line: line}
	switch n.Kind {
	case unstable.Array:
		v.what = aList
		for it := n.Children(); it.Next(); {
			v.list = append(v.list, r.value(it.Node(), line))
		}
		return v
	case unstable.InlineTable:
		v.what = aTable
		return v
	case unstable.String:
		v.what = aString
	case unstable.Integer:
		v.what = aNumber
	case unstable.Float:
		v.what = aFloat
	case unstable.Bool:
		v.what = aBoolean
	}
	v.line = r.lineOf(n)
	return v
}

// document lets the library read the file as a whole: it knows rules that no single expression shows.
func (r *tomlReader) document() {
	var whole map[string]any
	var de *toml.DecodeError
	if !errors.As(toml.Unmarshal(r.data, &whole), &de) {
		return
	}
	line, _ := de.Position()
	if slices.ContainsFunc(r.problems, func(p Problem) bool { return p.Source.Line == line }) {
		return // it says the same
	}
	r.report(line, "", fault{wrong: "not valid TOML: " + printable(strings.TrimPrefix(de.Error(), "toml: ")), right: syntaxHint(de.Error())})
}

// parseValue reads a TOML value by itself.
func parseValue(s string) (raw, bool) {
	r := &tomlReader{data: slices.Clip([]byte("value = " + s)), lines: []int{0}}
	r.parser.Reset(r.data)
	if !r.parser.NextExpression() || r.parser.Expression().Kind != unstable.KeyValue {
		return raw{}, false
	}
	v := r.value(r.parser.Expression().Value(), 0)
	if r.parser.NextExpression() || r.parser.Error() != nil {
		return raw{}, false
	}
	return v, true
}
