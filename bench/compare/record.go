package main

import (
	"embed"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"time"
)

// A record is all of a run; the report is made of it alone.
type record struct {
	Began        string         `json:"began"` // the day
	Took         string         `json:"took"`
	Interrupted  bool           `json:"interrupted,omitempty"` // only what was done until then is here
	Command      string         `json:"command"`
	Pairs        int            `json:"pairs"`
	Scale        scale          `json:"scale"`
	Note         string         `json:"note,omitempty"`
	Machine      machine        `json:"machine"`
	Servers      []identity     `json:"servers"`
	Absent       []string       `json:"absent,omitempty"`
	Measurements []*measurement `json:"measurements"`
}

// A machine is where it ran. Its name is nobody's affair.
type machine struct {
	CPU        string `json:"cpu"`
	Cores      int    `json:"cores"`
	Memory     string `json:"memory"`
	Kernel     string `json:"kernel"`
	System     string `json:"system"`
	FileSystem string `json:"file_system"`
	Go         string `json:"go"`
}

type identity struct {
	Name     string `json:"name"`
	Version  string `json:"version"`
	Settings string `json:"settings"`
}

func (e *environment) newRecord() *record {
	r := &record{
		Began: time.Now().UTC().Format(time.DateOnly), Command: e.command, Pairs: e.pairs, Scale: e.scale, Absent: e.absent,
		Machine: machine{
			CPU: field("/proc/cpuinfo", "model name"), Cores: runtime.NumCPU(), Memory: fmt.Sprintf("%.0f GiB", float64(memoryKB("MemTotal:"))/(1<<20)),
			System: strings.Trim(field("/etc/os-release", "PRETTY_NAME"), `"`), FileSystem: fileSystem(e.dir), Go: runtime.Version(),
		},
	}
	if kernel, err := os.ReadFile("/proc/sys/kernel/osrelease"); err == nil {
		r.Machine.Kernel = "Linux " + strings.TrimSpace(string(kernel))
	}
	for _, s := range e.servers {
		r.Servers = append(r.Servers, identity{s.name, s.version, s.settings})
	}
	return r
}

// with is the record with what a later run on the same machine has measured in the place of its own.
func (r *record) with(later *record) *record {
	all := *later
	all.Began, all.Took, all.Command = r.Began, r.Took+" and "+later.Took, r.Command+"; "+later.Command
	all.Note, all.Measurements = r.Note, nil
	took := make(map[string]bool)
	for _, m := range later.Measurements {
		took[m.Key] = true
	}
	for _, m := range r.Measurements {
		if !took[m.Key] {
			all.Measurements = append(all.Measurements, m)
		}
	}
	all.Measurements = append(all.Measurements, later.Measurements...)
	return &all
}

// field finds the first line "name: value" or "name=value" of a file.
func field(path, name string) string {
	data, err := os.ReadFile(path)
	if err != nil {
		return "unknown"
	}
	for line := range strings.Lines(string(data)) {
		if rest, ok := strings.CutPrefix(line, name); ok {
			return strings.TrimSpace(strings.TrimLeft(rest, " \t:="))
		}
	}
	return "unknown"
}

func memoryKB(name string) (kB int) {
	_, _ = fmt.Sscan(field("/proc/meminfo", name), &kB) // 0 if it is not told
	return kB
}

// fileSystem is the kind and the options of the mount that a folder lies in.
func fileSystem(dir string) string {
	data, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		return "unknown"
	}
	var at syscall.Stat_t
	if err := syscall.Stat(dir, &at); err != nil {
		return "unknown"
	}
	found := "unknown"
	for line := range strings.Lines(string(data)) {
		f := strings.Fields(line)
		var mount syscall.Stat_t
		if len(f) > 3 && syscall.Stat(f[1], &mount) == nil && mount.Dev == at.Dev {
			found = f[2] + " (" + strings.ReplaceAll(f[3], ",", ", ") + ")"
		}
	}
	return found
}

func readRecord(path string) (*record, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("--from: %w", err)
	}
	r := new(record)
	if err := json.Unmarshal(data, r); err != nil {
		return nil, fmt.Errorf("--from %s: %w", path, err)
	}
	return r, nil
}

//go:embed report.md
var templates embed.FS

// write writes the report, its plots and the results. The error says which jobs failed, too.
func (r *record) write(out string) error {
	plots := filepath.Join(out, "benchmarks")
	if err := os.MkdirAll(plots, 0o755); err != nil { //nolint:gosec // documents
		return fmt.Errorf("the report: %w", err)
	}
	text, err := templates.ReadFile("report.md")
	if err != nil {
		return fmt.Errorf("the report: %w", err)
	}
	report, err := fill(string(text), r)
	if err != nil {
		return err
	}
	data, err := json.MarshalIndent(r, "", " ")
	if err != nil {
		return fmt.Errorf("the results: %w", err)
	}
	files := map[string]string{filepath.Join(out, "BENCHMARKS.md"): report, filepath.Join(plots, "results.json"): string(data) + "\n"}
	files[filepath.Join(plots, "ratios.svg")] = r.ratioPlot()
	for _, c := range r.curves() {
		files[filepath.Join(plots, c.file)] = c.svg()
	}
	for path, content := range files {
		if err := os.WriteFile(path, []byte(content), 0o644); err != nil { //nolint:gosec // documents
			return fmt.Errorf("the report: %w", err)
		}
	}
	var failed error
	for _, m := range r.Measurements {
		for name, why := range m.Failed {
			failed = errors.Join(failed, fmt.Errorf("%s of %s: %s", m.Key, name, why))
		}
	}
	return failed
}
