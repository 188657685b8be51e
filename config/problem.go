package config

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// A Problem is one thing that is wrong with a configuration.
type Problem struct {
	Source Source // the file and line, or --set; with Line 0 the file as a whole
	Key    string // the key's full name; empty if the problem is not of a key
	Wrong  string // what is wrong
	Right  string // what would be right; empty if there is nothing to say
}

// String returns "file:line: key: what is wrong; what would be right", or "--set key: …", in one line.
func (p Problem) String() string {
	var b strings.Builder
	switch {
	case p.Source.Set:
		b.WriteString("--set " + printable(p.Key))
	case p.Source.Line == 0:
		b.WriteString(printable(p.Source.File))
	case p.Key == "":
		b.WriteString(p.Source.String())
	default:
		b.WriteString(p.Source.String() + ": " + printable(p.Key))
	}
	b.WriteString(": " + p.Wrong)
	if p.Right != "" {
		b.WriteString("; " + p.Right)
	}
	return b.String()
}

// Problems are all that is wrong with a configuration: those of the file in the order of its lines,
// then those of --set.
type Problems []Problem

// Error returns one line a problem.
func (p Problems) Error() string {
	lines := make([]string, len(p))
	for i, q := range p {
		lines[i] = q.String()
	}
	return strings.Join(lines, "\n")
}

// byLine sorts problems of one file, leaving those of one line in the order in which they were found.
func byLine(p Problems) {
	slices.SortStableFunc(p, func(a, b Problem) int { return a.Source.Line - b.Source.Line })
}

// A fault is what is wrong with one value, before it is known where it stands.
type fault struct {
	line         int // of an element in a list that is written over several lines; 0: that of the value
	wrong, right string
}

func faultf(right, format string, args ...any) *fault {
	return &fault{wrong: fmt.Sprintf(format, args...), right: right}
}

// maxShown is the most octets of a value that an error repeats.
const maxShown = 80

// quote shows a value of the administrator's in an error: cut, and without control characters.
func quote(s string) string { return strconv.Quote(cut(s)) }

func cut(s string) string {
	if len(s) > maxShown {
		return s[:maxShown] + "…"
	}
	return s
}

// printable returns s as it is if that is fit for a line of output, else quoted.
func printable(s string) string {
	if len(s) > 4096 || !utf8.ValidString(s) || strings.ContainsFunc(s, func(r rune) bool { return !unicode.IsPrint(r) }) {
		return quote(s)
	}
	return s
}
