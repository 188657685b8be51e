package faults

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

// A call is a system call that can be met by a fault, and where its path or descriptor is among its arguments.
type call struct {
	name   string
	number uintptr
	by     reach
	writes bool
}

type reach uint8

const (
	byFD   reach = iota // a descriptor comes first
	byAt                // a folder's descriptor, then a path
	byPath              // a path comes first
)

// calls are those by which dewey reaches files. See syscalls(2).
var calls = []call{
	{"openat", unix.SYS_OPENAT, byAt, true},
	{"write", unix.SYS_WRITE, byFD, true},
	{"fsync", unix.SYS_FSYNC, byFD, true},
	{"ftruncate", unix.SYS_FTRUNCATE, byFD, true},
	{"fchmod", unix.SYS_FCHMOD, byFD, true},
	{"mkdirat", unix.SYS_MKDIRAT, byAt, true},
	{"renameat", unix.SYS_RENAMEAT, byAt, true},
	{"renameat2", unix.SYS_RENAMEAT2, byAt, true},
	{"linkat", unix.SYS_LINKAT, byAt, true},
	{"unlinkat", unix.SYS_UNLINKAT, byAt, true},
	{"flock", unix.SYS_FLOCK, byFD, true},
	{"read", unix.SYS_READ, byFD, false},
	{"pread64", unix.SYS_PREAD64, byFD, false},
	{"lseek", unix.SYS_LSEEK, byFD, false},
	{"fstat", unix.SYS_FSTAT, byFD, false},
	{"newfstatat", unix.SYS_NEWFSTATAT, byAt, false},
	{"stat", unix.SYS_STAT, byPath, false},
	{"lstat", unix.SYS_LSTAT, byPath, false},
	{"getdents64", unix.SYS_GETDENTS64, byFD, false},
	{"faccessat2", unix.SYS_FACCESSAT2, byAt, false},
}

// A met call is one that was made beneath the folder that is looked at.
type met struct{ call, path string }

// An injector decides on each of these calls of a process: it goes on, or fails without having been made. Unlike strace's
// its numbers count the calls of all threads together, and it is turned on and off while the process runs.
type injector struct {
	done chan struct{} // closed when the process has ended

	mu     sync.Mutex
	under  string // the folder; empty: nothing is looked at
	call   string
	first  int // the number of the call that fails; 0: none
	onward bool
	errno  unix.Errno
	count  int
	seen   []met
	hit    []met
}

// prepare has a command started so that the injector decides on its calls. seccomp_unotify(2).
func (in *injector) prepare(t testing.TB, cmd *exec.Cmd) {
	t.Helper()
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	theirs := os.NewFile(uintptr(pair[1]), "pair")
	cmd.Args = append([]string{os.Args[0]}, cmd.Args...)
	cmd.Path = "/proc/self/exe"
	cmd.Env = append(cmd.Env, "DEWEY_FAULTS_CHILD=1", "GODEBUG=asyncpreemptoff=1") // a signal would make calls come twice
	cmd.ExtraFiles = []*os.File{theirs}
	t.Cleanup(func() { _ = theirs.Close() }) // not before the command was started
	in.done = make(chan struct{})
	go func() {
		defer close(in.done)
		oob := make([]byte, unix.CmsgSpace(4))
		_, n, _, _, err := unix.Recvmsg(pair[0], make([]byte, 1), oob, 0)
		_ = unix.Close(pair[0])
		messages, err2 := unix.ParseSocketControlMessage(oob[:n])
		if err != nil || err2 != nil || len(messages) != 1 {
			return // the child has said why
		}
		if fds, err := unix.ParseUnixRights(&messages[0]); err == nil && len(fds) == 1 {
			in.run(fds[0])
		}
	}()
}

// child is what becomes of the test's program when filtered starts it: a filter, then the command.
func child() error {
	runtime.LockOSThread()
	var filter []unix.SockFilter
	filter = append(filter, unix.SockFilter{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS}) // the call's number
	for i, c := range calls {
		filter = append(filter, unix.SockFilter{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, Jt: uint8(len(calls) - i), K: uint32(c.number)})
	}
	filter = append(filter, unix.SockFilter{Code: unix.BPF_RET, K: unix.SECCOMP_RET_ALLOW}, unix.SockFilter{Code: unix.BPF_RET, K: unix.SECCOMP_RET_USER_NOTIF})
	prog := unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("no_new_privs: %w", err)
	}
	const flags = unix.SECCOMP_FILTER_FLAG_NEW_LISTENER | unix.SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV
	fd, _, errno := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, flags, uintptr(unsafe.Pointer(&prog)))
	if errno != 0 {
		return fmt.Errorf("seccomp: %w", errno)
	}
	if err := unix.Sendmsg(3, []byte{0}, unix.UnixRights(int(fd)), nil, 0); err != nil {
		return fmt.Errorf("sendmsg: %w", err)
	}
	unix.CloseOnExec(3)
	env := slices.DeleteFunc(os.Environ(), func(s string) bool { return strings.HasPrefix(s, "DEWEY_FAULTS_CHILD=") })
	return unix.Exec(os.Args[1], os.Args[1:], env)
}

// run answers until the process has ended.
func (in *injector) run(listener int) {
	defer unix.Close(listener)
	poll := []unix.PollFd{{Fd: int32(listener), Events: unix.POLLIN}}
	var request [80]byte // struct seccomp_notif: id, pid, flags, then struct seccomp_data
	var answer [24]byte  // struct seccomp_notif_resp: id, val, error, flags
	for {
		n, err := unix.Poll(poll, -1)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil || n == 1 && poll[0].Revents&unix.POLLIN == 0 {
			return
		}
		clear(request[:])
		if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(listener), unix.SECCOMP_IOCTL_NOTIF_RECV, uintptr(unsafe.Pointer(&request))); errno != 0 {
			continue // interrupted, or it was killed meanwhile
		}
		clear(answer[:])
		copy(answer[:8], request[:8])
		if errno := in.decide(request[:]); errno != 0 {
			binary.NativeEndian.PutUint32(answer[16:], uint32(-int32(errno)))
		} else {
			binary.NativeEndian.PutUint32(answer[20:], unix.SECCOMP_USER_NOTIF_FLAG_CONTINUE)
		}
		_, _, _ = unix.Syscall(unix.SYS_IOCTL, uintptr(listener), unix.SECCOMP_IOCTL_NOTIF_SEND, uintptr(unsafe.Pointer(&answer)))
	}
}

// decide says with which error a call fails; 0: it goes on.
func (in *injector) decide(request []byte) unix.Errno {
	in.mu.Lock()
	defer in.mu.Unlock()
	if in.under == "" {
		return 0
	}
	pid := int(binary.NativeEndian.Uint32(request[8:]))
	number := uintptr(binary.NativeEndian.Uint32(request[16:]))
	arg := func(n int) uint64 { return binary.NativeEndian.Uint64(request[32+8*n:]) }
	c := calls[slices.IndexFunc(calls, func(c call) bool { return c.number == number })]
	path := pathOf(pid, c.by, arg)
	if !strings.HasPrefix(path+"/", in.under+"/") {
		return 0
	}
	m := met{c.name, path}
	in.seen = append(in.seen, m)
	if c.name != in.call {
		return 0
	}
	if in.count++; in.first == 0 || in.count < in.first || in.count > in.first && !in.onward {
		return 0
	}
	in.hit = append(in.hit, m)
	return in.errno
}

// pathOf is what a call is about.
func pathOf(pid int, by reach, arg func(int) uint64) string {
	fd := func(n int32) string {
		link := fmt.Sprintf("/proc/%d/fd/%d", pid, n)
		if n == unix.AT_FDCWD {
			link = fmt.Sprintf("/proc/%d/cwd", pid)
		}
		path, _ := os.Readlink(link)
		return strings.TrimSuffix(path, " (deleted)")
	}
	text := func(at uint64) string {
		buf := make([]byte, 4096)
		n, _ := unix.ProcessVMReadv(pid, []unix.Iovec{{Base: &buf[0], Len: uint64(len(buf))}}, pages(at, len(buf)), 0)
		s, _, _ := strings.Cut(string(buf[:max(n, 0)]), "\x00")
		return s
	}
	switch by {
	case byPath:
		return text(arg(0))
	case byAt:
		path := text(arg(1))
		if filepath.IsAbs(path) {
			return path
		}
		return filepath.Join(fd(int32(arg(0))), path)
	}
	return fd(int32(arg(0)))
}

// pages splits a range of memory where the rest may not be there.
func pages(at uint64, size int) []unix.RemoteIovec {
	const page = 4096
	first := int(page - at%page)
	return []unix.RemoteIovec{{Base: uintptr(at), Len: first}, {Base: uintptr(at) + uintptr(first), Len: size - first}}
}

// watch notes the calls beneath a folder.
func (in *injector) watch(under string) { in.arm(under, "", 0, false, 0) }

// arm lets the n-th of such calls beneath a folder fail, or all from the n-th on.
func (in *injector) arm(under, call string, n int, onward bool, errno unix.Errno) {
	in.mu.Lock()
	defer in.mu.Unlock()
	in.under, in.call, in.first, in.onward, in.errno = under, call, n, onward, errno
	in.count, in.seen, in.hit = 0, nil, nil
}

// disarm ends the fault, and returns the calls that were seen, and those that failed.
func (in *injector) disarm() (seen, hit []met) {
	in.mu.Lock()
	defer in.mu.Unlock()
	seen, hit = in.seen, in.hit
	in.under, in.seen, in.hit = "", nil, nil
	return seen, hit
}
