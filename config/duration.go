package config

import (
	"errors"
	"math"
	"strconv"
	"strings"
	"time"
)

const day = 24 * time.Hour

// ParseDuration is time.ParseDuration with days before all else: "30d", "1d12h". A day has 24 hours.
func ParseDuration(s string) (time.Duration, error) {
	digits, rest, found := strings.Cut(s, "d")
	if !found {
		return time.ParseDuration(s) //nolint:wrapcheck // says all
	}
	n, err := strconv.ParseUint(digits, 10, 31)
	if err != nil || n >= uint64(math.MaxInt64/day) {
		return 0, errors.New("bad number of days in " + strconv.Quote(s))
	}
	d := time.Duration(n) * day
	if rest == "" {
		return d, nil
	}
	more, err := time.ParseDuration(rest)
	if err != nil || more < 0 || strings.HasPrefix(rest, "-") || d+more < d {
		return 0, errors.New("bad time after the days in " + strconv.Quote(s))
	}
	return d + more, nil
}

// showDuration writes a time as a person would: "10m", not "10m0s"; days from two on.
func showDuration(d time.Duration) string {
	if d >= 2*day && d%day == 0 {
		return strconv.FormatInt(int64(d/day), 10) + "d"
	}
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}
