package maildir

import (
	"fmt"
	"hash/maphash"
	"sync"
)

// An inhabited knows the Maildirs in which this process has seen mail, so that one that is gone as a whole (a file system
// that is not mounted, a folder moved away) is not made anew, and empty: clients would forget what they have, and mail
// would be written to where nobody finds it (trap 19). Many goroutines may use it.
type inhabited struct {
	mu    sync.Mutex
	seed  maphash.Seed
	roots map[uint64]struct{}
}

// mostInhabited bounds the memory: some 40 MB. Of more Maildirs it is not known.
const mostInhabited = 1 << 20

// note says whether there is mail in a Maildir.
func (h *inhabited) note(root string, mail bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.roots == nil {
		h.seed, h.roots = maphash.MakeSeed(), make(map[uint64]struct{})
	}
	key := maphash.String(h.seed, root)
	if !mail {
		delete(h.roots, key)
	} else if len(h.roots) < mostInhabited {
		h.roots[key] = struct{}{}
	}
}

// vanished is an error if there was mail in a Maildir that is now missing.
func (h *inhabited) vanished(root string) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.roots == nil {
		return nil
	}
	if _, known := h.roots[maphash.String(h.seed, root)]; !known {
		return nil
	}
	return fmt.Errorf("%s has vanished, or its new/ or cur/, and there was mail in it: is a file system not mounted? If it was removed on purpose, to make it again, with new/, cur/ and tmp/, would be right", root)
}
