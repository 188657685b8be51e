package maildir

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"dewey/store/maildir/uidlist"
)

// largeRemoval is how many messages an UPDATE removes at least for it to be answered when it is durable in the list
// that they are gone, and not when each file is unlinked. With fewer that saves next to nothing.
const largeRemoval = 500

// A goneFile is a message that is removed, and whose file may still be there. All but the job that unlinks it passes it over.
type goneFile struct {
	place // where it was seen last; without a name if it was not
	uid   uint32
	stem  string // its base name
	mark  fileMark

	// What the session that removes it knows too.
	number   int
	owner    uint32
	unlinked bool
}

// A fileMark tells a file from another one under its name. Neither a rename changes it nor a touch, nor a copy that keeps
// times, as of a Maildir that is moved to another disk.
type fileMark struct {
	mtime int64 // nanoseconds since 1970
	size  int64
	inode uint64
}

func markOf(st *unix.Stat_t) fileMark { return fileMark{st.Mtim.Nano(), st.Size, st.Ino} }

// of says that it is the mark of a file: of one inode, or of one time. A copy may keep times in whole seconds alone, as tar's does.
func (m fileMark) of(st *unix.Stat_t) bool {
	now := markOf(st)
	past := m.mtime - now.mtime
	return now.size == m.size && (now.inode == m.inode || past == 0 || st.Mtim.Nsec == 0 && past > 0 && past < int64(time.Second))
}

func (m fileMark) String() string { return fmt.Sprintf("%d.%d.%d", m.mtime, m.size, m.inode) }

// goneRecord says that the record is of a message that is removed. A mark that can't be read is that of no file, so
// that none is unlinked. Without D the message was brought back by a dewey that does not know R.
func goneRecord(rec *uidlist.Record) (fileMark, bool) {
	if strings.IndexByte(rec.Keys, uidlist.KeyGone) < 0 { // as it is in almost all
		return fileMark{}, false
	}
	value, gone := rec.Get(uidlist.KeyGone)
	if _, removed := rec.Get(uidlist.KeyRemoved); !gone || !removed {
		return fileMark{}, false
	}
	var m fileMark
	if _, err := fmt.Sscanf(value, "%d.%d.%d", &m.mtime, &m.size, &m.inode); err != nil || m.String() != value {
		return fileMark{size: -1}, true
	}
	return m, true
}

// removeLarge is remove for many messages: their records say durably that they are gone, and a job unlinks the files
// later. The first of each folder is unlinked at once, so that one in which nothing can be unlinked is told. What may meet
// something else than that one is removed in the old way; so is all if the list can't be written: a full disk can be emptied.
func (s *session) removeLarge(ctx context.Context, numbers []int) error {
	if s.store.jobs.crowded() {
		return s.remove(ctx, numbers)
	}
	u := &unlinker{session: s, dirs: [2]int{-1, -1}}
	defer u.close()
	gone, rest := u.sortOut(numbers)
	var tried [2]bool
	for i := range gone {
		if f := gone[i].in; !tried[f] {
			tried[f] = true
			if u.remove(ctx, gone[i].number-1) != nil {
				return s.remove(ctx, numbers) // which says why
			}
			_, linked := u.linked[gone[i].stem]
			gone[i].unlinked = !linked
		}
	}
	j, err := s.newJob()
	if err == nil {
		if j.files, err = s.announce(ctx, gone); err != nil {
			j.close()
		}
	}
	if err != nil {
		s.log.Warn("a large removal is done file by file", "error", err)
		return s.remove(ctx, numbers)
	}
	for i := range gone {
		if !s.gone[gone[i].uid] { // the list has no record of it
			rest = append(rest, gone[i].number)
		}
	}
	s.store.jobs.begin(j)
	if len(rest) == 0 {
		return nil
	}
	return s.remove(ctx, rest)
}

// sortOut finds those of the messages that can be removed later, and the numbers of the rest: those whose files are not
// where they were, have other names, or are not of the same owner, so that a sticky folder may refuse them.
func (u *unlinker) sortOut(numbers []int) (gone []goneFile, rest []int) {
	gone = make([]goneFile, 0, len(numbers))
	seen := make([]bool, len(u.snap.items))
	for _, n := range numbers {
		if seen[n-1] {
			continue
		}
		seen[n-1] = true
		var st unix.Stat_t
		p, err := u.place(n - 1)
		if err == nil {
			var fd int
			if fd, err = u.dir(p.in); err == nil {
				err = unix.Fstatat(fd, p.name, &st, unix.AT_SYMLINK_NOFOLLOW)
			}
		}
		if err != nil || st.Mode&unix.S_IFMT != unix.S_IFREG || st.Nlink != 1 || u.snap.extra[n-1] != nil || len(gone) > 0 && gone[0].owner != st.Uid {
			rest = append(rest, n)
			continue
		}
		gone = append(gone, goneFile{place: p, uid: u.snap.items[n-1].uid, stem: p.base(), mark: markOf(&st), number: n, owner: st.Uid})
	}
	return gone, rest
}

// announce writes down that messages are gone, by one rewrite of the list with all else that the session has found
// out. It returns those of which the list has a record.
func (s *session) announce(ctx context.Context, gone []goneFile) (told []goneFile, err error) {
	byUID := make(map[uint32]*goneFile, len(gone))
	for i := range gone {
		byUID[gone[i].uid] = &gone[i]
	}
	at := strconv.FormatInt(time.Now().Unix(), 10)
	list, err := s.update(ctx, max(s.store.lockWait, closeWait), func(l *listFile) bool {
		if !s.amend(l) {
			return false
		}
		for i := range l.Records {
			rec := &l.Records[i]
			if g := byUID[rec.UID]; g != nil && rec.Base == g.stem {
				rec.Set(uidlist.KeyRemoved, at)
				rec.Set(uidlist.KeyGone, g.mark.String())
				told = append(told, *g)
			}
		}
		return len(told) > 0
	})
	if err == nil && len(told) == 0 {
		err = fmt.Errorf("%s is gone, or another than at login", s.file(listName))
	}
	if err != nil {
		return nil, err
	}
	if s.gone == nil {
		s.gone = make(map[uint32]bool, len(told))
	}
	for i := range told {
		s.gone[told[i].uid] = true
		s.setPlace(told[i].number-1, place{})
	}
	s.pending = nil
	s.publish(list)
	return told, nil
}

// passOver takes out of the scan the files of messages that the list says to be gone, and notes them for a job.
func (l *loader) passOver(list *listFile) {
	l.gone = goneIn(list.List)
	var out map[int]bool
	for i := range l.gone {
		if n, here := l.byBase[l.gone[i].stem]; here {
			if out == nil {
				out = map[int]bool{}
			}
			out[n] = true
			l.gone[i].place = l.files[n].place
		}
	}
	if out == nil {
		return
	}
	l.leaveOut(out)
	l.new.settled, l.cur.settled = false, false // or the next login would not look whether they went
}

// leaveOut takes files out of the scan.
func (l *loader) leaveOut(out map[int]bool) {
	files, extra := l.files, l.extra
	l.files, l.extra, l.byBase = make([]file, 0, len(files)-len(out)), nil, make(map[string]int, len(files)-len(out))
	for i := range files {
		if out[i] {
			continue
		}
		n := len(l.files)
		l.byBase[files[i].stem] = n
		if places := extra[i]; places != nil {
			if l.extra == nil {
				l.extra = map[int][]place{}
			}
			l.extra[n] = places
		}
		l.files = append(l.files, files[i])
	}
}

// anyGone says, at little cost, that the list may have messages that are gone.
func (b *box) anyGone() (bool, error) {
	file, st, err := b.openPlain(listName)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	defer file.Close()
	text, err := io.ReadAll(io.LimitReader(file, min(st.Size, mostList)))
	return bytes.Contains(text, []byte{' ', uidlist.KeyGone}), err
}

// resume has a job go on with what another process, or an earlier job, has left.
func (b *box) resume(gone []goneFile) {
	if len(gone) == 0 || b.store.jobs.busy(b.id) || b.store.jobs.crowded() {
		return
	}
	j, err := b.newJob()
	if err != nil {
		b.log.Error("removed messages are still on the disk, and hidden", "messages", len(gone), "error", err)
		return
	}
	j.files = gone
	b.store.jobs.begin(j)
}

// goneWait is how long a delivery to a full maildrop waits for what is removed to be unlinked.
const goneWait = 10 * time.Second

// cleared waits until the files of removed messages are unlinked, or some of them. It says whether there were any: a
// maildrop that was full may not be so any more.
func (b *box) cleared(ctx context.Context) bool {
	idle := b.store.jobs.idle(b.id)
	if idle == nil {
		if any, err := b.anyGone(); err != nil || !any {
			return false
		}
		list, err := b.readList()
		if err != nil || list.List == nil {
			return false
		}
		b.resume(goneIn(list.List))
		if idle = b.store.jobs.idle(b.id); idle == nil {
			return false
		}
	}
	timer := time.NewTimer(goneWait)
	defer timer.Stop()
	select {
	case <-idle:
	case <-timer.C:
	case <-ctx.Done():
	}
	return true
}

// goneIn are the messages that a list says to be gone.
func goneIn(list *uidlist.List) (all []goneFile) {
	for i := range list.Records {
		if mark, gone := goneRecord(&list.Records[i]); gone {
			all = append(all, goneFile{uid: list.Records[i].UID, stem: list.Records[i].Base, mark: mark})
		}
	}
	return all
}

// ghosts looks whether files without a record are there still, and leaves those out of the scan that are not, if the
// list has changed since before it: their records may be struck by now. Else they would come under a unique-id once more.
func (l *loader) ghosts(ctx context.Context, list *listFile) (found bool, err error) {
	if list.stamp == l.before {
		return false, nil
	}
	out := map[int]bool{}
	for i := range l.files {
		if l.files[i].record >= 0 {
			continue
		}
		switch _, err := l.lstat(l.files[i].place); {
		case errors.Is(err, unix.ENOENT):
			out[i] = true
		case err != nil:
			return false, err
		}
	}
	if len(out) == 0 {
		return false, nil
	}
	now, err := l.whereabouts(ctx)
	if err != nil {
		return false, err
	}
	for i := range out { // some have another name by now, no more
		if p, here := now.places[l.files[i].stem]; here {
			l.files[i].place = p
			delete(out, i)
		}
	}
	l.leaveOut(out)
	l.new.settled, l.cur.settled = false, false
	return true, nil
}
