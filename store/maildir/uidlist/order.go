package uidlist

import (
	"cmp"
	"math"
	"strconv"
	"strings"
)

// CompareNames orders files that have no uid yet as Dovecot does before it numbers them: by the
// seconds at the start of the name, then by the microseconds that stand behind an M in its middle
// part, if both have them, then by the rest of the base name.
func CompareNames(a, b string) int {
	first, second := Rank(a), Rank(b)
	return first.Compare(&second)
}

// A NameRank is what CompareNames goes by: to sort many names, each is taken apart once.
type NameRank struct {
	seconds uint64
	digits  string // the seconds without leading zeros, where they are more than fit
	micros  int64  // -1: there are none
	rest    string
}

// Rank takes a file's name apart.
func Rank(name string) NameRank {
	digits, rest := cutDigits(name)
	r := NameRank{micros: -1, rest: Base(rest)}
	if n, ok := micros(rest); ok {
		r.micros = n
	}
	if digits = strings.TrimLeft(digits, "0"); len(digits) > 18 {
		r.seconds, r.digits = math.MaxUint64, digits
	} else {
		r.seconds, _ = strconv.ParseUint(digits, 10, 64) // 0 if there is none
	}
	return r
}

// Seconds is what Compare looks at first: of two names with different ones it is the smaller that comes first.
func (r *NameRank) Seconds() uint64 { return r.seconds }

// Compare is CompareNames of the names that r and o are of.
func (r *NameRank) Compare(o *NameRank) int {
	switch {
	case r.seconds != o.seconds:
		return cmp.Compare(r.seconds, o.seconds)
	case len(r.digits) != len(o.digits):
		return cmp.Compare(len(r.digits), len(o.digits))
	case r.digits != o.digits:
		return strings.Compare(r.digits, o.digits)
	case r.micros != o.micros && r.micros >= 0 && o.micros >= 0:
		return cmp.Compare(r.micros, o.micros)
	}
	return strings.Compare(r.rest, o.rest)
}

func cutDigits(s string) (digits, rest string) {
	n := 0
	for n < len(s) && s[n] >= '0' && s[n] <= '9' {
		n++
	}
	return s[:n], s[n:]
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
