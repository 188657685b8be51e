package main

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"

	"dewey/bench"
)

// A metric is one figure of a result.
type metric struct {
	unit string
	of   func(*bench.Result) *float64
}

func count(r *bench.Result, what string) *bench.Count {
	for i := range r.Counts {
		if r.Counts[i].What == what {
			return &r.Counts[i]
		}
	}
	return nil
}

// cpuOf is the server's CPU time for each of what is counted.
func cpuOf(what string) metric {
	return metric{"ms CPU", func(r *bench.Result) *float64 {
		if c := count(r, what); c != nil {
			return c.CPUEach
		}
		return nil
	}}
}

func rateOf(what string) metric {
	return metric{"/s", func(r *bench.Result) *float64 {
		if c := count(r, what); c != nil {
			return &c.PerSecond
		}
		return nil
	}}
}

// timeOf is the median of a phase.
func timeOf(phase string) metric {
	return metric{"s", func(r *bench.Result) *float64 {
		for _, l := range r.Latency {
			if l.Phase == phase {
				seconds := l.P50 / 1000
				return &seconds
			}
		}
		return nil
	}}
}

func mebi(octets int64) *float64 {
	v := float64(octets) / (1 << 20)
	return &v
}

var (
	eachIdle = metric{"KiB", func(r *bench.Result) *float64 {
		if r.Idle == nil || r.Idle.OctetsEach == nil {
			return nil
		}
		v := *r.Idle.OctetsEach / 1024
		return &v
	}}
	before = metric{"MiB", func(r *bench.Result) *float64 {
		if r.Server == nil || r.Server.Before == nil {
			return nil
		}
		return mebi(r.Server.Before.Proportional)
	}}
	after = metric{"MiB", func(r *bench.Result) *float64 {
		if r.Server == nil || r.Server.After == nil {
			return nil
		}
		return mebi(r.Server.After.Proportional)
	}}
	peak = metric{"MiB", func(r *bench.Result) *float64 {
		if r.Server == nil {
			return nil
		}
		return mebi(r.Server.ResidentPeak)
	}}
)

// A row is one of the table.
type row struct {
	work, job string
	metric    metric
	goal      float64
	least     bool // the goal is what must be reached, not a bound
	absolute  bool // the goal is of dewey's own figure, not of its part of Dovecot's
}

func (r *record) rows() []row {
	c := r.Scale
	cpu := cpuOf("messages")
	idle := fmt.Sprintf("idle-%d-", c.IdleRow)
	return []row{
		{work: "poll, 10 messages", job: "poll-10", metric: cpuOf("sessions"), goal: 0.17},
		{work: "poll, " + thousands(c.Middle) + " messages", job: "poll-1000", metric: cpuOf("sessions"), goal: 0.11},
		{work: "poll, 10 messages, TLS, new handshakes", job: "poll-10-tls", metric: cpuOf("sessions"), goal: 0.28},
		{work: "RETR " + octets(c.Big), job: "retr-5M-plain", metric: cpu, goal: 0.25},
		{work: "RETR " + octets(c.Big) + ", TLS", job: "retr-5M-tls", metric: cpu, goal: 0.16},
		{work: "RETR 20 kB", job: "retr-20k-plain", metric: cpu, goal: 0.30},
		{work: "RETR 20 kB, TLS", job: "retr-20k-tls", metric: cpu, goal: 0.17},
		{work: "RETR 2 kB, pipelined", job: "retr-2k-pipelined", metric: cpu, goal: 0.35},
		{work: thousands(c.Large) + " messages, warm: login to the end of UIDL", job: "large-warm", metric: timeOf("open"), goal: 0.08},
		{work: thousands(c.Large) + " messages, first sight, names with S= and W=: the same", job: "large-names", metric: timeOf("open"), goal: 0.4},
		{work: thousands(c.Large) + " messages of 2 kB, first sight, sizes unknown: the same", job: "large-sizes", metric: timeOf("open"), goal: 0.5},
		{work: "remove " + thousands(c.Removed) + " messages: pipelined DELE, QUIT, durable", job: "remove", metric: timeOf("update"), goal: 0.5},
		{work: "LMTP, 10 kB, 16 connections, synced: deliveries", job: "deliver", metric: rateOf("deliveries"), goal: 4, least: true},
		{work: "the same: one delivery", job: "deliver", metric: cpuOf("deliveries"), goal: 0.2},
		{work: "an idle session, logged in (of " + thousands(c.IdleRow) + ")", job: idle + "plain", metric: eachIdle, goal: 9, absolute: true},
		{work: "an idle session, logged in, TLS (of " + thousands(c.IdleRow) + ")", job: idle + "tls", metric: eachIdle, goal: 22, absolute: true},
		{work: "resident with nothing connected", job: idle + "plain", metric: before, goal: 30, absolute: true},
	}
}

// thousands writes a number with commas.
func thousands(n int) string {
	text := strconv.Itoa(n)
	for i := len(text) - 3; i > 0; i -= 3 {
		text = text[:i] + "," + text[i:]
	}
	return text
}

func octets(n int) string {
	if n >= 1_000_000 {
		return fmt.Sprintf("%d MB", n/1_000_000)
	}
	return fmt.Sprintf("%d kB", n/1000)
}

func (r *record) measurement(key string) *measurement {
	for _, m := range r.Measurements {
		if m.Key == key {
			return m
		}
	}
	return nil
}

// values are a server's figures, in the order of its turns.
func (r *record) values(job, server string, m metric) (list []float64) {
	found := r.measurement(job)
	if found == nil {
		return nil
	}
	for _, result := range found.Results[server] {
		if v := m.of(result); v != nil {
			list = append(list, *v)
		}
	}
	return list
}

func median(list []float64) float64 {
	if len(list) == 0 {
		return math.NaN()
	}
	list = slices.Sorted(slices.Values(list))
	return (list[(len(list)-1)/2] + list[len(list)/2]) / 2
}

// ratio returns dewey's part of Dovecot's median, and the least and the most of the pairs; NaN: there is none.
func (r *record) ratio(w row) (middle, least, most float64) {
	of, part := r.values(w.job, "dovecot", w.metric), r.values(w.job, "dewey", w.metric)
	least, most = math.Inf(1), math.Inf(-1)
	for i := range min(len(of), len(part)) {
		least, most = min(least, part[i]/of[i]), max(most, part[i]/of[i])
	}
	return median(part) / median(of), least, most
}

// met says if the goal is: NaN is never.
func (r *record) met(w row) bool {
	v, _, _ := r.ratio(w)
	if w.absolute {
		v = median(r.values(w.job, "dewey", w.metric))
	}
	return w.least && v >= w.goal || !w.least && v <= w.goal
}

func figure(v float64, unit string) string {
	switch {
	case math.IsNaN(v) || math.IsInf(v, 0):
		return "–"
	case unit == "":
		return significant(v)
	}
	return significant(v) + strings.Replace(" "+unit, " /", "/", 1)
}

func significant(v float64) string {
	switch a := math.Abs(v); {
	case a >= 1000:
		return thousands(int(math.Round(v)))
	case a >= 100:
		return strconv.FormatFloat(v, 'f', 0, 64)
	case a >= 10:
		return strconv.FormatFloat(v, 'f', 1, 64)
	case a >= 1:
		return strconv.FormatFloat(v, 'f', 2, 64)
	}
	return strconv.FormatFloat(v, 'f', 3, 64)
}

// Table is the report's, in Markdown.
func (r *record) Table() string {
	var b strings.Builder
	b.WriteString("| work | Dovecot | Courier | dewey | dewey / Dovecot | goal | |\n| --- | ---: | ---: | ---: | ---: | ---: | --- |\n")
	for _, w := range r.rows() {
		fmt.Fprintf(&b, "| %s ", w.work)
		for _, server := range []string{"dovecot", "courier", "dewey"} {
			cell := figure(median(r.values(w.job, server, w.metric)), w.metric.unit)
			if m := r.measurement(w.job); m != nil && m.Failed[server] != "" {
				cell = "failed"
			}
			fmt.Fprintf(&b, "| %s ", cell)
		}
		middle, least, most := r.ratio(w)
		ratio := figure(middle, "")
		if !math.IsNaN(middle) {
			ratio += fmt.Sprintf(" (%s–%s)", significant(least), significant(most))
		}
		goal := "≤ " + significant(w.goal)
		if w.least {
			goal = "≥ " + significant(w.goal)
		}
		if w.absolute {
			goal = "≤ " + strconv.FormatFloat(w.goal, 'f', -1, 64) + " " + w.metric.unit
		}
		verdict := "met"
		if m := r.measurement(w.job); m == nil {
			verdict = "not run"
		} else if !r.met(w) {
			verdict = "**not met**"
		}
		fmt.Fprintf(&b, "| %s | %s | %s |\n", ratio, goal, verdict)
	}
	return b.String()
}

// Small says that the run was not for figures.
func (r *record) Small() bool { return r.Scale.Name != full.Name }

// Commands are those of the jobs, with what differs between servers left out.
func (r *record) Commands() string {
	var b strings.Builder
	for _, m := range r.Measurements {
		fmt.Fprintf(&b, "    %-18s %s\n", m.Key, m.Command)
	}
	return b.String()
}

// Faults are what failed, and what the measuring itself complained of.
func (r *record) Faults() (list []string) {
	for _, m := range r.Measurements {
		for name, why := range m.Failed {
			list = append(list, fmt.Sprintf("%s, %s: %s", m.Key, name, strings.ReplaceAll(why, "\n", " ")))
		}
		for name, results := range m.Results {
			for _, result := range results {
				if result.Server == nil {
					continue
				}
				for _, note := range result.Server.Notes {
					list = append(list, fmt.Sprintf("%s, %s: %s", m.Key, name, note))
				}
			}
		}
	}
	slices.Sort(list)
	return slices.Compact(list)
}

// Setup is a server's settings as a block of code.
func (i identity) Setup() string {
	return "    " + strings.ReplaceAll(strings.TrimSpace(cmp.Or(i.Settings, "(defaults)")), "\n", "\n    ")
}
