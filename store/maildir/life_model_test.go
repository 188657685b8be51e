package maildir_test

import (
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"dewey/maildrop"
	"dewey/store/maildir"
	"dewey/store/maildir/uidlist"
)

// A lifeModel is what must be in a maildrop, and what must be there to be brought back.
type lifeModel struct {
	*fixture
	r     *rand.Rand
	shown map[string]string // unique-id → content as sent
	away  map[string]string // to be brought back
	kept  map[string]bool   // which of these are where they were
	past  map[string]string // every unique-id ever seen → its content
	old   map[string]bool   // of shown or kept: past the retention

	crashes, faults int
}

var errCrash = errors.New("crash")

// hit does something that crashes, or meets a fault, at a random step; or at none.
func (m *lifeModel) hit(do func() error) (hit bool, err error) {
	left, crash := m.r.IntN(16), m.r.IntN(2) == 0
	m.store.SetFault(func(op, path string) error {
		if left--; left != 0 {
			return nil
		}
		hit = true
		if crash {
			panic(errCrash)
		}
		m.faults++
		return unix.ENOSPC
	})
	defer func() {
		m.store.SetFault(nil)
		if p := recover(); p != nil {
			if p != errCrash {
				panic(p)
			}
			err = errCrash
			m.crashes++
			_ = os.Remove(filepath.Join(m.root, "dovecot-uidlist.lock")) // as one of another process would be
		}
	}()
	err = do()
	return hit, err
}

// look compares. Messages in doubt, whose fate a crash or a fault has left open, are in one of the two places.
func (m *lifeModel) look(what string, doubt map[string]string) {
	t := m.t
	t.Helper()
	shown, away := m.contents(), map[string]string{}
	for _, r := range m.trashed() {
		if _, twice := away[r.UID]; twice {
			t.Errorf("%s: %s can be brought back twice", what, r.UID)
		}
		body, err := m.store.OpenRemoved(t.Context(), m.owner, r)
		m.check(err)
		text := make([]byte, 100)
		n, _ := body.Read(text)
		m.check(body.Close())
		away[r.UID] = string(text[:n-1]) + "\r\n"
		if r.Kept != m.kept[r.UID] && doubt[r.UID] == "" {
			t.Errorf("%s: %s: kept %v", what, r.UID, r.Kept)
		}
		if r.Octets != int64(n)+1 && r.Octets != int64(n) {
			t.Errorf("%s: %s: %d octets", what, r.UID, r.Octets)
		}
	}
	for id, text := range doubt {
		_, in := shown[id]
		_, out := away[id]
		delete(m.shown, id)
		delete(m.away, id)
		switch {
		case in && out:
			t.Fatalf("%s: %s is there twice", what, id)
		case in:
			m.shown[id] = text
		case out:
			m.away[id] = text
		default:
			t.Fatalf("%s: %s is lost", what, id)
		}
	}
	for id, text := range shown {
		if before, ok := m.past[id]; ok && before != text {
			t.Fatalf("%s: %s was that of %q, now of %q", what, id, before, text)
		}
		if _, known := m.past[id]; !known {
			m.shown[id] = text
		}
		m.past[id] = text
	}
	if !maps.Equal(shown, m.shown) || !maps.Equal(away, m.away) {
		t.Fatalf("%s:\nmaildrop %v\n    want %v\nremoved %v\n   want %v\n%s", what, shown, m.shown, away, m.away, m.log)
	}
	m.checkUsage()
}

func (m *lifeModel) step(i int) {
	t := m.t
	what, doubt := "", map[string]string{}
	some := func(from map[string]string) map[string]string {
		chosen := map[string]string{}
		for id, text := range from {
			if m.r.IntN(3) == 0 {
				chosen[id] = text
			}
		}
		return chosen
	}
	switch m.r.IntN(9) {
	case 0, 1:
		what = "deliver"
		for range 1 + m.r.IntN(3) {
			m.deliver(fmt.Sprintf("Subject: %d\n", m.serial))
		}
	case 2:
		what = "restart"
		m.restart()
	case 3:
		what = "disturb"
		m.contents() // all have their unique-ids
		m.disturb()
	case 4: // somebody takes a name that a removed message had, whose record a session could strike
		what = "name again"
		if !exists(filepath.Join(m.root, "dovecot-uidlist")) {
			break
		}
		list := m.get("dovecot-uidlist")
		for _, base := range m.files {
			if path := filepath.Join(m.root, "new", base); m.r.IntN(10) == 0 && !strings.Contains(list, ":"+base+"\n") && !m.has(base) {
				m.serial++
				m.check(os.WriteFile(path, fmt.Appendf(nil, "Subject: again %d\n", m.serial), 0o600))
				m.changed()
				break
			}
		}
	case 5, 6:
		m.owner.Life.Deletion = []string{maildrop.DeletionRemove, maildrop.DeletionKeep}[m.r.IntN(2)]
		what = "remove, " + m.owner.Life.Deletion
		d := m.open()
		chosen := some(m.shown)
		var numbers []int
		for n, msg := range d.Messages() {
			if _, ok := chosen[msg.UID]; ok {
				numbers = append(numbers, n+1)
			}
		}
		hit, err := m.hit(func() error { return d.Remove(t.Context(), numbers) })
		if err == nil {
			m.moved(chosen, m.owner.Life.Deletion == maildrop.DeletionKeep)
		} else if doubt = chosen; !hit {
			t.Fatalf("%s: %v", what, err)
		}
		if errors.Is(err, errCrash) {
			maildir.Kill(d)
			m.restart()
		} else {
			m.close(d)
		}
	case 7:
		what = "restore"
		chosen := some(m.away)
		hit, err := m.hit(func() error {
			_, err := m.store.Restore(t.Context(), m.owner, func(r maildir.Removed) bool { return chosen[r.UID] != "" })
			return err
		})
		if err == nil {
			for id := range chosen {
				m.shown[id] = chosen[id]
				delete(m.away, id)
				delete(m.kept, id)
			}
		} else if doubt = chosen; !hit {
			t.Fatalf("%s: %v", what, err)
		}
		if errors.Is(err, errCrash) {
			m.restart()
		}
	case 8:
		what = "sweep"
		late := m.r.IntN(4) == 0
		for id := range m.shown {
			if m.r.IntN(8) == 0 {
				m.old[id] = true
				m.fixture.old(m.baseOf(id), 31*day)
			}
		}
		chosen := map[string]string{}
		for id := range m.old {
			if m.shown[id] != "" || m.kept[id] {
				chosen[id] = m.past[id]
			}
		}
		now := time.Now()
		if late {
			now = now.Add(15 * day)
		}
		swept, err := m.store.Sweep(t.Context(), m.owner, now)
		m.check(err)
		if len(swept.Expired) != len(chosen) {
			t.Fatalf("%d expired, want %d", len(swept.Expired), len(chosen))
		}
		purged := 0
		for id := range m.away {
			if late && !m.kept[id] {
				delete(m.away, id)
				purged++
			}
		}
		for id := range chosen {
			delete(m.kept, id)
		}
		m.moved(chosen, false)
		if swept.Purged != purged {
			t.Fatalf("%d purged, want %d", swept.Purged, purged)
		}
	}
	if len(doubt) > 0 {
		m.settleKept(doubt)
	}
	m.look(fmt.Sprint("step ", i, ", ", what), doubt)
	for id := range doubt {
		m.kept[id] = m.away[id] != "" && m.isKept(id)
	}
}

func (m *lifeModel) has(base string) bool {
	for _, dir := range []string{"new", "cur"} {
		entries, _ := os.ReadDir(filepath.Join(m.root, dir))
		for _, e := range entries {
			if uidlist.Base(e.Name()) == base {
				return true
			}
		}
	}
	return false
}

func (m *lifeModel) settleKept(doubt map[string]string) {
	for id := range doubt {
		delete(m.kept, id)
	}
}

func (m *lifeModel) isKept(id string) bool {
	for _, r := range m.trashed() {
		if r.UID == id {
			return r.Kept
		}
	}
	return false
}

func (m *lifeModel) moved(chosen map[string]string, kept bool) {
	for id := range chosen {
		m.away[id] = chosen[id]
		delete(m.shown, id)
		if kept {
			m.kept[id] = true
		}
	}
}

// Random operations with crashes and faults at any step: a message is in the maildrop under its unique-id, or can be
// brought back, and never both, until its time is over.
func TestLifeRandom(t *testing.T) {
	for group := range uint64(4) {
		t.Run(fmt.Sprint("group ", group), func(t *testing.T) {
			t.Parallel()
			crashes, faults := 0, 0
			for seed := range uint64(2) {
				m := runLife(t, 10*group+seed)
				crashes, faults = crashes+m.crashes, faults+m.faults
			}
			t.Logf("%d crashes, %d faults", crashes, faults)
			if crashes < 5 || faults < 5 {
				t.Error("the test tests little")
			}
		})
	}
}

func runLife(t *testing.T, seed uint64) *lifeModel {
	f := newFixture(t)
	r := rand.New(rand.NewPCG(seed, 5))
	f.random = r.IntN
	f.owner.Life = maildrop.Life{Undelete: fortnight, Retention: 30 * day}
	if seed%2 == 0 {
		f.trustTimes()
	}
	m := &lifeModel{
		fixture: f, r: r, shown: map[string]string{}, away: map[string]string{}, kept: map[string]bool{}, past: map[string]string{},
		old: map[string]bool{},
	}
	for i := range 80 {
		m.step(i)
		if t.Failed() {
			t.Fatalf("seed %d", seed)
		}
	}
	m.restart()
	m.restore(all)
	maps.Copy(m.shown, m.away)
	m.away, m.kept = map[string]string{}, map[string]bool{}
	m.look("all restored", nil)
	return m
}
