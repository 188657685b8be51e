package lmtp

import (
	"crypto/sha256"
	"encoding/binary"
	"slices"
	"sync"
	"time"

	"dewey/maildrop"
)

const (
	memorySpan = 7 * 24 * time.Hour // longer than senders try
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
