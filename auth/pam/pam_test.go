package pam

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"dewey/auth"
)

const permit = "auth required pam_permit.so\naccount required pam_permit.so\n"

// module is a module that misbehaves; the text is a service that uses it.
func (f *fixture) module(what string) string {
	f.t.Helper()
	path := filepath.Join(f.dir, "pam_play.so")
	if _, err := os.Stat(path); err != nil {
		if out, err := exec.Command("gcc", "-shared", "-fPIC", "-o", path, "testdata/pam_play.c", "-lpam").CombinedOutput(); err != nil {
			f.t.Fatalf("gcc: %v: %s", err, out)
		}
	}
	return fmt.Sprintf("auth required %s %s\naccount required pam_permit.so\n", path, what)
}

// What each status of PAM means, by Debian's module that returns what it is told. pam(3).
func TestStatuses(t *testing.T) {
	f := newFixture(t, permit, nil)
	for _, c := range []struct{ auth, account, want string }{
		{"success", "success", in},
		{"auth_err", "success", rejected},
		{"maxtries", "success", rejected},
		{"perm_denied", "success", rejected},
		{"acct_expired", "success", rejected},
		{"user_unknown", "success", unknown},
		{"authinfo_unavail", "success", cantTell},
		{"cred_insufficient", "success", cantTell},
		{"system_err", "success", cantTell},
		{"service_err", "success", cantTell},
		{"buf_err", "success", cantTell},
		{"conv_err", "success", cantTell},
		{"abort", "success", cantTell},
		{"success", "acct_expired", rejected},
		{"success", "new_authtok_reqd", rejected},
		{"success", "perm_denied", rejected},
		{"success", "auth_err", rejected},
		{"success", "user_unknown", rejected}, // the password was right: no other backend is to be asked
		{"success", "authinfo_unavail", cantTell},
		{"success", "system_err", cantTell},
	} {
		f.service("dewey", fmt.Sprintf("auth required pam_debug.so auth=%s\naccount required pam_debug.so acct=%s\n", c.auth, c.account))
		if _, err := f.login("mrose", "a secret"); outcome(err) != c.want {
			t.Errorf("auth %s, account %s: %v; want %s", c.auth, c.account, err, c.want)
		}
	}
	f.service("dewey", "auth required pam_is_not_there.so\naccount required pam_permit.so\n")
	f.expect(cantTell, "mrose", "a secret")
	if err := os.Remove(filepath.Join(f.dir, "dewey")); err != nil {
		t.Fatal(err)
	}
	f.expect(cantTell, "mrose", "a secret")
}

// The password goes where nothing is shown, and nowhere else; nobody sleeps for pam_fail_delay.
func TestConversation(t *testing.T) {
	f := newFixture(t, permit, nil)
	for what, want := range map[string]string{
		"talk": in, "shown": cantTell, "endless": cantTell, "rhost 192.0.2.7": in, "rhost 192.0.2.8": rejected, "newline": cantTell,
	} {
		f.service("dewey", f.module(what))
		if _, err := f.login("mrose", "a secret"); outcome(err) != want {
			t.Errorf("%s: %v; want %s", what, err, want)
		}
	}
	f.service("dewey", f.module("talk"))
	f.expect(rejected, "mrose", "another")
	f.service("dewey", f.module("delay"))
	start := time.Now()
	f.expect(rejected, "mrose", "a secret")
	if d := time.Since(start); d > 5*time.Second {
		t.Errorf("a module's delay of 30 seconds held a worker for %v", d)
	}
}

// The user is who PAM says he is, unless that is one of the system's own.
func TestRenamed(t *testing.T) {
	f := newFixture(t, permit, func(c *Config) { c.Home = "/var/vmail/{domain}/{local}" })
	f.service("dewey", f.module("rename john@example.org"))
	id, err := f.login("mrose", "a secret")
	if want := (auth.Identity{User: "john@example.org", Home: "/var/vmail/example.org/john"}); err != nil || id.User != want.User || id.Home != want.Home {
		t.Errorf("%+v, %v; want %+v", id, err, want)
	}
	f.service("dewey", f.module("rename root"))
	f.expect(cantTell, "mrose", "a secret")
	f.service("dewey", f.module("rename a/b"))
	f.expect(cantTell, "mrose", "a secret")
}

func TestNames(t *testing.T) {
	f := newFixture(t, permit, nil)
	for _, name := range []string{"", ".", "..", "a/b", "../etc/passwd", "a\nb", "a\tb", "a\x00b", "\x7f", "a\xff", "a\xc3", strings.Repeat("x", 256)} {
		f.expect(unknown, name, "a secret")
	}
	for _, name := range []string{"root", "ROOT", "daemon", "nobody"} { // PAM would let in all
		f.expect(unknown, name, "a secret")
	}
	for _, password := range []string{"", "a\x00b", strings.Repeat("x", 512)} {
		f.expect(rejected, "mrose", password)
	}
	f.expect(in, "mrose", strings.Repeat("x", 511))
	f.expect(in, strings.Repeat("ü", 127), "x")
	if id, err := f.login("MRose@Example.ORG", "a secret"); err != nil || id.User != "mrose@example.org" {
		t.Errorf("%+v, %v; want the name in lower case", id, err)
	}
	for _, ask := range []func() (auth.Identity, error){
		func() (auth.Identity, error) { return f.Recipient(t.Context(), "mrose") },
		func() (auth.Identity, error) { return f.Find(t.Context(), "mrose", netip.Addr{}) },
	} {
		if _, err := ask(); outcome(err) != unknown {
			t.Errorf("by name alone: %v; want %s", err, unknown)
		}
	}
}

// execs is a service that lets in whom a program lets in. pam_exec says System error of any other.
func execs(script string) string {
	return "auth [success=1 default=ignore] pam_exec.so expose_authtok " + script + "\nauth requisite pam_deny.so\nauth required pam_permit.so\naccount required pam_permit.so\n"
}

// The test service: a script of the administrator's that pam_exec runs, as docs/PAM.md has it.
func TestExec(t *testing.T) {
	f := newFixture(t, permit, nil)
	script := f.script("check", `read -r password
test "$PAM_USER" = mrose -a "$password" = "a secret" -a "$PAM_RHOST" = 192.0.2.7 -a "$PAM_TYPE" = auth -a -z "$HOME"`)
	f.service("dewey", execs(script))
	f.expect(in, "mrose", "a secret")
	f.expect(rejected, "mrose", "another")
	f.expect(rejected, "john", "a secret")
}

// More users than processes wait; more than a user's time is not waited.
func TestBound(t *testing.T) {
	f := newFixture(t, permit, nil)
	script := f.script("gate", `touch $DIR/inside.$$; read -r x <$DIR/gate; rm $DIR/inside.$$`)
	gate := filepath.Join(f.dir, "gate")
	if out, err := exec.Command("mkfifo", gate+".fifo").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	text, err := os.ReadFile(script)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(script, []byte(strings.ReplaceAll(string(text), "$DIR/gate;", "$DIR/gate.fifo;")), 0o755); err != nil {
		t.Fatal(err)
	}
	f.service("dewey", "auth required pam_exec.so "+script+"\naccount required pam_permit.so\n")
	inside := func() int { list, _ := filepath.Glob(f.dir + "/inside.*"); return len(list) }
	var logins sync.WaitGroup
	for range 6 {
		logins.Go(func() { f.expect(in, "mrose", "a secret") })
	}
	until(t, "two conversations", func() bool { return inside() == 2 })
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := f.CheckPassword(ctx, auth.Attempt{User: "mrose", Password: "a secret"}); outcome(err) != cantTell || !strings.Contains(err.Error(), "busy") {
		t.Errorf("all processes are busy: %v", err)
	}
	if n := inside(); n != 2 {
		t.Errorf("%d conversations at the same time; the bound is 2", n)
	}
	w, err := os.OpenFile(gate+".fifo", os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	if _, err := w.WriteString(strings.Repeat("go\n", 64)); err != nil {
		t.Fatal(err)
	}
	logins.Wait()
}

// 50 at once, right and wrong ones: each gets his own answer.
func TestManyAtOnce(t *testing.T) {
	f := newFixture(t, permit, func(c *Config) { c.Processes = 4 })
	script := f.script("check", `read -r password; test "$password" = "secret of $PAM_USER"`)
	f.service("dewey", execs(script))
	var logins sync.WaitGroup
	for i := range 50 {
		logins.Go(func() {
			user := fmt.Sprint("user", i)
			id, err := f.login(user, "secret of "+user)
			if err != nil || id.User != user {
				t.Errorf("%s: %+v, %v", user, id, err)
			}
			f.expect(rejected, user, "secret of another")
		})
	}
	logins.Wait()
}

func TestConfig(t *testing.T) {
	for _, c := range []Config{
		{},
		{Helper: "dewey-pam"},
		{Socket: "run/x"},
		{Helper: "/a", Socket: "/b"},
		{Helper: "/a", Service: "../x"},
		{Helper: "/a", Service: "."},
		{Helper: "/a", Processes: -1},
		{Helper: "/a", Processes: 1000},
		{Helper: "/a", Timeout: -1},
		{Helper: "/a", Home: "{user}"},
		{Helper: "/a", Home: "/srv/{name}"},
		{Helper: "/a", Home: "/srv/../{user}"},
		{Helper: "/a", ServiceFolder: "x"},
	} {
		if _, err := New(c); err == nil {
			t.Errorf("%+v is taken", c)
		}
	}
	_, err := New(Config{Processes: -1, Timeout: -1, Home: "x"})
	for _, part := range []string{"helper", "processes", "timeout", "home"} {
		if err == nil || !strings.Contains(err.Error(), part) {
			t.Errorf("of %s nothing is said: %v", part, err)
		}
	}
}
