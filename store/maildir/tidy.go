package maildir

import (
	"errors"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// abandoned is how old a file in tmp/ must be for its delivery to have died. Maildir: 36 hours.
	abandoned = 36 * time.Hour
	// tidyEvery is how often a Maildir's tmp/ is looked through at most.
	tidyEvery = time.Hour
	// mostTidied is how many files are removed from a tmp/ at once, so that no delivery waits long.
	mostTidied = 1000
	// mostKnown bounds the memory for what was tidied. What is forgotten is only done again.
	mostKnown = 100_000
)

// tidied is what deliveries of this process have put in order. The zero value is ready for use.
type tidied struct {
	mu   sync.Mutex
	byID map[fileID]tidiness
}

type tidiness struct {
	firm bool      // the Maildir itself is durable
	tmp  time.Time // when tmp/ was looked through
}

// due says what is to be done to a Maildir, and takes it that tmp/ is tidied now.
func (t *tidied) due(id fileID, now time.Time) (firm, tmp bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	state, known := t.byID[id]
	tmp = !known || now.Sub(state.tmp) >= tidyEvery
	if !tmp {
		return !state.firm, false
	}
	if t.byID == nil || !known && len(t.byID) >= mostKnown {
		t.byID = map[fileID]tidiness{}
	}
	state.tmp = now
	t.byID[id] = state
	return !state.firm, true
}

func (t *tidied) firm(id fileID) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if state, known := t.byID[id]; known {
		state.firm = true
		t.byID[id] = state
	}
}

// forget notes that a Maildir was made: another one may have had its number.
func (t *tidied) forget(id fileID) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.byID, id)
}

// tidy puts a Maildir in order for a delivery.
func (b *box) tidy() error {
	firm, tmp := b.store.tidied.due(b.id, time.Now())
	if tmp {
		if err := b.tidyTmp(time.Now()); err != nil {
			b.log.Warn("tmp/ is not tidied", "error", err)
		}
	}
	if !firm {
		return nil
	}
	if err := b.makeFirm(); err != nil {
		return err
	}
	b.store.tidied.firm(b.id)
	return nil
}

// makeFirm makes the Maildir durable, with the folders above it that may have been made for it: a message is
// not safe in a folder that a crash may take away. Those that have been there for a while are on disk.
func (b *box) makeFirm() error {
	for path := b.file(inNew.String()); path != "/"; {
		st, err := stampAt(path)
		if err != nil {
			return err
		}
		if st.age(time.Now()) > youngList {
			return nil
		}
		path = filepath.Dir(path)
		b.tell("sync", path)
		err = b.failing("sync", path)
		if err == nil {
			err = syncFolder(path)
		}
		switch {
		case errors.Is(err, unix.EACCES), errors.Is(err, unix.EPERM), errors.Is(err, unix.EROFS), errors.Is(err, unix.EINVAL):
			return nil // not a folder that we could have made something in
		case err != nil:
			return err
		}
	}
	return nil
}

// tidyTmp removes what deliveries that died have left in tmp/. The time of the last change counts too: who
// gives a file an old date has just done so.
func (b *box) tidyTmp(now time.Time) error {
	l, _, err := b.read(inTmp)
	if errors.Is(err, unix.ENOENT) {
		return nil
	}
	if err != nil {
		return err
	}
	dir, path, err := b.openFolder(inTmp)
	if err != nil {
		return err
	}
	defer unix.Close(dir)
	removed := 0
	for _, name := range l.names {
		var st unix.Stat_t
		if unix.Fstatat(dir, name, &st, unix.AT_SYMLINK_NOFOLLOW) != nil || st.Mode&unix.S_IFMT != unix.S_IFREG {
			continue
		}
		last := time.Unix(0, max(latest(&st), st.Atim.Nano()))
		if now.Sub(last) < abandoned || removed == mostTidied {
			continue
		}
		if err := unix.Unlinkat(dir, name, 0); err != nil && !errors.Is(err, unix.ENOENT) {
			return err
		}
		removed++
	}
	if removed > 0 {
		b.log.Info("removed what deliveries that died have left in tmp/", "folder", path, "files", removed)
	}
	return nil
}
