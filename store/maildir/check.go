package maildir

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"dewey/maildrop"
	"dewey/maildrop/message"
)

// A Severity says whom a Problem concerns.
type Severity uint8

// Severities, the least first.
const (
	SeverityNote    Severity = iota // nobody now
	SeverityWarning                 // mail that no client sees, programs beside dewey, or a message or two
	SeverityError                   // clients, or they would be
)

func (s Severity) String() string { return [...]string{"note", "warning", "error"}[s] }

// MarshalText is for JSON.
func (s Severity) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// A Problem is one thing that Check has found.
type Problem struct {
	Kind     Kind     `json:"kind"`
	Severity Severity `json:"severity"`
	Maildir  string   `json:"maildir"`
	File     string   `json:"file,omitempty"` // in the Maildir; empty: the Maildir itself
	Line     int      `json:"line,omitempty"` // of the file, from 1
	What     string   `json:"what"`
	Advice   string   `json:"advice"`   // what a repair does, or a person should do
	Mends    bool     `json:"mends"`    // a repair can do something about it
	Repaired bool     `json:"repaired"` // it was there, and is no more
}

// String is a line for a person. It has octets of files' names in it, as they are.
func (p Problem) String() string {
	file := p.Maildir
	if p.File != "" {
		file += "/" + p.File
	}
	if p.Line > 0 {
		file += fmt.Sprintf(":%d", p.Line)
	}
	after := p.Advice
	if p.Repaired {
		after = "repaired"
	}
	return fmt.Sprintf("%s: %s: %s (%s)", p.Severity, file, p.What, after)
}

// CheckOptions say how much Check does.
type CheckOptions struct {
	OwnAlone    bool          // the owner's own Maildir, not the folders in it
	Sizes       bool          // all mail is read, and measured
	Repair      bool          // what is sound to mend is mended
	DropMissing bool          // with Repair: records of messages whose files are not there are dropped
	Wait        time.Duration // for a session that is open, in each Maildir; 0: not at all
	Now         time.Time     // by which deliveries have died; zero: now
}

// Checked is what Check has seen.
type Checked struct {
	Maildirs int       `json:"maildirs"` // the owner's own, and folders
	Busy     int       `json:"busy"`     // those of them that a session had, and so were not checked
	Messages int       `json:"messages"` // in new/ and cur/
	Octets   int64     `json:"octets"`   // as stored
	Removed  int       `json:"removed"`  // messages that can be brought back
	Problems []Problem `json:"problems"`
}

// Errors counts the problems of SeverityError that are still there.
func (c *Checked) Errors() int {
	n := 0
	for i := range c.Problems {
		if c.Problems[i].Severity == SeverityError && !c.Problems[i].Repaired {
			n++
		}
	}
	return n
}

// Check looks at all that an owner's Maildir and its folders consist of. It holds the lock of each for as long as it looks
// at it. Without Repair it changes nothing on the disk, and makes no file, a lock neither; opts.Sizes reads all mail.
//
// A repair is written as sessions write, under their locks and durably, and removes no message and no unique-id that
// could be served; what a person has to decide about is left. Owners and modes are never changed: by a hard link an
// owner could have a file in his Maildir that is not his. A problem that was repaired is one that a second look has not
// found. The error says what could not be looked at or repaired.
func (s *Store) Check(ctx context.Context, owner maildrop.Owner, opts CheckOptions) (Checked, error) {
	var all Checked
	root, err := s.rootOf(owner)
	if err != nil {
		return all, err
	}
	var st unix.Stat_t
	switch err := unix.Stat(root, &st); {
	case errors.Is(err, unix.ENOENT):
		return all, nil // nothing has come in yet
	case err != nil:
		return all, &os.PathError{Op: "stat", Path: root, Err: err}
	case st.Mode&unix.S_IFMT != unix.S_IFDIR:
		all.Problems = append(all.Problems, Problem{
			Kind: KindFolder, Severity: SeverityError, Maildir: root, What: "is not a folder",
			Advice: "put the Maildir there",
		})
		return all, nil
	}
	own := s.boxAt(root, &st)
	boxes, errs := []*box{own}, []error(nil)
	if !opts.OwnAlone {
		folders, err := own.allFolders()
		boxes, errs = append(boxes, folders...), append(errs, err)
		defer unbindAll(folders)
	}
	if opts.Now.IsZero() {
		opts.Now = time.Now()
	}
	validities := map[uint32]string{}
	for i, b := range boxes {
		c := &checker{box: b, opts: opts, owner: owner}
		b.log = slog.New(slog.DiscardHandler) // what is wrong is a Problem
		bare, err := b.bare()
		if err == nil && bare {
			continue
		}
		if err == nil {
			err = c.run(ctx)
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", b.root, err))
		}
		c.shared(validities)
		if i == 0 {
			c.overQuota()
		}
		all.add(c)
	}
	return all, errors.Join(errs...)
}

func (c *Checked) add(k *checker) {
	c.Maildirs++
	if k.busy {
		c.Busy++
	}
	c.Messages += len(k.files)
	for i := range k.files {
		c.Octets += k.files[i].st.Size
	}
	c.Removed += k.removed
	c.Problems = append(c.Problems, k.problems...)
}

// allFolders are those of Maildir++ in a Maildir, by name; also such as can't be served.
func (b *box) allFolders() ([]*box, error) {
	names, err := b.diskFolders()()
	if err != nil {
		return nil, err
	}
	slices.Sort(names)
	var boxes []*box
	var errs []error
	for _, disk := range names {
		f, err := b.child(disk)
		if f != nil {
			f.name = disk
			boxes = append(boxes, f)
		}
		errs = append(errs, err)
	}
	return boxes, errors.Join(errs...)
}

// A checker checks one Maildir.
type checker struct {
	*box
	opts  CheckOptions
	owner maildrop.Owner

	problems []Problem
	told     map[sort]int
	busy     bool
	locked   bool // the Maildir is, so that it can be repaired

	whose   unix.Stat_t
	whole   bool            // new/ and cur/ are there, and were read
	still   bool            // nothing changed meanwhile
	seen    map[string]bool // base names of messages, also of those that have moved since
	files   []checkedFile
	byBase  map[string]int
	doubles []double
	removed int // messages that can be brought back
	list    *checkedList
	trash   checkedTrash
	gone    []goneFile              // messages that are removed, and yet to be unlinked
	known   map[stamp]message.Sizes // measured
	fixing  bool                    // the list is to be written, under its lock
}

// mostTold is how many problems of a kind are told of one Maildir, of those that are as grave, and mended alike.
const mostTold = 50

// A sort is of problems that are counted together.
type sort struct {
	Kind
	Severity
	mends bool
}

func (c *checker) tell(p Problem) {
	if c.told == nil {
		c.told = map[sort]int{}
	}
	p.Maildir = c.root
	s := sort{p.Kind, p.Severity, p.Mends}
	c.told[s]++
	if c.told[s] == mostTold {
		p.What, p.File, p.Line = fmt.Sprintf("more problems of the kind %q are not told", p.Kind), "", 0
	}
	if c.told[s] <= mostTold {
		c.problems = append(c.problems, p)
	}
}

// run looks, repairs and looks again.
func (c *checker) run(ctx context.Context) error {
	release, err := c.hold(ctx)
	if errors.Is(err, maildrop.ErrInUse) {
		c.inUse("a session has it")
		return nil
	}
	if err != nil {
		return err
	}
	defer func() { release() }()
	_, before := c.present(lockName)
	if err := c.look(ctx); err != nil || c.busy {
		return err
	}
	if !c.locked {
		// Who has made the file meanwhile may have changed what was looked at.
		if _, now := c.present(lockName); !before && now {
			release()
			c.reset()
			release = func() {}
			again, err := c.hold(ctx)
			if errors.Is(err, maildrop.ErrInUse) {
				c.inUse("a session has it")
				return nil
			}
			if err != nil {
				return err
			}
			release = again
			return c.look(ctx)
		}
	}
	if !c.opts.Repair || !c.locked || !slices.ContainsFunc(c.problems, func(p Problem) bool { return p.Mends }) {
		return nil
	}
	err = c.repair(ctx)
	found := c.problems
	c.reset()
	if err2 := c.look(ctx); err2 != nil {
		c.problems = found
		return errors.Join(err, err2)
	}
	c.problems = compare(found, c.problems)
	return err
}

// compare tells what of the problems is repaired: those that are there no more. Lines of a file that was written anew
// have other numbers.
func compare(found, left []Problem) []Problem {
	type key struct {
		kind       Kind
		file, what string
	}
	still := map[key]int{}
	for _, p := range left {
		still[key{p.Kind, p.File, p.What}]++
	}
	var all []Problem
	for _, p := range found {
		k := key{p.Kind, p.File, p.What}
		if still[k] > 0 {
			still[k]-- // it is in left
			continue
		}
		p.Repaired = true
		all = append(all, p)
	}
	return append(all, left...)
}

// reset forgets what was seen.
func (c *checker) reset() {
	*c = checker{box: c.box, opts: c.opts, owner: c.owner, locked: c.locked, known: c.known}
}

func (c *checker) inUse(what string) {
	c.reset()
	c.busy = true
	c.tell(Problem{Kind: KindInUse, Severity: SeverityWarning, What: "not checked: " + what, Advice: "try again later"})
}

// present says that there is something of that name, whatever it is.
func (c *checker) present(name string) (unix.Stat_t, bool) {
	var st unix.Stat_t
	err := c.statAt(name, &st, unix.AT_SYMLINK_NOFOLLOW)
	return st, err == nil
}

// hold locks the Maildir for as long as it is looked at. Where no session has made a lock yet, only a repair makes one.
func (c *checker) hold(ctx context.Context) (release func(), err error) {
	st, there := c.present(lockName)
	if there && st.Mode&unix.S_IFMT != unix.S_IFREG {
		c.tell(Problem{
			Kind: KindLock, Severity: SeverityError, File: lockName, What: "is not a regular file, so nobody can log in",
			Advice: "remove it",
		})
		return func() {}, nil
	}
	if !there && !c.opts.Repair {
		return func() {}, ctx.Err()
	}
	l, err := c.store.locks.take(ctx, c.box, c.opts.Wait)
	switch {
	case err == nil:
		c.locked = true
		return func() { c.locked = false; _ = l.release() }, nil
	case errors.Is(err, maildrop.ErrInUse), ctx.Err() != nil:
		return nil, err
	}
	c.tell(Problem{
		Kind: KindLock, Severity: SeverityError, File: lockName, What: "can't be locked: " + reason(err),
		Advice: "run this as whom dewey serve runs; if it is so then too, nobody can log in: give it to the Maildir's owner",
	})
	return func() {}, nil
}

// reason is an error without the file's name, which the Problem has.
func reason(err error) string {
	if path := (*os.PathError)(nil); errors.As(err, &path) {
		return path.Err.Error()
	}
	return strings.TrimPrefix(err.Error(), maildrop.ErrDamaged.Error()+": ")
}

// look looks at all there is.
func (c *checker) look(ctx context.Context) error {
	if err := c.statRoot(&c.whose); err != nil {
		return err
	}
	for _, step := range []func(context.Context) error{c.lookFolders, c.lookFiles, c.lookList, c.lookTrash, c.lookLeftOvers} {
		if err := step(ctx); err != nil || c.busy {
			return err
		}
	}
	return nil
}

// shared notes that two of an owner's lists have one validity: see session.distinct.
func (c *checker) shared(seen map[uint32]string) {
	if c.list == nil || c.list.List == nil {
		return
	}
	if other, double := seen[c.list.Validity]; double {
		c.tell(Problem{
			Kind: KindSharedValidity, Severity: SeverityNote, File: listName,
			What:   fmt.Sprintf("has the UIDVALIDITY %d, as that of %s: its unique-ids get a suffix where a session sees both", c.list.Validity, other),
			Advice: "none is needed",
		})
		return
	}
	seen[c.list.Validity] = c.root
}

func (c *checker) overQuota() {
	quota := c.store.quotaOf(c.owner)
	var used Usage
	for i := range c.files {
		used.Octets += c.files[i].st.Size
		used.Messages++
	}
	if quota.Octets > 0 && used.Octets > quota.Octets || quota.Messages > 0 && used.Messages > quota.Messages {
		c.tell(Problem{
			Kind: KindQuota, Severity: SeverityNote,
			What:   fmt.Sprintf("holds %d octets in %d messages, which is over the quota: nothing is delivered", used.Octets, used.Messages),
			Advice: "none is needed",
		})
	}
}
