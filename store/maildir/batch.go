package maildir

import (
	"context"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"dewey/maildrop"
	"dewey/maildrop/message"
)

// DepositAt is Deposit for a message that was delivered before, elsewhere: its file gets that time, which IMAP
// servers and Stored take for the time of delivery. It comes after the messages that are there all the same, since
// names tell the order. The zero time is now.
func (s *Store) DepositAt(ctx context.Context, owner maildrop.Owner, at time.Time) (maildrop.Deposit, error) {
	d, err := s.Deposit(ctx, owner)
	if err == nil {
		d.(*deposit).at = at
	}
	return d, err
}

// date gives the file its time, if it has one.
func (d *deposit) date() error {
	if d.at.IsZero() {
		return nil
	}
	at := unix.Timeval{Sec: d.at.Unix(), Usec: int64(d.at.Nanosecond() / 1000)}
	if err := unix.Futimes(int(d.out.Fd()), []unix.Timeval{at, at}); err != nil {
		return fmt.Errorf("the time of %s: %w", d.out.Name(), err)
	}
	return nil
}

// mostSyncing is how many files of a batch are made durable at a time: file systems do several in one go.
const mostSyncing = 16

// CommitAll commits deposits that this Store made for one owner, in the order in which they were begun, at less cost
// than one by one: the first n of them, and no others, are there. If err is nil those are all, and they are there for
// good. If not, n of them are visible, and are also durable unless the error says otherwise; the rest are discarded,
// or taken out again.
func (s *Store) CommitAll(ctx context.Context, deposits []maildrop.Deposit) (n int, err error) {
	if len(deposits) == 0 {
		return 0, nil
	}
	all := make([]*deposit, len(deposits))
	defer func() {
		for _, d := range deposits {
			d.Discard()
		}
	}()
	for i := range deposits {
		d, ok := deposits[i].(*deposit)
		if !ok || d.store != s || i > 0 && d.box.id != all[0].box.id {
			return 0, errors.New("maildir: deposits of several maildrops in one batch")
		}
		if d.over {
			return 0, errOver
		}
		all[i] = d
	}
	into, path, err := all[0].openFolder(inNew)
	if err != nil {
		return 0, err
	}
	defer unix.Close(into)
	var group errgroup.Group
	group.SetLimit(mostSyncing)
	sizes := make([]message.Sizes, len(all))
	faults := make([]error, len(all))
	for i, d := range all {
		group.Go(func() error {
			if faults[i] = ctx.Err(); faults[i] == nil {
				sizes[i], faults[i] = d.finish()
			}
			return nil
		})
	}
	_ = group.Wait() // faults has them
	var fault error
	for i, d := range all {
		if fault = faults[i]; fault == nil {
			fault = d.publish(into, sizes[i])
		}
		if fault != nil {
			break
		}
		n++
	}
	if fault != nil {
		fault = fmt.Errorf("message not taken in: %w", fault)
	}
	if n == 0 {
		return 0, fault
	}
	if err := all[0].settle(into, path); err != nil {
		return withdraw(all[:n], into, path, errors.Join(fault, err))
	}
	return n, fault
}
