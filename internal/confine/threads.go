package confine

import (
	"errors"
	"fmt"
	"syscall"

	"golang.org/x/sys/unix"
)

// ErrCgo says that a program is linked with cgo, so that not all of its threads can be reached.
var ErrCgo = errors.New("the program is built with cgo; build it with CGO_ENABLED=0")

// onAllThreads makes a system call that is about the calling thread on every one. Threads made later
// are born of these and inherit.
func onAllThreads(trap, a1, a2, a3 uintptr) error {
	_, _, errno := syscall.AllThreadsSyscall6(trap, a1, a2, a3, 0, 0, 0)
	switch errno {
	case 0:
		return nil
	case syscall.ENOTSUP: // what the runtime itself says; none of our calls does
		return ErrCgo
	}
	return errno
}

// Seal makes sure that the process gains no rights by what it executes (no_new_privs), that it passes
// none on (ambient capabilities), and that neither a core file nor a debugger shows its memory, where
// passwords are.
func Seal() error {
	if err := onAllThreads(unix.SYS_PRCTL, unix.PR_SET_NO_NEW_PRIVS, 1, 0); err != nil {
		return fmt.Errorf("set no_new_privs: %w", err)
	}
	if err := onAllThreads(unix.SYS_PRCTL, unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_CLEAR_ALL, 0); err != nil {
		return fmt.Errorf("clear ambient capabilities: %w", err)
	}
	// After a change of user, since that sets it anew; it belongs to the memory, not to a thread.
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		return fmt.Errorf("set dumpable: %w", err)
	}
	return nil
}
