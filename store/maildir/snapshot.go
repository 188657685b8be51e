package maildir

import (
	"container/list"
	"sync"

	"dewey/maildrop"
)

// A snapshot is a scan and what proves it. It is never changed: sessions share it.
type snapshot struct {
	new, cur, list proof
	validity       uint32
	next           uint32 // lowest uid never used
	lines          int    // records in the list, those of removed messages too
	witnessed      bool   // the validity stands in a file of its own

	items    []item
	messages []maildrop.Message // of items, in the same order
	hidden   int                // how many of items are
	extra    map[int][]place    // other names that a message's file has
}

// An item is what a session needs to find a message.
type item struct {
	name   string
	stored int64 // size of the file; -1: not known
	uid    uint32
	in     folder
	known  bool // measured, and stored is the size it was measured at
	hidden bool // removed by its owner, and kept: see KeyRemoved
}

func (it *item) place() place { return place{it.name, it.in} }
func (it *item) base() string { return it.place().base() }

// strike leaves out messages whose records were struck from the list, or say that they are gone: a file that comes under
// one of their names is not known (see guard).
func (s *snapshot) strike(removed func(uid uint32) bool) {
	old := *s
	s.items, s.messages, s.extra, s.hidden = nil, nil, nil, 0
	s.new.settled, s.cur.settled = false, false
	for i := range old.items {
		if removed(old.items[i].uid) {
			continue
		}
		if places := old.extra[i]; places != nil {
			if s.extra == nil {
				s.extra = map[int][]place{}
			}
			s.extra[len(s.items)] = places
		}
		s.add(old.items[i], old.messages[i])
	}
}

func (s *snapshot) add(it item, m maildrop.Message) {
	s.items = append(s.items, it)
	s.messages = append(s.messages, m)
	if it.hidden {
		s.hidden++
	}
}

// octets is about how much memory the snapshot takes.
func (s *snapshot) octets() int64 {
	const each = 40 + 40 + 16 + 24 // item, message, unique-id, what getdents has beside a name
	n := int64(500)
	for i := range s.items {
		n += each + int64(len(s.items[i].name))
	}
	return n
}

// A cache keeps the snapshots that were used last.
type cache struct {
	limit int64

	mu    sync.Mutex
	size  int64
	order list.List // of *cached, the one used last in front
	byID  map[fileID]*list.Element
}

type cached struct {
	id   fileID
	snap *snapshot
	size int64

	dates *dates // when the messages were delivered; nil: nobody has asked yet
}

func (c *cache) get(id fileID) *snapshot {
	c.mu.Lock()
	defer c.mu.Unlock()
	e, ok := c.byID[id]
	if !ok {
		return nil
	}
	c.order.MoveToFront(e)
	return e.Value.(*cached).snap
}

// put keeps a snapshot in place of an older one of the same Maildir.
func (c *cache) put(id fileID, s *snapshot) {
	entry := &cached{id: id, snap: s, size: s.octets()}
	c.mu.Lock()
	defer c.mu.Unlock()
	if e, ok := c.byID[id]; ok {
		entry.dates = e.Value.(*cached).dates
		entry.size += entry.dates.octets()
		c.drop(e)
	}
	if entry.size > c.limit {
		return
	}
	if c.byID == nil {
		c.byID = map[fileID]*list.Element{}
	}
	c.byID[id] = c.order.PushFront(entry)
	for c.size += entry.size; c.size > c.limit; {
		c.drop(c.order.Back())
	}
}

func (c *cache) drop(e *list.Element) {
	entry := c.order.Remove(e).(*cached)
	delete(c.byID, entry.id)
	c.size -= entry.size
}

// keepSnapshot keeps a box's scan for its next session.
func (b *box) keepSnapshot(snap *snapshot) {
	b.store.cache.put(b.id, snap)
	b.store.mail.note(b.root, len(snap.items) > 0)
}
