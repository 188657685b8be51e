package passwdfile

import (
	"context"
	"net/netip"
	"runtime"
	"slices"
	"sync"
)

// workers bound the hashes that run at once, and their memory. Who waits is served in turns between
// networks (auth.Network), so that one that has many waiting does not keep another out: that waits for
// as many hashes as there are networks before it, however many each has.
type workers struct {
	total int64 // permits

	mu    sync.Mutex
	free  int64
	lines []*line // the next one first; none is empty
}

// A line is who waits from one network, first come first.
type line struct {
	net  netip.Prefix
	jobs []*job
}

type job struct {
	permits int64
	granted bool
	ready   chan struct{} // closed when granted
}

// newWorkers leaves a quarter of the processors, one at the least, to those who are logged in; if there
// is but one, Go's scheduler shares it.
func newWorkers() *workers {
	processors := runtime.GOMAXPROCS(0)
	total := int64(max(1, processors-max(1, processors/4)))
	return &workers{total: total, free: total}
}

// acquire waits for permits, as many as there are at the most. Who gets them has to release them.
func (w *workers) acquire(ctx context.Context, net netip.Prefix, permits int64) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	w.mu.Lock()
	if len(w.lines) == 0 && w.free >= permits {
		w.free -= permits
		w.mu.Unlock()
		return nil
	}
	j := &job{permits: permits, ready: make(chan struct{})}
	i := slices.IndexFunc(w.lines, func(l *line) bool { return l.net == net })
	if i < 0 {
		i = len(w.lines)
		w.lines = append(w.lines, &line{net: net})
	}
	w.lines[i].jobs = append(w.lines[i].jobs, j)
	w.mu.Unlock()

	select {
	case <-j.ready:
		return nil
	case <-ctx.Done():
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if j.granted {
		w.free += permits
	} else {
		for _, l := range w.lines {
			l.jobs = slices.DeleteFunc(l.jobs, func(o *job) bool { return o == j })
		}
		w.lines = slices.DeleteFunc(w.lines, func(l *line) bool { return len(l.jobs) == 0 })
	}
	w.grant()
	return ctx.Err()
}

func (w *workers) release(permits int64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.free += permits
	w.grant()
}

// grant serves those whose turn it is. One who needs more than is free holds up all: else he would never
// get it.
func (w *workers) grant() {
	for len(w.lines) > 0 && w.lines[0].jobs[0].permits <= w.free {
		l := w.lines[0]
		j := l.jobs[0]
		w.free -= j.permits
		j.granted = true
		close(j.ready)
		w.lines = slices.Delete(w.lines, 0, 1)
		if l.jobs = slices.Delete(l.jobs, 0, 1); len(l.jobs) > 0 {
			w.lines = append(w.lines, l)
		}
	}
}
