package maildir

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"dewey/maildrop"
	"dewey/store/maildir/uidlist"
)

// A checkedList is the list as it should be.
type checkedList struct {
	*uidlist.List             // nil if there is none, or none that a repair can make sense of
	onDisk        bool        // there is one
	stat          unix.Stat_t // of its file
	change        bool        // it is not what stands on the disk
	lossy         bool        // something is left out that stands there
}

const fromBackup = "bring it back from a backup; or remove it and " + witnessName + ", and clients download everything again"

// lookList looks at the list of unique-ids, and at what it says of the messages.
func (c *checker) lookList(ctx context.Context) error {
	for deadline := time.Now().Add(c.opts.Wait); ; {
		before := len(c.problems)
		text, err := c.readChecked()
		if err != nil {
			return err
		}
		if c.list.onDisk && text != "" {
			c.parse(text)
		}
		_, locked := c.present(listLockName)
		if stale, _ := c.staleLock(); len(c.problems) == before || !locked || stale || c.fixing {
			break
		}
		// Who writes the list may have met us halfway.
		c.problems, c.told = c.problems[:before], nil
		if time.Now().After(deadline) {
			c.inUse("another program writes the list")
			return nil
		}
		select {
		case <-time.After(20 * time.Millisecond):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	if err := c.lookValidity(); err != nil {
		return err
	}
	if c.list.List == nil || !c.list.onDisk {
		return nil
	}
	c.lookGone()
	c.lookIDs()
	c.lookKept()
	c.lookMissing()
	return c.lookSizes(ctx)
}

// readChecked reads the file; what is wrong with it as a whole is told.
func (c *checker) readChecked() (string, error) {
	c.list = new(checkedList)
	file, st, err := c.openPlain(listName)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return "", nil
	case errors.Is(err, maildrop.ErrDamaged):
		c.list.onDisk = true
		c.damaged(0, reason(err))
		return "", nil
	case err != nil:
		return "", err
	}
	defer file.Close()
	c.list.onDisk, c.list.stat = true, *st
	c.rights(listName, st, 0o400)
	if st.Size > mostList {
		c.damaged(0, fmt.Sprintf("has %d octets, more than the %d of a list that is read", st.Size, mostList))
		return "", nil
	}
	text, err := io.ReadAll(io.LimitReader(file, mostList))
	if err != nil {
		return "", err
	}
	if len(text) == 0 {
		c.damaged(0, "is empty")
	}
	return string(text), nil
}

func (c *checker) damaged(line int, what string) {
	c.tell(Problem{
		Kind: KindList, Severity: SeverityError, File: listName, Line: line,
		What: "is no list that can be used, and its owner can't log in: " + what, Advice: fromBackup,
	})
}

// parse takes the list apart.
func (c *checker) parse(text string) {
	first, lines, _ := strings.Cut(text, "\n")
	if _, err := uidlist.Parse(strings.NewReader(first + "\n")); err != nil || len(text) == len(first) {
		if err == nil {
			err = &uidlist.FormatError{Line: 1, What: "the header has no line end"}
		}
		c.damaged(1, err.Error())
		return
	}
	list, err := uidlist.Parse(strings.NewReader(text))
	if err != nil || len(list.Faults) > 0 {
		if list = c.parseLines(first+"\n", lines); list == nil {
			return
		}
	}
	c.list.List = list
	if list.Torn {
		c.list.change = true
		c.tell(Problem{
			Kind: KindListTorn, Severity: SeverityWarning, File: listName, Line: list.Lines + 1, Mends: true,
			What: "the last line has no end: a write was cut short, and its unique-id was not served", Advice: "a repair leaves it out, and so the next session does",
		})
	}
	if list.Version != 3 || list.GUID == "" {
		c.list.change = true
		c.tell(Problem{
			Kind: KindListOld, Severity: SeverityNote, File: listName, Line: 1, Mends: true,
			What: "has the form of an old version, or no GUID of 32 hex digits", Advice: "a repair writes it as version 3, and so does the next session that has new mail",
		})
	}
	if list.Next > uidlist.MaxUID {
		c.tell(Problem{
			Kind: KindListNext, Severity: SeverityError, File: listName,
			What: "no uid is left, so new mail is hidden: is that of the last record right?", Advice: fromBackup,
		})
	}
}

// A lineReading is a list of which some lines are not as they should be.
type lineReading struct {
	*uidlist.List
	problems []Problem
	byUID    map[uint32]int
	byBase   map[string]uint32
	last     uint32
	lost     int // records whose unique-id would change
	doubles  int
	own      []uidlist.Record
}

func (r *lineReading) fault(kind Kind, severity Severity, line int, what, advice string) {
	r.problems = append(r.problems, Problem{
		Kind: kind, Severity: severity, File: listName, Line: line, What: what, Advice: advice, Mends: true,
	})
}

// parseLines reads a list that uidlist.Parse leaves something out of, or refuses: lines that only stand in the wrong
// order, or twice, need not be lost. Nil if more records are than a session would do without.
func (c *checker) parseLines(header, lines string) *uidlist.List {
	list, err := uidlist.Parse(strings.NewReader(header))
	if err != nil {
		return nil // it was parsed before
	}
	r := &lineReading{List: list, byUID: map[uint32]int{}, byBase: map[string]uint32{}}
	form := "3 V1 N1\n"
	if list.Version == 1 {
		form = "1 1 1\n"
	}
	if len(list.Faults) > 0 {
		list.Faults = nil // the GUID, told by its absence
	}
	number := 1
	for line := range strings.Lines(lines) {
		number++
		r.line(number, form, line)
	}
	list.Lines = number - 1
	whole := r.lost <= uidlist.MaxFaults
	for _, p := range r.problems {
		p.Mends = whole
		if !whole {
			p.Advice = "see the error of the list as a whole"
		}
		c.tell(p)
	}
	if !whole {
		c.damaged(0, fmt.Sprintf("%d records can't be read, or have the uid of another", r.lost))
		return nil
	}
	r.finish()
	c.list.change = true
	c.list.lossy = r.lost+r.doubles > 0
	return list
}

func (r *lineReading) line(number int, form, line string) {
	if strings.TrimRight(line, "\r\n") == "" && strings.HasSuffix(line, "\n") {
		r.fault(KindListLine, SeverityWarning, number, "is empty", "a repair leaves it out")
		return
	}
	one, err := uidlist.Parse(strings.NewReader(form + line))
	if err != nil { // not of one line
		r.lost++
		return
	}
	r.Next = max(r.Next, one.Next)
	r.Torn = one.Torn
	for _, f := range one.Faults {
		what, advice, severity := f.What, "a repair leaves the key out, as Dovecot does", SeverityWarning
		if f.Lost {
			r.lost++
			severity, advice = SeverityError, "compare it with a backup; a repair leaves the line out, and its message gets another unique-id"
		}
		r.fault(KindListLine, severity, number, what, advice)
	}
	for _, rec := range one.Records {
		r.record(number, rec)
	}
}

func (r *lineReading) record(number int, rec uidlist.Record) {
	if i, twice := r.byUID[rec.UID]; twice {
		other := &r.Records[i]
		if other.Base == rec.Base {
			r.fault(KindListTwice, SeverityWarning, number, fmt.Sprintf("uid %d is there twice, for the same file", rec.UID), "a repair leaves the second line out")
			return
		}
		r.lost++
		r.fault(KindUIDTwice, SeverityError, number, fmt.Sprintf("uid %d is that of %q, and of %q", rec.UID, other.Base, rec.Base),
			"a repair leaves it to the first, as a session does; the second is a new message, but for a unique-id of its own")
		if _, own := rec.Get(uidlist.KeyUniqueID); own {
			r.own = append(r.own, rec)
		}
		return
	}
	if rec.UID < r.last {
		r.fault(KindListOrder, SeverityError, number, fmt.Sprintf("uid %d after %d: they must rise", rec.UID, r.last), "a repair sorts them; a session would give the message another unique-id")
	}
	r.last = max(r.last, rec.UID)
	if uid, twice := r.byBase[rec.Base]; twice {
		r.fault(KindBaseTwice, SeverityWarning, number, fmt.Sprintf("uids %d and %d are of one file, %.80q", uid, rec.UID, rec.Base), "a repair keeps the higher uid, as Dovecot and a session do")
		r.doubles++
	}
	r.byBase[rec.Base] = rec.UID
	r.byUID[rec.UID] = len(r.Records)
	r.Records = append(r.Records, rec)
}

// finish sorts the records, and leaves one to each file: the one with the highest uid, as uidlist.Parse does.
func (r *lineReading) finish() {
	for _, rec := range r.own {
		if r.Next > uidlist.MaxUID {
			break
		}
		rec.UID = r.Next
		r.Next++
		r.Records = append(r.Records, rec)
	}
	slices.SortFunc(r.Records, func(a, b uidlist.Record) int { return int(int64(a.UID) - int64(b.UID)) })
	last := map[string]int{}
	for i := range r.Records {
		last[r.Records[i].Base] = i
	}
	kept := r.Records[:0]
	for i, rec := range r.Records {
		if last[rec.Base] == i {
			kept = append(kept, rec)
		}
	}
	r.Records = kept
}

// lookValidity holds the list against the validity that was served last: see loader.guard.
func (c *checker) lookValidity() error {
	known, there, err := c.witness()
	if err != nil {
		c.tell(Problem{
			Kind: KindWitness, Severity: SeverityError, File: witnessName, What: "can't be read, and so nobody can log in: " + reason(err), Advice: "remove it",
		})
		return nil
	}
	if there && known == 0 {
		c.tell(Problem{
			Kind: KindWitness, Severity: SeverityWarning, File: witnessName, Mends: c.list.List != nil,
			What: "is no number, so that a list that is replaced is not noticed", Advice: "a repair writes it anew, and so the next session does",
		})
	}
	p := Problem{Kind: KindValidity, File: listName, Advice: "bring the right list back; or remove " + witnessName + " to accept it, and clients download everything again"}
	changed := len(c.files)
	switch {
	case !c.list.onDisk:
		if _, err := c.takeOver(); err != nil {
			c.tell(Problem{Kind: KindCourier, Severity: SeverityError, File: courierIMAP + ", " + courierPOP3, What: err.Error(), Advice: "bring it back from a backup, or remove it"})
		}
		if known == 0 {
			return nil
		}
		p.Kind, p.What = KindListLost, fmt.Sprintf("is lost; %d messages would come under other unique-ids", changed)
	case c.list.List == nil || known == 0 || c.list.Validity == known:
		return nil
	default:
		for i := range c.list.Records {
			rec := &c.list.Records[i]
			if _, own := rec.Get(uidlist.KeyUniqueID); own && c.message(rec.Base) != nil {
				changed--
			}
		}
		p.What = fmt.Sprintf("has the UIDVALIDITY %d, and %d was served; %d messages would come under other unique-ids", c.list.Validity, known, changed)
	}
	p.Severity = SeverityWarning
	if changed > mostChanged {
		p.Severity = SeverityError
		p.What += ", and the login is refused"
	}
	c.tell(p)
	return nil
}

// lookIDs finds unique-ids that are not served: RFC 1939 section 7.
func (c *checker) lookIDs() {
	var known []served
	for i := range c.list.Records {
		rec := &c.list.Records[i]
		if n, here := c.byBase[rec.Base]; here {
			known = append(known, served{file: n, record: rec, order: order(rec)})
		}
	}
	slices.SortStableFunc(known, func(a, b served) int {
		switch {
		case a.order < b.order:
			return -1
		case a.order > b.order:
			return 1
		}
		return 0
	})
	want := make([]string, len(known))
	for i := range known {
		want[i] = known[i].record.UniqueID(c.list.Validity)
	}
	(&loader{box: c.box, list: &listFile{List: c.list.List}}).identify(known)
	c.list.Faults = nil
	for i := range known {
		m := &known[i]
		switch {
		case m.id == want[i]:
		case !maildrop.ValidUID(want[i]):
			c.tell(Problem{
				Kind: KindBadID, Severity: SeverityWarning, File: listName,
				What:   fmt.Sprintf("uid %d has a unique-id that RFC 1939 does not allow: %.80q; %s is served", m.record.UID, want[i], m.id),
				Advice: "none is needed; clients know the other one",
			})
		default:
			c.list.change = true
			c.tell(Problem{
				Kind: KindIDTwice, Severity: SeverityError, File: listName, Mends: true,
				What:   fmt.Sprintf("uid %d has the unique-id of another message: %q; %s is served", m.record.UID, want[i], m.id),
				Advice: "a repair writes down what is served, and so the next session does",
			})
		}
	}
}

// lookKept looks at the times at which messages were removed and kept.
func (c *checker) lookKept() {
	for i := range c.list.Records {
		rec := &c.list.Records[i]
		value, ok := rec.Get(uidlist.KeyRemoved)
		if _, gone := goneRecord(rec); !ok || gone {
			continue
		}
		if c.message(rec.Base) != nil {
			c.removed++
		}
		if at, err := strconv.ParseInt(value, 10, 64); err == nil && at > 0 && at < math.MaxInt32*4 {
			continue
		}
		c.tell(Problem{
			Kind: KindKept, Severity: SeverityWarning, File: listName, Mends: true,
			What:   fmt.Sprintf("uid %d was removed and kept at no time: %.40q", rec.UID, value),
			Advice: "a repair takes the time at which the list was last written",
		})
		rec.Set(uidlist.KeyRemoved, strconv.FormatInt(c.list.stat.Mtim.Sec, 10))
		c.list.change = true
	}
}

// lookMissing counts records whose files are not there. Whoever else removes mail leaves them; but files may be away for a
// moment only, a restore or a mount under way, so that they are dropped at a person's word alone, and never all.
func (c *checker) lookMissing() {
	if !c.whole || !c.still {
		return
	}
	here := func(rec uidlist.Record) bool {
		_, gone := goneRecord(&rec)
		return gone || c.seen[rec.Base]
	}
	n := 0
	for i := range c.list.Records {
		if !here(c.list.Records[i]) {
			n++
		}
	}
	if n == 0 {
		return
	}
	p := Problem{
		Kind: KindMissing, Severity: SeverityNote, File: listName,
		What:   fmt.Sprintf("%d records of messages that are not there: somebody else has removed them", n),
		Advice: "none is needed; --drop-missing drops them",
	}
	switch {
	case len(c.seen) == 0 && n > mostChanged:
		p.Severity, p.What = SeverityWarning, fmt.Sprintf("none of the %d messages that it has is there", n)
		p.Advice = "see whether the mail is somewhere else; the records are never dropped"
	case c.opts.DropMissing:
		p.Mends, p.Advice = true, "a repair drops them"
		c.list.Records = slices.DeleteFunc(c.list.Records, func(rec uidlist.Record) bool { return !here(rec) })
		c.list.change = true
	}
	c.tell(p)
}
