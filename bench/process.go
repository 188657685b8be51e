package bench

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// tick is the unit of CPU times in /proc, USER_HZ, which is 100 wherever Go runs on Linux. proc(5).
const tick = 10 * time.Millisecond

// A Watch says whose CPU time and memory is measured: the processes with these ids or names, and all their
// descendants, which are looked for anew each time. This process is never one of them.
type Watch struct {
	PIDs  []int
	Names []string // the kernel's name of the process (15 octets of it), or its executable's
}

func (w *Watch) empty() bool { return len(w.PIDs) == 0 && len(w.Names) == 0 }

// A who is one process for good: ids come again.
type who struct {
	pid   int
	start uint64
}

// A process is what /proc/pid/stat says of one.
type process struct {
	who
	parent        int
	name          string
	user, system  time.Duration // its own, all threads, and that of children which ended and were waited for
	residentPages int64
	inside        bool // its parent is watched too
}

// A sample is the watched processes at one time.
type sample map[who]process

// read takes a sample. Processes that end meanwhile are left out.
func (w *Watch) read() (sample, error) {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil, fmt.Errorf("read the processes: %w", err)
	}
	children := make(map[int][]process)
	var roots []process
	found := make(map[string]bool)
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil || pid == os.Getpid() {
			continue
		}
		p, err := readStat(pid)
		if err != nil {
			continue
		}
		children[p.parent] = append(children[p.parent], p)
		if slices.Contains(w.PIDs, pid) {
			roots = append(roots, p)
			found[strconv.Itoa(pid)] = true
		} else if name := w.named(p); name != "" {
			roots = append(roots, p)
			found[name] = true
		}
	}
	for _, pid := range w.PIDs {
		if !found[strconv.Itoa(pid)] {
			err = errors.Join(err, fmt.Errorf("there is no process %d", pid))
		}
	}
	for _, name := range w.Names {
		if !found[name] {
			err = errors.Join(err, fmt.Errorf("no process is named %q", name))
		}
	}
	s := make(sample)
	var add func(p process)
	add = func(p process) {
		if _, there := s[p.who]; there {
			return
		}
		s[p.who] = p
		for _, child := range children[p.pid] {
			add(child)
		}
	}
	pids := make(map[int]bool)
	for _, p := range roots {
		add(p)
	}
	for id := range s {
		pids[id.pid] = true
	}
	for id, p := range s {
		p.inside = pids[p.parent]
		s[id] = p
	}
	return s, err
}

// named returns the name by which the process is watched, if it is.
func (w *Watch) named(p process) string {
	const commLength = 15
	for _, name := range w.Names {
		if p.name == name[:min(len(name), commLength)] {
			return name
		}
	}
	if exe, err := os.Readlink(fmt.Sprintf("/proc/%d/exe", p.pid)); err == nil {
		if i := slices.Index(w.Names, filepath.Base(strings.TrimSuffix(exe, " (deleted)"))); i >= 0 {
			return w.Names[i]
		}
	}
	return ""
}

// readStat reads /proc/pid/stat; the name in it may have any octets. proc(5).
func readStat(pid int) (p process, err error) {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return p, fmt.Errorf("process %d: %w", pid, err)
	}
	from, to := bytes.IndexByte(data, '('), bytes.LastIndexByte(data, ')')
	if from < 0 || to < from {
		return p, fmt.Errorf("process %d: no name in %q", pid, data)
	}
	fields := strings.Fields(string(data[to+1:])) // the first is the third of proc(5)
	if len(fields) < 22 {
		return p, fmt.Errorf("process %d: %q is too short", pid, data)
	}
	get := func(field int) int64 {
		n, _ := strconv.ParseInt(fields[field-3], 10, 64)
		return n
	}
	return process{
		who:           who{pid, uint64(get(22))},
		parent:        int(get(4)),
		name:          string(data[from+1 : to]),
		user:          time.Duration(get(14)+get(16)) * tick,
		system:        time.Duration(get(15)+get(17)) * tick,
		residentPages: get(24),
	}, nil
}

func (s sample) resident() (octets int64) {
	for _, p := range s {
		octets += p.residentPages * int64(os.Getpagesize())
	}
	return octets
}

// spent returns the CPU time between two samples. Of a process that ended in between, its parent has the time, if
// it is watched and waited for it; lost is how many have no such parent, whose time is not in the sum.
func spent(before, after sample) (user, system time.Duration, lost int) {
	for _, p := range after {
		user, system = user+p.user, system+p.system
	}
	for id, p := range before {
		if _, there := after[id]; !there && !p.inside {
			lost++
			continue
		}
		user, system = user-p.user, system-p.system
	}
	return max(user, 0), max(system, 0), lost
}

// Memory is what processes have in memory, in octets.
type Memory struct {
	Proportional int64 `json:"proportional_octets"` // pages that several share are parted among them: PSS
	Private      int64 `json:"private_octets"`      // in no other process
}

// memory sums up /proc/pid/smaps_rollup; nil if it can't be read for all of them.
func (s sample) memory() *Memory {
	m := new(Memory)
	read := 0
	for id := range s {
		data, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", id.pid))
		if errors.Is(err, os.ErrPermission) {
			return nil
		} else if err != nil {
			continue // it has ended
		}
		read++
		for line := range strings.Lines(string(data)) {
			f := strings.Fields(line)
			if len(f) != 3 || f[2] != "kB" {
				continue
			}
			kB, _ := strconv.ParseInt(f[1], 10, 64)
			switch f[0] {
			case "Pss:":
				m.Proportional += kB << 10
			case "Private_Clean:", "Private_Dirty:":
				m.Private += kB << 10
			}
		}
	}
	if read == 0 {
		return nil
	}
	return m
}

// quiet waits until the processes have done what the load left them to do: no CPU time in a fifth of a second, or
// for 3 seconds at most. It returns the last sample.
func (w *Watch) quiet() (s sample, err error) {
	const step, most = 200 * time.Millisecond, 3 * time.Second
	s, err = w.read()
	for range int(most / step) {
		before := s
		time.Sleep(step)
		if s, err = w.read(); err != nil {
			return s, err
		}
		if user, system, _ := spent(before, s); user+system == 0 && len(before) == len(s) {
			break
		}
	}
	return s, err
}
