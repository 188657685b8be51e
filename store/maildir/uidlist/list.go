package uidlist

import (
	"slices"
	"strconv"
	"strings"
)

// MaxUID is the highest uid a record may have; Dovecot takes the next number for "none".
const MaxUID = 1<<32 - 2

// Keys of a record that this project knows. Others are kept as they are. S, W, P and O are Dovecot's;
// E, U, D and R are dewey's own, which Dovecot keeps when it rewrites a list; G would be a GUID of Dovecot's.
const (
	KeyStored    = 'S' // octets as stored
	KeyVirtual   = 'W' // octets with CRLF line ends, without a line end added to the last line
	KeyUniqueID  = 'P' // POP3 unique-id; empty: the base name
	KeyOrder     = 'O' // POP3 order: records that have it come first, the lowest before all
	KeyAdded     = 'E' // octets that sending adds to W; where it stands, S and W were measured
	KeySurrogate = 'U' // octets of the surrogate (RFC 6856); -1: there is none
	KeyRemoved   = 'D' // removed by its owner, and kept: when, in seconds since 1970
	KeyGone      = 'R' // beside D: not kept, its file is yet to be unlinked: its mtime in nanoseconds, octets and inode, with a '.' between
)

// A List is a whole uid list.
type List struct {
	Version  int    // as read: 1 or 3; it is always written as 3
	Validity uint32 // V; never 0
	Next     uint32 // N: the lowest uid never used yet, raised past every uid that a line names
	GUID     string // G: 32 hex digits; empty if there is none
	Extra    string // all other keys of the header, in their order, separated by a space

	Records []Record // by rising UID, each Base once

	// Faults are the lines, or parts of a line, that were left out.
	Faults []Fault
	// Torn says that the last line has no end: a write was cut short, or is under way. It is left out.
	Torn bool
	// Lines is how many record lines there were, those left out too.
	Lines int
}

// A Fault is one thing wrong in a list.
type Fault struct {
	Line int // from 1
	What string
	Lost bool // a record was left out, not only a key of it
}

// A Record is what a list says of one message.
type Record struct {
	UID  uint32
	Keys string // keys and values, separated by one space: "W50 S48"
	Base string // the file name up to its first ':'
}

// Get returns the value of a key. When a key stands there twice the first one counts, as in Dovecot.
func (r *Record) Get(key byte) (value string, ok bool) {
	for rest := r.Keys; rest != ""; {
		var field string
		field, rest, _ = strings.Cut(rest, " ")
		if field != "" && field[0] == key {
			return field[1:], true
		}
	}
	return "", false
}

// GetOctets returns the value of a key as a size. A value that is no decimal number is no value.
func (r *Record) GetOctets(key byte) (octets int64, ok bool) {
	value, ok := r.Get(key)
	if !ok || value == "" || value[0] < '0' || value[0] > '9' {
		return 0, false
	}
	octets, err := strconv.ParseInt(value, 10, 64)
	return octets, err == nil
}

// Set gives a key a value, which has no space or line end in it, in place of those it had.
func (r *Record) Set(key byte, value string) {
	if _, ok := r.Get(key); ok {
		r.Unset(key)
	}
	if r.Keys != "" {
		r.Keys += " "
	}
	r.Keys += string(rune(key)) + value
}

// Unset takes a key away.
func (r *Record) Unset(key byte) {
	var kept []string
	for field := range strings.SplitSeq(r.Keys, " ") {
		if field != "" && field[0] != key {
			kept = append(kept, field)
		}
	}
	r.Keys = strings.Join(kept, " ")
}

// Appendable says that a record can be added at the end of the list as it stands on disk. Otherwise
// the list has to be written anew.
func (l *List) Appendable() bool {
	return l.Version == 3 && l.GUID != "" && !l.Torn && len(l.Faults) == 0
}

// AppendHeader appends the header line to b. A list without a GUID gets none: see NewGUID.
func (l *List) AppendHeader(b []byte) []byte {
	b = append(b, "3 V"...)
	b = strconv.AppendUint(b, uint64(l.Validity), 10)
	b = append(b, " N"...)
	b = strconv.AppendUint(b, uint64(l.Next), 10)
	if l.GUID != "" {
		b = append(b, " G"...)
		b = append(b, l.GUID...)
	}
	if l.Extra != "" {
		b = append(b, ' ')
		b = append(b, l.Extra...)
	}
	return append(b, '\n')
}

// Append appends the record's line to b.
func (r *Record) Append(b []byte) []byte {
	b = strconv.AppendUint(b, uint64(r.UID), 10)
	if r.Keys != "" {
		b = append(b, ' ')
		b = append(b, r.Keys...)
	}
	b = append(b, " :"...)
	b = append(b, r.Base...)
	return append(b, '\n')
}

// Append appends the whole list to b.
func (l *List) Append(b []byte) []byte {
	b = l.AppendHeader(b)
	octets := 0
	for i := range l.Records {
		octets += len("4294967295  :\n") + len(l.Records[i].Keys) + len(l.Records[i].Base)
	}
	b = slices.Grow(b, octets)
	for i := range l.Records {
		b = l.Records[i].Append(b)
	}
	return b
}

// UniqueID is the POP3 unique-id of the record in a maildrop with the given validity, as Dovecot
// serves it by default. It need not be one that RFC 1939 allows: see Legal.
func (r *Record) UniqueID(validity uint32) string {
	switch p, ok := r.Get(KeyUniqueID); {
	case !ok:
		return DefaultID(r.UID, validity)
	case p == "":
		return r.Base
	default:
		return p
	}
}

// DefaultID is the unique-id of a record that names none: eight hex digits of uid, eight of validity.
func DefaultID(uid, validity uint32) string {
	var id [16]byte
	return string(AppendDefaultID(id[:0], uid, validity))
}

// AppendDefaultID appends DefaultID to b.
func AppendDefaultID(b []byte, uid, validity uint32) []byte {
	const digits = "0123456789abcdef"
	for v, shift := uint64(uid)<<32|uint64(validity), 60; shift >= 0; shift -= 4 {
		b = append(b, digits[v>>shift&15])
	}
	return b
}

// Base is the part of a file name that stays when flags change: all before the first ':'.
func Base(name string) string {
	base, _, _ := strings.Cut(name, ":")
	return base
}
