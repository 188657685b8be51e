package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"syscall"

	"golang.org/x/sys/unix"
)

// reaper is the argument by which this program is reap.
const reaper = "reap"

// reap runs a program in a root folder and waits for all that comes of it, orphans too, so that their CPU time is found
// under this process: couriertls leaves the session's process to cipher on for it, and nobody else would have its time.
func reap(args []string) error {
	if len(args) < 2 {
		return errors.New("reap FOLDER PROGRAM ARGUMENTS")
	}
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("prctl: %w", err)
	}
	cmd := inRoot(args[0], args[1], args[2:]...)
	cmd.Env, cmd.Stdout, cmd.Stderr = os.Environ(), os.Stdout, os.Stderr
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGTERM)
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start: %w", err)
	}
	go func() {
		<-stop
		_ = cmd.Process.Signal(syscall.SIGTERM)
	}()
	for {
		pid, err := syscall.Wait4(-1, nil, 0, nil)
		switch {
		case errors.Is(err, syscall.EINTR):
		case err != nil || pid == cmd.Process.Pid: // what is left is ended with the process group
			return nil
		}
	}
}

// reaping is the command that does it.
func reaping(root, program string, args ...string) (*exec.Cmd, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("this program: %w", err)
	}
	return exec.Command(self, join([]string{reaper, root, program}, args)...), nil //nolint:gosec // this program
}
