package maildir

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"dewey/store/maildir/uidlist"
)

// witnessName is a file beside the list with the validity that unique-ids were last served under, in
// decimal. It tells that a list was lost or replaced, also after a restart. Removing it accepts the
// list as it is.
const witnessName = "dewey-uidvalidity"

// mostChanged is how many messages may come under other unique-ids than before.
const mostChanged = uidlist.MaxFaults

// errChanged says that a login would change the unique-ids of messages that clients know. It is not
// maildrop.ErrDamaged: nothing in the Maildir is broken, and it may be a mount that is missing.
var errChanged = errors.New("unique-ids would change, so that clients download everything again")

// witness reads the witness; 0 if there is none.
func (b *box) witness() (validity uint32, there bool, err error) {
	file, _, err := b.openPlain(witnessName)
	if errors.Is(err, fs.ErrNotExist) {
		return 0, false, nil
	}
	if err != nil {
		return 0, false, err
	}
	defer file.Close()
	text, err := io.ReadAll(io.LimitReader(file, 64))
	if err != nil {
		return 0, false, err
	}
	v, err := strconv.ParseUint(strings.TrimSpace(string(text)), 10, 32)
	if err != nil { // a write that was cut: it is made anew
		b.log.Warn("the witness of the validity is no number", "file", b.file(witnessName), "content", string(text))
		return 0, true, nil
	}
	return uint32(v), true, nil
}

// attest writes the witness. A Maildir that cannot have one is served without.
func (b *box) attest(validity uint32) {
	var owner unix.Stat_t
	err := b.statRoot(&owner)
	if err == nil {
		_, err = b.replace(witnessName, strconv.AppendUint(nil, uint64(validity), 10), 0o600, &owner, nil)
	}
	if err != nil {
		b.log.Warn("cannot write the witness of the validity", "error", err)
	}
}

// guard refuses unique-ids that differ from those served last for more than a few messages. list is
// the one on disk, or made of Courier's; recorded are the messages that it knows, of all that are
// there.
func (l *loader) guard(recorded []served) error {
	known, there, err := l.witness()
	if err != nil {
		return err
	}
	l.witnessed = known
	changed := 0
	switch {
	case !there && l.prev != nil && l.prev.witnessed:
		l.log.Warn("the unique-ids are accepted as they are: the witness was removed", "file", l.file(witnessName))
		return nil
	case l.prev != nil: // this process knows what was served
		changed = l.changed(recorded)
	case known != 0 && l.list.List == nil:
		changed = len(l.files)
	case known != 0 && l.list.Validity != known:
		changed = len(l.files)
		for _, m := range recorded {
			if _, own := m.record.Get(uidlist.KeyUniqueID); own {
				changed-- // whatever the validity is
			}
		}
	}
	if changed <= mostChanged {
		return nil
	}
	err = fmt.Errorf("%w: %d messages in %s; was %s lost or replaced? To accept it, remove %s",
		errChanged, changed, l.root, l.file(listName), l.file(witnessName))
	l.log.Error("ALARM: login refused", "error", err, "messages", changed, "validity", known)
	return err
}

// changed counts the messages that the last scan had, that are still there, and that have another
// unique-id now.
func (l *loader) changed(recorded []served) int {
	now := make(map[string]string, len(recorded))
	for i := range recorded {
		now[recorded[i].record.Base] = recorded[i].id
	}
	n := 0
	for i := range l.prev.items {
		base := l.prev.items[i].base()
		if _, here := l.byBase[base]; here && now[base] != l.prev.messages[i].UID {
			n++
		}
	}
	return n
}
