package maildir

import (
	"context"
	"errors"
	"io"
	"time"

	"dewey/maildrop"
)

// Removed is a message that can be brought back.
type Removed struct {
	UID      string
	Octets   int64     // as sent, if that is known; else as stored
	Received time.Time // when it was delivered
	At       time.Time // when it was removed
	Folder   string    // in whose Maildir it was; empty: the owner's own
	Kept     bool      // it is where it was, and hidden: maildrop.DeletionKeep
}

var errStub = errors.New("not built")

// Removed lists what can be brought back, the one that was removed last at the end. It takes no lock.
func (s *Store) Removed(ctx context.Context, owner maildrop.Owner) ([]Removed, error) {
	return nil, errStub
}

// OpenRemoved returns a message that can be brought back, as it is stored.
func (s *Store) OpenRemoved(ctx context.Context, owner maildrop.Owner, r Removed) (io.ReadCloser, error) {
	return nil, errStub
}

// Restore brings back, under their old unique-ids, those messages for which choose returns true.
func (s *Store) Restore(ctx context.Context, owner maildrop.Owner, choose func(Removed) bool) ([]Removed, error) {
	return nil, errStub
}

// Swept is what Sweep has done.
type Swept struct {
	Expired []maildrop.Message // older than owner.Life.Retention
	Purged  int                // could be brought back until now
}

// Sweep removes what is older than owner.Life.Retention, as UPDATE does, and for good what was removed longer ago than
// owner.Life.Undelete.
func (s *Store) Sweep(ctx context.Context, owner maildrop.Owner, now time.Time) (Swept, error) {
	return Swept{}, errStub
}
