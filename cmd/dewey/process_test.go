package main

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// patience is how long a test waits for what must happen.
const patience = 30 * time.Second

// A process is a `dewey serve` of its own.
type process struct {
	t     *testing.T
	cmd   *exec.Cmd
	lines chan string // of its log; closed at the end
	seen  []string
}

// start starts a program of TestMain. It is killed if it outlives the test or the patience.
func start(t *testing.T, name string, args []string, prepare ...func(*exec.Cmd)) *process {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*patience)
	t.Cleanup(cancel)
	p := &process{t: t, cmd: exec.CommandContext(ctx, name, args...), lines: make(chan string, 1000)}
	for _, f := range prepare {
		f(p.cmd)
	}
	stderr, err := p.cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		defer close(p.lines)
		for s := bufio.NewScanner(stderr); s.Scan(); {
			p.lines <- s.Text()
		}
	}()
	t.Cleanup(func() {
		_ = p.cmd.Process.Kill()
		for line := range p.lines {
			p.seen = append(p.seen, line)
		}
		_ = p.cmd.Wait()
		if t.Failed() {
			t.Logf("log of %s:\n%s", name, strings.Join(p.seen, "\n"))
		}
	})
	return p
}

// serve starts `dewey serve` on a port that the system chooses and returns the address.
func serve(t *testing.T, data string, args ...string) (*process, string) {
	t.Helper()
	args = append([]string{"serve", "--set", "data=" + data, "--set", "login.failure_delay=0s"}, args...)
	p := start(t, "dewey", args)
	return p, field(p.wait("msg=listening"), "address")
}

// wait reads the log up to a line with all the words in it.
func (p *process) wait(words ...string) string {
	p.t.Helper()
	timeout := time.After(patience)
next:
	for {
		select {
		case line, ok := <-p.lines:
			if !ok {
				p.t.Fatalf("the log ended without %q", words)
			}
			p.seen = append(p.seen, line)
			for _, w := range words {
				if !strings.Contains(line, w) {
					continue next
				}
			}
			return line
		case <-timeout:
			p.t.Fatalf("no line with %q", words)
		}
	}
}

func (p *process) signal(s syscall.Signal) {
	p.t.Helper()
	if err := p.cmd.Process.Signal(s); err != nil {
		p.t.Fatal(err)
	}
}

// end waits for the process to end and returns its exit code.
func (p *process) end() int {
	p.t.Helper()
	timeout := time.After(patience)
	for {
		select {
		case line, ok := <-p.lines:
			if !ok {
				_ = p.cmd.Wait() // the code says it
				return p.cmd.ProcessState.ExitCode()
			}
			p.seen = append(p.seen, line)
		case <-timeout:
			p.t.Fatal("the process does not end")
		}
	}
}

// saw tells whether a line of the log so far has all the words in it.
func (p *process) saw(words ...string) bool {
next:
	for _, line := range p.seen {
		for _, w := range words {
			if !strings.Contains(line, w) {
				continue next
			}
		}
		return true
	}
	return false
}

// field returns the value of key=value in a line of the log.
func field(line, key string) string {
	_, rest, _ := strings.Cut(line, " "+key+"=")
	value, _, _ := strings.Cut(rest, " ")
	return value
}

// addUser makes a user with the password "tanstaaf".
func addUser(t *testing.T, data, user string) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "dewey", "user", "add", user, "--scheme", "plain", "--set", "data="+data)
	cmd.Stdin = strings.NewReader("tanstaaf\n")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
}

// deliver puts a message into a user's Maildir.
func deliver(t *testing.T, data, user, name, text string) {
	t.Helper()
	for _, sub := range []string{"tmp", "new", "cur"} {
		if err := os.MkdirAll(filepath.Join(data, "mail", user, sub), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(data, "mail", user, "new", name), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// A client speaks POP3 a line at a time.
type client struct {
	t    *testing.T
	conn net.Conn
	in   *bufio.Reader
}

// dial connects and reads the greeting.
func dial(t *testing.T, address string) *client {
	t.Helper()
	conn, err := net.DialTimeout("tcp", address, patience)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	if err := conn.SetDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	c := &client{t: t, conn: conn, in: bufio.NewReader(conn)}
	if s := c.read(); !strings.HasPrefix(s, "+OK") {
		t.Fatalf("greeting %q", s)
	}
	return c
}

func (c *client) read() string {
	c.t.Helper()
	line, err := c.in.ReadString('\n')
	if err != nil {
		c.t.Fatalf("%q, %v", line, err)
	}
	return strings.TrimSuffix(line, "\r\n")
}

// ok sends a command and wants +OK and the words.
func (c *client) ok(command string, words ...string) {
	c.t.Helper()
	fmt.Fprintf(c.conn, "%s\r\n", command)
	reply := c.read()
	for _, w := range append(words, "+OK") {
		if !strings.Contains(reply, w) {
			c.t.Fatalf("%s: %q, want %q", command, reply, w)
		}
	}
}

// login logs in with the password of addUser.
func (c *client) login(user string) {
	c.t.Helper()
	c.ok("USER " + user)
	c.ok("PASS tanstaaf")
}

// closed wants the end of the connection.
func (c *client) closed() {
	c.t.Helper()
	if line, err := c.in.ReadString('\n'); err == nil || line != "" {
		c.t.Errorf("still open: %q, %v", line, err)
	}
}
