package lmtp

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"slices"
	"sync"
	"time"

	"dewey/maildrop"
)

const (
	// memorySpan is longer than any pause between two tries. Postfix waits 4000 s at most (maximal_backoff_time),
	// sendmail comes with every queue run, and Exim every 15 minutes at first and every 6 hours at last; the rest is for
	// the outage that took the reply away.
	memorySpan = 24 * time.Hour
	memorySize = 10_000
)

// memory knows who has a message of which the sender was not, or perhaps not, told so: see the package's
// comment. It is bounded, and forgets the oldest first; to forget is to deliver twice, never to lose.
type memory struct {
	mu    sync.Mutex
	since map[mark]time.Time
	order []mark
}

// A mark is one message for one owner by one address.
type mark [sha256.Size]byte

// An identity tells whether a message has a Message-ID: no two messages have the same (RFC 5322 section 3.6.4). Equal
// octets without one, such as cron's, are likelier two messages, and none of them may be swallowed.
type identity struct {
	found bool
	over  bool   // the header section has ended
	line  []byte // the beginning of the line that has not ended
}

// look takes the next octets of a message.
func (i *identity) look(p []byte) {
	const enough = len("Message-ID") + 10 // blanks may stand before the colon: RFC 5322 section 4.5.4
	for len(p) > 0 && !i.over {
		part, rest, ended := bytes.Cut(p, []byte("\n"))
		i.line = append(i.line, part[:min(len(part), enough-len(i.line))]...)
		if !ended {
			return
		}
		name, _, is := bytes.Cut(i.line, []byte(":"))
		i.found = i.found || is && bytes.EqualFold(bytes.TrimRight(name, " \t"), []byte("Message-ID"))
		i.over = len(bytes.TrimRight(i.line, "\r")) == 0
		i.line, p = i.line[:0], rest
	}
}

// marked computes a mark. Lengths keep the parts apart.
func marked(content []byte, from, address string, owner maildrop.Owner) mark {
	h := sha256.New()
	for _, part := range []string{string(content), from, address, owner.Name, owner.Home} {
		_, _ = h.Write(binary.BigEndian.AppendUint64(nil, uint64(len(part))))
		_, _ = h.Write([]byte(part))
	}
	return mark(h.Sum(nil))
}

func (m *memory) add(marks []mark) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.since == nil {
		m.since = make(map[mark]time.Time)
	}
	now := time.Now()
	for _, k := range marks {
		if _, ok := m.since[k]; ok {
			continue
		}
		for len(m.order) > 0 && (len(m.order) >= memorySize || now.Sub(m.since[m.order[0]]) > memorySpan) {
			delete(m.since, m.order[0])
			m.order = m.order[1:]
		}
		m.since[k] = now
		m.order = append(m.order, k)
	}
}

// take says whether a mark is there, and uses it up: it stands for one try that comes again, and another message of
// the same octets is another message.
func (m *memory) take(k mark) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	since, ok := m.since[k]
	if ok {
		delete(m.since, k)
		m.order = slices.DeleteFunc(m.order, func(o mark) bool { return o == k })
	}
	return ok && time.Since(since) <= memorySpan
}
