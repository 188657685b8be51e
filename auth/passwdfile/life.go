package passwdfile

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"dewey/auth"
)

const (
	day          = 24 * time.Hour
	mostDays     = 36500 * day // that mail may be kept, or seen
	mostUndelete = 3650 * day
	mostFolders  = 100
	maxFolder    = 200 // octets of a folder's name
)

// deletions are what a line may say of messages that are marked as deleted.
var deletions = []string{"remove", "keep", "retrieved"}

var (
	errRetention      = errors.New("retention with something that is no number of days; retention=90d (1d to 36500d) or retention=never would be right")
	errUndelete       = errors.New("undelete with something that is no time; undelete=7d, undelete=12h (up to 3650d) or undelete=0 would be right")
	errDeletion       = errors.New("deletion with something that is no choice; deletion=" + strings.Join(deletions, ", deletion=") + " would be right")
	errWindow         = errors.New("window with something that is no time; window=30d, window=12h (up to 36500d) or window=0 would be right")
	errWindowMessages = errors.New("window_messages with something that is no number; window_messages=1000 or window_messages=0 would be right")
	errFolders        = errors.New("folders with something that is no folder's name; folders=Spam,Lists/dewey would be right: no dots, not INBOX, at most 200 octets of UTF-8 each")
	errFoldersTwice   = errors.New("folders with a folder twice; each once would be right")
	errFoldersMany    = fmt.Errorf("folders with over %d of them; fewer would be right", mostFolders)
)

// lifeField reads one of the extra fields that say how long a user's mail stays, and what of it he sees. given: the
// field has a value, empty or not.
func (x *extra) lifeField(key, value string, given bool) error {
	var ok bool
	switch key {
	case "retention":
		if x.life.Retention, ok = span(value, mostDays); !ok || x.life.Retention > 0 && x.life.Retention%day != 0 {
			return errRetention
		}
	case "undelete":
		if x.life.Undelete, ok = span(value, mostUndelete); !ok {
			return errUndelete
		}
	case "deletion":
		if x.life.Deletion = value; !slices.Contains(deletions, value) {
			return errDeletion
		}
	case "window":
		if x.life.Window, ok = span(value, mostDays); !ok {
			return errWindow
		}
	case "window_messages":
		if x.life.WindowMessages, ok = auth.ParseMessages(value); value == never {
			x.life.WindowMessages = auth.Unlimited
		} else if !ok {
			return errWindowMessages
		}
	default:
		if !given {
			return errFolders
		}
		var err error
		x.life.Folders, err = parseFolders(value)
		return err
	}
	return nil
}

// never may stand for 0.
const never = "never"

// span reads a number of days or hours; none of them means that there is no limit.
func span(s string, most time.Duration) (time.Duration, bool) {
	unit := day
	digits, found := strings.CutSuffix(s, "d")
	if !found {
		unit = time.Hour
		digits, found = strings.CutSuffix(s, "h")
	}
	if s == never || s == "0" {
		return auth.Unlimited, true
	}
	n, ok := auth.ParseUnits(digits, int64(unit), int64(most))
	return time.Duration(n), ok && found
}

// parseFolders reads names of folders, with commas between; no text means none of them. A dot parts names in Maildir++,
// so that none can hold one.
func parseFolders(value string) ([]string, error) {
	if value == "" {
		return []string{}, nil
	}
	list := strings.Split(value, ",")
	if len(list) > mostFolders {
		return nil, errFoldersMany
	}
	seen := make(map[string]bool, len(list))
	for _, name := range list {
		small := auth.Lower(name)
		switch {
		case len(name) > maxFolder || !utf8.ValidString(name) || strings.Contains(name, ".") || small == "inbox",
			strings.ContainsFunc(name, unicode.IsControl), // of C1 too
			slices.Contains(strings.Split(name, "/"), ""):
			return nil, errFolders
		case seen[small]:
			return nil, errFoldersTwice
		}
		seen[small] = true
	}
	return list, nil
}

// lives are the combinations that auth.Lives tells of.
type lives struct {
	list []auth.Life
	seen map[combination]bool
}

type combination struct {
	retention time.Duration
	deletion  string
}

func (l *lives) add(one auth.Life) {
	c := combination{one.Retention, one.Deletion}
	if l.seen[c] {
		return
	}
	if l.seen == nil {
		l.seen = make(map[combination]bool)
	}
	l.seen[c] = true
	l.list = append(l.list, auth.Life{Retention: one.Retention, Deletion: one.Deletion})
}

// Lives implements auth.Lives: of all users but those with nologin, in the file as it is or was less than a second ago. A
// user whose line says nothing has the zero Life; without users there is none. The caller does not change the list.
func (f *File) Lives() []auth.Life { return f.recent().lives.list }

// recent returns the table of the file as it is, or was less than a second ago, or when it could be read. It is for what
// is announced, which takes several looks in each session; a login looks anew.
func (f *File) recent() *table {
	if time.Since(f.opened)-time.Duration(f.looked.Load()) >= time.Second {
		_, _ = f.current(context.Background()) // who logs in is told
	}
	return f.state.Load().table
}
