package history

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"
)

// maxQueue is how many octets may wait for the disk.
const maxQueue = 16 << 20

// A queue holds the lines that are to be written. Run alone takes.
type queue struct {
	mu      sync.Mutex
	waiting []byte
	spare   []byte // for when waiting is taken
	lost    int    // lines, since it was last told
	failing bool   // and that was told
}

// add adds a line, or counts it as lost; it says so when that begins.
func (q *queue) add(line []byte) (told bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.waiting)+len(line) > maxQueue {
		told, q.failing = !q.failing, true
		q.lost++
		return told
	}
	q.waiting = append(q.waiting, line...)
	return false
}

// take returns what waits. It is good until done.
func (q *queue) take() []byte {
	q.mu.Lock()
	defer q.mu.Unlock()
	data := q.waiting
	q.waiting, q.spare = q.spare[:0], data
	return data
}

// done says what became of what was taken. It returns the error if it is the first since all was well, and once
// all is well again how many lines were lost.
func (q *queue) done(lost int, err error) (told int, began error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if cap(q.spare) > maxQueue/16 {
		q.spare = nil // a rare heap need not stay
	}
	q.lost += lost
	if err != nil {
		if !q.failing {
			began = err
		}
		q.failing = true
		return 0, began
	}
	told, q.lost, q.failing = q.lost, 0, false
	return told, nil
}

// A file is the day's. One goroutine uses it.
type file struct {
	dir      string
	day      string
	f        *os.File
	torn     bool // it may not end in a line end
	unsynced bool
	// Write and Sync, if nil. Tests have others.
	out   func(*os.File, []byte) (int, error)
	flush func(*os.File) error
}

// write appends lines to the file of the day. On error it says how many are lost.
func (f *file) write(data []byte, now time.Time) (lost int, err error) {
	if err := f.open(now.UTC().Format(time.DateOnly)); err != nil {
		return bytes.Count(data, []byte("\n")), err
	}
	if f.torn {
		if _, err := f.append([]byte("\n")); err != nil { // what was begun is a line that is skipped
			f.close()
			return bytes.Count(data, []byte("\n")), err
		}
		f.torn = false
	}
	n, err := f.append(data)
	if err != nil {
		f.close() // open looks how it ends
		return bytes.Count(data[n:], []byte("\n")), err
	}
	return 0, nil
}

func (f *file) append(data []byte) (int, error) {
	f.unsynced = true
	if f.out != nil {
		return f.out(f.f, data)
	}
	return f.f.Write(data) //nolint:wrapcheck // names the file
}

// open opens the day's file, if it is not open.
func (f *file) open(day string) error {
	if f.f != nil && f.day == day {
		return nil
	}
	if f.f != nil {
		_ = f.sync()
		f.close()
	}
	if err := os.MkdirAll(f.dir, 0o700); err != nil {
		return fmt.Errorf("history: %w", err)
	}
	opened, err := os.OpenFile(filepath.Join(f.dir, day+suffix), os.O_RDWR|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return fmt.Errorf("history: %w", err)
	}
	f.f, f.day = opened, day
	info, err := opened.Stat()
	if err == nil && info.Size() == 0 {
		_, err = f.append([]byte(versionLine))
	} else if err == nil {
		err = f.goOn(info.Size())
	}
	if err != nil {
		f.close()
		return fmt.Errorf("history: %w", err)
	}
	return nil
}

// goOn looks how the file begins, to which another version may not add, and how it ends.
func (f *file) goOn(size int64) error {
	start, last := make([]byte, min(size, 256)), make([]byte, 1)
	if _, err := f.f.ReadAt(start, 0); err != nil {
		return err //nolint:wrapcheck // names the file
	}
	head, _, _ := bytes.Cut(start, []byte("\n"))
	if err := readable(head); err != nil {
		return fmt.Errorf("%s: %w", f.f.Name(), err)
	}
	_, err := f.f.ReadAt(last, size-1)
	f.torn = last[0] != '\n'
	return err //nolint:wrapcheck // names the file
}

func (f *file) sync() error {
	if f.f == nil || !f.unsynced {
		return nil
	}
	f.unsynced = false
	if f.flush != nil {
		return f.flush(f.f)
	}
	return f.f.Sync() //nolint:wrapcheck // names the file
}

func (f *file) close() {
	if f.f != nil {
		_ = f.f.Close() // it was synced, or has a fault that was told
	}
	f.f, f.torn, f.unsynced = nil, false, false
}

// days lists the days that a folder has files of, in their order.
func days(dir string) ([]time.Time, error) {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("history: %w", err)
	}
	var list []time.Time
	for _, e := range entries {
		name, ok := strings.CutSuffix(e.Name(), suffix)
		if day, err := time.Parse(time.DateOnly, name); ok && err == nil && e.Type().IsRegular() {
			list = append(list, day)
		}
	}
	slices.SortFunc(list, time.Time.Compare)
	return list, nil
}

// prune removes the files of days that ended longer ago than keep; of all days if that is 0.
func prune(dir string, keep time.Duration, now time.Time) (removed []string, err error) {
	list, err := days(dir)
	if err != nil {
		return nil, err
	}
	var errs []error
	for _, day := range list {
		if keep > 0 && day.Add(24*time.Hour+keep).After(now) {
			continue
		}
		name := day.Format(time.DateOnly) + suffix
		if err := os.Remove(filepath.Join(dir, name)); err != nil {
			errs = append(errs, err)
			continue
		}
		removed = append(removed, name)
	}
	return removed, errors.Join(errs...)
}
