package kill_test

import (
	"fmt"
	"sync"
	"testing"

	"dewey/test/chaos/harness"
	"dewey/test/chaos/scenario"
	"dewey/test/chaos/tracer"
)

func TestMain(m *testing.M) { harness.Main(m) }

// cuts is how many calls of a scenario are cut in a run that is not a full one, before and after by turns.
const cuts = 14

// chosen are the calls to cut, from 1: all in a full run, else some of those that begin or end a row of the same calls.
func chosen(calls []string) (all []int) {
	for i, name := range calls {
		first, last := i == 0 || calls[i-1] != name, i == len(calls)-1 || calls[i+1] != name
		if first || last || harness.Full() {
			all = append(all, i+1)
		}
	}
	spread := harness.Spread(len(all), cuts)
	for i, n := range spread {
		spread[i] = all[n-1]
	}
	return spread
}

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
			whole, err := s.Run(t, first.Copy(t), tracer.Options{})
			calls := whole.Calls()
			if all.calls = len(calls); err != nil || all.calls < 8 {
				t.Fatalf("%s: %d calls, %v", s.Name, all.calls, err)
			}
			t.Run(s.Name, func(t *testing.T) {
				for i, n := range chosen(calls) {
					for v, after := range []bool{false, true} {
						if !harness.Full() && i%2 != v {
							continue
						}
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
			if all.killed+all.ended > 0 && all.killed < min(all.calls, cuts)-2 {
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
	r, err := s.Run(t, e, tracer.Options{Kill: n, After: after})
	killed := r.Killed()
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
			// The lock of who has just died, and a Maildir that he was making: the next one sees to both.
			if p.Kind != "list-lock" && p.Kind != "folder" {
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
