package maildir_test

import (
	"bufio"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"dewey/maildrop"
	"dewey/store/maildir"
)

// While somebody moves messages to cur/ and changes their flags without a pause, no login misses one
// and none is served twice, and each one can be read.
func TestTrap20MoverAtWork(t *testing.T) {
	f := newFixture(t)
	const messages = 300
	var bases []string
	for i := range messages {
		bases = append(bases, f.deliver(fmt.Sprintf("Subject: %d\n", i)))
	}
	f.check(os.Mkdir(filepath.Join(f.root, "cur"), 0o700))
	stop := make(chan struct{})
	var wg sync.WaitGroup
	defer wg.Wait()
	defer close(stop)
	wg.Go(func() {
		at := make([]string, messages)
		for i, base := range bases {
			at[i] = "new/" + base
		}
		r := rand.New(rand.NewPCG(1, 1))
		for {
			select {
			case <-stop:
				return
			default:
			}
			i := r.IntN(messages)
			to := "cur/" + bases[i] + ":2," + []string{"", "S", "RS", "FS"}[r.IntN(4)]
			if err := os.Rename(filepath.Join(f.root, at[i]), filepath.Join(f.root, to)); err != nil {
				t.Error(err)
			}
			at[i] = to
		}
	})
	first := f.ids()
	for end := time.Now().Add(time.Second); time.Now().Before(end); {
		d := f.open()
		for i, id := range uids(d) {
			if len(first) != messages || id != first[i] {
				t.Fatalf("%d messages, message %d has the unique-id %q", len(d.Messages()), i+1, id)
			}
		}
		if got := len(d.Messages()); got != messages {
			t.Fatalf("%d messages, want %d", got, messages)
		}
		for n := 1; n <= messages; n += 50 {
			f.read(d, n)
		}
		f.close(d)
	}
}

// The process is killed at any time: what it had served keeps its unique-id, and the next login finds
// all in order.
func TestKilledAtAnyTime(t *testing.T) {
	if root := os.Getenv("MAILDIR_WORK"); root != "" {
		work(t, root)
	}
	f := newFixture(t)
	f.ids()
	served := map[string]string{} // base name → unique-id
	used := map[string]string{}
	r := rand.New(rand.NewPCG(7, 7))
	for round := range 25 {
		cmd := exec.Command(os.Args[0], "-test.run", "^"+t.Name()+"$")
		cmd.Env = append(os.Environ(), "MAILDIR_WORK="+f.root, fmt.Sprint("MAILDIR_ROUND=", round))
		out, err := cmd.StdoutPipe()
		f.check(err)
		f.check(cmd.Start())
		left := 3 + r.IntN(40) // lines that it may print, and then a little more
		lines := bufio.NewScanner(out)
		for lines.Scan() {
			if left--; left == 0 {
				time.AfterFunc(time.Duration(r.IntN(5000))*time.Microsecond, func() { _ = cmd.Process.Kill() })
			}
			if base, id, ok := strings.Cut(lines.Text(), " "); ok && strings.HasPrefix(base, "17") {
				if before := served[base]; before != "" && before != id {
					t.Fatalf("round %d: %s was served as %s, then as %s", round, base, before, id)
				}
				if before := used[id]; before != "" && before != base {
					t.Fatalf("round %d: %s was that of %s, then that of %s", round, id, before, base)
				}
				served[base], used[id] = id, base
			}
		}
		_ = cmd.Wait()
		_ = os.Remove(filepath.Join(f.root, "dovecot-uidlist.lock")) // as another host would have to wait for
	}
	if len(served) < 50 {
		t.Errorf("only %d messages were served: the test tests little", len(served))
	}
	f.restart()
	d := f.open()
	f.close(d)
	list := f.list()
	for i := range list.Records {
		rec := &list.Records[i]
		if id := served[rec.Base]; id != "" && id != rec.UniqueID(list.Validity) {
			t.Errorf("%s was served as %s, now it is %s", rec.Base, id, rec.UniqueID(list.Validity))
		}
	}
	f.check(os.RemoveAll(filepath.Join(f.root, "tmp")))
	_ = os.Remove(filepath.Join(f.root, "dovecot-uidlist.tmp"))
	_ = os.Remove(filepath.Join(f.root, "dewey-uidvalidity.tmp"))
	f.fsck()
}

// work delivers, serves and removes without end, and prints what it served.
func work(t *testing.T, root string) {
	f := &fixture{t: t, root: root, log: new(logBuffer), files: map[string]string{}}
	_, _ = fmt.Sscan(os.Getenv("MAILDIR_ROUND"), &f.serial)
	f.serial = f.serial*10_000 + 1
	for i := 0; ; i++ {
		f.store = f.newStore(maildir.Options{LockWait: -1})
		for range 3 {
			f.deliver(fmt.Sprintf("Subject: %d\n", f.serial))
		}
		d, err := f.store.Open(t.Context(), maildrop.Owner{})
		if err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		list := f.list()
		bases := map[string]string{}
		for i := range list.Records {
			bases[list.Records[i].UniqueID(list.Validity)] = list.Records[i].Base
		}
		for _, id := range uids(d) {
			fmt.Println(bases[id], id)
		}
		if n := len(d.Messages()); n > 5 {
			f.check(d.Remove(t.Context(), []int{1, n - 1, n}))
		}
		f.close(d)
	}
}

// dewey and Dovecot at the same time, with mail coming in: they agree on every unique-id.
func TestDovecotAtTheSameTime(t *testing.T) {
	d := withDovecot(t)
	d.deliver("Subject: first\n")
	d.same("before", d.dewey(), d.session())
	var (
		wg  sync.WaitGroup
		mu  sync.Mutex
		ids = map[string]bool{}
	)
	for range 3 {
		wg.Go(func() {
			for range 15 {
				for _, r := range d.run() {
					mu.Lock()
					ids[r.uid] = true
					mu.Unlock()
				}
			}
		})
	}
	wg.Go(func() {
		for i := range 60 {
			d.restart()
			m, err := d.store.Open(t.Context(), maildrop.Owner{})
			if err != nil {
				t.Error(err)
				return
			}
			mu.Lock()
			for _, id := range uids(m) {
				ids[id] = true
			}
			mu.Unlock()
			if err := m.Close(); err != nil {
				t.Error(err)
			}
			name := fmt.Sprintf("%d.M%dP2.host", 1710000000+i, i)
			d.put("tmp/"+name, fmt.Sprintf("Subject: new %d\n", i))
			if os.Getuid() == 0 {
				d.check(os.Chown(filepath.Join(d.root, "tmp", name), 65534, 65534))
			}
			d.check(os.Rename(filepath.Join(d.root, "tmp", name), filepath.Join(d.root, "new", name)))
		}
	})
	wg.Wait()
	all := d.dewey()
	d.same("after", all, d.session())
	for _, r := range all {
		delete(ids, r.uid)
	}
	if len(ids) > 0 || len(all) != 61 {
		t.Errorf("%d messages; unique-ids that were served and are gone: %v", len(all), ids)
	}
}
