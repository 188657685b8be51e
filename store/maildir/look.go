package maildir

import (
	"context"
	"io"
	"time"

	"dewey/maildrop"
)

// A Look is a Maildir as it was when it was looked at, to be read alone: no lock is held, so that its owner can log
// in meanwhile. Messages that go in the meantime are maildrop.ErrGone. One goroutine uses a Look at a time.
type Look struct{ s *session }

// Look opens an owner's maildrop for as long as the scan takes, and gives messages that have none their
// unique-ids, as Open does. Its errors are Open's, maildrop.ErrInUse too: only who has the lock may say which
// unique-ids there are.
func (s *Store) Look(ctx context.Context, owner maildrop.Owner) (*Look, error) {
	d, err := s.session(ctx, owner)
	if err != nil {
		return nil, err
	}
	if err := d.Close(); err != nil {
		return nil, err
	}
	return &Look{d}, nil
}

// Messages returns the scan, as maildrop.Maildrop's does, with those that are hidden.
func (l *Look) Messages() []maildrop.Message { return l.s.Messages() }

// Hidden says that message n was removed by its owner and kept: maildrop.DeletionKeep. It is so for no n that is not
// in the scan.
func (l *Look) Hidden(n int) bool {
	return n >= 1 && n <= len(l.s.snap.items) && l.s.snap.items[n-1].hidden
}

// close closes what one call has opened: nobody closes a Look.
func (l *Look) close() {
	l.s.dirs.close()
	l.s.unbind()
}

// Retrieve returns message n, as maildrop.Maildrop's does. Sizes that prove wrong are not noted for others.
func (l *Look) Retrieve(ctx context.Context, n int) (maildrop.Message, io.ReadCloser, error) {
	defer l.close()
	return l.s.Retrieve(ctx, n)
}

// Stored returns message n as it is stored, from its beginning, and the time of its delivery, which is the file's.
// It costs no more than what is read of it. Errors are those of Retrieve. The caller closes the reader.
func (l *Look) Stored(ctx context.Context, n int) (time.Time, io.ReadCloser, error) {
	if err := ctx.Err(); err != nil {
		return time.Time{}, nil, err
	}
	if n < 1 || n > len(l.s.snap.items) {
		return time.Time{}, nil, maildrop.ErrNoMessage
	}
	defer l.close()
	file, err := l.s.openMessage(ctx, n-1)
	if err != nil {
		return time.Time{}, nil, err
	}
	return file.mtime, file, nil
}
