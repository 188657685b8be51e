package sqlauth

import (
	"errors"
	"math"
	"strings"
	"testing"
	"time"

	"dewey/auth"
)

func TestRowsAreRead(t *testing.T) {
	type columns = []string
	type values = []any
	for _, c := range []struct {
		columns  columns
		values   values
		want     auth.Identity
		disabled bool
	}{
		{columns{}, values{}, auth.Identity{User: "bob"}, false},
		{columns{"USER", "Password", "HOME"}, values{"Robert", nil, nil}, auth.Identity{User: "Robert"}, false},
		{columns{"home"}, values{[]byte("/var/vmail//bob/")}, auth.Identity{User: "bob", Home: "/var/vmail/bob"}, false},
		{columns{"quota_octets", "quota_messages"}, values{int64(1000), int64(5)}, auth.Identity{User: "bob", Quota: auth.Quota{Octets: 1000, Messages: 5}}, false},
		{columns{"quota_octets", "quota_messages"}, values{"2G", []byte("0")}, auth.Identity{User: "bob", Quota: auth.Quota{Octets: 2 << 30, Messages: -1}}, false},
		{columns{"quota_octets", "quota_messages"}, values{nil, ""}, auth.Identity{User: "bob"}, false},
		{columns{"quota_octets", "quota_messages"}, values{"-1", "1000.00"}, auth.Identity{User: "bob", Quota: auth.Quota{Octets: -1, Messages: 1000}}, false},
		{columns{"quota_octets", "quota_messages"}, values{1e15, uint64(7)}, auth.Identity{User: "bob", Quota: auth.Quota{Octets: 1e15, Messages: 7}}, false},
		{columns{"quota_octets"}, values{" 500m"}, auth.Identity{User: "bob", Quota: auth.Quota{Octets: 500 << 20}}, false},
		{columns{"disabled"}, values{true}, auth.Identity{User: "bob"}, true},
		{columns{"disabled"}, values{int64(1)}, auth.Identity{User: "bob"}, true},
		{columns{"disabled"}, values{"Y"}, auth.Identity{User: "bob"}, true},
		{columns{"disabled"}, values{[]byte{1}}, auth.Identity{User: "bob"}, true},
		{columns{"disabled"}, values{[]byte{0}}, auth.Identity{User: "bob"}, false},
		{columns{"disabled"}, values{"t"}, auth.Identity{User: "bob"}, true},
		{columns{"disabled"}, values{nil}, auth.Identity{User: "bob"}, false},
		{columns{"disabled"}, values{"no"}, auth.Identity{User: "bob"}, false},
		{columns{"disabled"}, values{0.0}, auth.Identity{User: "bob"}, false},
	} {
		rec, err := read(c.columns, c.values, "bob")
		if err != nil || rec.identity.User != c.want.User || rec.identity.Home != c.want.Home || rec.identity.Quota != c.want.Quota || rec.disabled != c.disabled {
			t.Errorf("%v %v: %+v, %v", c.columns, c.values, rec, err)
		}
	}
}

// What can't be understood is no rejection: the user is there.
func TestNonsenseInARowIsAFault(t *testing.T) {
	for _, c := range []struct {
		column string
		value  any
		says   string
	}{
		{"usr", "bob", `column "usr"`},
		{"user", "", "a user"},
		{"user", nil, "a user"},
		{"user", "bo\x00b", "a user"},
		{"user", "bo\nb", "a user"},
		{"user", strings.Repeat("b", 256), "a user"},
		{"home", "bob/", "home"},
		{"home", "/var/../etc", "home"},
		{"home", "/var/\x00", "home"},
		{"quota_octets", "much", "quota_octets"},
		{"quota_octets", "2X", "quota_octets"},
		{"quota_octets", "-2", "quota_octets"},
		{"quota_octets", "1.5", "quota_octets"},
		{"quota_octets", "9999999999G", "quota_octets"},
		{"quota_octets", "K", "quota_octets"},
		{"quota_octets", math.NaN(), "quota_octets"},
		{"quota_messages", "2K", "quota_messages"},
		{"disabled", "perhaps", "disabled"},
		{"disabled", []byte{2}, "disabled"},
		{"disabled", time.Now(), "time.Time"},
	} {
		_, err := read([]string{c.column}, []any{c.value}, "bob")
		if err == nil || errors.Is(err, auth.ErrRejected) || !strings.Contains(err.Error(), c.says) || strings.ContainsAny(err.Error(), "\x00") {
			t.Errorf("%s %q: %v", c.column, c.value, err)
		}
	}
	if _, err := read([]string{"user", "USER"}, []any{"a", "b"}, "bob"); err == nil {
		t.Error("two columns of one name are taken")
	}
	for _, asked := range []string{"bob ", "bób", "b\x01ob"} { // MySQL finds bob for them
		if _, err := read([]string{"home"}, []any{nil}, asked); err == nil {
			t.Errorf("%q is taken for the user's own name", asked)
		}
		if rec, err := read([]string{"user"}, []any{"bob"}, asked); err != nil || rec.identity.User != "bob" {
			t.Errorf("%q: %v", asked, err)
		}
	}
}
