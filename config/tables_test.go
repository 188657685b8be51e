package config

import (
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestMechanisms(t *testing.T) {
	for text, want := range map[string][]string{
		"auto":                     nil,
		" Auto ":                   nil,
		"":                         {},
		"[]":                       {},
		"PLAIN,LOGIN":              {"PLAIN", "LOGIN"},
		"scram-sha-256-plus, Apop": {"SCRAM-SHA-256-PLUS", "APOP"},
		`["cram-md5", 'SCRAM-SHA-1', "scram-sha-1-plus", "SCRAM-SHA-256"]`: {"CRAM-MD5", "SCRAM-SHA-1", "SCRAM-SHA-1-PLUS", "SCRAM-SHA-256"},
	} {
		c, err := Load("", []string{"login.mechanisms=" + text})
		if err != nil {
			t.Errorf("%q: %v", text, err)
		} else if got := c.Login.Mechanisms; !slices.Equal(got, want) || (got == nil) != (want == nil) {
			t.Errorf("%q: %#v, want %#v", text, got, want)
		}
	}
	c, err := load(t, "[login]\nmechanisms = \"AUTO\"\n")
	if err != nil || c.Login.Mechanisms != nil || len(Changed(c, defaults())) > 0 {
		t.Errorf("%v, %v", c, err)
	}
	none, err := load(t, "[login]\nmechanisms = []\n")
	if err != nil || none.Login.Mechanisms == nil || !slices.Equal(Changed(c, none), []string{"login.mechanisms"}) {
		t.Errorf("none is not auto: %v, %v", none, err)
	}
}

// A file from before certificates were lists goes on working.
func TestCertificates(t *testing.T) {
	for text, want := range map[string]TLS{
		"certificate = '/c'\nkey = '/k'":                  {Certificate: []string{"/c"}, Key: []string{"/k"}},
		"certificate = ''\nkey = ''":                      {Certificate: []string{}, Key: []string{}},
		"certificate = ['/a', '/b']\nkey = ['/k',\n'/k']": {Certificate: []string{"/a", "/b"}, Key: []string{"/k", "/k"}},
	} {
		c, err := load(t, "[tls]\n"+text)
		if err != nil {
			t.Errorf("%s: %v", text, err)
			continue
		}
		if diff := cmp.Diff(want, TLS{Certificate: c.TLS.Certificate, Key: c.TLS.Key}); diff != "" {
			t.Errorf("%s: %s", text, diff)
		}
	}
	c, err := Load("", []string{"tls.certificate=/a,/b", `tls.key=["/k,1", "/k2"]`})
	if err != nil || !slices.Equal(c.TLS.Certificate, []string{"/a", "/b"}) || !slices.Equal(c.TLS.Key, []string{"/k,1", "/k2"}) {
		t.Errorf("%+v, %v", c, err)
	}
}

func TestNewTables(t *testing.T) {
	c, err := load(t, `
[tls]
min_version = "1.3"
client_ca = "/etc/ca.pem"
client_name = "local"
acme_domains = ["Mail.Example.ORG.", "pop.example.org"]
acme_email = "postmaster@example.org"
acme_directory = "https://127.0.0.1:14000/dir"
acme_roots = "/etc/roots.pem"
acme_listen = ["127.0.0.1:5002"]
[login]
mechanisms = ["external"]
user_pass = false
remember = "0s"
max_delay = "1m"
max_attempts = 3
time_limit = "1h"
proxy_networks = ["192.0.2.1"]
[process]
user = "1000"
group = "mail"
landlock = "required"
`)
	if err != nil {
		t.Fatal(err)
	}
	wantTLS := TLS{
		Certificate: []string{}, Key: []string{},
		MinVersion: TLS13, ClientCA: "/etc/ca.pem", ClientName: ClientNameLocal,
		ACMEDomains: []string{"mail.example.org", "pop.example.org"}, ACMEEmail: "postmaster@example.org",
		ACMEDirectory: "https://127.0.0.1:14000/dir", ACMERoots: "/etc/roots.pem", ACMEListen: []string{"127.0.0.1:5002"},
	}
	if diff := cmp.Diff(wantTLS, c.TLS); diff != "" {
		t.Error(diff)
	}
	l := c.Login
	if !slices.Equal(l.Mechanisms, []string{"EXTERNAL"}) || l.UserPass || l.Remember != 0 || l.MaxDelay != time.Minute ||
		l.MaxAttempts != 3 || l.TimeLimit != time.Hour || len(l.ProxyNetworks) != 1 {
		t.Errorf("%+v", l)
	}
	if want := (Process{User: "1000", Group: "mail", Landlock: LandlockRequired}); c.Process != want {
		t.Errorf("%+v", c.Process)
	}
}
