package maildroptest

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing/iotest"

	"dewey/maildrop"
)

func testEmpty(s *subject) {
	v := s.open()
	if n := len(v.Messages()); n != 0 {
		s.t.Errorf("an empty maildrop has %d messages", n)
	}
	if err := v.Remove(s.t.Context(), nil); err != nil {
		s.t.Errorf("removing nothing: %v", err)
	}
	v.close()
}

// testExact holds sizes and content of awkward messages against the definition, twice: as measured
// now and as remembered.
func testExact(s *subject) {
	for name, stored := range Awkward() {
		s.deliver(string(stored))
		want := Wire(stored)
		for range 2 {
			v := s.open()
			if got := v.Messages()[0].Octets; got != int64(len(want)) {
				s.t.Errorf("%s: the scan says %d octets, want %d", name, got, len(want))
			}
			_, body, err := v.Retrieve(s.t.Context(), 1)
			if err != nil {
				s.t.Fatalf("%s: %v", name, err)
			}
			if err := errors.Join(iotest.TestReader(body, want), body.Close()); err != nil {
				s.t.Errorf("%s: %v", name, err)
			}
			v.close()
		}
		v := s.open()
		if err := v.Remove(s.t.Context(), []int{1}); err != nil {
			s.t.Error(err)
		}
		delete(s.live, string(stored))
		v.close()
	}
}

func testNumbers(s *subject) {
	s.deliver("one\n", "two\n")
	v := s.open()
	for _, n := range []int{0, -1, 3, 1 << 30, -1 << 31} {
		_, body, err := v.Retrieve(s.t.Context(), n)
		wantErr(s.t, fmt.Sprintf("Retrieve(%d)", n), err, maildrop.ErrNoMessage)
		if body != nil {
			s.t.Errorf("Retrieve(%d) returned a reader beside its error", n)
		}
	}
	v.close()
}

func testNewMail(s *subject) {
	s.deliver("one\n")
	v := s.open()
	s.Deliver(s.t, []byte("two\n"))
	if n := len(v.Messages()); n != 1 {
		s.t.Errorf("%d messages in the scan after a delivery, want 1", n)
	}
	_, _, err := v.Retrieve(s.t.Context(), 2)
	wantErr(s.t, "Retrieve(2)", err, maildrop.ErrNoMessage)
	if err := v.Remove(s.t.Context(), []int{1}); err != nil {
		s.t.Error(err)
	}
	delete(s.live, "one\n")
	v.close()
	s.live["two\n"] = ""
}

func testGone(s *subject) {
	s.deliver("one\n", "two\n", "three\n")
	v := s.open()
	gone := v.contents[1]
	s.expunge(gone)
	for range 2 {
		_, _, err := v.Retrieve(s.t.Context(), 2)
		wantErr(s.t, "Retrieve of an expunged message", err, maildrop.ErrGone)
	}
	v.read(1)
	v.read(3)
	if err := v.Remove(s.t.Context(), []int{2, 3}); err != nil {
		s.t.Errorf("Remove of an expunged message: %v", err)
	}
	delete(s.live, v.contents[2])
	v.close()
}

func testRemove(s *subject) {
	s.deliver("one\n", "two\n", "three\n", "four\n")
	v := s.open()
	if err := v.Remove(s.t.Context(), []int{4, 2, 2}); err != nil {
		s.t.Errorf("Remove: %v", err)
	}
	delete(s.live, v.contents[1])
	delete(s.live, v.contents[3])
	if n := len(v.Messages()); n != 4 {
		s.t.Errorf("%d messages in the scan after Remove, want 4: numbers stay until Close", n)
	}
	_, _, err := v.Retrieve(s.t.Context(), 2)
	wantErr(s.t, "Retrieve after Remove", err, maildrop.ErrGone)
	v.read(1)
	v.read(3)
	v.close()
}

func testRemoveWrong(s *subject) {
	s.deliver("one\n", "two\n")
	v := s.open()
	for _, numbers := range [][]int{{1, 3}, {0}, {2, -1}} {
		wantErr(s.t, fmt.Sprintf("Remove(%v)", numbers), v.Remove(s.t.Context(), numbers), maildrop.ErrNoMessage)
	}
	v.close()
}

func testClose(s *subject) {
	s.deliver("one\n", "two\n")
	v := s.open()
	v.read(1)
	v.close()
}

func testUniqueIDsStay(s *subject) {
	for i := range 5 {
		s.deliver(fmt.Sprintf("Subject: %d\n\n", i))
		s.open().close() // open holds the unique-ids against those seen before
		if s.Disturb != nil {
			s.Disturb(s.t)
		}
		s.open().close()
		if s.Restart != nil {
			s.Store = s.Restart(s.t, nil)
		}
	}
}

func testUniqueIDsNotReused(s *subject) {
	for i := range 4 {
		s.deliver(fmt.Sprintf("Subject: %d\n\n", i))
		v := s.open()
		if err := v.Remove(s.t.Context(), []int{1}); err != nil {
			s.t.Error(err)
		}
		delete(s.live, v.contents[0])
		v.close()
		if s.Restart != nil {
			s.Store = s.Restart(s.t, nil)
		}
	}
}

func testRefused(s *subject) {
	s.deliver("one\n")
	v := s.open()
	for range 3 {
		d, err := s.Store.Open(s.t.Context(), s.Owner)
		wantErr(s.t, "Open of a maildrop in use", err, maildrop.ErrInUse)
		if d != nil {
			s.t.Error("Open returned a Maildrop beside its error")
		}
	}
	v.read(1)
	v.close()
	s.open().close()
}

func testManyOpens(s *subject) {
	s.deliver("one\n")
	var (
		wg     sync.WaitGroup
		mu     sync.Mutex
		opened []maildrop.Maildrop
	)
	for range 8 {
		wg.Go(func() {
			d, err := s.Store.Open(s.t.Context(), s.Owner)
			mu.Lock()
			defer mu.Unlock()
			switch {
			case err == nil:
				opened = append(opened, d)
			case !errors.Is(err, maildrop.ErrInUse):
				s.t.Errorf("Open: %v", err)
			}
		})
	}
	wg.Wait()
	if len(opened) != 1 {
		s.t.Errorf("%d of 8 sessions got the maildrop, want 1", len(opened))
	}
	for _, d := range opened {
		if err := d.Close(); err != nil {
			s.t.Error(err)
		}
	}
}

func testContext(s *subject) {
	s.deliver("one\n")
	over, cancel := context.WithCancel(s.t.Context())
	cancel()
	d, err := s.Store.Open(over, s.Owner)
	wantErr(s.t, "Open", err, context.Canceled)
	if d != nil {
		s.t.Fatal("Open returned a Maildrop beside its error")
	}
	v := s.open()
	_, _, err = v.Retrieve(over, 1)
	wantErr(s.t, "Retrieve", err, context.Canceled)
	wantErr(s.t, "Remove", v.Remove(over, []int{1}), context.Canceled)
	v.close()
}
