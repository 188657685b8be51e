package scheme

import (
	"context"
	"net/netip"
	"runtime"
	"slices"
	"sync"

	"dewey/auth"
)

// Workers bound the hashes that run at once, and their memory. Many goroutines may use them. Who waits is served in turns between
// networks (auth.Network), so that one that has many waiting does not keep another out: that waits for
// as many hashes as there are networks before it, however many each has. Each auth.Standing has a queue of its
// own: a flood from many addresses keeps out neither who is known where he comes from, nor, once they have
// failed, who comes from elsewhere.
type Workers struct {
	total int64 // permits

	mu     sync.Mutex
	free   int64
	queues [3]queue // by standing, the best one first
	passed [3]int   // how many were served before each since its own turn
}

// share is how many of better standing are served before one of a worse.
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

// NewWorkers leaves a quarter of the processors, one at the least, to those who are logged in; if there
// is but one, Go's scheduler shares it.
func NewWorkers() *Workers {
	processors := runtime.GOMAXPROCS(0)
	total := int64(max(1, processors-max(1, processors/4)))
	return &Workers{total: total, free: total}
}

// permit is the memory that one permit to hash stands for.
const permit = 64 << 20

// Run calls compute, which runs the hash for an attempt from that address, when its turn has come. The error is
// compute's, or that of ctx if it ended first.
func (w *Workers) Run(ctx context.Context, remote netip.Addr, h Hash, compute func() error) error {
	if h.Threads > 0 {
		permits := min(max((h.Memory+permit-1)/permit, int64(h.Threads)), w.total)
		if err := w.acquire(ctx, auth.Network(remote), permits); err != nil {
			return err
		}
		defer w.release(permits)
	}
	return compute()
}

// acquire waits for permits, as many as there are at the most. Who gets them has to release them.
func (w *Workers) acquire(ctx context.Context, net netip.Prefix, permits int64) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	w.mu.Lock()
	if w.idle() && w.free >= permits {
		w.free -= permits
		w.mu.Unlock()
		return nil
	}
	j := &job{permits: permits, ready: make(chan struct{})}
	q := &w.queues[auth.StandingOf(ctx)-auth.Proven]
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

func (w *Workers) release(permits int64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.free += permits
	w.grant()
}

// idle says that nobody waits.
func (w *Workers) idle() bool { return w.next() < 0 }

// next returns which queue has the turn: the best one, or a worse one that was passed over often enough; -1
// if nobody waits.
func (w *Workers) next() int {
	best := slices.IndexFunc(w.queues[:], func(q queue) bool { return len(q) > 0 })
	for i := best + 1; best >= 0 && i < len(w.queues); i++ {
		if len(w.queues[i]) > 0 && w.passed[i] >= share {
			return i
		}
	}
	return best
}

// grant serves those whose turn it is. One who needs more than is free holds up all: else he would never
// get it.
func (w *Workers) grant() {
	for i := w.next(); i >= 0 && w.queues[i][0].jobs[0].permits <= w.free; i = w.next() {
		w.passed[i] = 0
		for worse := i + 1; worse < len(w.queues); worse++ {
			w.passed[worse]++
		}
		l := w.queues[i][0]
		j := l.jobs[0]
		w.free -= j.permits
		j.granted = true
		close(j.ready)
		w.queues[i] = slices.Delete(w.queues[i], 0, 1)
		if l.jobs = slices.Delete(l.jobs, 0, 1); len(l.jobs) > 0 {
			w.queues[i] = append(w.queues[i], l)
		}
	}
}
