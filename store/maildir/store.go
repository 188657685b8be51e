package maildir

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"dewey/maildrop"
)

const (
	defaultLockWait    = 2 * time.Second
	defaultCacheOctets = 256 << 20
)

// Options of a Store.
type Options struct {
	// Path returns the absolute path of an owner's Maildir. It is required, and is called by many
	// goroutines at once. A Maildir that is not there is made, its parents too, with mode 0700; by root for
	// whom the folder belongs to in which it is made.
	Path func(maildrop.Owner) (string, error)

	// Logger gets what an administrator should know. Nil: slog.Default().
	Logger *slog.Logger

	// LockWait is how long a login waits for a session that is under way, and for another program
	// that writes the list (200 ms at least). 0: 2 seconds. Negative: not at all.
	LockWait time.Duration

	// CacheOctets bounds the memory that scans take between sessions; a message takes about 200
	// octets. 0: 256 MiB. Negative: nothing is kept.
	CacheOctets int64

	// Quota returns what holds where an owner's own Quota says nothing. It is called by many goroutines at once.
	// Nil: no bound.
	Quota func() maildrop.Quota
}

// A Store opens Maildirs. Its methods may be called from many goroutines at once.
type Store struct {
	path     func(maildrop.Owner) (string, error)
	log      *slog.Logger
	lockWait time.Duration
	locks    locks
	cache    cache
	syncs    syncs
	tidied   tidied
	quota    func() maildrop.Quota
	tallies  tallies
	mail     inhabited
	noted    atomic.Bool // reads of messages are noted in their files: see openFile
	jobs     jobs

	// Set by tests.
	fault atomic.Pointer[func(op, path string) error] // an error to be met instead of doing op
	trace atomic.Pointer[func(op, path string)]       // told of each folder or list that is read

	settle time.Duration // the constant settled, unless a test says otherwise
	large  int           // the constant largeRemoval, unless a test says otherwise
}

// New returns a Store. It panics if opts.Path is nil.
func New(opts Options) *Store {
	if opts.Path == nil {
		panic("maildir: Options.Path is nil")
	}
	s := &Store{path: opts.Path, log: opts.Logger, lockWait: opts.LockWait, quota: opts.Quota, settle: settled, large: largeRemoval}
	if s.log == nil {
		s.log = slog.Default()
	}
	if s.lockWait == 0 {
		s.lockWait = defaultLockWait
	}
	s.cache.limit = opts.CacheOctets
	if opts.CacheOctets == 0 {
		s.cache.limit = defaultCacheOctets
	}
	return s
}

// Open implements maildrop.Store. It returns maildrop.ErrDamaged if new/ or cur/ is no folder, or if
// the list has more than a few malformed lines. What holds for the owner's own Maildir holds for each folder that he
// sees: if one of them can't be opened, none is.
func (s *Store) Open(ctx context.Context, owner maildrop.Owner) (maildrop.Maildrop, error) {
	d, err := s.session(ctx, owner)
	if err != nil {
		return nil, err
	}
	switch {
	case d.home != "":
		return s.alone(owner, d)
	case owner.View.Folder == "" && len(owner.Life.Folders) > 0:
		return s.include(ctx, owner, d)
	}
	return d.shown(owner.View), nil
}

// session locks the owner's Maildir, or the folder in it that he asks for, and takes the scan.
func (s *Store) session(ctx context.Context, owner maildrop.Owner) (*session, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if folder := owner.View.Folder; folder != "" && !isInbox(folder) {
		b, err := s.folder(owner)
		if err != nil {
			return nil, err
		}
		d, err := s.enter(ctx, b, owner, s.lockWait)
		if err != nil {
			b.unbind()
			if b.vanished() {
				err = fmt.Errorf("%w: %q", maildrop.ErrNoFolder, folder)
			}
			return nil, err
		}
		return d, nil
	}
	b, err := s.again(owner)
	if err != nil {
		return nil, err
	}
	if b != nil {
		if d, err := s.enter(ctx, b, owner, s.lockWait); !errors.Is(err, fs.ErrNotExist) {
			return d, err
		}
	}
	if b, _, err = s.locate(owner); err != nil {
		return nil, err
	}
	return s.enter(ctx, b, owner, s.lockWait)
}

// again is locate for a Maildir that was open before, of which there is a scan: nothing is looked at but whether it is
// the same. What it lacks by now is fs.ErrNotExist to who opens it; nil if locate is to look.
func (s *Store) again(owner maildrop.Owner) (*box, error) {
	root, err := s.rootOf(owner)
	if err != nil {
		return nil, err
	}
	var st unix.Stat_t
	if unix.Stat(root, &st) != nil || st.Mode&unix.S_IFMT != unix.S_IFDIR {
		return nil, nil
	}
	if b := s.boxAt(root, &st); s.cache.get(b.id) != nil {
		return b, nil
	}
	return nil, nil
}

// enter locks a Maildir, waiting for that as long as it may, and takes the scan.
func (s *Store) enter(ctx context.Context, b *box, owner maildrop.Owner, wait time.Duration) (*session, error) {
	lock, err := s.locks.take(ctx, b, wait)
	if err != nil {
		return nil, err
	}
	opened := false
	defer func() { // also after a panic, or the maildrop stays locked
		if !opened {
			_ = lock.release()
		}
	}()
	d, err := b.open(ctx, lock, owner)
	if err != nil {
		return nil, err
	}
	opened = true
	return d, nil
}

// locate finds the owner's Maildir, or makes it, and says whose it is.
func (s *Store) locate(owner maildrop.Owner) (*box, *unix.Stat_t, error) {
	root, err := s.rootOf(owner)
	if err != nil {
		return nil, nil, err
	}
	st, made, err := s.prepare(root)
	if err != nil {
		return nil, nil, err
	}
	b := s.boxAt(root, st)
	if made {
		s.tidied.forget(b.id)
	}
	return b, st, nil
}

func (s *Store) boxAt(root string, st *unix.Stat_t) *box {
	return &box{store: s, root: root, id: fileID{uint64(st.Dev), st.Ino}, log: s.log.With("maildir", root)}
}

func (s *Store) rootOf(owner maildrop.Owner) (string, error) {
	root, err := s.path(owner)
	switch {
	case err != nil:
		return "", fmt.Errorf("path of %q's Maildir: %w", owner.Name, err)
	case !filepath.IsAbs(root):
		return "", fmt.Errorf("path of %q's Maildir is not absolute: %q", owner.Name, root)
	}
	return root, nil
}

// A box is one Maildir. A session that works on it has locked it.
type box struct {
	store *Store
	root  string
	id    fileID
	log   *slog.Logger

	// Of a folder's: the owner's own Maildir, in which it is, and the folder's name as in maildrop.Life.
	home, name string
	served     string // the suffix of the unique-ids that are served: see distinct
	bound      int    // the descriptor that it is bound to, plus one; 0: none
}

func (b *box) file(name string) string { return filepath.Join(b.root, name) }

// failing is the error that a test wants op to meet.
func (b *box) failing(op, path string) error {
	if fault := b.store.fault.Load(); fault != nil {
		return (*fault)(op, path)
	}
	return nil
}

func (b *box) tell(op, path string) {
	if trace := b.store.trace.Load(); trace != nil {
		(*trace)(op, path)
	}
}

// prepare finds the Maildir, or makes what is missing of it.
func (s *Store) prepare(root string) (whose *unix.Stat_t, made bool, err error) {
	var st unix.Stat_t
	err = unix.Stat(root, &st)
	if err == nil && st.Mode&unix.S_IFMT == unix.S_IFDIR {
		missing := false
		for _, f := range []folder{inNew, inCur} {
			var sub unix.Stat_t
			switch err := unix.Lstat(filepath.Join(root, f.String()), &sub); {
			case errors.Is(err, unix.ENOENT):
				missing = true
			case err != nil:
				return nil, false, &os.PathError{Op: "lstat", Path: filepath.Join(root, f.String()), Err: err}
			}
		}
		if !missing {
			return &st, false, nil
		}
		if (&box{root: root}).listsMail() { // an empty maildrop would make clients forget what they have (trap 19)
			return nil, false, fmt.Errorf("%s has a list of messages but lacks new/ or cur/: is it being moved or restored?", root)
		}
	}
	switch {
	case err == nil && st.Mode&unix.S_IFMT != unix.S_IFDIR:
		return nil, false, fmt.Errorf("%w: %s is not a folder", maildrop.ErrDamaged, root)
	case err != nil && !errors.Is(err, unix.ENOENT):
		return nil, false, &os.PathError{Op: "stat", Path: root, Err: err}
	}
	if err := s.mail.vanished(root); err != nil {
		return nil, false, err
	}
	if err := makeAll(root); err != nil {
		return nil, false, fmt.Errorf("making a Maildir: %w", err)
	}
	if err := unix.Stat(root, &st); err != nil {
		return nil, false, &os.PathError{Op: "stat", Path: root, Err: err}
	}
	b := box{root: root}
	for _, name := range []string{"tmp", "new", "cur"} {
		if err := b.makeFolder(name, &st); err != nil && !errors.Is(err, os.ErrExist) {
			return nil, false, fmt.Errorf("making a Maildir: %w", err)
		}
	}
	return &st, true, syncFolder(root)
}

// listsMail says that there is a list with a record in it.
func (b *box) listsMail() bool {
	file, _, err := b.openPlain(listName)
	if err != nil {
		return false
	}
	defer file.Close()
	start := make([]byte, 4096) // more than a header has
	n, _ := io.ReadFull(file, start)
	_, records, _ := bytes.Cut(start[:n], []byte("\n"))
	return len(records) > 0
}

// adoptFile gives a file or folder that root made in somebody's Maildir to him. Who is not root can still keep the
// group, so that others of it, Dovecot for one, can go on with it.
func adoptFile(file *os.File, owner *unix.Stat_t) error {
	if err := adopt(int(file.Fd()), owner); err != nil {
		return &os.PathError{Op: "chown", Path: file.Name(), Err: err}
	}
	return nil
}

func adopt(fd int, owner *unix.Stat_t) error {
	if os.Geteuid() != 0 {
		if int(owner.Gid) != os.Getegid() {
			_ = unix.Fchown(fd, -1, int(owner.Gid)) // refused to who is not in it
		}
		return nil
	}
	if owner.Uid == 0 {
		return nil
	}
	return unix.Fchown(fd, int(owner.Uid), int(owner.Gid))
}

// syncFolder makes what was made, renamed or removed in a folder durable.
func syncFolder(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}
