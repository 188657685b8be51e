package bench

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// A workload is one kind of load.
type workload struct {
	name    string
	unit    string   // what is counted
	phases  []string // whose latencies are measured
	shown   string   // the phase of the live line
	lmtp    bool
	batches bool // Depth says something
	buffer  int  // octets that are read at once
	once    bool // each user has one session in all
	work    func(r *run, ctx context.Context, s *slot)
}

const small, large = 16 << 10, 128 << 10

var workloads = []workload{
	{name: "poll", unit: "sessions", phases: []string{"connect", "login", "uidl", "session"}, shown: "session", buffer: small, work: sessions((*run).poll)},
	{name: "open", unit: "sessions", phases: []string{"connect", "login", "uidl", "open", "session"}, shown: "open", buffer: large, work: sessions((*run).open)},
	{name: "fetch", unit: "messages", phases: []string{"connect", "login", "retr", "session"}, shown: "retr", buffer: large, work: sessions((*run).fetch)},
	{name: "pipeline", unit: "commands", phases: []string{"connect", "login", "batch", "session"}, shown: "batch", buffer: large, batches: true, work: sessions((*run).pipeline)},
	{name: "update", unit: "messages", phases: []string{"connect", "login", "update", "session"}, shown: "update", buffer: small, batches: true, once: true, work: sessions((*run).update)},
	{name: "idle", unit: "connections", phases: []string{"connect", "login", "open"}, shown: "open", buffer: 1 << 10},
	{name: "deliver", unit: "deliveries", phases: []string{"connect", "message"}, shown: "message", lmtp: true, buffer: small, work: (*run).deliver},
}

// A run is a workload under way.
type run struct {
	o        *Options
	w        *workload
	began    time.Time
	hist     map[string]*Histogram
	units    atomic.Int64 // of w.unit
	sessions atomic.Int64
	messages atomic.Int64 // listed, fetched, removed or delivered
	octets   atomic.Int64
	faults   atomic.Int64
	tickets  atomic.Int64
	dials    atomic.Uint64
	mails    atomic.Uint64
	due      chan time.Time // when a session of an open loop is due
	free     chan int       // users without a session
	stopping chan struct{}
	stop     func() // closes stopping
	cut      context.CancelFunc
	letter   *letter

	mu    sync.Mutex
	kinds map[string]int64
	first error
	tls   map[Negotiated]int64

	elapsed time.Duration
	opened  time.Duration // idle: until all connections were open
	lost    int64         // idle: connections that did not last
	hold    time.Duration // idle
	holdCPU time.Duration // idle: of the server, meanwhile
	before  sample
	memory  [2]*Memory // before; and behind the load, or with all connections open
	peak    int64      // resident octets
}

// Run does one workload: "poll", "open", "fetch", "pipeline", "update", "idle" or "deliver". When ctx ends, connections
// are cut, and what was measured so far is returned, marked as interrupted. The error is the first fault, which ends
// the run, or, with KeepGoing, that nothing was measured; there is a Result beside it. The Result is nil if the Options
// can't be run, there is no such process, or the warm-up failed.
func Run(ctx context.Context, name string, o Options) (*Result, error) {
	var w *workload
	for i := range workloads {
		if workloads[i].name == name {
			w = &workloads[i]
		}
	}
	if w == nil {
		return nil, fmt.Errorf("there is no workload %q", name)
	}
	if err := o.check(w); err != nil {
		return nil, err
	}
	if o.Warmup > 0 && !w.once && w.work != nil {
		warm := o
		warm.Duration, warm.Count, warm.Live = o.Warmup, 0, nil
		r := newRun(&warm, w)
		r.load(ctx)
		if r.first != nil && !o.KeepGoing {
			return nil, fmt.Errorf("warm-up: %w", r.first)
		}
	}
	r := newRun(&o, w)
	var err error
	if !o.Watch.empty() {
		if r.before, err = o.Watch.quiet(); err != nil {
			return nil, err
		}
		r.memory[0] = r.before.memory()
	}
	generator := ownTime()
	r.load(ctx)
	result := r.result(ctx.Err() != nil)
	result.Generator.CPUSeconds = (ownTime() - generator).Seconds()
	switch {
	case r.first != nil && !o.KeepGoing:
		return result, r.first
	case r.units.Load() == 0 && ctx.Err() == nil:
		return result, errors.Join(fmt.Errorf("nothing was measured: no %s", w.unit), r.first)
	}
	return result, nil
}

func newRun(o *Options, w *workload) *run {
	r := &run{
		o: o, w: w, hist: make(map[string]*Histogram), due: make(chan time.Time), stopping: make(chan struct{}),
		free: make(chan int, len(o.Users)), kinds: make(map[string]int64), tls: make(map[Negotiated]int64),
	}
	r.stop = sync.OnceFunc(func() { close(r.stopping) })
	for _, p := range w.phases {
		r.hist[p] = new(Histogram)
	}
	for i := range o.Users {
		r.free <- i
	}
	if w.lmtp {
		r.letter = newLetter(o.Size)
	}
	return r
}

// load runs the workload to its end.
func (r *run) load(ctx context.Context) {
	ctx, r.cut = context.WithCancel(ctx)
	defer r.cut()
	r.began = time.Now()
	done := make(chan struct{})
	var aside, workers sync.WaitGroup
	aside.Go(func() { r.look(done) })
	if r.w.work == nil {
		r.idle(ctx)
	} else {
		if r.o.Duration > 0 {
			defer time.AfterFunc(r.o.Duration, r.stop).Stop()
		}
		defer context.AfterFunc(ctx, r.stop)()
		if r.o.Rate > 0 {
			aside.Go(r.pace)
		}
		for range r.o.Connections {
			workers.Go(func() { r.w.work(r, ctx, newSlot(r.o, r.w.buffer)) })
		}
		workers.Wait()
	}
	r.elapsed = time.Since(r.began)
	r.stop()
	close(done)
	aside.Wait()
}

// look tells how it goes, and looks at the server's memory.
func (r *run) look(done chan struct{}) {
	ticker := time.NewTicker(500 * time.Millisecond)
	defer ticker.Stop()
	last, lastTime := int64(0), r.began
	for n := 1; ; n++ {
		select {
		case <-done:
			return
		case <-ticker.C:
		}
		if r.o.Live != nil {
			now, units := time.Now(), r.units.Load()
			r.o.Live(Progress{
				Elapsed: now.Sub(r.began), Unit: r.w.unit, Units: units, Faults: r.faults.Load(),
				PerSecond: float64(units-last) / now.Sub(lastTime).Seconds(), P99: r.hist[r.w.shown].Quantile(0.99),
			})
			last, lastTime = units, now
		}
		if n%2 == 0 && !r.o.Watch.empty() {
			if s, err := r.o.Watch.read(); err == nil {
				r.seen(s)
			}
		}
	}
}

// seen notes the most memory so far.
func (r *run) seen(s sample) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.peak = max(r.peak, s.resident())
}

// pace says when sessions are due. It sleeps in the kernel: the runtime's timers may be a millisecond late.
func (r *run) pace() {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	const longest = 20 * time.Millisecond // to see the end
	for i := 0; ; i++ {
		due := r.began.Add(time.Duration(float64(i) / r.o.Rate * float64(time.Second)))
		for left := time.Until(due); left > 0; left = time.Until(due) {
			nap := syscall.NsecToTimespec(int64(min(left, longest)))
			_ = syscall.Nanosleep(&nap, nil) // interrupted: it is looked at again
			select {
			case <-r.stopping:
				return
			default:
			}
		}
		select {
		case r.due <- due:
		case <-r.stopping:
			return
		}
	}
}

// next waits until another session, or message to deliver, is due, and says whether there is one. Its latency counts
// from when it was due, also if there was no connection free: else a slow server would hide its own queue.
func (r *run) next() (due time.Time, ok bool) {
	if r.stopped() {
		return due, false
	}
	if n := r.tickets.Add(1); r.o.Count > 0 && n > r.o.Count {
		return due, false
	}
	if r.o.Rate == 0 {
		return time.Now(), true
	}
	select {
	case due = <-r.due:
		return due, true
	case <-r.stopping:
		return due, false
	}
}

func (r *run) stopped() bool {
	select {
	case <-r.stopping:
		return true
	default:
		return false
	}
}

// fault counts one, and ends the run or waits a little: what answers with nothing but faults is asked slowly.
func (r *run) fault(ctx context.Context, err error) {
	const kinds, pause = 20, 100 * time.Millisecond
	if ctx.Err() != nil {
		return // we have cut it
	}
	r.faults.Add(1)
	r.mu.Lock()
	if r.first == nil {
		r.first = err
	}
	kind := err.Error()
	if own := (*replyError)(nil); errors.As(err, &own) {
		kind = own.kind()
	}
	if _, there := r.kinds[kind]; !there && len(r.kinds) >= kinds {
		kind = "others"
	}
	r.kinds[kind]++
	r.mu.Unlock()
	if !r.o.KeepGoing {
		r.cut()
		return
	}
	select {
	case <-time.After(pause):
	case <-r.stopping:
	}
}

// negotiated notes what TLS was agreed on.
func (r *run) negotiated(state tls.ConnectionState) {
	n := Negotiated{Version: tls.VersionName(state.Version), Cipher: tls.CipherSuiteName(state.CipherSuite), Resumed: state.DidResume}
	if state.CurveID != 0 {
		n.Curve = state.CurveID.String()
	}
	r.mu.Lock()
	r.tls[n]++
	r.mu.Unlock()
}

// ownTime is the CPU time that this process has used.
func ownTime() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
