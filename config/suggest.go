package config

import (
	"regexp"
	"slices"
	"strings"
)

// unknownKey says what could have been meant by a key that there is not.
func unknownKey(path []string) fault {
	name := joinKey(path)
	if path[0] == authTable {
		return notOneAuth
	}
	last := path[len(path)-1]
	var names, elsewhere, here []string
	for _, k := range keys {
		names = append(names, k.name)
		table, base := k.table()
		if base == last {
			elsewhere = append(elsewhere, k.name)
		}
		if len(path) == 2 && table == path[0] || len(path) == 1 && table == "" {
			here = append(here, base)
		}
	}
	f := fault{wrong: "unknown key"}
	if slices.Contains(tables(), name) {
		return fault{wrong: "is a table, not a key", right: "write [" + name + "] and below it " + oneOf(keysBelow(name))}
	}
	if near := nearest(name, names); near != "" {
		f.right = "did you mean " + near + "?"
		return f
	}
	if len(elsewhere) > 0 {
		f.right = "did you mean " + oneOf(elsewhere) + "?"
		return f
	}
	if len(here) > 0 && len(path) == 2 {
		f.right = "[" + path[0] + "] has " + strings.Join(here, ", ")
		return f
	}
	f.right = "the top of the file has " + strings.Join(keysBelow(""), ", ") + "; the tables are " + strings.Join(tables(), ", ") + ", and [[" + authTable + "]]"
	return f
}

// joinKey writes a key's parts with dots between them. A part that is no bare key is quoted, so that
// "a.b" is not taken for a.b.
func joinKey(path []string) string {
	parts := make([]string, len(path))
	for i, p := range path {
		if parts[i] = p; !bareKey.MatchString(p) {
			parts[i] = quote(p)
		}
	}
	return strings.Join(parts, ".")
}

var bareKey = regexp.MustCompile(`^[A-Za-z0-9_-]+$`)

// unknownTable says what could have been meant by a table that there is not.
func unknownTable(name string) fault {
	if strings.HasPrefix(name, authTable+".") {
		return notOneAuth
	}
	f := fault{wrong: "unknown table", right: "the tables are " + strings.Join(tables(), ", ") + ", and [[" + authTable + "]]"}
	if near := nearest(name, tables()); near != "" {
		f.right = "did you mean [" + near + "]?"
	}
	return f
}

// tables lists the tables' names.
func tables() []string {
	var list []string
	for _, k := range keys {
		if t, _ := k.table(); t != "" && !slices.Contains(list, t) {
			list = append(list, t)
		}
	}
	return list
}

// keysBelow lists the names of a table's keys.
func keysBelow(table string) []string {
	var list []string
	for _, k := range keys {
		if t, n := k.table(); t == table {
			list = append(list, n)
		}
	}
	return list
}

func oneOf(words []string) string {
	if len(words) < 2 {
		return strings.Join(words, "")
	}
	return strings.Join(words[:len(words)-1], ", ") + " or " + words[len(words)-1]
}

// nearest returns the word that is fewest letters away from s, "" if none is near.
func nearest(s string, words []string) string {
	best, least := "", 3
	if len(s) > maxShown {
		return ""
	}
	for _, w := range words {
		if d := distance(strings.ToLower(s), w); d < least && d < len(w) && 2*d <= len(s) {
			best, least = w, d
		}
	}
	return best
}

// distance counts the letters to put in, take out or change (Levenshtein).
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := diagonal
			if a[i] != b[j] {
				cost++
			}
			diagonal = row[j+1]
			row[j+1] = min(cost, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}
