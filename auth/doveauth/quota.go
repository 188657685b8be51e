package doveauth

import (
	"strconv"
	"strings"

	"dewey/auth"
)

const (
	mostOctets   = 1 << 50
	mostMessages = 1 << 40
	unlimited    = -1 // what auth.Quota has for Dovecot's 0
)

// quotaRule reads FOLDER:LIMIT:… of which only the folders * and ?, which are the default of all, count: a Maildir is one
// maildrop here. What is not understood is no rule: to leave a limit out would be to lift it.
// https://doc.dovecot.org/2.3/configuration_manual/quota/#quota-rules
func quotaRule(q *auth.Quota, rule string) bool {
	folder, limits, found := strings.Cut(rule, ":")
	if !found {
		return false
	}
	if folder != "*" && folder != "?" {
		return true
	}
	for limit := range strings.SplitSeq(limits, ":") {
		key, value, _ := strings.Cut(limit, "=")
		var ok bool
		switch key {
		case "storage":
			q.Octets, ok = size(value, 1<<10)
		case "bytes":
			q.Octets, ok = size(value, 1)
		case "messages":
			q.Messages, ok = whole(value, 1, mostMessages)
		case "ignore":
			*q, ok = auth.Quota{Octets: unlimited, Messages: unlimited}, value == ""
		}
		if !ok {
			return false
		}
	}
	return true
}

// size reads a number with a unit of Dovecot's, or without: then unit counts.
func size(s string, unit int64) (int64, bool) {
	if s == "" {
		return 0, false
	}
	digits := s[:len(s)-1]
	if i := strings.IndexByte("bkmgt", s[len(s)-1]|0x20); i >= 0 {
		return whole(digits, 1<<(10*i), mostOctets)
	}
	return whole(s, unit, mostOctets)
}

// whole reads a number of units; none of them means that there is no limit.
func whole(digits string, unit, most int64) (int64, bool) {
	n, err := strconv.ParseUint(digits, 10, 63)
	switch {
	case err != nil || int64(n) > most/unit:
		return 0, false
	case n == 0:
		return unlimited, true
	}
	return int64(n) * unit, true
}
