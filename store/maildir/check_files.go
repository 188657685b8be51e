package maildir

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"dewey/store/maildir/uidlist"
)

// A checkedFile is a message's file.
type checkedFile struct {
	place
	st unix.Stat_t
}

func (f *checkedFile) path() string { return f.in.String() + "/" + f.name }
func (f *checkedFile) id() fileID   { return fileID{uint64(f.st.Dev), f.st.Ino} }

// A double is a second name of a message.
type double struct{ stays, goes checkedFile }

// lookFolders looks at new/, cur/ and tmp/, which must be folders and no links: a link would show another one's mail.
func (c *checker) lookFolders(context.Context) error {
	c.rights("", &c.whose, 0o700)
	c.whole = true
	lists := c.listsMail()
	for _, f := range []folder{inNew, inCur, inTmp} {
		var st unix.Stat_t
		p := Problem{Kind: KindFolder, Severity: SeverityError, File: f.String()}
		err := c.statAt(f.String(), &st, unix.AT_SYMLINK_NOFOLLOW)
		switch {
		case err == nil && st.Mode&unix.S_IFMT == unix.S_IFDIR:
			c.rights(f.String(), &st, 0o700)
			continue
		case err == nil:
			p.What, p.Advice = "is not a folder itself", "put a folder there, with the mail that was in it"
		case !errors.Is(err, unix.ENOENT):
			return &os.PathError{Op: "lstat", Path: c.file(f.String()), Err: err}
		case f != inTmp && lists: // trap 19
			p.What, p.Advice = "is not there, but the list has messages", "bring it back: from a backup, or by a mount; if it was empty, make it"
		default:
			p.Severity, p.What, p.Advice, p.Mends = SeverityWarning, "is not there", "a repair makes it, and so dewey does", true
		}
		if f != inTmp {
			c.whole = false
		}
		c.tell(p)
	}
	return nil
}

// rights looks at who owns something, and what he may do with it.
func (c *checker) rights(name string, st *unix.Stat_t, need uint32) {
	if st.Uid != c.whose.Uid {
		c.tell(Problem{
			Kind: KindOwner, Severity: SeverityWarning, File: name,
			What:   fmt.Sprintf("belongs to uid %d, the Maildir to uid %d", st.Uid, c.whose.Uid),
			Advice: "see whose it should be, and chown it; a repair never does",
		})
	}
	if st.Mode&need != need {
		c.tell(Problem{
			Kind: KindMode, Severity: SeverityError, File: name,
			What:   fmt.Sprintf("has the mode %04o, and its owner needs %04o", st.Mode&0o7777, need),
			Advice: "chmod it; a repair never does",
		})
	} else if st.Mode&0o002 != 0 {
		c.tell(Problem{
			Kind: KindMode, Severity: SeverityWarning, File: name,
			What:   fmt.Sprintf("has the mode %04o: anybody can change it", st.Mode&0o7777),
			Advice: "chmod it; a repair never does",
		})
	}
}

// lookFiles reads new/ and cur/, as a session does.
func (c *checker) lookFiles(ctx context.Context) error {
	if !c.whole {
		return nil
	}
	for _, f := range []folder{inNew, inCur} {
		if err := c.oddNames(f); err != nil {
			return err
		}
	}
	lists, err := c.settled(ctx)
	if err != nil {
		return err
	}
	for f, l := range lists {
		slices.Sort(l.others)
		for _, name := range l.others {
			c.tell(Problem{
				Kind: KindNoFile, Severity: SeverityWarning, File: folder(f).String() + "/" + name,
				What: "is not a regular file, and is not served", Advice: "see what it is, and move it away",
			})
		}
	}
	c.seen = map[string]bool{}
	c.byBase = map[string]int{}
	byInode := map[fileID]int{}
	for f, l := range lists {
		slices.Sort(l.names)
		for _, name := range l.names {
			file := checkedFile{place: place{name, folder(f)}}
			c.seen[file.base()] = true
			err := c.statAt(file.path(), &file.st, unix.AT_SYMLINK_NOFOLLOW)
			if errors.Is(err, unix.ENOENT) {
				continue
			}
			if err != nil {
				return &os.PathError{Op: "lstat", Path: c.file(file.path()), Err: err}
			}
			c.lookFile(file, byInode)
		}
	}
	return nil
}

// settled reads both folders, until nothing has changed meanwhile: a rename may hide a file. It waits longer for that if it
// matters what is not there.
func (c *checker) settled(ctx context.Context) (lists [2]*listing, err error) {
	for range 5 {
		for _, f := range []folder{inNew, inCur} {
			if lists[f], err = c.scan(ctx, f); err != nil {
				return lists, err
			}
		}
		quiet, err := c.back(ctx, lists[inNew])
		c.still = quiet && lists[inCur].stable
		if err != nil || c.still {
			return lists, err
		}
		pause := tick
		if c.opts.DropMissing {
			pause = max(lists[inNew].stamp.step(), lists[inCur].stamp.step())
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return lists, ctx.Err()
		}
	}
	return lists, nil
}

func (c *checker) lookFile(file checkedFile, byInode map[fileID]int) {
	c.rights(file.path(), &file.st, 0o400)
	if i, double := c.byBase[file.base()]; double {
		c.lookDouble(i, file)
		return
	}
	if i, linked := byInode[file.id()]; linked && file.st.Nlink > 1 {
		c.tell(Problem{
			Kind: KindLinked, Severity: SeverityNote, File: file.path(),
			What: "is the same file as " + c.files[i].path() + ", under another name: they are two messages", Advice: "none is needed",
		})
	}
	byInode[file.id()] = len(c.files)
	c.byBase[file.base()] = len(c.files)
	c.files = append(c.files, file)
}

// lookDouble looks at a second file of one base name: see loader.found.
func (c *checker) lookDouble(i int, second checkedFile) {
	first := &c.files[i]
	if first.id() == second.id() && second.st.Nlink == 1 { // it has moved meanwhile
		*first = second
		return
	}
	if first.id() == second.id() {
		d := double{*first, second}
		if len(second.name) >= len(first.name) { // it has more flags, or stands in cur/
			d = double{second, *first}
		}
		*first = d.stays
		c.doubles = append(c.doubles, d)
		c.tell(Problem{
			Kind: KindTwo, Severity: SeverityNote, File: d.goes.path(), Mends: true,
			What: "is the same file as " + d.stays.path() + ": who was to move it has died", Advice: "a repair removes this name",
		})
		return
	}
	younger, older := second, *first
	if second.st.Mtim.Nano() < first.st.Mtim.Nano() {
		younger, older = older, younger
	}
	*first = older
	c.tell(Problem{
		Kind: KindSame, Severity: SeverityError, File: younger.path(), Mends: true,
		What: "has the base name of another message, " + older.path(), Advice: "a repair gives it a name of its own, and so the next session does",
	})
}

// oddNames looks for names that scan leaves out.
func (c *checker) oddNames(f folder) error {
	fd, path, err := c.openFolder(f)
	if err != nil {
		return err
	}
	dir := os.NewFile(uintptr(fd), path)
	defer dir.Close()
	for {
		names, err := dir.Readdirnames(1000)
		for _, name := range names {
			if name[0] == ':' || name[0] != '.' && strings.ContainsAny(name, "\r\n") {
				c.tell(Problem{
					Kind: KindBadName, Severity: SeverityWarning, File: f.String() + "/" + name,
					What: "has a name without a base name, or with a line end, and is not served", Advice: "rename it, and it is a new message",
				})
			}
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// lookLeftOvers looks for what those who died have left.
func (c *checker) lookLeftOvers(context.Context) error {
	st, locked := c.present(listLockName)
	if locked {
		stale, why := c.staleLock()
		switch {
		case st.Mode&unix.S_IFMT != unix.S_IFREG:
			c.tell(Problem{
				Kind: KindListLock, Severity: SeverityError, File: listLockName,
				What: "is not a regular file: nobody can write the list, and new mail is hidden", Advice: "remove it",
			})
		case stale:
			c.tell(Problem{
				Kind: KindListLock, Severity: SeverityWarning, File: listLockName, Mends: true,
				What: "is forgotten: " + why, Advice: "a repair removes it, and so the next session does",
			})
		}
	}
	for _, name := range temporary {
		if _, there := c.present(name); there && (!locked || !strings.HasPrefix(name, listName)) {
			c.tell(Problem{
				Kind: KindTemporary, Severity: SeverityNote, File: name, Mends: true,
				What: "was to replace another file, but who wrote it has died", Advice: "a repair removes it",
			})
		}
	}
	return c.lookTmp()
}

// temporary are the files that replace others: see box.replace, trash.replace and makeLock.
var temporary = []string{listName + ".tmp", lockTemp, witnessName + ".tmp", trashName + "/" + trashList + ".tmp"}

// lookTmp counts deliveries that have died. Maildir: 36 hours.
func (c *checker) lookTmp() error {
	l, _, err := c.read(inTmp)
	if errors.Is(err, fs.ErrNotExist) || err != nil && !c.isFolder(inTmp) {
		return nil // told
	}
	if err != nil {
		return err
	}
	n := 0
	var oldest time.Time
	for _, name := range l.names {
		var st unix.Stat_t
		if c.statAt(inTmp.String()+"/"+name, &st, unix.AT_SYMLINK_NOFOLLOW) != nil {
			continue
		}
		last := time.Unix(0, max(latest(&st), st.Atim.Nano()))
		if c.opts.Now.Sub(last) < abandoned {
			continue
		}
		n++
		if oldest.IsZero() || last.Before(oldest) {
			oldest = last
		}
	}
	if n > 0 {
		c.tell(Problem{
			Kind: KindTmp, Severity: SeverityNote, File: inTmp.String(), Mends: true,
			What:   fmt.Sprintf("has %d files of deliveries that died, the first on %s", n, oldest.UTC().Format(time.DateOnly)),
			Advice: "a repair removes them, and so a delivery does",
		})
	}
	return nil
}

func (c *checker) isFolder(f folder) bool {
	st, there := c.present(f.String())
	return there && st.Mode&unix.S_IFMT == unix.S_IFDIR
}

// message finds the file of a base name.
func (c *checker) message(base string) *checkedFile {
	if i, here := c.byBase[uidlist.Base(base)]; here {
		return &c.files[i]
	}
	return nil
}
