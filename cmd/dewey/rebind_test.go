package main

import (
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// A socket that somebody has removed, or replaced, is made again by SIGHUP; one that is there is left alone; what can't
// be made again is told, and the rest of the configuration counts all the same.
func TestRemovedSocketIsMadeAgain(t *testing.T) {
	data, socket := t.TempDir(), socketPath(t)
	addUser(t, data, "mrose")
	p, _ := serve(t, data, "--set", "lmtp.listen=unix:"+socket, "--set", "pop3.listen=127.0.0.1:0", "--set", "process.landlock=off")
	inode := func() uint64 {
		t.Helper()
		st, err := os.Lstat(socket)
		if err != nil {
			t.Fatal(err)
		}
		return st.Sys().(*syscall.Stat_t).Ino
	}
	reload := func(words ...string) {
		t.Helper()
		p.signal(syscall.SIGHUP)
		if len(words) > 0 {
			p.wait(words...)
		}
		p.wait("msg=reloaded")
		if code, out := hand(t, "a: b\n\nc\n", "--set", "data="+data, "--set", "lmtp.listen=unix:"+socket, "mrose"); code != 0 {
			t.Errorf("%d: %s", code, out)
		}
		p.wait("message delivered", "user=mrose") // by the server, and not by deliver itself
	}
	p.saw1(t, "key=lmtp.listen")
	before := inode()
	reload()
	if inode() != before {
		t.Error("a socket that was there was made again")
	}
	remove := func() {
		t.Helper()
		if err := os.Remove(socket); err != nil {
			t.Fatal(err)
		}
	}
	remove()
	reload("level=WARN", "the socket was removed; it is made again", socket)
	remove()
	other, err := net.ListenUnix("unix", &net.UnixAddr{Name: socket, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	other.SetUnlinkOnClose(false) // another program's, which has died
	_ = other.Close()
	reload("the socket was removed; it is made again", socket)
	remove()
	if err := os.WriteFile(socket, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	p.signal(syscall.SIGHUP)
	if line := p.wait("level=ERROR", "can't be made again"); !strings.Contains(line, "restart dewey") || !strings.Contains(line, "there is a file that is no socket") {
		t.Error(line)
	}
	p.wait("msg=reloaded")
	remove()
	reload("the socket was removed; it is made again", socket)
	p.signal(syscall.SIGTERM)
	if code := p.end(); code != 0 {
		t.Errorf("exit code %d", code)
	}
	if left, _ := filepath.Glob(socket); len(left) > 0 {
		t.Error("the socket was left behind")
	}
}

// Confined by Landlock no socket can be made: that is said, with what helps, and the rest goes on.
func TestRemovedSocketUnderLandlock(t *testing.T) {
	data, socket := t.TempDir(), socketPath(t)
	p := startStatic(t, "--set", "data="+data, "--set", "process.landlock=required", "--set", "lmtp.listen=unix:"+socket)
	p.wait("key=lmtp.listen")
	if err := os.Remove(socket); err != nil {
		t.Fatal(err)
	}
	p.signal(syscall.SIGHUP)
	if line := p.wait("level=ERROR", "the socket was removed"); !strings.Contains(line, "restart dewey") || !strings.Contains(line, socket) {
		t.Error(line)
	}
	p.wait("msg=reloaded")
	p.signal(syscall.SIGTERM)
	if code := p.end(); code != 0 {
		t.Errorf("exit code %d", code)
	}
}
