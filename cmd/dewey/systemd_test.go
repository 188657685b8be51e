package main

import (
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// notifySocket is the end of a service manager that hears sd_notify.
func notifySocket(t *testing.T) (address string, next func() string) {
	t.Helper()
	address = filepath.Join(t.TempDir(), "notify")
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: address, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	if err := conn.SetReadDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	return address, func() string {
		t.Helper()
		buf := make([]byte, 4096)
		n, err := conn.Read(buf)
		if err != nil {
			t.Fatal(err)
		}
		return string(buf[:n])
	}
}

// passing gives listening sockets to a process as systemd does, from descriptor 3 on.
func passing(t *testing.T, names string, sockets ...string) (prepare func(*exec.Cmd), addresses []string) {
	t.Helper()
	var files []*os.File
	for _, network := range sockets {
		var f *os.File
		switch network {
		case "udp":
			c, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			if f, err = c.File(); err != nil {
				t.Fatal(err)
			}
			addresses = append(addresses, c.LocalAddr().String())
		default:
			l, err := net.ListenTCP("tcp", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
			if err != nil {
				t.Fatal(err)
			}
			defer l.Close()
			if f, err = l.File(); err != nil {
				t.Fatal(err)
			}
			addresses = append(addresses, l.Addr().String())
		}
		files = append(files, f)
	}
	return func(cmd *exec.Cmd) {
		cmd.ExtraFiles = files
		cmd.Env = append(os.Environ(), "LISTEN_FDS="+string(rune('0'+len(files))), "LISTEN_FDNAMES="+names)
		t.Cleanup(func() {
			for _, f := range files {
				_ = f.Close()
			}
		})
	}, addresses
}

// Started by systemd as Type=notify-reload, with a watchdog and with sockets. sd_notify(3), sd_listen_fds(3).
func TestSystemd(t *testing.T) {
	address, next := notifySocket(t)
	data := t.TempDir()
	addUser(t, data, "mrose")
	pass, at := passing(t, "pop3:pop3", "tcp", "tcp")
	p := start(t, "likesystemd", []string{"serve", "--set", "data=" + data, "--set", "pop3.listen=127.0.0.1:1"}, pass,
		func(cmd *exec.Cmd) { cmd.Env = append(cmd.Env, "NOTIFY_SOCKET="+address, "WATCHDOG_USEC=100000") })

	until := func(word string) string { // the watchdog's signs of life come between
		t.Helper()
		for {
			if s := next(); strings.Contains(s, word) {
				return s
			} else if s != "WATCHDOG=1" {
				t.Fatalf("%q, want %q", s, word)
			}
		}
	}
	ready := until("READY=1\n")
	for _, a := range at {
		if !strings.Contains(ready, a) {
			t.Errorf("the status %q has no %s", ready, a)
		}
		c := dial(t, a) // served as soon as it is ready
		c.login("mrose")
		c.ok("QUIT")
	}
	until("WATCHDOG=1")
	until("WATCHDOG=1")

	p.signal(syscall.SIGHUP)
	if s := until("RELOADING=1\n"); !strings.Contains(s, "\nMONOTONIC_USEC=") {
		t.Errorf("%q", s)
	}
	until("READY=1\n")

	p.signal(syscall.SIGTERM)
	until("STOPPING=1\n")
	if code := p.end(); code != 0 {
		t.Errorf("exit code %d", code)
	}
	if !p.saw("pop3.listen is without effect") {
		t.Error("no word of pop3.listen, which was set")
	}
}

// A socket that is not said to be POP3's, or that is no listening one, is an error: one clear line.
func TestSystemdWrongSockets(t *testing.T) {
	for _, test := range []struct {
		names, want string
		sockets     []string
	}{
		{"", `a socket has the name "LISTEN_FD_3"; `, []string{"tcp"}},
		{"dewey.socket", `a socket has the name "dewey.socket"; write FileDescriptorName=pop3`, []string{"tcp"}},
		{"unknown", `a socket has the name "unknown"`, []string{"tcp"}},
		{"pop3:lmtps", `a socket has the name "lmtps"; write FileDescriptorName=pop3, pop3s or lmtp`, []string{"tcp", "tcp"}},
		{"pop3", "is no listening stream socket", []string{"udp"}},
	} {
		t.Run(test.names, func(t *testing.T) {
			pass, _ := passing(t, test.names, test.sockets...)
			p := start(t, "likesystemd", []string{"serve", "--set", "data=" + t.TempDir(), "--log-level", "error"}, pass)
			if code := p.end(); code != 1 || len(p.seen) != 1 || !p.saw("dewey: socket activation: ", test.want) {
				t.Errorf("exit code %d, want one line with %q", code, test.want)
			}
		})
	}
}

// A dead notify socket is no reason not to serve.
func TestSystemdGone(t *testing.T) {
	p := start(t, "dewey", []string{"serve", "--set", "data=" + t.TempDir(), "--set", "pop3.listen=127.0.0.1:0"}, func(cmd *exec.Cmd) {
		cmd.Env = append(os.Environ(), "NOTIFY_SOCKET="+filepath.Join(t.TempDir(), "none"), "WATCHDOG_USEC=x")
	})
	dial(t, field(p.wait("msg=listening"), "address")).ok("QUIT")
	p.signal(syscall.SIGTERM)
	if code := p.end(); code != 0 || !p.saw("cannot notify the service manager") {
		t.Errorf("exit code %d", code)
	}
}
