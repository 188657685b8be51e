package power_test

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"dewey/test/chaos/tracer"
)

// A node is a file, or a folder if entries is not nil. Numbers of nodes are given out here: inode numbers come again.
type node struct {
	entries map[string]int
	data    []byte
	at      time.Time // of the last change
}

// A tree is all nodes; 0 is the root.
type tree []node

// A step is one thing that may be on the disk or not: entries of folders that appear and go together, or octets of a file.
type step struct {
	sets    []entry
	needs   int // this one is not on the disk unless that step is; -1: none
	file    int // whose octets; -1: sets
	cut     bool
	at      int64
	data    []byte
	event   int
	durable int // it is, when so many events have been
}

// An entry is a name that leads to a node; to -1 if it goes.
type entry struct {
	dir  int
	name string
	node int
}

// A disk is what was there before, and the steps of a trace. What a sync covers is strict, as POSIX has it: a file's sync
// makes its octets durable and not its name; a folder's sync the names in that folder alone. A rename within a folder
// is one step. One to another folder is two: there may be both names for a while, but never neither, as on all file
// systems with a journal.
type disk struct {
	before tree
	inodes map[uint64]int
	steps  []step
}

const (
	never  = math.MaxInt
	sector = 512 // octets of a disk's, which are written or not
)

// newDisk reads what is there. All of it is durable.
func newDisk(root string) (*disk, error) {
	d := &disk{inodes: map[uint64]int{}}
	err := filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		st, err := os.Lstat(path)
		if err != nil {
			return err
		}
		ino := st.Sys().(*syscall.Stat_t).Ino
		n, linked := d.inodes[ino]
		if !linked {
			n = len(d.before)
			new := node{at: st.ModTime()}
			if entry.IsDir() {
				new.entries = map[string]int{}
			} else if new.data, err = os.ReadFile(path); err != nil {
				return err
			}
			d.before, d.inodes[ino] = append(d.before, new), n
		}
		if path != root {
			var above syscall.Stat_t
			if err := syscall.Stat(filepath.Dir(path), &above); err != nil {
				return err
			}
			d.before[d.inodes[above.Ino]].entries[filepath.Base(path)] = n
		}
		return nil
	})
	return d, err
}

// replay takes in a trace; atomic: a rename to another folder is one step too.
func (d *disk) replay(events []tracer.Event, atomic bool) error {
	for i, e := range events {
		s := step{needs: -1, file: -1, event: i, durable: never}
		node := func(inode uint64) int {
			n, ok := d.inodes[inode]
			if !ok {
				s.event = -1
			}
			return n
		}
		switch e.Kind {
		case tracer.Make, tracer.MakeDir:
			n := len(d.before)
			d.before, d.inodes[e.File] = append(d.before, emptyNode(e.Kind)), n
			s.sets = []entry{{node(e.Dir), e.Name, n}}
		case tracer.Link:
			s.sets = []entry{{node(e.Dir2), e.Name2, node(e.File)}}
		case tracer.Unlink:
			s.sets = []entry{{node(e.Dir), e.Name, -1}}
		case tracer.Rename:
			from, to := entry{node(e.Dir), e.Name, -1}, entry{node(e.Dir2), e.Name2, node(e.File)}
			s.sets = []entry{to, from}
			if e.Dir != e.Dir2 && !atomic {
				s.sets = s.sets[:1]
				d.steps = append(d.steps, s)
				s.sets, s.needs = []entry{from}, len(d.steps)-1
			}
		case tracer.Write:
			s.file, s.at, s.data = node(e.File), e.Offset, e.Data
		case tracer.Truncate:
			s.file, s.at, s.cut = node(e.File), e.Offset, true
		case tracer.Sync:
			d.sync(node(e.File), e.Begun, i)
			continue
		default:
			continue
		}
		if s.event < 0 {
			return fmt.Errorf("event %d, %v, of something that nobody has made", i, e)
		}
		d.steps = append(d.steps, s)
	}
	return nil
}

func emptyNode(k tracer.Kind) node {
	if k == tracer.MakeDir {
		return node{entries: map[string]int{}, at: time.Now()}
	}
	return node{at: time.Now()}
}

// sync is event i, which began when so many events had been: what was done by then to that node is durable after it.
func (d *disk) sync(node, begun, i int) {
	for n := range d.steps {
		s := &d.steps[n]
		in := func(e entry) bool { return e.dir == node }
		if s.event >= begun || s.durable <= i+1 || s.file != node && !slices.ContainsFunc(s.sets, in) {
			continue
		}
		s.durable = i + 1
		if s.needs >= 0 {
			d.steps[s.needs].durable = min(d.steps[s.needs].durable, i+1)
		}
	}
}

// What becomes of octets that were not synced.
type loss int

const (
	lost  loss = iota
	kept       // all are there
	torn       // half of them, to the end of a sector
	holes      // the file is as long as it was to be, with NULs in it
	losses
)

// pending are the steps that have been done when so many events have been, and may not be on the disk: of folders, and
// whether there are some of files.
func (d *disk) pending(events int) (names []int, octets bool) {
	for n, s := range d.steps {
		switch {
		case s.event >= events || s.durable <= events:
		case s.file >= 0:
			octets = true
		default:
			names = append(names, n)
		}
	}
	return names, octets
}

// after is the tree that is on the disk then, with those of the pending steps that did say yes to.
func (d *disk) after(events int, did func(step int) bool, of func(file int) loss) tree {
	t := make(tree, len(d.before))
	for n, b := range d.before {
		t[n] = node{maps.Clone(b.entries), b.data, b.at}
	}
	done := make([]bool, len(d.steps))
	left := map[int]int{} // of octets that were not synced, by file
	for n := range d.steps {
		if s := &d.steps[n]; s.file >= 0 && s.event < events && s.durable > events {
			left[s.file] += len(s.data)
		}
	}
	for file := range left {
		left[file] /= 2
	}
	for n := range d.steps {
		s := &d.steps[n]
		if s.event >= events {
			continue
		}
		sure := s.durable <= events
		if s.file < 0 {
			if done[n] = sure || did(n) && (s.needs < 0 || done[s.needs]); done[n] {
				for _, e := range s.sets {
					if e.node < 0 {
						delete(t[e.dir].entries, e.name)
					} else {
						t[e.dir].entries[e.name] = e.node
					}
				}
			}
			continue
		}
		file, data := &t[s.file], s.data
		if !sure {
			switch of(s.file) {
			case lost:
				continue
			case holes:
				data = make([]byte, len(data))
			case torn:
				data = data[:min(len(data), left[s.file])]
				left[s.file] -= len(data)
				if left[s.file] == 0 && len(data) < len(s.data) {
					data = data[:max(0, (s.at+int64(len(data)))/sector*sector-s.at)]
				}
			}
		}
		end := max(int64(len(file.data)), s.at+int64(len(data)))
		if s.cut {
			end = s.at
		} else if len(data) == 0 {
			continue
		}
		now := make([]byte, end)
		copy(now, file.data)
		if !s.cut {
			copy(now[s.at:], data)
		}
		file.data = now
	}
	return t
}

// find finds a node by its path, as mail/mrose; nil if it is not there.
func (t tree) find(path string) *node {
	n := &t[0]
	for _, name := range strings.Split(path, "/") {
		next, ok := n.entries[name]
		if !ok {
			return nil
		}
		n = &t[next]
	}
	return n
}

// sum tells trees apart.
func (t tree) sum(paths []string) [sha256.Size]byte {
	h := sha256.New()
	for _, path := range paths {
		fmt.Fprintf(h, "%q\n", path)
		if n := t.find(path); n != nil {
			t.write(h, n)
		}
	}
	return [sha256.Size]byte(h.Sum(nil))
}

func (t tree) write(w io.Writer, n *node) {
	if n.entries == nil {
		sum := sha256.Sum256(n.data)
		fmt.Fprintf(w, "%x\n", sum)
		return
	}
	fmt.Fprintln(w, "{")
	for _, name := range slices.Sorted(maps.Keys(n.entries)) {
		fmt.Fprintf(w, "%q %d ", name, n.entries[name])
		t.write(w, &t[n.entries[name]])
	}
	fmt.Fprintln(w, "}")
}

// make makes a node and what is below it on a real disk.
func (t tree) make(n *node, path string) error {
	return t.makeAll(n, path, map[*node]string{})
}

func (t tree) makeAll(n *node, path string, made map[*node]string) error {
	if n.entries == nil {
		if first := made[n]; first != "" {
			return os.Link(first, path)
		}
		made[n] = path
		return errors.Join(os.WriteFile(path, n.data, 0o600), os.Chtimes(path, n.at, n.at))
	}
	if err := os.MkdirAll(path, 0o700); err != nil {
		return err
	}
	for name, below := range n.entries {
		if err := t.makeAll(&t[below], filepath.Join(path, name), made); err != nil {
			return err
		}
	}
	return nil
}

// differs says how the tree is not what is on a real disk; empty if it is that.
func (t tree) differs(n *node, path string) string {
	if n.entries == nil {
		text, err := os.ReadFile(path)
		if err != nil || !bytes.Equal(text, n.data) {
			return fmt.Sprintf("%s: %d octets, the trace says %d; %v", path, len(text), len(n.data), err)
		}
		return ""
	}
	found, err := os.ReadDir(path)
	if err != nil || len(found) != len(n.entries) {
		return fmt.Sprintf("%s: %d names, the trace says %d; %v", path, len(found), len(n.entries), err)
	}
	for name, below := range n.entries {
		if what := t.differs(&t[below], filepath.Join(path, name)); what != "" {
			return what
		}
	}
	return ""
}
