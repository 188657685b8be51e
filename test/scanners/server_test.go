package scanners

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

const (
	user     = "mrose"
	password = "a secret"
)

// A server is a dewey of its own.
type server struct {
	pop3, pop3s string // 127.0.0.1:port
	log         *lockedBuffer
}

var listening = regexp.MustCompile(`msg=listening .*\bkey=(pop3s?)\.listen .*\baddress=(127\.0\.0\.1:\d+)`)

// startDewey builds dewey, the first time, and starts it with some users, each with the same password.
// It stops with the test.
func startDewey(t *testing.T, users ...string) *server {
	t.Helper()
	dewey, err := buildDewey()
	if err != nil {
		t.Fatal(err)
	}
	data := t.TempDir()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for _, u := range users {
		add := exec.CommandContext(ctx, dewey, "user", "add", u, "--weak", "--set", "data="+data)
		add.Dir = data
		add.Stdin = strings.NewReader(password + "\n")
		if out, err := add.CombinedOutput(); err != nil {
			t.Fatalf("dewey user add: %v\n%s", err, out)
		}
	}

	s := &server{log: &lockedBuffer{}}
	serve := exec.Command(dewey, "serve", "--set", "data="+data,
		"--set", "pop3.listen=127.0.0.1:0", "--set", "pop3s.listen=127.0.0.1:0", "--set", "lmtp.listen=")
	serve.Dir = data
	serve.Stdout, serve.Stderr = s.log, s.log
	serve.WaitDelay = 5 * time.Second
	if err := serve.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- serve.Wait() }()
	t.Cleanup(func() {
		_ = serve.Process.Signal(syscall.SIGTERM)
		select {
		case err := <-ended:
			if err != nil {
				t.Errorf("server ended badly: %v", err)
			}
		case <-time.After(40 * time.Second):
			t.Errorf("server did not end 40 seconds after SIGTERM; killed")
			_ = serve.Process.Kill()
			<-ended
		}
		if log := s.log.String(); strings.Contains(log, "panic") {
			t.Errorf("panic in the server's log:\n%s", log)
		} else if t.Failed() {
			t.Logf("server log:\n%s", tail(log, 40))
		}
	})
	await(t, 30*time.Second, "the server listens on both ports", func() bool {
		for _, found := range listening.FindAllStringSubmatch(s.log.String(), -1) {
			if found[1] == "pop3" {
				s.pop3 = found[2]
			} else {
				s.pop3s = found[2]
			}
		}
		return s.pop3 != "" && s.pop3s != ""
	})
	return s
}

// await asks ready again and again until it says yes, for a limited time.
func await(t *testing.T, limit time.Duration, what string, ready func() bool) {
	t.Helper()
	for deadline := time.Now().Add(limit); !ready(); {
		if time.Now().After(deadline) {
			t.Fatalf("not after %v: %s", limit, what)
		}
		time.Sleep(20 * time.Millisecond) // between two looks; nothing depends on its length
	}
}

// login logs in once, from an address of this machine, and returns how long PASS took.
func (s *server) login(t *testing.T, from, user string) time.Duration {
	t.Helper()
	d := net.Dialer{LocalAddr: net.TCPAddrFromAddrPort(netip.AddrPortFrom(netip.MustParseAddr(from), 0)), Timeout: 5 * time.Second}
	conn, err := d.DialContext(t.Context(), "tcp", s.pop3)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(time.Minute))
	in := bufio.NewReader(conn)
	var took time.Duration
	for _, command := range []string{"", "USER " + user, "PASS " + password, "QUIT"} {
		began := time.Now()
		if command != "" {
			if _, err := io.WriteString(conn, command+"\r\n"); err != nil {
				t.Fatal(err)
			}
		}
		if reply, err := in.ReadString('\n'); err != nil || !strings.HasPrefix(reply, "+OK") {
			t.Fatalf("%s from %s: %q: %q, %v", user, from, command, reply, err)
		}
		if strings.HasPrefix(command, "PASS") {
			took = time.Since(began)
		}
	}
	return took
}

// buildDewey builds cmd/dewey, once, and returns the program's path.
var buildDewey = sync.OnceValues(func() (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Minute)
	defer cancel()
	path := filepath.Join(buildDir, "dewey")
	build := exec.CommandContext(ctx, "go", "build", "-o", path, "dewey/cmd/dewey")
	if out, err := build.CombinedOutput(); err != nil {
		return "", fmt.Errorf("go build dewey/cmd/dewey: %w\n%s", err, out)
	}
	return path, nil
})

func port(address string) string {
	_, port, _ := net.SplitHostPort(address)
	return port
}

// lockedBuffer takes what a process prints while the test reads it.
type lockedBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}
