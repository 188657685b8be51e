package clock

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"dewey/test/chaos/harness"
)

// A clock is a process's own wall clock: the machine's, and a shift. Go asks the kernel's vDSO for the time, where no
// library comes between: while the program is stopped its clock_gettime is replaced by one that asks the kernel
// and adds the shift to CLOCK_REALTIME alone. The times of files stay the machine's, as those of a file server whose clock
// is another one do.
type clock struct {
	t   testing.TB
	pid int
	at  int64 // where the shift is, in seconds, in the process's memory
}

// code is the replacement for x86-64: clock_gettime(2); if the clock is 0, CLOCK_REALTIME, add the shift to tv_sec.
var code = []byte{
	0xb8, 228, 0, 0, 0, // mov $228, %eax
	0x0f, 0x05, // syscall
	0x85, 0xff, // test %edi, %edi
	0x75, 0x0a, // jne to ret
	0x48, 0x8b, 0x0d, 4, 0, 0, 0, // mov 4(%rip), %rcx: the shift
	0x48, 0x01, 0x0e, // add %rcx, (%rsi)
	0xc3, // ret
	0, 0, 0, 0, 0, 0, 0, 0,
}

const shiftAt = 22 // in code

// newClock gives a running server a clock. It is stopped for that, where no thread is asking for the time.
func newClock(t testing.TB, pid int) *clock {
	t.Helper()
	if runtime.GOARCH != "amd64" {
		t.Fatal("a clock of one process alone can be made on amd64 only")
	}
	c := &clock{t: t, pid: pid}
	harness.Await(t, "a moment in which nobody asks for the time", func() bool {
		_ = syscall.Kill(pid, syscall.SIGSTOP)
		done := c.replace()
		_ = syscall.Kill(pid, syscall.SIGCONT)
		return done
	})
	return c
}

// replace puts the code in the place of the vDSO's; false if a thread may be in there.
func (c *clock) replace() bool {
	c.t.Helper()
	start, end, err := vdso(c.pid)
	if err != nil {
		c.t.Fatal(err)
	}
	states, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/syscall", c.pid))
	for _, name := range states {
		text, err := os.ReadFile(name) // the last number is the instruction pointer: proc(5)
		fields := strings.Fields(string(text))
		if err != nil || len(fields) < 3 {
			return false
		}
		if at, err := strconv.ParseInt(fields[len(fields)-1], 0, 64); err != nil || at >= start && at < end {
			return false
		}
	}
	mem, err := os.OpenFile(fmt.Sprintf("/proc/%d/mem", c.pid), os.O_RDWR, 0)
	if err != nil {
		c.t.Fatal(err)
	}
	defer mem.Close()
	image := make([]byte, end-start)
	if _, err := mem.ReadAt(image, start); err != nil {
		c.t.Fatal("the vDSO: ", err)
	}
	file, err := elf.NewFile(bytes.NewReader(image))
	if err != nil {
		c.t.Fatal("the vDSO: ", err)
	}
	symbols, err := file.DynamicSymbols()
	n := slices.IndexFunc(symbols, func(s elf.Symbol) bool { return s.Name == "__vdso_clock_gettime" })
	if err != nil || n < 0 {
		c.t.Fatal("the vDSO has no clock_gettime: ", err)
	}
	at := start + int64(symbols[n].Value)
	if _, err := mem.WriteAt(code, at); err != nil {
		c.t.Fatal("the clock can't be replaced: ", err)
	}
	c.at = at + shiftAt
	return true
}

// set changes how far the clock is off the machine's, in whole seconds, from one moment to the next.
func (c *clock) set(shift time.Duration) {
	c.t.Helper()
	mem, err := os.OpenFile(fmt.Sprintf("/proc/%d/mem", c.pid), os.O_WRONLY, 0)
	if err == nil {
		defer mem.Close()
		_, err = mem.WriteAt(binary.LittleEndian.AppendUint64(nil, uint64(shift/time.Second)), c.at)
	}
	if err != nil {
		c.t.Fatal(err)
	}
}

// vdso is where the vDSO lies in a process's memory. proc(5).
func vdso(pid int) (start, end int64, err error) {
	maps, err := os.ReadFile(fmt.Sprintf("/proc/%d/maps", pid))
	for line := range strings.Lines(string(maps)) {
		if strings.HasSuffix(line, "[vdso]\n") {
			from, rest, _ := strings.Cut(line, "-")
			to, _, _ := strings.Cut(rest, " ")
			a, err1 := strconv.ParseInt(from, 16, 64)
			b, err2 := strconv.ParseInt(to, 16, 64)
			if err1 == nil && err2 == nil {
				return a, b, nil
			}
		}
	}
	return 0, 0, fmt.Errorf("the process has no vDSO: %v", err)
}
