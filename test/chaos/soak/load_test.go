package soak

import (
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"dewey/test/chaos/harness"
)

func TestMain(m *testing.M) { harness.Main(m) }

// A user is one with a maildrop, and what must be true of it.
type user struct {
	name  string
	model *harness.Model

	ids, owners map[string]string // unique-ids, and the messages whose they are, of all that were ever seen
}

// A load is a server, its users, and who counts.
type load struct {
	*harness.Server
	t     *testing.T
	data  string
	users []*user
	began time.Time

	sessions, retrieved, removed, delivered, refused atomic.Int64

	mu      sync.Mutex
	samples []sample
}

// A sample is how much memory there was at a time, and how many descriptors.
type sample struct {
	at    time.Duration
	rss   int // KiB
	files int
}

// newLoad starts a server with so many users.
func newLoad(t *testing.T, users int, options harness.Options) *load {
	t.Helper()
	l := &load{t: t, data: harness.Dir(t)}
	var names []string
	for i := range users {
		u := &user{name: fmt.Sprint("user", i), model: harness.NewModel(), ids: map[string]string{}, owners: map[string]string{}}
		l.users = append(l.users, u)
		names = append(names, u.name)
	}
	harness.AddUsers(t, l.data, names...)
	options.Data = l.data
	options.Settings = append([]string{"login.max_unauthenticated=20000", "lmtp.max_connections=1000"}, options.Settings...)
	l.Server = harness.Start(t, options)
	l.began = time.Now()
	return l
}

// deliver delivers a message to one of the users.
func (l *load) deliver(c *harness.LMTP, r *rand.Rand) error {
	u := l.users[r.IntN(len(l.users))]
	key := fmt.Sprintf("%s-%d", u.name, l.delivered.Add(1))
	text := harness.Text(key, 300+r.IntN(3000))
	u.model.Sent(key, text)
	_ = c.SetDeadline(time.Now().Add(harness.Patience))
	results, err := c.Deliver(text, u.name)
	if err == nil {
		err = results[0]
	}
	if err == nil {
		u.model.Is(key, harness.There)
	}
	return err
}

// mail lets mail arrive until stop is closed, one message every so often.
func (l *load) mail(stop <-chan struct{}, seed uint64, every time.Duration) {
	r := rand.New(rand.NewPCG(seed, 5))
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		c, err := harness.DialLMTP(l.LMTP)
		for range 50 {
			select {
			case <-stop:
				if err == nil {
					_ = c.Close()
				}
				return
			case <-tick.C:
			}
			if err == nil {
				err = l.deliver(c, r)
			}
			if err != nil {
				l.t.Errorf("mail: %v", err)
				return
			}
		}
		_ = c.Close()
	}
}

// busy says that a client is to come again later.
func busy(err error) bool {
	return harness.IsRefusal(err) && (strings.Contains(err.Error(), "-ERR [IN-USE]") || strings.Contains(err.Error(), "-ERR [SYS/TEMP] too many connections"))
}

// session connects, fetches all that there is, removes some of it, waits a while in between as clients do, and holds what
// it saw against the model.
func (l *load) session(u *user, r *rand.Rand, hold <-chan time.Time) error {
	before := map[string]bool{}
	for _, key := range u.model.Keys(harness.There) {
		before[key] = true
	}
	c, err := harness.DialPOP3(l.POP3)
	if busy(err) {
		l.refused.Add(1)
		return nil
	}
	if err != nil {
		return err
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(3 * harness.Patience)) // the pause is in it
	if err := c.Login(u.name); err != nil {
		return err
	}
	seen, err := c.Fetch()
	if err != nil {
		return err
	}
	l.retrieved.Add(int64(len(seen)))
	now := u.model.Clone()
	for _, key := range now.Keys(harness.There) {
		if !before[key] {
			now.Is(key, harness.Maybe) // it came meanwhile
		}
	}
	for _, fault := range now.Hold(seen) {
		l.t.Errorf("%s: %s", u.name, fault)
	}
	var marked []string
	for _, m := range seen {
		key := harness.Key(m.Text)
		u.id(l.t, key, m.UID)
		if r.IntN(3) > 0 {
			if _, err := c.Do(fmt.Sprintf("DELE %d", m.Number)); err != nil {
				return err
			}
			marked = append(marked, key)
		}
	}
	<-hold
	for _, key := range marked {
		u.model.Is(key, harness.Maybe)
	}
	if r.IntN(10) == 0 { // it hangs up, and nothing is removed
		for _, key := range marked {
			u.model.Is(key, harness.There)
		}
		l.sessions.Add(1)
		return nil
	}
	if _, err := c.Do("QUIT"); err != nil {
		return err
	}
	for _, key := range marked {
		u.model.Is(key, harness.Gone)
	}
	l.removed.Add(int64(len(marked)))
	l.sessions.Add(1)
	return nil
}

// id notes a unique-id: a message keeps it, and no other ever gets it.
func (u *user) id(t *testing.T, key, id string) {
	if was, ok := u.ids[key]; ok && was != id {
		t.Errorf("%s: the unique-id of %s was %s, is %s", u.name, key, was, id)
	}
	if was, ok := u.owners[id]; ok && was != key {
		t.Errorf("%s: the unique-id %s of %s was that of %s", u.name, id, key, was)
	}
	u.ids[key], u.owners[id] = id, key
}

// run has a client for each user come again and again for so long, while mail arrives, and samples what the process holds.
func (l *load) run(length, hold time.Duration) {
	stop := make(chan struct{})
	var wg sync.WaitGroup
	for i := range 16 {
		wg.Go(func() { l.mail(stop, uint64(i), 50*time.Millisecond) })
	}
	for i, u := range l.users {
		wg.Go(func() {
			r := rand.New(rand.NewPCG(uint64(i), 6))
			for {
				select {
				case <-stop:
					return
				case <-time.After(time.Duration(r.Int64N(int64(hold) + 1))): // clients do not come all at once
				}
				if err := l.session(u, r, time.After(time.Duration(r.Int64N(int64(hold)+1)))); err != nil {
					l.t.Errorf("%s: %v", u.name, err)
					return
				}
			}
		})
	}
	end := time.After(length)
	for tick := time.NewTicker(max(length/200, 50*time.Millisecond)); ; {
		select {
		case <-tick.C:
			l.sample()
			continue
		case <-end:
			tick.Stop()
		}
		break
	}
	close(stop)
	wg.Wait()
}

func (l *load) sample() sample {
	s := sample{at: time.Since(l.began), rss: l.memory(), files: l.descriptors()}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.samples = append(l.samples, s)
	return s
}

// memory is what the process holds, in KiB. proc(5).
func (l *load) memory() int {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", l.Pid()))
	_, rest, _ := strings.Cut(string(text), "VmRSS:")
	n, e := strconv.Atoi(strings.Fields(rest + " x")[0])
	if err := errors.Join(err, e); err != nil {
		l.t.Error(err)
	}
	return n
}

func (l *load) descriptors() int {
	list, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", l.Pid()))
	if err != nil {
		l.t.Error(err)
	}
	return len(list)
}

// locks are how many files the process has locked. proc_locks(5).
func (l *load) locks() int {
	text, err := os.ReadFile("/proc/locks")
	if err != nil {
		l.t.Error(err)
	}
	return strings.Count(string(text), fmt.Sprintf(" %d ", l.Pid()))
}

// goroutines ends the process as SIGQUIT does, which tells of each goroutine, and counts them. Those that sleep in the
// runtime are left out by it.
func (l *load) goroutines() int {
	if err := syscall.Kill(l.Pid(), syscall.SIGQUIT); err != nil {
		l.t.Fatal(err)
	}
	<-l.Ended()
	return strings.Count(l.Log(), "\ngoroutine ")
}

// disk holds the maildrops against the models, by a client for each.
func (l *load) disk() (messages int) {
	for _, u := range l.users {
		seen, err := harness.Fetch(l.POP3, u.name)
		if err != nil {
			l.t.Errorf("%s: %v", u.name, err)
			continue
		}
		for _, fault := range u.model.Hold(seen) {
			l.t.Errorf("%s: %s", u.name, fault)
		}
		for _, m := range seen {
			u.id(l.t, harness.Key(m.Text), m.UID)
		}
		messages += len(seen)
	}
	return messages
}

// left are files that nobody should have left: what was to replace another, and deliveries.
func (l *load) left() (names []string) {
	err := filepath.WalkDir(filepath.Join(l.data, "mail"), func(path string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() && (strings.HasSuffix(path, ".tmp") || strings.HasSuffix(path, ".lock") && !strings.HasSuffix(path, "/dewey.lock") || strings.Contains(path, "/tmp/")) {
			names = append(names, path)
		}
		return err
	})
	if err != nil {
		l.t.Error(err)
	}
	return names
}

// complaints are lines of the log that should not be there.
func (l *load) complaints() (lines []string) {
	for line := range strings.Lines(l.Log()) {
		if strings.Contains(line, "level=ERROR") || strings.Contains(line, "panic") || strings.Contains(line, "DATA RACE") {
			lines = append(lines, line)
		}
	}
	return lines
}

// withRace builds the program with the race detector, and returns what has it run in the place of the other one.
func withRace(t *testing.T) []string {
	t.Helper()
	binary := filepath.Join(t.TempDir(), "dewey-race")
	build := exec.Command("go", "build", "-race", "-o", binary, "dewey/cmd/dewey")
	build.Env = append(os.Environ(), "CGO_ENABLED=1")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("go build -race: %v\n%s", err, out)
	}
	return []string{"/bin/sh", "-c", `program=$0; shift; exec "$program" "$@"`, binary}
}
