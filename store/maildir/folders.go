package maildir

import (
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"dewey/maildrop"
	"dewey/store/maildir/uidlist"
)

// isInbox says that a folder's name means the owner's own Maildir.
func isInbox(name string) bool { return strings.EqualFold(name, "INBOX") }

// boxes are the Maildirs whose mail the owner's sessions see: his own and those of Life.Folders, in that order, or the
// one of View.Folder (maildrop.ErrNoFolder) alone. Only those that are there: none is made. With an error it returns those
// that could be found. Enter opens one of them; who needs several at once enters them in this order. A box's name tells which it is, and is empty for his own.
func (s *Store) boxes(owner maildrop.Owner) ([]*box, error) {
	if owner.View.Folder != "" {
		b, err := s.folder(owner)
		if err != nil {
			return nil, err
		}
		return []*box{b}, nil
	}
	own, err := s.own(owner)
	if own == nil || err != nil {
		return nil, err
	}
	folders, err := own.folders(owner.Life.Folders)
	return append([]*box{own}, folders...), err
}

// own finds the owner's own Maildir; nil if there is none.
func (s *Store) own(owner maildrop.Owner) (*box, error) {
	root, err := s.rootOf(owner)
	if err != nil {
		return nil, err
	}
	var st unix.Stat_t
	switch err := unix.Stat(root, &st); {
	case errors.Is(err, unix.ENOENT):
		return nil, nil
	case err != nil:
		return nil, &os.PathError{Op: "stat", Path: root, Err: err}
	}
	return s.boxAt(root, &st), nil
}

// folder finds the one that the owner asks for in his View.
func (s *Store) folder(owner maildrop.Owner) (*box, error) {
	own, err := s.own(owner)
	if err == nil && own == nil {
		err = fmt.Errorf("%w: %q", maildrop.ErrNoFolder, owner.View.Folder)
	}
	if err != nil {
		return nil, err
	}
	return own.folder(owner.View.Folder)
}

// folders finds those that there are of an owner's folders, each once, but not his own Maildir. With an error it returns
// those that it could find.
func (b *box) folders(names []string) ([]*box, error) {
	var found []*box
	var errs []error
	seen := map[fileID]bool{b.id: true}
	disk := b.diskFolders()
	for _, name := range names {
		f, err := b.find(name, disk)
		switch {
		case errors.Is(err, maildrop.ErrNoFolder):
		case err != nil:
			errs = append(errs, err)
		case seen[f.id]:
			f.unbind()
		default:
			seen[f.id] = true
			found = append(found, f)
		}
	}
	return found, errors.Join(errs...)
}

// folder finds a folder by its exact name, or else by one that differs in the case of ASCII letters alone, if there is
// only one such; maildrop.ErrNoFolder if there is none.
func (b *box) folder(name string) (*box, error) { return b.find(name, b.diskFolders()) }

func (b *box) find(name string, all func() ([]string, error)) (*box, error) {
	if isInbox(name) {
		return b, nil
	}
	utf7, plain, err := diskNames(name)
	if err != nil {
		return nil, err
	}
	for _, disk := range []string{utf7, plain} {
		if f, err := b.folderAt(disk, name); f != nil || err != nil {
			return f, err
		}
	}
	disks, err := all()
	if err != nil {
		return nil, err
	}
	var found []*box
	utf7, plain = foldUTF7(utf7), foldASCII(plain)
	for _, disk := range disks {
		if foldUTF7(disk) != utf7 && (foldASCII(disk) != plain || strings.Contains(plain, "&")) {
			continue
		}
		f, err := b.folderAt(disk, name)
		if err != nil {
			unbindAll(found)
			return nil, err
		}
		if f != nil {
			found = append(found, f)
		}
	}
	if len(found) != 1 {
		unbindAll(found)
		return nil, fmt.Errorf("%w: %q", maildrop.ErrNoFolder, name)
	}
	return found[0], nil
}

// folderAt is the folder of that name on the disk: a folder itself, with new/ and cur/. Nil if there is none.
func (b *box) folderAt(disk, name string) (_ *box, err error) {
	f, err := b.child(disk)
	if f == nil || err != nil {
		return nil, err
	}
	f.name = name
	for _, sub := range []folder{inNew, inCur} {
		st, err := f.stampAt(sub.String())
		if err == nil && st != (stamp{}) {
			continue
		}
		if err == nil && f.listsMail() { // no folder would make clients forget what they have (trap 19)
			err = fmt.Errorf("%s has a list of messages but lacks %s/: is it being moved or restored?", f.root, sub)
		}
		f.unbind()
		return nil, err
	}
	return f, nil
}

// vanished says that a folder is not there any more, or is another.
func (b *box) vanished() bool {
	st, err := stampAt(b.root)
	return err == nil && st.id != b.id
}

// diskFolders returns, each time, the names on the disk of what may be the Maildir's folders, read once.
func (b *box) diskFolders() func() ([]string, error) {
	return sync.OnceValues(func() ([]string, error) {
		dir, err := os.Open(b.root)
		if err != nil {
			return nil, err
		}
		defer dir.Close()
		b.tell("readdir", b.root)
		var folders []string
		for {
			names, err := dir.Readdirnames(1000)
			for _, name := range names {
				if name[0] == '.' {
					folders = append(folders, name)
				}
			}
			if err == io.EOF {
				return folders, nil
			}
			if err != nil {
				return nil, err
			}
		}
	})
}

// include opens the owner's folders too, in the order that he has them in, so that two sessions never wait for each
// other. It closes own if it fails.
func (s *Store) include(ctx context.Context, owner maildrop.Owner, own *session) (_ maildrop.Maildrop, err error) {
	open, done := []*session{own}, false
	defer func() { // also after a panic
		for _, d := range open {
			if !done {
				_ = d.Close()
			}
		}
	}()
	folders, err := own.folders(owner.Life.Folders)
	defer func() { // those that no session has
		for _, b := range folders {
			if !slices.ContainsFunc(open, func(d *session) bool { return d.box == b }) {
				b.unbind()
			}
		}
	}()
	if err != nil {
		return nil, err
	}
	deadline := time.Now().Add(s.lockWait)
	for _, b := range folders {
		d, err := s.enter(ctx, b, owner, time.Until(deadline))
		switch gone := b.vanished(); {
		case err == nil && gone:
			_ = d.Close()
		case err == nil:
			open = append(open, d)
		case !gone:
			return nil, err
		}
	}
	drops := make([]maildrop.Maildrop, len(open))
	validities := make([]uint32, len(open))
	for i, d := range open {
		validities[i] = d.snap.validity
		drops[i] = d.distinct(d.shown(owner.View), validities[:i])
	}
	done = true
	return maildrop.Join(apart(open, drops)...), nil
}

// alone is a folder that a session sees instead of all others, with the unique-ids that it has among them. It closes d
// if it fails.
func (s *Store) alone(owner maildrop.Owner, d *session) (maildrop.Maildrop, error) {
	validities, err := s.validitiesBefore(owner, d.box)
	if err != nil {
		return nil, errors.Join(err, d.Close())
	}
	return d.distinct(d.shown(owner.View), validities), nil
}

// validitiesBefore are those of the owner's own Maildir and of Life.Folders, up to d's if that is one of them.
func (s *Store) validitiesBefore(owner maildrop.Owner, d *box) ([]uint32, error) {
	owner.View.Folder = ""
	boxes, err := s.boxes(owner)
	defer unbindAll(boxes)
	if err != nil {
		return nil, err
	}
	var validities []uint32
	for _, b := range boxes {
		if b.id == d.id {
			break
		}
		v, err := b.validity()
		if err != nil {
			return nil, err
		}
		validities = append(validities, v)
	}
	return validities, nil
}

// validity reads no more of the list than that; 0 if there is no list.
func (b *box) validity() (uint32, error) {
	file, _, err := b.openPlain(listName)
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	defer file.Close()
	header, err := bufio.NewReaderSize(file, 4096).ReadSlice('\n')
	if err != nil && err != io.EOF {
		return 0, fmt.Errorf("%s: %w", file.Name(), err)
	}
	list, err := uidlist.Parse(strings.NewReader(string(header)))
	if err != nil {
		return 0, fmt.Errorf("%w: %s: %w", maildrop.ErrDamaged, file.Name(), err)
	}
	return list.Validity, nil
}

// highest is the highest validity of the owner's Maildir and all its folders: a list that is made now must have another
// one, so that unique-ids are distinct without a suffix. What can't be read does not count.
func (b *box) highest() uint32 {
	own := b
	if b.home != "" {
		own = &box{store: b.store, root: b.home}
	}
	highest, _ := own.validity()
	folders, _ := own.diskFolders()()
	for _, disk := range folders {
		if folder, _ := own.child(disk); folder != nil {
			v, _ := folder.validity()
			highest = max(highest, v)
			folder.unbind()
		}
	}
	return highest
}

// distinct gives all messages of a folder unique-ids with a suffix, if its validity is also that of a Maildir before it:
// ids are made of uid and validity. Two lists that were made in one second may have one validity, and a folder that was
// copied has that of the first. The suffix is made of the folder's name; whether there is one depends on what is before
// it, so ids change if the administrator puts such folders in another order or takes the first away, or it is renamed.
func (s *session) distinct(d maildrop.Maildrop, before []uint32) maildrop.Maildrop {
	if !slices.Contains(before, s.snap.validity) {
		return d
	}
	r := &renamed{Maildrop: d, Dated: d.(maildrop.Dated), messages: slices.Clone(d.Messages())}
	suffix := s.suffix()
	for i := range r.messages {
		r.messages[i].UID = suffixed(r.messages[i].UID, suffix)
	}
	return r
}

func (b *box) suffix() string {
	digest := sha256.Sum256([]byte(filepath.Base(b.root)))
	return "." + hex.EncodeToString(digest[:4])
}

func suffixed(id, suffix string) string {
	if with := id + suffix; suffix == "" || maildrop.ValidUID(with) {
		return with
	}
	digest := sha256.Sum256([]byte(id + suffix)) // one of the list's own that is too long for that
	return hex.EncodeToString(digest[:16]) + suffix
}

// renamed is a maildrop with other unique-ids.
type renamed struct {
	maildrop.Maildrop
	maildrop.Dated
	messages []maildrop.Message
}

func (r *renamed) Messages() []maildrop.Message { return r.messages }

func (r *renamed) Retrieve(ctx context.Context, n int) (maildrop.Message, io.ReadCloser, error) {
	m, body, err := r.Maildrop.Retrieve(ctx, n)
	if err == nil {
		m.UID = r.messages[n-1].UID
	}
	return m, body, err
}

// apart leaves out messages whose unique-id one in a Maildir before has: only those that the lists name (P) can be the
// same, for the validities differ by now. It is the copy of a message that took its unique-id along.
func apart(open []*session, drops []maildrop.Maildrop) []maildrop.Maildrop {
	named := map[string]bool{}
	for i, d := range drops {
		made := uidlist.DefaultID(0, open[i].snap.validity)[8:]
		for _, m := range d.Messages() {
			if len(m.UID) != 16 || m.UID[8:] != made {
				named[m.UID] = true
			}
		}
	}
	if len(named) == 0 {
		return drops
	}
	taken := map[string]bool{}
	for i, d := range drops {
		var kept []int
		for n, m := range d.Messages() {
			switch {
			case taken[m.UID]:
				open[i].log.Warn("a message is left out, since one in another folder has its unique-id", "unique_id", m.UID)
				continue
			case named[m.UID]:
				taken[m.UID] = true
			}
			kept = append(kept, n+1)
		}
		if len(kept) < len(d.Messages()) {
			drops[i] = maildrop.Subset(d, kept)
		}
	}
	return drops
}
