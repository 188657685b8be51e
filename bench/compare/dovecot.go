package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"runtime"
	"strings"
	"text/template"
)

// dovecotSettings are what doc.dovecot.org says of speed: login processes in "high-performance mode" and a process of
// pop3 that serves one session after the other (admin_manual/login_processes), a cache of logins
// (configuration_manual/authentication/caching), maildir_very_dirty_syncs and pop3_no_flag_updates (maildir, pop3).
// pop3_fast_size_lookups is not set: with it LIST's octets are not those that RETR sends (RFC 1939 section 11).
// mail_fsync = always, because dewey says nothing that is not on the disk.
const dovecotSettings = `protocols = pop3 lmtp
mail_location = maildir:{{.Mail}}/%u
mail_fsync = always
maildir_very_dirty_syncs = yes
pop3_no_flag_updates = yes
auth_mechanisms = plain
auth_username_format = %Ln
auth_cache_size = 100 M
auth_cache_ttl = 1 hour
auth_cache_negative_ttl = 1 hour
disable_plaintext_auth = no
ssl = yes
ssl_min_protocol = TLSv1.3
ssl_cipher_suites = TLS_AES_128_GCM_SHA256
ssl_curve_list = X25519
mail_max_userip_connections = 0
default_client_limit = {{.Connections}}
default_process_limit = {{.Processes}}
service pop3-login {
  service_count = 0
  process_min_avail = {{.CPUs}}
}
service pop3 {
  service_count = 1000
  process_min_avail = 8
  process_limit = {{.Processes}}
}
service lmtp {
  service_count = 0
  process_min_avail = 16
}
`

const dovecotPlaces = `base_dir = {{.Dir}}/run
state_dir = {{.Dir}}/state
log_path = {{.Dir}}/log
listen = 127.0.0.1
first_valid_uid = 0
ssl_cert = <{{.Certificate}}
ssl_key = <{{.Key}}
passdb {
  driver = passwd-file
  args = {{.Dir}}/users
}
userdb {
  driver = static
  args = uid={{.Owner}} gid={{.Owner}} home={{.Dir}}/home/%u allow_all_users=yes
}
service pop3-login {
  chroot =
  inet_listener pop3 {
    port = {{.POP3}}
  }
  inet_listener pop3s {
    port = {{.POP3S}}
  }
}
service lmtp {
  inet_listener lmtp {
    port = {{.LMTP}}
  }
}
service anvil {
  chroot =
}
`

// dovecot sets up Debian's Dovecot.
func (e *environment) dovecot(_ context.Context, s *server) error {
	version, err := exec.Command("dovecot", "--version").Output()
	if err != nil {
		return fmt.Errorf("%w; install dovecot-pop3d and dovecot-lmtpd", err)
	}
	s.version = "Dovecot " + strings.Fields(string(version))[0]
	s.mail, s.sessionsAreProcess = filepath.Join(s.dir, "mail"), true
	data := map[string]any{
		"Dir": s.dir, "Mail": s.mail, "Owner": e.owner, "Certificate": e.certificate, "Key": e.key, "POP3": port(s.pop3), "POP3S": port(s.pop3s),
		"LMTP": port(s.lmtp), "CPUs": runtime.NumCPU(), "Connections": e.mostIdle(true) + 1000, "Processes": e.mostIdle(true) + 200,
	}
	places, err := fill(dovecotPlaces, data)
	if err != nil {
		return err
	}
	settings, err := fill(dovecotSettings, data)
	if err != nil {
		return err
	}
	s.settings = strings.ReplaceAll(settings, e.dir, "DIR")
	if me, err := user.Current(); err == nil && e.owner == os.Getuid() { // who is not root can be nobody else
		if group, err := user.LookupGroupId(me.Gid); err == nil {
			places += fmt.Sprintf("default_internal_user = %[1]s\ndefault_login_user = %[1]s\ndefault_internal_group = %[2]s\n", me.Username, group.Name)
		}
	}
	home, conf := filepath.Join(s.dir, "home"), filepath.Join(s.dir, "conf")
	err = errors.Join(e.makeFolders(s.mail, home), os.WriteFile(conf, []byte(settings+places), 0o600),
		e.writeUsers(filepath.Join(s.dir, "users"), "%s:%s:\n"))
	s.launch = func(s *server) error { return s.begin(exec.Command("dovecot", "-F", "-c", conf)) } //nolint:gosec // our own file
	return err
}

func fill(text string, data any) (string, error) {
	t, err := template.New("").Parse(text)
	if err != nil {
		return "", fmt.Errorf("a template: %w", err)
	}
	var out bytes.Buffer
	if err := t.Execute(&out, data); err != nil {
		return "", fmt.Errorf("a template: %w", err)
	}
	return out.String(), nil
}

// makeFolders makes folders of the mail's owner.
func (e *environment) makeFolders(paths ...string) error {
	for _, path := range paths {
		if err := errors.Join(os.MkdirAll(path, 0o700), os.Chown(path, e.owner, e.owner)); err != nil && e.owner != os.Getuid() {
			return fmt.Errorf("a folder: %w", err)
		}
	}
	return nil
}

// writeUsers writes a line for each user, of his name and his hash.
func (e *environment) writeUsers(path, line string) error {
	var b bytes.Buffer
	hash := hashed()
	for _, name := range e.users {
		fmt.Fprintf(&b, line, name, hash)
	}
	return os.WriteFile(path, b.Bytes(), 0o644) //nolint:gosec,wrapcheck // servers become other users to read it
}
