package maildir_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"dewey/maildrop"
	"dewey/store/maildir"
)

// benchMaildir is a Maildir of many messages in cur/.
func benchMaildir(b *testing.B, messages int) *fixture {
	f := newFixture(b)
	f.check(os.MkdirAll(filepath.Join(f.root, "cur"), 0o700))
	content := []byte("Subject: x\nFrom: mrose@example.org\n\n" + fmt.Sprintf("%01000d\n", 1))
	for i := range messages {
		path := filepath.Join(f.root, "cur", fmt.Sprintf("%d.M%06dP12345V000000000000FE01I%016X_%d.mail.example.org,S=%d,W=%d:2,S", 1700000000+i, i%1_000_000, i, i, len(content), len(content)+3))
		f.check(os.WriteFile(path, content, 0o600))
	}
	return f
}

func (f *fixture) login(b *testing.B) {
	b.Helper()
	d, err := f.store.Open(b.Context(), maildrop.Owner{})
	if err != nil {
		b.Fatal(err)
	}
	if err := d.Close(); err != nil {
		b.Fatal(err)
	}
}

const many = 100_000

// The first login ever: every message is read, every unique-id given.
func BenchmarkFirstSight(b *testing.B) {
	f := benchMaildir(b, many)
	b.ReportAllocs()
	for b.Loop() {
		b.StopTimer()
		for _, name := range []string{"dovecot-uidlist", "dewey-uidvalidity"} {
			if exists(filepath.Join(f.root, name)) {
				f.check(os.Remove(filepath.Join(f.root, name)))
			}
		}
		f.restart()
		b.StartTimer()
		f.login(b)
	}
}

// The first login after a restart: the folders and the list are read.
func BenchmarkCold(b *testing.B) {
	f := benchMaildir(b, many)
	f.login(b)
	b.ReportAllocs()
	for b.Loop() {
		b.StopTimer()
		f.restart()
		b.StartTimer()
		f.login(b)
	}
}

// A login that finds nothing new.
func BenchmarkWarm(b *testing.B) {
	f := benchMaildir(b, many)
	f.login(b)
	time.Sleep(3 * time.Second)
	f.login(b)
	f.login(b)
	b.ReportAllocs()
	for b.Loop() {
		f.login(b)
	}
	n, octets := f.store.Cached()
	b.ReportMetric(float64(octets)/many/float64(n), "cached-B/message")
}

// A login that finds one new message.
func BenchmarkOneNew(b *testing.B) {
	f := benchMaildir(b, many)
	f.login(b)
	time.Sleep(3 * time.Second)
	f.login(b)
	f.login(b)
	b.ReportAllocs()
	for b.Loop() {
		b.StopTimer()
		f.deliver(fmt.Sprintf("Subject: %d\n", f.serial))
		b.StartTimer()
		f.login(b)
	}
}

// 16 writers at once, to one Maildir or each to his own.
func BenchmarkDeposit(b *testing.B) {
	text := []byte("Subject: x\r\n\r\n" + strings.Repeat(strings.Repeat("x", 70)+"\r\n", 60))
	for _, maildirs := range []int{1, 16} {
		for _, writers := range []int{1, 16} {
			b.Run(fmt.Sprintf("maildirs=%d/writers=%d", maildirs, writers), func(b *testing.B) {
				f := newFixture(b)
				store := maildir.New(maildir.Options{
					Path: func(o maildrop.Owner) (string, error) { return filepath.Join(f.root, o.Name), nil },
				})
				var next atomic.Int64
				var wg sync.WaitGroup
				b.ReportAllocs()
				b.ResetTimer()
				for w := range writers {
					wg.Go(func() {
						for next.Add(1) <= int64(b.N) {
							d, err := store.Deposit(b.Context(), maildrop.Owner{Name: fmt.Sprint(w % maildirs)})
							if err == nil {
								_, _ = d.Write(text)
								err = d.Commit(b.Context())
							}
							if err != nil {
								b.Error(err)
								return
							}
						}
					})
				}
				wg.Wait()
				b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "deliveries/s")
			})
		}
	}
}

// A delivery into a maildrop of many, counted for a quota, and one that a count has to be made for.
func BenchmarkDepositUnderQuota(b *testing.B) {
	for name, quota := range map[string]maildrop.Quota{"none": {}, "counted": {Octets: 1 << 50}, "cold": {Octets: 1 << 50}} {
		b.Run(name, func(b *testing.B) {
			f := benchMaildir(b, many)
			f.quota = quota
			f.deposit("first")
			for b.Loop() {
				if name == "cold" {
					f.restart()
				}
				f.deposit("x")
			}
		})
	}
}
