package maildroptest

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/iotest"

	"pgregory.net/rapid"

	"dewey/maildrop"
)

// RunDeposits runs the suite of those Stores that take mail in too: open returns one that is a
// maildrop.Depositor. What was deposited is expunged only after a session has seen it.
func RunDeposits(t *testing.T, open func(TB) Maildrop) {
	for _, test := range []struct {
		name string
		run  func(*subject)
	}{
		{"Trap07Trap08Trap10ExactOctets", testDepositExact},
		{"Large", testDepositLarge},
		{"VisibleAfterCommit", testDepositVisible},
		{"VisibleAtOnce", testDepositAtOnce},
		{"Discard", testDiscard},
		{"AfterTheEnd", testDepositOver},
		{"SameTwice", testDepositTwice},
		{"Context", testDepositContext},
		{"ManyAtOnce", testDepositsAtOnce},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := newSubject(t, open)
			test.run(s)
			s.finish()
		})
	}
	t.Run("Random", func(t *testing.T) { rapid.Check(t, func(rt *rapid.T) { random(rt, open, true) }) })
}

func (s *subject) begin() maildrop.Deposit {
	s.t.Helper()
	depositor, ok := s.Store.(maildrop.Depositor)
	if !ok {
		s.t.Fatalf("a %T is no maildrop.Depositor", s.Store)
	}
	d, err := depositor.Deposit(s.t.Context(), s.Owner)
	if err != nil {
		s.t.Fatalf("Deposit: %v", err)
	}
	return d
}

// write hands over a copy of a piece and spoils that afterwards: a Writer may not keep it.
func (s *subject) write(d maildrop.Deposit, piece string) {
	s.t.Helper()
	p := []byte(piece)
	n, err := d.Write(p)
	if err != nil || n != len(p) {
		s.t.Fatalf("Write of %d octets: %d, %v", len(p), n, err)
	}
	if string(p) != piece {
		s.t.Error("Write changed what it was handed")
	}
	for i := range p {
		p[i] = '!'
	}
}

func (s *subject) commit(d maildrop.Deposit, content string) {
	s.t.Helper()
	if err := d.Commit(s.t.Context()); err != nil {
		s.t.Fatalf("Commit: %v", err)
	}
	d.Discard()
	s.live[content] = ""
}

// deposit takes a message in, in pieces of a size.
func (s *subject) deposit(content string, size int) {
	s.t.Helper()
	d := s.begin()
	defer d.Discard()
	for rest := content; rest != ""; rest = rest[min(size, len(rest)):] {
		s.write(d, rest[:min(size, len(rest))])
	}
	s.commit(d, content)
}

// removeAll removes the messages of a session, and ends it.
func (v *view) removeAll() {
	v.s.t.Helper()
	var all []int
	for i, content := range v.contents {
		all = append(all, i+1)
		delete(v.s.live, content)
	}
	if err := v.Remove(v.s.t.Context(), all); err != nil {
		v.s.t.Errorf("Remove: %v", err)
	}
	v.close()
}

// testDepositExact holds what comes out against what went in, however that is cut.
func testDepositExact(s *subject) {
	for name, content := range Awkward() {
		for _, size := range []int{1, 2, 4096, 1 << 30} {
			if len(content)/size > 1000 {
				continue
			}
			s.deposit(string(content), size)
			v := s.open()
			m, body, err := v.Retrieve(s.t.Context(), 1)
			if err != nil {
				s.t.Fatalf("%s: %v", name, err)
			}
			want := Wire(content)
			if m.Octets != int64(len(want)) {
				s.t.Errorf("%s in pieces of %d: %d octets, want %d", name, size, m.Octets, len(want))
			}
			if err := iotest.TestReader(body, want); err != nil {
				s.t.Errorf("%s in pieces of %d: %v", name, size, err)
			}
			if err := body.Close(); err != nil {
				s.t.Errorf("%s: %v", name, err)
			}
			v.removeAll()
		}
	}
}

func testDepositLarge(s *subject) {
	noise := make([]byte, 3<<20)
	_, _ = rand.NewChaCha8([32]byte{}).Read(noise) // it has no errors
	for _, content := range []string{
		string(noise),
		strings.Repeat("x", 5<<20), // one line
		strings.Repeat("\r\n", 1<<20),
		strings.Repeat("\r", 1<<20) + "\n",
	} {
		d := s.begin()
		for rest, size := content, 0; rest != ""; size = (size + 7919) % 100_000 {
			n := min(len(rest), size)
			s.write(d, rest[:n])
			rest = rest[n:]
		}
		s.commit(d, content)
		s.open().removeAll()
	}
}

// testDepositVisible sees a message after Commit alone, and not in a session that was under way.
func testDepositVisible(s *subject) {
	s.deposit("one\n", 10)
	d := s.begin()
	s.open().close()
	s.write(d, "two\r\n")
	s.open().close()
	v := s.open()
	s.write(d, "more\r\n")
	s.commit(d, "two\r\nmore\r\n")
	if n := len(v.Messages()); n != 1 {
		s.t.Errorf("%d messages in the scan after a Commit, want 1", n)
	}
	_, _, err := v.Retrieve(s.t.Context(), 2)
	wantErr(s.t, "Retrieve(2)", err, maildrop.ErrNoMessage)
	v.close()
	v = s.open()
	v.read(2)
	v.close()
}

// testDepositAtOnce opens right after each Commit, much faster than the clocks of file systems tick.
func testDepositAtOnce(s *subject) {
	for i := range 40 {
		s.deposit(fmt.Sprintf("Subject: %d\r\n\r\n", i), 100)
		v := s.open()
		if i%7 == 6 {
			v.removeAll()
		} else {
			v.close()
		}
	}
}

func testDiscard(s *subject) {
	s.deposit("one\n", 10)
	for _, content := range []string{"", "two\r\n", strings.Repeat("three\r\n", 50_000)} {
		d := s.begin()
		s.write(d, content)
		v := s.open()
		d.Discard()
		d.Discard()
		v.close()
		s.open().close()
	}
}

// testDepositOver uses deposits that are over: that is an error, never a panic and never a message.
func testDepositOver(s *subject) {
	check := func(what string, d maildrop.Deposit) {
		s.t.Helper()
		if n, err := d.Write([]byte("more\r\n")); err == nil || n != 0 {
			s.t.Errorf("Write after %s: %d, %v", what, n, err)
		}
		if err := d.Commit(s.t.Context()); err == nil {
			s.t.Errorf("Commit after %s: no error", what)
		}
		if n, err := d.Write(nil); n != 0 {
			s.t.Errorf("Write after %s: %d, %v", what, n, err)
		}
		d.Discard()
		if err := d.Commit(s.t.Context()); err == nil {
			s.t.Errorf("Commit after %s: no error", what)
		}
		s.open().close()
	}
	d := s.begin()
	s.write(d, "one\r\n")
	s.commit(d, "one\r\n")
	check("Commit", d)
	d = s.begin()
	s.write(d, "two\r\n")
	d.Discard()
	check("Discard", d)
	d = s.begin()
	s.commit(d, "") // nothing was written
	check("Commit of nothing", d)
}

// testDepositTwice takes in two messages that are the same: two messages.
func testDepositTwice(s *subject) {
	for range 2 {
		s.deposit("same\r\n", 10)
	}
	d, err := s.Store.Open(s.t.Context(), s.Owner)
	if err != nil {
		s.t.Fatal(err)
	}
	v := &view{s: s, Maildrop: d}
	scan := d.Messages()
	if len(scan) != 2 || scan[0].UID == scan[1].UID {
		s.t.Fatalf("the scan has %v", scan)
	}
	for n := 1; n <= 2; n++ {
		if got := v.read(n); string(got) != "same\r\n" {
			s.t.Errorf("message %d is %q", n, got)
		}
	}
	if err := v.Remove(s.t.Context(), []int{1}); err != nil {
		s.t.Error(err)
	}
	v.close()
}

func testDepositContext(s *subject) {
	over, cancel := context.WithCancel(s.t.Context())
	cancel()
	d, err := s.Store.(maildrop.Depositor).Deposit(over, s.Owner)
	wantErr(s.t, "Deposit", err, context.Canceled)
	if d != nil {
		s.t.Fatal("Deposit returned one beside its error")
	}
	d = s.begin()
	s.write(d, "one\r\n")
	wantErr(s.t, "Commit", d.Commit(over), context.Canceled)
	if err := d.Commit(s.t.Context()); err == nil {
		s.t.Error("Commit after a Commit that failed: no error")
	}
	d.Discard()
}

// testDepositsAtOnce takes in many messages at once, while sessions come and go.
func testDepositsAtOnce(s *subject) {
	const writers, each = 8, 25
	var wg sync.WaitGroup
	for w := range writers {
		wg.Go(func() {
			for i := range each {
				d, err := s.Store.(maildrop.Depositor).Deposit(s.t.Context(), s.Owner)
				if err != nil {
					s.t.Errorf("Deposit: %v", err)
					return
				}
				for _, piece := range []string{"Subject: ", fmt.Sprint(w), "-", fmt.Sprint(i), "\r", "\n\r\n"} {
					if _, err := io.WriteString(d, piece); err != nil {
						s.t.Errorf("Write: %v", err)
					}
				}
				if i%5 != 4 {
					if err := d.Commit(s.t.Context()); err != nil {
						s.t.Errorf("Commit: %v", err)
					}
				}
				d.Discard()
			}
		})
	}
	done := make(chan struct{})
	go func() { wg.Wait(); close(done) }()
	seen := map[string]string{}
	for end := false; !end; {
		select {
		case <-done:
			end = true // and once more
		default:
		}
		d, err := s.Store.Open(s.t.Context(), s.Owner)
		if err != nil {
			s.t.Fatalf("Open: %v", err)
		}
		v := &view{s: s, Maildrop: d}
		var all []int
		for i, m := range d.Messages() {
			text := string(v.read(i + 1))
			if before, ok := seen[m.UID]; ok {
				s.t.Errorf("unique-id %s again: %q, before %q", m.UID, text, before)
			}
			seen[m.UID] = text
			all = append(all, i+1)
		}
		if err := d.Remove(s.t.Context(), all); err != nil {
			s.t.Errorf("Remove: %v", err)
		}
		v.close()
	}
	texts := map[string]bool{}
	for _, text := range seen {
		texts[text] = true
	}
	for w := range writers {
		for i := range each {
			text := fmt.Sprintf("Subject: %d-%d\r\n\r\n", w, i)
			if texts[text] != (i%5 != 4) {
				s.t.Errorf("there %v: %q", texts[text], text)
			}
		}
	}
	if len(seen) != writers*each*4/5 {
		s.t.Errorf("%d messages were served, want %d", len(seen), writers*each*4/5)
	}
}

// A pending deposit is one that a machine has begun.
type pending struct {
	maildrop.Deposit
	content []byte
}

func (m *machine) beginDeposit(t *rapid.T) {
	if len(m.pending) == 3 {
		t.Skip("enough of them")
	}
	m.serial++
	p := &pending{Deposit: m.begin()}
	m.pending = append(m.pending, p)
	m.extend(p, fmt.Appendf(nil, "Subject: %d%s", m.serial, rapid.SampledFrom([]string{"\n", "\r\n\r\n"}).Draw(t, "line end")))
}

func (m *machine) extend(p *pending, piece []byte) {
	m.write(p.Deposit, string(piece))
	p.content = append(p.content, piece...)
}

func (m *machine) aPending(t *rapid.T) (*pending, int) {
	if len(m.pending) == 0 {
		t.Skip("none")
	}
	i := rapid.IntRange(0, len(m.pending)-1).Draw(t, "deposit")
	return m.pending[i], i
}

func (m *machine) writeDeposit(t *rapid.T) {
	p, _ := m.aPending(t)
	octet := rapid.OneOf(rapid.SampledFrom([]byte("\r\n\r\n.a\x00")), rapid.Byte())
	piece := rapid.SliceOfN(octet, 0, 30).Draw(t, "octets")
	if rapid.IntRange(0, 9).Draw(t, "large") == 0 {
		piece = append(piece, bytes.Repeat([]byte("z"), rapid.IntRange(32_000, 34_000).Draw(t, "octets more"))...)
	}
	m.extend(p, piece)
}

func (m *machine) commitDeposit(t *rapid.T) {
	p, i := m.aPending(t)
	m.commit(p.Deposit, string(p.content))
	m.deposited[string(p.content)] = true
	m.pending = slices.Delete(m.pending, i, i+1)
}

func (m *machine) discardDeposit(t *rapid.T) {
	p, i := m.aPending(t)
	p.Discard()
	m.pending = slices.Delete(m.pending, i, i+1)
}

func (m *machine) discardAll() {
	for _, p := range m.pending {
		p.Discard()
	}
	m.pending = nil
}
