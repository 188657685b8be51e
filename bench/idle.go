package bench

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"
)

// idle opens connections, holds them, and looks if all are still served. Held, each costs this process a descriptor
// and what the runtime has for it: no goroutine, no buffer.
func (r *run) idle(ctx context.Context) {
	held := make([]*conn, r.o.Connections)
	defer func() {
		for _, c := range held {
			if c != nil {
				c.close()
			}
		}
	}()
	if r.o.Rate > 0 {
		pacing := make(chan struct{})
		go func() { defer close(pacing); r.pace() }()
		defer func() { r.stop(); <-pacing }()
	}
	defer context.AfterFunc(ctx, r.stop)()
	r.each(held, func(s *slot, i int) {
		due, ok := r.next()
		if !ok {
			return
		}
		c, err := r.settle(ctx, s, i)
		if err != nil {
			r.fault(ctx, err)
			return
		}
		r.hist["open"].Add(time.Since(due))
		held[i] = c
		r.units.Add(1)
	})
	r.opened = time.Since(r.began)
	if ctx.Err() != nil {
		return
	}
	var before, after sample
	if !r.o.Watch.empty() {
		if s, err := r.o.Watch.quiet(); err == nil {
			before = s
			r.memory[1] = s.memory()
			r.seen(s)
		}
	}
	begun := time.Now()
	select {
	case <-time.After(r.o.Duration):
	case <-ctx.Done():
	}
	r.hold = time.Since(begun)
	if before != nil {
		after, _ = r.o.Watch.read() // what is left of them
		user, system, _ := spent(before, after)
		r.holdCPU = user + system
	}
	if ctx.Err() != nil {
		return
	}
	var lost atomic.Int64
	r.each(held, func(s *slot, i int) {
		if held[i] == nil {
			return
		}
		if err := held[i].leave(s, r.o.Login); err != nil {
			lost.Add(1)
			r.fault(ctx, fmt.Errorf("a connection that was held: %w", err))
		} else {
			r.sessions.Add(1)
		}
	})
	r.lost = lost.Load()
}

// each calls f for each connection, some of them at the same time.
func (r *run) each(held []*conn, f func(s *slot, i int)) {
	const workers = 32
	var wg sync.WaitGroup
	var at atomic.Int64
	for range min(workers, len(held)) {
		wg.Go(func() {
			s := newSlot(r.o, r.w.buffer)
			for i := int(at.Add(1)) - 1; i < len(held); i = int(at.Add(1)) - 1 {
				f(s, i)
			}
		})
	}
	wg.Wait()
}

// settle opens connection i and leaves it without a buffer.
func (r *run) settle(ctx context.Context, s *slot, i int) (*conn, error) {
	begun := time.Now()
	c, err := s.greet(ctx, r, r.dials.Add(1))
	if err != nil {
		return nil, err
	}
	r.hist["connect"].Add(time.Since(begun))
	if r.o.Login {
		asked := time.Now()
		if err := c.login(r.o.Auth, r.o.Users[i]); err != nil {
			c.close()
			return nil, err
		}
		r.hist["login"].Add(time.Since(asked))
	}
	c.in, c.out = nil, nil
	return c, nil
}

// leave looks if a connection is still served, and ends it.
func (c *conn) leave(s *slot, loggedIn bool) error {
	c.in, c.out = s.in, s.out[:0]
	c.in.Reset(c.net)
	if loggedIn {
		if _, err := c.command("NOOP"); err != nil {
			return err
		}
	} else if _, err := c.capa(); err != nil {
		return err
	}
	return c.quit()
}
