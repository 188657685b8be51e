package main

import (
	"net"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"syscall"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"dewey/config"
	"dewey/pop3server"
)

// The test binary is also the program, and a small service manager that starts it.
func TestMain(m *testing.M) {
	// Under the race detector a process sleeps a second at its end if it isn't told not to.
	if err := os.Setenv("GORACE", "atexit_sleep_ms=0"); err != nil {
		panic(err)
	}
	testscript.Main(m, map[string]func(){
		"dewey":       main,
		"likesystemd": likeSystemd,
	})
}

// likeSystemd becomes `dewey serve …` with the descriptors that it has been given, as systemd does
// it: LISTEN_PID is known only now. sd_listen_fds(3).
func likeSystemd() {
	path, err := exec.LookPath("dewey")
	if err != nil {
		panic(err)
	}
	env := append(os.Environ(), "LISTEN_PID="+strconv.Itoa(os.Getpid()))
	panic(syscall.Exec(path, append([]string{"dewey"}, os.Args[1:]...), env))
}

func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata/script",
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
		UpdateScripts:       os.Getenv("UPDATE_GOLDEN") != "",
		Setup: func(env *testscript.Env) error {
			env.Setenv("GORACE", os.Getenv("GORACE"))
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"busy": busy,
		},
	})
}

// busy holds a port for the time of the script, and names it in $BUSY.
func busy(ts *testscript.TestScript, _ bool, _ []string) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	ts.Check(err)
	ts.Defer(func() { _ = l.Close() })
	ts.Setenv("BUSY", l.Addr().String())
}

// What the configuration takes is what the server speaks.
func TestLanguagesAreThoseOfTheServer(t *testing.T) {
	got, want := slices.Sorted(slices.Values(config.Languages)), slices.Sorted(slices.Values(pop3server.Languages()))
	if !slices.Equal(got, want) {
		t.Errorf("config has %q, pop3server %q", got, want)
	}
}

func TestEveryPlaintextIsKnown(t *testing.T) {
	for _, word := range []string{config.PlaintextAlways, config.PlaintextLoopback, config.PlaintextNever} {
		c, err := config.Load("", []string{"login.plaintext=" + word})
		if err != nil {
			t.Fatal(err)
		}
		if _, ok := plaintext[c.Login.Plaintext]; !ok {
			t.Errorf("%s", word)
		}
	}
}
