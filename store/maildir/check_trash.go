package maildir

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"dewey/maildrop"
)

// A checkedTrash is the list of what can be brought back, as it should be.
type checkedTrash struct {
	lines  []trashed
	change bool
	kept   bool // there is something in it that a person should see: it is not written anew
}

// lookTrash looks at dewey-removed/: its list, and the files that are there.
func (c *checker) lookTrash(context.Context) error {
	c.trash = checkedTrash{}
	before := len(c.problems)
	t, err := c.openTrash()
	if errors.Is(err, maildrop.ErrDamaged) {
		c.trashError(trashName, reason(err)+", so nothing can be removed", "put a folder there, with what was in it")
		return nil
	}
	if t == nil || err != nil {
		return err
	}
	defer t.close()
	var st unix.Stat_t
	if err := unix.Fstat(t.dir, &st); err != nil {
		return err
	}
	c.rights(trashName, &st, 0o700)
	files, err := t.names()
	if err != nil {
		return err
	}
	text, ok, err := c.readTrash(t)
	if err != nil || !ok {
		return err
	}
	seen := map[string]trashed{}
	ids := c.servedIDs()
	missing, number := 0, 1
	for line := range strings.Lines(text) {
		number++
		e, ok := c.trashLine(number, line, files)
		if !ok {
			continue
		}
		if other, double := seen[e.name]; double {
			same := other == e
			c.trash.kept = c.trash.kept || !same
			c.trash.change = true
			p := Problem{
				Kind: KindTrashTwice, Severity: SeverityWarning, File: trashName + "/" + trashList, Line: number, Mends: same,
				What: "is the second line for " + e.name, Advice: "a repair leaves it out",
			}
			if !same {
				p.Advice = "they differ; see which is right, and remove the other"
			}
			c.tell(p)
			continue
		}
		seen[e.name] = e
		if _, here := files[e.name]; !here {
			missing++
			if !c.opts.DropMissing {
				c.trash.lines = append(c.trash.lines, e)
			}
			continue
		}
		c.trash.lines = append(c.trash.lines, e)
		c.removed++
		c.trashID(number, e, ids)
		ids[e.uid] = trashName + "/" + e.name
	}
	c.strays(files, seen)
	if missing > 0 {
		p := Problem{
			Kind: KindTrashMissing, Severity: SeverityNote, File: trashName + "/" + trashList,
			What:   fmt.Sprintf("%d lines of files that are not there: they were brought back, or never came there", missing),
			Advice: "none is needed; --drop-missing drops them",
		}
		if c.opts.DropMissing {
			p.Mends, p.Advice, c.trash.change = true, "a repair drops them", true
		}
		c.tell(p)
	}
	for i := before; i < len(c.problems) && c.trash.kept; i++ {
		if p := &c.problems[i]; p.Mends {
			p.Mends, p.Advice = false, "it is repaired when what a person has to see to in this list is"
		}
	}
	return nil
}

func (c *checker) trashError(file, what, advice string) {
	c.tell(Problem{Kind: KindTrash, Severity: SeverityError, File: file, What: what, Advice: advice})
}

// readTrash reads the lines; false if they can't be used.
func (c *checker) readTrash(t *trash) (string, bool, error) {
	const name = trashName + "/" + trashList
	file, size, err := t.open(trashList, unix.O_RDONLY)
	switch {
	case errors.Is(err, unix.ENOENT):
		return "", true, nil
	case errors.Is(err, maildrop.ErrDamaged), errors.Is(err, unix.ELOOP):
		c.trashError(name, "is not a regular file, so nothing can be removed", "see what it is, and move it away")
		return "", false, nil
	case err != nil:
		return "", false, err
	}
	defer file.Close()
	if size > mostList {
		c.trashError(name, fmt.Sprintf("has %d octets, more than the %d of a list that is read", size, mostList), "see what it is, and move it away")
		return "", false, nil
	}
	text, err := io.ReadAll(io.LimitReader(file, mostList))
	if err != nil {
		return "", false, err
	}
	lines, ok := strings.CutPrefix(string(text), trashHead)
	if !ok && !strings.HasPrefix(trashHead, string(text)) {
		c.trashError(name, fmt.Sprintf("does not begin with %q, so nothing can be removed or brought back", trashHead),
			"bring it back from a backup; or move it away, and what is there now can't be brought back under its unique-ids")
		return "", false, nil
	}
	return lines, true, nil
}

// trashLine reads a line. One that can't be read may be left out if it names no file that is there.
func (c *checker) trashLine(number int, line string, files map[string]stamp) (trashed, bool) {
	text, whole := strings.CutSuffix(line, "\n")
	if whole && text == "" {
		return trashed{}, false // between a write that was cut and the next one
	}
	e, ok := parseTrashed(text)
	if ok && whole {
		return e, true
	}
	names := slices.ContainsFunc(strings.Fields(text), func(word string) bool { _, here := files[word]; return here })
	p := Problem{
		Kind: KindTrashLine, Severity: SeverityWarning, File: trashName + "/" + trashList, Line: number, Mends: !names,
		What: fmt.Sprintf("can't be read: %.80q", text), Advice: "a repair leaves it out: its file is not there",
	}
	switch {
	case names:
		p.Advice = "its file is there; mend the line, or move the file to new/ to have it back as a new message"
	case !whole:
		p.Severity, p.What = SeverityNote, "the last line has no end: its message was not removed"
	}
	c.trash.kept = c.trash.kept || names
	c.trash.change = true
	c.tell(p)
	return trashed{}, false
}

// servedIDs are the files of the messages that are served, by unique-id.
func (c *checker) servedIDs() map[string]string {
	ids := map[string]string{}
	if c.list == nil || c.list.List == nil {
		return ids
	}
	for i := range c.list.Records {
		rec := &c.list.Records[i]
		if f := c.message(rec.Base); f != nil {
			ids[servedID(rec, c.list.Validity)] = f.path()
		}
	}
	return ids
}

func (c *checker) trashID(number int, e trashed, ids map[string]string) {
	other, taken := ids[e.uid]
	if !taken {
		return
	}
	c.tell(Problem{
		Kind: KindTrashID, Severity: SeverityNote, File: trashName + "/" + trashList, Line: number,
		What:   fmt.Sprintf("has the unique-id %s, as %s has", e.uid, other),
		Advice: "none is needed; it can be brought back when the other one is gone",
	})
}

// strays are files without a line: under which unique-id they were is not known.
func (c *checker) strays(files map[string]stamp, seen map[string]trashed) {
	var names []string
	for name := range files {
		if _, listed := seen[name]; !listed && name != trashList+".tmp" {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	for _, name := range names {
		c.tell(Problem{
			Kind: KindTrashStray, Severity: SeverityWarning, File: trashName + "/" + name,
			What: "is on no line of the list, and so can't be brought back", Advice: "move it to new/ to have it back as a new message; else it goes in the time of mail.undelete",
		})
	}
}
