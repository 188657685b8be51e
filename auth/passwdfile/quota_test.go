package passwdfile

import (
	"context"
	"errors"
	"reflect"
	"strings"
	"testing"

	"dewey/auth"
)

func TestQuotaOfALine(t *testing.T) {
	for field, want := range map[string]auth.Quota{
		"":                            {},
		"quota=2G":                    {Octets: 2 << 30},
		"quota=2g quota_messages=10":  {Octets: 2 << 30, Messages: 10},
		"quota=1000":                  {Octets: 1000},
		"quota=7B":                    {Octets: 7},
		"quota=0":                     {Octets: -1},
		"quota_messages=0 quota=0K":   {Octets: -1, Messages: -1},
		"quota=1T allow_nets=::1":     {Octets: 1 << 40},
		"quota=1024T":                 {Octets: 1 << 50},
		"userdb_quota=x":              {},
		"userdb_quota_rule=*:storage": {},

		"userdb_quota_rule=*:storage=1G:messages=1000":     {Octets: 1 << 30, Messages: 1000},
		"userdb_quota_rule=*:storage=100":                  {Octets: 100 << 10}, // KiB, as in Dovecot
		"userdb_quota_rule=*:bytes=100":                    {Octets: 100},
		"userdb_quota_rule=*:bytes=1M":                     {Octets: 1 << 20},
		"userdb_quota_rule=*:storage=0":                    {Octets: -1},
		"userdb_quota_rule=?:storage=50M":                  {Octets: 50 << 20},
		"userdb_quota_rule=*:ignore":                       {Octets: -1, Messages: -1},
		"userdb_quota_rule=Trash:storage=+10%":             {},
		"quota=1K userdb_quota_rule=*:storage=2":           {Octets: 2 << 10},
		"userdb_quota_rule=*:storage=2:messages=3 quota=1": {Octets: 1, Messages: 3},
	} {
		e, err := parseLine("mrose:{PLAIN}x::::/home/mrose::" + field)
		if field == "userdb_quota_rule=*:storage" {
			if err == nil {
				t.Errorf("%q is taken", field)
			}
			continue
		}
		if err != nil || e.extra.quota != want {
			t.Errorf("%q: %+v, %v; want %+v", field, e.extra.quota, err, want)
		}
	}
}

func TestQuotaOfALineThatIsNone(t *testing.T) {
	for field, want := range map[string]error{
		"quota": errQuota, "quota=": errQuota, "quota=G": errQuota, "quota=-1": errQuota, "quota=2GB": errQuota, "quota=1.5G": errQuota,
		"quota=1025T": errQuota, "quota=99999999999999999999": errQuota, "quota=50%": errQuota, "quota=+1": errQuota,
		"quota_messages": errQuotaMessages, "quota_messages=1K": errQuotaMessages, "quota_messages=-1": errQuotaMessages,
		"quota_messages=9999999999999": errQuotaMessages,

		"userdb_quota_rule": errQuotaRule, "userdb_quota_rule=*": errQuotaRule, "userdb_quota_rule=*:": errQuotaRule,
		"userdb_quota_rule=*:storage=50%": errQuotaRule, "userdb_quota_rule=*:storage=+1G": errQuotaRule,
		"userdb_quota_rule=*:storage=1G:mesages=1": errQuotaRule, "userdb_quota_rule=*:ignore=no": errQuotaRule,
	} {
		if _, err := parseLine("mrose:{PLAIN}x::::::" + field); !errors.Is(err, want) || !strings.Contains(err.Error(), "would be right") {
			t.Errorf("%q: %v, want %v", field, err, want)
		}
	}
}

// Who is proven, found or meant by mail has his quota with him.
func TestQuotaOfAnIdentity(t *testing.T) {
	ctx := context.Background()
	file := open(t, users(t, "mrose:{PLAIN}x::::/home/mrose::quota=5 login_as=bob\nbob:{PLAIN}y::::::quota_messages=7\n"), nil)
	mrose := auth.Identity{User: "mrose", Home: "/home/mrose", Quota: auth.Quota{Octets: 5}}
	bob := auth.Identity{User: "bob", Quota: auth.Quota{Messages: 7}}
	for what, f := range map[string]func() (auth.Identity, error){
		"CheckPassword": func() (auth.Identity, error) {
			return file.CheckPassword(ctx, auth.Attempt{User: "mrose", Password: "x"})
		},
		"Recipient": func() (auth.Identity, error) { return file.Recipient(ctx, "MRose") },
	} {
		if id, err := f(); err != nil || !reflect.DeepEqual(id, mrose) {
			t.Errorf("%s: %+v, %v", what, id, err)
		}
	}
	if id, err := file.Authorize(ctx, mrose, "bob"); err != nil || !reflect.DeepEqual(id, bob) {
		t.Errorf("Authorize: %+v, %v", id, err)
	}
}
