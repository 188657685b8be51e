package main

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// ready is what dewey reads when connections may come: the version of the protocol.
const ready = "dewey-pam 1\n"

// A supervisor starts a worker for each connection, and ends it when the connection ends.
type supervisor struct {
	o     options
	slots chan struct{}

	mu      sync.Mutex
	workers map[int]*os.Process
}

// A source is where connections come from. io.EOF says that there will be no more.
type source func() (*os.File, error)

// supervise runs until dewey is gone, or, with a socket of its own, until a signal ends it.
func supervise(o options) error {
	if err := ownProcess(true); err != nil {
		return err
	}
	s := &supervisor{o: o, slots: make(chan struct{}, o.processes), workers: make(map[int]*os.Process)}
	s.advise()
	next, err := s.open()
	if err != nil {
		return err
	}
	children := make(chan os.Signal, 1)
	signal.Notify(children, syscall.SIGCHLD)
	go func() {
		for range children {
			s.sweep()
		}
	}()
	err = s.serve(next)
	s.end()
	return err
}

// open opens where connections come from, and says so.
func (s *supervisor) open() (source, error) {
	if s.o.fd {
		signal.Ignore(syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP) // dewey says when, by ending
		control, err := inherited(3)
		if err != nil {
			return nil, err
		}
		if _, err := control.Write([]byte(ready)); err != nil {
			return nil, fmt.Errorf("descriptor 3: %w", err)
		}
		return func() (*os.File, error) { return receive(control) }, nil
	}
	l, err := listen(s.o.listen)
	if err != nil {
		return nil, err
	}
	ended := make(chan os.Signal, 1)
	signal.Notify(ended, syscall.SIGTERM, syscall.SIGINT)
	go func() {
		<-ended
		_ = l.Close()
	}()
	fmt.Fprintln(os.Stderr, "dewey-pam: listening on", s.o.listen)
	return func() (*os.File, error) { return accept(l, s.o.allow) }, nil
}

// serve starts workers on this thread alone: they are told to end when it does.
func (s *supervisor) serve(next source) error {
	for {
		s.slots <- struct{}{}
		f, err := next()
		switch {
		case errors.Is(err, io.EOF) || errors.Is(err, net.ErrClosed):
			return nil
		case err != nil:
			return err
		}
		if err := s.start(f); err != nil {
			fmt.Fprintln(os.Stderr, "dewey-pam: start a worker:", err)
			_ = f.Close()
			<-s.slots
		}
	}
}

// start starts a worker on a connection.
func (s *supervisor) start(f *os.File) error {
	cmd := exec.Command("/proc/self/exe", append([]string{workerArg}, s.o.args()...)...) //nolint:gosec // itself
	cmd.Args[0], cmd.Env, cmd.ExtraFiles = "dewey-pam", environment, []*os.File{f}
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := cmd.Start(); err != nil {
		return err
	}
	s.workers[cmd.Process.Pid] = cmd.Process
	fd := int(f.Fd())
	closed := make(chan struct{})
	var given bool
	go func() {
		untilClosed(fd)
		given = cmd.Process.Kill() == nil // nobody waits for what it does any more, and it may hang
		close(closed)
	}()
	go func() {
		err := cmd.Wait()
		_ = syscall.Shutdown(fd, syscall.SHUT_RDWR) // dewey sees that it is gone
		<-closed
		_ = f.Close()
		s.mu.Lock()
		delete(s.workers, cmd.Process.Pid)
		s.mu.Unlock()
		s.sweep()
		if err != nil && !given {
			fmt.Fprintln(os.Stderr, "dewey-pam: a worker has ended in a conversation:", err)
		}
		<-s.slots
	}()
	return nil
}

// sweep ends what workers have left behind, which the kernel makes children of this process. It says whether there was
// anything.
func (s *supervisor) sweep() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	found := false
	lists, _ := filepath.Glob("/proc/self/task/*/children")
	for _, name := range lists {
		text, _ := os.ReadFile(name)
		for field := range strings.FieldsSeq(string(text)) {
			pid, err := strconv.Atoi(field)
			if err != nil || s.workers[pid] != nil {
				continue
			}
			found = true
			_ = syscall.Kill(pid, syscall.SIGKILL)
			_, _ = syscall.Wait4(pid, nil, syscall.WNOHANG, nil)
		}
	}
	return found
}

// end kills all workers, and what they have left.
func (s *supervisor) end() {
	for until := time.Now().Add(5 * time.Second); time.Now().Before(until); time.Sleep(10 * time.Millisecond) {
		s.mu.Lock()
		n := len(s.workers)
		for _, p := range s.workers {
			_ = p.Kill()
		}
		s.mu.Unlock()
		if n == 0 && !s.sweep() {
			return
		}
	}
}

// advise tells of a service that is not there: PAM would take the one called "other" in its place.
func (s *supervisor) advise() {
	folders := []string{"/etc/pam.d", "/usr/lib/pam.d"}
	if s.o.confdir != "" {
		folders = []string{s.o.confdir}
	}
	for _, f := range folders {
		if _, err := os.Stat(filepath.Join(f, s.o.service)); err == nil {
			return
		}
	}
	fmt.Fprintf(os.Stderr, "dewey-pam: there is no %s/%s; PAM's service \"other\" decides until it is made\n", folders[0], s.o.service)
}

// inherited is the connection by which dewey hands over others.
func inherited(fd uintptr) (*net.UnixConn, error) {
	f := os.NewFile(fd, "control")
	defer f.Close()
	c, err := net.FileConn(f)
	if err != nil {
		return nil, fmt.Errorf("descriptor 3: %w", err)
	}
	u, ok := c.(*net.UnixConn)
	if !ok {
		return nil, errors.New("descriptor 3 is no UNIX socket")
	}
	return u, nil
}

// receive takes a connection that dewey hands over.
func receive(control *net.UnixConn) (*os.File, error) {
	data, rights := make([]byte, 1), make([]byte, 64)
	n, m, _, _, err := control.ReadMsgUnix(data, rights)
	if err == nil && n == 0 {
		err = io.EOF
	}
	if err != nil {
		return nil, err
	}
	messages, err := syscall.ParseSocketControlMessage(rights[:m])
	if err != nil || len(messages) != 1 {
		return nil, fmt.Errorf("dewey handed over no connection: %w", errors.Join(err, io.ErrUnexpectedEOF))
	}
	fds, err := syscall.ParseUnixRights(&messages[0])
	if err != nil || len(fds) != 1 {
		return nil, fmt.Errorf("dewey handed over no connection: %w", errors.Join(err, io.ErrUnexpectedEOF))
	}
	syscall.CloseOnExec(fds[0])
	return os.NewFile(uintptr(fds[0]), "connection"), nil
}

// listen makes the socket. Everybody may connect: accept looks who it is.
func listen(path string) (*net.UnixListener, error) {
	if c, err := net.Dial("unix", path); err == nil {
		_ = c.Close()
		return nil, fmt.Errorf("-listen: another program listens on %s", path)
	}
	if st, err := os.Lstat(path); err == nil && st.Mode().Type() == os.ModeSocket {
		_ = os.Remove(path) // of one that was killed
	}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		return nil, fmt.Errorf("-listen: %w", err)
	}
	return l, os.Chmod(path, 0o666) //nolint:gosec // see above
}

// accept takes a connection from a program of one of those users, or of this process's own.
func accept(l *net.UnixListener, allowed string) (*os.File, error) {
	for {
		c, err := l.AcceptUnix()
		if err != nil {
			return nil, err
		}
		f, err := c.File()
		_ = c.Close()
		if err != nil {
			return nil, err
		}
		peer, err := syscall.GetsockoptUcred(int(f.Fd()), syscall.SOL_SOCKET, syscall.SO_PEERCRED)
		if err == nil && may(peer.Uid, allowed) {
			return f, nil
		}
		_ = f.Close()
		if err == nil {
			fmt.Fprintf(os.Stderr, "dewey-pam: a program of the user number %d may not ask; -allow names who may\n", peer.Uid)
		}
	}
}

// may looks names up each time: the user of a service may come and go with it.
func may(uid uint32, allowed string) bool {
	number := strconv.FormatUint(uint64(uid), 10)
	if int(uid) == os.Geteuid() {
		return true
	}
	for name := range strings.SplitSeq(allowed, ",") {
		if name == number {
			return true
		}
		if u, err := user.Lookup(name); err == nil && u.Uid == number {
			return true
		}
	}
	return false
}
