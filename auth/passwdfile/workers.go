package passwdfile

import (
	"context"
	"net/netip"
	"runtime"
	"slices"
	"sync"

	"dewey/auth"
)

// workers bound the hashes that run at once, and their memory. Who waits is served in turns between
// networks (auth.Network), so that one that has many waiting does not keep another out: that waits for
// as many hashes as there are networks before it, however many each has. Those from where logins have failed
// lately (auth.Suspect) have a queue of their own: a flood from many addresses does not keep out who comes from
// elsewhere.
type workers struct {
	total int64 // permits

	mu     sync.Mutex
	free   int64
	queues [2]queue // the second one is of suspects
	served int      // from the first one since the second one
}

// share is how many are served from the first queue for each of the second, if both wait.
const share = 8

// A queue is of lines, the next one first; none is empty.
type queue []*line

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
	if len(w.queues[0])+len(w.queues[1]) == 0 && w.free >= permits {
		w.free -= permits
		w.mu.Unlock()
		return nil
	}
	j := &job{permits: permits, ready: make(chan struct{})}
	q := &w.queues[0]
	if auth.Suspect(ctx) {
		q = &w.queues[1]
	}
	i := slices.IndexFunc(*q, func(l *line) bool { return l.net == net })
	if i < 0 {
		i = len(*q)
		*q = append(*q, &line{net: net})
	}
	(*q)[i].jobs = append((*q)[i].jobs, j)
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
		for _, l := range *q {
			l.jobs = slices.DeleteFunc(l.jobs, func(o *job) bool { return o == j })
		}
		*q = slices.DeleteFunc(*q, func(l *line) bool { return len(l.jobs) == 0 })
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
	for {
		first, suspects := &w.queues[0], &w.queues[1]
		q := first
		if len(*first) == 0 || len(*suspects) > 0 && w.served >= share {
			q = suspects
		}
		if len(*q) == 0 || (*q)[0].jobs[0].permits > w.free {
			return
		}
		if w.served++; q == suspects {
			w.served = 0
		}
		l := (*q)[0]
		j := l.jobs[0]
		w.free -= j.permits
		j.granted = true
		close(j.ready)
		*q = slices.Delete(*q, 0, 1)
		if l.jobs = slices.Delete(l.jobs, 0, 1); len(l.jobs) > 0 {
			*q = append(*q, l)
		}
	}
}
