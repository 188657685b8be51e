package main

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestFirstLine(t *testing.T) {
	for in, want := range map[string]string{
		"a\n":                                 "a",
		"a\r\n":                               "a",
		"a":                                   "a",
		" a b \t\nmore":                       " a b \t",
		"a\r\r\n":                             "a\r",
		"a\r":                                 "a\r", // no line end
		"\n":                                  "",
		strings.Repeat("x", maxLine-1) + "\n": strings.Repeat("x", maxLine-1),
	} {
		if got, err := firstLine(strings.NewReader(in)); err != nil || got != want {
			t.Errorf("%.20q: %.20q, %v", in, got, err)
		}
	}
	for _, in := range []string{"", strings.Repeat("x", maxLine) + "\n"} {
		if got, err := firstLine(strings.NewReader(in)); err == nil {
			t.Errorf("%.20q: %.20q", in, got)
		}
	}
}

// terminal opens a pseudo terminal: what a person types and sees, and what the program has. pty(7).
func terminal(t *testing.T) (person, program *os.File) {
	t.Helper()
	person, err := os.OpenFile("/dev/ptmx", os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		t.Fatalf("%v: mount /dev/pts", err)
	}
	t.Cleanup(func() { _ = person.Close() })
	number, err := unix.IoctlGetInt(int(person.Fd()), unix.TIOCGPTN)
	if err == nil {
		err = unix.IoctlSetPointerInt(int(person.Fd()), unix.TIOCSPTLCK, 0)
	}
	if err == nil {
		program, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", number), os.O_RDWR|syscall.O_NOCTTY, 0)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = program.Close() })
	return person, program
}

func echoes(t *testing.T, f *os.File) bool {
	t.Helper()
	state, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	if err != nil {
		t.Fatal(err)
	}
	return state.Lflag&unix.ECHO != 0
}

// At a terminal the password is asked for twice, without echo, which is on again at the end.
func TestPasswordAtTerminal(t *testing.T) {
	for name, test := range map[string]struct {
		typed  []string
		signal syscall.Signal
		code   int
		want   string
	}{
		"twice":     {typed: []string{"bring red wine", "bring red wine"}, want: "added mrose"},
		"differ":    {typed: []string{"bring red wine", "bring red wind"}, code: 1, want: "the two passwords differ"},
		"interrupt": {typed: []string{"bring red wine"}, signal: syscall.SIGINT, code: 1},
	} {
		t.Run(name, func(t *testing.T) {
			person, program := terminal(t)
			data := t.TempDir()
			cmd := exec.CommandContext(t.Context(), "dewey", "user", "add", "mrose", "--set", "data="+data)
			cmd.Stdin, cmd.Stdout, cmd.Stderr = program, program, program
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			var seen bytes.Buffer
			read := func(until string) {
				t.Helper()
				buf := make([]byte, 256)
				for !strings.Contains(seen.String(), until) {
					n, err := person.Read(buf)
					if err != nil {
						t.Fatalf("%q, %v", &seen, err)
					}
					seen.Write(buf[:n])
				}
			}
			for i, line := range test.typed {
				read([]string{"Password for mrose: ", "The same again: "}[i])
				for end := time.Now().Add(patience); echoes(t, program); runtime.Gosched() { // it goes after the prompt is written
					if time.Now().After(end) {
						t.Fatal("the echo stays on")
					}
				}
				fmt.Fprintf(person, "%s\n", line)
			}
			if test.signal != 0 {
				read("The same again: ")
				if err := cmd.Process.Signal(test.signal); err != nil {
					t.Fatal(err)
				}
			}
			err := cmd.Wait()
			if code := cmd.ProcessState.ExitCode(); code != test.code {
				t.Errorf("exit code %d, %v", code, err)
			}
			read(test.want)
			if strings.Contains(seen.String(), "red wine") {
				t.Errorf("echoed: %q", &seen)
			}
			if !echoes(t, program) {
				t.Error("the echo is still off")
			}
			if _, err := os.Stat(filepath.Join(data, "users")); (err == nil) != (test.code == 0) {
				t.Errorf("users file: %v", err)
			}
		})
	}
}
