package scenario

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"dewey/test/chaos/harness"
	"dewey/test/chaos/tracer"
)

// Run runs the scenario under a tracer, which counts from where a client begins, or a command. The server is killed at the
// end. The error says what did not work; if the tracer has killed it, that.
func (s *Scenario) Run(tb testing.TB, e *Env, opts tracer.Options) (*tracer.Run, error) {
	tb.Helper()
	for dusk := time.Second; ; dusk *= 2 {
		again := e
		if s.Env != nil { // it may be too late for the first one
			again = e.Copy(tb)
			again.Mark, again.Before = e.Mark, e.Before
		}
		again.Dusk = dusk
		r, err := s.once(tb, again, opts)
		if !errors.Is(err, ErrLate) || dusk > time.Minute {
			*e = *again
			return r, err
		}
	}
}

func (s *Scenario) once(tb testing.TB, e *Env, opts tracer.Options) (*tracer.Run, error) {
	tb.Helper()
	log, err := os.Create(filepath.Join(tb.TempDir(), "log"))
	if err != nil {
		tb.Fatal(err)
	}
	defer log.Close()
	args := s.Arguments(e)
	cmd := exec.Command(harness.Binary(), args...)
	cmd.Stdout, cmd.Stderr, cmd.Env = log, log, os.Environ()
	if s.Env != nil {
		cmd.Env = append(cmd.Env, s.Env(e)...)
	}
	if s.Stdin != "" {
		in, err := os.Open(e.file(s.Stdin))
		if err != nil {
			tb.Fatal(err)
		}
		defer in.Close()
		cmd.Stdin = in
	}
	if e.Before != nil {
		e.Before(e)
	}
	opts.Root, opts.Armed = e.Data, s.Command != nil
	r, err := tracer.Start(cmd, opts)
	if err != nil {
		tb.Fatal(err)
	}
	e.log, e.Trace = log.Name(), r
	if s.Command != nil {
		err = s.command(tb, e)
	} else {
		err = s.serve(tb, e, args)
	}
	if _, fault := r.Wait(); fault != nil {
		tb.Fatal(fault)
	}
	return r, err
}

func (s *Scenario) command(tb testing.TB, e *Env) error {
	code, fault := e.Trace.Wait()
	if fault != nil {
		tb.Fatal(fault)
	}
	if e.Done = code == 0; !e.Done {
		return fmt.Errorf("exit code %d: %s", code, e.text(tb))
	}
	if s.Act != nil {
		return s.Act(e)
	}
	e.mark(false)
	return nil
}

func (s *Scenario) serve(tb testing.TB, e *Env, args []string) error {
	harness.Await(tb, "a server that listens", func() bool {
		var ok bool
		e.POP3, _, e.LMTP, ok = harness.Listening(e.text(tb), args)
		if !e.alive() {
			tb.Fatal(e.text(tb))
		}
		return ok
	})
	e.Trace.Arm()
	err := s.Act(e)
	e.Trace.Signal(syscall.SIGKILL)
	return err
}

// text is what the process has logged.
func (e *Env) text(tb testing.TB) string {
	text, err := os.ReadFile(e.log)
	if err != nil {
		tb.Error(err)
	}
	return string(text)
}

func (e *Env) alive() bool {
	select {
	case <-e.Trace.Ended():
		return false
	default:
		return true
	}
}

// file makes a file with that text, for a process to read.
func (e *Env) file(text string) string {
	path := filepath.Join(harness.Dir(e.TB), "text")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		e.Fatal(err)
	}
	return path
}
