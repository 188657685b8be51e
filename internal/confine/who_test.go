package confine

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

func init() {
	children["lookup"] = lookUpChild
	children["become"] = becomeChild
	children["seal"] = sealChild
}

// lookUpChild has a root folder of its own, with its own /etc/passwd.
func lookUpChild(args []string) {
	for _, arg := range args {
		user, group, _ := strings.Cut(arg, ":")
		who, err := LookUp(user, group)
		switch {
		case err != nil:
			fmt.Printf("%s: %v\n", arg, err)
		default:
			fmt.Printf("%s: %s %d %d %v\n", arg, who.Name, who.UID, who.GID, who.Groups)
		}
	}
}

func TestLookUp(t *testing.T) {
	if !needsRoot(t) {
		return
	}
	binary, err := static()
	if err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(binary)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	for name, file := range map[string]struct {
		data string
		mode os.FileMode
	}{
		"child": {string(data), 0o755},
		"etc/passwd": {"root:x:0:0::/:/bin/sh\ntoor:x:0:7::/:/bin/sh\ndewey:x:210:211:Dewey:/var/lib/dewey:/bin/false\n" +
			"vmail:x:212:8::/:/bin/false\nwheel:x:213:213::/:/bin/false\nrooted:x:214:0::/:/bin/false\n300:x:301:301::/:/bin/false\n" +
			"huge:x:4294967295:7::/:/bin/false\n", 0o644},
		"etc/group": {"root:x:0:wheel\nmail:x:8:dewey,other\ndewey:x:211:\nssl-cert:x:110:dewey\nvmail:x:212:vmail\nwheel:x:213:\n", 0o644},
	} {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(file.data), file.mode); err != nil { //nolint:gosec // a program
			t.Fatal(err)
		}
	}
	want := map[string]string{
		"dewey":            "dewey 210 211 [8 110 211]",
		"210":              "dewey 210 211 [8 110 211]",
		"dewey:mail":       "dewey 210 8 [8 110]",
		"dewey:8":          "dewey 210 8 [8 110]",
		"dewey:999":        "dewey 210 999 [8 110 999]",
		"vmail":            "vmail 212 8 [8 212]",
		"300":              "300 301 301 [301]", // a name before a number, as chown(1) has it
		"999:mail":         "999 999 8 [8]",
		"root":             `user "root": is root's`,
		"0":                `user "0": is root's`,
		"0:mail":           `user "0": is root's`,
		"toor":             `user "toor": is root's`,
		"rooted":           `user "rooted": a group is root's`,
		"rooted:mail":      "rooted 214 8 [8]",
		"dewey:root":       `user "dewey": a group is root's`,
		"dewey:0":          `user "dewey": a group is root's`,
		"wheel":            `user "wheel": a group is root's`,
		"nobody":           `user "nobody": is not in /etc/passwd or /etc/group`,
		"nobody:mail":      `user "nobody": is not in /etc/passwd or /etc/group`,
		"999":              `user "999": is not in /etc/passwd or /etc/group`,
		"4294967295:8":     `user "4294967295": is not in /etc/passwd or /etc/group`,
		"-1:8":             `user "-1": is not in /etc/passwd or /etc/group`,
		"dewey:nogroup":    `group "nogroup": is not in /etc/passwd or /etc/group`,
		"dewey:4294967295": `group "4294967295": is not in /etc/passwd or /etc/group`,
		"":                 `user "": is not in /etc/passwd or /etc/group`,
	}
	var args []string
	for arg := range want {
		args = append(args, arg)
	}
	args = append(args, "huge")
	cmd := child(t, "lookup", args...)
	cmd.Path, cmd.Args[0], cmd.Dir = "/child", "/child", "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Chroot: dir}
	said := run(t, cmd)
	if !strings.HasPrefix(said["huge"], `user "huge": has the numbers`) {
		t.Errorf("huge: %q", said["huge"])
	}
	delete(said, "huge")
	expect(t, said, want)

	if err := os.RemoveAll(filepath.Join(dir, "etc")); err != nil { // as in the smallest containers
		t.Fatal(err)
	}
	cmd = child(t, "lookup", "999:8", "dewey")
	cmd.Path, cmd.Args[0], cmd.Dir = "/child", "/child", "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Chroot: dir}
	expect(t, run(t, cmd), map[string]string{
		"999:8": "999 999 8 [8]", "dewey": `user "dewey": is not in /etc/passwd or /etc/group`,
	})
}

// someone is a user that no machine has.
var someone = Who{Name: "someone", UID: 54321, GID: 54322, Groups: []int{54322, 54323}}

func becomeChild(args []string) {
	readSecret := func() error { return read(filepath.Join(args[0], "secret")) }
	onThreads := threads(4, readSecret)
	bind, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM, 0)
	say("socket", err)
	say("read root's file before", readSecret())
	say("nobody", Who{}.Become())
	say("root", Who{UID: 0, GID: 1}.Become())
	say("root's group", Who{UID: 1, GID: 1, Groups: []int{0}}.Become())
	say("own nothing", Who{}.Own(args[0]))
	say("become", someone.Become())
	say("again", someone.Become())
	say("read root's file", readSecret())
	say("on other threads", onThreads())
	say("read its own file", read(filepath.Join(args[0], "own")))
	say("read its group's file", read(filepath.Join(args[0], "group")))
	say("setuid", syscall.Setuid(0))
	say("setgid", syscall.Setgid(0))
	say("setgroups", syscall.Setgroups([]int{0}))
	say("bind a low port", unix.Bind(bind, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}, Port: 1}))
	dumpable, err := unix.PrctlRetInt(unix.PR_GET_DUMPABLE, 0, 0, 0, 0)
	say("dumpable", err)
	fmt.Printf("is dumpable: %d\n", dumpable)
	pause("ready")
}

// Become leaves nothing of root, on no thread.
func TestBecome(t *testing.T) {
	if !needsRoot(t) {
		return
	}
	dir := t.TempDir()
	for path := dir; path != os.TempDir() && path != "/"; path = filepath.Dir(path) {
		if err := os.Chmod(path, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for name, owner := range map[string][2]int{"secret": {0, 0}, "own": {54321, 0}, "group": {0, 54323}} {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, nil, 0o440); err != nil {
			t.Fatal(err)
		}
		if err := os.Chown(path, owner[0], owner[1]); err != nil {
			t.Fatal(err)
		}
	}
	want := map[string]string{
		"socket": "ok", "read root's file before": "ok",
		"nobody": "become : is root's", "root": "become : is root's", "root's group": "become : is root's",
		"own nothing": "give " + dir + " to : is root's",
		"become":      "ok", "again": "become someone: only root can become another",
		"read root's file": "permission denied", "on other threads": "permission denied",
		"read its own file": "ok", "read its group's file": "ok",
		"setuid": "operation not permitted", "setgid": "operation not permitted", "setgroups": "operation not permitted",
		"bind a low port": "permission denied", "dumpable": "ok", "is dumpable": "0", "ready": "ok",
	}
	if low, err := os.ReadFile("/proc/sys/net/ipv4/ip_unprivileged_port_start"); err == nil && strings.TrimSpace(string(low)) == "0" {
		want["bind a low port"] = "ok"
	}
	expect(t, run(t, child(t, "become", dir)), want)

	cmd := child(t, "become", dir)
	// What a wrapper may have left: capabilities that stay across execve.
	cmd.SysProcAttr = &syscall.SysProcAttr{AmbientCaps: []uintptr{unix.CAP_NET_BIND_SERVICE, unix.CAP_DAC_OVERRIDE}}
	paused(t, cmd, "ready")
	each := statuses(t, cmd.Process.Pid)
	if len(each) < 5 {
		t.Errorf("only %d threads", len(each))
	}
	for id, status := range each {
		for name, value := range map[string]string{
			"Uid": "54321 54321 54321 54321", "Gid": "54322 54322 54322 54322", "Groups": "54322 54323",
			"CapPrm": "0000000000000000", "CapEff": "0000000000000000", "CapAmb": "0000000000000000", "NoNewPrivs": "1",
		} {
			if status[name] != value {
				t.Errorf("thread %s: %s is %q, want %q", id, name, status[name], value)
			}
		}
	}
}

// statuses reads /proc/PID/task/*/status.
func statuses(t *testing.T, pid int) map[string]map[string]string {
	t.Helper()
	files, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	all := map[string]map[string]string{}
	for _, name := range files {
		f, err := os.Open(name)
		if err != nil {
			t.Fatal(err)
		}
		status := map[string]string{}
		for s := bufio.NewScanner(f); s.Scan(); {
			key, value, _ := strings.Cut(s.Text(), ":")
			status[key] = strings.Join(strings.Fields(value), " ")
		}
		_ = f.Close()
		all[filepath.Base(filepath.Dir(name))] = status
	}
	return all
}

func sealChild([]string) {
	wait := threads(4, func() error { return nil })
	say("seal", Seal())
	say("become", someone.Become())
	pause("ready")
	_ = wait()
}

// Who is not root can still be sealed.
func TestSeal(t *testing.T) {
	cmd := child(t, "seal")
	if os.Geteuid() == 0 {
		cmd.SysProcAttr = &syscall.SysProcAttr{
			Credential:  &syscall.Credential{Uid: 54321, Gid: 54321},
			AmbientCaps: []uintptr{unix.CAP_NET_BIND_SERVICE},
		}
	}
	paused(t, cmd, "ready")
	for id, status := range statuses(t, cmd.Process.Pid) {
		if status["NoNewPrivs"] != "1" || status["CapAmb"] != "0000000000000000" {
			t.Errorf("thread %s: %v", id, status)
		}
	}
}

func TestOwn(t *testing.T) {
	if !needsRoot(t) {
		return
	}
	dir := t.TempDir()
	in := func(name string) string { return filepath.Join(dir, name) }
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(os.Mkdir(in("data"), 0o700))
	must(os.Mkdir(in("root"), 0o700))
	must(write(in("root/shadow")))
	must(os.Symlink("data", in("alias"))) // by root: an administrator's way to say where
	must(someone.Own(in("data")))
	must(write(in("data/users")))
	must(someone.Own(in("alias/users")))
	must(someone.Own(in("data/users")))
	for _, name := range []string{"data", "data/users"} {
		st, err := os.Stat(in(name))
		must(err)
		if sys, ok := st.Sys().(*syscall.Stat_t); !ok || sys.Uid != 54321 || sys.Gid != 54322 {
			t.Errorf("%s: %+v", name, st.Sys())
		}
	}

	// What someone may put into his own folder, to be given root's.
	must(os.Symlink("../root/shadow", in("data/link")))
	must(os.Symlink("../root", in("data/folder")))
	must(os.Link(in("root/shadow"), in("data/hard")))
	must(syscall.Mkfifo(in("data/fifo"), 0o600))
	must(write(in("data/third")))
	must(os.Chown(in("data/third"), 54399, 54399))
	for name, want := range map[string]error{
		"data/link": ErrOthers, "data/hard": ErrOthers, "data/fifo": ErrOthers, "data/third": ErrOthers, "alias": ErrOthers,
		"data/folder/shadow": syscall.ENOTDIR, "data/none": syscall.ENOENT,
	} {
		if err := someone.Own(in(name)); !errors.Is(err, want) {
			t.Errorf("%s: %v, want %v", name, err, want)
		}
	}
	for _, name := range []string{"root", "root/shadow"} {
		st, err := os.Stat(in(name))
		must(err)
		if sys, ok := st.Sys().(*syscall.Stat_t); !ok || sys.Uid != 0 {
			t.Errorf("%s was given away", name)
		}
	}
}
