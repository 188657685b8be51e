package kill_test

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"dewey/test/chaos/harness"
	"dewey/test/chaos/scenario"
	"dewey/test/chaos/tracer"
)

func TestMain(m *testing.M) { harness.Main(m) }

// cuts is how many calls of a scenario are cut before and after, in a run that is not a full one.
const cuts = 7

// A tally is of one scenario.
type tally struct {
	mu                           sync.Mutex
	calls, killed, ended, faults int
	there, gone, doubt           int // messages, by what was acknowledged of them when it was killed
	kinds                        map[string]int
}

// dewey is killed before, and after, each call that changes something: a file or folder opened for writing, written,
// synced, renamed, linked, unlinked, truncated; and before and after each answer. Then it is started again: what was
// acknowledged is there once and whole, what was removed stays away, no unique-id is another one or used twice.
func TestKilledAtEveryStep(t *testing.T) {
	figures := map[string]any{}
	total := map[string]int{}
	t.Run("all", func(t *testing.T) {
		for _, s := range scenario.All() {
			first := s.New(t)
			all := &tally{kinds: map[string]int{}}
			if _, all.calls, _ = run(t, &s, first.Copy(t), 0, false); all.calls < 8 {
				t.Fatalf("%s: %d calls", s.Name, all.calls)
			}
			t.Run(s.Name, func(t *testing.T) {
				for _, n := range harness.Spread(all.calls, cuts) {
					for _, after := range []bool{false, true} {
						t.Run(fmt.Sprint(n, after), func(t *testing.T) {
							t.Parallel()
							cut(t, &s, first, n, after, all)
						})
					}
				}
			})
			figures[s.Name] = map[string]any{
				"calls": all.calls, "killed": all.killed, "not_met": all.ended, "faults": all.faults, "acknowledged_there": all.there,
				"acknowledged_gone": all.gone, "in_doubt": all.doubt, "notes": all.kinds,
			}
			total["calls"] += all.calls
			total["killed"] += all.killed
			total["faults"] += all.faults
			if all.killed+all.ended > 0 && all.killed < all.calls/2 && all.killed < cuts {
				t.Errorf("%s: killed %d times, of %d calls: the test tests little", s.Name, all.killed, all.calls)
			}
		}
	})
	figures["all"] = total
	harness.Report(t, "kill", figures)
}

// cut kills the scenario at its n-th call, and looks at what is left.
func cut(t *testing.T, s *scenario.Scenario, first *scenario.Env, n int, after bool, all *tally) {
	e := first.Copy(t)
	killed, _, err := run(t, s, e, n, after)
	if killed == "" && err != nil {
		t.Errorf("not killed, and: %v", err)
	}
	all.mu.Lock()
	if killed == "" {
		all.ended++
	} else {
		all.killed++
	}
	for _, m := range e.Models {
		all.there += len(m.Keys(harness.There))
		all.gone += len(m.Keys(harness.Gone))
		all.doubt += len(m.Keys(harness.Maybe))
	}
	all.mu.Unlock()

	faults := s.Recover(t, e.Data)
	if s.After == nil {
		problems, kinds := harness.Check(t, e.Data, s.Flags()...)
		for _, p := range problems {
			if p.Kind != "list-lock" { // of who has just died: the next one takes it away
				faults = append(faults, "right after it: "+p.String())
			}
		}
		all.mu.Lock()
		for k, n := range kinds {
			all.kinds[k] += n
		}
		all.mu.Unlock()
	}
	server := harness.Start(t, s.Options(e))
	faults = append(faults, s.Hold(t, e.Data, e.Models, server, func(user string) string { return user })...)
	server.Stop()
	problems, _ := harness.Check(t, e.Data, append(s.Flags(), "--sizes")...)
	for _, p := range problems {
		faults = append(faults, "at last: "+p.String())
	}
	if s.Faults != nil {
		faults = append(faults, s.Faults(e)...)
	}
	all.mu.Lock()
	all.faults += len(faults)
	all.mu.Unlock()
	for _, fault := range faults {
		t.Errorf("killed at %q: %s", killed, fault)
	}
}

// run runs the scenario, and kills it at its n-th call; n 0: never. It returns what that was, and how many there were.
func run(t *testing.T, s *scenario.Scenario, e *scenario.Env, n int, after bool) (killed string, count int, err error) {
	t.Helper()
	for e.Dusk = time.Second; ; e.Dusk *= 2 {
		again := e
		if s.Env != nil {
			again = e.Copy(t) // it may be too late for this one
		}
		again.Dusk = e.Dusk
		killed, count, err = once(t, s, again, n, after)
		if !errors.Is(err, scenario.ErrLate) || e.Dusk > time.Minute {
			*e = *again
			return killed, count, err
		}
	}
}

func once(t *testing.T, s *scenario.Scenario, e *scenario.Env, n int, after bool) (killed string, count int, err error) {
	t.Helper()
	log, err := os.Create(filepath.Join(t.TempDir(), "log"))
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	args := s.Arguments(e)
	cmd := exec.Command(harness.Binary(), args...)
	cmd.Stdout, cmd.Stderr, cmd.Env = log, log, os.Environ()
	if s.Env != nil {
		cmd.Env = append(cmd.Env, s.Env(e)...)
	}
	if s.Stdin != "" {
		in, err := os.Open(e.File(s.Stdin))
		if err != nil {
			t.Fatal(err)
		}
		defer in.Close()
		cmd.Stdin = in
	}
	r, err := tracer.Start(cmd, tracer.Options{Root: e.Data, Kill: n, After: after, Armed: s.Command != nil})
	if err != nil {
		t.Fatal(err)
	}
	e.Log = func() string {
		text, err := os.ReadFile(log.Name())
		if err != nil {
			t.Error(err)
		}
		return string(text)
	}
	e.Alive = func() bool {
		select {
		case <-r.Ended():
			return false
		default:
			return true
		}
	}
	if s.Command != nil {
		code, err := r.Wait()
		if err != nil {
			t.Fatal(err)
		}
		if e.Done = code == 0; e.Done && s.Act != nil {
			err = s.Act(e)
		}
		if code > 0 {
			err = fmt.Errorf("exit code %d: %s", code, e.Log())
		}
		return r.Killed(), r.Count(), err
	}
	harness.Await(t, "a server that listens", func() bool {
		var ok bool
		e.POP3, _, e.LMTP, ok = harness.Listening(e.Log(), args)
		if !e.Alive() {
			t.Fatal(e.Log())
		}
		return ok
	})
	r.Arm()
	err = s.Act(e)
	count = r.Count()
	r.Signal(9)
	if _, fault := r.Wait(); fault != nil {
		t.Fatal(fault)
	}
	if err != nil && r.Killed() == "" && strings.Contains(e.Log(), "panic") {
		t.Error(e.Log())
	}
	return r.Killed(), count, err
}
