package maildir

import (
	"context"
	"fmt"
	"slices"
)

// lookGone takes messages that a large removal has left to be unlinked out of all that is looked at.
func (c *checker) lookGone() {
	out := map[string]bool{}
	for _, g := range goneIn(c.list.List) {
		if f := c.message(g.stem); f != nil {
			g.place = f.place
		}
		c.gone = append(c.gone, g)
		out[g.stem] = true
	}
	if len(out) == 0 {
		return
	}
	c.files = slices.DeleteFunc(c.files, func(f checkedFile) bool { return out[f.base()] })
	clear(c.byBase)
	for i := range c.files {
		c.byBase[c.files[i].base()] = i
	}
	c.tell(Problem{
		Kind: KindGone, Severity: SeverityNote, File: listName, Mends: true,
		What:   fmt.Sprintf("has %d messages that were removed and whose files are yet to be unlinked; nobody sees them", len(out)),
		Advice: "a repair unlinks them, and so the next session does",
	})
}

// unlinkGone finishes a large removal.
func (c *checker) unlinkGone(ctx context.Context) error {
	j, err := c.newJob()
	if err != nil {
		return err
	}
	defer j.close()
	return j.finish(ctx, c.gone)
}
