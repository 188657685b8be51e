package maildir

import (
	"fmt"
	"os"
	"strings"
	"sync"
	"time"
)

// mostHost is the most octets of a host in a name: with all else, and flags that others add, it stays below
// the 255 of a file's name.
const mostHost = 100

// names makes names for new messages, for all Stores of the process: two may deliver to one Maildir.
var names struct {
	mu    sync.Mutex
	last  int64 // microseconds since 1970
	count uint64
}

// newName is a name that no other message has: time, process, a counter and the host. Maildir: "How is a
// message delivered?".
//
// Names of one process rise, also within a microsecond and when the clock is set back a little, so that
// messages get their unique-ids in the order in which they came.
func newName() string {
	names.mu.Lock()
	now := max(time.Now().UnixMicro(), 0)
	if now <= names.last && names.last-now < 1e6 {
		now = names.last + 1
	}
	names.last = now
	names.count++
	count := names.count
	names.mu.Unlock()
	return fmt.Sprintf("%d.M%06dP%dQ%d.%s", now/1e6, now%1e6, os.Getpid(), count, thisHost())
}

var thisHost = sync.OnceValue(func() string {
	host, err := os.Hostname()
	if err != nil {
		return nameHost("")
	}
	return nameHost(host)
})

// nameHost is a host as it may stand in a name. Maildir: / becomes \057, : becomes \072. So does what else
// means something in a name, or in a line of the list.
func nameHost(host string) string {
	var b strings.Builder
	for _, c := range []byte(host) {
		if c == '/' || c == ':' || c == ',' || c <= ' ' || c > '~' {
			fmt.Fprintf(&b, "\\%03o", c)
		} else {
			b.WriteByte(c)
		}
	}
	if b.Len() == 0 {
		return "localhost"
	}
	return b.String()[:min(b.Len(), mostHost)]
}
