package bench_test

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"dewey/bench"
)

// startDovecot starts Debian's Dovecot and returns the addresses of its POP3 and LMTP, and its process.
func startDovecot(t *testing.T) (pop3, lmtp string, pid int) {
	t.Helper()
	base, err := os.MkdirTemp("", "dovecot") // t.TempDir is too long for its sockets
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(base) })
	free := func() int {
		l := listen(t)
		defer l.Close()
		return l.Addr().(*net.TCPAddr).Port
	}
	owner := os.Getuid()
	if owner == 0 {
		owner = 65534 // Dovecot serves no mail as root
	}
	popPort, lmtpPort := free(), free()
	conf := fmt.Sprintf(`base_dir = %[1]s/run
state_dir = %[1]s/state
log_path = %[1]s/log
listen = 127.0.0.1
protocols = pop3 lmtp
ssl = no
disable_plaintext_auth = no
auth_mechanisms = plain apop
first_valid_uid = 0
mail_max_userip_connections = 100
mail_location = maildir:%[1]s/mail/%%u
passdb {
  driver = static
  args = password=secret
}
userdb {
  driver = static
  args = uid=%[2]d gid=%[2]d home=%[1]s/home/%%u
}
service pop3-login {
  chroot =
  inet_listener pop3 {
    port = %[3]d
  }
  inet_listener pop3s {
    port = 0
  }
}
service lmtp {
  inet_listener lmtp {
    port = %[4]d
  }
}
service anvil {
  chroot =
}
`, base, owner, popPort, lmtpPort)
	if me, err := user.Current(); err == nil && owner == os.Getuid() { // who is not root can be nobody else
		if group, err := user.LookupGroupId(me.Gid); err == nil {
			conf += fmt.Sprintf("default_internal_user = %[1]s\ndefault_login_user = %[1]s\ndefault_internal_group = %[2]s\n", me.Username, group.Name)
		}
	}
	path := filepath.Join(base, "conf")
	err = errors.Join(os.Chmod(base, 0o755), os.WriteFile(path, []byte(conf), 0o600))
	for _, dir := range []string{"mail", "home"} {
		dir = filepath.Join(base, dir)
		err = errors.Join(err, os.Mkdir(dir, 0o700), os.Chown(dir, owner, owner))
	}
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	cmd := exec.Command("dovecot", "-F", "-c", path)
	cmd.Stdout, cmd.Stderr, cmd.WaitDelay = &out, &out, 5*time.Second
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		if err := cmd.Wait(); err != nil || t.Failed() {
			log, _ := os.ReadFile(filepath.Join(base, "log"))
			t.Logf("Dovecot: %v\n%s%s", err, out.Bytes(), log)
		}
	})
	pop3, lmtp = fmt.Sprint("127.0.0.1:", popPort), fmt.Sprint("127.0.0.1:", lmtpPort)
	for deadline := time.Now().Add(patience); ; {
		c, err := net.DialTimeout("tcp", pop3, time.Second)
		if err == nil {
			_ = c.SetDeadline(time.Now().Add(5 * time.Second))
			n, _ := c.Read(make([]byte, 3))
			c.Close()
			if n == 3 {
				return pop3, lmtp, cmd.Process.Pid
			}
		}
		if time.Now().After(deadline) {
			t.Fatalf("Dovecot does not answer: %s", out.String())
		}
	}
}

// Another server than ours: all that there is, and its processes, of which each session has one that ends with it.
func TestDovecot(t *testing.T) {
	pop3, lmtp, pid := startDovecot(t)
	o := options(lmtp)
	for i := range o.Users {
		o.Users[i].Password = "secret"
	}
	o.Count, o.PerMessage, o.Watch = 6, 2, bench.Watch{PIDs: []int{pid}}
	run := func(name string, want map[string]int64) {
		t.Helper()
		r, err := bench.Run(t.Context(), name, o)
		if err != nil {
			t.Fatal(err)
		}
		for what, n := range want {
			if got := count(r, what); got != n {
				t.Errorf("%s: %d %s, want %d", name, got, what, n)
			}
		}
		if r.Server.CPU <= 0 || len(r.Server.Notes) > 0 || r.Server.ProcessesBefore < 3 {
			t.Errorf("%s: %+v", name, r.Server)
		}
	}
	run("deliver", map[string]int64{"deliveries": 12, "messages": 6})
	o.Address, o.Count = pop3, 4 // 3 messages in each of 4 maildrops
	for _, how := range []string{bench.AuthUser, bench.AuthAPOP, bench.AuthPlain} {
		o.Auth = how
		run("poll", map[string]int64{"sessions": 4, "messages": 12})
	}
	run("open", map[string]int64{"sessions": 4, "messages": 12})
	run("fetch", map[string]int64{"sessions": 4, "messages": 12})
	run("pipeline", map[string]int64{"sessions": 4, "commands": 60})
	o.Duration = time.Millisecond
	run("idle", map[string]int64{"connections": 2, "sessions": 2})
	o.Duration = 0
	run("update", map[string]int64{"sessions": 4, "messages": 12})
}
