package bench

import (
	"cmp"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"
)

// A Progress is how a run goes, for a live line.
type Progress struct {
	Elapsed   time.Duration
	Unit      string // what Units counts
	Units     int64
	PerSecond float64 // of Units, since the last time
	P99       time.Duration
	Faults    int64
}

// A Result is what came out of a run. The names of JSON's fields have their units; octets are of messages as LIST
// counts them.
type Result struct {
	Workload    string    `json:"workload"`
	Address     string    `json:"address"`
	TLS         string    `json:"tls"`
	Auth        string    `json:"auth,omitempty"`
	Resume      bool      `json:"resume"`
	Connections int       `json:"connections"`
	Users       int       `json:"users"`
	TargetRate  float64   `json:"target_rate_per_second,omitempty"`
	Began       time.Time `json:"began"`
	Elapsed     float64   `json:"elapsed_seconds"`
	Interrupted bool      `json:"interrupted"` // it is of part of the run

	Counts []Count `json:"counts"`

	Latency []Latency    `json:"latency"`
	Idle    *Idle        `json:"idle,omitempty"`
	Agreed  []Negotiated `json:"tls_agreed,omitempty"`

	Errors int64   `json:"errors"`
	Kinds  []Fault `json:"error_texts,omitempty"`

	Server    *Server   `json:"server,omitempty"`
	Generator Generator `json:"generator"`
}

// A Count is how much was done: of sessions, messages, octets, commands, deliveries or connections.
type Count struct {
	What      string  `json:"what"`
	Count     int64   `json:"count"`
	PerSecond float64 `json:"per_second"`
	// What the server spent for one, or for 1,000,000,000 octets. Each is of all the server did.
	CPUEach     *float64 `json:"server_cpu_milliseconds_each,omitempty"`
	CPUGigabyte *float64 `json:"server_cpu_milliseconds_per_gigabyte,omitempty"`
}

// A Latency is how long one phase of a session took.
type Latency struct {
	Phase string  `json:"phase"`
	Count int64   `json:"count"`
	Mean  float64 `json:"mean_milliseconds"`
	P50   float64 `json:"p50_milliseconds"`
	P90   float64 `json:"p90_milliseconds"`
	P99   float64 `json:"p99_milliseconds"`
	P999  float64 `json:"p99_9_milliseconds"`
	Max   float64 `json:"max_milliseconds"`
}

// Idle is of connections that were held.
type Idle struct {
	Opened           float64  `json:"opened_in_seconds"`
	Held             float64  `json:"held_seconds"`
	Lost             int64    `json:"lost"`
	OctetsEach       *float64 `json:"proportional_octets_per_connection,omitempty"`
	CPUWhileHeld     *float64 `json:"server_cpu_seconds_while_held,omitempty"`
	PrivateOctetEach *float64 `json:"private_octets_per_connection,omitempty"`
}

// A Negotiated is what TLS was agreed on, by so many connections.
type Negotiated struct {
	Version string `json:"version"`
	Cipher  string `json:"cipher"`
	Curve   string `json:"curve,omitempty"`
	Resumed bool   `json:"resumed"`
	Count   int64  `json:"connections"`
}

// A Fault is a text and how often it came.
type Fault struct {
	Text  string `json:"text"`
	Count int64  `json:"count"`
}

// A Server is what its processes cost.
type Server struct {
	CPU             float64  `json:"cpu_seconds"`
	User            float64  `json:"cpu_user_seconds"`
	System          float64  `json:"cpu_system_seconds"`
	ProcessesBefore int      `json:"processes_before"`
	ProcessesAfter  int      `json:"processes_after"`
	ResidentPeak    int64    `json:"resident_peak_octets"` // once a second; pages that are shared count for each
	Before          *Memory  `json:"memory_before,omitempty"`
	After           *Memory  `json:"memory_after,omitempty"` // for idle: with all connections open
	Notes           []string `json:"notes,omitempty"`
}

// A Generator is what this program itself spent.
type Generator struct {
	CPUSeconds float64 `json:"cpu_seconds"`
}

func milliseconds(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

func (r *run) result(interrupted bool) *Result {
	o := r.o
	res := &Result{
		Workload: r.w.name, Address: o.Address, TLS: cmp.Or(o.TLS, Plain), Auth: o.Auth, Resume: o.Resume, Connections: o.Connections,
		Users: len(o.Users), TargetRate: o.Rate, Began: r.began.UTC(), Elapsed: r.elapsed.Seconds(), Interrupted: interrupted, Errors: r.faults.Load(),
		Latency: []Latency{},
	}
	if !o.Watch.empty() {
		res.Server = r.server()
	}
	seconds := r.elapsed
	if r.w.work == nil {
		seconds = r.opened
		res.Idle = r.held(res.Server)
	}
	count := func(what string, n int64) {
		if n == 0 && what != r.w.unit || slices.ContainsFunc(res.Counts, func(c Count) bool { return c.What == what }) {
			return
		}
		c := Count{What: what, Count: n, PerSecond: float64(n) / max(seconds.Seconds(), 1e-9)}
		if res.Server != nil && n > 0 {
			cpu := res.Server.CPU * 1000 / float64(n)
			c.CPUEach = &cpu
			if what == "octets" {
				gigabyte := cpu * 1e9
				c.CPUEach, c.CPUGigabyte = nil, &gigabyte
			}
		}
		res.Counts = append(res.Counts, c)
	}
	count(r.w.unit, r.units.Load())
	count("sessions", r.sessions.Load())
	count("messages", r.messages.Load())
	count("octets", r.octets.Load())
	for _, phase := range r.w.phases {
		if h := r.hist[phase]; h.Count() > 0 {
			q := func(q float64) float64 { return milliseconds(h.Quantile(q)) }
			res.Latency = append(res.Latency, Latency{phase, h.Count(), milliseconds(h.Mean()), q(0.5), q(0.9), q(0.99), q(0.999), milliseconds(h.Max())})
		}
	}
	for n, connections := range r.tls {
		n.Count = connections
		res.Agreed = append(res.Agreed, n)
	}
	slices.SortFunc(res.Agreed, func(a, b Negotiated) int { return cmp.Compare(b.Count, a.Count) })
	for _, text := range slices.Sorted(maps.Keys(r.kinds)) {
		res.Kinds = append(res.Kinds, Fault{text, r.kinds[text]})
	}
	return res
}

// server sums up what the server's processes did.
func (r *run) server() *Server {
	after, err := r.o.Watch.quiet()
	user, system, lost := spent(r.before, after)
	s := &Server{
		CPU: (user + system).Seconds(), User: user.Seconds(), System: system.Seconds(), ProcessesBefore: len(r.before),
		ProcessesAfter: len(after), ResidentPeak: max(r.peak, after.resident()), Before: r.memory[0],
	}
	if r.memory[1] == nil {
		r.memory[1] = after.memory()
	}
	s.After = r.memory[1]
	if err != nil {
		s.Notes = append(s.Notes, "at the end "+err.Error())
	}
	if lost > 0 {
		s.Notes = append(s.Notes, fmt.Sprintf("%d processes ended whose parent is not watched: the CPU time has a part of theirs missing", lost))
	}
	if s.Before == nil || s.After == nil {
		s.Notes = append(s.Notes, "smaps_rollup can't be read: no proportional and private memory; try it as root")
	}
	return s
}

func (r *run) held(s *Server) *Idle {
	i := &Idle{Opened: r.opened.Seconds(), Held: r.hold.Seconds(), Lost: r.lost}
	if s == nil {
		return i
	}
	cpu := r.holdCPU.Seconds()
	i.CPUWhileHeld = &cpu
	if n := float64(r.units.Load()); n > 0 && s.Before != nil && s.After != nil {
		shared, private := float64(s.After.Proportional-s.Before.Proportional)/n, float64(s.After.Private-s.Before.Private)/n
		i.OctetsEach, i.PrivateOctetEach = &shared, &private
	}
	return i
}

// Write prints the result for people.
func (res *Result) Write(w io.Writer) error {
	var b strings.Builder
	fmt.Fprintf(&b, "%s %s, %s, %d connections, %d users, %.2f s", res.Workload, res.Address, res.TLS, res.Connections, res.Users, res.Elapsed)
	if res.TargetRate > 0 {
		fmt.Fprintf(&b, ", %g/s asked for", res.TargetRate)
	}
	if res.Interrupted {
		b.WriteString(", INTERRUPTED: of part of the run")
	}
	b.WriteString("\n\n")
	for _, c := range res.Counts {
		fmt.Fprintf(&b, "%-12s %14d %14.1f/s", c.What, c.Count, c.PerSecond)
		if c.CPUGigabyte != nil {
			fmt.Fprintf(&b, "   server CPU %10.1f ms/GB", *c.CPUGigabyte)
		} else if c.CPUEach != nil {
			fmt.Fprintf(&b, "   server CPU %10.4f ms each", *c.CPUEach)
		}
		b.WriteString("\n")
	}
	if len(res.Latency) > 0 {
		fmt.Fprintf(&b, "\n%-12s %10s %10s %10s %10s %10s %10s\n", "milliseconds", "mean", "p50", "p90", "p99", "p99.9", "max")
	}
	for _, l := range res.Latency {
		fmt.Fprintf(&b, "%-12s %10.3f %10.3f %10.3f %10.3f %10.3f %10.3f\n", l.Phase, l.Mean, l.P50, l.P90, l.P99, l.P999, l.Max)
	}
	b.WriteString("\n")
	if i := res.Idle; i != nil {
		fmt.Fprintf(&b, "opened in %.2f s, held %.2f s, lost %d\n", i.Opened, i.Held, i.Lost)
		if i.OctetsEach != nil {
			fmt.Fprintf(&b, "server memory %.0f octets a connection (PSS), %.0f of them private; CPU while held %.2f s\n", *i.OctetsEach, *i.PrivateOctetEach, *i.CPUWhileHeld)
		}
	}
	for _, n := range res.Agreed {
		resumed := "new"
		if n.Resumed {
			resumed = "resumed"
		}
		fmt.Fprintf(&b, "%d connections: %s, %s, %s, %s\n", n.Count, n.Version, n.Cipher, cmp.Or(n.Curve, "no curve"), resumed)
	}
	if s := res.Server; s != nil {
		fmt.Fprintf(&b, "server: CPU %.2f s (user %.2f, system %.2f), processes %d before, %d after, resident %.1f MB at most\n",
			s.CPU, s.User, s.System, s.ProcessesBefore, s.ProcessesAfter, float64(s.ResidentPeak)/1e6)
		if s.Before != nil && s.After != nil {
			fmt.Fprintf(&b, "server: memory (PSS) %.1f MB before, %.1f MB after\n", float64(s.Before.Proportional)/1e6, float64(s.After.Proportional)/1e6)
		}
		for _, note := range s.Notes {
			fmt.Fprintf(&b, "server: note: %s\n", note)
		}
	}
	fmt.Fprintf(&b, "this program: CPU %.2f s\n", res.Generator.CPUSeconds)
	if res.Errors > 0 {
		fmt.Fprintf(&b, "errors: %d\n", res.Errors)
		for _, k := range res.Kinds {
			fmt.Fprintf(&b, "%8d  %s\n", k.Count, k.Text)
		}
	}
	_, err := io.WriteString(w, b.String())
	return err //nolint:wrapcheck // the caller knows w
}
