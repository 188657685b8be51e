package doveauth

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"dewey/auth"
)

// patience is how long a test waits for something that is to come.
const patience = 20 * time.Second

const short = 500 * time.Millisecond

// What a login comes to.
const (
	in       = "in"
	rejected = "rejected"
	unknown  = "unknown"
	cantTell = "can't tell"
)

func outcome(err error) string {
	switch {
	case err == nil:
		return in
	case errors.Is(err, auth.ErrUnknownUser):
		return unknown
	case errors.Is(err, auth.ErrRejected):
		return rejected
	}
	return cantTell
}

// until waits for a condition.
func until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatalf("%s: not in %v", what, patience)
		}
	}
}

// newBackend makes one that leaves nothing behind.
func newBackend(t *testing.T, c Config) *Backend {
	t.Helper()
	leaks := goleak.IgnoreCurrent()
	b, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := b.Close(); err != nil {
			t.Error(err)
		}
		goleak.VerifyNone(t, leaks)
	})
	return b
}

func attempt(user, password string) auth.Attempt {
	return auth.Attempt{User: user, Password: password, Remote: netip.MustParseAddr("127.0.0.9")}
}

// A dovecot is Debian's, started by the test.
type dovecot struct {
	t   *testing.T
	dir string
	cmd *exec.Cmd
}

// configuration is that of docs/DOVECOT-AUTH.md, with folders of the test, and without what the test has no use for.
const configuration = `protocols = pop3
base_dir = %[1]s/run
state_dir = %[1]s/state
log_path = %[1]s/log
listen = 127.0.0.1
ssl = no
disable_plaintext_auth = yes
auth_mechanisms = plain
auth_failure_delay = 0
service pop3-login {
  chroot =
  inet_listener pop3 {
    port = 0
  }
  inet_listener pop3s {
    port = 0
  }
}
service anvil {
  chroot =
}
service stats {
  chroot =
}
service auth {
  unix_listener auth-client {
    mode = 0660
  }
  unix_listener auth-userdb {
    mode = 0660
  }
}
passdb {
  driver = passwd-file
  args = scheme=PLAIN username_format=%%u %[1]s/users
}
userdb {
  driver = passwd-file
  args = username_format=%%u %[1]s/users
}
%[2]s
`

const people = `alice@example.org:{PLAIN}a secret:5000:5000::/srv/mail/alice::userdb_quota_rule=*:storage=100M
bob:{PLAIN}bob's secret:5000:5000::/srv/mail/bob::userdb_mail=maildir:~/Maildir userdb_quota_rule=*:storage=1G:messages=10
carol:{PLAIN}a secret:5000:5000::::
nologin:{PLAIN}a secret:5000:5000::/srv/mail/x::nologin=y
proxied:{PLAIN}a secret:5000:5000::/srv/mail/x::proxy=y host=192.0.2.1
nets:{PLAIN}a secret:5000:5000::/srv/mail/x::allow_nets=192.0.2.0/24
here:{PLAIN}a secret:5000:5000::/srv/mail/x::allow_nets=127.0.0.9/32
relative:{PLAIN}a secret:5000:5000::mail/x::
badquota:{PLAIN}a secret:5000:5000::/srv/mail/x::userdb_quota_rule=*:storage=much
`

// newDovecot starts one, and returns when its sockets are there.
func newDovecot(t *testing.T, more string) *dovecot {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Fatal("not root: Dovecot is started as root")
	}
	if _, err := exec.LookPath("dovecot"); err != nil {
		t.Fatalf("%v: apt-get install dovecot-pop3d", err)
	}
	dir, err := os.MkdirTemp("", "doveauth") // for Dovecot's own users
	if err != nil {
		t.Fatal(err)
	}
	d := &dovecot{t: t, dir: dir}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	if err := errors.Join(os.Chmod(dir, 0o755), os.WriteFile(d.path("users"), []byte(people), 0o644),
		os.WriteFile(d.path("conf"), fmt.Appendf(nil, configuration, dir, more), 0o644)); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(d.stop)
	d.start()
	return d
}

func (d *dovecot) path(name string) string { return filepath.Join(d.dir, name) }

func (d *dovecot) start() {
	d.t.Helper()
	d.cmd = exec.Command("dovecot", "-F", "-c", d.path("conf"))
	if err := d.cmd.Start(); err != nil {
		d.t.Fatal(err)
	}
	until(d.t, "Dovecot's sockets", func() bool {
		text, _ := os.ReadFile(d.path("log"))
		return strings.Count(string(text), "starting up") > 0 && exists(d.path("run/auth-client")) && exists(d.path("run/auth-userdb")) && exists(d.path("run/master.pid"))
	})
}

func (d *dovecot) stop() {
	if d.cmd == nil {
		return
	}
	_ = d.cmd.Process.Signal(syscall.SIGCONT)
	_ = d.cmd.Process.Signal(syscall.SIGTERM)
	_ = d.cmd.Wait()
	d.cmd = nil
	_ = os.Remove(d.path("log"))
}

func exists(name string) bool { _, err := os.Stat(name); return err == nil }

// auth is the number of the auth process.
func (d *dovecot) auth() int {
	d.t.Helper()
	text, _ := os.ReadFile(fmt.Sprintf("/proc/%d/task/%[1]d/children", d.cmd.Process.Pid))
	for field := range strings.FieldsSeq(string(text)) {
		if name, _ := os.ReadFile("/proc/" + field + "/comm"); string(name) == "auth\n" {
			pid, _ := strconv.Atoi(field)
			return pid
		}
	}
	d.t.Fatal("Dovecot has no auth process")
	return 0
}

func (d *dovecot) backend(change func(*Config)) *Backend {
	d.t.Helper()
	c := Config{AuthSocket: d.path("run/auth-client"), UserDBSocket: d.path("run/auth-userdb"), Timeout: patience}
	if change != nil {
		change(&c)
	}
	return newBackend(d.t, c)
}
