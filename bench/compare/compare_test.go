package main

import (
	"bytes"
	"context"
	"encoding/xml"
	"errors"
	"io"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// The whole, with as little as can be: all rows are there, each with figures of both servers. What the figures say is
// of no account here.
func TestCompare(t *testing.T) {
	out := t.TempDir()
	var log bytes.Buffer
	o := options{scale: tiny, pairs: 1, peers: []string{"dovecot", "dewey"}, out: out, dir: os.TempDir(), command: "test", log: &log}
	if err := o.run(t.Context()); err != nil {
		t.Fatalf("%v\n%s", err, log.Bytes())
	}
	r, err := readRecord(filepath.Join(out, "benchmarks", "results.json"))
	if err != nil {
		t.Fatal(err)
	}
	report, err := os.ReadFile(filepath.Join(out, "BENCHMARKS.md"))
	if err != nil {
		t.Fatal(err)
	}
	for _, w := range r.rows() {
		if !strings.Contains(string(report), "| "+w.work+" | ") {
			t.Errorf("the report has no row %q", w.work)
		}
		for _, server := range []string{"dovecot", "dewey"} {
			if n := len(r.values(w.job, server, w.metric)); n != 1 {
				t.Errorf("%q: %d figures of %s", w.work, n, server)
			}
		}
	}
	if len(r.rows()) != 17 || len(r.Faults()) > 0 {
		t.Errorf("%d rows, %q\n%s", len(r.rows()), r.Faults(), log.Bytes())
	}
	for _, c := range r.curves() {
		if len(c.lines) < 2 || len(c.lines[0].values) != len(c.places) {
			t.Errorf("%s: %+v", c.file, c.lines)
		}
	}
	plots, _ := filepath.Glob(filepath.Join(out, "benchmarks", "*.svg"))
	for _, path := range plots {
		if !strings.Contains(string(report), filepath.Base(path)) {
			t.Errorf("the report does not show %s", filepath.Base(path))
		}
		data, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		for in := xml.NewDecoder(bytes.NewReader(data)); ; {
			if _, err := in.Token(); errors.Is(err, io.EOF) {
				break
			} else if err != nil {
				t.Fatalf("%s: %v", path, err)
			}
		}
	}
	if len(plots) != 5 {
		t.Errorf("plots: %q", plots)
	}
	host, err := os.Hostname()
	if err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(filepath.Join(out, "benchmarks", "results.json"))
	if err != nil {
		t.Fatal(err)
	}
	for _, secret := range []string{" " + host + " ", o.dir + "/cmp"} {
		if strings.Contains(string(report), secret) || strings.Contains(string(data), secret) {
			t.Errorf("%q is in the report", secret)
		}
	}
}

// A run that is interrupted writes what it has, and says so.
func TestInterrupted(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	out := t.TempDir()
	o := options{
		scale: tiny, pairs: 1, peers: []string{"dovecot", "dewey"}, rows: []string{"poll"}, out: out, dir: os.TempDir(), command: "test",
		log: writerFunc(func(line []byte) (int, error) {
			if bytes.Contains(line, []byte("poll-10 ")) && bytes.Contains(line, []byte("dewey")) {
				cancel() // with the first job done
			}
			return len(line), nil
		}),
	}
	if err := o.run(ctx); !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	report, err := os.ReadFile(filepath.Join(out, "BENCHMARKS.md"))
	if err != nil || !strings.Contains(string(report), "was interrupted") {
		t.Errorf("%v\n%s", err, report)
	}
	r, err := readRecord(filepath.Join(out, "benchmarks", "results.json"))
	if err != nil || !r.Interrupted || len(r.Measurements) != 1 {
		t.Errorf("%+v, %v", r, err)
	}
}

// What is measured anew comes in the place of what was.
func TestRecordWith(t *testing.T) {
	old := &record{Began: "2026-01-01", Took: "1h0m0s", Command: "run", Interrupted: true, Measurements: []*measurement{{Key: "a", Command: "old"}, {Key: "b", Command: "old"}}}
	all := old.with(&record{Began: "2026-01-02", Took: "1m0s", Command: "run --rows x", Measurements: []*measurement{{Key: "b", Command: "new"}, {Key: "c", Command: "new"}}})
	var keys []string
	for _, m := range all.Measurements {
		keys = append(keys, m.Key+" "+m.Command)
	}
	if got, want := strings.Join(keys, ", "), "a old, b new, c new"; got != want {
		t.Errorf("%s, want %s", got, want)
	}
	if all.Interrupted || all.Began != "2026-01-01" || all.Took != "1h0m0s and 1m0s" || !strings.Contains(all.Command, "--rows x") {
		t.Errorf("%+v", all)
	}
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }

// Medians, ratios and goals of made-up figures.
func TestRatios(t *testing.T) {
	for _, c := range []struct {
		list []float64
		want float64
	}{{[]float64{3, 1, 2}, 2}, {[]float64{4, 1, 2, 3}, 2.5}, {[]float64{7}, 7}} {
		if got := median(c.list); got != c.want {
			t.Errorf("median of %v: %v, want %v", c.list, got, c.want)
		}
	}
	if !math.IsNaN(median(nil)) {
		t.Error("nothing has a median")
	}
	if (&record{Scale: full}).met(row{job: "poll-10", metric: cpuOf("sessions"), goal: 1}) {
		t.Error("what was not measured has met its goal")
	}
	for v, want := range map[float64]string{0.1234: "0.123", 4.567: "4.57", 45.67: "45.7", 456.7: "457", 45678: "45,678", math.NaN(): "–"} {
		if got := figure(v, ""); got != want {
			t.Errorf("%v reads %q, want %q", v, got, want)
		}
	}
}

// What is asked for wrongly is told before anything runs.
func TestArguments(t *testing.T) {
	for _, c := range []struct{ args, want string }{
		{"--rows polls", "there are poll, fetch"},
		{"--peers dewey", "dovecot is needed"},
		{"--pairs -1", "at least 1"},
		{"now", `"now" is no flag`},
		{"--from /nowhere/results.json", "--from"},
	} {
		err := compare(t.Context(), strings.Fields(c.args), io.Discard)
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", c.args, err, c.want)
		}
	}
}

// Messages have the size that they are made for, end in a line, and have lines that begin with dots.
func TestLetter(t *testing.T) {
	for _, size := range []int{2000, 20_000, 100_000} {
		m := letter(3, size)
		if len(m) != size || m[size-1] != '\n' || !bytes.Contains(m, []byte("\n.\n")) || !bytes.Contains(m, []byte("\n.I")) || bytes.Contains(m, []byte("\r")) {
			t.Errorf("a message of %d octets: %d", size, len(m))
		}
	}
	if got := fileName(2, []byte("a: b\n\nc\n"), mixed); !strings.HasSuffix(got, ",S=8,W=11:2,S") {
		t.Error(got)
	}
}
