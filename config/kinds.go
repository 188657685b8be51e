package config

import (
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

// raw is a value as it was written, in the file or after --set.
type raw struct {
	what string // aString, aList, …
	text string // a string's contents; else as written
	list []raw  // the elements of aList
	line int    // in the file
}

// What a raw value can be.
const (
	aString  = "a string"
	aNumber  = "a whole number"
	aFloat   = "a fraction"
	aBoolean = "a boolean"
	aDate    = "a date"
	aList    = "a list"
	aTable   = "a table"
)

// A kind is how a key's values are read and shown.
type kind[T any] struct {
	what  string
	read  func(raw) (T, []fault)
	split func(string) (raw, *fault) // what --set's text means
	show  func(T) string             // as TOML
}

// word makes a kind whose values are not lists. example is a value as TOML.
func word[T any](what, example string, parse func(string) (T, *fault), show func(T) string) kind[T] {
	return kind[T]{
		what: what,
		read: func(r raw) (T, []fault) {
			var zero T
			if r.what != what {
				return zero, []fault{{line: r.line, wrong: "is " + r.what, right: "write " + what + ", such as " + example}}
			}
			v, f := parse(r.text)
			if f != nil {
				f.line = r.line
				return zero, []fault{*f}
			}
			return v, nil
		},
		split: func(s string) (raw, *fault) {
			if !utf8.ValidString(s) {
				return raw{}, faultf("write UTF-8", "%s is not UTF-8", quote(s))
			}
			return raw{what: what, text: s}, nil
		},
		show: show,
	}
}

// textual is a check of a string, with an example of a good one.
type textual struct {
	example string
	check   func(string) *fault
}

// text is a string that passes a check.
func text(t textual) kind[string] {
	return word(aString, quoteTOML(t.example), func(s string) (string, *fault) { return s, t.check(s) }, quoteTOML)
}

// choice is one of a few words.
func choice(words ...string) kind[string] {
	quoted := make([]string, len(words))
	for i, w := range words {
		quoted[i] = quoteTOML(w)
	}
	return text(textual{words[0], func(s string) *fault {
		if slices.Contains(words, s) {
			return nil
		}
		right := "write one of " + strings.Join(quoted, ", ")
		if near := nearest(s, words); near != "" {
			right = "did you mean " + quoteTOML(near) + "? It is one of " + strings.Join(quoted, ", ")
		}
		return faultf(right, "%s is not a choice", quote(s))
	}})
}

// boolean is true or false.
var boolean = word(aBoolean, "true", func(s string) (bool, *fault) {
	if s != "true" && s != "false" {
		return false, faultf("write true or false", "%s is not a boolean", quote(s))
	}
	return s == "true", nil
}, strconv.FormatBool)

// number is a whole number from low to high.
func number(low, high int64) kind[int] {
	right := fmt.Sprintf("write a whole number from %d to %d", low, high)
	return word(aNumber, "100", func(s string) (int, *fault) {
		digits, base := strings.ReplaceAll(s, "_", ""), 10
		if len(digits) > 1 && digits[0] == '0' && strings.ContainsRune("xob", rune(digits[1])) {
			base = 0
		}
		n, err := strconv.ParseInt(digits, base, 64)
		switch {
		case errors.Is(err, strconv.ErrSyntax):
			return 0, faultf(right, "%s is not a whole number", quote(s))
		case n < low: // out of range, n is the nearest that there is
			return 0, faultf(right, "%s is too small", cut(s))
		case n > high:
			return 0, faultf(right, "%s is too large", cut(s))
		}
		return int(n), nil
	}, strconv.Itoa)
}

// duration is a string with a unit, from low to high. why is appended to what a lower one reads.
func duration(low, high time.Duration, why string) kind[time.Duration] {
	example := quoteTOML(showDuration(max(low, time.Second)))
	if high >= 365*day {
		example = quoteTOML("30d")
	}
	right := "write a time from " + showDuration(low) + " to " + showDuration(high) + ", such as " + example
	return word(aString, example, func(s string) (time.Duration, *fault) {
		d, err := ParseDuration(s)
		switch {
		case err != nil:
			return 0, faultf(right, "%s is not a time with a unit (ms, s, m, h, d)", quote(s))
		case d < low:
			return 0, faultf(right, "%s is shorter than %s%s", quote(s), showDuration(low), why)
		case d > high:
			return 0, faultf(right, "%s is longer than %s", quote(s), showDuration(high))
		}
		return d, nil
	}, func(d time.Duration) string { return quoteTOML(showDuration(d)) })
}

// size is a number of octets up to high, as a string with or without a unit: K, M or G, of 1024 each.
func size(high int64) kind[int64] {
	right := `write a size such as "50M" or "512K", or "0"`
	return word(aString, `"50M"`, func(s string) (int64, *fault) {
		digits, unit := s, int64(1)
		for u, octets := range map[string]int64{"K": 1 << 10, "M": 1 << 20, "G": 1 << 30} {
			if d, ok := strings.CutSuffix(strings.ToUpper(s), u); ok {
				digits, unit = d, octets
			}
		}
		n, err := strconv.ParseUint(digits, 10, 63)
		switch {
		case errors.Is(err, strconv.ErrSyntax):
			return 0, faultf(right, "%s is not a size", quote(s))
		case err != nil || n > uint64(high/unit):
			return 0, faultf("write at most "+quoteTOML(showSize(high)), "%s is too large", quote(s))
		}
		return int64(n) * unit, nil
	}, func(n int64) string { return quoteTOML(showSize(n)) })
}

// showSize writes a size with the largest unit that leaves no fraction.
func showSize(n int64) string {
	for i, unit := range []string{"G", "M", "K"} {
		if octets := int64(1) << (30 - 10*i); n != 0 && n%octets == 0 {
			return strconv.FormatInt(n/octets, 10) + unit
		}
	}
	return strconv.FormatInt(n, 10)
}

// fileMode is the permission bits of a file, as text in octal: TOML's numbers can't begin with a zero.
var fileMode = word(aString, `"0600"`, func(s string) (fs.FileMode, *fault) {
	n, err := strconv.ParseUint(s, 8, 32)
	if err != nil || n > 0o777 {
		return 0, faultf(`write three or four octal digits, such as "0600" or "0660"`, "%s is not a file's mode", quote(s))
	}
	return fs.FileMode(n), nil
}, func(m fs.FileMode) string { return quoteTOML(fmt.Sprintf("%04o", m)) })

// list is a list of another kind. With --set it is one value, several with commas between them, a
// TOML list, or nothing. example is a list as TOML. If same is given, no two elements may be the same to it.
func list[T any](of kind[T], example string, same func(T) string) kind[[]T] {
	return kind[[]T]{
		what: aList,
		read: func(r raw) ([]T, []fault) {
			if r.what != aList {
				return nil, []fault{{line: r.line, wrong: "is " + r.what, right: "write a list, such as " + example}}
			}
			var faults []fault
			values, seen := make([]T, 0, len(r.list)), map[string]bool{}
			for _, e := range r.list {
				v, bad := of.read(e)
				if len(bad) == 0 && same != nil && seen[same(v)] {
					bad = []fault{{line: e.line, wrong: quote(e.text) + " is listed twice", right: "list it once"}}
				}
				if faults = append(faults, bad...); len(bad) > 0 {
					continue
				}
				values = append(values, v)
				if same != nil {
					seen[same(v)] = true
				}
			}
			return values, faults
		},
		split: func(s string) (raw, *fault) { return splitList(of, s) },
		show: func(values []T) string {
			shown := make([]string, len(values))
			for i, v := range values {
				shown[i] = of.show(v)
			}
			return "[" + strings.Join(shown, ", ") + "]"
		},
	}
}

// orOne is a list for which a single string may stand.
func orOne(of kind[[]string]) kind[[]string] {
	read := of.read
	of.read = func(r raw) ([]string, []fault) {
		switch {
		case r.what == aString && r.text == "": // what it was, before it was a list
			r = raw{what: aList, line: r.line}
		case r.what == aString:
			r = raw{what: aList, line: r.line, list: []raw{r}}
		}
		return read(r)
	}
	return of
}

// splitList reads what --set gives for a list. An address in brackets ("[::1]:110") is none in TOML.
func splitList[T any](of kind[T], s string) (raw, *fault) {
	trimmed := strings.TrimSpace(s)
	if trimmed == "" {
		return raw{what: aList}, nil
	}
	if strings.HasPrefix(trimmed, "[") {
		if r, ok := parseValue(trimmed); ok {
			return r, nil
		}
	}
	r := raw{what: aList}
	for part := range strings.SplitSeq(s, ",") {
		e, f := of.split(strings.TrimSpace(part))
		if f != nil {
			return raw{}, f
		}
		r.list = append(r.list, e)
	}
	return r, nil
}

// quoteTOML writes a basic string of TOML. What is not UTF-8 becomes U+FFFD: no value gets so far.
func quoteTOML(s string) string {
	var b strings.Builder
	b.WriteByte('"')
	for _, r := range s {
		switch {
		case r == '"' || r == '\\':
			b.WriteByte('\\')
			b.WriteRune(r)
		case r < 0x20 || r == 0x7f:
			fmt.Fprintf(&b, `\u%04X`, r)
		default:
			b.WriteRune(r)
		}
	}
	b.WriteByte('"')
	return b.String()
}
