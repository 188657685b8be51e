package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// A setup is what a page tells an administrator to make, in folders of the test; nobody is its vmail.
type setup struct {
	t       *testing.T
	folder  string
	name    string   // of the page
	replace []string // the machine's names on it
}

const nobodyID = 65534 // Debian's nobody and nogroup

func newSetup(t *testing.T, name string, replace ...string) *setup {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Fatal("not root: the page's commands are root's; run this test as root")
	}
	folder, err := os.MkdirTemp("", "dewey-page") // t.TempDir lies in a folder that is root's alone
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(folder) })
	if err := os.Chmod(folder, 0o755); err != nil {
		t.Fatal(err)
	}
	s := &setup{t, folder, name, append(replace, "/etc/dewey/", folder+"/", "/var/lib/dewey", folder+"/data", "/var/vmail", folder+"/vmail",
		`":110"`, `"127.0.0.1:0"`, `":995"`, `"127.0.0.1:0"`, `user = "vmail"`, `user = "nobody"`)}
	for _, name := range []string{s.path("data"), s.path("vmail")} {
		if err := os.Mkdir(name, 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.Chown(name, nobodyID, nobodyID); err != nil {
			t.Fatal(err)
		}
	}
	return s
}

func (s *setup) path(name string) string { return filepath.Join(s.folder, name) }

// blocks returns the page's texts of a language, which are n, with what stands in them for the machine put in.
func (s *setup) blocks(language string, n int) []string {
	s.t.Helper()
	text, err := os.ReadFile(filepath.Join("..", "..", "docs", s.name))
	if err != nil {
		s.t.Fatal(err)
	}
	var blocks []string
	inside, kind, block := false, "", ""
	for line := range strings.Lines(string(text)) {
		switch fence, ok := strings.CutPrefix(line, "```"); {
		case ok && !inside:
			inside, kind, block = true, strings.TrimSpace(fence), ""
		case ok:
			if inside = false; kind == language {
				blocks = append(blocks, strings.NewReplacer(s.replace...).Replace(block))
			}
		default:
			block += line
		}
	}
	if len(blocks) != n {
		s.t.Fatalf("%s has %d texts of the language %q, not %d", s.name, len(blocks), language, n)
	}
	return blocks
}

// serve starts a static dewey with a configuration of the page, and LMTP, and returns the addresses.
func (s *setup) serve(text string) (p *process, pop3, pop3s, lmtp string) {
	s.t.Helper()
	write(s.t, s.path("dewey.toml"), text)
	p = startStatic(s.t, "--config", s.path("dewey.toml"), "--set", "lmtp.listen=127.0.0.1:0")
	address := func(key string) string { return field(p.saw1(s.t, "msg=listening", "key="+key+".listen"), "address") }
	return p, address("pop3"), address("pop3s"), address("lmtp")
}

// test is `dewey auth test`.
func (s *setup) test(password string, args ...string) (int, string) {
	s.t.Helper()
	name, err := static()
	if err != nil {
		s.t.Fatal(err)
	}
	cmd := exec.CommandContext(s.t.Context(), name, append([]string{"auth", "test", "--config", s.path("dewey.toml")}, args...)...)
	cmd.Stdin = strings.NewReader(password + "\n")
	out, err := cmd.CombinedOutput()
	if cmd.ProcessState == nil {
		s.t.Fatal(err)
	}
	return cmd.ProcessState.ExitCode(), string(out)
}

// comesIn wants a message for him to come in by LMTP, and a stranger to be refused.
func (s *setup) comesIn(lmtp, recipient string) {
	s.t.Helper()
	c := lmtpClient(s.t, "tcp", lmtp)
	c.say("MAIL FROM:<ann@example.com>", "250")
	c.say("RCPT TO:<nosuchuser@example.org>", "550")
	c.say("RCPT TO:<"+recipient+">", "250")
	c.say("DATA", "354")
	c.say("Subject: one\r\n\r\nthe body\r\n.", "250")
	c.say("QUIT", "221")
}

// staysOut wants mail for him to be refused for good.
func (s *setup) staysOut(lmtp, recipient string) {
	s.t.Helper()
	c := lmtpClient(s.t, "tcp", lmtp)
	c.say("MAIL FROM:<ann@example.com>", "250")
	c.say("RCPT TO:<"+recipient+">", "550")
	c.say("QUIT", "221")
}

// fetches wants curl to get at a path of POP3S, and text to be there.
func (s *setup) fetches(pop3s, path, user, password, text string) {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.t.Context(), patience)
	defer cancel()
	out, err := exec.CommandContext(ctx, "curl", "-sS", "-k", "-u", user+":"+password, "pop3s://"+pop3s+"/"+path).CombinedOutput()
	if err != nil || !strings.Contains(string(out), text) {
		s.t.Errorf("curl (Debian package curl) as %s: %v, %s", user, err, out)
	}
}

// refused wants [AUTH] for a wrong password and for a stranger.
func (s *setup) refused(pop3, user string) {
	s.t.Helper()
	for _, name := range []string{user, "nosuchuser", "nosuchuser@example.org"} {
		c := dial(s.t, pop3)
		c.ok("USER " + name)
		fmt.Fprint(c.conn, "PASS another\r\n")
		if reply := c.read(); !strings.HasPrefix(reply, "-ERR [AUTH] ") {
			s.t.Errorf("%s with a wrong password: %q", name, reply)
		}
		_ = c.conn.Close() // who is in keeps the server from its end
	}
}

func (p *process) endsWell() {
	p.t.Helper()
	p.signal(syscall.SIGTERM)
	if code := p.end(); code != 0 {
		p.t.Errorf("exit code %d", code)
	}
}

// besideStatic builds dewey-pam beside the static dewey, as `make pam` does, where it is looked for.
var besideStatic = sync.OnceValues(func() (string, error) {
	if _, err := os.Stat("/usr/include/security/pam_appl.h"); err != nil {
		return "", fmt.Errorf("%w: apt-get install gcc libpam0g-dev", err)
	}
	dewey, err := static()
	if err != nil {
		return "", err
	}
	name := filepath.Join(filepath.Dir(dewey), "dewey-pam")
	build := exec.Command("go", "build", "-C", "../../pam-helper", "-trimpath", "-o", name, ".")
	build.Env = append(os.Environ(), "CGO_ENABLED=1")
	if out, err := build.CombinedOutput(); err != nil {
		return "", fmt.Errorf("go build: %w\n%s", err, out)
	}
	return name, os.Chmod(name, 0o755)
})

// accountOf makes a user of the system until the test ends.
func accountOf(t *testing.T, user, password string) {
	t.Helper()
	t.Cleanup(func() {
		if out, err := exec.Command("userdel", user).CombinedOutput(); err != nil {
			t.Errorf("userdel %s: %v: %s", user, err, out)
		}
	})
	if out, err := exec.Command("useradd", "--no-create-home", "--shell", "/usr/sbin/nologin", user).CombinedOutput(); err != nil {
		t.Fatalf("useradd (Debian package passwd): %v: %s", err, out)
	}
	cmd := exec.Command("chpasswd")
	cmd.Stdin = strings.NewReader(user + ":" + password + "\n")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("chpasswd: %v: %s", err, out)
	}
}

// docs/PAM.md as it stands, but for folders, ports, and the names of the service and of vmail, with a user of the system.
func TestPAMPage(t *testing.T) {
	helper, err := besideStatic()
	if err != nil {
		t.Fatal(err)
	}
	service, user := fmt.Sprintf("dewey-test-%d", os.Getpid()), fmt.Sprintf("deweypage%d", os.Getpid())
	s := newSetup(t, "PAM.md", `service = "dewey"`, `service = "`+service+`"`, "-service dewey ", "-service "+service+" ", "-allow vmail", "-allow nobody",
		"/usr/local/bin/dewey-pam", helper)
	s.replace = append(s.replace, "/run/dewey-pam", s.path("run"), "/usr/local/sbin", s.folder,
		"recipients = \"none\"\n", "recipients = \"none\"\nservice = \""+service+"\"\n") // the default is dewey
	services, tables := s.blocks("", 2), s.blocks("toml", 3)
	serviceFile := "/etc/pam.d/" + service
	pam := func(text string) {
		t.Helper()
		if err := os.WriteFile(serviceFile, []byte(text), 0o644); err != nil {
			t.Fatalf("%v (Debian package libpam-runtime)", err)
		}
	}
	t.Cleanup(func() { _ = os.Remove(serviceFile) })
	pam(services[0])
	accountOf(t, user, "a secret")

	// By dewey.
	p, pop3, pop3s, lmtp := s.serve(tables[0])
	s.comesIn(lmtp, user+"@example.org")
	s.fetches(pop3s, "1", user, "a secret", "the body")
	s.fetches(pop3s, "1", strings.ToUpper(user), "a secret", "the body")
	s.refused(pop3, user)
	s.staysOut(lmtp, "root@example.org")
	p.endsWell()
	for _, c := range []struct {
		password string
		args     []string
		code     int
		words    string
	}{
		{"a secret", []string{user}, 0, s.path("vmail/" + user)},
		{"another", []string{user}, exitRefused, "[AUTH]"},
		{"a secret", []string{"root"}, exitRefused, "no such user"},
		{"", []string{"--recipient", user + "@example.org"}, 0, s.path("vmail/" + user)},
		{"", []string{"--recipient", "root@example.org"}, exitRefused, "550"},
	} {
		if code, out := s.test(c.password, c.args...); code != c.code || !strings.Contains(out, c.words) {
			t.Errorf("auth test %q: %d, want %d and %s\n%s", c.args, code, c.code, c.words, out)
		}
	}

	// As a service of its own.
	if err := os.Mkdir(s.path("run"), 0o755); err != nil { // RuntimeDirectory
		t.Fatal(err)
	}
	_, line, _ := strings.Cut(s.blocks("ini", 1)[0], "\nExecStart=")
	line, _, _ = strings.Cut(line, "\n")
	command := strings.Fields(line)
	own := start(t, command[0], command[1:])
	p, pop3, pop3s, lmtp = s.serve(tables[1])
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(patience); ; <-tick.C {
		if _, err := os.Stat(s.path("run/socket")); err == nil {
			break
		} else if time.Now().After(end) {
			t.Fatal(err)
		}
	}
	s.comesIn(lmtp, user+"@example.org")
	s.fetches(pop3s, "2", user, "a secret", "the body")
	s.refused(pop3, user)
	s.staysOut(lmtp, "root@example.org")
	p.endsWell()
	own.endsWell()

	// A program of the administrator's, and a user whom the system does not know.
	if err := os.WriteFile(s.path("check-password"), []byte(s.blocks("sh", 5)[4]), 0o755); err != nil {
		t.Fatal(err)
	}
	pam(services[1])
	p, pop3, pop3s, lmtp = s.serve(tables[2])
	s.fetches(pop3s, "", "mrose", "a secret", "")
	s.refused(pop3, "mrose")
	s.staysOut(lmtp, "mrose@example.org")
	s.staysOut(lmtp, "mrose")
	p.endsWell()
}
