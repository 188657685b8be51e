package maildir

import "dewey/maildrop"

// Kill ends a session as the death of its process would.
func Kill(d maildrop.Maildrop) { _ = d.(*session).lock.release() }

// SetFault makes operations fail.
func (s *Store) SetFault(f func(op, path string) error) { s.fault = f }

// SetTrace is told of what is read.
func (s *Store) SetTrace(f func(op, path string)) { s.trace = f }
