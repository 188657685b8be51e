package passwdfile

import (
	"errors"

	"dewey/auth"
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
		if x.quota.Octets, ok = auth.ParseOctets(value, 1); !ok {
			return errQuota
		}
	case "quota_messages":
		if x.quota.Messages, ok = auth.ParseMessages(value); !ok {
			return errQuotaMessages
		}
	default:
		if !x.quota.ApplyRule(value) {
			return errQuotaRule
		}
	}
	return nil
}
