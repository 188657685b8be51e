package pam

import (
	"bytes"
	"context"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"dewey/auth"
)

// unix is what docs/PAM.md has for /etc/pam.d/dewey.
const unix = "auth required pam_unix.so\naccount required pam_unix.so\n"

// addUser makes a user of the system, until the test ends.
func addUser(t *testing.T, name, password string, args ...string) {
	t.Helper()
	must := func(stdin string, name string, args ...string) {
		t.Helper()
		cmd := exec.Command(name, args...)
		cmd.Stdin = strings.NewReader(stdin)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%s %v: %v: %s", name, args, err, out)
		}
	}
	remove := func() error { return exec.Command("userdel", name).Run() }
	_ = remove() // of a test that was killed
	t.Cleanup(func() {
		if err := remove(); err != nil {
			t.Errorf("userdel %s: %v", name, err)
		}
	})
	must("", "useradd", append([]string{"--no-create-home", "--home-dir", "/home/" + name, "--shell", "/usr/sbin/nologin", name}, args...)...)
	must(name+":"+password, "chpasswd")
}

// Real users, by Debian's pam_unix.
func TestUnix(t *testing.T) {
	if !needsRoot(t) {
		return
	}
	addUser(t, "deweytest1", "a secret")
	addUser(t, "deweytest2", "a secret")
	addUser(t, "deweytest3", "a secret")
	addUser(t, "deweytest4", "a secret")
	addUser(t, "deweytest5", "a secret", "--system")
	for _, args := range [][]string{{"chage", "-E", "0", "deweytest2"}, {"usermod", "-L", "deweytest3"}, {"chage", "-d", "0", "deweytest4"}} {
		if out, err := exec.Command(args[0], args[1:]...).CombinedOutput(); err != nil {
			t.Fatalf("%v: %v: %s", args, err, out)
		}
	}
	f := newFixture(t, unix, func(c *Config) { c.Virtual = false })
	for _, c := range []struct{ user, password, login, find, mail string }{
		{"deweytest1", "a secret", in, in, in},
		{"DeweyTest1", "a secret", in, in, in},
		{"deweytest1", "a secret ", rejected, in, in},
		{"deweytest1", "another", rejected, in, in},
		{"deweytest2", "a secret", rejected, rejected, in}, // expired
		{"deweytest3", "a secret", rejected, in, in},       // locked: a word of the password's alone
		{"deweytest4", "a secret", rejected, rejected, in}, // the password is to be changed
		{"deweytest5", "a secret", unknown, unknown, unknown},
		{"deweytest6", "a secret", unknown, unknown, unknown},
		{"root", "a secret", unknown, unknown, unknown},
		{"nobody", "a secret", unknown, unknown, unknown},
	} {
		id, err := f.login(c.user, c.password)
		if outcome(err) != c.login {
			t.Errorf("%s with %q: %v; want %s\n%s", c.user, c.password, err, c.login, f.log)
		}
		if want := "deweytest1"; err == nil && (id.User != want || id.Home != "/home/"+want) {
			t.Errorf("%s: %+v", c.user, id)
		}
		if _, err := f.Find(t.Context(), c.user, netip.Addr{}); outcome(err) != c.find {
			t.Errorf("find %s: %v; want %s", c.user, err, c.find)
		}
		if _, err := f.Recipient(t.Context(), c.user); outcome(err) != c.mail {
			t.Errorf("mail for %s: %v; want %s", c.user, err, c.mail)
		}
	}
	f.service("dewey", "@include common-auth\n@include common-account\n") // Debian's own
	if err := os.Symlink("/etc/pam.d/common-auth", filepath.Join(f.dir, "common-auth")); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("/etc/pam.d/common-account", filepath.Join(f.dir, "common-account")); err != nil {
		t.Fatal(err)
	}
	f.expect(in, "deweytest1", "a secret")
	f.expect(rejected, "deweytest1", "another")
	f.expect(unknown, "deweytest6", "a secret")
}

// Whom getpwnam(3) knows and PAM does not is nobody's user, and not one of another backend.
func TestKnownToTheSystemAlone(t *testing.T) {
	if !needsRoot(t) {
		return
	}
	addUser(t, "deweytest1", "a secret")
	for _, virtual := range []bool{false, true} {
		f := newFixture(t, permit, func(c *Config) { c.Virtual = virtual })
		for _, statuses := range []struct{ auth, account, find string }{{"user_unknown", "success", in}, {"success", "user_unknown", rejected}} {
			f.service("dewey", fmt.Sprintf("auth required pam_debug.so auth=%s\naccount required pam_debug.so acct=%s\n", statuses.auth, statuses.account))
			f.expect(rejected, "deweytest1", "a secret")
			if _, err := f.Find(t.Context(), "deweytest1", netip.Addr{}); !virtual && outcome(err) != statuses.find {
				t.Errorf("find, account %s: %v; want %s", statuses.account, err, statuses.find)
			}
		}
	}
}

// Who is unknown takes as long as who has a wrong password; pam_unix itself answers for him at once. What is compared is
// the processor's time: the machine may be busy.
func TestTrap42Times(t *testing.T) {
	if !needsRoot(t) {
		return
	}
	addUser(t, "deweytest1", "a secret")
	f := newFixture(t, unix, func(c *Config) { c.Virtual, c.Processes = false, 1 })
	f.expect(in, "deweytest1", "a secret")
	worker := children(f.supervisor())[0]
	used := func() (ticks float64) {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", worker))
		if err != nil {
			t.Fatal(err)
		}
		_, rest, _ := strings.Cut(string(text), ") ")
		for _, field := range strings.Fields(rest)[11:15] { // proc(5): utime, stime, cutime, cstime
			n, _ := strconv.Atoi(field)
			ticks += float64(n)
		}
		return ticks
	}
	cost := func(user string) float64 {
		before := used()
		for range 10 {
			if _, err := f.login(user, "another"); err == nil {
				t.Errorf("%s is in", user)
			}
		}
		return used() - before
	}
	wrong := cost("deweytest1")
	for _, user := range []string{"nosuchuser", "root", "daemon"} {
		if took := cost(user); wrong < 10 || took < wrong*0.7 || took > wrong*1.4 {
			t.Errorf("a wrong password costs %v ticks, %s %v", wrong, user, took)
		}
	}
}

// What dewey-pam keeps of root's rights.
func TestRights(t *testing.T) {
	if !needsRoot(t) {
		return
	}
	t.Setenv("SECRET_OF_DEWEY", "x")
	f := newFixture(t, permit, nil)
	opened, err := os.Open("/etc/hostname") // one that it is not to inherit
	if err != nil {
		t.Fatal(err)
	}
	defer opened.Close()
	f.expect(in, "mrose", "a secret")
	supervisor := f.supervisor()
	worker := children(supervisor)[0]
	ours, err := os.Readlink("/proc/self/ns/net")
	if err != nil {
		t.Fatal(err)
	}
	for name, pid := range map[string]int{"supervisor": supervisor, "worker": worker} {
		read := func(file string) string {
			text, err := os.ReadFile(fmt.Sprintf("/proc/%d/%s", pid, file))
			if err != nil {
				t.Errorf("%s: %v", name, err)
			}
			return string(text)
		}
		status := read("status")
		// chown, dac_override, dac_read_search, fowner, fsetid, kill, setgid, setuid: bits 0 to 7; audit_write: 29.
		for _, line := range []string{
			"CapPrm:\t00000000200000ff\n", "CapEff:\t00000000200000ff\n", "CapBnd:\t00000000200000ff\n", "CapAmb:\t0000000000000000\n", "NoNewPrivs:\t1\n",
		} {
			if !strings.Contains(status, line) {
				t.Errorf("%s: no %q in\n%s", name, line, status)
			}
		}
		if env := read("environ"); strings.Contains(env, "SECRET") || strings.Count(env, "\x00") != 3 {
			t.Errorf("%s has the environment %q", name, env)
		}
		if limits := read("limits"); !strings.Contains(limits, "Max core file size        0                    0") {
			t.Errorf("%s: %s", name, limits)
		}
		if theirs, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/net", pid)); err != nil || theirs == ours {
			t.Errorf("%s has our network (%v)", name, err)
		}
		if args := read("cmdline"); strings.Contains(args, "secret") {
			t.Errorf("%s: %q", name, args)
		}
		fds, _ := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", pid))
		for _, fd := range fds {
			if to, _ := os.Readlink(fd); strings.HasPrefix(to, "/") && to != "/dev/null" && !strings.HasPrefix(to, "/sys/fs/cgroup/") { // Go's runtime looks there
				t.Errorf("%s has %s open", name, to)
			}
		}
		if st, err := os.Stat(fmt.Sprintf("/proc/%d/environ", pid)); err != nil || st.Mode().Perm()&0o077 != 0 {
			t.Errorf("%s: %v, %v", name, st, err)
		}
	}

	f = newFixture(t, permit, func(c *Config) { c.Network = true })
	f.expect(in, "mrose", "a secret")
	if theirs, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/net", f.supervisor())); err != nil || theirs != ours {
		t.Errorf("with network it has another (%v)", err)
	}
}

// asChild is what the test binary does as a child: a dewey that starts dewey-pam, becomes nobody, and is asked.
func asChild(args []string) error {
	b, err := New(Config{Helper: args[0], ServiceFolder: args[1], Virtual: true, Timeout: patience})
	if err != nil {
		return err
	}
	if err := b.Start(context.Background()); err != nil {
		return err
	}
	if err := becomeNobody(); err != nil {
		return err
	}
	for line := range lines(os.Stdin) {
		id, err := b.CheckPassword(context.Background(), auth.Attempt{User: line, Password: "a secret"})
		fmt.Printf("%s %s %v\n", outcome(err), id.User, err)
	}
	return b.Close()
}

// A dewey that has given up its rights still has users, until dewey-pam ends; and dewey-pam ends with it.
func TestDropped(t *testing.T) {
	if !needsRoot(t) {
		return
	}
	for _, kill := range []string{"dewey-pam", "dewey"} {
		dir := t.TempDir()
		f := &fixture{t: t, dir: dir, log: &log{}}
		// Only root sees the shadow file, whoever dewey has become.
		f.service("dewey", "auth required pam_exec.so "+f.script("root", "test -r /etc/shadow && echo $$ >$DIR/pid")+"\naccount required pam_permit.so\n")
		cmd := exec.Command("/proc/self/exe", built(t), dir)
		cmd.Env = append(os.Environ(), "DEWEY_PAM_CHILD=1")
		var stderr bytes.Buffer
		cmd.Stderr = &stderr
		stdin, err := cmd.StdinPipe()
		if err != nil {
			t.Fatal(err)
		}
		stdout, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		answers := lines(stdout)
		ask := func() string {
			fmt.Fprintln(stdin, "mrose")
			for line := range answers {
				return line
			}
			return "no answer"
		}
		if a := ask(); !strings.HasPrefix(a, in+" mrose") {
			t.Errorf("%s\n%s", a, stderr.String())
		}
		supervisor := children(cmd.Process.Pid)[0]
		workers := children(supervisor)
		if kill == "dewey" {
			f.service("dewey", "auth required pam_exec.so "+f.script("hang", "echo $$ >$DIR/pid; exec sleep 1000")+"\n")
			if err := os.Remove(filepath.Join(dir, "pid")); err != nil {
				t.Fatal(err)
			}
			fmt.Fprintln(stdin, "mrose")
			hangs := 0
			until(t, "a conversation that hangs", func() bool {
				text, _ := os.ReadFile(filepath.Join(dir, "pid"))
				n, _ := fmt.Sscan(string(text), &hangs)
				return n == 1
			})
			_ = cmd.Process.Kill()
			for _, pid := range append(workers, supervisor, hangs) {
				until(t, "the end of all that was started", func() bool { return gone(pid) })
			}
		} else {
			p, _ := os.FindProcess(supervisor)
			_ = p.Kill()
			until(t, "the end of dewey-pam", func() bool { return gone(supervisor) })
			until(t, "what to do", func() bool { a := ask(); return strings.HasPrefix(a, cantTell) && strings.Contains(a, "restart dewey") })
		}
		_ = stdin.Close()
		_ = cmd.Wait()
		if kill != "dewey" && !strings.Contains(stderr.String(), "dewey-pam has ended") {
			t.Errorf("the log: %s", stderr.String())
		}
	}
}
