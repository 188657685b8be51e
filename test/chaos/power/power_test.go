package power_test

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"dewey/test/chaos/harness"
	"dewey/test/chaos/scenario"
	"dewey/test/chaos/tracer"
)

func TestMain(m *testing.M) { harness.Main(m) }

const (
	seed   = 1
	random = 8   // sets of steps that are chosen by chance at each cut
	most   = 800 // states of a scenario that are looked at in a full run
	some   = 40  // and in another one
	batch  = 100 // states, each the Maildirs of some users of one server
)

// A moment is what had to be true from an event on.
type moment struct {
	event  int
	models map[string]*harness.Model
	done   bool
}

// A state is what a file system may leave.
type state struct {
	disk   tree
	event  int
	how    string
	moment *moment
}

// rank puts those first in which all is lost that may be, right after something was promised.
func (s *state) rank(events int) int {
	if strings.HasPrefix(s.how, "none") && (s.event == s.moment.event || s.event == events) {
		return 0
	}
	return 1
}

// At every event of a run the power goes. What was synced is there; of the rest, none, all, each step alone, all but one,
// all up to one, or some by chance, octets lost, there, torn or NULs. In each state what was acknowledged by then is there
// once and whole, what was removed stays away, no unique-id is another one or used twice.
func TestPowerLoss(t *testing.T) {
	figures := map[string]any{"seed": seed}
	total := map[string]int{}
	var mu sync.Mutex
	t.Run("all", func(t *testing.T) {
		for _, s := range scenario.All() {
			t.Run(s.Name, func(t *testing.T) {
				t.Parallel()
				f := lose(t, &s)
				mu.Lock()
				defer mu.Unlock()
				figures[s.Name] = f
				for key, n := range f {
					total[key] += n
				}
			})
		}
	})
	figures["all"] = total
	harness.Report(t, "power", figures)
}

func lose(t *testing.T, s *scenario.Scenario) map[string]int {
	e := s.New(t)
	var moments []moment
	e.Mark = func(e *scenario.Env, said bool) {
		var events []tracer.Event
		if e.Trace != nil {
			events = e.Trace.Events()
		}
		at := len(events)
		for said && at > 0 && events[at-1].Kind != tracer.Say {
			at--
		}
		m := moment{event: at, models: map[string]*harness.Model{}, done: e.Done}
		for user, model := range e.Models {
			m.models[user] = model.Clone()
		}
		moments = append(moments, m)
	}
	var d *disk
	var err error
	e.Before = func(e *scenario.Env) {
		moments = nil
		if d, err = newDisk(e.Data); err != nil {
			t.Fatal(err)
		}
		e.Mark(e, false)
	}
	run, err := s.Run(t, e, tracer.Options{Record: true})
	if err != nil {
		t.Fatal(err)
	}
	events := run.Events()
	if err := d.replay(events, s.Atomic); err != nil {
		t.Fatal(err)
	}
	everything := d.after(len(events), func(int) bool { return true }, func(int) loss { return kept })
	if what := everything.differs(&everything[0], e.Data); what != "" {
		t.Fatal(what)
	}

	states, possible := d.states(s, moments, events)
	f := map[string]int{"events": len(events), "syncs": 0, "states": possible, "looked_at": len(states)}
	for _, e := range events {
		if e.Kind == tracer.Sync {
			f["syncs"]++
		}
	}
	if len(states) < 8 {
		t.Errorf("%d states: the test tests little", len(states))
	}
	for some := range slices.Chunk(states, batch) {
		f["faults"] += look(t, s, some, f)
	}
	return f
}

// mostNames is how many changes of names are taken, or left out, alone, and aRow how far two moments of a long run lie
// apart within a row of the same calls.
const mostNames, aRow = 60, 50

// within says that a moment is one of many like it.
func within(run []tracer.Event, cut int) bool {
	return len(run) > 500 && cut > 1 && cut < len(run) && cut%aRow != 0 &&
		run[cut-2].Kind == run[cut-1].Kind && run[cut-1].Kind == run[cut].Kind
}

// states are the different ones, or so many of them, by chance.
func (d *disk) states(s *scenario.Scenario, moments []moment, run []tracer.Event) (all []state, possible int) {
	events := len(run)
	dice := rand.New(rand.NewPCG(seed, 0))
	type id struct {
		sum    [sha256.Size]byte
		moment int
	}
	seen := map[id]bool{}
	var paths []string
	for _, u := range s.Users {
		paths = append(paths, "mail/"+scenario.Name(u))
	}
	if s.Faults != nil {
		paths = []string{"users", "users.tmp", "users.lock"}
	}
	at := 0
	for cut := 0; cut <= events; cut++ {
		for at+1 < len(moments) && moments[at+1].event <= cut {
			at++
		}
		if within(run, cut) {
			continue
		}
		names, octets := d.pending(cut)
		pending := slices.Clone(names)
		if len(names) > mostNames {
			dice.Shuffle(len(names), func(i, j int) { names[i], names[j] = names[j], names[i] })
			names = names[:mostNames]
		}
		add := func(how string, chosen func(step int) bool) {
			for l := range losses {
				tree := d.after(cut, chosen, func(int) loss { return l })
				key := id{tree.sum(paths), at}
				if !seen[key] {
					seen[key] = true
					all = append(all, state{tree, cut, fmt.Sprintf("%s, octets %d", how, l), &moments[at]})
				}
				if !octets {
					break
				}
			}
		}
		add("none", func(int) bool { return false })
		add("all", func(int) bool { return true })
		for _, n := range names {
			what := fmt.Sprint(n, d.steps[n].sets)
			add("only "+what, func(step int) bool { return step == n })
			add("all but "+what, func(step int) bool { return step != n })
			add("up to "+what, func(step int) bool { return step <= n })
		}
		for range random {
			chosen := map[int]bool{}
			for _, n := range pending {
				chosen[n] = dice.IntN(2) == 0
			}
			add("by chance", func(step int) bool { return chosen[step] })
		}
	}
	possible = len(all)
	dice.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
	slices.SortStableFunc(all, func(a, b state) int { return a.rank(events) - b.rank(events) })
	limit := some
	if harness.Full() {
		limit = most
	}
	return all[:min(limit, len(all))], possible
}

// look makes states, as maildrops of one server, and looks at them. It returns how many faults there are.
func look(t *testing.T, s *scenario.Scenario, states []state, f map[string]int) (faults int) {
	t.Helper()
	data := harness.Dir(t)
	fault := func(st *state, format string, args ...any) {
		if faults++; faults <= 20 {
			t.Errorf("power lost after %d events (%s): %s", st.event, st.how, fmt.Sprintf(format, args...))
		}
	}
	if s.Faults != nil {
		for i := range states {
			st := &states[i]
			e := &scenario.Env{TB: t, Data: filepath.Join(data, fmt.Sprint(i)), Done: st.moment.done}
			if err := st.disk.make(&st.disk[0], e.Data); err != nil {
				t.Fatal(err)
			}
			for _, what := range s.Faults(e) {
				fault(st, "%s", what)
			}
		}
		return faults
	}
	name := func(i int, user string) string { return fmt.Sprintf("s%d-%s", i, user) }
	var users []string
	if err := errors.Join(os.MkdirAll(filepath.Join(data, "mail"), 0o700), os.WriteFile(filepath.Join(data, "aliases"), nil, 0o600)); err != nil {
		t.Fatal(err)
	}
	for i := range states {
		st := &states[i]
		for _, u := range s.Users {
			user := scenario.Name(u)
			users = append(users, name(i, user)+strings.TrimPrefix(u, user))
			if n := st.disk.find("mail/" + user); n != nil {
				if err := st.disk.make(n, filepath.Join(data, "mail", name(i, user))); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
	harness.AddUsers(t, data, users...)
	whose := func(user string) *state {
		var i int
		if _, err := fmt.Sscanf(user, "s%d-", &i); err != nil {
			t.Fatal(err)
		}
		return &states[i]
	}
	boot := justBooted(t)
	for _, what := range s.Recover(t, data, boot...) {
		fault(&states[0], "%s", what)
	}
	settings := slices.DeleteFunc(slices.Clone(s.Settings), func(set string) bool { return strings.HasPrefix(set, "mail.retention") })
	problems, kinds := harness.CheckIn(t, boot, data)
	for _, p := range problems {
		if p.Severity == "error" {
			fault(whose(p.User), "right after it: %v", p)
		}
	}
	for kind, n := range kinds {
		f["found_"+kind] += n
	}
	server := harness.Start(t, harness.Options{Data: data, Settings: append(settings, "history.keep=0s"), Wrap: boot})
	ours, _ := os.Readlink("/proc/self/ns/time")
	if its, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/time", server.Pid())); err != nil || its == ours {
		t.Fatalf("the server has no time of its own, for which Linux 6.3 would be right: %v", err)
	}
	for i := range states {
		st := &states[i]
		models := map[string]*harness.Model{}
		for user, m := range st.moment.models {
			models[user] = m.Clone()
		}
		for _, what := range s.Hold(t, data, models, server, func(user string) string { return name(i, user) }, boot...) {
			fault(st, "%s", what)
		}
	}
	server.Stop()
	problems, _ = harness.Check(t, data, "--sizes")
	for _, p := range problems {
		fault(whose(p.User), "at last: %v", p)
	}
	if err := os.RemoveAll(data); err != nil {
		t.Fatal(err)
	}
	return faults
}

// justBooted is a command before which the machine has been started only now, as far as the program sees (time_namespaces(7)):
// all that is on the disk is older than that.
func justBooted(t *testing.T) []string {
	t.Helper()
	var up, later unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &up); err != nil {
		t.Fatal(err)
	}
	harness.Await(t, "the next second", func() bool {
		return unix.ClockGettime(unix.CLOCK_BOOTTIME, &later) == nil && later.Sec > up.Sec
	})
	flags := []string{"unshare", "--time", fmt.Sprintf("--boottime=%d", -later.Sec)}
	if os.Getuid() != 0 {
		flags = append(flags, "--user", "--map-current-user")
	}
	return flags
}
