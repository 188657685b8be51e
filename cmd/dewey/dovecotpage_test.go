package main

import (
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// What the test adds to the page's dovecot.conf: its folders, and no ports.
const dovecotOfTest = `base_dir = %[1]s/run
state_dir = %[1]s/state
log_path = %[1]s/log
listen = 127.0.0.1
service imap-login {
  chroot =
  inet_listener imap {
    port = 0
  }
  inet_listener imaps {
    port = 0
  }
}
service anvil {
  chroot =
}
service stats {
  chroot =
}
`

// dovecot starts one with the page's users and configuration, until the test ends.
func (s *setup) dovecot(users, conf string) {
	s.t.Helper()
	group, err := user.LookupGroup("dovecot")
	if err != nil {
		s.t.Fatalf("%v: apt-get install dovecot-imapd", err)
	}
	gid, err := strconv.Atoi(group.Gid)
	if err != nil {
		s.t.Fatal(err)
	}
	write(s.t, s.path("users"), users)
	write(s.t, s.path("dovecot.conf"), conf+fmt.Sprintf(dovecotOfTest, s.folder))
	if err := os.Chown(s.path("users"), 0, gid); err != nil {
		s.t.Fatal(err)
	}
	if err := os.Chmod(s.path("users"), 0o640); err != nil {
		s.t.Fatal(err)
	}
	cmd := exec.Command("dovecot", "-F", "-c", s.path("dovecot.conf"))
	said := &strings.Builder{}
	cmd.Stderr = said
	if err := cmd.Start(); err != nil {
		s.t.Fatalf("%v: apt-get install dovecot-imapd", err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	s.t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		select {
		case <-ended:
		case <-time.After(patience):
			_ = cmd.Process.Kill()
			s.t.Error("Dovecot does not end")
		}
		if log, _ := os.ReadFile(s.path("log")); s.t.Failed() {
			s.t.Logf("Dovecot's log:\n%s", log)
		}
	})
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(patience); ; {
		log, _ := os.ReadFile(s.path("log"))
		if strings.Contains(string(log), "starting up") {
			return
		}
		select {
		case err := <-ended:
			ended <- err
			s.t.Fatalf("Dovecot: %v: %s", err, said)
		case <-tick.C:
		}
		if time.Now().After(end) {
			s.t.Fatalf("Dovecot does not start:\n%s", log)
		}
	}
}

// docs/DOVECOT-AUTH.md as it stands, but for folders, ports and the name of vmail, with Debian's Dovecot.
func TestDovecotPage(t *testing.T) {
	const mrose = "mrose@example.org"
	s := newSetup(t, "DOVECOT-AUTH.md", "user = vmail", "user = nobody")
	s.replace = append(s.replace, "/etc/dovecot/users", s.path("users"), "/run/dovecot", s.path("run"))
	files, tables := s.blocks("", 2), s.blocks("toml", 2)
	s.dovecot(files[0], files[1])

	p, pop3, pop3s, lmtp := s.serve(tables[0])
	s.comesIn(lmtp, mrose)
	s.fetches(pop3s, "1", mrose, "a secret", "the body")
	s.fetches(pop3s, "1", "MRose@Example.ORG", "a secret", "the body")
	s.refused(pop3, mrose)
	p.endsWell()
	maildir := s.path("vmail/example.org/mrose")
	if _, home, _ := strings.Cut(files[0], "::"); !strings.HasPrefix(home, maildir+"::") { // mail_location is maildir:~
		t.Errorf("Dovecot has another Maildir than %s: %s", maildir, home)
	}
	for _, c := range []struct {
		password string
		args     []string
		code     int
		words    []string
	}{
		{"a secret", []string{mrose}, 0, []string{maildir + "\n", "1073741824 octets"}},
		{"another", []string{mrose}, exitRefused, []string{"[AUTH]"}},
		{"a secret", []string{"nosuchuser"}, exitRefused, []string{"no such user"}},
		{"", []string{"--recipient", mrose}, 0, []string{maildir + "\n", "1073741824 octets"}},
		{"", []string{"--recipient", "nosuchuser@example.org"}, exitRefused, []string{"550"}},
	} {
		code, out := s.test(c.password, c.args...)
		for _, word := range c.words {
			if code != c.code || !strings.Contains(out, word) {
				t.Errorf("auth test %q: %d, want %d and %s\n%s", c.args, code, c.code, word, out)
			}
		}
	}

	// Without auth-userdb.
	p, pop3, pop3s, lmtp = s.serve(tables[1])
	s.fetches(pop3s, "1", mrose, "a secret", "the body")
	s.refused(pop3, mrose)
	s.staysOut(lmtp, mrose)
	p.endsWell()
}
