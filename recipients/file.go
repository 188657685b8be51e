package recipients

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// youth is how long a file's times prove nothing: a later change may fall into the same tick of the
// file system's clock.
const youth = 2 * time.Second

// A stamp tells one version of a file from another. The zero stamp is that of no file.
type stamp struct {
	dev, ino     uint64
	size         int64
	mtime, ctime time.Duration // since 1970
}

func (s stamp) young(now time.Time) bool {
	since := time.Duration(now.UnixNano())
	return (since-s.mtime).Abs() < youth || (since-s.ctime).Abs() < youth
}

func stampOf(st *unix.Stat_t) stamp {
	return stamp{
		dev: uint64(st.Dev), ino: st.Ino, size: st.Size,
		mtime: time.Duration(st.Mtim.Nano()), ctime: time.Duration(st.Ctim.Nano()),
	}
}

// readFile returns a file's text, and the stamp that it had before it was read: if it changes meanwhile,
// the stamp at the next look is another.
func readFile(path string) (string, stamp, error) {
	file, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0) // a FIFO would hold us up
	if err != nil {
		return "", stamp{}, err //nolint:wrapcheck // names the file
	}
	defer file.Close()
	var st unix.Stat_t
	if err := unix.Fstat(int(file.Fd()), &st); err != nil {
		return "", stamp{}, &fs.PathError{Op: "stat", Path: path, Err: err}
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG {
		return "", stampOf(&st), fmt.Errorf("%s: not a regular file; a file of aliases would be right", path)
	}
	text, err := io.ReadAll(io.LimitReader(file, maxFile+1))
	if err == nil && len(text) > maxFile {
		err = fmt.Errorf("over %d MiB; a smaller file would be right", maxFile>>20)
	}
	if err != nil {
		return "", stampOf(&st), fmt.Errorf("%s: %w", path, err)
	}
	return string(text), stampOf(&st), nil
}

// current returns the state of the file as it is, which a stat proves. Errors are logged, once for each version.
func (r *Resolver) current() *state {
	st := r.state.Load()
	if r.path == "" || st.fresh(r.path) {
		return st
	}
	r.reading.Lock()
	defer r.reading.Unlock()
	old := r.state.Load()
	if old != st && old.fresh(r.path) { // somebody else has read it meanwhile
		return old
	}
	next := r.read(old)
	if next.err != nil && (old.err == nil || next.err.Error() != old.err.Error()) {
		for _, one := range each(next.err) {
			r.log.Error("aliases stay as they were", "error", one)
		}
	}
	return next
}

func (st *state) fresh(path string) bool {
	var now unix.Stat_t
	err := unix.Stat(path, &now)
	return err == nil && stampOf(&now) == st.seen && !st.racy
}

// read looks at the file and makes what it finds the state: the last version without errors, and what is wrong
// with this one. Who calls it holds reading.
func (r *Resolver) read(old *state) *state {
	next := *old
	text, seen, err := readFile(r.path)
	next.seen = seen
	switch {
	case err != nil: // perhaps a passing one, too many open files: try again
		next.err, next.racy, next.stale = err, true, true
	default:
		next.racy = seen.young(r.now())
		if text == old.last && !old.stale {
			break
		}
		var aliases table
		aliases, next.err = parseAliases(r.path, text, old.rules.Domains)
		if next.last, next.stale = text, false; next.err == nil {
			next.aliases, next.good, next.told = aliases, text, new(sync.Map)
			r.log.Info("aliases read", "path", r.path, "aliases", len(aliases))
		}
	}
	r.state.Store(&next)
	return &next
}

// Reload reads the file of aliases now, changed or not. It returns the errors of the file, all at once, or why it
// could not be read; the last version without errors holds then. Targets that are no users are logged.
func (r *Resolver) Reload() error {
	if r.path == "" {
		return nil
	}
	r.reading.Lock()
	defer r.reading.Unlock()
	old := r.state.Load()
	forced := *old
	forced.stale = true
	next := r.read(&forced)
	if next.err != nil {
		return next.err
	}
	r.tellNobodies(next)
	return nil
}

// Reconfigure changes the rules, or nothing if they are wrong or the file of aliases has errors by them.
func (r *Resolver) Reconfigure(rules Rules) error {
	rules, err := rules.check()
	if err != nil {
		return err
	}
	r.reading.Lock()
	defer r.reading.Unlock()
	next := *r.state.Load()
	next.rules = rules
	if next.aliases != nil {
		if next.aliases, err = parseAliases(r.path, next.good, rules.Domains); err != nil {
			return err
		}
	}
	next.told = new(sync.Map)
	next.racy, next.stale = true, true // what was wrong with a version since may be right now
	r.state.Store(&next)
	return nil
}

// tellNobodies logs the targets that are no users, before mail for them comes.
func (r *Resolver) tellNobodies(st *state) {
	for _, a := range st.aliases {
		for _, t := range a.targets {
			if t.to != nil {
				continue
			}
			s := search{Resolver: r, state: st, ctx: context.Background()}
			if found, err := s.target(t.address); !found && err == nil {
				_ = s.nobody(t) // logs it
			}
		}
	}
}

// each returns the errors that were joined, or the one.
func each(err error) []error {
	var many interface{ Unwrap() []error }
	if errors.As(err, &many) {
		return many.Unwrap()
	}
	return []error{err}
}
