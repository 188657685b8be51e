package sasl

import (
	"regexp"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"dewey/auth"
)

func TestMechanisms(t *testing.T) {
	want := []string{
		"SCRAM-SHA-256-PLUS", "SCRAM-SHA-1-PLUS", "SCRAM-SHA-256", "SCRAM-SHA-1", "CRAM-MD5", "EXTERNAL",
		"OAUTHBEARER", "XOAUTH2", "PLAIN", "LOGIN",
	}
	if !slices.Equal(Names(), want) {
		t.Errorf("%q", Names())
	}
	secrets := map[string]string{
		"SCRAM-SHA-256-PLUS": auth.SCRAMSHA256, "SCRAM-SHA-1-PLUS": auth.SCRAMSHA1, "SCRAM-SHA-256": auth.SCRAMSHA256,
		"SCRAM-SHA-1": auth.SCRAMSHA1, "CRAM-MD5": auth.CRAMMD5,
	}
	name := regexp.MustCompile(`^[A-Z0-9_-]{1,20}$`) // RFC 4422 section 3.1
	for i, m := range All() {
		if m.Name != want[i] || !name.MatchString(m.Name) ||
			m.Plus != strings.HasSuffix(m.Name, "-PLUS") ||
			m.Plaintext != (m.Name == "PLAIN" || m.Name == "LOGIN" || m.Token) ||
			m.Token != (m.Name == "OAUTHBEARER" || m.Name == "XOAUTH2") ||
			m.ServerFirst != (m.Name == "CRAM-MD5") || // RFC 2195 section 2
			m.External != (m.Name == "EXTERNAL") ||
			m.Secret != secrets[m.Name] {
			t.Errorf("%+v", m)
		}
		// An initial response is right for all but those where the server speaks first.
		if _, _, err := m.NewServer(newHost(), Channel{}).Next([]byte("\x01")); m.ServerFirst && err == nil {
			t.Errorf("%s takes an initial response", m.Name)
		}
		// Without one there is a challenge, and an empty one is still one.
		c, done, err := m.NewServer(newHost(), Channel{}).Next(nil)
		if c == nil || done || err != nil {
			t.Errorf("%s: %q, %v, %v", m.Name, c, done, err)
		}
	}
	All()[0].Name = "X"
	if All()[0].Name != want[0] {
		t.Error("All can be written to")
	}
}

func TestFind(t *testing.T) {
	for name, want := range map[string]string{
		"PLAIN": "PLAIN", "plain": "PLAIN", "Scram-Sha-256-Plus": "SCRAM-SHA-256-PLUS", "cram-md5": "CRAM-MD5",
		"": "", "PLAI": "", "PLAIN ": "", "PLAINX": "", "SCRAM-SHA-512": "", "OAUTH10A": "", "xoauth2": "XOAUTH2", "GSSAPI": "",
		"ſcram-sha-1": "", "ſcram-sha-": "", "ſCRAM-SHA-256": "", "SCRAM-SHA-1\x00": "", "ＰＬＡＩＮ": "",
	} {
		if m, ok := Find(name); m.Name != want || ok != (want != "") {
			t.Errorf("%q: %q, %v", name, m.Name, ok)
		}
	}
}

// Each connection has its own timestamp, in a form that all clients take. RFC 1939 section 7.
func TestTrap44TimestampIsFresh(t *testing.T) {
	form := regexp.MustCompile(`^<[0-9]{1,20}\.[0-9]{1,20}@[A-Za-z0-9.-]+>$`)
	seen := make(map[string]bool)
	for range 1000 {
		timestamp := NewTimestamp("mail.example.org")
		if !form.MatchString(timestamp) || !strings.HasSuffix(timestamp, "@mail.example.org>") || seen[timestamp] {
			t.Fatal(timestamp)
		}
		seen[timestamp] = true
		challenge, _, err := start(t, "CRAM-MD5", newHost(), Channel{Hostname: "mail.example.org"}).Next(nil)
		if err != nil || !form.Match(challenge) || seen[string(challenge)] {
			t.Fatalf("%q, %v", challenge, err)
		}
		seen[string(challenge)] = true
	}
	for host, want := range map[string]string{
		"": "localhost", "mx": "mx", "MX-1.Example.ORG": "MX-1.Example.ORG", "a>b": "localhost", "a b": "localhost",
		"::1": "localhost", "mx.example.org.": "localhost", "a..b": "localhost", "mx\r\n+OK": "localhost", "bücher.de": "localhost",
		"10.0.0.1": "10.0.0.1", strings.Repeat("a", 256): "localhost",
	} {
		if timestamp := NewTimestamp(host); !form.MatchString(timestamp) || !strings.HasSuffix(timestamp, "@"+want+">") {
			t.Errorf("%q: %s", host, timestamp)
		}
	}
	// Two in the same instant differ too.
	synctest.Test(t, func(t *testing.T) {
		before := time.Now()
		if a, b := NewTimestamp(""), NewTimestamp(""); a == b || !time.Now().Equal(before) {
			t.Error(a, b)
		}
	})
}
