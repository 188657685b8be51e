package harness

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// Patience is how long a test waits for what must happen.
const Patience = 60 * time.Second

// Password is that of all users.
const Password = "tanstaaf"

// AddUsers writes a users file into the data folder. What follows a name is put behind its line: "mrose undelete=1d".
func AddUsers(tb testing.TB, data string, users ...string) {
	tb.Helper()
	var text strings.Builder
	for _, u := range users {
		name, extra, _ := strings.Cut(u, " ")
		fmt.Fprintf(&text, "%s:{PLAIN}%s::::::%s\n", name, Password, extra)
	}
	if err := os.WriteFile(filepath.Join(data, "users"), []byte(text.String()), 0o600); err != nil {
		tb.Fatal(err)
	}
}

// Put puts a message into a Maildir folder (new or cur), as a delivery agent would, and makes the Maildir.
func Put(tb testing.TB, maildir, sub, name, text string) {
	tb.Helper()
	for _, s := range []string{"tmp", "new", "cur"} {
		if err := os.MkdirAll(filepath.Join(maildir, s), 0o700); err != nil {
			tb.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(maildir, sub, name), []byte(strings.ReplaceAll(text, "\r\n", "\n")), 0o600); err != nil {
		tb.Fatal(err)
	}
}

// Options are those of Start.
type Options struct {
	Data     string   // the data folder
	Settings []string // key=value, for --set; they win over Start's own
	Wrap     []string // what runs the program, such as strace and its flags
	Env      []string // beside the test's own
	Prepare  func(*exec.Cmd)
}

// A Server is a running `dewey serve`.
type Server struct {
	POP3, POP3S, LMTP string // addresses; empty: not served

	tb    testing.TB
	cmd   *exec.Cmd
	log   string
	ended chan struct{} // closed at the end
	err   error         // after that
}

// Arguments are those of `dewey serve` as Start has them.
func (o *Options) Arguments() []string {
	args := []string{"serve"}
	for _, set := range append([]string{
		"data=" + o.Data, "pop3.listen=127.0.0.1:0", "pop3s.listen=", "lmtp.listen=127.0.0.1:0",
		"login.failure_delay=0s", "login.max_delay=0s", "login.max_per_address=100000",
	}, o.Settings...) {
		args = append(args, "--set", set)
	}
	return args
}

// Start starts a server and waits until it listens. It is killed if it outlives the test.
func Start(tb testing.TB, o Options) *Server {
	tb.Helper()
	s := &Server{tb: tb, ended: make(chan struct{})}
	log, err := os.CreateTemp(tb.TempDir(), "log")
	if err != nil {
		tb.Fatal(err)
	}
	defer log.Close()
	s.log = log.Name()
	argv := append(append(append([]string{}, o.Wrap...), Binary()), o.Arguments()...)
	s.cmd = exec.Command(argv[0], argv[1:]...)
	s.cmd.Stdout, s.cmd.Stderr, s.cmd.Env = log, log, append(os.Environ(), o.Env...)
	if o.Prepare != nil {
		o.Prepare(s.cmd)
	}
	if err := s.cmd.Start(); err != nil {
		tb.Fatal(err)
	}
	go func() {
		s.err = s.cmd.Wait()
		close(s.ended)
	}()
	tb.Cleanup(func() {
		s.Kill()
		if tb.Failed() {
			text := s.Log()
			tb.Logf("log of the server, its end:\n%s", text[max(0, len(text)-4000):])
		}
	})
	s.Await("a server that listens", func() bool {
		var ok bool
		if s.POP3, s.POP3S, s.LMTP, ok = Listening(s.Log(), o.Arguments()); !ok && !s.Running() {
			tb.Fatalf("the server has ended: %v\n%s", s.err, s.Log())
		}
		return ok
	})
	return s
}

// Listening finds in a log where a server listens; ok if it listens on all that its arguments ask for.
func Listening(log string, args []string) (pop3, pop3s, lmtp string, ok bool) {
	find := func(key string) string {
		_, rest, found := strings.Cut(log, "msg=listening key="+key+" address=")
		if !found || !strings.Contains(rest, "\n") {
			return ""
		}
		return strings.Fields(rest)[0]
	}
	asked := map[string]bool{}
	for _, a := range args {
		if key, value, found := strings.Cut(a, "="); found && strings.HasSuffix(key, ".listen") {
			asked[key] = value != ""
		}
	}
	pop3, pop3s, lmtp = find("pop3.listen"), find("pop3s.listen"), find("lmtp.listen")
	ok = asked["pop3.listen"] == (pop3 != "") && asked["pop3s.listen"] == (pop3s != "") && asked["lmtp.listen"] == (lmtp != "")
	return pop3, pop3s, lmtp, ok
}

// Pid is the process's number: of what wraps it, if something does.
func (s *Server) Pid() int { return s.cmd.Process.Pid }

// Log is what the server has logged so far.
func (s *Server) Log() string {
	text, err := os.ReadFile(s.log)
	if err != nil {
		s.tb.Error(err)
	}
	return string(text)
}

// Running says whether the process has not ended.
func (s *Server) Running() bool {
	select {
	case <-s.ended:
		return false
	default:
		return true
	}
}

// Ended is closed when the process has ended.
func (s *Server) Ended() <-chan struct{} { return s.ended }

// Kill kills it, and returns when it is dead.
func (s *Server) Kill() {
	_ = s.cmd.Process.Kill()
	<-s.ended
}

// Stop ends it as an administrator does; it is an error if it does not end well.
func (s *Server) Stop() {
	s.tb.Helper()
	_ = s.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-s.ended:
		if s.err != nil {
			s.tb.Errorf("the server ended badly: %v", s.err)
		}
	case <-time.After(Patience):
		s.Kill()
		s.tb.Error("the server did not end on SIGTERM")
	}
}

// Await asks ready again and again until it says yes, as long as Patience.
func (s *Server) Await(what string, ready func() bool) {
	s.tb.Helper()
	Await(s.tb, what, ready)
}

// Await asks ready again and again until it says yes, as long as Patience.
func Await(tb testing.TB, what string, ready func() bool) {
	tb.Helper()
	for end := time.Now().Add(Patience); !ready(); {
		if time.Now().After(end) {
			tb.Fatalf("waited %v for %s", Patience, what)
		}
		time.Sleep(3 * time.Millisecond) // between two looks; nothing depends on its length
	}
}

// Run runs another subcommand of the program on the data folder, and returns its exit code and what it said.
func Run(tb testing.TB, data, stdin string, args ...string) (code int, stdout, stderr string) {
	tb.Helper()
	return RunIn(tb, nil, data, stdin, args...)
}

// RunIn is Run, with what runs the program, such as unshare and its flags.
func RunIn(tb testing.TB, wrap []string, data, stdin string, args ...string) (code int, stdout, stderr string) {
	tb.Helper()
	var out, errs strings.Builder
	argv := append(append(append([]string{}, wrap...), Binary()), args...)
	cmd := exec.Command(argv[0], append(argv[1:], "--set", "data="+data)...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(stdin), &out, &errs
	var exit *exec.ExitError
	if err := cmd.Run(); err != nil && !errors.As(err, &exit) {
		tb.Fatal(err)
	}
	return cmd.ProcessState.ExitCode(), out.String(), errs.String()
}
