package history

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"dewey/maildrop"
	"dewey/pop3server"
)

// one lets a session of one message pass through the hooks.
func one(h pop3server.Hooks, id uint64, uid string) {
	s := someone(id, "mrose")
	h.LoggedIn(s, 1, 1)
	h.Retrieved(s, 1, maildrop.Message{UID: uid, Octets: 1}, nil)
	h.Closed(s, pop3server.End{Retrieved: 1, Octets: 1})
}

// A disk that is full, here in the middle of a line, costs what is written meanwhile and nothing else. It is told
// once, and once it is over with how much was lost.
func TestDiskFull(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		log := &logBook{}
		r := New(Options{Dir: dir, Keep: month, Logger: slog.New(slog.NewTextHandler(log, nil))})
		room := 300
		r.file.out = func(f *os.File, p []byte) (int, error) {
			if len(p) <= room {
				room -= len(p)
				return f.Write(p)
			}
			n, _ := f.Write(p[:room])
			room = 0
			return n, errors.New("no space left on device")
		}
		stop := run(r)
		h := r.Hooks(pop3server.Hooks{})
		for i := range 5 {
			one(h, uint64(i), fmt.Sprintf("uid%d", i))
			synctest.Wait()
		}
		if got := sessions(t, dir, Query{User: "mrose"}); len(got) != 1 || got[0].Session != 0 {
			t.Errorf("%+v", got)
		}
		if log.count("it can't be written") != 1 || log.count("no space left on device") != 1 {
			t.Error(log.text.String())
		}
		room = 1 << 20
		one(h, 5, "uid5")
		stop()
		if got := sessions(t, dir, Query{User: "mrose"}); len(got) != 2 || got[1].Session != 5 {
			t.Errorf("%+v", got)
		}
		if log.count(`msg="history is written again" lost=4`) != 1 {
			t.Error(log.text.String())
		}
	})
}

// So is a disk that takes what is written and can't sync it. The seconds between two syncs are what a crash costs.
func TestSync(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		log := &logBook{}
		r := New(Options{Dir: dir, Keep: month, Logger: slog.New(slog.NewTextHandler(log, nil))})
		var syncs []time.Duration
		began := time.Now()
		var fault error
		r.file.flush = func(*os.File) error {
			syncs = append(syncs, time.Since(began))
			return fault
		}
		stop := run(r)
		h := r.Hooks(pop3server.Hooks{})
		for i := range 70 {
			one(h, uint64(i), "uid")
			time.Sleep(100 * time.Millisecond)
		}
		time.Sleep(time.Minute) // nothing is written
		synctest.Wait()
		if len(syncs) != 2 || syncs[0] != settle || syncs[1] < 2*settle || syncs[1] > 2*settle+time.Second {
			t.Errorf("synced after %v", syncs)
		}
		fault = errors.New("no such device")
		for i := range 3 {
			one(h, uint64(i), "uid")
			time.Sleep(2 * settle)
		}
		stop()
		if len(syncs) != 5 || log.count("can't be synced") != 1 {
			t.Errorf("%v, %s", syncs, log.text.String())
		}
	})
}

// A folder that can't be made is told once too.
func TestNoFolder(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	synctest.Test(t, func(t *testing.T) {
		r, log, stop := recorder(Options{Dir: filepath.Join(file, "history"), Keep: month})
		h := r.Hooks(pop3server.Hooks{})
		for i := range 5 {
			one(h, uint64(i), "uid")
			synctest.Wait()
		}
		stop()
		if log.count("it can't be written") != 1 {
			t.Error(log.text.String())
		}
	})
}

// A disk that stands still does not keep sessions waiting, and the memory that they need is bounded.
func TestDiskStandsStill(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		log := &logBook{}
		r := New(Options{Dir: dir, Keep: month, Logger: slog.New(slog.NewTextHandler(log, nil))})
		release := make(chan struct{})
		r.file.out = func(f *os.File, p []byte) (int, error) {
			<-release
			return f.Write(p)
		}
		stop := run(r)
		h := r.Hooks(pop3server.Hooks{})
		many := make([]maildrop.Message, 100_000)
		for i := range many {
			many[i] = maildrop.Message{UID: fmt.Sprintf("a-unique-id-of-some-length-%d", i), Octets: 12345}
		}
		for i := range 10 {
			s := someone(uint64(i), "mrose")
			h.LoggedIn(s, 0, 0)
			h.Updated(s, many, nil)
			h.Closed(s, pop3server.End{Removed: len(many)})
		}
		if n := len(r.queue.waiting); n > maxQueue || n < maxQueue/2 {
			t.Errorf("%d octets wait", n)
		}
		if n := len(r.dirty); n > 0 {
			t.Errorf("%d sessions that have ended are kept", n)
		}
		if log.count("the disk is too slow") != 1 {
			t.Error(log.text.String())
		}
		close(release)
		stop()
		if log.count(`msg="history is written again" lost=`) != 1 {
			t.Error(log.text.String())
		}
		if n := cap(r.queue.spare); n > maxQueue {
			t.Errorf("%d octets of memory stay", n)
		}
	})
}

// After a crash the file may end in half a line. What is written then begins a new one.
func TestTornLine(t *testing.T) {
	dir := t.TempDir()
	who := Who{Session: 1, Login: time.Unix(946684800, 0), User: "mrose"}
	whole := string(appendEnd(appendWho(nil, &who), &End{Why: "quit"}))
	synctest.Test(t, func(t *testing.T) {
		for name, text := range map[string]string{
			"in the version": versionLine[:5],
			"in the first":   versionLine + whole[:20],
			"in the second":  versionLine + whole + whole[:len(whole)-1],
			"of zeros":       versionLine + whole + strings.Repeat("\x00", 5000), // as some file systems leave it
			"a huge one":     versionLine + strings.Repeat("x", 3*maxLine) + "\n" + whole + strings.Repeat("y", 2*maxLine),
		} {
			if err := os.WriteFile(filepath.Join(dir, "2000-01-01.jsonl"), []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
			before := len(sessions(t, dir, Query{User: "mrose"}))
			if want := strings.Count(text, whole); before != want {
				t.Errorf("%s: %d before, want %d", name, before, want)
			}
			r, _, stop := recorder(Options{Dir: dir, Keep: month})
			one(r.Hooks(pop3server.Hooks{}), 9, "uid")
			stop()
			got := sessions(t, dir, Query{User: "mrose"})
			if name == "in the second" {
				before++ // only its line end was missing
			}
			if len(got) != before+1 || got[len(got)-1].Session != 9 {
				t.Errorf("%s: %+v", name, got)
			}
		}
	})
}

// What the server is stopped in the middle of is written too.
func TestStopped(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		r, _, stop := recorder(Options{Dir: dir, Keep: month})
		h := r.Hooks(pop3server.Hooks{})
		for id := range uint64(2) {
			s := someone(id, "mrose")
			h.LoggedIn(s, 1, 1)
			h.Retrieved(s, 1, maildrop.Message{UID: "uid", Octets: 1}, nil)
		}
		go func() { // its hook runs after the server's Close has returned
			time.Sleep(time.Second / 2)
			h.Closed(someone(0, "mrose"), pop3server.End{Err: pop3server.ErrServerClosed, Octets: 1})
		}()
		began := time.Now()
		stop()
		if took := time.Since(began); took != time.Second {
			t.Errorf("waited %v", took)
		}
		got := sessions(t, dir, Query{User: "mrose"})
		if len(got) != 2 || got[0].End.Why != pop3server.ErrServerClosed.Error() || !got[0].Ended || got[1].Ended || got[1].End.Fetched != 1 {
			t.Errorf("%+v", got)
		}
	})
}

// A session that ends at the very moment when the server does is recorded with its end.
func TestStoppedAtTheSameTime(t *testing.T) {
	for range 300 {
		dir := t.TempDir()
		r, _, stop := recorder(Options{Dir: dir, Keep: month})
		h, s := r.Hooks(pop3server.Hooks{}), someone(1, "mrose")
		h.LoggedIn(s, 1, 1)
		h.Retrieved(s, 1, maildrop.Message{UID: "uid", Octets: 1}, nil)
		go h.Closed(s, pop3server.End{Octets: 1})
		stop()
		if got := sessions(t, dir, Query{User: "mrose"}); len(got) != 1 || !got[0].Ended {
			t.Fatalf("%+v", got)
		}
	}
}
