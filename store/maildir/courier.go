package maildir

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strconv"

	"dewey/maildrop"
	"dewey/store/maildir/uidlist"
)

// Courier's files in a Maildir: what its IMAP and its POP3 server gave out.
const (
	courierIMAP = "courierimapuiddb"
	courierPOP3 = "courierpop3dsizelist"
)

// takeOver makes a list of Courier's, which stay as they are; nil if there are none. IMAP's uids and
// validity are kept; what POP3 served becomes the unique-id of a record. A damaged list is
// maildrop.ErrDamaged: without it all unique-ids would change.
func (b *box) takeOver() (*uidlist.List, error) {
	imap, err := b.courierIMAP()
	if err != nil {
		return nil, err
	}
	pop3, err := b.courierPOP3()
	if err != nil || pop3 == nil {
		return imap, err
	}
	list := imap
	if list == nil {
		list = b.newList(0, nil)
	}
	b.log.Info("taking over the unique-ids of Courier", "messages", len(pop3.Entries))
	at := make(map[string]int, len(list.Records))
	for i := range list.Records {
		at[list.Records[i].Base] = i
	}
	for i := range pop3.Entries {
		e := &pop3.Entries[i]
		n, ok := at[e.Base]
		if !ok {
			n = len(list.Records)
			list.Records = append(list.Records, uidlist.Record{UID: list.Next, Base: e.Base})
			list.Next++
		}
		rec := &list.Records[n]
		rec.Set(uidlist.KeyUniqueID, e.UniqueID())
		if e.Octets > 0 { // 0: Courier could not read it
			rec.Set(uidlist.KeyVirtual, strconv.FormatInt(e.Octets, 10))
		}
	}
	return list, nil
}

func (b *box) courierIMAP() (*uidlist.List, error) {
	return courierFile(b, courierIMAP, uidlist.Parse)
}

func (b *box) courierPOP3() (*uidlist.SizeList, error) {
	list, err := courierFile(b, courierPOP3, uidlist.ParseSizeList)
	if err != nil || list == nil {
		return nil, err
	}
	for _, f := range list.Faults {
		b.log.Warn("Courier's list has a fault, which is left out", "file", b.file(courierPOP3), "line", f.Line, "what", f.What)
	}
	return list, nil
}

// courierFile reads one of Courier's files; nil if there is none.
func courierFile[T any](b *box, name string, parse func(io.Reader) (*T, error)) (*T, error) {
	file, _, err := b.openPlain(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer file.Close()
	list, err := parse(file)
	var format *uidlist.FormatError
	if errors.As(err, &format) {
		return nil, fmt.Errorf("%w: %s: %w", maildrop.ErrDamaged, file.Name(), err)
	}
	if err != nil {
		return nil, err
	}
	return list, nil
}
