package maildir

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"runtime/debug"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"dewey/store/maildir/uidlist"
)

const (
	// mostAtWork is how many jobs of a Store are at work at a time, mostJobs how many there are: of a large removal that
	// finds more nothing is left for later.
	mostAtWork = 4
	mostJobs   = 64
	// mostLooks is how often a job looks for files that are not where they were.
	mostLooks = 10
	// strikeWait is how long a job waits for others who write the list: nobody waits for it.
	strikeWait = 10 * time.Second
)

// A job unlinks the files of messages that are gone and then strikes their records. It does not need the lock of the
// Maildir: sessions pass these messages over. All it does goes by descriptors that were opened under that lock.
type job struct {
	*box
	dirs  [2]int // by folder
	files []goneFile
}

func (b *box) newJob() (_ *job, err error) {
	bound, err := b.bind()
	if err != nil {
		return nil, err
	}
	j := &job{box: bound, dirs: [2]int{-1, -1}}
	for _, f := range []folder{inNew, inCur} {
		if j.dirs[f], _, err = j.openFolder(f); err != nil {
			j.close()
			return nil, err
		}
	}
	return j, nil
}

func (j *job) close() {
	for _, fd := range j.dirs {
		if fd >= 0 {
			_ = unix.Close(fd)
		}
	}
	j.unbind()
}

// finish does the job. What can't be unlinked stays as it is, hidden.
func (j *job) finish(ctx context.Context, files []goneFile) error {
	done := make(map[uint32]string, len(files)) // base names, by uid
	away := map[string]*goneFile{}              // not where they were, or with other names perhaps
	failed := 0
	var first error
	try := func(g *goneFile, p place) {
		more, err := j.unlink(g, p)
		delete(away, g.stem)
		switch {
		case err != nil:
			failed++
			first = cmp.Or(first, err)
		case more:
			away[g.stem] = g
		default:
			done[g.uid] = g.stem
		}
	}
	for i := range files {
		if g := &files[i]; g.unlinked {
			done[g.uid] = g.stem
		} else {
			try(g, g.place)
		}
	}
	for range mostLooks {
		if len(away) == 0 {
			break
		}
		now, err := j.whereabouts(ctx)
		if err != nil {
			return err
		}
		before := len(away)
		for base, g := range maps.Clone(away) {
			if p, here := now.places[base]; here {
				try(g, p)
			} else if now.settled {
				delete(away, base)
				done[g.uid] = base
			}
		}
		if len(away) == before {
			time.Sleep(now.pause)
		}
	}
	var errs []error
	if failed += len(away); failed > 0 {
		errs = append(errs, fmt.Errorf("%d removed messages are still on the disk, and hidden: %w", failed, cmp.Or(first, errMoving)))
	}
	if len(done) == 0 {
		return errors.Join(errs...)
	}
	for _, f := range []folder{inNew, inCur} {
		err := j.failing("sync", j.file(f.String()))
		if err == nil {
			err = again(func() error { return unix.Fsync(j.dirs[f]) })
		}
		if err != nil {
			return errors.Join(append(errs, fmt.Errorf("fsync %s: %w", j.file(f.String()), err))...)
		}
	}
	return errors.Join(append(errs, j.strike(ctx, done))...)
}

// unlink removes a name of a message. more says that there may be others. Another message under its name stays.
func (j *job) unlink(g *goneFile, p place) (more bool, err error) {
	if p.name == "" {
		return true, nil
	}
	path := j.file(p.in.String() + "/" + p.name)
	if err := j.failing("unlink later", path); err != nil {
		return false, fmt.Errorf("unlink %s: %w", path, err)
	}
	var st unix.Stat_t
	err = unix.Fstatat(j.dirs[p.in], p.name, &st, unix.AT_SYMLINK_NOFOLLOW)
	if err == nil {
		if !g.mark.of(&st) {
			return false, nil // trap 24
		}
		err = j.uncount(j.dirs[p.in], p, &st, func() error { return unix.Unlinkat(j.dirs[p.in], p.name, 0) })
	}
	switch {
	case errors.Is(err, unix.ENOENT):
		return true, nil
	case err != nil:
		return false, fmt.Errorf("unlink %s: %w", path, err)
	}
	return st.Nlink > 1, nil
}

// strike strikes the records of messages whose files are gone: another message under their names is a new one (trap 24).
func (j *job) strike(ctx context.Context, done map[uint32]string) error {
	_, err := j.update(ctx, strikeWait, func(l *listFile) bool {
		before := len(l.Records)
		l.Records = slices.DeleteFunc(l.Records, func(rec uidlist.Record) bool {
			base, ok := done[rec.UID]
			_, gone := goneRecord(&rec)
			return ok && gone && rec.Base == base
		})
		return len(l.Records) < before
	})
	return err
}

// Jobs are those of a Store: one for each Maildir at a time. The zero value is ready for use.
type jobs struct {
	mu     sync.Mutex
	byID   map[fileID]*jobQueue
	work   chan struct{} // full: mostAtWork are at work
	queued int
}

// A jobQueue has the jobs of a Maildir.
type jobQueue struct {
	jobs []*job
	idle chan struct{} // closed when all are done
}

// crowded says that no more should be begun.
func (s *jobs) crowded() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.queued >= mostJobs
}

// busy says that a Maildir has one.
func (s *jobs) busy(id fileID) bool { return s.idle(id) != nil }

// idle is closed when a Maildir's are done; nil if it has none.
func (s *jobs) idle(id fileID) chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	if q := s.byID[id]; q != nil {
		return q.idle
	}
	return nil
}

// begin has a job done, after the others of its Maildir, and closes it.
func (s *jobs) begin(j *job) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.byID == nil {
		s.byID, s.work = map[fileID]*jobQueue{}, make(chan struct{}, mostAtWork)
	}
	s.queued++
	q := s.byID[j.id]
	if q == nil {
		q = &jobQueue{idle: make(chan struct{})}
		s.byID[j.id] = q
		go s.run(j.id, q)
	}
	q.jobs = append(q.jobs, j)
}

// run does the jobs of a Maildir until there are none.
func (s *jobs) run(id fileID, q *jobQueue) {
	s.work <- struct{}{}
	defer func() { <-s.work }()
	for {
		s.mu.Lock()
		if len(q.jobs) == 0 {
			delete(s.byID, id)
			close(q.idle)
			s.mu.Unlock()
			return
		}
		j := q.jobs[0]
		q.jobs = q.jobs[1:]
		s.mu.Unlock()
		j.do()
		s.mu.Lock()
		s.queued--
		s.mu.Unlock()
	}
}

// do does a job. Its errors are for who looks at the log: the next who opens the Maildir tries again.
func (j *job) do() {
	defer j.close()
	defer func() { // nobody else would catch it
		if p := recover(); p != nil {
			j.log.Error("panic while removed messages were unlinked", "panic", p, "stack", string(debug.Stack()))
		}
	}()
	if err := j.finish(context.Background(), j.files); err != nil {
		j.log.Error("a large removal was answered, and is not finished: the next session tries again", "error", err)
	}
}

// Finish waits for what large removals have left to be done: QUIT is answered when it is durable that messages are gone,
// their files are unlinked after that. What is not finished when ctx ends is done when somebody opens the Maildir again.
func (s *Store) Finish(ctx context.Context) error {
	for {
		s.jobs.mu.Lock()
		var idle chan struct{}
		for _, q := range s.jobs.byID {
			idle = q.idle
		}
		s.jobs.mu.Unlock()
		if idle == nil {
			return nil
		}
		select {
		case <-idle:
		case <-ctx.Done():
			return fmt.Errorf("removed messages are still on the disk, and hidden: %w", ctx.Err())
		}
	}
}
