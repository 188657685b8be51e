package maildir

import (
	"strconv"
	"strings"

	"dewey/maildrop"
	"dewey/maildrop/message"
	"dewey/store/maildir/uidlist"
)

// mostClaimed is the greatest size that is believed without a look at the file, so that the sum of
// all sizes does not overflow.
const mostClaimed = 1 << 40

// mostSurrogate is more than a surrogate can be longer than the message.
const mostSurrogate = 32 * message.MaxHeader

// recorded takes what a record says of the file. Sizes that were measured by now count more.
func (f *file) recorded(rec *uidlist.Record) {
	_, f.hidden = rec.Get(uidlist.KeyRemoved)
	if f.state != unknown && f.state != claimed {
		return
	}
	stored, okS := rec.GetOctets(uidlist.KeyStored)
	virtual, okW := rec.GetOctets(uidlist.KeyVirtual)
	if !okS {
		stored, okS = nameSize(rec.Base, 'S')
	}
	if !okW {
		virtual, okW = nameSize(rec.Base, 'W')
	}
	f.claim(stored, okS, virtual, okW)
	added, _ := rec.Get(uidlist.KeyAdded)
	if f.state != claimed || !okS || added != "0" && added != "2" {
		return
	}
	f.sizes.Added = int64(added[0] - '0')
	if value, ok := rec.Get(uidlist.KeySurrogate); ok {
		n, err := strconv.ParseInt(value, 10, 64)
		if err != nil || n < 0 || n > f.sizes.Octets()+mostSurrogate {
			return
		}
		f.sizes.Surrogate = n
	}
	f.state = measured
}

// named takes what the file's name says of its sizes.
func (f *file) named() {
	base := f.base()
	stored, okS := nameSize(base, 'S')
	virtual, okW := nameSize(base, 'W')
	f.claim(stored, okS, virtual, okW)
}

// claim believes sizes for now, if they can be true.
func (f *file) claim(stored int64, okS bool, virtual int64, okW bool) {
	f.sizes, f.state = message.Sizes{Stored: -1}, unknown
	if okS && stored <= mostClaimed {
		f.sizes.Stored = stored
	}
	if !okW || virtual > mostClaimed || okS && (virtual < stored || virtual/2 > stored) {
		return
	}
	f.sizes.CRLF, f.state = virtual, claimed
}

// nameSize finds a size in a base name, like ",S=123".
func nameSize(base string, key byte) (int64, bool) {
	_, rest, ok := strings.Cut(base, string([]byte{',', key, '='}))
	if !ok {
		return 0, false
	}
	digits, _, _ := strings.Cut(rest, ",")
	if digits == "" || digits[0] < '0' || digits[0] > '9' {
		return 0, false
	}
	n, err := strconv.ParseInt(digits, 10, 64)
	return n, err == nil
}

// record writes measured sizes to a record.
func record(rec *uidlist.Record, s message.Sizes) {
	if rec.Keys == "" && s.Surrogate == 0 { // as most are: all at once
		var keys [72]byte
		b := strconv.AppendInt(append(keys[:0], uidlist.KeyStored), s.Stored, 10)
		b = strconv.AppendInt(append(b, ' ', uidlist.KeyVirtual), s.CRLF, 10)
		b = strconv.AppendInt(append(b, ' ', uidlist.KeyAdded), s.Added, 10)
		rec.Keys = string(b)
		return
	}
	rec.Set(uidlist.KeyStored, strconv.FormatInt(s.Stored, 10))
	rec.Set(uidlist.KeyVirtual, strconv.FormatInt(s.CRLF, 10))
	rec.Set(uidlist.KeyAdded, strconv.FormatInt(s.Added, 10))
	if _, ok := rec.Get(uidlist.KeySurrogate); ok || s.Surrogate != 0 {
		rec.Set(uidlist.KeySurrogate, strconv.FormatInt(s.Surrogate, 10))
	}
}

// item is what the snapshot keeps of the file.
func (f *file) item() (item, maildrop.Message) {
	it := item{name: f.name, in: f.in, stored: f.sizes.Stored, hidden: f.hidden}
	switch f.state {
	case measured, justNow:
		it.known = true
		return it, maildrop.Message{Octets: f.sizes.Octets(), Surrogate: f.sizes.Surrogate}
	case claimed:
		return it, maildrop.Message{Octets: f.sizes.CRLF}
	default:
		it.stored = -1
		return it, maildrop.Message{Octets: max(f.sizes.Stored, 0)}
	}
}
