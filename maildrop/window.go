package maildrop

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"
)

// Subset is the part of a maildrop that holds only these of its messages, numbered from 1: numbers are those that they
// have in m, ascending. Close closes m. It is Dated if m is. It panics if m has no message of such a number.
func Subset(m Maildrop, numbers []int) Maildrop {
	s := &subset{Maildrop: m, numbers: numbers, messages: make([]Message, len(numbers))}
	all := m.Messages()
	for i, n := range numbers {
		s.messages[i] = all[n-1]
	}
	if dated, ok := m.(Dated); ok {
		return &datedSubset{s, dated}
	}
	return s
}

type subset struct {
	Maildrop
	numbers  []int // those that the messages have in Maildrop
	messages []Message
}

func (s *subset) Messages() []Message { return s.messages }

// number is the number that message n has in the maildrop beneath.
func (s *subset) number(n int) (int, error) {
	if n < 1 || n > len(s.numbers) {
		return 0, ErrNoMessage
	}
	return s.numbers[n-1], nil
}

func (s *subset) Retrieve(ctx context.Context, n int) (Message, io.ReadCloser, error) {
	n, err := s.number(n)
	if err != nil {
		return Message{}, nil, err
	}
	return s.Maildrop.Retrieve(ctx, n)
}

func (s *subset) Remove(ctx context.Context, numbers []int) error {
	beneath := make([]int, len(numbers))
	for i, n := range numbers {
		var err error
		if beneath[i], err = s.number(n); err != nil {
			return err
		}
	}
	return s.Maildrop.Remove(ctx, beneath)
}

type datedSubset struct {
	*subset
	dated Dated
}

func (s *datedSubset) Received(ctx context.Context, n int) (time.Time, error) {
	n, err := s.number(n)
	if err != nil {
		return time.Time{}, err
	}
	return s.dated.Received(ctx, n)
}

// Window is a maildrop with only those messages that were delivered at or after since (zero: at any time), and of these
// only so many, those delivered last (0: all; of two that came at once the one with the higher number is the later). Their
// order is that in m. It is m itself if nothing is left out. A message that is ErrGone when it is asked for its date is
// left out. Any other error of m, and that it is not Dated, is Window's error; m is still open then.
func Window(ctx context.Context, m Maildrop, since time.Time, newest int64) (Maildrop, error) {
	all := len(m.Messages())
	if since.IsZero() && newest <= 0 {
		return m, nil
	}
	dated, ok := m.(Dated)
	if !ok {
		return nil, errors.New("a window on a maildrop that does not know when its messages were delivered")
	}
	if since.IsZero() && int64(all) <= newest {
		return m, nil
	}
	numbers := make([]int, 0, all)
	times := make([]time.Time, all+1)
	for n := 1; n <= all; n++ {
		at, err := dated.Received(ctx, n)
		switch {
		case errors.Is(err, ErrGone):
		case err != nil:
			return nil, fmt.Errorf("when message %d was delivered: %w", n, err)
		case !at.Before(since):
			numbers = append(numbers, n)
			times[n] = at
		}
	}
	if older := len(numbers) - int(min(newest, int64(all))); newest > 0 && older > 0 {
		slices.SortStableFunc(numbers, func(a, b int) int { return times[a].Compare(times[b]) })
		numbers = slices.Clone(numbers[older:])
		slices.Sort(numbers)
	}
	if len(numbers) == all {
		return m, nil
	}
	return Subset(m, numbers), nil
}

// Join is several maildrops as one, their messages numbered one after the other; no two of these may have one unique-id.
// Remove and Close go on to the next maildrop after an error, and return all. It is Dated if all are. One alone is
// itself.
func Join(drops ...Maildrop) Maildrop {
	if len(drops) == 1 {
		return drops[0]
	}
	j := &joined{drops: drops, dated: make([]Dated, 0, len(drops))}
	for _, m := range drops {
		j.messages = append(j.messages, m.Messages()...)
		j.ends = append(j.ends, len(j.messages))
		if d, ok := m.(Dated); ok {
			j.dated = append(j.dated, d)
		}
	}
	if len(j.dated) == len(drops) {
		return datedJoined{j}
	}
	return j
}

type joined struct {
	drops    []Maildrop
	dated    []Dated // as many as drops, or of no use
	ends     []int   // number of the last message of each
	messages []Message
}

// find says which maildrop has message n, and under which number.
func (j *joined) find(n int) (drop, number int, err error) {
	if n < 1 || n > len(j.messages) {
		return 0, 0, ErrNoMessage
	}
	drop, _ = slices.BinarySearch(j.ends, n)
	if drop > 0 {
		n -= j.ends[drop-1]
	}
	return drop, n, nil
}

func (j *joined) Messages() []Message { return j.messages }

func (j *joined) Retrieve(ctx context.Context, n int) (Message, io.ReadCloser, error) {
	drop, n, err := j.find(n)
	if err != nil {
		return Message{}, nil, err
	}
	return j.drops[drop].Retrieve(ctx, n)
}

func (j *joined) Remove(ctx context.Context, numbers []int) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	parts := make([][]int, len(j.drops))
	for _, n := range numbers {
		drop, n, err := j.find(n)
		if err != nil {
			return err
		}
		parts[drop] = append(parts[drop], n)
	}
	var errs []error
	for i, part := range parts {
		if len(part) > 0 { // what has begun is done, however ctx ends
			errs = append(errs, j.drops[i].Remove(context.WithoutCancel(ctx), part))
		}
	}
	return errors.Join(errs...)
}

func (j *joined) Close() error {
	errs := make([]error, len(j.drops))
	for i, m := range j.drops {
		errs[i] = m.Close()
	}
	return errors.Join(errs...)
}

type datedJoined struct{ *joined }

func (j datedJoined) Received(ctx context.Context, n int) (time.Time, error) {
	drop, n, err := j.find(n)
	if err != nil {
		return time.Time{}, err
	}
	return j.dated[drop].Received(ctx, n)
}
