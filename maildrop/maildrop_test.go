package maildrop_test

import (
	"strings"
	"testing"

	"dewey/maildrop"
)

func TestQuotaOr(t *testing.T) {
	const none = maildrop.NoQuota
	for _, c := range []struct{ own, other, want maildrop.Quota }{
		{maildrop.Quota{}, maildrop.Quota{}, maildrop.Quota{}},
		{maildrop.Quota{}, maildrop.Quota{Octets: 5, Messages: 6}, maildrop.Quota{Octets: 5, Messages: 6}},
		{maildrop.Quota{Octets: 9}, maildrop.Quota{Octets: 5, Messages: 6}, maildrop.Quota{Octets: 9, Messages: 6}},
		{maildrop.Quota{Octets: none, Messages: 7}, maildrop.Quota{Octets: 5, Messages: 6}, maildrop.Quota{Messages: 7}},
		{maildrop.Quota{}, maildrop.Quota{Octets: none}, maildrop.Quota{}},
	} {
		if got := c.own.Or(c.other); got != c.want {
			t.Errorf("%v.Or(%v) = %v, want %v", c.own, c.other, got, c.want)
		}
	}
}

// RFC 1939 section 7; trap 27.
func TestValidUID(t *testing.T) {
	for id, want := range map[string]bool{
		"x": true, "!~": true, strings.Repeat("x", 70): true,
		"": false, strings.Repeat("x", 71): false, "a b": false, "\x7f": false, "\xc3\xbc": false, "a\x00": false,
	} {
		if got := maildrop.ValidUID(id); got != want {
			t.Errorf("ValidUID(%q) = %v", id, got)
		}
	}
}
