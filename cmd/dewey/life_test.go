package main

import (
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// A post is a running server with mail, and what a test asks of it.
type post struct {
	t       *testing.T
	data    string
	file    string // the configuration
	server  *process
	address string
}

// newPost serves the users of a passwd-file by a configuration.
func newPost(t *testing.T, users, toml string) *post {
	t.Helper()
	p := &post{t: t, data: t.TempDir(), file: filepath.Join(t.TempDir(), "dewey.toml")}
	write(t, filepath.Join(p.data, "users"), users)
	write(t, p.file, toml)
	p.server, p.address = serve(t, p.data, "--config", p.file, "--set", "pop3.listen=127.0.0.1:0", "--set", "pop3s.listen=")
	return p
}

// mail puts a message that was delivered so long ago into a folder of a user; "" is his own.
func (p *post) mail(user, folder, subject string, ago time.Duration) {
	p.t.Helper()
	path := filepath.Join(p.data, "mail", user, folder)
	for _, sub := range []string{"tmp", "new", "cur"} {
		if err := os.MkdirAll(filepath.Join(path, sub), 0o700); err != nil {
			p.t.Fatal(err)
		}
	}
	name, at := filepath.Join(path, "new", fmt.Sprintf("%d.%s.h", time.Now().Add(-ago).Unix(), subject)), time.Now().Add(-ago)
	write(p.t, name, "Subject: "+subject+"\n\nhi\n")
	if err := os.Chtimes(name, at, at); err != nil {
		p.t.Fatal(err)
	}
}

// listing logs in and returns the lines of a multi-line response, and does no more.
func (p *post) listing(user, command string, more ...string) []string {
	p.t.Helper()
	c := dial(p.t, p.address)
	c.login(user)
	c.ok(command)
	var lines []string
	for line := c.read(); line != "."; line = c.read() {
		lines = append(lines, line)
	}
	for _, m := range more {
		c.ok(m)
	}
	c.ok("QUIT")
	c.closed()
	return lines
}

// subjects are those of the messages that a login sees, in order.
func (p *post) subjects(user string) string {
	p.t.Helper()
	c := dial(p.t, p.address)
	c.login(user)
	c.ok("LIST")
	n := 0
	for c.read() != "." {
		n++
	}
	var subjects []string
	for i := range n {
		c.ok(fmt.Sprintf("TOP %d 0", i+1))
		for line := c.read(); line != "."; line = c.read() {
			if s, ok := strings.CutPrefix(line, "Subject: "); ok {
				subjects = append(subjects, s)
			}
		}
	}
	c.ok("QUIT")
	c.closed()
	return strings.Join(subjects, " ")
}

func (p *post) see(user, want string) {
	p.t.Helper()
	if got := p.subjects(user); got != want {
		p.t.Errorf("%s sees %q, want %q", user, got, want)
	}
}

// sees wants the unique-ids that a login sees, in any order: what was brought back comes after what has stayed.
func (p *post) sees(user string, want []string) {
	p.t.Helper()
	got := slices.Sorted(slices.Values(uids(p.listing(user, "UIDL"))))
	if want = slices.Sorted(slices.Values(want)); !slices.Equal(got, want) {
		p.t.Errorf("%s sees %q, want %q", user, got, want)
	}
}

// command runs a command beside the server.
func (p *post) command(want int, args ...string) string {
	p.t.Helper()
	code, stdout, stderr := dewey(p.t, p.data, append(args, "--config", p.file)...)
	if code != want {
		p.t.Fatalf("%q ended with %d, not %d\n%s%s", args, code, want, stdout, stderr)
	}
	return stdout + stderr
}

func uids(lines []string) []string {
	for i, line := range lines {
		_, lines[i], _ = strings.Cut(line, " ")
	}
	return lines
}

// What a session removed comes back, under its unique-ids and with its text, for whoever logs in next; nothing but
// that.
func TestRestoreOverPOP3(t *testing.T) {
	p := newPost(t, "mrose:{PLAIN}tanstaaf\nbob:{PLAIN}tanstaaf::::::undelete=never\n", "mail.undelete = '14d'\n")
	for i, s := range []string{"one", "two", "three"} {
		p.mail("mrose", "", s, time.Duration(10-i)*time.Hour)
		p.mail("bob", "", s, time.Duration(10-i)*time.Hour)
	}
	before := uids(p.listing("mrose", "UIDL"))
	text := p.listing("mrose", "RETR 2")
	p.listing("mrose", "UIDL", "DELE 1", "DELE 2")
	p.see("mrose", "three")
	p.listing("bob", "UIDL", "DELE 1")

	removed := p.command(0, "mail", "list", "mrose", "--removed")
	if !strings.Contains(removed, before[0]) || !strings.Contains(removed, before[1]) || strings.Contains(removed, before[2]) ||
		!strings.HasPrefix(removed, "REMOVED ") || !strings.Contains(removed, " one\n") || !strings.HasPrefix(lastLine(removed), "2 messages, ") {
		t.Error(removed)
	}
	if out := p.command(0, "mail", "list", "mrose", "--removed", "--json"); strings.Count(out, `"removed":"2`) != 2 || strings.Contains(out, `"number"`) || strings.Contains(out, `"kept"`) {
		t.Error(out)
	}
	if out := p.command(0, "mail", "restore", "mrose", "--since", "1h", "--dry-run"); !strings.Contains(out, "would restore "+before[0]+", 20 octets, removed 2") {
		t.Error(out)
	}
	for _, test := range []struct{ want, args string }{
		{"among those that can be brought back (what was removed more than 14d ago is gone: mail.undelete); nothing was", before[0] + " " + before[2]},
		{"was removed since 2", "--since 0s"},
		{"one of them", "--all " + before[0]},
		{"one of them", "--all --since 1h"},
		{"nothing to bring back", ""},
		{"is no time", "--since yesterday"},
		{"needs a time", "--since="},
	} {
		if out := p.command(1, append([]string{"mail", "restore", "mrose"}, strings.Fields(test.args)...)...); !strings.Contains(out, test.want) {
			t.Errorf("%s: %s", test.args, out)
		}
	}
	for user, want := range map[string]string{"bob": "nothing of bob can be brought back (mail.undelete is off: what is removed is gone at once)", "nobody": "no such user"} {
		if out := p.command(1, "mail", "restore", user, "--all"); !strings.Contains(out, want) {
			t.Error(out)
		}
	}
	p.see("mrose", "three")

	c := dial(t, p.address)
	c.login("mrose")
	if out := p.command(exitTempFail, "mail", "restore", "mrose", "--all"); !strings.Contains(out, "in use") {
		t.Error(out)
	}
	if out := p.command(0, "mail", "list", "mrose", "--removed"); !strings.HasPrefix(lastLine(out), "2 messages") {
		t.Error(out)
	}
	c.ok("QUIT")
	c.closed()

	if out := p.command(0, "mail", "restore", "mrose", before[1]); strings.Count(out, "\n") != 2 || !strings.Contains(out, "restored "+before[1]) || lastLine(out) != "restored 1 message of mrose" {
		t.Error(out)
	}
	p.sees("mrose", before[1:])
	since := time.Now().Add(-time.Hour)
	if out := p.command(0, "mail", "restore", "mrose", "--since", since.Format(time.RFC3339)); lastLine(out) != "restored 1 message of mrose" {
		t.Error(out)
	}
	p.sees("mrose", before)
	second := slices.Index(uids(p.listing("mrose", "UIDL")), before[1])
	if got := p.listing("mrose", fmt.Sprintf("RETR %d", second+1)); !slices.Equal(got, text) {
		t.Errorf("%q, want %q", got, text)
	}
	if out := p.command(1, "mail", "restore", "mrose", "--all"); !strings.Contains(out, "nothing of mrose can be brought back (what was removed more than 14d ago") {
		t.Error(out)
	}
}

// Kept messages stay where they are; recent: shows them, mail list marks them, and mail restore shows them to all
// again. A reload turns recent: off.
func TestKeepOverPOP3(t *testing.T) {
	p := newPost(t, "mrose:{PLAIN}tanstaaf\n", "mail.deletion = 'keep'\n")
	p.mail("mrose", "", "old", 40*24*time.Hour)
	for i, s := range []string{"one", "two"} {
		p.mail("mrose", "", s, time.Duration(10-i)*time.Hour)
	}
	before := uids(p.listing("mrose", "UIDL", "DELE 2", "DELE 1"))
	p.see("mrose", "two")
	p.see("recent:mrose", "one two")
	if n := len(mails(t, p.data, "mrose")); n != 3 {
		t.Errorf("%d files", n)
	}
	if out := p.command(0, "mail", "list", "mrose"); !regexp.MustCompile(`(?m)^    2\*  `+before[1]+`  `).MatchString(out) || strings.Contains(out, "3*") ||
		!strings.HasPrefix(lastLine(out), "* removed by a session, and kept") {
		t.Error(out)
	}
	if out := p.command(0, "mail", "list", "mrose", "--json"); strings.Count(out, `"kept":true`) != 2 {
		t.Error(out)
	}
	if out := p.command(0, "mail", "list", "mrose", "--removed"); strings.Count(out, "* ") < 2 || !strings.Contains(out, " one\n") {
		t.Error(out)
	}
	if out := p.command(0, "mail", "restore", "mrose", before[1]); lastLine(out) != "restored 1 message of mrose" {
		t.Error(out)
	}
	p.see("mrose", "one two")
	p.sees("mrose", before[1:])
	write(t, p.file, "mail.deletion = 'keep'\nmail.recent = '0s'\n")
	p.server.signal(syscall.SIGHUP)
	p.server.wait("msg=reloaded")
	c := dial(t, p.address)
	c.ok("USER recent:mrose")
	fmt.Fprint(c.conn, "PASS tanstaaf\r\n")
	if reply := c.read(); !strings.HasPrefix(reply, "-ERR [AUTH]") {
		t.Error(reply)
	}
}

// curl retrieves and says QUIT; with "retrieved" that removes what it has, and nothing else.
func TestRetrievedByCurl(t *testing.T) {
	p := newPost(t, "mrose:{PLAIN}tanstaaf\nbob:{PLAIN}tanstaaf::::::deletion=remove\n", "mail.deletion = 'retrieved'\nmail.undelete = '1d'\n")
	for _, user := range []string{"mrose", "bob"} {
		p.mail(user, "", "one", 2*time.Hour)
		p.mail(user, "", "two", time.Hour)
		out, err := exec.CommandContext(t.Context(), "curl", "-sS", "--max-time", "30", "pop3://"+url.UserPassword(user, "tanstaaf").String()+"@"+p.address+"/1").Output()
		if err != nil || !strings.Contains(string(out), "Subject: one") {
			t.Fatalf("%v %s", err, out)
		}
	}
	p.see("bob", "one two")
	p.see("mrose", "two") // by TOP, which is no retrieval
	p.see("mrose", "two")
	if out := p.command(0, "mail", "restore", "mrose", "--since", "1h"); lastLine(out) != "restored 1 message of mrose" {
		t.Error(out)
	}
	if got := p.subjects("mrose"); got != "one two" && got != "two one" {
		t.Error(got)
	}
}

func TestWindowsOverPOP3(t *testing.T) {
	p := newPost(t, "mrose:{PLAIN}tanstaaf\nbob:{PLAIN}tanstaaf::::::window=1d\nann:{PLAIN}tanstaaf::::::window_messages=0\n", "mail.window_messages = 2\n")
	for _, user := range []string{"mrose", "bob", "ann"} {
		for i, s := range []string{"ages", "month", "week", "hour"} {
			p.mail(user, "", s, []time.Duration{100 * 24 * time.Hour, 29 * 24 * time.Hour, 7 * 24 * time.Hour, time.Hour}[i])
		}
		p.see("recent:"+user, "month week hour")
	}
	p.see("mrose", "week hour")
	p.see("bob", "hour")
	p.see("ann", "ages month week hour")
	if out := p.command(0, "mail", "list", "bob"); !strings.HasPrefix(lastLine(out), "4 messages") {
		t.Error(out)
	}
	p.listing("mrose", "UIDL", "DELE 1")
	p.see("mrose", "month hour") // the newest two that there are
	write(t, p.file, "")
	p.server.signal(syscall.SIGHUP)
	p.server.wait("msg=reloaded")
	p.see("mrose", "ages month hour")
}

func TestFoldersOverPOP3(t *testing.T) {
	const name = "mrose@example.org"
	p := newPost(t, name+":{PLAIN}tanstaaf\nbob:{PLAIN}tanstaaf::::::folders=\na+b:{PLAIN}tanstaaf\n", "mail.folders = ['Spam', 'Lists/dewey']\nmail.folder_delimiter = '+'\nmail.undelete = '1d'\n")
	for _, user := range []string{name, "bob", "a+b"} {
		p.mail(user, "", "own", 3*time.Hour)
		p.mail(user, ".Spam", "spam", 2*time.Hour)
		p.mail(user, ".Lists.dewey", "list", time.Hour)
		p.mail(user, ".Lists.dewey", "ages", 1000*time.Hour)
	}
	p.see(name, "own spam ages list")
	p.see("bob", "own")
	p.see("a+b", "own spam ages list")
	p.see("a+b+Spam", "spam")
	p.see("mrose+Spam@example.org", "spam")
	p.see(name+"+Spam", "spam")
	p.see("mrose+Lists/dewey@example.org", "ages list")
	p.see("recent:mrose+Lists/dewey@example.org", "list")
	p.see("bob+Spam", "spam")
	c := dial(t, p.address)
	c.ok("USER bob+None")
	fmt.Fprint(c.conn, "PASS tanstaaf\r\n")
	if reply := c.read(); !strings.HasPrefix(reply, "-ERR") {
		t.Error(reply)
	}
	// What is removed by one way is gone by the other, and comes back as it was.
	all := uids(p.listing(name, "UIDL"))
	p.listing(name+"+Spam", "UIDL", "DELE 1")
	p.see(name, "own ages list")
	p.listing(name, "UIDL", "DELE 1", "DELE 2")
	p.see(name, "list")
	if out := p.command(0, "mail", "list", name, "--removed", "--json"); strings.Count(out, `"folder":"Spam"`) != 1 || strings.Count(out, `"folder":"Lists/dewey"`) != 1 {
		t.Error(out)
	}
	if out := p.command(0, "mail", "restore", name, "--all"); lastLine(out) != "restored 3 messages of "+name {
		t.Error(out)
	}
	p.sees(name, all)
}

// EXPIRE tells the least that holds for anybody before login, and the user's own after it. RFC 2449 section 6.7.
func TestExpireOverPOP3(t *testing.T) {
	p := newPost(t, "mrose:{PLAIN}tanstaaf\nbob:{PLAIN}tanstaaf::::::retention=30d\nann:{PLAIN}tanstaaf::::::retention=never\n", "mail.retention = '90d'\n")
	expire := func(user string) string {
		t.Helper()
		c := dial(t, p.address)
		if user != "" {
			c.login(user)
		}
		c.ok("CAPA")
		found := ""
		for line := c.read(); line != "."; line = c.read() {
			if strings.HasPrefix(line, "EXPIRE") {
				found += line
			}
		}
		c.ok("QUIT")
		c.closed()
		return found
	}
	for user, want := range map[string]string{"": "EXPIRE 30 USER", "mrose": "EXPIRE 90", "bob": "EXPIRE 30", "ann": "EXPIRE NEVER"} {
		if got := expire(user); got != want {
			t.Errorf("%q: %q, want %q", user, got, want)
		}
	}
	list := p.command(0, "user", "list", "--json", "--no-usage")
	if strings.Count(list, `"retention": "90d"`) != 1 || strings.Count(list, `"retention": "30d"`) != 1 || strings.Count(list, `"retention"`) != 2 || strings.Contains(list, `"deletion"`) {
		t.Error(list)
	}
	write(t, filepath.Join(p.data, "users"), "mrose:{PLAIN}tanstaaf\nann:{PLAIN}tanstaaf\n")
	write(t, p.file, "mail.retention = '7d'\n")
	p.server.signal(syscall.SIGHUP)
	p.server.wait("msg=reloaded")
	for user, want := range map[string]string{"": "EXPIRE 7", "mrose": "EXPIRE 7"} {
		if got := expire(user); got != want {
			t.Errorf("%q: %q, want %q", user, got, want)
		}
	}
}

// What is added although it is past the retention is told of.
func TestAddPastRetention(t *testing.T) {
	data := mailData(t)
	mbox := mboxOf(t, 3) // of 2001
	code, stdout, stderr := dewey(t, data, "mail", "add", "mrose", mbox, "--set", "mail.retention=90d", "--skip", "1")
	if code != 0 || stdout != "added 2 messages to mrose\n" || !strings.Contains(stderr, "dewey: 2 messages are older than 90d, the retention of mrose: the next night removes them") {
		t.Errorf("%d %q %q", code, stdout, stderr)
	}
	if _, _, stderr := dewey(t, data, "mail", "add", "mrose", mbox, "--set", "mail.retention=36500d"); stderr != "" {
		t.Error(stderr)
	}
}

// The server keeps what is removed after it has given up its rights, confined as it is; and what root brings back
// beside it is the server's.
func TestRestoreAsRoot(t *testing.T) {
	parent := filepath.Dir(socketPath(t)) // t.TempDir lies in a folder that is root's alone
	if err := os.Chmod(parent, 0o777); err != nil {
		t.Fatal(err)
	}
	data := filepath.Join(parent, "data")
	addUser(t, data, "mrose")
	sets := []string{"--set", "data=" + data, "--set", "process.user=nobody", "--set", "mail.undelete=1d"}
	name, err := static()
	if err != nil {
		t.Fatal(err)
	}
	command := func(args ...string) string {
		t.Helper()
		cmd := exec.CommandContext(t.Context(), name, append(args, sets...)...)
		cmd.Stdin = strings.NewReader("Subject: one\n\nhi\n")
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("%q: %v\n%s", args, err, out)
		}
		return string(out)
	}
	command("mail", "add", "mrose", "-")
	p := &post{t: t, data: data, server: startStatic(t, append(sets, "--set", "process.landlock=required")...)}
	p.address = field(p.server.wait("msg=listening", "key=pop3.listen"), "address")
	before := uids(p.listing("mrose", "UIDL", "DELE 1"))
	p.sees("mrose", nil)
	if out := command("mail", "restore", "mrose", "--all"); lastLine(out) != "restored 1 message of mrose" {
		t.Error(out)
	}
	p.sees("mrose", before)
	p.listing("mrose", "UIDL", "DELE 1")
	if out := command("mail", "list", "mrose", "--removed"); !strings.Contains(out, before[0]) {
		t.Error(out)
	}
	err = filepath.WalkDir(filepath.Join(data, "mail"), func(path string, entry os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		var st syscall.Stat_t
		if err := syscall.Lstat(path, &st); err != nil || st.Uid != 65534 {
			t.Errorf("%s is %d's, %v", path, st.Uid, err)
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}
