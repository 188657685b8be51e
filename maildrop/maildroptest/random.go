package maildroptest

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"pgregory.net/rapid"

	"dewey/maildrop"
)

// A machine does random operations to a maildrop and to the model of it.
type machine struct {
	*subject
	view   *view // nil while no session is open
	serial int

	pending   []*pending      // deposits under way
	deposited map[string]bool // what came in by one
}

// random does what sessions and others do; with deposits also what comes in that way.
func random(t *rapid.T, open func(TB) Maildrop, deposits bool) {
	m := &machine{subject: newSubject(t, open), deposited: map[string]bool{}}
	actions := map[string]func(*rapid.T){
		"deliver":     m.deliverOne,
		"deliver two": func(t *rapid.T) { m.deliverOne(t); m.deliverOne(t) },
		"expunge":     m.expungeOne,
		"open":        m.openIt,
		"refuse":      m.refuse,
		"retrieve":    m.retrieve,
		"remove":      m.remove,
		"close":       m.closeIt,
	}
	if m.Disturb != nil {
		actions["disturb"] = func(*rapid.T) { m.Disturb(m.t) }
	}
	if deposits {
		actions["begin"] = m.beginDeposit
		actions["write"] = m.writeDeposit
		actions["commit"] = m.commitDeposit
		actions["discard"] = m.discardDeposit
	}
	if m.Restart != nil {
		actions["restart"] = m.restart
	}
	t.Repeat(actions)
	if m.view != nil {
		m.view.close()
	}
	m.discardAll()
	m.finish()
}

func (m *machine) deliverOne(t *rapid.T) {
	m.serial++
	end := rapid.SampledFrom([]string{"\n", "\r\n"}).Draw(t, "line end")
	lines := rapid.SliceOfN(rapid.SampledFrom([]string{"", ".", "..", "text", "a\rb", "\x00\xff"}), 0, 5).Draw(t, "lines")
	last := rapid.SampledFrom([]string{"", end, "\r", "x"}).Draw(t, "last")
	content := fmt.Sprintf("Subject: %d%s%s%s", m.serial, end, end, strings.Join(lines, end)+last)
	m.Deliver(m.t, []byte(content))
	m.live[content] = ""
}

func (m *machine) expungeOne(t *rapid.T) {
	if len(m.live) == 0 {
		t.Skip("nothing to expunge")
	}
	content := rapid.SampledFrom(slices.Sorted(maps.Keys(m.live))).Draw(t, "message")
	if m.deposited[content] && m.live[content] == "" {
		t.Skip("not seen yet")
	}
	m.expunge(content)
}

func (m *machine) openIt(t *rapid.T) {
	if m.view != nil {
		t.Skip("open already")
	}
	m.view = m.open()
}

func (m *machine) refuse(t *rapid.T) {
	if m.view == nil {
		t.Skip("not open")
	}
	_, err := m.Store.Open(t.Context(), m.Owner)
	wantErr(t, "Open of a maildrop in use", err, maildrop.ErrInUse)
}

func (m *machine) number(t *rapid.T) int {
	if m.view == nil || len(m.view.contents) == 0 {
		t.Skip("no message")
	}
	return rapid.IntRange(1, len(m.view.contents)).Draw(t, "number")
}

func (m *machine) retrieve(t *rapid.T) {
	n := m.number(t)
	content := m.view.contents[n-1]
	if _, ok := m.live[content]; !ok {
		_, _, err := m.view.Retrieve(t.Context(), n)
		wantErr(t, "Retrieve of a message removed", err, maildrop.ErrGone)
		return
	}
	if got := m.view.read(n); string(got) != string(Wire([]byte(content))) {
		t.Errorf("message %d is %q, want %q", n, got, Wire([]byte(content)))
	}
}

func (m *machine) remove(t *rapid.T) {
	m.number(t)
	numbers := rapid.SliceOfDistinct(rapid.IntRange(1, len(m.view.contents)), rapid.ID[int]).Draw(t, "numbers")
	if err := m.view.Remove(t.Context(), numbers); err != nil {
		t.Errorf("Remove(%v): %v", numbers, err)
	}
	for _, n := range numbers {
		delete(m.live, m.view.contents[n-1])
	}
}

func (m *machine) closeIt(t *rapid.T) {
	if m.view == nil {
		t.Skip("not open")
	}
	m.view.close()
	m.view = nil
}

func (m *machine) restart(*rapid.T) {
	m.discardAll()
	var open maildrop.Maildrop
	if m.view != nil {
		open = m.view.Maildrop
	}
	m.Store = m.Restart(m.t, open)
	m.view = nil
}
