package history

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"net/netip"
	"os"
	"path/filepath"
	"time"
)

// A Query says which sessions are looked for: those for which all holds.
type Query struct {
	User  string       // as the session had it; never empty
	Since time.Time    // the session went on at this time or later; zero: any
	Until time.Time    // it began before this time; zero: any
	UID   string       // it handed out or removed this unique-id; empty: any
	From  netip.Prefix // it came from an address in it; the zero Prefix: any
}

// maxLine is the most octets of a line that is read. The Recorder's have hardly more than pieceSize.
const maxLine = 64 << 10

// Records yields what is recorded in a folder, in the order in which it was written: of long sessions more than
// one piece. With Query.UID a piece has that unique-id's messages alone. Lines that are damaged are skipped, and
// so is one that is not written to its end. An error about a file is yielded, and the next is read. No folder is no
// record.
func (q Query) Records(dir string) iter.Seq2[Record, error] {
	return func(yield func(Record, error) bool) {
		list, err := days(dir)
		if err != nil {
			yield(Record{}, err)
			return
		}
		for _, day := range list {
			if !q.Since.IsZero() && !day.Add(24*time.Hour).After(q.Since) {
				continue // a piece is written after all that it tells of
			}
			if !q.file(filepath.Join(dir, day.Format(time.DateOnly)+suffix), yield) {
				return
			}
		}
	}
}

// file yields what is recorded in one file, and returns false if no more is wanted.
func (q Query) file(name string, yield func(Record, error) bool) bool {
	f, err := os.Open(name)
	if errors.Is(err, fs.ErrNotExist) {
		return true // too old, since a moment ago
	}
	if err != nil {
		return yield(Record{}, fmt.Errorf("history: %w", err))
	}
	defer f.Close()
	goOn := true
	err = q.scan(f, func(r Record) bool {
		goOn = yield(r, nil)
		return goOn
	})
	if err != nil && goOn {
		return yield(Record{}, fmt.Errorf("history: %s: %w", name, err))
	}
	return goOn
}

// errVersion says that a file is of a later dewey.
var errVersion = errors.New("written by a newer dewey")

// readable says by a file's first line whether its version is known: errVersion if not.
func readable(line []byte) error {
	var head struct {
		Version int `json:"dewey_history"`
	}
	if json.Unmarshal(line, &head) == nil && head.Version > version {
		return fmt.Errorf("%w: version %d, this one knows %d", errVersion, head.Version, version)
	}
	return nil
}

// scan calls found for each record in a file that is looked for, until it returns false.
func (q Query) scan(from io.Reader, found func(Record) bool) error {
	in := bufio.NewReaderSize(from, maxLine)
	wanted := appendUser(nil, q.User)
	uid := appendString(nil, q.UID)
	for first := true; ; first = false {
		line, err := in.ReadSlice('\n')
		switch {
		case errors.Is(err, bufio.ErrBufferFull):
			if err := skip(in); err != nil {
				return err
			}
			continue
		case err == io.EOF:
			return nil // what has no line end is being written, or never was to its end
		case err != nil:
			return err //nolint:wrapcheck // file does
		}
		if first {
			if err := readable(line); err != nil {
				return err
			}
		}
		if !bytes.HasPrefix(line, wanted) || q.UID != "" && !bytes.Contains(line, uid) {
			continue
		}
		r, err := parseRecord(line[:len(line)-1])
		if err == nil && q.matches(&r) && !found(r) {
			return nil
		}
	}
}

// skip skips the rest of a line.
func skip(in *bufio.Reader) error {
	for {
		_, err := in.ReadSlice('\n')
		if err == nil || err == io.EOF {
			return nil // the next read meets the end too
		}
		if !errors.Is(err, bufio.ErrBufferFull) {
			return err //nolint:wrapcheck // file does
		}
	}
}

// matches says whether a piece is looked for, and takes other messages than Query.UID's out of it.
func (q Query) matches(r *Record) bool {
	if r.User != q.User || r.last().Before(q.Since) || !q.Until.IsZero() && !r.Login.Before(q.Until) ||
		q.From.IsValid() && !q.From.Contains(r.From.Addr().Unmap().WithZone("")) {
		return false
	}
	if q.UID == "" {
		return true
	}
	var of []Message
	for _, m := range r.Messages {
		if m.UID == q.UID {
			of = append(of, m)
		}
	}
	r.Messages = of
	return len(of) > 0
}

// A Session is the sum of a session's pieces.
type Session struct {
	Who
	End   End
	Ended bool // false: it goes on, or the server ended without a word. End counts what is known then
}

// maxOpen bounds the sessions of one user whose end has not been met.
const maxOpen = 1000

// Sessions yields a user's sessions in the order of their ends, and at last those of which no end is recorded.
// Query.UID counts for nothing here.
func (q Query) Sessions(dir string) iter.Seq2[Session, error] {
	q.UID = ""
	type key struct {
		id    uint64
		login time.Time
	}
	return func(yield func(Session, error) bool) {
		var order []key
		open := map[key]*Session{}
		for r, err := range q.Records(dir) {
			if err != nil {
				if !yield(Session{}, err) {
					return
				}
				continue
			}
			k := key{r.Session, r.Login.UTC()}
			if r.End != nil {
				delete(open, k)
				if !yield(Session{Who: r.Who, End: *r.End, Ended: true}, nil) {
					return
				}
				continue
			}
			if open[k] == nil && len(open) < maxOpen {
				open[k] = &Session{Who: r.Who}
				order = append(order, k)
			}
			if s := open[k]; s != nil {
				s.add(&r)
			}
			if len(order) > 2*maxOpen { // most have ended
				order = stillOpen(order, func(k key) bool { return open[k] != nil })
			}
		}
		for _, k := range order {
			if s := open[k]; s != nil && !yield(*s, nil) {
				return
			}
		}
	}
}

func stillOpen[K any](order []K, open func(K) bool) []K {
	var left []K
	for _, k := range order {
		if open(k) {
			left = append(left, k)
		}
	}
	return left
}

// add counts a piece's messages.
func (s *Session) add(r *Record) {
	for _, m := range r.Messages {
		switch m.Kind {
		case Fetched:
			s.End.Fetched++
			s.End.Octets += m.Octets
		case Cut:
			s.End.Cut++
		case Removed:
			s.End.Removed++
		case Kept:
			s.End.Kept++
		}
		s.End.At = m.At
	}
}
