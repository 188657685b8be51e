package maildir

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"dewey/maildrop"
	"dewey/store/maildir/uidlist"
)

// shown is the session without the messages that are hidden, unless it asks for all that is recent.
func (s *session) shown(view maildrop.View) maildrop.Maildrop {
	if s.snap.hidden == 0 || view.Recent != 0 {
		return s
	}
	numbers := make([]int, 0, len(s.snap.items)-s.snap.hidden)
	for i := range s.snap.items {
		if !s.snap.items[i].hidden {
			numbers = append(numbers, i+1)
		}
	}
	return maildrop.Subset(s, numbers)
}

// keep is Remove for maildrop.DeletionKeep: the files stay, and their records say that they are hidden. That is one
// rewrite of the list, with all else that the session has found out.
func (s *session) keep(ctx context.Context, numbers []int) error {
	ctx = context.WithoutCancel(ctx)
	marks := make(map[uint32]int, len(numbers))
	for _, n := range numbers {
		marks[s.snap.items[n-1].uid] = n
	}
	at, written := strconv.FormatInt(time.Now().Unix(), 10), false
	var kept []int
	list, err := s.update(ctx, max(s.store.lockWait, closeWait), func(l *listFile) bool {
		if !s.amend(l) {
			return false
		}
		for i := range l.Records {
			rec := &l.Records[i]
			n, ok := marks[rec.UID]
			if !ok || rec.Base != s.snap.items[n-1].base() {
				continue
			}
			delete(marks, rec.UID)
			kept = append(kept, n-1)
			if _, before := rec.Get(uidlist.KeyRemoved); !before {
				rec.Set(uidlist.KeyRemoved, at)
				written = true
			}
		}
		return written
	})
	if err != nil {
		return fmt.Errorf("no message removed: %w", err)
	}
	s.kept = append(s.kept, kept...)
	for _, n := range kept {
		s.setPlace(n, place{})
	}
	if written {
		s.pending = nil
		s.publish(list)
	}
	var errs []error
	for _, n := range marks {
		switch _, _, err := s.find(ctx, n-1); {
		case errors.Is(err, maildrop.ErrGone):
		case err != nil:
			errs = append(errs, fmt.Errorf("message %d not removed: %w", n, err))
		default:
			errs = append(errs, fmt.Errorf("message %d not removed: %s has no record of it any more", n, s.file(listName)))
		}
	}
	return errors.Join(errs...)
}
