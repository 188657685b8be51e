package confine

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

func init() {
	children["cage"] = cageChild
	children["victim"] = func([]string) { pause("ready") }
	children["connect"] = connectChild
	children["closed"] = closedChild
	children["nolandlock"] = noLandlockChild
}

// needsLandlock fails: without Landlock there is nothing to see, and a test that sees nothing is none.
func needsLandlock(t *testing.T) int {
	t.Helper()
	abi := version()
	if abi == 0 {
		t.Fatal("this kernel has no Landlock, or an old one: take Linux 5.19 or later with lsm=landlock,…")
	}
	return abi
}

// tree makes folders and files for cageChild.
func tree(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	for _, name := range []string{"read/deep/f", "write/a/f", "write/b/f", "outside/f", "etc/one", "etc/other"} {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte("x"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink("../outside/f", filepath.Join(dir, "write", "link")); err != nil {
		t.Fatal(err)
	}
	return dir
}

func read(path string) error {
	_, err := os.ReadFile(path)
	return err
}

func write(path string) error { return os.WriteFile(path, []byte("y"), 0o600) }

func cageChild(args []string) {
	in := func(name string) string { return filepath.Join(args[0], name) }
	onThreads := threads(4, func() error { return read(in("outside/f")) })
	open, err := os.Open(in("outside/f"))
	say("open before", err)

	_, err = Restrict(Cage{Read: []string{in("read")}, Write: []string{in("write"), in("missing")}})
	say("write folder missing", err)
	say("still free", read(in("outside/f")))

	abi, err := Restrict(Cage{Read: []string{in("read"), in("missing"), in("etc/one")}, Write: []string{in("write")}})
	say("restrict", err)
	fmt.Printf("abi: %d\n", abi)

	say("read inside", read(in("read/deep/f")))
	_, err = os.ReadDir(in("read"))
	say("list inside", err)
	say("write where only reading is", write(in("read/deep/f")))
	say("read one file", read(in("etc/one")))
	say("read its neighbour", read(in("etc/other")))
	say("read outside", read(in("outside/f")))
	say("read by a link", read(in("write/link")))
	_, err = os.ReadDir(in("outside"))
	say("list outside", err)
	_, err = open.Read(make([]byte, 1))
	say("read what was open", err)
	say("on other threads", onThreads())

	say("write inside", write(in("write/a/new")))
	say("truncate inside", os.Truncate(in("write/a/new"), 0))
	say("make a folder inside", os.Mkdir(in("write/c"), 0o700))
	say("rename across", os.Rename(in("write/a/new"), in("write/c/new")))
	say("link across", os.Link(in("write/c/new"), in("write/b/new")))
	say("rename a folder across", os.Rename(in("write/c"), in("write/b/c")))
	say("remove inside", os.Remove(in("write/b/c/new")))
	say("remove a folder inside", os.Remove(in("write/b/c")))
	say("sync a folder inside", syncDir(in("write/a")))

	say("write outside", write(in("outside/f")))
	say("make outside", write(in("outside/new")))
	say("truncate outside", os.Truncate(in("outside/f"), 0))
	say("remove outside", os.Remove(in("outside/f")))
	say("rename out", os.Rename(in("write/a/f"), in("outside/g")))
	say("rename in", os.Rename(in("outside/f"), in("write/a/g")))
	say("link in", os.Link(in("outside/f"), in("write/a/h")))
	say("make a symbolic link", os.Symlink("f", in("write/a/s")))
	say("make a fifo", syscall.Mkfifo(in("write/a/p"), 0o600))
	say("execute", exec.Command("/bin/true").Run())
	say("write, then execute", copyAndExecute(in("write/a/program")))
	victim, err := strconv.Atoi(args[1])
	say("victim", err)
	say("signal another", syscall.Kill(victim, 0))
	say("signal itself", syscall.Kill(os.Getpid(), 0))
	say("trace another", unix.PtraceAttach(victim))

	// Go interrupts its own threads by signals, which the cage must let pass.
	stop := time.After(300 * time.Millisecond)
	spun := make(chan struct{})
	go func() {
		for i := 0; ; i++ {
			select {
			case <-spun:
				return
			default:
			}
		}
	}()
	for ended := false; !ended; {
		select {
		case <-stop:
			ended = true
		default:
			runtime.GC()
		}
	}
	close(spun)
	say("collect garbage", nil)
}

func syncDir(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

func copyAndExecute(path string) error {
	if err := os.WriteFile(path, []byte("#!/bin/true\n"), 0o700); err != nil {
		return err
	}
	return exec.Command(path).Run()
}

// The cage, as a kernel with Landlock keeps it.
func TestRestrict(t *testing.T) {
	abi := needsLandlock(t)
	dir := tree(t)
	const denied = "permission denied"
	want := map[string]string{
		"open before": "ok", "write folder missing": "no such file or directory", "still free": "ok",
		"restrict": "ok", "abi": strconv.Itoa(abi),
		"read inside": "ok", "list inside": "ok", "write where only reading is": denied,
		"read one file": "ok", "read its neighbour": denied,
		"read outside": denied, "read by a link": denied, "list outside": denied, "read what was open": "ok",
		"on other threads": denied,
		"write inside":     "ok", "truncate inside": "ok", "make a folder inside": "ok",
		"rename across": "ok", "link across": "ok", "rename a folder across": "ok",
		"remove inside": "ok", "remove a folder inside": "ok", "sync a folder inside": "ok",
		"write outside": denied, "make outside": denied, "truncate outside": denied, "remove outside": denied,
		"rename out": denied, "rename in": denied, "link in": "invalid cross-device link",
		"make a symbolic link": denied, "make a fifo": denied,
		"victim": "ok", "execute": denied, "write, then execute": denied,
		"signal another": "operation not permitted", "signal itself": "ok", "trace another": "operation not permitted",
		"collect garbage": "ok",
	}
	if abi < abiTruncate {
		want["truncate outside"] = "ok"
	}
	if errata, _, _ := unix.Syscall(unix.SYS_LANDLOCK_CREATE_RULESET, 0, 0, unix.LANDLOCK_CREATE_RULESET_ERRATA); abi < abiScope || errata&2 == 0 {
		want["signal another"] = "ok"
	}
	victim := child(t, "victim") // not the test itself: traced, it would stand still
	paused(t, victim, "ready")
	expect(t, run(t, child(t, "cage", dir, strconv.Itoa(victim.Process.Pid))), want)
	if data, err := os.ReadFile(filepath.Join(dir, "outside", "f")); abi >= abiTruncate && (err != nil || string(data) != "x") {
		t.Errorf("%q, %v", data, err)
	}
}

// closedChild gives up rights, and a folder to read is out of reach since: of a secret that was read before.
func closedChild(args []string) {
	say("become", someone.Become())
	_, err := Restrict(Cage{Read: []string{filepath.Join(args[0], "closed", "deep"), filepath.Join(args[0], "read")}})
	say("restrict", err)
	say("read inside", read(filepath.Join(args[0], "read/deep/f")))
	say("read outside", read("/etc/hostname"))
}

func TestClosedFolder(t *testing.T) {
	needsLandlock(t)
	if !needsRoot(t) {
		return
	}
	dir := tree(t)
	if err := errors.Join(os.MkdirAll(filepath.Join(dir, "closed", "deep"), 0o700), os.Chmod(filepath.Join(dir, "read/deep/f"), 0o644), os.Chmod(filepath.Dir(dir), 0o755)); err != nil {
		t.Fatal(err)
	}
	expect(t, run(t, child(t, "closed", dir)), map[string]string{"become": "ok", "restrict": "ok", "read inside": "ok", "read outside": "permission denied"})
}

// connectChild is told the ports: one that it may connect to, one that it may not, and the abstract
// socket of the parent.
func connectChild(args []string) {
	var c Cage
	if args[0] == "any" {
		c.AnyConnect = true
	}
	dial := func(network, address string) error {
		conn, err := net.DialTimeout(network, address, patience)
		if err == nil {
			_ = conn.Close()
		}
		return err
	}
	port, err := strconv.ParseUint(args[1], 10, 16)
	say("port", err)
	if args[0] == "one" {
		c.Connect = []uint16{uint16(port)}
	}
	before, err := net.Listen("tcp", "127.0.0.1:0")
	say("listen before", err)
	onThreads := threads(4, func() error { return dial("tcp", "127.0.0.1:"+args[2]) })
	_, err = Restrict(c)
	say("restrict", err)
	say("connect", dial("tcp", "127.0.0.1:"+args[1]))
	say("connect elsewhere", dial("tcp", "127.0.0.1:"+args[2]))
	say("connect elsewhere on threads", onThreads())
	say("connect to an abstract socket", dial("unix", args[3]))
	after, err := net.Listen("tcp", "127.0.0.1:0")
	say("listen after", err)
	_ = before.Close()
	_ = after.Close()
}

func TestConnect(t *testing.T) {
	abi := needsLandlock(t)
	var ports []string
	for range 2 {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = l.Close() })
		_, port, _ := net.SplitHostPort(l.Addr().String())
		ports = append(ports, port)
	}
	abstract := fmt.Sprintf("@confine-%d", os.Getpid())
	l, err := net.Listen("unix", abstract)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	for _, test := range []struct{ cage, notify, allowed, elsewhere, abstract string }{
		{"none", "", "permission denied", "permission denied", "operation not permitted"},
		{"one", "/run/systemd/notify", "ok", "permission denied", "operation not permitted"},
		{"any", "@notify", "ok", "ok", "ok"}, // whoever started us listens on an abstract socket
	} {
		t.Run(test.cage, func(t *testing.T) {
			if abi < abiConnect {
				test.allowed, test.elsewhere = "ok", "ok"
			}
			if abi < abiScope {
				test.abstract = "ok"
			}
			cmd := child(t, "connect", test.cage, ports[0], ports[1], abstract)
			cmd.Env = append(cmd.Env, "NOTIFY_SOCKET="+test.notify)
			expect(t, run(t, cmd), map[string]string{
				"port": "ok", "listen before": "ok", "restrict": "ok", "listen after": "ok",
				"connect": test.allowed, "connect elsewhere": test.elsewhere, "connect elsewhere on threads": test.elsewhere,
				"connect to an abstract socket": test.abstract,
			})
		})
	}
}

// noLandlockChild runs under a seccomp filter for which there is no Landlock: an older kernel, or one
// that was started without it.
func noLandlockChild(args []string) {
	errno, err := strconv.Atoi(args[1])
	say("errno", err)
	filter := []unix.SockFilter{
		{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: 0}, // the call's number
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, Jf: 1, K: unix.SYS_LANDLOCK_CREATE_RULESET},
		{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ERRNO | uint32(errno)},
		{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ALLOW},
	}
	say("seal", Seal())
	program := unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}
	_, _, e := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, unix.SECCOMP_FILTER_FLAG_TSYNC, uintptr(unsafe.Pointer(&program)))
	if e != 0 {
		say("filter", e)
	}
	abi, err := Restrict(Cage{Write: []string{"/nowhere"}})
	say("restrict", err)
	fmt.Printf("abi: %d\n", abi)
	say("read outside", read(filepath.Join(args[0], "outside/f")))
}

// A kernel without Landlock is no error; whoever requires it looks at the version.
func TestNoLandlock(t *testing.T) {
	for _, errno := range []syscall.Errno{syscall.ENOSYS, syscall.EOPNOTSUPP} {
		t.Run(errno.Error(), func(t *testing.T) {
			expect(t, run(t, child(t, "nolandlock", tree(t), strconv.Itoa(int(errno)))), map[string]string{
				"errno": "ok", "seal": "ok", "restrict": "ok", "abi": "0", "read outside": "ok",
			})
		})
	}
}

// What older kernels do not know is not asked of them: they would refuse the whole.
func TestAttributesOfOlderKernels(t *testing.T) {
	t.Setenv("NOTIFY_SOCKET", "")
	for abi, want := range map[int]unix.LandlockRulesetAttr{
		2: {Handled_access_fs: 1<<14 - 1},
		3: {Handled_access_fs: 1<<15 - 1},
		4: {Handled_access_fs: 1<<15 - 1, Handled_access_net: unix.LANDLOCK_ACCESS_NET_CONNECT_TCP},
		5: {Handled_access_fs: 1<<16 - 1, Handled_access_net: unix.LANDLOCK_ACCESS_NET_CONNECT_TCP},
	} {
		if got := (Cage{}).attributes(abi); got != want {
			t.Errorf("%d: %+v, want %+v", abi, got, want)
		}
	}
	if got := (Cage{AnyConnect: true}).attributes(4); got.Handled_access_net != 0 {
		t.Errorf("%+v", got)
	}
}

func TestFolders(t *testing.T) {
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"archive/x", "live/x", "etc"} {
		if err := os.MkdirAll(filepath.Join(dir, name), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	if err := write(filepath.Join(dir, "archive/x/cert1.pem")); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("../../archive/x/cert1.pem", filepath.Join(dir, "live/x/cert.pem")); err != nil {
		t.Fatal(err)
	}
	got := Folders(filepath.Join(dir, "live/x/cert.pem"), filepath.Join(dir, "etc/missing"), filepath.Join(dir, "archive/x/cert1.pem"))
	for i := range got {
		got[i] = strings.TrimPrefix(got[i], dir)
	}
	if !slices.Equal(got, []string{"/archive/x", "/etc", "/live/x"}) {
		t.Errorf("%q", got)
	}
}
