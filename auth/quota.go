package auth

import (
	"strconv"
	"strings"
)

// Unlimited is what a Quota has for no limit.
const Unlimited = -1

// What a quota may be at most.
const (
	mostOctets   = 1 << 50
	mostMessages = 1 << 40
)

// ParseOctets reads a size as backends have it: a number, with B, K, M, G or T behind it, or without: then unit counts, in
// octets. 0 is Unlimited. It returns false for what is no such size, or more than 2^50 octets.
func ParseOctets(s string, unit int64) (int64, bool) {
	if s == "" {
		return 0, false
	}
	if i := strings.IndexByte("BKMGT", s[len(s)-1]&^0x20); i >= 0 {
		unit, s = 1<<(10*i), s[:len(s)-1]
	}
	return ParseUnits(s, unit, mostOctets)
}

// ParseMessages reads a number of messages, at most 2^40. 0 is Unlimited.
func ParseMessages(s string) (int64, bool) { return ParseUnits(s, 1, mostMessages) }

// ParseUnits reads a number of units, which together are at most so many. 0 is Unlimited.
func ParseUnits(digits string, unit, most int64) (int64, bool) {
	n, err := strconv.ParseUint(digits, 10, 63)
	switch {
	case err != nil || int64(n) > most/unit:
		return 0, false
	case n == 0:
		return Unlimited, true
	}
	return int64(n) * unit, true
}

// ApplyRule takes a quota rule of Dovecot's, FOLDER:LIMIT:… of which only the folders * and ?, which are the default of
// all, count: a Maildir is one maildrop here. It returns false for what is not understood, which is no rule: to leave a
// limit out would be to lift it.
//
// Source: https://doc.dovecot.org/2.3/configuration_manual/quota/#quota-rules
func (q *Quota) ApplyRule(rule string) bool {
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
			q.Octets, ok = ParseOctets(value, 1<<10)
		case "bytes":
			q.Octets, ok = ParseOctets(value, 1)
		case "messages":
			q.Messages, ok = ParseMessages(value)
		case "ignore":
			*q, ok = Quota{Octets: Unlimited, Messages: Unlimited}, value == ""
		}
		if !ok {
			return false
		}
	}
	return true
}
