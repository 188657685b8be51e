package passwdfile

import (
	"errors"
	"strconv"
	"strings"

	"dewey/auth"
)

const (
	mostOctets   = 1 << 50 // that a quota may have
	mostMessages = 1 << 40
	unlimited    = -1 // what auth.Quota has for the 0 of a line
)

var (
	errQuota         = errors.New("quota with something that is no size; quota=2G or quota=0 would be right")
	errQuotaMessages = errors.New("quota_messages with something that is no number; quota_messages=1000 would be right")
	errQuotaRule     = errors.New("userdb_quota_rule with something that is not understood; userdb_quota_rule=*:storage=2G:messages=1000 would be right")
)

// quotaField reads one of the extra fields that limit how much mail a user may keep.
func (x *extra) quotaField(key, value string) error {
	var ok bool
	switch key {
	case "quota":
		if x.quota.Octets, ok = octets(value, 1); !ok {
			return errQuota
		}
	case "quota_messages":
		if x.quota.Messages, ok = messages(value); !ok {
			return errQuotaMessages
		}
	default:
		if !dovecotRule(&x.quota, value) {
			return errQuotaRule
		}
	}
	return nil
}

// dovecotRule reads FOLDER:LIMIT:… of which only the folders * and ?, which are the default of all, count: a
// Maildir is one maildrop here. What is not understood is no rule: to leave a limit out would be to lift it.
func dovecotRule(q *auth.Quota, value string) bool {
	folder, limits, found := strings.Cut(value, ":")
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
			q.Octets, ok = octets(value, 1<<10)
		case "bytes":
			q.Octets, ok = octets(value, 1)
		case "messages":
			q.Messages, ok = messages(value)
		case "ignore":
			*q, ok = auth.Quota{Octets: unlimited, Messages: unlimited}, value == ""
		}
		if !ok {
			return false
		}
	}
	return true
}

// octets reads a size with a unit of Dovecot's, or without: then unit counts.
func octets(s string, unit int64) (int64, bool) {
	if s == "" {
		return 0, false
	}
	digits := s[:len(s)-1]
	switch s[len(s)-1] {
	case 'B', 'b':
		unit = 1
	case 'K', 'k':
		unit = 1 << 10
	case 'M', 'm':
		unit = 1 << 20
	case 'G', 'g':
		unit = 1 << 30
	case 'T', 't':
		unit = 1 << 40
	default:
		digits = s
	}
	return whole(digits, unit, mostOctets)
}

func messages(s string) (int64, bool) { return whole(s, 1, mostMessages) }

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
