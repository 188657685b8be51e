package mailfile

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"dewey/store/maildir/uidlist"
)

// A folder is a Maildir, which others may use meanwhile.
type folder struct {
	root   string
	files  []string // as below root: "cur/NAME"
	at     int
	open   *os.File
	gone   int
	nested []string // folders of Maildir++
}

func openMaildir(root string) (*folder, error) {
	f := &folder{root: root}
	for _, sub := range []string{"new", "cur"} {
		if st, err := os.Stat(filepath.Join(root, sub)); err != nil || !st.IsDir() {
			return nil, fmt.Errorf("%s %w", root, ErrNoMaildir)
		}
	}
	var err error
	if f.files, err = f.list(); err != nil {
		return nil, err
	}
	slices.SortFunc(f.files, func(a, b string) int {
		a, b = filepath.Base(a), filepath.Base(b)
		return cmp.Or(uidlist.CompareNames(a, b), cmp.Compare(a, b))
	})
	entries, _ := os.ReadDir(root) // for a note only
	for _, e := range entries {
		if st, err := os.Stat(filepath.Join(root, e.Name(), "cur")); err == nil && st.IsDir() && e.Name()[0] == '.' {
			f.nested = append(f.nested, e.Name())
		}
	}
	return f, nil
}

// list reads new/ first: mail moves from there to cur/. A message that is met in both is one.
func (f *folder) list() ([]string, error) {
	var files []string
	seen := map[string]bool{}
	for _, sub := range []string{"new", "cur"} {
		dir, err := os.Open(filepath.Join(f.root, sub))
		if err != nil {
			return nil, err //nolint:wrapcheck // names it
		}
		names, err := dir.Readdirnames(-1)
		if err := errors.Join(err, dir.Close()); err != nil {
			return nil, err
		}
		for _, name := range names {
			if base := uidlist.Base(name); name[0] != '.' && base != "" && !seen[base] {
				seen[base] = true
				files = append(files, sub+"/"+name)
			}
		}
	}
	return files, nil
}

func (f *folder) next() (Item, error) {
	if err := f.close(); err != nil {
		return Item{}, err
	}
	for f.at < len(f.files) {
		name := f.files[f.at]
		f.at++
		file, at, err := f.file(name)
		if errors.Is(err, fs.ErrNotExist) {
			file, at, err = f.moved(name)
		}
		switch {
		case errors.Is(err, fs.ErrNotExist):
			f.gone++
			continue
		case err != nil:
			return Item{}, err
		case file == nil: // no message
			continue
		}
		f.open = file
		return Item{Name: name, At: at, Body: file}, nil
	}
	return Item{}, io.EOF
}

// file opens a message; nil if it is not a regular file.
func (f *folder) file(name string) (*os.File, time.Time, error) {
	file, err := os.OpenFile(filepath.Join(f.root, name), os.O_RDONLY|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0)
	if errors.Is(err, syscall.ELOOP) || errors.Is(err, syscall.ENXIO) {
		return nil, time.Time{}, nil
	}
	if err != nil {
		return nil, time.Time{}, err //nolint:wrapcheck // names it
	}
	st, err := file.Stat()
	if err != nil || !st.Mode().IsRegular() {
		return nil, time.Time{}, errors.Join(err, file.Close())
	}
	// Servers give a file the time of delivery. It is later than that in the name if the file was copied, and
	// earlier if somebody has put an older message there.
	at := st.ModTime()
	if named, ok := nameTime(name); ok && named.Before(at) {
		at = named
	}
	return file, at, nil
}

// nameTime is the time in a file's name.
func nameTime(name string) (time.Time, bool) {
	seconds, _, _ := strings.Cut(filepath.Base(name), ".")
	n, err := strconv.ParseInt(seconds, 10, 64)
	return time.Unix(n, 0), err == nil && n > 500_000_000
}

// moved finds a file whose flags have changed, or that was moved to cur/.
func (f *folder) moved(name string) (*os.File, time.Time, error) {
	files, err := f.list()
	if err != nil {
		return nil, time.Time{}, err
	}
	base := uidlist.Base(filepath.Base(name))
	for _, other := range files {
		if uidlist.Base(filepath.Base(other)) == base {
			return f.file(other)
		}
	}
	return nil, time.Time{}, fs.ErrNotExist
}

func (f *folder) notes() []string {
	var notes []string
	if f.gone > 0 {
		notes = append(notes, fmt.Sprintf("%d messages were removed while it was read", f.gone))
	}
	if len(f.nested) > 0 {
		notes = append(notes, "the folders in it are left out: "+strings.Join(f.nested, " "))
	}
	return notes
}

func (f *folder) close() error {
	if f.open == nil {
		return nil
	}
	err := f.open.Close()
	f.open = nil
	return err //nolint:wrapcheck // names it
}
