package bench_test

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"dewey/bench"
)

// Quantiles are at most 1/128 above the true ones, whatever the distribution; the highest is exact.
func TestHistogram(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 1))
	for name, draw := range map[string]func() float64{
		"uniform":     func() float64 { return r.Float64() * 1e9 },
		"exponential": func() float64 { return r.ExpFloat64() * 1e6 },
		"log-normal":  func() float64 { return math.Exp(13 + 2*r.NormFloat64()) },
		"small":       func() float64 { return float64(r.IntN(300)) },
		"constant":    func() float64 { return 123456789 },
	} {
		var h bench.Histogram
		var all []time.Duration
		for range 100_000 {
			d := time.Duration(draw())
			h.Add(d)
			all = append(all, d)
		}
		slices.Sort(all)
		sum := time.Duration(0)
		for _, d := range all {
			sum += d
		}
		for _, q := range []float64{0.001, 0.5, 0.9, 0.99, 0.999, 1} {
			exact := all[int(math.Ceil(q*float64(len(all))))-1]
			if got := h.Quantile(q); got < exact || got > exact+exact/128 {
				t.Errorf("%s: %g is %d, want %d", name, q, got, exact)
			}
		}
		if h.Max() != all[len(all)-1] || h.Count() != 100_000 || h.Mean() != sum/100_000 {
			t.Errorf("%s: max %d, count %d, mean %d", name, h.Max(), h.Count(), h.Mean())
		}
	}
	var h bench.Histogram
	if h.Quantile(0.5) != 0 || h.Mean() != 0 {
		t.Error("an empty one")
	}
	h.Add(-time.Second)
	h.Add(math.MaxInt64)
	if h.Quantile(0.5) != 0 || h.Quantile(1) != math.MaxInt64 {
		t.Errorf("extremes: %d %d", h.Quantile(0.5), h.Quantile(1))
	}
}

// burn is a process that uses CPU time: each word it reads is done, and what it and its descendants have used by then
// is answered. It ends with its input.
func burn(how string) {
	spin := func(d time.Duration) {
		for begun := used(syscall.RUSAGE_SELF); used(syscall.RUSAGE_SELF)-begun < d; { //nolint:revive // it is to burn
		}
	}
	if how == "once" {
		spin(150 * time.Millisecond)
		return
	}
	kept := time.Duration(0)
	for in := bufio.NewScanner(os.Stdin); in.Scan(); {
		switch in.Text() {
		case "self": // on two threads
			var wg sync.WaitGroup
			for range 2 {
				wg.Go(func() { spin(150 * time.Millisecond) })
			}
			wg.Wait()
		case "child": // has ended, and was waited for
			cmd := exec.Command("/proc/self/exe")
			cmd.Env = append(os.Environ(), "BENCH_TEST_BURN=once")
			if err := cmd.Run(); err != nil {
				panic(err)
			}
		case "daughter": // lives on
			cmd := exec.Command("/proc/self/exe")
			cmd.Env = append(os.Environ(), "BENCH_TEST_BURN=server")
			w, _ := cmd.StdinPipe()
			r, _ := cmd.StdoutPipe()
			if err := cmd.Start(); err != nil {
				panic(err)
			}
			fmt.Fprintln(w, "self")
			line, _ := bufio.NewReader(r).ReadString('\n')
			n, _ := strconv.Atoi(strings.TrimSpace(line))
			kept += time.Duration(n)
		}
		fmt.Println(int64(used(syscall.RUSAGE_SELF) + used(syscall.RUSAGE_CHILDREN) + kept))
	}
}

func used(who int) time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(who, &u); err != nil {
		panic(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// A burner is such a process, under a name of its own.
type burner struct {
	t   *testing.T
	cmd *exec.Cmd
	in  io.WriteCloser
	out *bufio.Reader
}

func startBurner(t *testing.T, name string) *burner {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), name)
	if err := os.Symlink(self, path); err != nil {
		t.Fatal(err)
	}
	b := &burner{t: t, cmd: exec.Command(path)}
	b.cmd.Env = append(os.Environ(), "BENCH_TEST_BURN=server")
	b.in, _ = b.cmd.StdinPipe()
	out, _ := b.cmd.StdoutPipe()
	b.out = bufio.NewReader(out)
	if err := b.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(b.end)
	b.do("nothing") // it runs
	return b
}

func (b *burner) end() {
	if b.cmd.ProcessState == nil {
		b.in.Close()
		_ = b.cmd.Wait()
	}
}

// do has it do something and returns what CPU time it has used in all, by getrusage(2).
func (b *burner) do(what string) time.Duration {
	b.t.Helper()
	fmt.Fprintln(b.in, what)
	line, err := b.out.ReadString('\n')
	n, err2 := strconv.ParseInt(strings.TrimSpace(line), 10, 64)
	if err != nil || err2 != nil {
		b.t.Fatal(err, err2)
	}
	return time.Duration(n)
}

// watched runs a poll against a server of lies while f runs, and returns what its processes cost.
func watched(t *testing.T, w bench.Watch, f func()) (*bench.Server, error) {
	t.Helper()
	started := make(chan struct{})
	f2 := sync.OnceFunc(func() { close(started); f() })
	address, stop := gated(t, f2)
	defer stop()
	o := options(address)
	o.Connections, o.Count, o.Watch = 1, 1, w
	r, err := bench.Run(t.Context(), "poll", o)
	if r == nil {
		return nil, err
	}
	return r.Server, err
}

// gated is a server that does something before it greets.
func gated(t *testing.T, f func()) (string, func()) {
	t.Helper()
	l := listen(t)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			f()
			liar{}.session(c)
			c.Close()
		}
	}()
	return l.Addr().String(), func() { l.Close(); <-done }
}

// The CPU time of a process, its threads, its living descendants and those that have ended is what getrusage says, but
// for the ticks of 10 ms in which /proc counts each: two processes and four values, and the little that a process does
// between one look and the other.
func TestCPUTime(t *testing.T) {
	const tolerance = 100 * time.Millisecond
	for _, by := range []string{"pid", "name"} {
		t.Run(by, func(t *testing.T) {
			b := startBurner(t, "burner-"+by)
			w := bench.Watch{PIDs: []int{b.cmd.Process.Pid}}
			if by == "name" {
				w = bench.Watch{Names: []string{"burner-" + by}}
			}
			b.do("self") // before: does not count
			before := b.do("child")
			var after time.Duration
			s, err := watched(t, w, func() {
				b.do("self")
				b.do("child")
				after = b.do("daughter")
			})
			if err != nil {
				t.Fatal(err)
			}
			want := after - before
			if d := time.Duration(s.CPU*1e9) - want; want < 400*time.Millisecond || d.Abs() > tolerance {
				t.Errorf("%g s, and getrusage says %s", s.CPU, want)
			}
			if s.ProcessesBefore != 1 || s.ProcessesAfter != 2 || len(s.Notes) > 0 {
				t.Errorf("%+v", s)
			}
			if s.Before == nil || s.After == nil || s.Before.Private < 1<<20 || s.After.Proportional <= s.Before.Proportional || s.ResidentPeak < s.After.Private {
				t.Errorf("memory: %+v %+v, resident %d", s.Before, s.After, s.ResidentPeak)
			}
		})
	}
}

// Time that is not known of is said to be missing.
func TestLostProcesses(t *testing.T) {
	stays, goes := startBurner(t, "burner-two"), startBurner(t, "burner-two")
	goes.do("self")
	s, err := watched(t, bench.Watch{Names: []string{"burner-two"}}, func() {
		stays.do("child")
		goes.end()
	})
	if err != nil || s.CPU < 0.1 || s.CPU > 0.4 || len(s.Notes) != 1 || !strings.HasPrefix(s.Notes[0], "1 processes ended whose parent is not watched") {
		t.Errorf("%+v, %v", s, err)
	}
}

// Who is not there is told, and this process is never watched.
func TestWatchNobody(t *testing.T) {
	self := filepath.Base(os.Args[0])
	for want, w := range map[string]bench.Watch{
		`no process is named "no-such-process"`:              {Names: []string{"no-such-process"}},
		fmt.Sprintf("no process is named %q", self):          {Names: []string{self}},
		fmt.Sprintf("there is no process %d", os.Getpid()):   {PIDs: []int{os.Getpid()}},
		fmt.Sprintf("there is no process %d", 1<<30):         {PIDs: []int{1 << 30}},
		"there is no process -1\nno process is named \"x_\"": {PIDs: []int{-1}, Names: []string{"x_"}},
	} {
		if _, err := watched(t, w, func() {}); err == nil || err.Error() != want {
			t.Errorf("%v, want %s", err, want)
		}
	}
}

// Nothing is sent where it was not told to go, and what can't be run is told before anything is sent.
func TestRefused(t *testing.T) {
	for want, change := range map[string]func(*bench.Options){
		"no address":                           func(o *bench.Options) { o.Address = "" },
		"no IP address with a port":            func(o *bench.Options) { o.Address = "localhost:110" },
		`"127.0.0.1" is no IP address`:         func(o *bench.Options) { o.Address = "127.0.0.1" },
		`":110" is no IP address`:              func(o *bench.Options) { o.Address = ":110" },
		"0.0.0.0:110 is no address":            func(o *bench.Options) { o.Address = "0.0.0.0:110" },
		"[::]:110 is no address":               func(o *bench.Options) { o.Address = "[::]:110" },
		"127.0.0.1:0 is no address":            func(o *bench.Options) { o.Address = "127.0.0.1:0" },
		"192.0.2.1:110 is not of this machine": func(o *bench.Options) { o.Address = "192.0.2.1:110" },
		"unix: needs a path":                   func(o *bench.Options) { o.Address = "unix:" },
		"5 connections need as many users":     func(o *bench.Options) { o.Connections = 5 },
		"at least 1":                           func(o *bench.Options) { o.Connections = 0 },
		"how long to run":                      func(o *bench.Options) { o.Count = 0 },
		"the timeout":                          func(o *bench.Options) { o.Timeout = 0 },
		"negative":                             func(o *bench.Options) { o.Rate = -1 },
		"there is no user":                     func(o *bench.Options) { o.Users = nil },
		`"u1\r\nDELE 1" can't be sent`:         func(o *bench.Options) { o.Users[0].Name = "u1\r\nDELE 1" },
		"can't be sent as a user's name":       func(o *bench.Options) { o.Users[0].Password = "\n" },
	} {
		o := options("127.0.0.1:1")
		change(&o)
		if r, err := bench.Run(t.Context(), "poll", o); r != nil || err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
	for want, change := range map[string]func(*bench.Options){
		"the depth must be":         func(o *bench.Options) { o.Depth = 0 },
		`"DELE" can't be pipelined`: func(o *bench.Options) { o.Commands = []string{"DELE"} },
	} {
		o := options("127.0.0.1:1")
		change(&o)
		if _, err := bench.Run(t.Context(), "pipeline", o); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
	o := options("127.0.0.1:1")
	o.Login, o.Connections = false, 1<<30
	if _, err := bench.Run(t.Context(), "idle", o); err == nil || !strings.Contains(err.Error(), "need 1073741856 descriptors, and this process may have") {
		t.Error(err)
	}
	o = options("127.0.0.1:1")
	o.Size = 100
	if _, err := bench.Run(t.Context(), "deliver", o); err == nil || !strings.Contains(err.Error(), "from 400 to") {
		t.Error(err)
	}
	if _, err := bench.Run(t.Context(), "dance", o); err == nil {
		t.Error("no such workload")
	}
}

// Connections come from the addresses that are given, in turns.
func TestSources(t *testing.T) {
	list, err := bench.ParseSources("127.0.0.2-127.0.0.4,127.0.0.9")
	if err != nil || fmt.Sprint(list) != "[127.0.0.2 127.0.0.3 127.0.0.4 127.0.0.9]" {
		t.Fatal(list, err)
	}
	for _, bad := range []string{"", "x", "127.0.0.2-", "127.0.0.4-127.0.0.2", "127.0.0.1-::1", "10.0.0.0-10.255.255.255"} {
		if _, err := bench.ParseSources(bad); err == nil {
			t.Errorf("%q is taken", bad)
		}
	}
	l := listen(t)
	seen := map[string]int{}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			from, _, _ := strings.Cut(c.RemoteAddr().String(), ":")
			seen[from]++
			liar{}.session(c)
			c.Close()
		}
	}()
	o := options(l.Addr().String())
	o.Sources, o.Connections = list, 1
	_, err = bench.Run(t.Context(), "poll", o)
	l.Close()
	<-done
	want := map[string]int{"127.0.0.2": 2, "127.0.0.3": 2, "127.0.0.4": 2, "127.0.0.9": 2}
	if diff := cmp.Diff(want, seen); err != nil || diff != "" {
		t.Error(err, diff)
	}
}

// The names in JSON are a promise: who reads them has scripts.
func TestJSON(t *testing.T) {
	s := startServer(t)
	s.fill(2)
	b := startBurner(t, "burner-json")
	names := map[string]bool{}
	for _, name := range []string{"fetch", "idle"} {
		o := s.options(bench.Implicit)
		o.Users[3].Password = "wrong"
		o.Count, o.Connections, o.KeepGoing, o.Rate = 4, 4, true, 1000
		o.Watch = bench.Watch{PIDs: []int{b.cmd.Process.Pid}}
		r, err := bench.Run(t.Context(), name, o)
		if err != nil {
			t.Fatal(err)
		}
		r.Server.Notes = []string{"note"}
		data, err := json.Marshal(r)
		var tree any
		if err := errors.Join(err, json.Unmarshal(data, &tree)); err != nil {
			t.Fatal(err)
		}
		flatten("", tree, names)
		var text strings.Builder
		if err := r.Write(&text); err != nil || !regexp.MustCompile(`(?s)^`+name+` 127\.0\.0\.1:\d+, tls, 4 connections.*milliseconds +mean.*server: CPU.*errors: 1\n +1  PASS \*\*\*\*: the server said`).MatchString(text.String()) {
			t.Errorf("%v\n%s", err, text.String())
		}
	}
	var got strings.Builder
	for _, name := range slices.Sorted(func(yield func(string) bool) {
		for name := range names {
			if !yield(name) {
				return
			}
		}
	}) {
		fmt.Fprintln(&got, name)
	}
	const golden = "testdata/json.txt"
	if os.Getenv("UPDATE_GOLDEN") != "" {
		if err := os.WriteFile(golden, []byte(got.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if diff := cmp.Diff(string(want), got.String()); err != nil || diff != "" {
		t.Error(err, diff)
	}
}

func flatten(path string, tree any, names map[string]bool) {
	switch tree := tree.(type) {
	case map[string]any:
		for key, value := range tree {
			flatten(path+"."+key, value, names)
		}
	case []any:
		for _, value := range tree {
			flatten(path+"[]", value, names)
		}
	default:
		names[fmt.Sprintf("%s %T", strings.TrimPrefix(path, "."), tree)] = true
	}
}
