package main

import (
	"bytes"
	"encoding/binary"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

const units = "../../contrib/systemd"

// systemd has nothing against the units but, before version 253, the type.
func TestUnitsVerify(t *testing.T) {
	analyze, err := exec.LookPath("systemd-analyze")
	if err != nil {
		t.Fatal("no systemd-analyze: apt-get install systemd")
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	var paths []string
	for _, name := range []string{"dewey.service", "dewey.socket", "dewey-pop3s.socket", "dewey-lmtp.socket"} {
		text, err := os.ReadFile(filepath.Join(units, name))
		if err != nil {
			t.Fatal(err)
		}
		here := strings.ReplaceAll(string(text), "/usr/local/bin/dewey", self) // verify looks whether it is there
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(here), 0o600); err != nil {
			t.Fatal(err)
		}
		paths = append(paths, path)
	}
	out, err := exec.CommandContext(t.Context(), analyze, append([]string{"verify", "--man=no"}, paths...)...).CombinedOutput()
	for line := range strings.Lines(string(out)) {
		if strings.Contains(line, dir) && !strings.Contains(line, "notify-reload") {
			t.Error(line)
		}
	}
	if err != nil {
		t.Errorf("%v: %s", err, out)
	}
}

// The command line in the unit is one that dewey takes.
func TestUnitStarts(t *testing.T) {
	text, err := os.ReadFile(filepath.Join(units, "dewey.service"))
	if err != nil {
		t.Fatal(err)
	}
	_, rest, found := strings.Cut(string(text), "\nExecStart=/usr/local/bin/dewey serve ")
	if !found {
		t.Fatal("no ExecStart")
	}
	line, _, _ := strings.Cut(rest, "\n")
	file := filepath.Join(t.TempDir(), "dewey.toml")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	args := strings.Fields(strings.ReplaceAll(line, "/etc/dewey/dewey.toml", file))
	out, err := exec.CommandContext(t.Context(), "dewey", append([]string{"config", "check"}, args...)...).CombinedOutput()
	if err != nil {
		t.Errorf("%v: %s", err, out)
	}
}

// init makes the test binary a program that puts itself under a filter for system calls, as systemd
// does it, and becomes another.
func init() {
	name, program := os.Getenv("TEST_FILTER"), os.Getenv("TEST_FILTERED")
	if name == "" {
		return
	}
	panic(execFiltered(name, program))
}

func execFiltered(name, program string) error {
	data, err := os.ReadFile(name)
	if err != nil {
		return err
	}
	filter := make([]unix.SockFilter, len(data)/8)
	if err := binary.Read(bytes.NewReader(data), binary.NativeEndian, filter); err != nil {
		return err
	}
	runtime.LockOSThread()
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return err
	}
	fprog := unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}
	_, _, errno := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, unix.SECCOMP_FILTER_FLAG_TSYNC, uintptr(unsafe.Pointer(&fprog)))
	if errno != 0 {
		return errno
	}
	env := slices.DeleteFunc(os.Environ(), func(s string) bool { return strings.HasPrefix(s, "TEST_FILTER") })
	return syscall.Exec(program, append([]string{"dewey"}, os.Args[1:]...), env)
}

// systemCalls returns what the unit's lines SystemCallFilter= allow. systemd.exec(5).
func systemCalls(t *testing.T) map[string]bool {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(units, "dewey.service"))
	if err != nil {
		t.Fatal(err)
	}
	allowed := map[string]bool{}
	var set func(name string, allow bool)
	set = func(name string, allow bool) {
		if !strings.HasPrefix(name, "@") {
			allowed[name] = allow
			return
		}
		out, err := exec.CommandContext(t.Context(), "systemd-analyze", "syscall-filter", name).Output()
		if err != nil {
			t.Fatalf("syscall-filter %s: %v", name, err)
		}
		for line := range strings.Lines(string(out)) {
			if line = strings.TrimSpace(line); line != "" && !strings.HasPrefix(line, "#") && line != name {
				set(line, allow)
			}
		}
	}
	set("@default", true) // always there
	for line := range strings.Lines(string(text)) {
		list, found := strings.CutPrefix(strings.TrimSpace(line), "SystemCallFilter=")
		if !found {
			continue
		}
		list, deny := strings.CutPrefix(list, "~")
		for _, name := range strings.Fields(list) {
			set(name, !deny)
		}
	}
	return allowed
}

// systemCallNumbers are read from where Go programs have them.
func systemCallNumbers(t *testing.T) map[string]uint32 {
	t.Helper()
	dir, err := exec.CommandContext(t.Context(), "go", "list", "-f", "{{.Dir}}", "golang.org/x/sys/unix").Output()
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(filepath.Join(strings.TrimSpace(string(dir)), "zsysnum_linux_"+runtime.GOARCH+".go"))
	if err != nil {
		t.Fatal(err)
	}
	numbers := map[string]uint32{}
	for _, m := range regexp.MustCompile(`(?m)^\s+SYS_(\w+)\s+= (\d+)`).FindAllStringSubmatch(string(text), -1) {
		n, err := strconv.ParseUint(m[2], 10, 32)
		if err != nil {
			t.Fatal(err)
		}
		numbers[strings.ToLower(m[1])] = uint32(n)
	}
	return numbers
}

// seccomp is the filter that systemd makes of the unit: SystemCallFilter=, SystemCallErrorNumber= and
// RestrictAddressFamilies=. seccomp(2).
func seccomp(t *testing.T, allowed map[string]bool) string {
	t.Helper()
	numbers := systemCallNumbers(t)
	load := func(offset uint32) unix.SockFilter {
		return unix.SockFilter{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: offset}
	}
	equal := func(k uint32, skip uint8) unix.SockFilter { // else skip
		return unix.SockFilter{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, Jf: skip, K: k}
	}
	ret := func(k uint32) unix.SockFilter { return unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: k} }
	deny := ret(unix.SECCOMP_RET_ERRNO | uint32(unix.EPERM))
	filter := []unix.SockFilter{load(0), equal(numbers["socket"], 8), load(16)}
	for _, family := range []uint32{unix.AF_UNIX, unix.AF_INET, unix.AF_INET6} {
		filter = append(filter, equal(family, 1), ret(unix.SECCOMP_RET_ALLOW))
	}
	filter = append(filter, deny)
	if filter[1].Jf = uint8(len(filter) - 2); !allowed["socket"] {
		t.Fatal("no sockets")
	}
	n := 0
	for name, allow := range allowed {
		if number, known := numbers[name]; known && allow {
			filter = append(filter, equal(number, 1), ret(unix.SECCOMP_RET_ALLOW))
			n++
		}
	}
	if filter = append(filter, deny); n < 100 {
		t.Fatalf("only %d system calls", n)
	}
	var b bytes.Buffer
	if err := binary.Write(&b, binary.NativeEndian, filter); err != nil {
		t.Fatal(err)
	}
	name := filepath.Join(t.TempDir(), "filter")
	if err := os.WriteFile(name, b.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}

// dewey, built as it is to be, needs no system call that its unit forbids.
func TestUnitSystemCalls(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	program := filepath.Join(dir, "dewey")
	build := exec.CommandContext(t.Context(), "go", "build", "-o", program, ".")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	allowed := systemCalls(t)
	for name, want := range map[string]bool{
		"landlock_restrict_self": true, "prctl": true, "ptrace": false, "setuid": false, "mount": false, "bpf": false,
		"keyctl": false, "unshare": false, "io_uring_setup": false,
	} {
		if allowed[name] != want {
			t.Errorf("%s: %v, want %v", name, allowed[name], want)
		}
	}
	filtered := func(filter string) func(*exec.Cmd) {
		return func(cmd *exec.Cmd) { cmd.Env = append(os.Environ(), "TEST_FILTER="+filter, "TEST_FILTERED="+program) }
	}
	data := filepath.Join(dir, "data")
	addUser(t, data, "mrose")
	deliver(t, data, "mrose", "1.x", "Subject: x\n\nx\n")
	addUser(t, data, "bob")
	socket := "lmtp.listen=unix:" + socketPath(t)
	p := start(t, self, []string{"serve", "--set", "data=" + data, "--set", "pop3.listen=127.0.0.1:0", "--set", socket}, filtered(seccomp(t, allowed)))
	address := field(p.wait("msg=listening", "key=pop3.listen"), "address")
	if code, out := hand(t, "a: b\n\nc\n", "--set", "data="+t.TempDir(), "--set", socket, "mrose", "bob"); code != 0 {
		t.Errorf("%d: %s", code, out)
	}
	c := dial(t, address)
	c.login("mrose")
	c.ok("DELE 1")
	c.ok("QUIT")
	p.signal(syscall.SIGHUP)
	p.wait("msg=reloaded")
	p.signal(syscall.SIGTERM)
	if code := p.end(); code != 0 || p.saw("not permitted") {
		t.Errorf("exit code %d", code)
	}

	// The filter is there: without listen(2) there is no server.
	allowed["listen"] = false
	p = start(t, self, []string{"serve", "--set", "data=" + data, "--set", "pop3.listen=127.0.0.1:0"}, filtered(seccomp(t, allowed)))
	if code := p.end(); code != 1 || !p.saw("operation not permitted") {
		t.Errorf("exit code %d", code)
	}
}

// The unit's comment says what `systemd-analyze security` counts, and why. 1.2 leaves room for other
// versions' rules.
func TestUnitExposure(t *testing.T) {
	out, err := exec.CommandContext(t.Context(), "systemd-analyze", "security", "--offline=true", "--threshold=12",
		"--no-pager", filepath.Join(units, "dewey.service")).CombinedOutput()
	if err != nil || !strings.Contains(string(out), "Overall exposure level") {
		t.Errorf("%v: %s", err, out)
	}
}
