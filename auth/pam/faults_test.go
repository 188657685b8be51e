package pam

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"dewey/auth"
)

const short = 500 * time.Millisecond

// whole says that users can log in again, and that nothing of what was is left.
func (f *fixture) whole() {
	f.t.Helper()
	f.service("dewey", permit)
	until(f.t, "a login after the fault", func() bool { _, err := f.login("mrose", "a secret"); return err == nil })
}

// A module hangs, in whatever way: the login ends in time, and what hung is gone.
func TestHang(t *testing.T) {
	f := newFixture(t, permit, nil)
	f.c.Timeout = short
	script := f.script("hang", `sh -c 'trap "" TERM HUP INT; while :; do sleep 1000; done' & echo $! >$DIR/child; echo $$ >$DIR/self; wait`)
	for _, service := range []string{"auth required pam_exec.so " + script + "\n", f.module("spin")} {
		f.service("dewey", service)
		for range 4 { // more than there are processes
			start := time.Now()
			if _, err := f.login("mrose", "a secret"); outcome(err) != cantTell {
				t.Errorf("a hanging module: %v", err)
			}
			if d := time.Since(start); d > short+2*time.Second {
				t.Errorf("a hanging module held a login for %v", d)
			}
		}
		f.c.Timeout = patience
		f.whole()
		f.c.Timeout = short
	}
	for _, name := range []string{"child", "self"} {
		text, err := os.ReadFile(filepath.Join(f.dir, name))
		pid, _ := strconv.Atoi(strings.TrimSpace(string(text)))
		if err != nil || pid == 0 {
			t.Fatalf("%s: %q, %v", name, text, err)
		}
		until(t, "the end of what a module has started", func() bool { return gone(pid) })
	}
}

// A worker stops without an end.
func TestStopped(t *testing.T) {
	f := newFixture(t, permit, nil)
	f.expect(in, "mrose", "a secret")
	worker := children(f.supervisor())[0]
	if err := syscall.Kill(worker, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	f.c.Timeout = short
	f.expect(cantTell, "mrose", "a secret")
	until(t, "the end of the worker", func() bool { return gone(worker) })
	f.c.Timeout = patience
	f.expect(in, "mrose", "a secret")
}

// A module takes its process along: this login can't be told, the next can.
func TestCrash(t *testing.T) {
	f := newFixture(t, permit, nil)
	for _, signal := range []string{"KILL", "SEGV", "ABRT"} {
		f.service("dewey", "auth required pam_exec.so "+f.script("kill"+signal, "kill -"+signal+" $PPID; exec sleep 1000")+"\n")
		f.expect(cantTell, "mrose", "a secret")
		f.service("dewey", permit)
		f.expect(in, "mrose", "a secret")
	}
	for _, what := range []string{"crash", "exit"} {
		f.service("dewey", f.module(what))
		f.expect(cantTell, "mrose", "a secret")
		f.service("dewey", permit)
		f.expect(in, "mrose", "a secret")
	}
	if !strings.Contains(f.log.String(), "a worker has ended in a conversation") {
		t.Errorf("nothing was logged:\n%s", f.log)
	}
}

// An idle worker that has ended costs no login.
func TestWorkerEndsBetween(t *testing.T) {
	f := newFixture(t, permit, nil)
	for range 3 {
		f.expect(in, "mrose", "a secret")
		for _, pid := range children(f.supervisor()) {
			if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
				t.Fatal(err)
			}
		}
		f.expect(in, "mrose", "a secret")
	}
}

// dewey-pam itself is killed: it is started again while that can be done, and after that the log says what to do.
func TestSupervisorEnds(t *testing.T) {
	f := newFixture(t, permit, nil)
	f.expect(in, "mrose", "a secret")
	first := f.supervisor()
	workers := children(first)
	if err := syscall.Kill(first, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	for _, pid := range workers {
		until(t, "the end of its workers", func() bool { return gone(pid) })
	}
	f.whole()
	second := f.supervisor()
	if second == first || !strings.Contains(f.log.String(), "dewey-pam has ended") {
		t.Errorf("%d and %d; the log:\n%s", first, second, f.log)
	}
	if err := syscall.Kill(second, syscall.SIGTERM); err != nil { // systemd sends it to all of a service; dewey may still be serving
		t.Fatal(err)
	}
	f.expect(in, "mrose", "a secret")

	f.helper.mu.Lock()
	f.helper.uid = -2 // as if dewey had become another since
	f.helper.mu.Unlock()
	if err := syscall.Kill(second, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	until(t, "what to do, in an error", func() bool { _, err := f.login("mrose", "a secret"); return errors.Is(err, errLost) })
	f.expect(cantTell, "mrose", "a secret")
}

// dewey-pam hangs: no login waits for longer than the timeout.
func TestSupervisorStops(t *testing.T) {
	f := newFixture(t, permit, nil)
	pid := f.supervisor()
	if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = syscall.Kill(pid, syscall.SIGCONT) }()
	f.c.Timeout = short
	start := time.Now()
	f.expect(cantTell, "mrose", "a secret")
	if d := time.Since(start); d > short+2*time.Second {
		t.Errorf("it took %v", d)
	}
	if err := syscall.Kill(pid, syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	f.c.Timeout = patience
	f.whole()
}

// Who hangs up, and who closes the Backend, is not kept waiting.
func TestGivenUp(t *testing.T) {
	f := newFixture(t, permit, nil)
	f.service("dewey", "auth required pam_exec.so "+f.script("hang", "touch $DIR/inside; exec sleep 1000")+"\n")
	inside := func() bool { _, err := os.Stat(filepath.Join(f.dir, "inside")); return err == nil }
	ctx, cancel := context.WithCancel(t.Context())
	errs := make(chan error, 1)
	go func() {
		_, err := f.CheckPassword(ctx, auth.Attempt{User: "mrose", Password: "a secret"})
		errs <- err
	}()
	until(t, "the conversation", inside)
	cancel()
	if err := <-errs; outcome(err) != cantTell {
		t.Error(err)
	}
	_ = os.Remove(filepath.Join(f.dir, "inside"))
	go func() { _, err := f.login("mrose", "a secret"); errs <- err }()
	until(t, "the conversation", inside)
	if err := f.Close(); err != nil {
		t.Error(err)
	}
	if err := <-errs; outcome(err) != cantTell {
		t.Error(err)
	}
	if _, err := f.login("mrose", "a secret"); !errors.Is(err, errClosed) {
		t.Errorf("after Close: %v", err)
	}
}

// What is no dewey-pam is told at the start.
func TestNoHelper(t *testing.T) {
	dir := t.TempDir()
	for name, c := range map[string]struct{ text, want string }{
		"missing": {"", "make pam"},
		"ends":    {"#!/bin/sh\necho no such option >&2; exit 1\n", "no such option"},
		"silent":  {"#!/bin/sh\nexec sleep 1000\n", "ready"},
		"other":   {"#!/bin/sh\necho 'dewey-pam 2' >&3; exec sleep 1000\n", "nonsense"},
		"noexec":  {"\x7fELF nothing\n", "start dewey-pam"},
	} {
		path := filepath.Join(dir, name)
		if c.text != "" {
			if err := os.WriteFile(path, []byte(c.text), 0o755); err != nil {
				t.Fatal(err)
			}
		}
		b, err := New(Config{Helper: path, Timeout: short})
		if err != nil {
			t.Fatal(err)
		}
		if err := b.Start(t.Context()); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v; want something of %q", name, err, c.want)
		}
		if _, err := b.CheckPassword(t.Context(), auth.Attempt{User: "mrose", Password: "x"}); outcome(err) != cantTell {
			t.Errorf("%s: %v", name, err)
		}
		if err := b.Close(); err != nil {
			t.Error(err)
		}
	}
	if os.Geteuid() == 0 {
		path := filepath.Join(dir, "open")
		if err := errors.Join(os.WriteFile(path, []byte("#!/bin/sh\n"), 0o755), os.Chmod(path, 0o777)); err != nil {
			t.Fatal(err)
		}
		if err := trusted(path); err == nil || !strings.Contains(err.Error(), "chmod") {
			t.Errorf("a program that all may write: %v", err)
		}
	}
}

// frame is a message with texts as they are.
func frame(v, kind byte, number uint64, texts ...string) []byte {
	data := binary.BigEndian.AppendUint64([]byte{0, 0, v, kind}, number)
	for _, t := range texts {
		data = append(binary.BigEndian.AppendUint16(data, uint16(len(t))), t...)
	}
	binary.BigEndian.PutUint16(data, uint16(len(data)-2))
	return data
}

// A dewey-pam that answers nonsense, slowly, without end, or not at all.
func TestNonsense(t *testing.T) {
	for name, answer := range map[string]func(c net.Conn){
		"nothing":        func(c net.Conn) { _, _ = io.Copy(io.Discard, c) },
		"end":            func(net.Conn) {},
		"empty":          func(c net.Conn) { _, _ = c.Write([]byte{0, 0}) },
		"length":         func(c net.Conn) { _, _ = c.Write(bytes.Repeat([]byte{0xff}, 1<<16)) },
		"text":           func(c net.Conn) { _, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\n\r\n") },
		"cut":            func(c net.Conn) { _, _ = c.Write(frame(version, sayKnown, 1, "mrose", "")[:12]) },
		"version":        func(c net.Conn) { _, _ = c.Write(frame(version+1, sayKnown, 1, "mrose", "")) },
		"kind":           func(c net.Conn) { _, _ = c.Write(frame(version, 'X', 1, "mrose", "")) },
		"another's":      func(c net.Conn) { _, _ = c.Write(frame(version, sayKnown, 2, "mrose", "")) },
		"few texts":      func(c net.Conn) { _, _ = c.Write(frame(version, sayKnown, 1, "mrose")) },
		"many texts":     func(c net.Conn) { _, _ = c.Write(frame(version, sayRejected, 1, "a", "b")) },
		"no name":        func(c net.Conn) { _, _ = c.Write(frame(version, sayKnown, 1, "", "")) },
		"a bad name":     func(c net.Conn) { _, _ = c.Write(frame(version, sayKnown, 1, "../x", "")) },
		"a bad home":     func(c net.Conn) { _, _ = c.Write(frame(version, sayKnown, 1, "mrose", "home/x")) },
		"a home with ..": func(c net.Conn) { _, _ = c.Write(frame(version, sayKnown, 1, "mrose", "/home/../etc")) },
		"octets": func(c net.Conn) {
			for _, b := range frame(version, sayKnown, 1, "mrose", strings.Repeat("x", 3000)) {
				if _, err := c.Write([]byte{b}); err != nil {
					return
				}
				_ = c.SetReadDeadline(time.Now().Add(50 * time.Millisecond)) // slowly
				_, _ = c.Read(make([]byte, 1))
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "socket")
			l, err := net.Listen("unix", path)
			if err != nil {
				t.Fatal(err)
			}
			done := make(chan struct{})
			go func() {
				defer close(done)
				for {
					c, err := l.Accept()
					if err != nil {
						return
					}
					_, _ = c.Read(make([]byte, 4096))
					answer(c)
					_ = c.Close()
				}
			}()
			b, err := New(Config{Socket: path, Timeout: short})
			if err != nil {
				t.Fatal(err)
			}
			start := time.Now()
			_, err = b.CheckPassword(t.Context(), auth.Attempt{User: "mrose", Password: "a secret"})
			if outcome(err) != cantTell || strings.Contains(err.Error(), "a secret") {
				t.Errorf("%v; want %s", err, cantTell)
			}
			if d := time.Since(start); d > short+2*time.Second {
				t.Errorf("it took %v", d)
			}
			_, _ = b.Close(), l.Close()
			<-done
		})
	}
}

// A leaving is a connection whose caller leaves as an answer comes.
type leaving struct {
	net.Conn
	leave context.CancelFunc
}

func (l leaving) Read(p []byte) (int, error) {
	l.leave()
	return l.Conn.Read(p)
}

// A connection whose caller left as the answer came is not kept: its deadline has passed, or will in the next one's use.
func TestLeavingCaller(t *testing.T) {
	for _, leaves := range []bool{true, false} {
		ours, theirs := net.Pipe()
		go func() {
			_, _ = theirs.Read(make([]byte, 4096))
			_, _ = theirs.Write(frame(version, sayKnown, 1, "mrose", ""))
		}()
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		leave := cancel
		if !leaves {
			leave = func() {}
		}
		b, c := &Backend{helper: new(helper)}, &conn{Conn: leaving{undisturbed{ours}, leave}}
		if a, err := c.ask(ctx, askName, []string{"mrose"}); err != nil || a.kind != sayKnown {
			t.Fatalf("%+v, %v", a, err)
		}
		if b.keep(c); (len(b.idle) == 0) != leaves {
			t.Errorf("the caller leaves: %t; %d kept", leaves, len(b.idle))
		}
		_, _ = ours.Close(), theirs.Close()
	}
}

// An undisturbed connection has no deadline, so that the answer comes before it.
type undisturbed struct{ net.Conn }

func (undisturbed) SetDeadline(time.Time) error { return nil }

// Whatever comes, it is an answer to what was asked or an error, and nothing is read past it.
func FuzzReadAnswer(f *testing.F) {
	f.Add(frame(version, sayKnown, 7, "mrose", "/home/mrose"))
	f.Add(frame(version, sayRejected, 7, "why"))
	f.Add(frame(version, sayKnown, 8, "mrose", ""))
	f.Add([]byte{0xff, 0xff, 1})
	f.Fuzz(func(t *testing.T, data []byte) {
		r := bytes.NewReader(data)
		a, err := readAnswer(r, 7)
		if err != nil {
			return
		}
		if again := frame(version, a.kind, 7, a.texts...); !bytes.HasPrefix(data, again) || r.Len() != len(data)-len(again) {
			t.Errorf("%q was read as %+v, %d octets are left", data, a, r.Len())
		}
		if want := map[bool]int{true: 2, false: 1}[a.kind == sayKnown]; len(a.texts) != want {
			t.Errorf("%+v", a)
		}
	})
}

// What vet finds in the helper, and that both ends of the protocol are of one mind.
func TestHelperModule(t *testing.T) {
	built(t)
	if out, err := exec.Command("go", "vet", "-C", "../../pam-helper", ".").CombinedOutput(); err != nil {
		t.Errorf("go vet: %v: %s", err, out)
	}
	ours, err := os.ReadFile("conn.go")
	if err != nil {
		t.Fatal(err)
	}
	theirs, err := os.ReadFile("../../pam-helper/frame.go")
	if err != nil {
		t.Fatal(err)
	}
	for _, v := range []string{fmt.Sprintf("version  = %d", version), fmt.Sprintf("maxFrame = %d", maxFrame)} {
		if !bytes.Contains(ours, []byte(v)) || !bytes.Contains(theirs, []byte(v)) {
			t.Errorf("%s: not in both ends", v)
		}
	}
}
