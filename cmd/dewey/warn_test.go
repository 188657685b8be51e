package main

import (
	"bytes"
	"log/slog"
	"path/filepath"
	"strings"
	"testing"

	"dewey/config"
)

// A backend that knows nobody by name leaves its users' names to later ones, wherever somebody comes in without a password.
func TestWarnOfNames(t *testing.T) {
	const (
		external = "[tls]\nclient_ca = '/etc/dewey/ca.pem'\n"
		scram    = "[login]\nmechanisms = ['PLAIN', 'SCRAM-SHA-256']\n"
		plain    = "[login]\nmechanisms = ['PLAIN']\n"
		pam      = "[[auth]]\nkind = 'pam'\nrecipients = 'none'\n"
		dovecot  = "[[auth]]\nkind = 'dovecot'\nuserdb_socket = ''\n"
		files    = "[[auth]]\nkind = 'passwd-file'\n"
		ldap     = "[[auth]]\nkind = 'ldap'\nurls = ['ldap://127.0.0.1']\nbase = 'dc=x'\nfilter = '(uid={user})'\n"
		oauth    = "[[auth]]\nkind = 'oauth'\nissuer = 'https://id.example.org'\naudiences = ['dewey']\n"
	)
	for text, want := range map[string]string{
		scram + pam + files:                           "backend=pam later=passwd-file",
		scram + dovecot + files:                       "backend=dovecot later=passwd-file",
		external + pam + ldap:                         "backend=pam later=ldap",
		oauth + pam + dovecot + files:                 "backend=pam later=passwd-file",
		external + scram + ldap + pam + files:         "backend=pam later=passwd-file",
		external + plain + pam + files:                "", // no EXTERNAL
		pam + files:                                   "", // passwords alone
		scram + pam + ldap:                            "", // nobody there has secrets
		external + scram + files + pam:                "",
		external + pam + dovecot:                      "",
		oauth + files + pam:                           "",
		oauth + "users = 'any'\n" + pam + files:       "", // nobody is looked up
		external + "[[auth]]\nkind = 'pam'\n" + files: "",
		external + pam + "domains = ['one.example']\n" + files + "domains = ['two.example']\n":                "",
		external + pam + "domains = ['one.example']\n" + files + "domains = ['two.example', 'one.example']\n": "backend=pam later=passwd-file",
	} {
		file := filepath.Join(t.TempDir(), "dewey.toml")
		write(t, file, text)
		c, err := config.Load(file, nil)
		if err != nil {
			t.Fatal(err)
		}
		var log bytes.Buffer
		d := &daemon{log: slog.New(slog.NewTextHandler(&log, nil))}
		d.warnOfNames(c)
		if got := log.String(); (got == "") != (want == "") || !strings.Contains(got, want) || strings.Count(got, "level=WARN") > 2 {
			t.Errorf("%s: %q, want %q", text, got, want)
		}
	}
}
