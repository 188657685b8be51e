package main

import (
	"bytes"
	"encoding/json"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"dewey/bench"
)

// A running dewey, by all the ways a password comes: the numbers are right, and what it cost is known.
func TestBench(t *testing.T) {
	data := t.TempDir()
	for _, user := range []string{"u001", "u002"} {
		addUser(t, data, user)
		for i := range 3 {
			deliver(t, data, user, strconv.Itoa(i), "Subject: x\n\n.\ntext\n")
		}
	}
	p, address := serve(t, data)
	pid := strconv.Itoa(p.cmd.Process.Pid)
	common := []string{"--address", address, "--users", "2", "-c", "2", "--json", "--pid", pid}
	run := func(name string, stdin string, env string, args ...string) bench.Result {
		t.Helper()
		cmd := exec.CommandContext(t.Context(), "dewey", append(append([]string{"bench", name}, common...), args...)...)
		cmd.Stdin, cmd.Env = strings.NewReader(stdin), append(cmd.Environ(), env)
		var out, errs bytes.Buffer
		cmd.Stdout, cmd.Stderr = &out, &errs
		if err := cmd.Run(); err != nil {
			t.Fatalf("%s: %v: %s", name, err, errs.String())
		}
		var r bench.Result
		if err := json.Unmarshal(out.Bytes(), &r); err != nil || errs.Len() > 0 || strings.Contains(out.String(), "tanstaaf") {
			t.Fatalf("%s: %v, %s, %s", name, err, errs.String(), out.String())
		}
		if r.Server == nil || r.Server.ProcessesBefore != 1 || r.Errors != 0 || r.Interrupted {
			t.Errorf("%s: %+v", name, r)
		}
		return r
	}
	user := []string{"--user", "u%03d"}
	if r := run("poll", "tanstaaf\n", "A=", append(user, "--count", "20")...); r.Counts[0].Count != 20 || r.Counts[1].Count != 60 {
		t.Errorf("%+v", r.Counts)
	}
	if r := run("fetch", "", "DEWEY_BENCH_PASSWORD=tanstaaf", append(user, "--count", "4", "--messages", "2")...); r.Counts[0].Count != 8 {
		t.Errorf("%+v", r.Counts)
	}
	if r := run("poll", "", "A=", append(user, "--password", "tanstaaf", "-d", "300ms", "--warmup", "100ms")...); r.Elapsed < 0.3 || r.Counts[0].Count == 0 {
		t.Errorf("%+v", r)
	}
	if r := run("update", "", "A=", append(user, "--password", "tanstaaf", "--yes")...); r.Counts[0].Count != 6 {
		t.Errorf("%+v", r.Counts)
	}
	if left, _ := filepath.Glob(filepath.Join(data, "mail", "*", "*", "[0-9]*")); len(left) > 0 {
		t.Errorf("%q are left", left)
	}

	// ^C: what was measured so far, marked as such, and an exit code.
	cmd := exec.CommandContext(t.Context(), "dewey", append(append([]string{"bench", "idle"}, common...), "--user", "u%03d", "--password", "tanstaaf", "-d", "1h")...)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		p.wait(`msg="session ended"`, "removed=3")
	}
	p.wait(`msg="logged in"`)
	_ = cmd.Process.Signal(syscall.SIGINT)
	var r bench.Result
	if err := cmd.Wait(); err == nil || cmd.ProcessState.ExitCode() != 1 || !strings.Contains(errs.String(), "interrupted") {
		t.Errorf("%v, %s", err, errs.String())
	}
	if err := json.Unmarshal(out.Bytes(), &r); err != nil || !r.Interrupted {
		t.Errorf("%v, %s", err, out.String())
	}
}

// The line that goes on is one line, however its length changes, and leaves nothing behind.
func TestLiveLine(t *testing.T) {
	var out bytes.Buffer
	l := liveLine{w: &out}
	l.clear()
	if out.Len() > 0 {
		t.Errorf("%q", out.String())
	}
	l.show(bench.Progress{Unit: "sessions", Units: 100000})
	l.show(bench.Progress{Unit: "sessions", Units: 1})
	l.clear()
	parts := strings.Split(out.String(), "\r")
	if len(parts) != 5 || len(parts[1]) != len(parts[2]) || strings.TrimSpace(parts[3]) != "" || len(parts[3]) < len(strings.TrimRight(parts[2], " ")) || strings.Contains(out.String(), "\n") {
		t.Errorf("%q", parts)
	}
}
