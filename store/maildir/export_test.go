package maildir

import (
	"reflect"
	"time"

	"dewey/maildrop"
)

// Kill ends a session, which may be part of a maildrop, as the death of its process would.
func Kill(d maildrop.Maildrop) {
	s, ok := d.(*session)
	for v := reflect.ValueOf(d); !ok; { // what package maildrop has put around it
		for v = v.Elem(); v.Kind() == reflect.Struct; {
			v = v.Field(0)
		}
		if ok = v.Type() == reflect.TypeFor[*session](); ok {
			s = (*session)(v.UnsafePointer())
		}
	}
	_ = s.lock.release()
}

// SetFault makes operations fail.
func (s *Store) SetFault(f func(op, path string) error) {
	if f == nil {
		s.fault.Store(nil)
	} else {
		s.fault.Store(&f)
	}
}

// SetTrace is told of what is read.
func (s *Store) SetTrace(f func(op, path string)) {
	if f == nil {
		s.trace.Store(nil)
	} else {
		s.trace.Store(&f)
	}
}

// SetSettle sets how old a change must be to prove something.
func (s *Store) SetSettle(d time.Duration) { s.settle = d }

// SetLarge sets how many messages one Remove takes for their files to be unlinked later.
func (s *Store) SetLarge(n int) { s.large = n }

// Cached is how many scans are kept and what they take.
func (s *Store) Cached() (n int, octets int64) {
	s.cache.mu.Lock()
	defer s.cache.mu.Unlock()
	return len(s.cache.byID), s.cache.size
}

// NewName and NameHost make names.
var (
	NewName  = newName
	NameHost = nameHost
)

// Syncs are syncs that may be shared.
type Syncs struct{ s syncs }

// Cover is their one method.
func (s *Syncs) Cover(folder uint64, do func() error) error {
	return s.s.cover(fileID{ino: folder}, do)
}

// Idle says that nothing is kept of any folder.
func (s *Syncs) Idle() bool { return len(s.s.byID) == 0 }
