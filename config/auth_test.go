package config

import (
	"bytes"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

const backends = `
[login]
mechanisms = ["PLAIN", "oauthbearer"]

[[auth]]
file = "{data}/staff"
name = "staff"
weak_schemes = true
kind = "passwd-file" # may come last

[[auth]]
kind = "ldap"
timeout = "2s"
remember_outage = "1d"
domains = ["Example.ORG"]
urls = ["ldaps://one.example.org", "ldap://two.example.org:1389", "ldapi://%2Frun%2Fslapd%2Fldapi"]
bind_dn = "cn=dewey,dc=example,dc=org"
bind_password_file = "/etc/dewey/ldap"
base = "ou=people,dc=example,dc=org"
filter = "(&(objectClass=person)(uid={user}))"

[[auth]]
kind = "sql"
driver = "postgres"
dsn_file = "{data}/dsn"
user_query = """
SELECT password, home
  FROM "users" WHERE name = {user}"""

[[auth]]
kind = "oauth"
issuer = "https://id.example.org/"
audiences = ["dewey"]
remember = "0s"

[[auth]]
kind = "pam"

[[auth]]
kind = "dovecot"
userdb_socket = ""
[pop3]
listen = [":110"]
`

func TestAuth(t *testing.T) {
	c, err := load(t, backends, "data=/d")
	if err != nil {
		t.Fatal(err)
	}
	want := []Auth{
		{Kind: "passwd-file", Name: "staff", Timeout: 5 * time.Second, File: "{data}/staff", WeakSchemes: true},
		{
			Kind: "ldap", Name: "ldap", Timeout: 2 * time.Second, RememberOutage: 24 * time.Hour, Domains: []string{"example.org"},
			URLs:   []string{"ldaps://one.example.org", "ldap://two.example.org:1389", "ldapi://%2Frun%2Fslapd%2Fldapi"},
			BindDN: "cn=dewey,dc=example,dc=org", BindPasswordFile: "/etc/dewey/ldap",
			Base: "ou=people,dc=example,dc=org", Scope: "sub", Filter: "(&(objectClass=person)(uid={user}))", Mode: "bind",
			PasswordAttribute: "userPassword", Connections: 8,
		},
		{
			Kind: "sql", Name: "sql", Timeout: 5 * time.Second, Driver: "postgres", DSNFile: "{data}/dsn",
			UserQuery: "SELECT password, home\n  FROM \"users\" WHERE name = {user}", Connections: 8,
		},
		{
			Kind: "oauth", Name: "oauth", Timeout: 5 * time.Second, Issuer: "https://id.example.org/", Audiences: []string{"dewey"},
			Claim: "email", Leeway: time.Minute, Users: "chain",
		},
		{Kind: "pam", Name: "pam", Timeout: 5 * time.Second, Service: "dewey", Processes: 2, MinUID: 1000, Recipients: "system"},
		{Kind: "dovecot", Name: "dovecot", Timeout: 5 * time.Second, Service: "pop3", AuthSocket: "/run/dovecot/auth-client"},
	}
	if diff := cmp.Diff(want, c.Backends(), cmpopts.IgnoreUnexported(Auth{}), cmpopts.EquateEmpty()); diff != "" {
		t.Error(diff)
	}
	if got := c.AuthFile(c.Auth[0].File) + " " + c.AuthFile(""); got != "/d/staff " {
		t.Errorf("%q", got)
	}
	if s := c.Auth[1].Source("timeout").String(); !strings.HasSuffix(s, ".toml:13") || !c.Auth[1].Source("mode").IsDefault() || !strings.HasSuffix(c.Auth[2].At().String(), ":22") {
		t.Errorf("%s, %s", s, c.Auth[2].At())
	}
	if !c.Has(KindPAM) || c.POP3.Listen[0] != ":110" {
		t.Error("what follows the tables is lost")
	}
	var out bytes.Buffer
	if err := c.Print(&out); err != nil {
		t.Fatal(err)
	}
	again, err := load(t, out.String())
	if err != nil {
		t.Fatalf("%v in\n%s", err, &out)
	}
	if diff := cmp.Diff(c, again, ignoreSources, cmpopts.IgnoreUnexported(Auth{}), cmpopts.EquateEmpty()); diff != "" || len(Changed(c, again)) > 0 {
		t.Error(diff, Changed(c, again))
	}
	if !strings.Contains(out.String(), "\n[[auth]]\nkind = \"ldap\" # ") || !strings.Contains(out.String(), "mode = \"bind\" # default\n") {
		t.Errorf("printed:\n%s", &out)
	}
	again.Auth[1].Base = ""
	if got := Changed(c, again); !slices.Equal(got, []string{"auth"}) {
		t.Errorf("%q", got)
	}
}

// What is printed is shown to others: a dsn, which may have a password in it, is not, and can't be taken for a value.
func TestPrintHidesDSN(t *testing.T) {
	const table = "[[auth]]\nkind = \"sql\"\ndriver = \"postgres\"\nuser_query = \"SELECT 1\"\n"
	c, err := load(t, table+"dsn = \"postgres://dewey:verysecret@db.example.org/mail\"\n")
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	if err := c.Print(&out); err != nil || strings.Contains(out.String(), "verysecret") || !strings.Contains(out.String(), "\n# dsn is not shown: ") || !strings.Contains(out.String(), ".toml:5\n") {
		t.Errorf("%v\n%s", err, &out)
	}
	if _, err := load(t, out.String()); err == nil || !strings.Contains(err.Error(), "auth.dsn: is to be given") {
		t.Errorf("what was printed gives %v", err)
	}
	if other, err := load(t, table+"dsn = \"postgres://dewey:another@db.example.org/mail\"\n"); err != nil || !slices.Equal(Changed(c, other), []string{"auth"}) {
		t.Errorf("another password is no change: %v", err)
	}
}

// Without tables the users file is the one backend, and is printed as such.
func TestAuthDefault(t *testing.T) {
	c := defaults()
	if b := c.Backends(); len(b) != 1 || b[0].Kind != KindPasswdFile || b[0].Name != KindPasswdFile || !b[0].At().IsDefault() || c.Has(KindLDAP) {
		t.Errorf("%+v", b)
	}
	var out bytes.Buffer
	if err := c.Print(&out); err != nil || !strings.Contains(out.String(), "[[auth]]\nkind = \"passwd-file\" # default\nname = \"passwd-file\" # default\n") {
		t.Errorf("%v\n%s", err, &out)
	}
	listed, err := load(t, "[[auth]]\nkind = \"passwd-file\"\n")
	if err != nil || len(Changed(c, listed)) > 0 {
		t.Errorf("%v, %q", err, Changed(c, listed))
	}
}

// Each kind has its keys once, and what is said of them.
func TestAuthKeys(t *testing.T) {
	seen := map[string]bool{}
	for _, k := range AuthKeys() {
		if k.Doc == "" || seen[k.Kind+k.Name] || seen[k.Name] {
			t.Errorf("%+v", k)
		}
		seen[k.Kind+k.Name] = true
	}
	for _, kind := range Kinds {
		if len(authKeysOf(kind)) < 7 {
			t.Errorf("%s has %d keys", kind, len(authKeysOf(kind)))
		}
	}
}
