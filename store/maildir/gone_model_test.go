package maildir_test

import (
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"dewey/maildrop"
	"dewey/store/maildir"
)

// A goneModel is what must be in a maildrop from which all that is removed goes for good.
type goneModel struct {
	*fixture
	r     *rand.Rand
	large int
	there map[string]string // unique-id → content as sent
	past  map[string]string // every unique-id ever seen → its content

	crashes, faults, jobs int
}

// begin has a Store with the model's bound.
func (m *goneModel) begin() {
	m.restart()
	m.store.SetLarge(m.large)
}

// disaster has the Store crash, or meet a fault, at one of the next steps, its jobs' too; or at none.
func (m *goneModel) disaster() (crashed func() bool) {
	var mu sync.Mutex
	left, crash, dead := m.r.IntN(24), m.r.IntN(2) == 0, false
	m.store.SetFault(func(op, _ string) error {
		mu.Lock()
		defer mu.Unlock()
		if op == "unlink later" {
			m.jobs++
		}
		left--
		switch {
		case dead || crash && left == 0: // all that is under way is over
			if !dead {
				m.crashes++
			}
			dead = true
			panic(errCrash)
		case left == 0:
			m.faults++
			return unix.ENOSPC
		}
		return nil
	})
	return func() bool {
		mu.Lock()
		defer mu.Unlock()
		return dead
	}
}

func (m *goneModel) look(what string, doubt map[string]string) {
	m.t.Helper()
	got := m.contents()
	for id, text := range doubt {
		if delete(m.there, id); got[id] != "" {
			m.there[id] = text
		}
	}
	for id, text := range got {
		if before, ok := m.past[id]; ok && before != text {
			m.t.Fatalf("%s: %s was that of %q, now of %q", what, id, before, text)
		} else if !ok {
			m.there[id] = text
		}
		m.past[id] = text
	}
	if !maps.Equal(got, m.there) {
		m.t.Fatalf("%s:\nmaildrop %v\n    want %v\n%s", what, got, m.there, m.log)
	}
}

// update removes some, and says which of them may be there still.
func (m *goneModel) update() (doubt map[string]string) {
	d := m.open()
	chosen := map[string]string{}
	var numbers []int
	for n, msg := range d.Messages() {
		if m.r.IntN(2) == 0 {
			chosen[msg.UID] = m.there[msg.UID]
			numbers = append(numbers, n+1)
		}
	}
	crashed := m.disaster()
	err := func() (err error) {
		defer func() {
			if p := recover(); p == errCrash {
				err = errCrash
			} else if p != nil {
				panic(p)
			}
		}()
		return d.Remove(m.t.Context(), numbers)
	}()
	if m.r.IntN(3) > 0 { // or the job is at work beside what comes next
		m.check(m.store.Finish(m.t.Context()))
	}
	if crashed() || errors.Is(err, errCrash) {
		m.store.SetFault(func(string, string) error { panic(errCrash) })
		m.check(m.store.Finish(m.t.Context()))
		maildir.Kill(d)
		m.begin()
	} else {
		m.store.SetFault(nil)
		m.close(d)
	}
	if err != nil {
		return chosen
	}
	for id := range chosen {
		delete(m.there, id)
	}
	return nil
}

func (m *goneModel) step(i int) {
	what := "update"
	var doubt map[string]string
	switch m.r.IntN(8) {
	case 0, 1:
		what = "deliver"
		for range 1 + m.r.IntN(5) {
			m.deliver(fmt.Sprintf("Subject: %d\n", m.serial))
		}
	case 2:
		what = "restart"
		m.check(m.store.Finish(m.t.Context()))
		m.begin()
	case 3, 4:
		what = "flags"
		for id := range m.contents() {
			if m.r.IntN(3) == 0 {
				m.flag(m.baseOf(id), []string{"S", "RS", "F"}[m.r.IntN(3)])
			}
		}
	case 5:
		what = "night"
		m.sweep(time.Now())
	default:
		doubt = m.update()
	}
	m.look(fmt.Sprint("step ", i, ", ", what), doubt)
}

// Random updates with crashes and faults at any step, in half of them with jobs for what was removed: what was acknowledged
// does not come back, nothing else goes, and no unique-id is used again.
func TestLargeRemovalRandom(t *testing.T) {
	for group := range uint64(2) {
		t.Run(fmt.Sprint("group ", group), func(t *testing.T) {
			t.Parallel()
			crashes, faults, jobs := 0, 0, 0
			for seed := range uint64(6) {
				f := newFixture(t)
				t.Cleanup(func() { f.finish() })
				m := &goneModel{
					fixture: f, r: rand.New(rand.NewPCG(group, seed)), large: 1 + int(seed%2)*1000,
					there: map[string]string{}, past: map[string]string{},
				}
				f.random = m.r.IntN
				f.owner = maildrop.Owner{}
				if seed%3 == 0 {
					f.trustTimes()
				}
				m.begin()
				for i := range 60 {
					m.step(i)
				}
				m.finish()
				m.look("at the end", nil)
				m.finish()
				if n := f.messageFiles(); n != len(m.there) || strings.Contains(f.get("dovecot-uidlist"), " R") {
					t.Errorf("seed %d: %d files of %d messages\n%s", seed, n, len(m.there), f.get("dovecot-uidlist"))
				}
				f.fsck()
				crashes, faults, jobs = crashes+m.crashes, faults+m.faults, jobs+m.jobs
			}
			t.Logf("%d crashes, %d faults, %d files unlinked by jobs", crashes, faults, jobs)
			if crashes < 5 || faults < 5 || jobs < 20 {
				t.Error("the test tests little")
			}
		})
	}
}
