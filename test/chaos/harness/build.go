package harness

import (
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// Full says that all is to be tried, however long it takes: DEWEY_CHAOS=full, as make chaos has it. Without it the same
// tests take fewer steps.
func Full() bool { return os.Getenv("DEWEY_CHAOS") == "full" }

// Some returns how many of n steps to take: all of them in a full run, else a bounded number.
func Some(n, bound int) int {
	if Full() {
		return n
	}
	return min(n, bound)
}

// Spread chooses bound of the numbers from 1 to n, evenly and both ends too; all of them in a full run.
func Spread(n, bound int) []int {
	k := Some(n, bound)
	chosen := make([]int, 0, k)
	for i := range k {
		at := n
		if k > 1 {
			at = 1 + i*(n-1)/(k-1)
		}
		chosen = append(chosen, at)
	}
	return chosen
}

var binary string

// Binary is the path of the program that Main has built.
func Binary() string { return binary }

// Main builds the program and runs the tests of a package. It is for TestMain, and does not return.
func Main(m *testing.M) {
	flag.Parse()
	if flag.Lookup("test.list").Value.String() != "" {
		os.Exit(m.Run())
	}
	os.Exit(func() int {
		dir, err := os.MkdirTemp("", "dewey-chaos")
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		defer os.RemoveAll(dir)
		binary = filepath.Join(dir, "dewey")
		build := exec.Command("go", "build", "-o", binary, "dewey/cmd/dewey")
		build.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := build.CombinedOutput(); err != nil {
			fmt.Fprintf(os.Stderr, "go build dewey/cmd/dewey: %v\n%s", err, out)
			return 1
		}
		return m.Run()
	}())
}

// Dir makes a folder in memory, if the machine has /dev/shm, and removes it with the test: thousands of maildrops are
// made and read. Its path is short enough for a UNIX socket.
func Dir(tb testing.TB) string {
	tb.Helper()
	base := "/dev/shm"
	if st, err := os.Stat(base); err != nil || !st.IsDir() {
		base = ""
	}
	dir, err := os.MkdirTemp(base, "chaos")
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

// Report logs the figures of a test, and writes them to NAME.json in the folder DEWEY_CHAOS_OUT if that is set:
// docs/RELIABILITY.md has its figures from there.
func Report(tb testing.TB, name string, figures map[string]any) {
	tb.Helper()
	text, err := json.MarshalIndent(figures, "", "  ")
	if err != nil {
		tb.Fatal(err)
	}
	tb.Logf("%s: %s", name, text)
	if out := os.Getenv("DEWEY_CHAOS_OUT"); out != "" {
		if err := os.MkdirAll(out, 0o755); err != nil {
			tb.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(out, name+".json"), append(text, '\n'), 0o644); err != nil {
			tb.Fatal(err)
		}
	}
}
