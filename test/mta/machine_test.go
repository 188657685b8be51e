package mta

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// The users of the machine on which a mail server runs. Their numbers are nobody's elsewhere, but for those that
// the pages name.
const (
	rootUser    = 0
	postfixUser = 20101
	postdrop    = 20102
	eximUser    = 20103
	mroseUser   = 20105
	vmailUser   = 5000
)

var users = map[string]int{
	"root": rootUser, "postfix": postfixUser, "postdrop": postdrop, "Debian-exim": eximUser, "vmail": vmailUser, "mrose": mroseUser, "nobody": 65534,
}

// A machine is a folder that programs take for the root of everything.
type machine struct {
	t    *testing.T
	root string
	log  *collector // what comes to /dev/log
	smtp string     // 127.0.0.1:port of the mail server
	lmtp string     // the port that stands for 2424
}

// path is where a file of the machine's lies in truth.
func (m *machine) path(name string) string { return filepath.Join(m.root, name) }

// newMachine makes a machine on which the packages' programs are.
func newMachine(t *testing.T, base func() (string, error)) *machine {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Fatal("mail servers change users: run this test as root")
	}
	from, err := base()
	if err != nil {
		t.Fatal(err)
	}
	root, err := os.MkdirTemp(workDir, "m") // short: the path of a UNIX socket has 107 octets at most
	if err != nil {
		t.Fatal(err)
	}
	m := &machine{t: t, root: root, lmtp: freePort(t)}
	m.smtp = "127.0.0.1:" + freePort(t)
	t.Cleanup(func() { _ = os.RemoveAll(root) })
	m.check(os.Chmod(root, 0o755))
	m.check(linkTree(from, root))

	var passwd, group strings.Builder
	for _, name := range slices.Sorted(maps.Keys(users)) {
		home := map[string]string{"mrose": "/home/mrose", "vmail": "/var/vmail", "postfix": "/var/spool/postfix", "Debian-exim": "/var/spool/exim4"}[name]
		fmt.Fprintf(&passwd, "%s:x:%d:%d::%s:/usr/sbin/nologin\n", name, users[name], users[name], home)
		fmt.Fprintf(&group, "%s:x:%d:\n", name, users[name])
	}
	group.WriteString("mail:x:8:\nadm:x:4:\n")
	m.write("/etc/passwd", passwd.String())
	m.write("/etc/group", group.String())
	m.write("/etc/hosts", "127.0.0.1 localhost mail.example.org\n")
	m.write("/etc/services", "smtp 25/tcp\nlmtp 24/tcp\n")
	m.write("/etc/aliases", "postmaster: mrose\n")
	m.folder("/tmp", rootUser, 0o1777)
	m.folder("/home", rootUser, 0o755)
	m.folder("/home/mrose", mroseUser, 0o700)
	m.folder("/etc/dewey", rootUser, 0o755)
	m.folder("/var/log", rootUser, 0o755)
	m.folder("/dev", rootUser, 0o755)
	for name, device := range map[string]int{"null": 1<<8 | 3, "urandom": 1<<8 | 9} {
		m.check(syscall.Mknod(m.path("/dev/"+name), syscall.S_IFCHR|0o666, device))
		m.check(os.Chmod(m.path("/dev/"+name), 0o666))
		if f, err := os.OpenFile(m.path("/dev/"+name), os.O_RDWR, 0); err != nil {
			t.Fatalf("%s is on a file system without devices; choose another TMPDIR: %v", workDir, err)
		} else {
			_ = f.Close()
		}
	}
	m.log = collect(t, m.path("/dev/log"))
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("the machine's log:\n%s", m.log)
		}
	})
	return m
}

func (m *machine) check(err error) {
	m.t.Helper()
	if err != nil {
		m.t.Fatal(err)
	}
}

func (m *machine) write(name, content string) {
	m.t.Helper()
	path := m.path(name)
	m.check(os.MkdirAll(filepath.Dir(path), 0o755))
	m.check(os.RemoveAll(path)) // it may be a link to what all machines share
	m.check(os.WriteFile(path, []byte(content), 0o644))
	m.check(os.Chmod(path, 0o644))
}

func (m *machine) read(name string) string {
	m.t.Helper()
	content, err := os.ReadFile(m.path(name))
	m.check(err)
	return string(content)
}

func (m *machine) folder(name string, owner int, mode fs.FileMode) {
	m.t.Helper()
	path := m.path(name)
	m.check(os.MkdirAll(path, 0o755))
	m.check(os.Chown(path, owner, owner))
	if mode&0o1000 != 0 {
		mode = mode&0o777 | fs.ModeSticky
	}
	m.check(os.Chmod(path, mode))
}

// command makes a command that is run on the machine, by one of its users.
func (m *machine) command(ctx context.Context, user int, name string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir = "/"
	cmd.Env = []string{"PATH=/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL=C"}
	cmd.WaitDelay = 5 * time.Second
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Chroot:     m.root,
		Credential: &syscall.Credential{Uid: uint32(user), Gid: uint32(user)},
		Setpgid:    true, // Postfix's master stops its children by their group
	}
	return cmd
}

// run runs a command to its end, which must be a good one, and returns what it said.
func (m *machine) run(user int, input []byte, name string, args ...string) string {
	m.t.Helper()
	ctx, cancel := context.WithTimeout(m.t.Context(), 30*time.Second)
	defer cancel()
	cmd := m.command(ctx, user, name, args...)
	cmd.Stdin = bytes.NewReader(input)
	out, err := cmd.CombinedOutput()
	if err != nil {
		m.t.Fatalf("%s %q: %v\n%s", name, args, err, out)
	}
	return string(out)
}

// shell runs the lines that a page has an administrator run. Of useradd it believes the page: its users are there.
func (m *machine) shell(script string) {
	m.t.Helper()
	for line := range strings.Lines(script) {
		words := strings.Fields(line)
		if len(words) == 0 {
			continue
		}
		switch words[0] {
		case "dewey":
			m.run(rootUser, []byte(password+"\n"), "/usr/local/bin/dewey", append(words[1:], "--weak")...)
		case "install":
			m.install(words[1:])
		case "useradd":
			if name := words[len(words)-1]; users[name] == 0 {
				m.t.Fatalf("the test has no user %s: %s", name, line)
			}
		default:
			m.t.Fatalf("the test can't run: %s", line)
		}
	}
}

// install makes folders, as install(1) does with -d.
func (m *machine) install(args []string) {
	m.t.Helper()
	owner, mode := rootUser, fs.FileMode(0o755)
	for len(args) > 0 {
		switch args[0] {
		case "-d", "-g": // the group is the owner's
		case "-o":
			owner = users[args[1]]
		case "-m":
			n, err := strconv.ParseUint(args[1], 8, 32)
			m.check(err)
			mode = fs.FileMode(n)
		default:
			m.folder(args[0], owner, mode)
			args = args[1:]
			continue
		}
		if args[0] != "-d" {
			args = args[1:]
		}
		args = args[1:]
	}
}

var (
	absolute = regexp.MustCompile(`"(unix:)?/`)
	popPort  = regexp.MustCompile(`":(110|995)"`)
	named    = regexp.MustCompile(`(?m)^(user|socket_group) = "([^"]*)"`)
)

// serverFile writes dewey's file for a dewey that runs outside, as doc.go says.
func (m *machine) serverFile() string {
	m.t.Helper()
	text := m.read("/etc/dewey/dewey.toml")
	text = absolute.ReplaceAllString(text, `"${1}`+m.root+`/`)
	text = popPort.ReplaceAllString(text, `"127.0.0.1:0"`)
	text = named.ReplaceAllStringFunc(text, func(line string) string {
		found := named.FindStringSubmatch(line)
		number, ok := users[found[2]]
		if !ok {
			m.t.Fatalf("the test has no user %s", found[2])
		}
		if found[1] == "user" {
			return fmt.Sprintf("user = \"%d\"\ngroup = \"%[1]d\"", number)
		}
		return fmt.Sprintf("%s = \"%d\"", found[1], number)
	})
	name := m.path("/etc/dewey/outside.toml")
	m.check(os.WriteFile(name, []byte(text), 0o644))
	return name
}

// linkTree copies a folder: the files are links, since nobody changes them.
func linkTree(from, to string) error {
	return filepath.WalkDir(from, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name := filepath.Join(to, strings.TrimPrefix(path, from))
		switch {
		case path == from:
			return nil
		case d.IsDir():
			return os.Mkdir(name, 0o755)
		case d.Type()&fs.ModeSymlink != 0:
			target, err := os.Readlink(path)
			if err != nil {
				return err
			}
			return os.Symlink(target, name)
		}
		return os.Link(path, name)
	})
}

// A collector keeps what programs say to syslog.
type collector struct {
	mu   sync.Mutex
	text strings.Builder
}

func collect(t *testing.T, path string) *collector {
	t.Helper()
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(path, 0o666); err != nil {
		t.Fatal(err)
	}
	c := &collector{}
	done := make(chan struct{})
	go func() {
		defer close(done)
		line := make([]byte, 64<<10)
		for {
			n, _, err := conn.ReadFrom(line)
			if err != nil {
				return
			}
			c.mu.Lock()
			c.text.Write(bytes.TrimRight(line[:n], "\x00\n"))
			c.text.WriteByte('\n')
			c.mu.Unlock()
		}
	}()
	t.Cleanup(func() {
		_ = conn.Close()
		<-done
	})
	return c
}

func (c *collector) String() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.text.String()
}

// A process is one that the test started, and stops.
type process struct {
	t     *testing.T
	cmd   *exec.Cmd
	said  string // the file with what it says
	ended chan struct{}
	err   error
}

func start(t *testing.T, cmd *exec.Cmd) *process {
	t.Helper()
	log, err := os.CreateTemp(t.TempDir(), "log")
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	cmd.Stdout, cmd.Stderr = log, log
	p := &process{t: t, cmd: cmd, said: log.Name(), ended: make(chan struct{})}
	if err := cmd.Start(); err != nil {
		t.Fatalf("%s: %v", cmd.Path, err)
	}
	go func() {
		p.err = cmd.Wait()
		close(p.ended)
	}()
	t.Cleanup(func() {
		p.stop()
		if t.Failed() {
			t.Logf("%s said:\n%s", filepath.Base(cmd.Path), p)
		}
	})
	return p
}

func (p *process) String() string {
	content, err := os.ReadFile(p.said)
	return string(content) + errorText(err)
}

func errorText(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

// stop ends the process, and must see it end well.
func (p *process) stop() {
	p.t.Helper()
	_ = p.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-p.ended:
		var exit *exec.ExitError
		bySignal := errors.As(p.err, &exit) && exit.Sys().(syscall.WaitStatus).Signal() == syscall.SIGTERM
		if p.err != nil && !bySignal {
			p.t.Errorf("%s ended badly: %v\n%s", p.cmd.Path, p.err, p)
		}
	case <-time.After(20 * time.Second):
		p.t.Errorf("%s did not end 20 seconds after SIGTERM; killed", p.cmd.Path)
		_ = p.cmd.Process.Kill()
		<-p.ended
	}
}

// await asks again and again until the answer is yes, for half a minute.
func await(t *testing.T, what string, ready func() bool) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); !ready(); {
		if time.Now().After(deadline) {
			t.Fatalf("after 30 seconds: not %s", what)
		}
		time.Sleep(20 * time.Millisecond) // between two looks; nothing depends on its length
	}
}

// freePort is below those that connections get of their own (ip_local_port_range), which may take one that was free.
func freePort(t *testing.T) string {
	t.Helper()
	for range 100 {
		port := strconv.Itoa(20000 + rand.IntN(12000))
		if l, err := net.Listen("tcp", "127.0.0.1:"+port); err == nil {
			_ = l.Close()
			return port
		}
	}
	t.Fatal("no port is free")
	return ""
}
