package main

import (
	"bufio"
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

// A process is a `dewey serve` of its own, started as an administrator would.
type process struct {
	t     *testing.T
	cmd   *exec.Cmd
	data  string
	mu    sync.Mutex
	lines []string
	more  chan struct{} // a line has come
	ended chan struct{}
}

const patience = 30 * time.Second // for another process to do what it should

// start starts a program, the test binary under another name, and gathers what it logs.
func start(t *testing.T, program string, change func(*exec.Cmd), args ...string) *process {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	bin := t.TempDir()
	for _, name := range []string{"dewey", "likesystemd"} { // testscript tells them by their names
		if err := os.Symlink(self, filepath.Join(bin, name)); err != nil {
			t.Fatal(err)
		}
	}
	p := &process{t: t, more: make(chan struct{}, 1), ended: make(chan struct{})}
	p.cmd = exec.Command(filepath.Join(bin, program), args...) //nolint:gosec // the test's own binary
	p.cmd.Env = append(os.Environ(), "PATH="+bin)
	p.cmd.Dir = t.TempDir()
	if change != nil {
		change(p.cmd)
	}
	stderr, err := p.cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		defer close(p.ended)
		for s := bufio.NewScanner(stderr); s.Scan(); {
			p.mu.Lock()
			p.lines = append(p.lines, s.Text())
			p.mu.Unlock()
			select {
			case p.more <- struct{}{}:
			default:
			}
		}
	}()
	t.Cleanup(func() {
		_ = p.cmd.Process.Kill()
		<-p.ended
		_ = p.cmd.Wait()
	})
	return p
}

func (p *process) log() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return strings.Join(p.lines, "\n")
}

// await waits until the log has a match, the nth from 1, and returns its first group.
func (p *process) await(pattern string, n int) string {
	p.t.Helper()
	re := regexp.MustCompile(pattern)
	deadline := time.After(patience)
	for {
		if all := re.FindAllStringSubmatch(p.log(), -1); len(all) >= n {
			return all[n-1][len(all[n-1])-1]
		}
		select {
		case <-p.more:
		case <-p.ended:
			p.t.Fatalf("it ended; its log lacks %s:\n%s", pattern, p.log())
		case <-deadline:
			p.t.Fatalf("the log lacks %s:\n%s", pattern, p.log())
		}
	}
}

func (p *process) signal(s os.Signal) {
	p.t.Helper()
	if err := p.cmd.Process.Signal(s); err != nil {
		p.t.Fatal(err)
	}
}

// end waits for the process and returns its exit code.
func (p *process) end() int {
	p.t.Helper()
	select {
	case <-p.ended:
	case <-time.After(patience):
		p.t.Fatalf("it does not end:\n%s", p.log())
	}
	_ = p.cmd.Wait()
	return p.cmd.ProcessState.ExitCode()
}

const listening = `msg=listening key=pop3\.listen address=(\S+)`

// A conversation sends lines to an address and returns all that comes back.
func converse(t *testing.T, address, input string) string {
	t.Helper()
	c, err := net.DialTimeout("tcp", address, patience)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(patience))
	if _, err := io.WriteString(c, input); err != nil {
		t.Fatal(err)
	}
	out, err := io.ReadAll(c)
	if err != nil {
		t.Fatal(err)
	}
	return string(out)
}

// user makes a users file with one user, and a message in his Maildir.
func user(t *testing.T, data string) {
	t.Helper()
	inbox := filepath.Join(data, "mail", "mrose", "new")
	for _, folder := range []string{inbox, filepath.Join(data, "mail", "mrose", "cur"), filepath.Join(data, "mail", "mrose", "tmp")} {
		if err := os.MkdirAll(folder, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	write(t, filepath.Join(inbox, "1700000000.M1P1.example"), "Subject: dinner\n\nCome at seven.\n")
	write(t, filepath.Join(data, "users"), "mrose:{PLAIN}tanstaaf\n")
}

func write(t *testing.T, name, text string) {
	t.Helper()
	if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

const fetch = "USER mrose\r\nPASS tanstaaf\r\nRETR 1\r\nDELE 1\r\nQUIT\r\n"

// The main job: a message is fetched and removed, the log tells of it without the password, and SIGTERM
// ends the server with exit code 0.
func TestServe(t *testing.T) {
	data := t.TempDir()
	user(t, data)
	p := start(t, "dewey", nil, "serve", "--set", "data="+data, "--set", "pop3.listen=127.0.0.1:0,[::1]:0")
	for n := 1; n <= 2; n++ {
		address := p.await(listening, n)
		got := converse(t, address, fetch)
		want := "+OK dewey at localhost ready\r\n+OK\r\n+OK 1 message (35 octets)\r\n+OK 35 octets\r\n" +
			"Subject: dinner\r\n\r\nCome at seven.\r\n.\r\n+OK message 1 deleted\r\n+OK bye\r\n"
		if n == 2 {
			want = "+OK dewey at localhost ready\r\n+OK\r\n+OK 0 messages (0 octets)\r\n-ERR no such message\r\n-ERR no such message\r\n+OK bye\r\n"
		}
		if got != want {
			t.Errorf("got %q\nwant %q", got, want)
		}
	}
	p.await(`msg="session ended".* user=mrose reason=quit retrieved=1 octets=35 removed=1`, 1)
	p.signal(syscall.SIGTERM)
	if code := p.end(); code != 0 {
		t.Errorf("exit code %d:\n%s", code, p.log())
	}
	if strings.Contains(p.log(), "tanstaaf") {
		t.Errorf("the log has the password:\n%s", p.log())
	}
}

// The defaults hold without a file, in a folder of one's own, and a relative data folder is fine. Users
// may come later.
func TestServeBeforeUsers(t *testing.T) {
	p := start(t, "dewey", nil, "serve", "--set", "pop3.listen=127.0.0.1:0", "--log-format", "json")
	p.await(`no users yet`, 1)
	address := p.await(`"msg":"listening","key":"pop3.listen","address":"([^"]+)"`, 1)
	if got := converse(t, address, fetch); !strings.Contains(got, "-ERR [AUTH]") {
		t.Errorf("got %q", got)
	}
	user(t, filepath.Join(p.cmd.Dir, "dewey-data"))
	if got := converse(t, address, fetch); !strings.Contains(got, "Come at seven.") {
		t.Errorf("got %q\n%s", got, p.log())
	}
	p.signal(os.Interrupt)
	if code := p.end(); code != 0 {
		t.Errorf("exit code %d:\n%s", code, p.log())
	}
}

// SIGTERM lets a session finish; a second one does not wait.
func TestServeGrace(t *testing.T) {
	for _, hurry := range []bool{false, true} {
		data := t.TempDir()
		user(t, data)
		p := start(t, "dewey", nil, "serve", "--set", "data="+data, "--set", "pop3.listen=127.0.0.1:0")
		address := p.await(listening, 1)
		c, err := net.Dial("tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		_ = c.SetDeadline(time.Now().Add(patience))
		in := bufio.NewReader(c)
		expect := func(command, prefix string) {
			t.Helper()
			fmt.Fprint(c, command)
			if line, err := in.ReadString('\n'); !strings.HasPrefix(line, prefix) {
				t.Fatalf("%q: %q, %v", command, line, err)
			}
		}
		expect("", "+OK dewey")
		expect("USER mrose\r\n", "+OK")
		expect("PASS tanstaaf\r\n", "+OK 1")
		expect("DELE 1\r\n", "+OK")
		p.signal(syscall.SIGTERM)
		p.await(`waiting for sessions`, 1)
		if hurry {
			p.signal(syscall.SIGTERM)
		} else {
			expect("NOOP\r\n", "+OK")
			expect("QUIT\r\n", "+OK bye")
		}
		if code := p.end(); code != 0 {
			t.Errorf("exit code %d:\n%s", code, p.log())
		}
		left, _ := filepath.Glob(filepath.Join(data, "mail", "mrose", "new", "*"))
		if (len(left) == 1) != hurry {
			t.Errorf("hurry %v: %d messages are left", hurry, len(left))
		}
	}
}

// SIGHUP opens what is newly listed and closes what is no longer, keeps sessions, and changes nothing
// where the file has errors.
func TestServeReload(t *testing.T) {
	data := t.TempDir()
	user(t, data)
	file := filepath.Join(t.TempDir(), "dewey.toml")
	other, err := net.Listen("tcp", "127.0.0.1:0") // a port that is free a moment later
	if err != nil {
		t.Fatal(err)
	}
	second := other.Addr().String()
	_ = other.Close()
	write(t, file, "[pop3]\nlisten = [\"127.0.0.1:0\"]\n")
	p := start(t, "dewey", nil, "serve", "--config", file, "--set", "data="+data)
	first := p.await(listening, 1)
	c, err := net.Dial("tcp", first)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	in := bufio.NewReader(c)
	_ = c.SetDeadline(time.Now().Add(patience))
	if _, err := in.ReadString('\n'); err != nil {
		t.Fatal(err)
	}

	write(t, file, "[pop3]\nlisten = [\"nonsense\"]\nlang = 1\n")
	p.signal(syscall.SIGHUP)
	p.await(`configuration stays as it was.*dewey\.toml:2:`, 1)
	p.await(`configuration stays as it was.*dewey\.toml:3:`, 1)

	write(t, file, fmt.Sprintf("hostname = \"new.example.org\"\n[pop3]\nlisten = [%q]\n", second))
	p.signal(syscall.SIGHUP)
	p.await(`msg=reloaded`, 1)
	if got := converse(t, second, "QUIT\r\n"); got != "+OK dewey at new.example.org ready\r\n+OK bye\r\n" {
		t.Errorf("got %q", got)
	}
	if c, err := net.Dial("tcp", first); err == nil {
		_ = c.Close()
		t.Error("the old address is still open")
	}
	fmt.Fprint(c, "CAPA\r\n")
	if line, err := in.ReadString('\n'); !strings.HasPrefix(line, "+OK") {
		t.Errorf("an old session: %q, %v", line, err)
	}
	p.signal(syscall.SIGTERM)
	if code := p.end(); code != 0 {
		t.Errorf("exit code %d:\n%s", code, p.log())
	}
}

// systemd passes a socket, hears that we are ready, hears the watchdog, and hears that we reload and
// stop. sd_listen_fds(3), sd_notify(3).
func TestServeUnderSystemd(t *testing.T) {
	data := t.TempDir()
	user(t, data)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	socket, err := l.(*net.TCPListener).File()
	if err != nil {
		t.Fatal(err)
	}
	defer socket.Close()
	name := filepath.Join(t.TempDir(), "notify")
	notify, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: name, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer notify.Close()
	heard := func(want string) {
		t.Helper()
		buf := make([]byte, 4096)
		for {
			_ = notify.SetReadDeadline(time.Now().Add(patience))
			n, err := notify.Read(buf)
			if err != nil {
				t.Fatalf("did not hear %s: %v", want, err)
			}
			if strings.Contains(string(buf[:n]), want) {
				return
			}
		}
	}
	p := start(t, "likesystemd", func(c *exec.Cmd) {
		c.ExtraFiles = []*os.File{socket}
		c.Env = append(c.Env, "LISTEN_FDS=1", "LISTEN_FDNAMES=pop3", "NOTIFY_SOCKET="+name, "WATCHDOG_USEC=200000")
	}, "serve", "--set", "data="+data)
	heard("READY=1")
	if got := p.await(listening, 1); got != l.Addr().String() {
		t.Errorf("listens on %s, not on %s", got, l.Addr())
	}
	heard("WATCHDOG=1")
	if got := converse(t, l.Addr().String(), fetch); !strings.Contains(got, "Come at seven.") {
		t.Errorf("got %q", got)
	}
	p.signal(syscall.SIGHUP)
	heard("RELOADING=1\nMONOTONIC_USEC=")
	heard("READY=1")
	p.signal(syscall.SIGTERM)
	heard("STOPPING=1")
	if code := p.end(); code != 0 {
		t.Errorf("exit code %d:\n%s", code, p.log())
	}
}

// A socket that is not for POP3 is refused by its name.
func TestServeWrongSocket(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	socket, err := l.(*net.TCPListener).File()
	if err != nil {
		t.Fatal(err)
	}
	defer socket.Close()
	p := start(t, "likesystemd", func(c *exec.Cmd) {
		c.ExtraFiles = []*os.File{socket}
		c.Env = append(c.Env, "LISTEN_FDS=1", "LISTEN_FDNAMES=web")
	}, "serve")
	if code := p.end(); code != 1 || !strings.Contains(p.log(), `the name "web"`) {
		t.Errorf("exit code %d:\n%s", code, p.log())
	}
}
