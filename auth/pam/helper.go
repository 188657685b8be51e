package pam

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"time"
)

// ready is what dewey-pam says when connections may come.
const ready = "dewey-pam 1\n"

// A helper is a dewey-pam that dewey has started, and that ends with dewey. Connections are handed over to it.
type helper struct {
	path string
	args []string
	log  *slog.Logger

	turn chan struct{} // of one: to start it

	mu      sync.Mutex
	control *net.UnixConn // nil: none runs
	ended   chan struct{} // closed when it has
	uid     int           // who started it first
	started bool          // once
	closed  bool
}

// start starts dewey-pam if none runs, and waits until it is ready.
func (h *helper) start(ctx context.Context) error {
	select {
	case h.turn <- struct{}{}:
		defer func() { <-h.turn }()
	case <-ctx.Done():
		return fmt.Errorf("dewey-pam is being started: %w", ctx.Err())
	}
	h.mu.Lock()
	running, closed, again := h.control != nil, h.closed, h.started
	h.mu.Unlock()
	switch {
	case closed:
		return errClosed
	case running:
		return nil
	case again && os.Geteuid() != h.uid:
		return errLost
	}
	err := h.launch(ctx)
	if err != nil && again {
		err = fmt.Errorf("%w (%w)", errLost, err)
	}
	return err
}

// errLost is for the administrator: who has become another, or is confined, can start nothing with the rights that PAM
// needs.
var errLost = errors.New("dewey-pam has ended, and dewey has given up the rights to start it: restart dewey; " +
	"run as a service of its own (pam's socket) dewey-pam is started again by systemd")

func (h *helper) launch(ctx context.Context) error {
	if err := trusted(h.path); err != nil {
		return err
	}
	ours, theirs, err := pair()
	if err != nil {
		return err
	}
	defer theirs.Close()
	messages, out, err := os.Pipe()
	if err != nil {
		return errors.Join(err, ours.Close())
	}
	cmd := exec.Command(h.path, h.args...) //nolint:gosec // the administrator says which
	cmd.Env, cmd.Dir, cmd.Stderr, cmd.ExtraFiles = []string{}, "/", out, []*os.File{theirs}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true} // a terminal's ^C is for dewey, which ends it
	err = cmd.Start()
	_ = out.Close()
	if err != nil {
		return errors.Join(fmt.Errorf("start dewey-pam: %w", err), ours.Close(), messages.Close())
	}
	ended, told := make(chan struct{}), make(chan struct{})
	var last string
	go func() {
		last = h.tell(messages)
		close(told)
	}()
	go func() {
		_ = cmd.Wait()
		_ = ours.Close()
		_ = messages.SetReadDeadline(time.Now().Add(time.Second)) // there is no other writer
		<-told
		_ = messages.Close()
		h.mu.Lock()
		if h.control == ours {
			h.control = nil
			if !h.closed {
				h.log.Error("dewey-pam has ended; users of PAM can't log in until it runs again", "status", cmd.ProcessState.String())
			}
		}
		close(ended)
		h.mu.Unlock()
	}()
	if err := h.await(ctx, ours); err != nil {
		_ = ours.Close()
		_ = cmd.Process.Kill()
		<-ended
		return fmt.Errorf("start dewey-pam: %w: %q", err, last)
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	select {
	case <-ended:
		return fmt.Errorf("start dewey-pam: it has ended at once: %q", last)
	default:
	}
	if !h.started {
		h.started, h.uid = true, os.Geteuid()
	}
	h.control, h.ended = ours, ended
	return nil
}

// await waits until dewey-pam says that it is ready.
func (h *helper) await(ctx context.Context, control *net.UnixConn) error {
	deadline, _ := ctx.Deadline()
	if err := control.SetReadDeadline(deadline); err != nil {
		return err //nolint:wrapcheck // launch does
	}
	defer context.AfterFunc(ctx, func() { _ = control.SetReadDeadline(time.Unix(1, 0)) })()
	text := make([]byte, 64)
	n, err := control.Read(text)
	if err != nil {
		return fmt.Errorf("it did not say that it is ready: %w", err)
	}
	if string(text[:n]) != ready {
		return fmt.Errorf("%w: it said %q", errNonsense, text[:n])
	}
	return nil
}

// tell logs what dewey-pam says, and returns the last of it when it has ended.
func (h *helper) tell(r io.Reader) (last string) {
	lines := bufio.NewReaderSize(r, 1024)
	for {
		line, err := lines.ReadSlice('\n') // a longer one comes in pieces
		if text := strings.TrimSpace(string(line)); text != "" {
			h.log.Warn("dewey-pam says", "text", text)
			last = text
		}
		if err != nil && !errors.Is(err, bufio.ErrBufferFull) {
			return last
		}
	}
}

// connect hands a new connection over to dewey-pam, which is started again if it has ended and that can be done.
func (h *helper) connect(ctx context.Context) (net.Conn, error) {
	if err := h.start(ctx); err != nil {
		return nil, err
	}
	h.mu.Lock()
	control := h.control
	h.mu.Unlock()
	if control == nil {
		return nil, fmt.Errorf("dewey-pam has ended: %w", io.ErrUnexpectedEOF)
	}
	ours, theirs, err := pair()
	if err != nil {
		return nil, err
	}
	defer theirs.Close()
	deadline, _ := ctx.Deadline()
	if err = control.SetWriteDeadline(deadline); err == nil {
		raw, e := theirs.SyscallConn()
		if err = e; err == nil {
			e = raw.Control(func(fd uintptr) { _, _, err = control.WriteMsgUnix([]byte{'C'}, syscall.UnixRights(int(fd)), nil) })
			err = errors.Join(err, e)
		}
	}
	if err != nil {
		_ = ours.Close()
		return nil, fmt.Errorf("dewey-pam takes no connection: %w", err)
	}
	return ours, nil
}

// close ends dewey-pam: it ends when nobody can hand over connections, and takes its workers along.
func (h *helper) close() {
	h.mu.Lock()
	h.closed = true
	h.mu.Unlock()
	h.turn <- struct{}{} // who starts one now is ready in time, or gives up
	defer func() { <-h.turn }()
	h.mu.Lock()
	control, ended := h.control, h.ended
	h.mu.Unlock()
	if control != nil {
		_ = control.Close()
		<-ended
	}
}

// trusted says whether root may start the program: who else could write it could do all that root can.
func trusted(path string) error {
	st, err := os.Stat(path)
	if err != nil {
		return fmt.Errorf("dewey-pam is not there (make pam builds it): %w", err)
	}
	sys, ok := st.Sys().(*syscall.Stat_t)
	if os.Geteuid() == 0 && (!ok || sys.Uid != 0 || st.Mode().Perm()&0o022 != 0) {
		return fmt.Errorf("%s can be written by others than root, and would be started by root: chown root:root, chmod 0755", path)
	}
	return nil
}

// pair makes a connection with two ends in this process, one of them to be given away.
func pair() (*net.UnixConn, *os.File, error) {
	fds, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, os.NewSyscallError("socketpair", err)
	}
	near, far := os.NewFile(uintptr(fds[0]), "dewey-pam"), os.NewFile(uintptr(fds[1]), "dewey-pam")
	c, err := net.FileConn(near)
	_ = near.Close()
	if err != nil {
		_ = far.Close()
		return nil, nil, fmt.Errorf("socketpair: %w", err)
	}
	return c.(*net.UnixConn), far, nil
}
