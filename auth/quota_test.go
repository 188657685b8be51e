package auth

import "testing"

func TestQuotaRule(t *testing.T) {
	for rule, want := range map[string]Quota{
		"*:storage=100M": {Octets: 100 << 20}, "*:storage=100": {Octets: 100 << 10}, "*:bytes=100": {Octets: 100}, "*:bytes=2G": {Octets: 2 << 30},
		"*:messages=5": {Messages: 5}, "?:storage=1T:messages=5": {Octets: 1 << 40, Messages: 5}, "*:storage=0": {Octets: -1}, "*:ignore": {Octets: -1, Messages: -1},
		"Trash:storage=+100M": {}, "*:storage=7b": {Octets: 7},
	} {
		var q Quota
		if !q.ApplyRule(rule) || q != want {
			t.Errorf("%s: %+v; want %+v", rule, q, want)
		}
	}
	for _, rule := range []string{"", "*", "*:", "*:storage", "*:storage=", "*:storage=-1", "*:storage=10%", "*:storage=9999999T", "*:much=1", "*:messages=1k", "*:ignore=x"} {
		var q Quota
		if q.ApplyRule(rule) {
			t.Errorf("%q is taken as %+v", rule, q)
		}
	}
}
