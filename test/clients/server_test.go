package clients

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// A server is a POP3 server that runs as a process of its own, with one user.
type server struct {
	address string // 127.0.0.1:port
	secure  string // the same, of POP3 inside TLS
	ca      string // who signed its certificate, in PEM
	maildir string // of the user
	owner   int    // whose the Maildir is, if not the test's
	log     logFile
}

const (
	user     = "mrose"
	password = "a secret" // with a space: trap 38
)

// A peer starts a server of one kind in a folder of its own. It stops with the test.
type peer func(t *testing.T) *server

// startDewey builds dewey, the first time, and starts it as it is without any configuration but for
// the ports and the certificate.
func startDewey(t *testing.T) *server {
	t.Helper()
	return deweyWith(t, "argon2id", servedBy(t, nil)...)
}

// servedBy makes the settings for a certificate that the tests' own authority signed, or the other.
func servedBy(t *testing.T, a *authority) []string {
	t.Helper()
	if a == nil {
		a, _ = authorities()
	}
	dir := t.TempDir()
	c := a.forServer()
	writeFile(t, filepath.Join(dir, "cert.pem"), c.chain)
	writeFile(t, filepath.Join(dir, "key.pem"), c.key)
	return []string{"tls.certificate=" + filepath.Join(dir, "cert.pem"), "tls.key=" + filepath.Join(dir, "key.pem")}
}

// deweyWith builds dewey, the first time, and starts it. The user's password is kept by the scheme.
// Without a certificate among the settings dewey makes one itself.
func deweyWith(t *testing.T, scheme string, settings ...string) *server {
	t.Helper()
	dewey, err := buildDewey()
	if err != nil {
		t.Fatal(err)
	}
	data := t.TempDir()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	add := exec.CommandContext(ctx, dewey, "user", "add", user, "--weak", "--scheme", scheme, "--set", "data="+data)
	add.Dir = data
	add.Stdin = strings.NewReader(password + "\n")
	if out, err := add.CombinedOutput(); err != nil {
		t.Fatalf("dewey user add: %v\n%s", err, out)
	}

	own, _ := authorities()
	s := &server{maildir: filepath.Join(data, "mail", user), ca: own.pem}
	args := []string{"serve"}
	for _, set := range append([]string{
		"data=" + data, "pop3.listen=127.0.0.1:0", "pop3s.listen=127.0.0.1:0", "lmtp.listen=",
	}, settings...) {
		args = append(args, "--set", set)
	}
	serve := exec.Command(dewey, args...)
	serve.Dir = data
	s.run(t, serve)
	s.await(t, func() bool {
		s.address, s.secure = s.listens("pop3"), s.listens("pop3s")
		return s.address != "" && s.secure != ""
	})
	if made, err := os.ReadFile(filepath.Join(data, "tls", "cert.pem")); err == nil {
		s.ca = string(made)
	}
	return s
}

// listens finds in dewey's log where it listens.
func (s *server) listens(protocol string) string {
	found := regexp.MustCompile(`msg=listening key=` + protocol + `\.listen address=(127\.0\.0\.1:\d+)`).
		FindStringSubmatch(s.log.String())
	if found == nil {
		return ""
	}
	return found[1]
}

// startDovecot starts Debian's Dovecot, the control.
func startDovecot(t *testing.T) *server {
	t.Helper()
	// The path of Dovecot's sockets has a limit of about a hundred octets, so not t.TempDir.
	base, err := os.MkdirTemp("", "dovecot")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(base) })
	if err := os.Chmod(base, 0o755); err != nil {
		t.Fatal(err)
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := listener.Addr().(*net.TCPAddr)
	_ = listener.Close()

	owner := os.Getuid()
	if owner == 0 {
		owner = nobody // Dovecot serves no mail as root
	}
	conf := fmt.Sprintf(`base_dir = %[1]s/run
state_dir = %[1]s/state
log_path = /dev/stderr
listen = 127.0.0.1
protocols = pop3
ssl = no
disable_plaintext_auth = no
auth_mechanisms = plain
auth_failure_delay = 1 secs
mail_max_userip_connections = 100
first_valid_uid = 0
mail_location = maildir:%[1]s/mail/%%u
pop3_lock_session = yes
mbox_lock_timeout = 1s
passdb {
  driver = passwd-file
  args = %[1]s/users
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
service anvil {
  chroot =
}
`, base, owner, address.Port)
	writeFile(t, filepath.Join(base, "dovecot.conf"), conf)
	for _, dir := range []string{"mail", "home"} {
		path := filepath.Join(base, dir)
		if err := errors.Join(os.Mkdir(path, 0o700), os.Chown(path, owner, owner)); err != nil {
			t.Fatal(err)
		}
	}
	writeFile(t, filepath.Join(base, "users"), user+":{PLAIN}"+password+"::::::\n")
	if err := os.Chmod(filepath.Join(base, "users"), 0o644); err != nil {
		t.Fatal(err)
	}

	s := &server{address: address.String(), maildir: filepath.Join(base, "mail", user), owner: owner}
	s.run(t, exec.Command("dovecot", "-F", "-c", filepath.Join(base, "dovecot.conf")))
	s.await(t, func() bool {
		conn, err := net.DialTimeout("tcp", s.address, time.Second)
		if err != nil {
			return false
		}
		defer conn.Close()
		_ = conn.SetDeadline(time.Now().Add(5 * time.Second))
		_, err = bufio.NewReader(conn).ReadString('\n')
		return err == nil
	})
	return s
}

// run starts the server's process and sees to it that it ends with the test.
func (s *server) run(t *testing.T, cmd *exec.Cmd) {
	t.Helper()
	log, err := os.Create(filepath.Join(t.TempDir(), "log"))
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	s.log = logFile(log.Name())
	cmd.Stdout, cmd.Stderr = log, log
	cmd.WaitDelay = 5 * time.Second
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		select {
		case err := <-ended:
			if err != nil {
				t.Errorf("server ended badly: %v", err)
			}
		case <-time.After(20 * time.Second):
			t.Errorf("server did not end 20 seconds after SIGTERM; killed")
			_ = cmd.Process.Kill()
			<-ended
		}
		if t.Failed() {
			t.Logf("server log:\n%s", tail(s.log.String(), 40))
		}
	})
}

// await asks ready again and again until it says yes, for half a minute.
func (s *server) await(t *testing.T, ready func() bool) {
	t.Helper()
	deadline := time.Now().Add(30 * time.Second)
	for !ready() {
		if time.Now().After(deadline) {
			t.Fatalf("server is not ready after 30 seconds:\n%s", s.log.String())
		}
		time.Sleep(20 * time.Millisecond) // between two looks; nothing depends on its length
	}
}

// port is where the server listens, for POP3 inside TLS or in plain.
func (s *server) port(tls transport) string {
	address := s.address
	if tls == implicit {
		address = s.secure
	}
	_, port, _ := net.SplitHostPort(address)
	return port
}

// occupy logs in and stays, so that the maildrop is busy until the returned function is called.
func (s *server) occupy(t *testing.T) (leave func()) {
	t.Helper()
	conn, err := net.DialTimeout("tcp", s.address, 5*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	_ = conn.SetDeadline(time.Now().Add(2 * time.Minute))
	in := bufio.NewReader(conn)
	expectOK := func(command string) {
		if command != "" {
			if _, err := io.WriteString(conn, command+"\r\n"); err != nil {
				t.Fatal(err)
			}
		}
		if line, err := in.ReadString('\n'); err != nil || !strings.HasPrefix(line, "+OK") {
			t.Fatalf("%q: %q, %v", command, line, err)
		}
	}
	expectOK("")
	expectOK("USER " + user)
	expectOK("PASS " + password)
	expectOK("STAT") // Dovecot says +OK to PASS before it has the lock
	return func() { expectOK("QUIT") }
}

// buildDewey builds cmd/dewey, once, and returns the program's path.
var buildDewey = sync.OnceValues(func() (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Minute)
	defer cancel()
	path := filepath.Join(buildDir, "dewey")
	build := exec.CommandContext(ctx, "go", "build", "-o", path, "dewey/cmd/dewey")
	build.Env = append(os.Environ(), "CGO_ENABLED=0") // as it is shipped: only so can it give up its rights
	if out, err := build.CombinedOutput(); err != nil {
		return "", fmt.Errorf("go build dewey/cmd/dewey: %w\n%s", err, out)
	}
	return path, nil
})

func writeFile(t *testing.T, path, content string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}

func tail(text string, lines int) string {
	all := strings.SplitAfter(text, "\n")
	return strings.Join(all[max(0, len(all)-lines):], "")
}

// A logFile is what a process prints, as the test reads it. It is a file, not a pipe: what the server
// wrote before it answered is there when the client has ended.
type logFile string

func (f logFile) String() string {
	content, err := os.ReadFile(string(f))
	if err != nil {
		return err.Error()
	}
	return string(content)
}
