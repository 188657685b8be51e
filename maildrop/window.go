package maildrop

import (
	"context"
	"io"
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
