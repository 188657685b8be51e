package maildir

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"dewey/maildrop"
	"dewey/store/maildir/uidlist"
)

// A folder is one of the two in which messages are, or the one in which they are written.
type folder uint8

const (
	inNew folder = iota
	inCur
	inTmp
)

func (f folder) String() string { return [...]string{"new", "cur", "tmp"}[f] }

// A place is where a message's file is.
type place struct {
	name string
	in   folder
}

func (p place) base() string { return uidlist.Base(p.name) }

// A stamp is what proves that a file or folder is as it was.
type stamp struct {
	id           fileID
	mtime, ctime int64 // nanoseconds since 1970
	size         int64
}

const (
	// settled is how old a change must be when something is read, for the same stamp to prove later
	// that nothing changed since.
	settled = 2 * time.Second
	// tick is more than the coarsest step of the clock that Linux stamps files by.
	tick = 20 * time.Millisecond
)

func stampOf(st *unix.Stat_t) stamp {
	return stamp{fileID{uint64(st.Dev), st.Ino}, st.Mtim.Nano(), st.Ctim.Nano(), st.Size}
}

// step is more than the step of the clock that stamped the file: some file systems have whole seconds.
func (s stamp) step() time.Duration {
	if s.mtime%1e9 == 0 && s.ctime%1e9 == 0 {
		return settled
	}
	return tick
}

func latest(st *unix.Stat_t) int64 { return max(st.Mtim.Nano(), st.Ctim.Nano()) }

// age is how long before t the last change was.
func (s stamp) age(t time.Time) time.Duration {
	return time.Duration(t.UnixNano() - max(s.mtime, s.ctime))
}

// stampAt is the stamp of the file or folder at path itself; the zero stamp if there is none.
func stampAt(path string) (stamp, error) {
	var st unix.Stat_t
	switch err := unix.Lstat(path, &st); {
	case errors.Is(err, unix.ENOENT):
		return stamp{}, nil
	case err != nil:
		return stamp{}, &os.PathError{Op: "lstat", Path: path, Err: err}
	}
	return stampOf(&st), nil
}

// A listing is what a folder holds.
type listing struct {
	stamp   stamp
	stable  bool     // nothing changed while it was read
	settled bool     // the stamp proves it from now on
	names   []string // regular files
	others  []string // what is no regular file and so is not served
}

// openFolder opens new/, cur/ or tmp/, which must be a folder and no link to one. The caller closes it.
func (b *box) openFolder(f folder) (fd int, path string, err error) {
	path = filepath.Join(b.root, f.String())
	fd, err = b.openAt(f.String(), unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW, 0)
	switch {
	case errors.Is(err, unix.ENOTDIR), errors.Is(err, unix.ELOOP):
		return -1, path, fmt.Errorf("%w: %s is not a folder itself", maildrop.ErrDamaged, path)
	case err != nil:
		return -1, path, &os.PathError{Op: "open", Path: path, Err: err}
	}
	return fd, path, nil
}

// scan reads a folder, again if it changes meanwhile. If it never comes to rest the listing has all
// that was seen, each message by its latest name.
func (b *box) scan(ctx context.Context, f folder) (*listing, error) {
	var all *listing
	for range 5 {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		start := time.Now()
		l, after, err := b.read(f)
		if err != nil {
			return nil, err
		}
		if l.stamp == after && l.stamp.age(start) > l.stamp.step() {
			l.stable, l.settled = true, l.stamp.age(start) >= b.store.settle
			return l, nil
		}
		if all == nil {
			all = l
		} else {
			all.merge(l)
		}
	}
	return all, nil
}

// Whereabouts are where messages are now, by base name.
type whereabouts struct {
	places  map[string]place
	settled bool          // what is not there is gone
	pause   time.Duration // after which a scan that was disturbed may come out better
}

func (b *box) whereabouts(ctx context.Context) (w whereabouts, err error) {
	var lists [2]*listing
	for _, f := range []folder{inNew, inCur} {
		if lists[f], err = b.scan(ctx, f); err != nil {
			return w, err
		}
	}
	quiet, err := b.back(ctx, lists[inNew])
	if err != nil {
		return w, err
	}
	w.settled = quiet && lists[inCur].stable
	w.pause = max(lists[inNew].stamp.step(), lists[inCur].stamp.step())
	w.places = make(map[string]place, len(lists[inNew].names)+len(lists[inCur].names))
	for f, l := range lists {
		for _, name := range l.names {
			p := place{name, folder(f)}
			w.places[p.base()] = p
		}
	}
	return w, nil
}

// back adds to l, the listing of new/, what has moved there from cur/ while cur/ was read: mutt moves
// messages back. quiet says that nothing has.
func (b *box) back(ctx context.Context, l *listing) (quiet bool, err error) {
	now, err := b.stampAt(inNew.String())
	if err != nil || now == l.stamp {
		return l.stable, err
	}
	later, err := b.scan(ctx, inNew)
	if err != nil {
		return false, err
	}
	l.merge(later)
	l.stable, l.settled = false, false
	return false, nil
}

// merge adds a later listing. What it has not may be gone, or hidden by a rename.
func (l *listing) merge(later *listing) {
	seen := make(map[string]bool, len(later.names))
	for _, name := range later.names {
		seen[uidlist.Base(name)] = true
	}
	for _, name := range l.names {
		if !seen[uidlist.Base(name)] {
			later.names = append(later.names, name)
		}
	}
	*l = *later
}

// read reads a folder once. The listing has the stamp from before, after is the one from after.
func (b *box) read(f folder) (l *listing, after stamp, err error) {
	fd, path, err := b.openFolder(f)
	if err != nil {
		return nil, stamp{}, err
	}
	defer unix.Close(fd)
	b.tell("readdir", path)
	if err := b.failing("readdir", path); err != nil {
		return nil, stamp{}, err
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return nil, stamp{}, &os.PathError{Op: "fstat", Path: path, Err: err}
	}
	l = &listing{stamp: stampOf(&st), names: []string{}}
	const entry = 128 // octets that a folder of long names has for each, or more
	if n := st.Size / entry; n > 1000 {
		l.names = make([]string, 0, min(n, 1<<20))
	}
	buf := make([]byte, 64<<10)
	for {
		n, err := unix.Getdents(fd, buf)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil { // trap 19: never an empty maildrop
			return nil, stamp{}, &os.PathError{Op: "getdents", Path: path, Err: err}
		}
		if n == 0 {
			break
		}
		if err := b.entries(l, fd, path, string(buf[:n])); err != nil {
			return nil, stamp{}, err
		}
	}
	if err := unix.Fstat(fd, &st); err != nil {
		return nil, stamp{}, &os.PathError{Op: "fstat", Path: path, Err: err}
	}
	return l, stampOf(&st), nil
}

// entries takes the names out of what getdents64 returned, which is one string so that they share it.
func (b *box) entries(l *listing, fd int, path, block string) error {
	const fixed = 19 // inode 8, offset 8, length 2, type 1
	for len(block) >= fixed {
		size := int(binary.NativeEndian.Uint16([]byte(block[16:18])))
		if size < fixed || size > len(block) {
			return &os.PathError{Op: "getdents", Path: path, Err: unix.EIO}
		}
		kind, name := block[18], block[fixed:size]
		block = block[size:]
		if end := strings.IndexByte(name, 0); end >= 0 {
			name = name[:end]
		}
		if name == "" || name[0] == '.' {
			continue
		}
		if name[0] == ':' || strings.ContainsAny(name, "\r\n") {
			b.log.Warn("a file's name has no base name or a line end, it is not served", "folder", path, "name", name)
			continue
		}
		if kind == unix.DT_UNKNOWN {
			var st unix.Stat_t
			switch err := unix.Fstatat(fd, name, &st, unix.AT_SYMLINK_NOFOLLOW); {
			case errors.Is(err, unix.ENOENT):
				continue
			case err != nil:
				return &os.PathError{Op: "lstat", Path: filepath.Join(path, name), Err: err}
			case st.Mode&unix.S_IFMT == unix.S_IFREG:
				kind = unix.DT_REG
			}
		}
		if kind == unix.DT_REG {
			l.names = append(l.names, name)
		} else {
			l.others = append(l.others, name)
		}
	}
	return nil
}
