package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// ownSettings are for a machine all of whose clients come from one address; the rest are defaults. The scheme is one
// that dewey calls weak: see password.
const ownSettings = `users.weak_schemes = true

[login]
max_per_address = 100000
trusted_networks = ["127.0.0.1"]
`

const ownPlaces = `data = "{{.Dir}}/data"
pop3.listen = ["{{.POP3}}"]
pop3s.listen = ["{{.POP3S}}"]
lmtp.listen = ["{{.LMTP}}"]
tls.certificate = "{{.Certificate}}"
tls.key = "{{.Key}}"
users.file = "{{.Dir}}/users"
maildir.path = "{{.Mail}}/{user}"
{{if .User}}process.user = "{{.User}}"
{{end}}`

// ownServer sets up dewey.
func (e *environment) ownServer(_ context.Context, s *server) error {
	version, err := exec.Command(e.dewey, "version").Output() //nolint:gosec // built here
	if err != nil {
		return fmt.Errorf("dewey version: %w", err)
	}
	s.version = strings.TrimSpace(strings.SplitN(string(version), "\n", 2)[0])
	s.mail, s.settings = filepath.Join(s.dir, "mail"), ownSettings
	data := map[string]any{
		"Dir": s.dir, "Mail": s.mail, "POP3": s.pop3, "POP3S": s.pop3s, "LMTP": s.lmtp, "Certificate": e.certificate, "Key": e.key, "User": "",
	}
	if e.owner != os.Getuid() {
		data["User"] = fmt.Sprint(e.owner)
	}
	places, err := fill(ownPlaces, data)
	if err != nil {
		return err
	}
	conf := filepath.Join(s.dir, "conf")
	err = errors.Join(e.makeFolders(s.mail, filepath.Join(s.dir, "data")), os.WriteFile(conf, []byte(places+ownSettings), 0o600),
		e.writeUsers(filepath.Join(s.dir, "users"), "%s:%s\n"))
	s.launch = func(s *server) error { return s.begin(exec.Command(e.dewey, "serve", "--config", conf)) } //nolint:gosec // our own file
	return err
}
