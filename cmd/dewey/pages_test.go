package main

import (
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"dewey/auth/oidc/oidctest"
	"dewey/config"
)

// The configurations of the backends' pages are taken as they stand, but for the files that they name; each backend's own
// tests run them against the real thing.
func TestPagesOfBackends(t *testing.T) {
	folder := t.TempDir()
	for _, name := range []string{"users", "partners", "id-secret", "ldap-password", "dsn"} {
		write(t, filepath.Join(folder, name), "")
	}
	for name, kind := range map[string]string{
		"AUTH.md": config.KindPasswdFile, "LDAP.md": config.KindLDAP, "SQL.md": config.KindSQL, "OAUTH.md": config.KindOAuth,
		"PAM.md": config.KindPAM, "DOVECOT-AUTH.md": config.KindDovecot,
	} {
		found := false
		for _, block := range page(t, name, "/etc/dewey/", folder+"/", "/var/lib/dewey", folder) {
			file := filepath.Join(folder, "dewey.toml")
			write(t, file, block)
			c, err := config.Load(file, nil)
			if err != nil {
				t.Errorf("%s: %v in\n%s", name, err, block)
				continue
			}
			found = found || c.Has(kind)
			for _, a := range c.Auth {
				for _, secret := range []string{a.BindPasswordFile, a.ClientSecretFile, a.DSNFile} {
					if text, err := os.ReadFile(secret); secret != "" && err == nil && len(text) == 0 || os.IsNotExist(err) && strings.HasPrefix(secret, folder) {
						write(t, secret, secretOf(a.Driver))
					}
				}
				if strings.HasPrefix(a.CAFile, folder) {
					write(t, a.CAFile, string(oidctest.New(t).Certificate()))
				}
			}
			b, err := openBackends(c, nil, slog.New(slog.DiscardHandler))
			if err != nil {
				t.Errorf("%s: %v in\n%s", name, err, block)
				continue
			}
			b.closing()
		}
		if !found {
			t.Errorf("%s has no configuration with the kind %s", name, kind)
		}
	}
}

// secretOf is what a file with a secret has.
func secretOf(driver string) string {
	switch driver {
	case "postgres":
		return "postgres://dewey:secret@127.0.0.1/mail\n"
	case "mysql":
		return "dewey:secret@tcp(127.0.0.1:3306)/mail\n"
	}
	return "secret\n"
}
