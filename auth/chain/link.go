package chain

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime/debug"
	"sync/atomic"
	"time"

	"dewey/auth"
)

// A link is a Backend at work.
type link struct {
	Backend
	log     *slog.Logger
	slots   chan struct{} // one for each call that is under way
	others  chan struct{} // the same of those who were not proven where they come from: a quarter is not for them
	line    atomic.Int64  // calls that wait for a slot
	down    atomic.Bool   // the last answer was that it can't tell
	counted counters
	memory  *memory
}

func newLink(b Backend, log *slog.Logger, old *set) *link {
	if b.Timeout <= 0 {
		b.Timeout = DefaultTimeout
	}
	if b.Calls <= 0 {
		b.Calls = DefaultCalls
	}
	l := &link{Backend: b, log: log, slots: make(chan struct{}, b.Calls), others: make(chan struct{}, b.Calls-b.Calls/4), memory: newMemory(b)}
	if old == nil {
		return l
	}
	for _, o := range old.links {
		if o.Name == b.Name && o.Fingerprint == b.Fingerprint && o.RememberOutage == b.RememberOutage {
			l.memory = o.memory
			l.down.Store(o.down.Load())
		}
	}
	return l
}

var errBusy = errors.New("too many are waiting for this backend")

// bounded calls a backend. One that does not answer is left to itself when the time has come, and keeps its slot until
// it returns.
func bounded[T any](ctx context.Context, s *set, l *link, answer func(context.Context) (T, error)) (none T, err error) {
	if l.Local {
		return answer(ctx)
	}
	limited, cancel := context.WithTimeoutCause(ctx, l.Timeout, fmt.Errorf("no answer in %v", l.Timeout))
	defer cancel()
	leave, err := l.enter(limited)
	if err != nil {
		return none, err
	}
	type result struct {
		got      T
		err      error
		panicked any
	}
	done, left := make(chan result), make(chan struct{})
	defer close(left)
	s.more()
	go func() {
		var r result
		defer func() {
			r.panicked = recover()
			leave()
			select {
			case done <- r:
			case <-left:
				if r.panicked != nil { // nobody else says so
					l.log.Error("panic in an auth backend", "backend", l.Name, "panic", r.panicked, "stack", string(debug.Stack()))
				}
			}
			s.release()
		}()
		r.got, r.err = answer(limited)
	}()
	select {
	case r := <-done:
		if r.panicked != nil {
			panic(r.panicked) // the caller's: it has a session to end by it
		}
		return r.got, r.err
	case <-limited.Done():
		return none, context.Cause(limited) //nolint:wrapcheck // our own, or the caller's
	}
}

// enter waits for a slot, which leave gives back.
func (l *link) enter(ctx context.Context) (leave func(), err error) {
	defer l.line.Add(-1)
	waiting := l.line.Add(1) > int64(l.Calls) // no more may
	stages := []chan struct{}{l.slots}
	if auth.StandingOf(ctx) != auth.Proven {
		stages = []chan struct{}{l.others, l.slots}
	}
	leave = func() {}
	for _, stage := range stages {
		err := take(ctx, stage, waiting)
		if err != nil {
			leave()
			return nil, err
		}
		before := leave
		leave = func() {
			<-stage
			before()
		}
	}
	return leave, nil
}

func take(ctx context.Context, slots chan struct{}, now bool) error {
	select {
	case slots <- struct{}{}:
		return nil
	default:
	}
	if now {
		return errBusy
	}
	select {
	case slots <- struct{}{}:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("%w: %w", errBusy, context.Cause(ctx))
	}
}

// An Outcome is what became of a question.
type Outcome int

// The outcomes.
const (
	Accepted   Outcome = iota
	Rejected           // it knows the user, and says no
	Unknown            // it has no such user
	Failed             // it can't tell
	Remembered         // it can't tell, and a login of before was taken for it
	Skipped            // it was not asked
)

var outcomes = [...]string{"accepted", "rejected", "unknown", "could not tell", "remembered", "not asked"}

func (o Outcome) String() string { return outcomes[o] }

func outcomeOf(err error) Outcome {
	switch {
	case err == nil:
		return Accepted
	case errors.Is(err, auth.ErrUnknownUser):
		return Unknown
	case errors.Is(err, auth.ErrRejected):
		return Rejected
	}
	return Failed
}

// An Answer is what a backend has said, for who wants to see all of them: see Trace.
type Answer struct {
	Backend, Kind string
	User          string // the name; empty with a token
	Asked         string // "password", "recipient", "name", "authorize", "secret" or "token"
	Outcome       Outcome
	Identity      auth.Identity // if it was accepted or remembered
	Err           error         // of the backend itself
	Reason        string        // why it was skipped
	Took          time.Duration
}

type traceKey struct{}

// Trace returns a context with which each backend's answer is told, in the order in which they are asked.
func Trace(ctx context.Context, f func(Answer)) context.Context {
	return context.WithValue(ctx, traceKey{}, f)
}

func tell(ctx context.Context, a Answer) {
	if f, ok := ctx.Value(traceKey{}).(func(Answer)); ok {
		f(a)
	}
}

// counters are what a backend has answered since it was listed.
type counters struct {
	outcomes [Skipped]atomic.Int64
	took     atomic.Int64 // nanoseconds in all
	longest  atomic.Int64
}

// note counts an answer, and logs when a backend begins and ends to be unable to tell. A caller who gave up says
// nothing of the backend.
func (l *link) note(ctx context.Context, a Answer) {
	if a.Outcome == Failed && ctx.Err() != nil {
		return
	}
	l.counted.outcomes[a.Outcome].Add(1)
	l.counted.took.Add(int64(a.Took))
	for old := l.counted.longest.Load(); int64(a.Took) > old && !l.counted.longest.CompareAndSwap(old, int64(a.Took)); {
		old = l.counted.longest.Load()
	}
	failed := a.Outcome == Failed
	if l.down.Swap(failed) == failed {
		return
	}
	if failed {
		l.log.Warn("an auth backend can't tell", "backend", l.Name, "asked", a.Asked, "error", a.Err)
	} else {
		l.log.Info("the auth backend answers again", "backend", l.Name)
	}
}

// Stats is what a backend has answered since it was listed, or since the last reload.
type Stats struct {
	Backend, Kind                                   string
	Accepted, Rejected, Unknown, Failed, Remembered int64
	Mean, Longest                                   time.Duration // of an answer
}

// Stats returns what each backend has answered, in the order in which they are asked.
func (c *Chain) Stats() []Stats { return c.set.Load().stats() }

func (s *set) stats() []Stats {
	list := make([]Stats, len(s.links))
	for i, l := range s.links {
		n := func(o Outcome) int64 { return l.counted.outcomes[o].Load() }
		t := Stats{
			Backend: l.Name, Kind: l.Kind, Accepted: n(Accepted), Rejected: n(Rejected), Unknown: n(Unknown), Failed: n(Failed), Remembered: n(Remembered),
			Longest: time.Duration(l.counted.longest.Load()),
		}
		if all := t.Accepted + t.Rejected + t.Unknown + t.Failed; all > 0 {
			t.Mean = time.Duration(l.counted.took.Load() / all)
		}
		list[i] = t
	}
	return list
}

// report logs the Stats of those who were asked at all.
func (s *set) report(log *slog.Logger) {
	for _, t := range s.stats() {
		if t.Accepted+t.Rejected+t.Unknown+t.Failed == 0 {
			continue
		}
		log.Info("auth backend", "backend", t.Backend, "kind", t.Kind, "accepted", t.Accepted, "rejected", t.Rejected, "unknown", t.Unknown,
			"could_not_tell", t.Failed, "remembered", t.Remembered, "mean", t.Mean.Round(time.Microsecond), "longest", t.Longest.Round(time.Microsecond))
	}
}
