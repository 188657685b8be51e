package uidlist

import (
	"cmp"
	"strconv"
	"strings"
)

// CompareNames orders files that have no uid yet as Dovecot does before it numbers them: by the
// seconds at the start of the name, then by the microseconds that stand behind an M in its middle
// part, if both have them, then by the rest of the base name.
func CompareNames(a, b string) int {
	secA, restA := cutDigits(a)
	secB, restB := cutDigits(b)
	if c := compareDigits(secA, secB); c != 0 {
		return c
	}
	if usecA, ok := micros(restA); ok {
		if usecB, ok := micros(restB); ok {
			if c := cmp.Compare(usecA, usecB); c != 0 {
				return c
			}
		}
	}
	return cmp.Compare(Base(restA), Base(restB))
}

func cutDigits(s string) (digits, rest string) {
	n := 0
	for n < len(s) && s[n] >= '0' && s[n] <= '9' {
		n++
	}
	return s[:n], s[n:]
}

// compareDigits compares decimal numbers of any length.
func compareDigits(a, b string) int {
	a, b = strings.TrimLeft(a, "0"), strings.TrimLeft(b, "0")
	if len(a) != len(b) {
		return cmp.Compare(len(a), len(b))
	}
	return cmp.Compare(a, b)
}

// micros finds the M in a name like "1700000000.M123P45.host", its seconds cut off.
func micros(rest string) (int64, bool) {
	if rest == "" || rest[0] != '.' {
		return 0, false
	}
	middle, _, _ := strings.Cut(Base(rest[1:]), ".")
	_, after, ok := strings.Cut(middle, "M")
	if !ok {
		return 0, false
	}
	digits, _ := cutDigits(after)
	if digits == "" {
		return 0, true
	}
	n, err := strconv.ParseInt(digits, 10, 64)
	if err != nil {
		return 1<<63 - 1, true
	}
	return n, true
}
