package config

import (
	"slices"
	"strings"
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

func TestMailTables(t *testing.T) {
	c, err := load(t, `
lmtp.listen = ["unix:/run//dewey/lmtp", "[::1]:24"]
lmtp.socket_mode = "660"
lmtp.socket_user = "dewey"
lmtp.socket_group = "postfix"
lmtp.max_size = "1g"
lmtp.over_quota = "defer"
[recipients]
rules = ["local"]
delimiter = "+-"
domains = ["Example.ORG", "bücher.example", "[192.0.2.1]"]
aliases = "{data}/aliases"
`)
	if err != nil {
		t.Fatal(err)
	}
	want := LMTP{
		Listen: []string{"unix:/run/dewey/lmtp", "[::1]:24"}, SocketMode: 0o660, SocketUser: "dewey", SocketGroup: "postfix",
		MaxSize: 1 << 30, MaxRecipients: 100, MaxConnections: 100, Timeout: 5 * time.Minute, OverQuota: OverQuotaDefer,
	}
	if diff := cmp.Diff(want, c.LMTP); diff != "" {
		t.Error(diff)
	}
	r := c.Recipients
	if !slices.Equal(r.Rules, []string{"local"}) || r.Delimiter != "+-" || !slices.Equal(r.Domains, []string{"example.org", "bücher.example", "[192.0.2.1]"}) {
		t.Errorf("%+v", r)
	}
	if c.AliasesFile() != "dewey-data/aliases" || defaults().AliasesFile() != "" {
		t.Errorf("%q", c.AliasesFile())
	}
}

// Sizes are counted in units of 1024, as Postfix's and Dovecot's are, and come back as they were.
func TestSizes(t *testing.T) {
	for text, want := range map[string]struct {
		octets int64
		shown  string
	}{
		"0": {0, "0"}, "1": {1, "1"}, "1000": {1000, "1000"}, "1024": {1024, "1K"}, "50M": {50 << 20, "50M"}, "10k": {10 << 10, "10K"},
		"1536K": {1536 << 10, "1536K"}, "1024G": {1 << 40, "1024G"}, "0G": {0, "0"},
	} {
		c, err := Load("", []string{"lmtp.max_size=" + text})
		if err != nil || c.LMTP.MaxSize != want.octets || showSize(c.LMTP.MaxSize) != want.shown {
			t.Errorf("%s: %v, %v", text, c, err)
		}
	}
	for _, text := range []string{"", "M", "1.5M", "50 M", "0x10", "+1", "1_000", "1025G", "50MiB"} {
		if _, err := Load("", []string{"lmtp.max_size=" + text}); err == nil || !strings.Contains(err.Error(), "write ") {
			t.Errorf("%q: %v", text, err)
		}
	}
}
