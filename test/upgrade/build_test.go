package upgrade

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"dewey/test/chaos/harness"
)

// A version is a dewey of another day, by its commit. What it knew counts here.
type version struct {
	commit   string
	what     string
	undelete bool // removed mail can be brought back; retention, keep
}

// versions are the older ones. Those that were released take the place of these when there are some.
var versions = []version{
	{"2085e1e6f17943607c30f8465efc4d89c200d692", "before undelete: history, mail in", false},
	{"1a3990975653f128209baaa8829532cb65454963", "undelete, swept of version 1", true},
	{"84e47eb311147c1a2d1077666f3e94effcfa2b6a", "before docs/FORMATS.md", true},
}

func TestMain(m *testing.M) { harness.Main(m) }

// build makes a version's program from this repository's own history.
func (v *version) build(t *testing.T) string {
	t.Helper()
	git := func(args ...string) string {
		t.Helper()
		out, err := exec.Command("git", args...).CombinedOutput()
		if err != nil {
			t.Fatalf("git %s: %v: %s", strings.Join(args, " "), err, out)
		}
		return strings.TrimSpace(string(out))
	}
	if git("rev-parse", "--is-shallow-repository") == "true" {
		t.Fatal("this clone has no history, so no older version can be built: git fetch --unshallow")
	}
	source := t.TempDir()
	tar := filepath.Join(source, "source.tar")
	git("-C", filepath.Join("..", ".."), "archive", "-o", tar, v.commit)
	if out, err := exec.Command("tar", "-xf", tar, "-C", source).CombinedOutput(); err != nil {
		t.Fatalf("tar: %v: %s", err, out)
	}
	program := filepath.Join(source, "dewey")
	cmd := exec.Command("go", "build", "-o", program, "./cmd/dewey")
	cmd.Dir, cmd.Env = source, append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=-mod=readonly", "GOWORK=off")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("building %s: %v\n%s", v.commit, err, out)
	}
	return program
}

// An install is a data folder with one program after another.
type install struct {
	t    *testing.T
	data string
}

// instead is what runs another program in the place of harness.Binary.
func instead(program string) []string {
	return []string{"sh", "-c", `shift; exec "$0" "$@"`, program}
}

func (in *install) start(program string) *harness.Server {
	in.t.Helper()
	return harness.Start(in.t, harness.Options{Data: in.data, Wrap: instead(program)})
}

// run runs a command of a program.
func (in *install) run(program, stdin string, args ...string) (code int, out string) {
	in.t.Helper()
	cmd := exec.Command(program, append(args, "--set", "data="+in.data)...)
	cmd.Stdin = strings.NewReader(stdin)
	text, err := cmd.CombinedOutput()
	if cmd.ProcessState == nil {
		in.t.Fatal(err)
	}
	return cmd.ProcessState.ExitCode(), string(text)
}

func (in *install) must(program, stdin string, args ...string) string {
	in.t.Helper()
	code, out := in.run(program, stdin, args...)
	if code != 0 {
		in.t.Errorf("%s: exit code %d: %s", strings.Join(args, " "), code, out)
	}
	return out
}

func (in *install) read(name string) string {
	in.t.Helper()
	text, err := os.ReadFile(filepath.Join(in.data, name))
	if err != nil {
		in.t.Fatal(err)
	}
	return string(text)
}

func (in *install) write(name, text string) {
	in.t.Helper()
	path := filepath.Join(in.data, name)
	err := os.MkdirAll(filepath.Dir(path), 0o700)
	if err == nil {
		err = os.WriteFile(path, []byte(text), 0o600)
	}
	if err != nil {
		in.t.Fatal(err)
	}
}

// certificate is the fingerprint of what a server shows.
func certificate(s *harness.Server) string {
	_, rest, _ := strings.Cut(s.Log(), " sha256=")
	sum, _, _ := strings.Cut(rest, "\n")
	return sum
}
