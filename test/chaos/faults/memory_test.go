package faults

import (
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"

	"dewey/test/chaos/harness"
)

// memory is what /proc says of a process, in MiB.
func memory(t testing.TB, s *harness.Server, key string) int {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", s.Pid()))
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(text), key+":")
	n, err := strconv.Atoi(strings.Fields(rest + " x")[0])
	if err != nil {
		t.Fatalf("%s: %v", key, err)
	}
	return n >> 10
}

// mostMemory is what a process with a soft limit of 64 MiB for Go's heap may have in all, in MiB: the program's own pages,
// which the limit does not count, and some that the kernel has not taken back yet.
const mostMemory = 112

// With GOMEMLIMIT=64MiB the server stays below its bound whatever comes: large messages in and out at slow readers, many
// sessions, floods of lines without end, of commands and of bad ones. Those who behave are served meanwhile.
func TestMemory(t *testing.T) {
	data := harness.Dir(t)
	const large = 8
	sessions, size := 400, 10<<20
	if harness.Full() {
		sessions, size = 2000, 45<<20
	}
	users := []string{"bystander"}
	for i := range large {
		users = append(users, fmt.Sprintf("large%d", i))
	}
	for i := range sessions {
		users = append(users, fmt.Sprintf("u%d", i))
	}
	harness.AddUsers(t, data, users...)
	s := harness.Start(t, harness.Options{Data: data, Env: []string{"GOMEMLIMIT=64MiB"}, Settings: []string{"login.max_unauthenticated=10000"}})
	other := newBystander(t, s, data)
	figures := map[string]any{"at the beginning": memory(t, s, "VmRSS")}
	phase := func(name string, n int, f func(i int) error) {
		t.Helper()
		var group sync.WaitGroup
		errs := make(chan error, n)
		for i := range n {
			group.Go(func() {
				if err := f(i); err != nil {
					errs <- err
				}
			})
		}
		group.Wait()
		if close(errs); len(errs) > 0 {
			t.Errorf("%s: %d errors: %v", name, len(errs), <-errs)
		}
		other.served(t, name)
		peak := memory(t, s, "VmHWM")
		if figures[name] = peak; peak > mostMemory {
			t.Errorf("%s: %d MiB, want %d at most", name, peak, mostMemory)
		}
	}
	text := harness.Text("large", size)
	phase("large messages in", large, func(i int) error {
		c, err := harness.DialLMTP(s.LMTP)
		if err != nil {
			return err
		}
		defer c.Close()
		results, err := c.Deliver(text, fmt.Sprintf("large%d", i))
		if err == nil {
			err = results[0]
		}
		return err
	})
	phase("sessions", sessions, func(i int) error {
		c, err := harness.DialPOP3(s.POP3)
		if err != nil {
			return err
		}
		t.Cleanup(func() { _ = c.Close() })
		return c.Login(fmt.Sprintf("u%d", i))
	})
	phase("slow readers", large, func(i int) error {
		c, err := harness.DialPOP3(s.POP3)
		if err != nil {
			return err
		}
		t.Cleanup(func() { _ = c.Close() })
		if err := c.Login(fmt.Sprintf("large%d", i)); err != nil {
			return err
		}
		if _, err := c.Do("RETR 1"); err != nil {
			return err
		}
		_, err = io.CopyN(io.Discard, c.In, 100_000) // and no more
		return err
	})
	phase("floods", 20, func(i int) error {
		c, err := harness.DialPOP3(s.POP3)
		if err != nil {
			return err
		}
		defer c.Close()
		flood := []string{"x", "NOOP\r\n", "USER x\r\nPASS\r\n", "\x00"}[i%4]
		chunk := []byte(strings.Repeat(flood, 1<<14))
		go io.Copy(io.Discard, c.In) //nolint:errcheck // what comes is nobody's
		for range 20 {
			if _, err := c.Write(chunk); err != nil {
				break // the server may have had enough
			}
		}
		return nil
	})
	harness.Report(t, "faults-memory", figures)
}
