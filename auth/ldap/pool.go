package ldap

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	goldap "github.com/go-ldap/ldap/v3"
)

// A kind of connection is what it is used for. One that proves users is never one that searches: whoever it was bound as last,
// the next request is a bind.
type kind int

const (
	searching kind = iota
	proving
)

const (
	maxIdle = time.Minute      // a connection that was not used for so long is not used again
	pause   = time.Second      // a server that failed is not asked for so long
	rest    = 30 * time.Second // nor for so long, if there is one that works
)

var (
	errTimeout = errors.New("the timeout is over")
	errSlow    = errors.New("the server is slow")
	errClosed  = errors.New("closed")
)

// A pool keeps connections, at most as many as it has slots, busy and idle ones together.
type pool struct {
	servers []*server
	timeout time.Duration
	greet   func(context.Context, *conn) error // what a new connection that searches begins with
	slots   chan struct{}                      // one for each busy connection

	closing context.Context // ends with Close
	end     context.CancelCauseFunc

	mu   sync.Mutex
	idle []*conn // the last used one at the end
}

func newPool(servers []*server, connections int, timeout time.Duration, greet func(context.Context, *conn) error) *pool {
	p := &pool{servers: servers, timeout: timeout, greet: greet, slots: make(chan struct{}, connections)}
	p.closing, p.end = context.WithCancelCause(context.Background())
	return p
}

// begin bounds a call by the timeout and by close.
func (p *pool) begin(ctx context.Context) (context.Context, func()) {
	ctx, cancel := context.WithTimeoutCause(ctx, p.timeout, errTimeout)
	ctx, closed := context.WithCancelCause(ctx)
	stop := context.AfterFunc(p.closing, func() { closed(errClosed) })
	return ctx, func() { stop(); closed(nil); cancel() }
}

// do calls f with a connection to the first server that does its duty; f may be called again with another one if that is
// lost. Other errors of f are answers, and returned as they are.
func (p *pool) do(ctx context.Context, k kind, f func(context.Context, *conn) error) error {
	select {
	case p.slots <- struct{}{}:
		defer func() { <-p.slots }()
	case <-ctx.Done():
		return fmt.Errorf("all %d connections are busy: %w", cap(p.slots), context.Cause(ctx))
	}
	servers, err := p.candidates()
	if err != nil {
		return err
	}
	var faults error
	for i, s := range servers {
		if ctx.Err() != nil {
			break
		}
		err := p.try(ctx, s, len(servers)-i, k, f)
		if !failure(err) {
			return err
		}
		faults = and(faults, fmt.Errorf("%s: %w", s.url, err))
	}
	if faults == nil {
		return context.Cause(ctx)
	}
	return faults
}

// and puts two errors on one line.
func and(one, other error) error {
	if one == nil {
		return other
	}
	return fmt.Errorf("%w; %w", one, other)
}

// failure says whether another server might do better: RFC 4511 appendix A.2 has the codes of one that can't.
func failure(err error) bool {
	var gone lost
	return errors.As(err, &gone) || goldap.IsErrorAnyOf(err, goldap.LDAPResultBusy, goldap.LDAPResultUnavailable)
}

// try asks one server, which gets its share of the time that is left, if others are left.
func (p *pool) try(ctx context.Context, s *server, left int, k kind, f func(context.Context, *conn) error) error {
	start := time.Now()
	if deadline, ok := ctx.Deadline(); ok && left > 1 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithDeadlineCause(ctx, start.Add(deadline.Sub(start)/time.Duration(left)), errSlow)
		defer cancel()
	}
	for again := false; ; again = true {
		c, kept, err := p.get(ctx, s, k, again)
		if err == nil {
			err = f(ctx, c)
		}
		switch {
		case !failure(err):
			p.put(c)
			return err
		case c != nil:
			c.close()
		}
		if kept && ctx.Err() == nil && !errors.Is(err, errLong) { // it went stale: the server was started again, say
			p.forget(s)
			continue
		}
		// Who is slow is known only if he had time, and not when the caller has gone. A long entry is its user's affair.
		cause := context.Cause(ctx)
		slow := (errors.Is(cause, errTimeout) || errors.Is(cause, errSlow)) && time.Since(start) >= p.timeout/time.Duration(4*len(p.servers))
		if (cause == nil || slow) && !errors.Is(err, errLong) {
			p.fail(s, err)
		}
		return err
	}
}

// candidates returns the servers to ask, in order: those that work, then those that failed, but for those that did just now.
func (p *pool) candidates() ([]*server, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	var good, again []*server
	var faults error
	now := time.Now()
	for _, s := range p.servers {
		switch since := now.Sub(s.failed); {
		case s.failed.IsZero() || since >= rest:
			good = append(good, s)
		case since >= pause:
			again = append(again, s)
		default:
			faults = and(faults, fmt.Errorf("%s: failed within the last second: %w", s.url, s.err))
		}
	}
	if slices.ContainsFunc(good, func(s *server) bool { return s.failed.IsZero() }) {
		for _, s := range good {
			if !s.failed.IsZero() {
				s.failed = now // one call finds out whether it is back
			}
		}
	}
	list := append(good, again...)
	if len(list) == 0 {
		return nil, faults
	}
	return list, nil
}

// get returns a connection that was kept, unless a fresh one is wanted, or a new one.
func (p *pool) get(ctx context.Context, s *server, k kind, fresh bool) (c *conn, kept bool, err error) {
	p.mu.Lock()
	var old []*conn
	for i := len(p.idle) - 1; i >= 0 && c == nil; i-- {
		switch o := p.idle[i]; {
		case time.Since(o.used) > maxIdle || o.lib.IsClosing():
			old = append(old, o)
		case o.server == s && o.kind == k && !fresh:
			c = o
		default:
			continue
		}
		p.idle = slices.Delete(p.idle, i, i+1)
	}
	if over := len(p.slots) + len(p.idle) - cap(p.slots); c == nil && over > 0 { // room for a new one
		over = min(over, len(p.idle))
		old = append(old, p.idle[:over]...)
		p.idle = slices.Delete(p.idle, 0, over)
	}
	p.mu.Unlock()
	for _, o := range old {
		o.close()
	}
	if c != nil {
		return c, true, nil
	}
	if c, err = s.dial(ctx, k); err != nil || k != searching {
		return c, false, err
	}
	if err := p.greet(ctx, c); err != nil {
		c.close()
		return nil, false, lost{err}
	}
	return c, false, nil
}

// put keeps a connection for the next call.
func (p *pool) put(c *conn) {
	p.mu.Lock()
	c.server.failed, c.server.err = time.Time{}, nil
	if keep := p.closing.Err() == nil; keep {
		c.used = time.Now()
		p.idle = append(p.idle, c)
		p.mu.Unlock()
		return
	}
	p.mu.Unlock()
	c.close()
}

// fail notes that a server failed.
func (p *pool) fail(s *server, err error) {
	p.mu.Lock()
	s.failed, s.err = time.Now(), err
	p.mu.Unlock()
	p.forget(s)
}

// forget closes the idle connections to a server; nil: to all.
func (p *pool) forget(s *server) {
	p.mu.Lock()
	var old []*conn
	p.idle = slices.DeleteFunc(p.idle, func(c *conn) bool {
		if s == nil || c.server == s {
			old = append(old, c)
			return true
		}
		return false
	})
	p.mu.Unlock()
	for _, c := range old {
		c.close()
	}
}

// close ends the calls that are under way, and waits for them.
func (p *pool) close() {
	p.end(errClosed)
	for range cap(p.slots) {
		p.slots <- struct{}{}
	}
	for range cap(p.slots) {
		<-p.slots
	}
	p.forget(nil)
}
