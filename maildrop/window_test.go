package maildrop_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"dewey/maildrop"
	"dewey/maildrop/maildroptest"
	"dewey/store/mem"
)

// A message in the model; content names it.
type sent struct {
	uid, content string
	at           time.Time
	gone         bool
}

var epoch = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

// box delivers some messages to a maildrop and opens it; then others remove some of them.
func box(t *rapid.T, s *mem.Store, name string) (maildrop.Maildrop, []sent) {
	var all []sent
	for i, minute := range rapid.SliceOfN(rapid.IntRange(0, 5), 0, 8).Draw(t, "minutes") {
		m := sent{content: fmt.Sprintf("Subject: %s %d\r\n", name, i), at: epoch.Add(time.Duration(minute) * time.Minute)}
		m.uid = s.DeliverAt(name, []byte(m.content), m.at)
		all = append(all, m)
	}
	d, err := s.Open(t.Context(), maildrop.Owner{Name: name})
	if err != nil {
		t.Fatal(err)
	}
	for i := range all {
		if all[i].gone = rapid.IntRange(0, 4).Draw(t, "gone") == 0; all[i].gone {
			s.Expunge(name, all[i].uid)
		}
	}
	return d, all
}

// shows says that a maildrop shows these messages and no others, hands them over and knows their dates.
func shows(t *rapid.T, d maildrop.Maildrop, want []sent) {
	t.Helper()
	scan := d.Messages()
	if len(scan) != len(want) {
		t.Fatalf("%d messages, want %d", len(scan), len(want))
	}
	dated := d.(maildrop.Dated)
	for i, w := range want {
		m, r, err := d.Retrieve(t.Context(), i+1)
		at, dateErr := dated.Received(t.Context(), i+1)
		switch {
		case scan[i].UID != w.uid:
			t.Fatalf("message %d is %q, want %q", i+1, scan[i].UID, w.uid)
		case w.gone:
			if !errors.Is(err, maildrop.ErrGone) || !errors.Is(dateErr, maildrop.ErrGone) {
				t.Fatalf("message %d: %v and %v, want ErrGone", i+1, err, dateErr)
			}
			continue
		case err != nil || dateErr != nil || m != scan[i] || !at.Equal(w.at):
			t.Fatalf("message %d: %+v, %v, %v, %v, want %+v", i+1, m, at, err, dateErr, w)
		}
		content, err := io.ReadAll(r)
		if err != nil || string(content) != w.content || r.Close() != nil {
			t.Fatalf("message %d is %q, %v, want %q", i+1, content, err, w.content)
		}
	}
	for _, n := range []int{-1, 0, len(want) + 1} {
		_, _, err := d.Retrieve(t.Context(), n)
		_, dateErr := dated.Received(t.Context(), n)
		if !errors.Is(err, maildrop.ErrNoMessage) || !errors.Is(dateErr, maildrop.ErrNoMessage) {
			t.Fatalf("message %d: %v and %v, want ErrNoMessage", n, err, dateErr)
		}
	}
}

// remove removes some messages and says that these and no others went; then it closes the maildrop.
func remove(t *rapid.T, s *mem.Store, d maildrop.Maildrop, want []sent, names ...string) {
	t.Helper()
	left := map[string]bool{}
	for _, name := range names {
		for _, m := range s.Messages(name) {
			left[m.UID] = true
		}
	}
	var numbers []int
	for n := range want {
		if rapid.Bool().Draw(t, "remove") {
			numbers = append(numbers, n+1)
		}
	}
	for _, bad := range []int{0, len(want) + 1} {
		if err := d.Remove(t.Context(), append(slices.Clone(numbers), bad)); !errors.Is(err, maildrop.ErrNoMessage) {
			t.Fatalf("Remove of message %d: %v, want ErrNoMessage", bad, err)
		}
	}
	held := func() (n int) {
		for _, name := range names {
			n += len(s.Messages(name))
		}
		return n
	}
	if held() != len(left) {
		t.Fatal("a Remove that was refused removed something")
	}
	if err := d.Remove(t.Context(), numbers); err != nil {
		t.Fatal(err)
	}
	for _, n := range numbers {
		delete(left, want[n-1].uid)
	}
	for _, name := range names {
		for _, m := range s.Messages(name) {
			if !left[m.UID] {
				t.Fatalf("%q was not removed", m.UID)
			}
		}
	}
	if held() != len(left) {
		t.Fatalf("%d messages are left, want %d", held(), len(left))
	}
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		again, err := s.Open(t.Context(), maildrop.Owner{Name: name})
		if err != nil {
			t.Fatalf("Close has not closed %q: %v", name, err)
		}
		_ = again.Close()
	}
}

func TestSubset(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := mem.New()
		d, all := box(t, s, "mrose")
		var numbers []int
		var want []sent
		for i, m := range all {
			if rapid.Bool().Draw(t, "shown") {
				numbers, want = append(numbers, i+1), append(want, m)
			}
		}
		part := maildrop.Subset(d, numbers)
		shows(t, part, want)
		remove(t, s, part, want, "mrose")
	})
}

// The model of Window takes out the oldest, one at a time.
func TestWindow(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := mem.New()
		d, all := box(t, s, "mrose")
		var since time.Time
		if minute := rapid.IntRange(-1, 6).Draw(t, "since"); minute >= 0 {
			since = epoch.Add(time.Duration(minute) * time.Minute)
		}
		newest := int64(rapid.IntRange(0, 9).Draw(t, "newest"))
		want := slices.Clone(all)
		if !since.IsZero() || newest > 0 && newest < int64(len(all)) {
			want = slices.DeleteFunc(want, func(m sent) bool { return m.gone || m.at.Before(since) })
		}
		for newest > 0 && int64(len(want)) > newest {
			oldest := 0
			for i, m := range want {
				if m.at.Before(want[oldest].at) {
					oldest = i
				}
			}
			want = slices.Delete(want, oldest, oldest+1)
		}
		got, err := maildrop.Window(t.Context(), d, since, newest)
		if err != nil {
			t.Fatal(err)
		}
		if same := got == d; same != (len(want) == len(all)) {
			t.Errorf("of %d messages %d are left; the maildrop itself: %v", len(all), len(want), same)
		}
		shows(t, got, want)
		remove(t, s, got, want, "mrose")
	})
}

func TestJoin(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := mem.New()
		var drops []maildrop.Maildrop
		var want []sent
		var names []string
		for i := range rapid.IntRange(0, 4).Draw(t, "maildrops") {
			names = append(names, fmt.Sprint("box", i))
			d, all := box(t, s, names[i])
			drops, want = append(drops, d), append(want, all...)
		}
		d := maildrop.Join(drops...)
		shows(t, d, want)
		remove(t, s, d, want, names...)
	})
}

// undated knows no dates, and its errors are those of a disk that is broken.
type undated struct {
	maildrop.Maildrop
	err error
}

func (u undated) Remove(ctx context.Context, numbers []int) error {
	if u.err != nil {
		return u.err
	}
	return u.Maildrop.Remove(ctx, numbers)
}

func (u undated) Close() error { return errors.Join(u.Maildrop.Close(), u.err) }

type misdated struct{ undated }

func (m misdated) Received(context.Context, int) (time.Time, error) { return time.Time{}, m.err }

func opened(t *testing.T, s *mem.Store, name string) maildrop.Maildrop {
	d, err := s.Open(t.Context(), maildrop.Owner{Name: name})
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// Who asks for a window gets one, or an error: never all.
func TestNoWindow(t *testing.T) {
	s := mem.New()
	s.Deliver("mrose", []byte("one\n"))
	d := undated{opened(t, s, "mrose"), errors.New("broken")}
	for _, m := range []maildrop.Maildrop{
		d, maildrop.Subset(d, []int{1}), maildrop.Join(d, opened(t, s, "other")), misdated{d}, maildrop.Subset(misdated{d}, []int{1}),
	} {
		if got, err := maildrop.Window(t.Context(), m, epoch, 0); err == nil {
			t.Errorf("Window on %T is %T", m, got)
		}
		if got, err := maildrop.Window(t.Context(), m, time.Time{}, 0); got != m || err != nil {
			t.Errorf("no window on %T: %T, %v", m, got, err)
		}
	}
	if _, err := maildrop.Window(t.Context(), d, time.Time{}, 7); err == nil {
		t.Error("a window of messages on a maildrop without dates")
	}
	if _, err := maildrop.Window(t.Context(), misdated{d}, epoch, 0); !errors.Is(err, d.err) {
		t.Errorf("%v does not wrap the maildrop's error", err)
	}
}

// A maildrop that fails keeps none of the others from being removed from and closed.
func TestJoinGoesOn(t *testing.T) {
	s := mem.New()
	var drops []maildrop.Maildrop
	broken := []error{errors.New("first"), nil, errors.New("third")}
	for i, err := range broken {
		name := fmt.Sprint(i)
		s.Deliver(name, []byte("one\n"))
		drops = append(drops, undated{opened(t, s, name), err})
	}
	d := maildrop.Join(drops...)
	for what, err := range map[string]error{"Remove": d.Remove(t.Context(), []int{3, 2, 1}), "Close": d.Close()} {
		if !errors.Is(err, broken[0]) || !errors.Is(err, broken[2]) {
			t.Errorf("%s: %v, want both errors", what, err)
		}
	}
	for i, want := range []int{1, 0, 1} {
		if got := len(s.Messages(fmt.Sprint(i))); got != want {
			t.Errorf("maildrop %d has %d messages, want %d", i, got, want)
		}
		_ = opened(t, s, fmt.Sprint(i)).Close()
	}
}

// A session that is over before it removes removes nothing; one that has begun goes through.
func TestJoinIsNotCutShort(t *testing.T) {
	s := mem.New()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var drops []maildrop.Maildrop
	for _, name := range []string{"a", "b"} {
		s.Deliver(name, []byte("one\n"))
		drops = append(drops, cutting{opened(t, s, name), cancel})
	}
	d := maildrop.Join(drops...)
	if err := d.Remove(ctx, []int{1, 2}); err != nil || len(s.Messages("a"))+len(s.Messages("b")) > 0 {
		t.Errorf("Remove: %v; left: %v, %v", err, s.Messages("a"), s.Messages("b"))
	}
	if err := d.Remove(ctx, []int{1, 2}); !errors.Is(err, context.Canceled) {
		t.Errorf("Remove: %v, want context.Canceled", err)
	}
}

// cutting ends its caller's context when it removes.
type cutting struct {
	maildrop.Maildrop
	cancel func()
}

func (c cutting) Remove(ctx context.Context, numbers []int) error {
	c.cancel()
	return c.Maildrop.Remove(ctx, numbers)
}

// partial is a store that shows another maildrop before the owner's, of which it hides one message by a window.
type partial struct{ *mem.Store }

func (s partial) Open(ctx context.Context, owner maildrop.Owner) (maildrop.Maildrop, error) {
	own, err := s.Store.Open(ctx, owner)
	if err != nil {
		return nil, err
	}
	other, err := s.Store.Open(ctx, maildrop.Owner{Name: "other"})
	if err != nil {
		return nil, errors.Join(err, own.Close())
	}
	d, err := maildrop.Window(ctx, maildrop.Join(other, own), epoch, 0)
	if err != nil {
		return nil, errors.Join(err, other.Close(), own.Close())
	}
	return d, nil
}

// What is put together passes the suite that every store passes.
func TestWindowOnJoinedIsAMaildrop(t *testing.T) {
	maildroptest.Run(t, func(maildroptest.TB) maildroptest.Maildrop {
		s := partial{mem.New()}
		s.DeliverAt("other", []byte("old\n"), epoch.Add(-1))
		uids := map[string]string{}
		return maildroptest.Maildrop{
			Store: s,
			Owner: maildrop.Owner{Name: "mrose"},
			Deliver: func(_ maildroptest.TB, stored []byte) {
				uids[string(stored)] = s.Deliver("mrose", stored)
			},
			Expunge: func(_ maildroptest.TB, stored []byte, _ string) { s.Expunge("mrose", uids[string(stored)]) },
		}
	})
}
