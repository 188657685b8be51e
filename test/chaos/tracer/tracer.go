package tracer

import (
	"errors"
	"fmt"
	"os/exec"
	"runtime"
	"slices"
	"sync"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Options say what is looked at, and what is done about it.
type Options struct {
	Root string // what is changed below this folder counts, and what is written to sockets
	// Kill is the call at which the program is killed, counted over all threads from Arm on; 0: at none.
	Kill int
	// After kills it when the call has been done; else it is not done any more.
	After bool
	// Record keeps what each call did: Events.
	Record bool
	// Armed counts from the start on.
	Armed bool
}

// A Run is a program that is traced.
type Run struct {
	opts    Options
	threads map[int]*thread // of the tracing goroutine

	mu     sync.Mutex
	armed  bool
	calls  []string // their names, since Arm
	killed string   // what it was killed at
	events []Event
	fault  error
	status syscall.WaitStatus
	main   int
	ended  chan struct{}
}

// A thread is between entry and exit of a call, or not.
type thread struct {
	inside bool
	call   *call // nil: of no interest
	fresh  bool  // its first stop is still to come
}

// Start starts a program, whose standard streams are files or nil. It runs until its end or its death: Wait.
func Start(cmd *exec.Cmd, opts Options) (*Run, error) {
	r := &Run{opts: opts, armed: opts.Armed, threads: map[int]*thread{}, ended: make(chan struct{})}
	started := make(chan error)
	go func() {
		runtime.LockOSThread() // and it ends with the goroutine: ptrace(2) is by threads
		// In a group of its own: other children that this thread has had are not waited for.
		cmd.SysProcAttr = &syscall.SysProcAttr{Ptrace: true, Setpgid: true}
		err := cmd.Start()
		if err == nil {
			err = r.begin(cmd.Process.Pid)
		}
		started <- err
		if err == nil {
			r.loop()
		}
		close(r.ended)
	}()
	if err := <-started; err != nil {
		return nil, fmt.Errorf("tracing %s: %w", cmd.Path, err)
	}
	return r, nil
}

// Arm begins to count.
func (r *Run) Arm() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.armed = true
}

// Calls are the names of the calls since Arm.
func (r *Run) Calls() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.calls)
}

// Killed is the call that the program was killed at; empty if it was not.
func (r *Run) Killed() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.killed
}

// Pid is the program's process.
func (r *Run) Pid() int { return r.main }

// Signal sends it a signal.
func (r *Run) Signal(s syscall.Signal) { _ = syscall.Kill(r.main, s) }

// Ended is closed when the program has ended.
func (r *Run) Ended() <-chan struct{} { return r.ended }

// Wait waits for the end, and returns the exit code: -1 if it was killed. The error is the tracer's own.
func (r *Run) Wait() (int, error) {
	<-r.ended
	if r.status.Exited() {
		return r.status.ExitStatus(), r.fault
	}
	return -1, r.fault
}

const traceOptions = unix.PTRACE_O_TRACESYSGOOD | unix.PTRACE_O_TRACECLONE | unix.PTRACE_O_TRACEFORK | unix.PTRACE_O_TRACEVFORK | unix.PTRACE_O_EXITKILL

func (r *Run) begin(pid int) error {
	var status syscall.WaitStatus
	if _, err := wait(pid, &status); err != nil {
		return err
	}
	if !status.Stopped() {
		return fmt.Errorf("it does not stop: %v", status)
	}
	if err := unix.PtraceSetOptions(pid, traceOptions); err != nil {
		return err
	}
	r.main = pid
	r.threads[pid] = &thread{}
	return unix.PtraceSyscall(pid, 0)
}

// wait waits for a thread that this thread traces; a negative pid: for any of that group.
func wait(pid int, status *syscall.WaitStatus) (int, error) {
	for {
		got, err := syscall.Wait4(pid, status, unix.WALL|unix.WNOTHREAD, nil)
		if !errors.Is(err, unix.EINTR) {
			return got, err
		}
	}
}

func (r *Run) loop() {
	for len(r.threads) > 0 {
		var status syscall.WaitStatus
		pid, err := wait(-r.main, &status)
		if err != nil {
			r.fail(err)
			return
		}
		if status.Exited() || status.Signaled() {
			if pid == r.main {
				r.status = status
			}
			delete(r.threads, pid)
			continue
		}
		t := r.threads[pid]
		if t == nil { // a new thread, which begins with a SIGSTOP, may be met before the event that tells of it
			t = &thread{fresh: true}
			r.threads[pid] = t
		}
		deliver := 0
		switch sig := status.StopSignal(); {
		case sig == syscall.SIGTRAP|0x80:
			r.stop(pid, t)
		case sig == syscall.SIGTRAP && status.TrapCause() > 0:
			if child, err := unix.PtraceGetEventMsg(pid); err == nil && r.threads[int(child)] == nil {
				r.threads[int(child)] = &thread{fresh: true}
			}
		case sig == syscall.SIGSTOP && t.fresh:
		case sig != syscall.SIGTRAP:
			deliver = int(sig)
		}
		t.fresh = false
		if err := unix.PtraceSyscall(pid, deliver); err != nil && !errors.Is(err, unix.ESRCH) { // ESRCH: killed meanwhile
			r.fail(err)
		}
	}
}

func (r *Run) fail(err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.fault = errors.Join(r.fault, err)
}

// info is the kernel's struct ptrace_syscall_info.
type info struct {
	op   uint8
	_    [3]uint8
	arch uint32
	_    [2]uint64
	data [8]uint64 // entry: the number and six arguments; exit: the result, and whether it is an error
}

const (
	getSyscallInfo = 0x420e
	opEntry        = 1
	opExit         = 2
)

// stop looks at a thread that has stopped at the entry or the exit of a call.
func (r *Run) stop(pid int, t *thread) {
	var i info
	_, _, errno := unix.Syscall6(unix.SYS_PTRACE, getSyscallInfo, uintptr(pid), unsafe.Sizeof(i), uintptr(unsafe.Pointer(&i)), 0, 0)
	if errno != 0 {
		if errno != unix.ESRCH { // killed meanwhile
			r.fail(fmt.Errorf("ptrace, for what call it is (Linux 5.3 tells): %w", errno))
		}
		return
	}
	switch i.op {
	case opEntry:
		t.inside = true
		t.call = r.enter(pid, &i)
	case opExit:
		if t.inside && t.call != nil {
			r.leave(pid, t.call, int64(i.data[0]))
		}
		t.inside, t.call = false, nil
	}
}
