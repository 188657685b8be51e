package uidlist

import (
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
)

// A SizeList is Courier's list of what its POP3 server served, courierpop3dsizelist.
//
//	/3 NEXT VALIDITY             the header: next number, validity of new ones
//	BASE:2,S SIZE N:V:UTF8       a file name, octets as sent, unique-id; UTF8 is 1 if the header has some
//
// Version 2 has no UTF8 field. Courier itself passes over an older list and numbers all anew.
type SizeList struct {
	Next     uint64
	Validity uint64
	Entries  []SizeEntry // in the file's order, each Base once: the first one counts
	Faults   []Fault
}

// A SizeEntry is one line of a SizeList.
type SizeEntry struct {
	Base   string
	Octets int64
	N, V   uint64 // number and validity, from which Courier makes the unique-id
}

// UniqueID is what Courier's POP3 server serves for the entry.
func (e *SizeEntry) UniqueID() string {
	switch {
	case e.N == 0: // given out by a very old Courier
		return courierName(e.Base)
	case e.V == 0:
		return fmt.Sprintf("UID%d", e.N)
	default:
		return fmt.Sprintf("UID%d-%d", e.N, e.V)
	}
}

// courierName is the unique-id that Courier makes of a base name.
func courierName(base string) string {
	var b strings.Builder
	for i := range len(base) {
		switch c := base[i]; {
		case c < 0x21, c > 0x7E, c == '\'', c == '"', c == '+':
			fmt.Fprintf(&b, "+%02X", c)
		default:
			b.WriteByte(c)
		}
	}
	return b.String()
}

// ParseSizeList reads a courierpop3dsizelist up to io.EOF. A header that Courier itself would not
// believe is a *FormatError; lines that it would pass over are told in Faults. Any other error is the
// reader's.
func ParseSizeList(r io.Reader) (*SizeList, error) {
	lines := lineReader{r: r}
	header, err := lines.next()
	if errors.Is(err, io.EOF) {
		return nil, &FormatError{1, "the file is empty"}
	}
	if err != nil && !errors.Is(err, errLong) {
		return nil, err
	}
	f := strings.Fields(strings.TrimPrefix(header, "/"))
	if !strings.HasPrefix(header, "/") || len(f) < 2 || f[0] != "3" && f[0] != "2" {
		return nil, &FormatError{1, fmt.Sprintf("not version 3 or 2 of Courier's size list: %.80q", header)}
	}
	l := new(SizeList)
	if l.Next, err = strconv.ParseUint(f[1], 10, 64); err != nil {
		return nil, &FormatError{1, fmt.Sprintf("next number: %.80q", f[1])}
	}
	if len(f) > 2 {
		if l.Validity, err = strconv.ParseUint(f[2], 10, 64); err != nil {
			return nil, &FormatError{1, fmt.Sprintf("validity: %.80q", f[2])}
		}
	}
	seen := map[string]bool{}
	for {
		line, err := lines.next()
		if errors.Is(err, io.EOF) {
			return l, nil
		}
		if err != nil && !errors.Is(err, errLong) {
			return nil, err
		}
		e, ok := sizeEntry(line)
		if err != nil || lines.torn || !ok || seen[e.Base] {
			if len(l.Faults) < 4*MaxFaults {
				l.Faults = append(l.Faults, Fault{lines.line, fmt.Sprintf("left out: %.80q", line), true})
			}
			continue
		}
		seen[e.Base] = true
		l.Entries = append(l.Entries, e)
	}
}

func sizeEntry(line string) (SizeEntry, bool) {
	i := strings.LastIndexByte(line, ' ')
	if i < 0 {
		return SizeEntry{}, false
	}
	j := strings.LastIndexByte(line[:i], ' ')
	if j <= 0 {
		return SizeEntry{}, false
	}
	id := strings.Split(line[i+1:], ":")
	if len(id) < 2 {
		return SizeEntry{}, false
	}
	octets, err1 := strconv.ParseInt(line[j+1:i], 10, 64)
	n, err2 := strconv.ParseUint(id[0], 10, 64)
	v, err3 := strconv.ParseUint(id[1], 10, 64)
	base := Base(line[:j])
	if errors.Join(err1, err2, err3) != nil || octets < 0 || base == "" || strings.ContainsAny(base, "/\x00\r") {
		return SizeEntry{}, false
	}
	return SizeEntry{Base: base, Octets: octets, N: n, V: v}, true
}
