package main

import (
	"bytes"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"dewey/config"
)

// From an empty folder to a message fetched and deleted, with a real process.
func TestServeEndToEnd(t *testing.T) {
	data := filepath.Join(t.TempDir(), "made", "here")
	p, address := serve(t, data, "--set", "pop3.listen=127.0.0.1:0", "--set", "pop3.show_version=true")
	if !p.saw("WARN", "no users yet; add one: dewey user add NAME") {
		t.Error("no word of the missing users")
	}
	if fi, err := os.Stat(data); err != nil || fi.Mode().Perm() != 0o700 {
		t.Errorf("data folder: %v, %v", fi, err)
	}
	if left, _ := filepath.Glob(data + "/.probe*"); len(left) > 0 {
		t.Errorf("left behind: %q", left)
	}

	addUser(t, data, "mrose") // the running server sees it by itself
	deliver(t, data, "mrose", "1000000001.M1P1.h", "Subject: dinner\n\nbring wine\n")
	c := dial(t, address)
	c.ok("CAPA")
	for line := ""; line != "."; {
		if line = c.read(); strings.HasPrefix(line, "IMPLEMENTATION") && !strings.Contains(line, "dewey-") {
			t.Errorf("%q", line)
		}
	}
	c.login("mrose")
	c.ok("STAT", "+OK 1 31")
	c.ok("RETR 1", "31")
	var got []string
	for line := ""; line != "."; {
		line = c.read()
		got = append(got, line)
	}
	if s := strings.Join(got, "|"); s != "Subject: dinner||bring wine|." {
		t.Errorf("%q", s)
	}
	c.ok("DELE 1")
	c.ok("QUIT")
	c.closed()
	if left, _ := filepath.Glob(data + "/mail/mrose/*/1000000001*"); len(left) > 0 {
		t.Errorf("not removed: %q", left)
	}

	p.signal(syscall.SIGTERM)
	if code := p.end(); code != 0 {
		t.Errorf("exit code %d", code)
	}
	for _, line := range p.seen {
		if strings.Contains(line, "tanstaaf") {
			t.Errorf("a password in the log: %s", line)
		}
	}
}

// The listeners are logged when all are bound, each with its real port; and what is open to others than one may
// think is said.
func TestServeTellsWhereAndWhatNot(t *testing.T) {
	p := start(t, "dewey", []string{
		"serve", "--set", "data=" + t.TempDir(), "--set", "pop3.listen=127.0.0.1:0,[::1]:0",
		"--set", "pop3s.listen=127.0.0.1:0", "--set", "lmtp.listen=0.0.0.0:0", "--set", "login.plaintext=never", "--log-format", "json",
	})
	first := p.wait(`"msg":"listening"`, `"key":"pop3.listen"`)
	second := p.wait(`"msg":"listening"`, `"key":"pop3.listen"`)
	if !strings.Contains(first+second, `"address":"127.0.0.1:`) || !strings.Contains(first+second, `"address":"[::1]:`) || strings.Contains(first+second, `:0"`) {
		t.Errorf("%s\n%s", first, second)
	}
	p.wait(`"msg":"listening"`, `"key":"pop3s.listen"`)
	if !p.saw(`"msg":"listening"`, `"key":"lmtp.listen"`) {
		t.Error("lmtp.listen is not served")
	}
	if !p.saw(`"WARN"`, "LMTP asks for no password") {
		t.Error("a warning is missing")
	}
	p.signal(syscall.SIGINT)
	if code := p.end(); code != 0 {
		t.Errorf("exit code %d", code)
	}
}

// Passwords that can be read in the users file are told of in one line at start, by their number. A
// weak scheme is an error of its line, with the key that allows it; then it works.
func TestServeTellsOfWeakSecrets(t *testing.T) {
	data := t.TempDir()
	const plain = "can read passwords"
	p, _ := serve(t, data, "--set", "pop3.listen=127.0.0.1:0")
	if p.saw(plain) {
		t.Error("a warning without users")
	}
	p.signal(syscall.SIGTERM)
	p.end()

	addUser(t, data, "plainly")
	addUser(t, data, "clearly")
	f, err := os.OpenFile(filepath.Join(data, "users"), os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteString("mrose:{SSHA.HEX}e32af3863a5fa9b77ad8ea91d76b20cb7b40ca0873616c74\n"); err != nil {
		t.Fatal(err)
	}
	_ = f.Close()
	p = start(t, "dewey", []string{"serve", "--set", "data=" + data, "--set", "pop3.listen=127.0.0.1:0"})
	p.wait("users:3: password scheme too weak: {SSHA}; users.weak_schemes = true")
	if code := p.end(); code != 1 {
		t.Errorf("exit code %d", code)
	}

	p, address := serve(t, data, "--set", "pop3.listen=127.0.0.1:0", "--set", "users.weak_schemes=true")
	if !p.saw("WARN", plain, "users=2") {
		t.Error("the warning is missing")
	}
	c := dial(t, address)
	c.login("mrose")
	c.ok("QUIT")
	p.signal(syscall.SIGTERM)
	p.end()
	n := 0
	for _, line := range p.seen {
		if strings.Contains(line, plain) {
			n++
		}
		if strings.Contains(line, "tanstaaf") || strings.Contains(line, "plainly") || strings.Contains(line, "e32af386") {
			t.Error(line)
		}
	}
	if n != 1 {
		t.Errorf("told %d times", n)
	}
}

// SIGTERM lets a session end by itself; new connections are refused meanwhile.
func TestServeEndsGracefully(t *testing.T) {
	data := t.TempDir()
	addUser(t, data, "mrose")
	deliver(t, data, "mrose", "1000000001.M1P1.h", "a\n\nb\n")
	p, address := serve(t, data, "--set", "pop3.listen=127.0.0.1:0")
	c, idle := dial(t, address), dial(t, address)
	c.login("mrose")
	c.ok("DELE 1")
	p.signal(syscall.SIGTERM)
	p.wait("ending: waiting for sessions")
	idle.closed() // which also shows that the listener is closed
	if conn, err := net.Dial("tcp", address); err == nil {
		_ = conn.Close()
		t.Error("still listening")
	}
	c.ok("STAT", "+OK 0 0")
	c.ok("QUIT")
	if code := p.end(); code != 0 {
		t.Errorf("exit code %d", code)
	}
	if left, _ := filepath.Glob(data + "/mail/mrose/*/1000000001*"); len(left) > 0 {
		t.Errorf("not removed: %q", left)
	}
}

// The second signal, or the end of the grace, closes the sessions that are left, and removes nothing.
func TestServeEndsAtOnce(t *testing.T) {
	for name, args := range map[string][]string{"second signal": nil, "grace": {"--grace", "1ms"}} {
		t.Run(name, func(t *testing.T) {
			data := t.TempDir()
			addUser(t, data, "mrose")
			deliver(t, data, "mrose", "1000000001.M1P1.h", "a\n\nb\n")
			p, address := serve(t, data, append(args, "--set", "pop3.listen=127.0.0.1:0")...)
			c := dial(t, address)
			c.login("mrose")
			c.ok("DELE 1")
			p.signal(syscall.SIGTERM)
			if args == nil {
				p.wait("ending: waiting for sessions")
				p.signal(syscall.SIGTERM)
			}
			p.wait("closing the sessions that are left")
			c.closed()
			if code := p.end(); code != 0 {
				t.Errorf("exit code %d", code)
			}
			if left, _ := filepath.Glob(data + "/mail/mrose/*/1000000001*"); len(left) != 1 {
				t.Errorf("removed without QUIT: %q", left)
			}
		})
	}
}

// SIGHUP reads configuration and users again; sessions go on; what is wrong changes nothing.
func TestServeReloads(t *testing.T) {
	data, file := t.TempDir(), filepath.Join(t.TempDir(), "dewey.toml")
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	addUser(t, data, "mrose")
	write("[pop3]\nlisten = ['127.0.0.1:0']\n")
	p, address := serve(t, data, "--config", file)
	c := dial(t, address)
	c.login("mrose")

	// Errors are logged, all of them, and the old configuration stays.
	write("[pop3]\nlisten = 5\n[login]\nmax_per_user = 0\n")
	p.signal(syscall.SIGHUP)
	p.wait("configuration stays as it was", file+":2: pop3.listen: ")
	p.wait("configuration stays as it was", file+":4: login.max_per_user: ")
	dial(t, address).ok("QUIT")

	// An address that is busy: nothing changes either.
	busy, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer busy.Close()
	write("[pop3]\nlisten = ['[::1]:0', '" + busy.Addr().String() + "']\n")
	p.signal(syscall.SIGHUP)
	p.wait("configuration stays as it was", "is busy")
	dial(t, address).ok("QUIT")

	// So is one that dewey itself is in the way of.
	_, port, _ := net.SplitHostPort(address)
	write("[pop3]\nlisten = [':" + port + "']\n")
	p.signal(syscall.SIGHUP)
	p.wait("configuration stays as it was", "restart it")
	dial(t, address).ok("QUIT")

	// A new address in the place of the old one, and other settings; the running session goes on.
	write("hostname = 'changed.example'\nmaildir.path = '/elsewhere/{user}'\n[pop3]\nlisten = ['[::1]:0']\n")
	p.signal(syscall.SIGHUP)
	fresh := field(p.wait("msg=listening"), "address")
	p.wait("no longer listening", address)
	p.wait("need a restart", "maildir.path")
	p.wait("msg=reloaded")
	if conn, err := net.Dial("tcp", address); err == nil {
		_ = conn.Close()
		t.Error("still listening on the old address")
	}
	c.ok("QUIT")
	conn, err := net.Dial("tcp", fresh)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	buf := make([]byte, 512)
	if n, err := conn.Read(buf); err != nil || !bytes.Contains(buf[:n], []byte("changed.example")) {
		t.Errorf("greeting %q, %v", buf[:n], err)
	}
	again := dial(t, fresh)
	again.login("mrose") // the mail is where it was
	again.ok("QUIT")

	// Users with errors: logged, and the old ones hold.
	f, err := os.OpenFile(filepath.Join(data, "users"), os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteString("bad:{NONSENSE}x\n"); err != nil {
		t.Fatal(err)
	}
	_ = f.Close()
	p.signal(syscall.SIGHUP)
	p.wait("users file has errors", "users:2: ")
	again = dial(t, fresh)
	again.login("mrose")
	again.ok("QUIT")

	p.signal(syscall.SIGTERM)
	if code := p.end(); code != 0 {
		t.Errorf("exit code %d", code)
	}
}

// A daemon leaves nothing behind: no goroutine, no listener. Here in the test's own process, where
// that can be seen.
func TestServeLeavesNothing(t *testing.T) {
	defer goleak.VerifyNone(t)
	var out bytes.Buffer
	log, err := newLogger(&out, "text", "debug")
	if err != nil {
		t.Fatal(err)
	}
	signals := make(chan os.Signal, 4)
	data := t.TempDir()
	d := &daemon{
		log: log, grace: time.Second, signals: signals, manager: manager{log},
		load: func() (*config.Config, error) {
			return config.Load("", []string{"data=" + data, "pop3.listen=127.0.0.1:0"})
		},
	}
	signals <- syscall.SIGHUP
	signals <- syscall.SIGTERM
	if err := d.run(); err != nil {
		t.Fatal(err)
	}
	for _, l := range d.bound {
		if conn, err := net.Dial("tcp", l.Addr().String()); err == nil {
			_ = conn.Close()
			t.Error("still listening")
		}
	}
	if !strings.Contains(out.String(), "msg=reloaded") {
		t.Error(out.String())
	}
}
