package attacks

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"dewey/test/chaos/harness"
)

func TestMain(m *testing.M) { harness.Main(m) }

const (
	witness = "ann"       // a user who has nothing to do with it
	home    = "127.0.0.9" // where she polls from
	// mostPoll is how long one of her polls may take. It takes milliseconds on a machine that is not loaded by other tests.
	mostPoll = 10 * time.Second
	mostLine = 4 << 10 // octets of a line of the log
)

// A siege is a server under attack, with its limits as they are shipped, while somebody else polls.
type siege struct {
	*harness.Server
	t       *testing.T
	data    string
	figures map[string]any

	before    int // KiB of memory
	files     int // descriptors
	open      []io.Closer
	stop      context.CancelFunc
	wg        sync.WaitGroup
	mu        sync.Mutex
	polls     int
	longest   time.Duration
	peak      int // KiB
	mostFiles int
}

// besiege starts a server for mrose and the witness, who has a message. The attack is over with end.
func besiege(t *testing.T, settings ...string) *siege {
	t.Helper()
	x := &siege{t: t, data: harness.Dir(t), figures: map[string]any{}}
	harness.AddUsers(t, x.data, "mrose", witness)
	x.put(witness, "1.a", harness.Text("witness", 5000))
	x.Server = harness.Start(t, harness.Options{Data: x.data, Settings: append([]string{
		"pop3s.listen=127.0.0.1:0", "login.failure_delay=1s", "login.max_delay=8s", "login.max_per_address=100",
	}, settings...)})
	x.poll() // all that is made at the first login is there
	x.before, x.files = x.memory(), x.descriptors()
	ctx, stop := context.WithCancel(context.Background())
	x.stop = stop
	every := func(pause time.Duration, f func()) {
		x.wg.Go(func() {
			for tick := time.NewTicker(pause); ; {
				select {
				case <-ctx.Done():
					tick.Stop()
					return
				case <-tick.C:
					f()
				}
			}
		})
	}
	every(20*time.Millisecond, x.poll)
	every(20*time.Millisecond, x.sample)
	t.Cleanup(func() { x.stop(); x.wg.Wait() })
	return x
}

// put delivers a message as an agent would.
func (x *siege) put(user, name, text string) {
	x.t.Helper()
	harness.Put(x.t, filepath.Join(x.data, "mail", user), "new", name, text)
}

// poll is one of the witness's.
func (x *siege) poll() {
	start := time.Now()
	err := func() error {
		c, err := x.pop3(home, x.POP3)
		if err != nil {
			return err
		}
		defer c.Close()
		_ = c.SetDeadline(start.Add(mostPoll))
		if err := c.Login(witness); err != nil {
			return err
		}
		seen, err := c.Fetch()
		if err != nil {
			return err
		}
		if len(seen) != 1 || harness.Key(seen[0].Text) != "witness" {
			return fmt.Errorf("%d messages", len(seen))
		}
		_, err = c.Do("QUIT")
		return err
	}()
	took := time.Since(start)
	if err != nil {
		x.t.Errorf("another user's poll, for %v: %v", took, err)
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	x.polls++
	x.longest = max(x.longest, took)
}

func (x *siege) sample() {
	now, files := x.memory(), x.descriptors()
	x.mu.Lock()
	defer x.mu.Unlock()
	x.peak, x.mostFiles = max(x.peak, now), max(x.mostFiles, files)
}

// memory is what the process holds, in KiB. proc(5).
func (x *siege) memory() int {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", x.Pid()))
	if err != nil {
		x.t.Error(err)
		return 0
	}
	_, rest, _ := strings.Cut(string(text), "VmRSS:")
	n, err := strconv.Atoi(strings.Fields(rest + " x")[0])
	if err != nil {
		x.t.Error(err)
	}
	return n
}

func (x *siege) descriptors() int {
	list, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", x.Pid()))
	if err != nil {
		x.t.Error(err)
	}
	return len(list)
}

// end waits until all is as it was, and holds what was seen against the bounds: the memory that may have been taken beyond
// that at the start, in MiB, and the lines that may be in the log.
func (x *siege) end(mebibytes, lines int) {
	x.t.Helper()
	for _, c := range x.open {
		_ = c.Close()
	}
	polled := x.polled()
	harness.Await(x.t, "two polls after the attack", func() bool { return x.polled() >= polled+2 })
	harness.Await(x.t, "the descriptors of before", func() bool { return x.descriptors() <= x.files+8 }) // the witness's own
	x.stop()
	x.wg.Wait()
	x.figures["polls"], x.figures["longest_poll_ms"] = x.polls, x.longest.Milliseconds()
	x.figures["rss_start_kib"], x.figures["rss_peak_kib"], x.figures["descriptors_peak"] = x.before, x.peak, x.mostFiles
	log := x.Log()
	x.figures["log_lines"] = strings.Count(log, "\n")
	harness.Report(x.t, "attacks-"+strings.ToLower(strings.ReplaceAll(x.t.Name()[len("Test"):], "/", "-")), x.figures)
	if grown := x.peak - x.before; grown > mebibytes<<10 {
		x.t.Errorf("the memory grew by %d KiB, want %d MiB at most", grown, mebibytes)
	}
	if x.longest > mostPoll {
		x.t.Errorf("a poll took %v", x.longest)
	}
	if n := strings.Count(log, "\n"); n > lines+4*x.polls {
		x.t.Errorf("%d lines in the log, of %d polls; %d more would be right", n, x.polls, lines)
	}
	for line := range strings.Lines(log) {
		line = strings.TrimSuffix(line, "\n")
		if i := strings.IndexFunc(line, func(r rune) bool { return r < ' ' || r >= 0x7f && r < 0xa0 || r == '\u202e' }); i >= 0 || len(line) > mostLine {
			x.t.Errorf("a line of %d octets, or with one that acts at %d: %.200q", len(line), i, line)
		}
		if strings.Contains(line, harness.Password) || strings.Contains(line, "panic") || strings.Contains(line, "level=ERROR") {
			x.t.Errorf("in the log: %.300q", line)
		}
	}
	x.Stop()
}

func (x *siege) polled() int {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.polls
}

// dial connects from an address of this machine.
func (x *siege) dial(from, to string) (net.Conn, error) {
	d := net.Dialer{Timeout: harness.Patience, LocalAddr: net.TCPAddrFromAddrPort(netip.AddrPortFrom(netip.MustParseAddr(from), 0))}
	c, err := d.Dial("tcp", to)
	if err == nil {
		err = c.SetDeadline(time.Now().Add(harness.Patience))
	}
	return c, err
}

// pop3 connects and reads the greeting.
func (x *siege) pop3(from, to string) (*harness.POP3, error) {
	conn, err := x.dial(from, to)
	if err != nil {
		return nil, err
	}
	c := &harness.POP3{Conn: conn, In: bufio.NewReader(conn)}
	greeting, err := c.In.ReadString('\n')
	if err == nil && !strings.HasPrefix(greeting, "+OK") {
		err = &harness.Refusal{Command: "greeting", Reply: greeting}
	}
	if err != nil {
		_ = conn.Close()
	}
	return c, err
}

// must is pop3, from another address than the witness's.
func (x *siege) must(to string) *harness.POP3 {
	x.t.Helper()
	c, err := x.pop3("127.0.0.1", to)
	if err != nil {
		x.t.Fatal(err)
	}
	x.open = append(x.open, c)
	return c
}

// in is a session of mrose.
func (x *siege) in() *harness.POP3 {
	x.t.Helper()
	c := x.must(x.POP3)
	if err := c.Login("mrose"); err != nil {
		x.t.Fatal(err)
	}
	return c
}

// lmtp is a session after LHLO.
func (x *siege) lmtp() *harness.LMTP {
	x.t.Helper()
	c, err := harness.DialLMTP(x.LMTP)
	if err != nil {
		x.t.Fatal(err)
	}
	x.open = append(x.open, c)
	return c
}

// refused wants -ERR.
func refused(t *testing.T, what string, err error) {
	t.Helper()
	if !harness.IsRefusal(err) {
		t.Errorf("%s: %v, want a refusal", what, err)
	}
}

// pour sends that many octets of a text again and again.
func pour(w io.Writer, text string, octets int) error {
	block := bytes.Repeat([]byte(text), max(1, 1<<16/len(text)))
	for octets > 0 {
		n, err := w.Write(block[:min(len(block), octets)])
		if err != nil {
			return err
		}
		octets -= n
	}
	return nil
}

// tree is all that is below a folder, without the data that may change.
func tree(t *testing.T, root string) []string {
	t.Helper()
	var names []string
	err := filepath.WalkDir(root, func(path string, _ os.DirEntry, err error) error {
		names = append(names, path)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(names)
	return names
}
