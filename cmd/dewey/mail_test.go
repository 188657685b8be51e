package main

import (
	"bufio"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"dewey/config"
	"dewey/recipients"
)

// What the configuration takes is what the package knows.
func TestRecipientRulesAreThoseOfThePackage(t *testing.T) {
	if !slices.Equal(config.RecipientRules, recipients.DefaultOrder) {
		t.Errorf("config has %q, recipients %q", config.RecipientRules, recipients.DefaultOrder)
	}
}

// socketPath is a short path: one of a socket has 107 octets at most.
func socketPath(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "dewey-lmtp")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return filepath.Join(dir, "lmtp")
}

// lmtpClient connects and says LHLO.
func lmtpClient(t *testing.T, network, address string) *client {
	t.Helper()
	conn, err := net.DialTimeout(network, address, patience)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	if err := conn.SetDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	c := &client{t: t, conn: conn, in: bufio.NewReader(conn)}
	if s := c.read(); !strings.HasPrefix(s, "220 ") {
		t.Fatalf("greeting %q", s)
	}
	c.say("LHLO client.example", "250")
	return c
}

// say sends a command and wants a reply of that code.
func (c *client) say(command, code string) {
	c.t.Helper()
	fmt.Fprintf(c.conn, "%s\r\n", command)
	line := c.read()
	for strings.HasPrefix(line[3:], "-") {
		line = c.read()
	}
	if !strings.HasPrefix(line, code+" ") {
		c.t.Fatalf("%s: %q, want %s", command, line, code)
	}
}

// hand gives `dewey deliver` a message, and returns its exit code and what it said.
func hand(t *testing.T, message string, args ...string) (int, string) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "dewey", append([]string{"deliver"}, args...)...)
	cmd.Stdin = strings.NewReader(message)
	out, err := cmd.CombinedOutput()
	var ended *exec.ExitError
	if err != nil && !errors.As(err, &ended) {
		t.Fatal(err)
	}
	return cmd.ProcessState.ExitCode(), string(out)
}

// mails lists a user's new messages.
func mails(t *testing.T, data, user string) []string {
	t.Helper()
	found, err := filepath.Glob(filepath.Join(data, "mail", user, "new", "*"))
	if err != nil {
		t.Fatal(err)
	}
	return found
}

// Mail comes in by LMTP, on TCP and on a UNIX socket, and goes out by POP3 while both sessions are open.
func TestMailIn(t *testing.T) {
	data, socket := t.TempDir(), socketPath(t)
	addUser(t, data, "mrose")
	addUser(t, data, "bob@example.org")
	aliases := filepath.Join(data, "aliases")
	if err := os.WriteFile(aliases, []byte("info: mrose, bob@example.org\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	p, _ := serve(t, data, "--set", "lmtp.listen=unix:"+socket+",127.0.0.1:0", "--set", "pop3.listen=127.0.0.1:0", "--set", "recipients.aliases={data}/aliases",
		"--set", "recipients.domains=example.org")
	tcp := field(p.saw1(t, "key=lmtp.listen", "address=127"), "address")
	pop := field(p.wait("key=pop3.listen"), "address")
	if p.saw("LMTP asks for no password") {
		t.Error("a warning for what only this machine reaches")
	}
	if fi, err := os.Stat(socket); err != nil || fi.Mode() != os.ModeSocket|0o600 {
		t.Errorf("%v, %v", fi, err)
	}
	for network, address := range map[string]string{"unix": socket, "tcp": tcp} {
		c := lmtpClient(t, network, address)
		c.say("MAIL FROM:<ann@example.com>", "250")
		c.say("RCPT TO:<nobody@example.org>", "550")
		c.say("RCPT TO:<mrose@example.edu>", "550")
		c.say("RCPT TO:<info+x@example.org>", "250")
		c.say("DATA", "354")
		c.say("Subject: "+network+"\r\n\r\nhi\r\n.", "250")
		c.say("QUIT", "221")
	}
	for _, user := range []string{"mrose", "bob@example.org"} {
		c := dial(t, pop)
		c.login(user)
		c.ok("STAT", "+OK 2 ")
		c.ok("QUIT")
	}
	// Aliases are read again, as are rules; a wrong one changes nothing.
	if err := os.WriteFile(aliases, []byte("info: |x\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	p.signal(syscall.SIGHUP)
	p.wait("aliases stay as they were", "aliases:1: a command")
	p.wait("reloaded")
	if code, out := hand(t, "a: b\n\nc\n", "--set", "data="+data, "--set", "lmtp.listen=unix:"+socket, "info@example.org"); code != 0 {
		t.Errorf("%d: %s", code, out)
	}
	p.wait("message delivered", "info@example.org", "user=mrose")
	p.signal(syscall.SIGTERM)
	if code := p.end(); code != 0 {
		t.Errorf("exit code %d", code)
	}
	if _, err := os.Lstat(socket); !errors.Is(err, os.ErrNotExist) {
		t.Error("the socket was left behind")
	}
}

// saw1 is the line of the log so far, or yet to come, that has all the words in it.
func (p *process) saw1(t *testing.T, words ...string) string {
	t.Helper()
next:
	for _, line := range p.seen {
		for _, w := range words {
			if !strings.Contains(line, w) {
				continue next
			}
		}
		return line
	}
	return p.wait(words...)
}

// A socket that was left behind is replaced; one at which somebody listens, and a file that is none, are not.
func TestStaleSocket(t *testing.T) {
	path := socketPath(t)
	none := socketRights{mode: 0o666, uid: -1, gid: -1}
	first, err := listenUnix(path, none)
	if err != nil {
		t.Fatal(err)
	}
	if fi, err := os.Stat(path); err != nil || fi.Mode().Perm() != 0o666 {
		t.Errorf("%v, %v", fi, err) // whatever the umask
	}
	if _, err := listenUnix(path, none); !errors.Is(err, syscall.EADDRINUSE) {
		t.Errorf("while it is served: %v", err)
	}
	if c, err := net.Dial("unix", path); err != nil {
		t.Errorf("the one that is served suffered: %v", err)
	} else {
		_ = c.Close()
	}
	if err := first.(*unixListener).Listener.Close(); err != nil { // as if it had died
		t.Fatal(err)
	}
	second, err := listenUnix(path, socketRights{mode: 0o600, uid: -1, gid: -1})
	if err != nil {
		t.Fatal(err)
	}
	_ = first.Close() // a file that is no longer its own
	if fi, err := os.Stat(path); err != nil || fi.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", fi, err)
	}
	_ = second.Close()
	_ = second.Close()
	if _, err := os.Lstat(path); err == nil {
		t.Error("left behind")
	}
	if err := os.WriteFile(path, []byte("mail"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := listenUnix(path, none); err == nil || !strings.Contains(err.Error(), "no socket") {
		t.Errorf("%v", err)
	}
	if data, err := os.ReadFile(path); err != nil || string(data) != "mail" {
		t.Errorf("%q, %v", data, err)
	}
}

// Of many that start at once, each finding a stale socket, one gets it, and keeps it.
func TestStaleSocketRace(t *testing.T) {
	path := socketPath(t)
	for range 20 {
		old, err := listenUnix(path, socketRights{mode: 0o600, uid: -1, gid: -1})
		if err != nil {
			t.Fatal(err)
		}
		_ = old.(*unixListener).Listener.Close()
		var got [4]net.Listener
		var all sync.WaitGroup
		for i := range got {
			all.Go(func() { got[i], _ = listenUnix(path, socketRights{mode: 0o600, uid: -1, gid: -1}) })
		}
		all.Wait()
		n := 0
		for _, l := range got {
			if l != nil {
				n++
				defer l.Close()
			}
		}
		if c, err := net.Dial("unix", path); n != 1 || err != nil {
			t.Fatalf("%d have it, %v", n, err)
		} else {
			_ = c.Close()
		}
		for _, l := range got {
			if l != nil {
				_ = l.Close()
			}
		}
	}
}

// Each refusal to bind one is one clear line.
func TestUnixSocketErrors(t *testing.T) {
	path := socketPath(t)
	held, err := listenUnix(path, socketRights{mode: 0o600, uid: -1, gid: -1})
	if err != nil {
		t.Fatal(err)
	}
	defer held.Close()
	for _, test := range []struct {
		want string
		sets []string
	}{
		{"lmtp.listen: unix:" + path + " is busy: a program listens there; ", []string{"lmtp.listen=unix:" + path}},
		{"lmtp.listen: unix:/none/lmtp can't be made: its folder does not exist; ", []string{"lmtp.listen=unix:/none/lmtp"}},
		{"lmtp.listen: unix:/proc/lmtp can't be made: its folder ", []string{"lmtp.listen=unix:/proc/lmtp"}},
		{`lmtp.socket_user: there is no user "no-such-user"`, []string{"lmtp.listen=unix:" + path + "2", "lmtp.socket_user=no-such-user"}},
		{`lmtp.socket_group: there is no group "no-such-group"`, []string{"lmtp.listen=unix:" + path + "2", "lmtp.socket_group=no-such-group"}},
	} {
		args := []string{"serve", "--log-level", "error", "--set", "data=" + t.TempDir(), "--set", "pop3.listen=127.0.0.1:0"}
		for _, s := range test.sets {
			args = append(args, "--set", s)
		}
		p := start(t, "dewey", args)
		if code := p.end(); code != 1 || len(p.seen) != 1 || !p.saw("dewey: "+test.want) {
			t.Errorf("exit code %d, want %q", code, test.want)
		}
	}
}

// SIGHUP opens and closes doors; settings that the aliases do not fit change nothing.
func TestMailReloads(t *testing.T) {
	data, socket, file := t.TempDir(), socketPath(t), filepath.Join(t.TempDir(), "dewey.toml")
	addUser(t, data, "mrose")
	write := func(name, text string) {
		t.Helper()
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(filepath.Join(data, "aliases"), "info@example.org: mrose\n")
	const pop = "pop3.listen = ['127.0.0.1:0']\nrecipients.aliases = '{data}/aliases'\n"
	write(file, pop)
	p, _ := serve(t, data, "--config", file)
	write(file, pop+"lmtp.listen = ['unix:"+socket+"']\nrecipients.domains = ['example.org']\nlmtp.max_size = '1K'\n")
	p.signal(syscall.SIGHUP)
	p.wait("msg=reloaded")
	c := lmtpClient(t, "unix", socket)
	c.say("MAIL FROM:<> SIZE=2000", "552")
	c.say("MAIL FROM:<>", "250")
	c.say("RCPT TO:<mrose@example.com>", "550")

	write(file, pop+"lmtp.listen = []\nrecipients.domains = ['example.com']\n")
	p.signal(syscall.SIGHUP)
	p.wait("configuration stays as it was", "aliases:1: the domain ")
	c.say("RCPT TO:<mrose@example.com>", "550")
	c.say("RCPT TO:<info@example.org>", "250")

	// The session goes on when its door is closed, and SIGTERM waits for its transaction.
	write(file, pop+"lmtp.listen = []\nlmtp.socket_mode = '0660'\n")
	p.signal(syscall.SIGHUP)
	p.wait("need a restart", "lmtp.socket_mode")
	p.wait("msg=reloaded")
	if _, err := os.Lstat(socket); err == nil {
		t.Error("the socket is still there")
	}
	c.say("DATA", "354")
	p.signal(syscall.SIGTERM)
	p.wait("ending: waiting for sessions")
	c.say("a: b\r\n\r\nc\r\n.", "250")
	if code := p.end(); code != 0 || len(mails(t, data, "mrose")) != 1 {
		t.Errorf("exit code %d, %q", code, mails(t, data, "mrose"))
	}
}

// A socket that systemd passed is served, and its file is systemd's.
func TestSystemdMail(t *testing.T) {
	data, socket := t.TempDir(), socketPath(t)
	addUser(t, data, "mrose")
	p := start(t, "likesystemd", []string{"serve", "--set", "data=" + data, "--set", "lmtp.listen=127.0.0.1:1"}, func(cmd *exec.Cmd) {
		l, err := net.ListenUnix("unix", &net.UnixAddr{Name: socket, Net: "unix"})
		if err != nil {
			t.Fatal(err)
		}
		l.SetUnlinkOnClose(false)
		f, err := l.File()
		if err != nil {
			t.Fatal(err)
		}
		_ = l.Close()
		cmd.ExtraFiles = []*os.File{f}
		cmd.Env = append(os.Environ(), "LISTEN_FDS=1", "LISTEN_FDNAMES=lmtp")
		t.Cleanup(func() { _ = f.Close() })
	})
	if line := p.wait("msg=listening"); field(line, "key") != "lmtp.listen" || field(line, "address") != socket {
		t.Error(line)
	}
	if code, out := hand(t, "a: b\n\nc\n", "--set", "data="+t.TempDir(), "--set", "lmtp.listen=unix:"+socket, "mrose"); code != 0 {
		t.Errorf("%d: %s", code, out)
	}
	p.signal(syscall.SIGTERM)
	if code := p.end(); code != 0 || len(mails(t, data, "mrose")) != 1 || !p.saw("lmtp.listen is without effect") {
		t.Errorf("exit code %d", code)
	}
	if _, err := os.Lstat(socket); err != nil {
		t.Error(err)
	}
}

// As root the socket is process.user's before anybody can connect, and confined as it is dewey removes it; `dewey
// deliver`, as root too, makes Maildirs that are that user's.
func TestMailAsRoot(t *testing.T) {
	socket := socketPath(t)
	folder := filepath.Dir(socket)
	if err := os.Chmod(folder, 0o777); err != nil {
		t.Fatal(err)
	}
	data := filepath.Join(folder, "data")
	addUser(t, data, "mrose")
	addUser(t, data, "bob")
	both := []string{"--set", "data=" + data, "--set", "process.user=nobody", "--set", "lmtp.listen=unix:" + socket}
	p := startStatic(t, append(both, "--set", "process.landlock=required", "--set", "lmtp.socket_group=mail", "--set", "lmtp.socket_mode=0660")...)
	p.wait("msg=listening", "key=lmtp.listen")
	var st syscall.Stat_t
	if err := syscall.Stat(socket, &st); err != nil || st.Uid != 65534 || st.Gid != 8 || st.Mode&0o777 != 0o660 {
		t.Errorf("%+v, %v", st, err)
	}
	if code, out := hand(t, "a: b\n\nc\n", append(both, "mrose")...); code != 0 {
		t.Errorf("%d: %s", code, out)
	}
	p.signal(syscall.SIGHUP) // the group's name is looked up again, inside the cage
	p.wait("msg=reloaded")
	p.signal(syscall.SIGTERM)
	if code := p.end(); code != 0 {
		t.Errorf("exit code %d", code)
	}
	if _, err := os.Lstat(socket); err == nil {
		t.Error("the socket was left behind")
	}
	name, err := static()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), name, append([]string{"deliver", "bob"}, both...)...)
	cmd.Stdin = strings.NewReader("a: b\n\nc\n")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%v: %s", err, out)
	}
	for _, user := range []string{"mrose", "bob"} {
		found := mails(t, data, user)
		if len(found) != 1 {
			t.Fatalf("%s: %q", user, found)
		}
		for _, path := range []string{found[0], filepath.Dir(found[0])} {
			if err := syscall.Stat(path, &st); err != nil || st.Uid != 65534 {
				t.Errorf("%s is %d's, %v", path, st.Uid, err)
			}
		}
	}
}

// A sender that stops in the middle has delivered nothing, and a large message goes through whole.
func TestDeliverWhole(t *testing.T) {
	data, socket := t.TempDir(), socketPath(t)
	addUser(t, data, "mrose")
	large := "Subject: large\n\n" + strings.Repeat("\x00\xff.\r\n.\n\r", 300_000)
	p, _ := serve(t, data, "--set", "pop3.listen=127.0.0.1:0", "--set", "lmtp.listen=unix:"+socket)
	through := []string{"--set", "data=" + data, "--set", "lmtp.listen=unix:" + socket, "-f", "müller@example.org", "mrose"}
	straight := []string{"--set", "data=" + data, "mrose", "-f", "müller@example.org"}
	for i, args := range [][]string{through, straight} {
		if code, out := hand(t, large, args...); code != 0 {
			t.Fatalf("%d: %s", code, out)
		}
		found := mails(t, data, "mrose")
		if len(found) != i+1 {
			t.Fatalf("%q", found)
		}
		text, err := os.ReadFile(found[i])
		if err != nil {
			t.Fatal(err)
		}
		want := strings.ReplaceAll(large, "\r\n", "\n") // the store keeps line ends so
		if !strings.HasSuffix(string(text), "\n"+want) && !strings.HasSuffix(string(text), "\n"+want+"\n") {
			t.Errorf("%d octets came of %d", len(text), len(large))
		}
		if head := string(text[:len(text)-len(want)]); strings.Count(head, "Return-Path: <müller@example.org>") != 1 || !strings.Contains(head, "UTF8LMTP") {
			t.Errorf("%q", head)
		}
	}
	// The program that hands it over dies, and ours with it.
	for _, args := range [][]string{through, straight} {
		cmd := exec.CommandContext(t.Context(), "dewey", append([]string{"deliver"}, args...)...)
		in, err := cmd.StdinPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		if _, err := in.Write([]byte(large)); err != nil {
			t.Fatal(err)
		}
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		_ = in.Close()
	}
	if n := len(mails(t, data, "mrose")); n != 2 {
		t.Errorf("%d messages", n)
	}
	p.signal(syscall.SIGTERM)
	if code := p.end(); code != 0 {
		t.Errorf("exit code %d", code)
	}
}

// What answers at the socket and is no LMTP, or goes away, is no success, and nothing is delivered another way.
func TestDeliverToAStranger(t *testing.T) {
	data, socket := t.TempDir(), socketPath(t)
	addUser(t, data, "mrose")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	for _, says := range []string{
		"", "+OK dewey ready\r\n", "421 4.3.2 going down\r\n", "220 x LMTP\r\n", "220 x LMTP\r\n500 what?\r\n", "220 x LMTP\r\n250-x\r\n250 PIPELINING\r\n",
		"220 x LMTP\r\n250-x\r\n250 CHUNKING\r\n", "220 x LMTP\r\n250-x\r\n250 CHUNKING\r\n250 ok\r\n250 ok\r\n",
		"220 x LMTP\r\n250-x\r\n250 CHUNKING\r\n250 ok\r\n250 ok\r\n354 go on\r\n", "220 x LMTP\r\n250-x\r\n250 CHUNKING\r\n250 ok\r\n250 ok\r\n554 no\r\n",
		strings.Repeat("x", 10000),
	} {
		go func() {
			c, err := l.Accept()
			if err == nil {
				_, _ = c.Write([]byte(says))
				time.Sleep(50 * time.Millisecond)
				_ = c.Close()
			}
		}()
		if code, out := hand(t, "a: b\n\nc\n", "--set", "data="+data, "--set", "lmtp.listen=unix:"+socket, "mrose"); code != exitTempFail {
			t.Errorf("%q: %d: %s", says, code, out)
		}
	}
	if n := len(mails(t, data, "mrose")); n != 0 {
		t.Errorf("%d messages", n)
	}
}

// procmail hands messages over, its line From and all, and keeps those that dewey does not take.
func TestProcmail(t *testing.T) {
	procmail, err := exec.LookPath("procmail")
	if err != nil {
		t.Fatal("no procmail: apt-get install procmail")
	}
	dewey, err := exec.LookPath("dewey")
	if err != nil {
		t.Fatal(err)
	}
	data := t.TempDir()
	addUser(t, data, "mrose")
	rc := filepath.Join(data, "procmailrc")
	deliver := func(to string) (int, string) {
		text := "SHELL=/bin/sh\nDEFAULT=" + data + "/kept\nLOGFILE=" + data + "/log\n:0 rw\n| " + dewey + " deliver --set data=" + data + " " + to + "\n"
		if err := os.WriteFile(rc, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		cmd := exec.CommandContext(t.Context(), procmail, "-f", "ann@example.com", "DEFAULT="+data+"/kept", rc)
		cmd.Stdin = strings.NewReader("From: ann@example.com\nSubject: by procmail\n\nFrom here on\n")
		out, _ := cmd.CombinedOutput()
		log, _ := os.ReadFile(data + "/log")
		return cmd.ProcessState.ExitCode(), string(out) + string(log)
	}
	if code, out := deliver("mrose"); code != 0 || len(mails(t, data, "mrose")) != 1 {
		t.Fatalf("%d: %s", code, out)
	}
	text, err := os.ReadFile(mails(t, data, "mrose")[0])
	if err != nil {
		t.Fatal(err)
	}
	if s := string(text); !strings.HasPrefix(s, "Return-Path: <ann@example.com>\n") || !strings.HasSuffix(s, "\nFrom: ann@example.com\nSubject: by procmail\n\nFrom here on\n") {
		t.Errorf("%q", s)
	}
	_, out := deliver("nobody")
	if kept, err := os.ReadFile(data + "/kept"); err != nil || !strings.Contains(string(kept), "Subject: by procmail") {
		t.Errorf("%q, %v: %s", kept, err, out)
	}
}

// An address goes into a command line as one, or not at all. RFC 5321 section 4.1.2.
func TestPath(t *testing.T) {
	for address, want := range map[string]string{
		"mrose": "mrose", "mrose+x@example.org": "mrose+x@example.org", "a b@example.org": `"a b"@example.org`, `a"b\c@x`: `"a\"b\\c"@x`, "a@b@c": `"a@b"@c`,
		`"a b"@example.org`: `"a b"@example.org`, "@relay:mrose@example.org": "@relay:mrose@example.org", "müller@x": "müller@x", "": "",
		"a@b> SIZE=1": "!", `"a"@b> SIZE=1`: "!", "a\r\nRSET@b": "!", "a@b\nRSET": "!", "a\x00@b": "!", "\xff@b": "!", "@b": "!", "a@<b": "!", "a> x@b": `"a> x"@b`,
	} {
		got, ok := path(address)
		if !ok {
			got = "!"
		}
		if got != want {
			t.Errorf("%q: %q, not %q", address, got, want)
		}
	}
}
