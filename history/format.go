package history

import (
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"time"
	"unicode/utf8"
)

// A day's file is lines of JSON. The first has the version; each other is a piece of one session's record, with
// all that says whose it is, so that pieces of many sessions may stand between each other:
//
//	{"user":"mrose","session":7,"login":"…","from":"192.0.2.1:1024","method":"PASS","tls":true,
//	 "messages":[["fetched",120,35,"uid1"]],"end":{"at":90,"why":"quit","fetched":1,…}}
//
// The user comes first, so that a reader knows by the first octets of a line whether it needs the rest.
const (
	version     = 1
	versionLine = `{"dewey_history":1}` + "\n"
	suffix      = ".jsonl"
)

// Kind says what happened to a message.
type Kind string

// The kinds of what happens to a message.
const (
	Fetched Kind = "fetched" // handed to the connection whole
	Cut     Kind = "cut"     // handed to the connection in part
	Removed Kind = "removed"
	Kept    Kind = "kept" // to be removed, but the store had a fault: it may be there or not
)

// A Message is one message, and what happened to it.
type Message struct {
	Kind   Kind          `json:"what"`
	UID    string        `json:"uid"`
	Octets int64         `json:"octets"` // as LIST says it, but to a client in UTF-8 mode
	At     time.Duration `json:"-"`      // since login
	Why    string        `json:"why,omitempty"`
}

// UnmarshalJSON reads the array that stands for a message in a file.
func (m *Message) UnmarshalJSON(data []byte) error {
	var at int64
	fields := []any{&m.Kind, &m.Octets, &at, &m.UID, &m.Why}
	if err := json.Unmarshal(data, &fields); err != nil {
		return fmt.Errorf("message: %w", err)
	}
	m.At = time.Duration(at) * time.Millisecond
	return nil
}

// Who says whose session it was.
type Who struct {
	Session uint64         `json:"session"` // as in the log; it counts anew when the server starts
	Login   time.Time      `json:"login"`
	From    netip.AddrPort `json:"from"`
	Method  string         `json:"method"` // PASS, APOP or the SASL mechanism
	TLS     bool           `json:"tls"`
	By      string         `json:"by,omitempty"` // who was proven, if he acted as User
	User    string         `json:"user"`
}

// An End says how a session ended.
type End struct {
	At      time.Duration `json:"-"`       // since login
	Why     string        `json:"why"`     // as in the log
	Fetched int           `json:"fetched"` // messages
	Octets  int64         `json:"octets"`  // of those
	Cut     int           `json:"cut"`
	Removed int           `json:"removed"`
	Kept    int           `json:"kept"`
}

// UnmarshalJSON reads an End as it stands in a file.
func (e *End) UnmarshalJSON(data []byte) error {
	type plain End
	in := struct {
		*plain
		At int64 `json:"at"`
	}{plain: (*plain)(e)}
	if err := json.Unmarshal(data, &in); err != nil {
		return fmt.Errorf("end: %w", err)
	}
	e.At = time.Duration(in.At) * time.Millisecond
	return nil
}

// A Record is a piece of a session's record: one line of a file.
type Record struct {
	Who
	Messages []Message `json:"messages"`
	End      *End      `json:"end"` // nil but in the last piece
}

// last is when the last that the piece tells of happened.
func (r *Record) last() time.Time {
	switch {
	case r.End != nil:
		return r.Login.Add(r.End.At)
	case len(r.Messages) > 0:
		return r.Login.Add(r.Messages[len(r.Messages)-1].At)
	}
	return r.Login
}

// errNoRecord says that a line is none, perhaps because it was not written to its end.
var errNoRecord = errors.New("no record")

// parseRecord reads a line of a file, without its line end.
func parseRecord(line []byte) (Record, error) {
	var in struct {
		Record
		UserHex string `json:"user_hex"`
	}
	if err := json.Unmarshal(line, &in); err != nil {
		return Record{}, fmt.Errorf("%w: %w", errNoRecord, err)
	}
	if in.UserHex != "" {
		raw, err := hex.DecodeString(in.UserHex)
		if err != nil {
			return Record{}, fmt.Errorf("%w: %w", errNoRecord, err)
		}
		in.User = string(raw)
	}
	if in.User == "" || in.Login.IsZero() {
		return Record{}, errNoRecord
	}
	return in.Record, nil
}

// appendUser appends what every line of a user's records begins with.
func appendUser(b []byte, user string) []byte {
	if !utf8.ValidString(user) { // names are octets, JSON's strings are not
		b = append(b, `{"user_hex":"`...)
		b = hex.AppendEncode(b, []byte(user))
		return append(b, `",`...)
	}
	b = append(b, `{"user":`...)
	b = appendString(b, user)
	return append(b, ',')
}

// appendWho appends a line up to its first message.
func appendWho(b []byte, w *Who) []byte {
	b = appendUser(b, w.User)
	b = append(b, `"session":`...)
	b = strconv.AppendUint(b, w.Session, 10)
	b = append(b, `,"login":"`...)
	b = w.Login.UTC().AppendFormat(b, "2006-01-02T15:04:05.000Z")
	b = append(b, `","from":"`...)
	if w.From.IsValid() {
		b = w.From.AppendTo(b)
	}
	b = append(b, `","method":`...)
	b = appendString(b, w.Method)
	b = append(b, `,"tls":`...)
	b = strconv.AppendBool(b, w.TLS)
	if w.By != "" {
		b = append(b, `,"by":`...)
		b = appendString(b, w.By)
	}
	return append(b, `,"messages":[`...)
}

func appendMessage(b []byte, m *Message) []byte {
	if b[len(b)-1] != '[' {
		b = append(b, ',')
	}
	b = append(b, `["`...)
	b = append(b, m.Kind...)
	b = append(b, `",`...)
	b = strconv.AppendInt(b, m.Octets, 10)
	b = append(b, ',')
	b = strconv.AppendInt(b, m.At.Milliseconds(), 10)
	b = append(b, ',')
	b = appendString(b, m.UID)
	if m.Why != "" {
		b = append(b, ',')
		b = appendString(b, m.Why)
	}
	return append(b, ']')
}

// appendEnd appends the rest of a line after its messages; e is nil if the session goes on.
func appendEnd(b []byte, e *End) []byte {
	b = append(b, ']')
	if e == nil {
		return append(b, "}\n"...)
	}
	b = append(b, `,"end":{"at":`...)
	b = strconv.AppendInt(b, e.At.Milliseconds(), 10)
	b = append(b, `,"why":`...)
	b = appendString(b, e.Why)
	for _, n := range []struct {
		key   string
		value int64
	}{{"fetched", int64(e.Fetched)}, {"octets", e.Octets}, {"cut", int64(e.Cut)}, {"removed", int64(e.Removed)}, {"kept", int64(e.Kept)}} {
		b = append(b, `,"`...)
		b = append(b, n.key...)
		b = append(b, `":`...)
		b = strconv.AppendInt(b, n.value, 10)
	}
	return append(b, "}}\n"...)
}

// appendString appends a JSON string; what is not UTF-8 becomes U+FFFD. It never appends a line end.
func appendString(b []byte, s string) []byte {
	const digits = "0123456789abcdef"
	b = append(b, '"')
	for i := 0; i < len(s); {
		c := s[i]
		if c < utf8.RuneSelf {
			switch {
			case c == '"' || c == '\\':
				b = append(b, '\\', c)
			case c < ' ' || c == 0x7f:
				b = append(b, '\\', 'u', '0', '0', digits[c>>4], digits[c&15])
			default:
				b = append(b, c)
			}
			i++
			continue
		}
		r, n := utf8.DecodeRuneInString(s[i:])
		b = utf8.AppendRune(b, r)
		i += n
	}
	return append(b, '"')
}
