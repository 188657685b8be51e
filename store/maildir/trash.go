package maildir

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"dewey/maildrop"
	"dewey/store/maildir/uidlist"
)

const (
	// trashName is the folder for what was removed and can be brought back. It has no dot in front: it is no folder
	// of Maildir++.
	trashName = "dewey-removed"
	// trashList is the file in it that says what is in it.
	trashList = "list"
	trashTemp = trashList + ".tmp"
	trashHead = "dewey-removed 1\n"
	// mostTrash is the most octets of that list: some 400,000 messages.
	mostTrash = 64 << 20
	// mostTrashLine is more than a line has: see uidlist.MaxLine.
	mostTrashLine = uidlist.MaxLine + 1<<10
	// mostBad is how many lines may be bad before the list counts as damaged: each write that was cut leaves one.
	mostBad = 100
)

// A trash is that folder, open.
type trash struct {
	*box
	dir int
}

// A trashed message is a line of the list:
//
//	AT NAME FOLDER UNIQUE-ID KEYS :FORMER
//
// with the time of removal in seconds since 1970, the file's name here, the folder where it was, the keys of its
// record in the list of unique-ids, and its former name. A line says nothing if there is no such file.
type trashed struct {
	at     int64
	name   string
	uid    string
	keys   string
	former place
}

func (e *trashed) append(b []byte) []byte {
	b = strconv.AppendInt(b, e.at, 10)
	for _, field := range []string{e.name, e.former.in.String(), e.uid, e.keys} {
		if field != "" {
			b = append(append(b, ' '), field...)
		}
	}
	return append(append(append(b, " :"...), e.former.name...), '\n')
}

// parseTrashed reads a line. What it says is used for names of files and in the list of unique-ids, and the folder is
// the user's: it is believed no further than that it has this form.
func parseTrashed(line string) (e trashed, ok bool) {
	var f [4]string
	for i := range f {
		f[i], line, _ = strings.Cut(line, " ")
	}
	var err error
	e.at, err = strconv.ParseInt(f[0], 10, 64)
	e.name, e.uid = f[1], f[3]
	ok = err == nil && isName(e.name) && e.name != trashList && maildrop.ValidUID(e.uid)
	switch f[2] {
	case inNew.String():
		e.former.in = inNew
	case inCur.String():
		e.former.in = inCur
	default:
		ok = false
	}
	keys := line
	for line != "" && line[0] != ':' {
		ok = ok && line[0] >= 'A' && line[0] <= 'Z'
		_, line, _ = strings.Cut(line, " ")
	}
	if !ok || line == "" {
		return trashed{}, false
	}
	e.keys = strings.TrimSuffix(keys[:len(keys)-len(line)], " ")
	e.former.name = line[1:]
	return e, isName(e.former.name) && e.former.base() != "" && !strings.ContainsAny(keys, "\r\x00")
}

// isName says that a message's file can have such a name.
func isName(name string) bool {
	return name != "" && len(name) <= 255 && name[0] != '.' && !strings.ContainsAny(name, "/\r\n\x00")
}

// size is the octets of the message as sent, if they were measured and the file is as it was; else as stored.
func (e *trashed) size(stored int64) int64 {
	f := file{place: e.former, stem: e.former.base()}
	f.recorded(&uidlist.Record{Keys: e.keys, Base: f.stem})
	if f.state == measured && f.sizes.Stored == stored {
		return f.sizes.Octets()
	}
	return stored
}

// openTrash opens the folder; nil if there is none.
func (b *box) openTrash() (*trash, error) {
	path := b.file(trashName)
	fd, err := b.openAt(trashName, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW, 0)
	switch {
	case errors.Is(err, unix.ENOENT):
		return nil, nil
	case errors.Is(err, unix.ENOTDIR), errors.Is(err, unix.ELOOP):
		return nil, fmt.Errorf("%w: %s is not a folder itself", maildrop.ErrDamaged, path)
	case err != nil:
		return nil, &os.PathError{Op: "open", Path: path, Err: err}
	}
	return &trash{b, fd}, nil
}

// makeTrash opens the folder, and makes it if there is none.
func (b *box) makeTrash() (*trash, error) {
	t, err := b.openTrash()
	if t != nil || err != nil {
		return t, err
	}
	path := b.file(trashName)
	var owner unix.Stat_t
	err = b.failing("mkdir", path)
	if err == nil {
		err = b.statRoot(&owner)
	}
	if err == nil {
		err = b.makeFolder(trashName, &owner)
	}
	if err != nil {
		return nil, fmt.Errorf("making a folder for removed messages: %w", err)
	}
	t, err = b.openTrash()
	if t == nil && err == nil {
		err = &os.PathError{Op: "open", Path: path, Err: unix.ENOENT}
	}
	return t, err
}

func (t *trash) close() { _ = unix.Close(t.dir) }

func (t *trash) path(name string) string { return t.file(filepath.Join(trashName, name)) }

// open opens a file in the folder, which must be a regular one and no link, and without another name if it is to be
// written to: that could be anybody's.
func (t *trash) open(name string, flags int) (*os.File, int64, error) {
	fd, err := unix.Openat(t.dir, name, flags|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return nil, 0, &os.PathError{Op: "open", Path: t.path(name), Err: err}
	}
	file := os.NewFile(uintptr(fd), t.path(name))
	var st unix.Stat_t
	switch err = unix.Fstat(fd, &st); {
	case err != nil:
		err = &os.PathError{Op: "fstat", Path: file.Name(), Err: err}
	case st.Mode&unix.S_IFMT != unix.S_IFREG:
		err = fmt.Errorf("%w: %s is not a regular file", maildrop.ErrDamaged, file.Name())
	case flags&unix.O_ACCMODE != unix.O_RDONLY && st.Nlink != 1:
		err = fmt.Errorf("%w: %s has %d names, one alone would be right", maildrop.ErrDamaged, file.Name(), st.Nlink)
	}
	if err != nil {
		return nil, 0, errors.Join(err, file.Close())
	}
	return file, st.Size, nil
}

// each calls f with what the list says, the message that was removed first at the beginning. A last line without an end
// is one whose message has not been moved. maildrop.ErrDamaged if more than a few lines are bad.
func (t *trash) each(f func(trashed)) error {
	file, size, err := t.open(trashList, unix.O_RDONLY)
	if errors.Is(err, unix.ENOENT) {
		return nil
	}
	if err != nil {
		return err
	}
	defer file.Close()
	if size > mostTrash {
		return fmt.Errorf("%w: %s has %d octets, more than the %d of a list that is read", maildrop.ErrDamaged, file.Name(), size, mostTrash)
	}
	text := bufio.NewReaderSize(io.LimitReader(file, mostTrash), mostTrashLine)
	switch head, err := text.Peek(len(trashHead)); {
	case err != nil && err != io.EOF:
		return err
	case string(head) != trashHead && strings.HasPrefix(trashHead, string(head)): // who made it may have died on the way
		return nil
	case string(head) != trashHead:
		return t.foreign()
	}
	_, _ = text.Discard(len(trashHead))
	bad := 0
	for {
		line, err := text.ReadSlice('\n')
		for long := err; errors.Is(long, bufio.ErrBufferFull); { // to its end
			_, long = text.ReadSlice('\n')
		}
		if err != nil && err != io.EOF && err != bufio.ErrBufferFull {
			return err
		}
		if err == io.EOF {
			break
		}
		if e, ok := parseTrashed(strings.TrimSuffix(string(line), "\n")); ok && err == nil {
			f(e)
		} else if bad++; bad > mostBad {
			return fmt.Errorf("%w: %s has more than %d bad lines", maildrop.ErrDamaged, file.Name(), mostBad)
		}
	}
	if bad > 0 {
		t.log.Warn("the list of removed messages has lines that are left out", "file", file.Name(), "lines", bad)
	}
	return nil
}

// A stock is what is in a trash. What is on the list alone takes no memory.
type stock struct {
	entries []trashed        // whose files are there; of lines with one name the first counts
	stamps  []stamp          // of entries
	others  map[string]stamp // files on no line
	missing int              // lines without a file
	oldest  int64            // removal of those, in seconds since 1970
}

func (t *trash) stock() (*stock, error) {
	names, err := t.names() // first: a line is there before its file
	if err != nil {
		return nil, err
	}
	s := &stock{others: names}
	err = t.each(func(e trashed) {
		st, here := names[e.name]
		if !here {
			if s.missing++; s.missing == 1 || e.at < s.oldest {
				s.oldest = e.at
			}
			return
		}
		delete(names, e.name)
		s.entries, s.stamps = append(s.entries, e), append(s.stamps, st)
	})
	return s, err
}

func (t *trash) foreign() error {
	return fmt.Errorf("%w: %s does not begin with %q", maildrop.ErrDamaged, t.path(trashList), trashHead)
}

// errLong says that the list has reached its bound.
var errLong = errors.New("the list of removed messages has no room")

// add puts entries at the end of the list, durably. Where there is no room, the lines go that are without a file;
// maildrop.ErrFull if that is not enough. The caller has locked the Maildir.
func (t *trash) add(entries []trashed) error {
	err := t.appendEntries(entries)
	if !errors.Is(err, errLong) {
		return err
	}
	s, err := t.stock()
	if err == nil {
		err = t.replace(s.entries)
	}
	if err == nil {
		err = t.appendEntries(entries)
	}
	if errors.Is(err, errLong) {
		err = fmt.Errorf("%w: %w: %s may have %d octets", maildrop.ErrFull, err, t.path(trashList), mostTrash)
	}
	return err
}

func (t *trash) appendEntries(entries []trashed) (err error) {
	file, size, err := t.open(trashList, unix.O_RDWR|unix.O_APPEND)
	if errors.Is(err, unix.ENOENT) {
		if file, size, err = t.open(trashList, unix.O_RDWR|unix.O_APPEND|unix.O_CREAT|unix.O_EXCL); err == nil {
			err = t.adopt(file)
		}
	}
	if file != nil {
		defer func() { err = errors.Join(err, file.Close()) }()
	}
	if err != nil {
		return err
	}
	if size <= int64(len(trashHead)) { // who made it may have died on the way
		if err := t.begin(file); err != nil {
			return err
		}
		size = int64(len(trashHead))
	}
	start, last := make([]byte, len(trashHead)), make([]byte, 1)
	if _, err := file.ReadAt(start, 0); err != nil || string(start) != trashHead {
		return errors.Join(t.foreign(), err)
	}
	if _, err := file.ReadAt(last, size-1); err != nil {
		return err
	}
	var lines []byte
	if last[0] != '\n' { // a write that was cut
		lines = append(lines, '\n')
	}
	for i := range entries {
		lines = entries[i].append(lines)
	}
	if size+int64(len(lines)) > mostTrash {
		return errLong
	}
	if err := t.failing("append", file.Name()); err != nil {
		return err
	}
	_, err = file.Write(lines)
	if err == nil {
		err = errors.Join(t.failing("sync", file.Name()), file.Sync())
	}
	if err != nil {
		err = errors.Join(err, file.Truncate(size))
	}
	return err
}

// begin makes a list without entries, and the folder, durable: a list with entries is in a folder that is.
func (t *trash) begin(file *os.File) error {
	start, err := io.ReadAll(io.NewSectionReader(file, 0, int64(len(trashHead))))
	if err == nil && !strings.HasPrefix(trashHead, string(start)) {
		err = t.foreign()
	}
	if err == nil {
		err = file.Truncate(0)
	}
	if err == nil {
		_, err = file.WriteString(trashHead)
	}
	if err == nil {
		err = errors.Join(t.failing("sync", file.Name()), file.Sync())
	}
	if err == nil {
		err = t.sync()
	}
	if err == nil {
		err = t.syncRoot()
	}
	return err
}

// adopt gives a file to whom the folder belongs, and to those who share it.
func (t *trash) adopt(file *os.File) error {
	var owner unix.Stat_t
	if err := unix.Fstat(t.dir, &owner); err != nil {
		return &os.PathError{Op: "fstat", Path: t.file(trashName), Err: err}
	}
	return errors.Join(file.Chmod(os.FileMode(owner.Mode&0o666|0o600)), adoptFile(file, &owner))
}

// replace writes the list anew, durably.
func (t *trash) replace(entries []trashed) error {
	if err := t.failing("replace", t.path(trashList)); err != nil {
		return err
	}
	if err := unix.Unlinkat(t.dir, trashTemp, 0); err != nil && !errors.Is(err, unix.ENOENT) {
		return &os.PathError{Op: "unlink", Path: t.path(trashTemp), Err: err}
	}
	text := bytes.NewBufferString(trashHead)
	for i := range entries {
		text.Write(entries[i].append(nil))
	}
	file, _, err := t.open(trashTemp, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL)
	if err != nil {
		return err
	}
	err = t.adopt(file)
	if err == nil {
		_, err = text.WriteTo(file)
	}
	if err == nil {
		err = errors.Join(t.failing("sync", file.Name()), file.Sync())
	}
	err = errors.Join(err, file.Close())
	if err == nil {
		err = unix.Renameat(t.dir, trashTemp, t.dir, trashList)
	}
	if err != nil {
		return errors.Join(err, unix.Unlinkat(t.dir, trashTemp, 0))
	}
	return t.sync()
}

func (t *trash) sync() error {
	path := t.file(trashName)
	err := t.failing("sync", path)
	if err == nil {
		err = again(func() error { return unix.Fsync(t.dir) })
	}
	if err != nil {
		return &os.PathError{Op: "fsync", Path: path, Err: err}
	}
	return nil
}

// moveFile moves a file to another folder, and never over another one.
func moveFile(from int, name string, to int, target string, id fileID) error {
	err := again(func() error { return unix.Renameat2(from, name, to, target, unix.RENAME_NOREPLACE) })
	if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOSYS) || errors.Is(err, unix.ENOTSUP) {
		// The file system can't do that, NFS for one.
		if err = unix.Linkat(from, name, to, target, 0); err == nil {
			err = unix.Unlinkat(from, name, 0)
		}
	}
	if err == nil {
		return nil
	}
	var st unix.Stat_t
	if unix.Fstatat(to, target, &st, unix.AT_SYMLINK_NOFOLLOW) != nil || id != (fileID{uint64(st.Dev), st.Ino}) {
		return err
	}
	// It has two names, or the answer of a file server that has moved it was lost.
	if err := unix.Unlinkat(from, name, 0); !errors.Is(err, unix.ENOENT) {
		return err
	}
	return nil
}
