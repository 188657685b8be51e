package maildir

import (
	"context"
	"errors"
	"fmt"
	"io/fs"

	"dewey/maildrop/message"
	"dewey/store/maildir/uidlist"
)

// lookSizes holds sizes against the files: those that stand in names and in the list against stat, and all against what
// measuring says, if that is wanted. Trap 11.
func (c *checker) lookSizes(ctx context.Context) error {
	records := make(map[string]*uidlist.Record, len(c.list.Records))
	for i := range c.list.Records {
		records[c.list.Records[i].Base] = &c.list.Records[i]
	}
	dirs := dirs{box: c.box}
	defer dirs.close()
	for i := range c.files {
		if err := ctx.Err(); err != nil {
			return err
		}
		f := &c.files[i]
		wrong := c.wrongSizes(f, records[f.base()])
		if !c.opts.Sizes && (!wrong || !c.fixing) {
			continue
		}
		sizes, err := c.measured(ctx, &dirs, f)
		switch {
		case errors.Is(err, fs.ErrNotExist): // it has moved
		case ctx.Err() != nil:
			return ctx.Err()
		case err != nil:
			c.tell(Problem{
				Kind: KindRead, Severity: SeverityError, File: f.path(), What: "can't be read: " + reason(err), Advice: "bring it back from a backup",
			})
		default:
			c.holdSizes(f, records[f.base()], sizes, wrong)
		}
	}
	return nil
}

const measuresIt = "a repair measures it and corrects the list"

// wrongSizes says that the record can't be right.
func (c *checker) wrongSizes(f *checkedFile, rec *uidlist.Record) (wrong bool) {
	if claim, ok := nameSize(f.base(), 'S'); ok && claim != f.st.Size {
		c.tell(Problem{
			Kind: KindNameSize, Severity: SeverityWarning, File: f.path(),
			What:   fmt.Sprintf("has %d octets, and its name claims %d", f.st.Size, claim),
			Advice: "none is needed for dewey, which measures it; Dovecot refuses to read it, or mends the name",
		})
	}
	if rec == nil {
		return false
	}
	said := file{place: f.place}
	said.recorded(rec)
	stored, okS := rec.GetOctets(uidlist.KeyStored)
	_, okE := rec.Get(uidlist.KeyAdded)
	p := Problem{Kind: KindSize, Severity: SeverityError, File: f.path(), Mends: true, Advice: measuresIt}
	switch {
	case okS && stored != f.st.Size:
		p.What = fmt.Sprintf("has %d octets, and the list says %d", f.st.Size, stored)
	case okE && said.state != measured:
		p.Severity, p.What = SeverityWarning, fmt.Sprintf("has sizes in the list that make no sense: %.80q", rec.Keys)
	default:
		return false
	}
	c.tell(p)
	return true
}

// holdSizes holds what was measured against the record, and corrects it.
func (c *checker) holdSizes(f *checkedFile, rec *uidlist.Record, sizes message.Sizes, wrong bool) {
	if rec == nil {
		return // the next session measures it
	}
	said := file{place: f.place}
	said.recorded(rec)
	_, virtual := rec.Get(uidlist.KeyVirtual)
	if !wrong {
		switch {
		case said.state == measured && said.sizes != sizes:
		case said.state == claimed && virtual && said.sizes.CRLF != sizes.CRLF:
		default:
			return
		}
		c.tell(Problem{
			Kind: KindSize, Severity: SeverityError, File: f.path(), Mends: true, Advice: measuresIt,
			What: fmt.Sprintf("is %d octets as sent, and the list says %d, or a wrong size of its surrogate (RFC 6856)", sizes.Octets(), said.sizes.Octets()),
		})
	}
	record(rec, sizes)
	c.list.change = true
}

// measured reads a message, once for all looks.
func (c *checker) measured(ctx context.Context, dirs *dirs, f *checkedFile) (message.Sizes, error) {
	at := stampOf(&f.st)
	if sizes, ok := c.known[at]; ok {
		return sizes, nil
	}
	h, err := dirs.open(f.place)
	if err != nil {
		return message.Sizes{}, err
	}
	sizes, err := measure(ctx, h)
	if err = errors.Join(err, h.Close()); err == nil {
		if c.known == nil {
			c.known = map[stamp]message.Sizes{}
		}
		c.known[at] = sizes
	}
	return sizes, err
}
