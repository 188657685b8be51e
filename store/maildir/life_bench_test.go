package maildir_test

import (
	"fmt"
	"testing"
	"time"
)

// An UPDATE that removes 10 of 1,000 messages, for good or for a while.
func BenchmarkUpdate(b *testing.B) {
	for name, undelete := range map[string]time.Duration{"unlinked": 0, "undelete": fortnight} {
		b.Run(name, func(b *testing.B) {
			f := benchMaildir(b, 1000)
			f.owner.Life.Undelete = undelete
			for b.Loop() {
				b.StopTimer()
				for range 10 {
					f.deliver(fmt.Sprintf("Subject: %d\n", f.serial))
				}
				d := f.open()
				var numbers []int
				for n := range 10 {
					numbers = append(numbers, len(d.Messages())-n)
				}
				b.StartTimer()
				f.check(d.Remove(b.Context(), numbers))
				f.close(d)
			}
		})
	}
}
