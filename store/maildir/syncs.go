package maildir

import (
	"errors"
	"sync"
)

// syncs are the folders that commits are making durable, so that commits at the same time share a sync. The
// zero value is ready for use.
type syncs struct {
	mu   sync.Mutex
	byID map[fileID]*syncing
}

// A syncing is one folder. The mutex of syncs guards it.
type syncing struct {
	users int
	one   sync.Mutex // held while the folder is synced
	next  *turn      // the sync that has not begun yet
}

// A turn is one sync, for all who came before it began.
type turn struct {
	once sync.Once
	err  error
}

var errNoSync = errors.New("the folder's sync did not end")

// cover returns when a sync of the folder has ended that began after the call, with its error: this one's
// or another one's.
func (s *syncs) cover(id fileID, do func() error) error {
	s.mu.Lock()
	f := s.byID[id]
	if f == nil {
		f = new(syncing)
		if s.byID == nil {
			s.byID = map[fileID]*syncing{}
		}
		s.byID[id] = f
	}
	f.users++
	if f.next == nil {
		f.next = &turn{err: errNoSync}
	}
	t := f.next
	s.mu.Unlock()

	defer func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		if f.users--; f.users == 0 {
			delete(s.byID, id)
		}
	}()
	t.once.Do(func() {
		f.one.Lock()
		defer f.one.Unlock()
		s.mu.Lock()
		f.next = nil // who comes from here on needs the turn after this
		s.mu.Unlock()
		t.err = do()
	})
	return t.err
}
