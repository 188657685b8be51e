package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"dewey/bench"
)

// A measurement is what came out of one job: of each server a result for each turn.
type measurement struct {
	Key     string                     `json:"job"`
	Command string                     `json:"command"`
	Results map[string][]*bench.Result `json:"results"`
	Failed  map[string]string          `json:"failed,omitempty"`
}

// mostIdle is how many idle sessions the machine has room for: in descriptors, of which a session may have two (dewey's
// has its lock), and where each is a process (some 3 MB with the kernel's part of it) in memory and processes.
func (e *environment) mostIdle(processes bool) int {
	most := slices.Max(append(e.scale.Idle, e.scale.IdleRow))
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err == nil {
		most = min(most, int(limit.Cur)/2-500) //nolint:gosec // bounded by the kernel
	}
	if processes {
		const eachKB = 3 << 10
		most = min(most, memoryKB("MemAvailable:")/2/eachKB)
		if pids, err := os.ReadFile("/proc/sys/kernel/pid_max"); err == nil {
			var n int
			if _, err := fmt.Sscan(string(pids), &n); err == nil {
				most = min(most, n/4)
			}
		}
	}
	return most
}

// measure runs all jobs. If ctx ends, the record has those that were done.
func (e *environment) measure(ctx context.Context) (*record, error) {
	r := e.newRecord()
	for _, j := range e.jobs() {
		if len(e.rows) > 0 && !slices.Contains(e.rows, j.group) {
			continue
		}
		m := &measurement{Key: j.key, Results: make(map[string][]*bench.Result), Failed: make(map[string]string)}
		pairs := e.pairs
		if j.curve {
			pairs = min(pairs, 3)
		}
		for round := 1; round <= pairs; round++ {
			if err := e.ready(ctx, &j, m, round); err != nil {
				return r, err
			}
			for _, s := range e.servers {
				if m.Failed[s.name] != "" || !e.can(&j, s) {
					continue
				}
				begun := time.Now()
				result, command, err := e.turn(ctx, &j, s, round)
				if ctx.Err() != nil {
					return r, fmt.Errorf("interrupted: %w", ctx.Err())
				}
				if err != nil {
					m.Failed[s.name] = strings.ReplaceAll(err.Error(), e.dir, "DIR")
					e.say("%-20s %d/%d %-8s FAILED: %v", j.key, round, pairs, s.name, err)
					continue
				}
				m.Command = command
				m.Results[s.name] = append(m.Results[s.name], result)
				e.say("%-20s %d/%d %-8s %s (%.1f s)", j.key, round, pairs, s.name, brief(result), time.Since(begun).Seconds())
			}
		}
		r.Measurements = append(r.Measurements, m)
	}
	return r, nil
}

// can says if a server is able to do a job.
func (e *environment) can(j *job, s *server) bool {
	return (!j.lmtp || s.lmtp != "") && j.connected <= e.mostIdle(s.sessionsAreProcess)
}

// ready makes a round's data for all servers, shows it to them, and lets it grow old.
func (e *environment) ready(ctx context.Context, j *job, m *measurement, round int) error {
	shown := false
	for _, s := range e.servers {
		if m.Failed[s.name] != "" || !e.can(j, s) || s.primed[j.key] && !j.anew {
			continue
		}
		err := errors.Join(j.prepare(s, round), s.start())
		s.primed[j.key] = true
		if err == nil && j.prime != nil && !j.restart {
			_, err = e.bench(ctx, j.prime(s, round))
			shown = true
		}
		if err != nil && ctx.Err() == nil {
			m.Failed[s.name] = strings.ReplaceAll(err.Error(), e.dir, "DIR")
			e.say("%-20s %d %-8s FAILED: %v", j.key, round, s.name, err)
		}
	}
	settle()
	pause := time.Duration(0)
	if shown {
		pause = e.scale.Pause
	}
	select {
	case <-time.After(pause):
		return nil
	case <-ctx.Done():
		return fmt.Errorf("interrupted: %w", ctx.Err())
	}
}

// turn is one server's, in one round.
func (e *environment) turn(ctx context.Context, j *job, s *server, round int) (*bench.Result, string, error) {
	if j.restart {
		s.stop()
		if err := s.start(); err != nil {
			return nil, "", err
		}
		if j.prime != nil {
			if _, err := e.bench(ctx, j.prime(s, round)); err != nil {
				return nil, "", err
			}
		}
	}
	load := j.load(s, round)
	pids := s.pids(slices.Contains(load, "--tls"))
	args := join(load, pids)
	result, err := e.bench(ctx, args)
	if err == nil {
		err = agreed(result)
	}
	if j.after != nil {
		err = errors.Join(err, j.after(s, round))
	}
	return result, e.shown(s, load), err
}

// bench runs `dewey bench`.
func (e *environment) bench(ctx context.Context, args []string) (*bench.Result, error) {
	cmd := exec.CommandContext(ctx, e.load, join([]string{"bench"}, args, []string{"--json"})...) //nolint:gosec // our own
	cmd.Env = append(os.Environ(), "DEWEY_BENCH_PASSWORD="+password)
	cmd.Dir = e.dir
	var out, complaints bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &complaints
	if err := cmd.Run(); err != nil {
		return nil, fmt.Errorf("dewey bench %s: %w: %s", args[0], err, bytes.TrimSpace(complaints.Bytes()))
	}
	result := new(bench.Result)
	if err := json.Unmarshal(out.Bytes(), result); err != nil {
		return nil, fmt.Errorf("dewey bench %s --json: %w", args[0], err)
	}
	return result, nil
}

// agreed holds TLS against what all are to use.
func agreed(r *bench.Result) error {
	for _, n := range r.Agreed {
		if n.Version != "TLS 1.3" || n.Cipher != "TLS_AES_128_GCM_SHA256" || n.Curve != "X25519" || n.Resumed {
			return fmt.Errorf("%s, %s, %s (resumed: %v) is not the TLS that is compared", n.Version, n.Cipher, n.Curve, n.Resumed)
		}
	}
	return nil
}

// shown is a command as the report has it.
func (e *environment) shown(s *server, args []string) string {
	line := "dewey bench " + strings.Join(args, " ") + " --pid PID --json"
	for _, address := range []string{s.pop3, s.pop3s, s.lmtp} {
		if address != "" {
			line = strings.ReplaceAll(line, address, "127.0.0.1:PORT")
		}
	}
	return strings.ReplaceAll(line, filepath.Dir(e.certificate), "DIR")
}

// brief is a result for the log.
func brief(r *bench.Result) string {
	c := r.Counts[0]
	text := fmt.Sprintf("%d %s, %.1f/s", c.Count, c.What, c.PerSecond)
	if c.CPUEach != nil {
		text += fmt.Sprintf(", %.4f ms CPU each", *c.CPUEach)
	}
	if r.Idle != nil && r.Idle.OctetsEach != nil {
		text += fmt.Sprintf(", %.1f KiB each", *r.Idle.OctetsEach/1024)
	}
	if r.Server != nil && len(r.Server.Notes) > 0 {
		text += ", " + strings.Join(r.Server.Notes, "; ")
	}
	return text
}
