package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"dewey/maildrop"
	"dewey/store/maildir"
)

// listRemoved lists what can be brought back, the last one at the end.
func (m *userMail) listRemoved(ctx context.Context) (*mailing, error) {
	removed, err := m.store.Removed(ctx, m.owner)
	if err != nil {
		return nil, err //nolint:wrapcheck // says where
	}
	list := &mailing{open: func(i int) (time.Time, io.ReadCloser, error) {
		r, err := m.store.OpenRemoved(ctx, m.owner, removed[i])
		return removed[i].Received, r, err //nolint:wrapcheck // names it
	}}
	for _, r := range removed {
		at := sane(r.At.Truncate(time.Second))
		list.rows = append(list.rows, mailRow{UniqueID: r.UID, Octets: r.Octets, Delivered: sane(r.Received), Removed: &at, Folder: r.Folder, Kept: r.Kept})
	}
	return list, nil
}

func (a *app) mailRestore() *cobra.Command {
	var r restorer
	var folder folderFlag
	cmd := &cobra.Command{
		Use:   "restore USER UNIQUE-ID...",
		Short: "Bring back messages that were removed",
		Long: "Bring back messages that sessions, dewey mail remove or the night removed, in the time of mail.undelete, and those\n" +
			"that mail.deletion = \"keep\" hides: those with the unique-ids, with --since all that were removed since then, with --all\n" +
			"all. They have the unique-ids that they had. What can be brought back: dewey mail list USER --removed.",
		Example: "  dewey mail restore mrose --since 2h\n" +
			"  dewey mail restore mrose --since 2026-11-23T14:00 --dry-run\n" +
			"  dewey mail restore mrose 000000036b03a418",
		Args: mailArgs(0, 1<<30),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := r.which(cmd, args[1:], time.Now()); err != nil {
				return err
			}
			m, err := folder.open(a, cmd, args[0])
			if err != nil {
				return err
			}
			return r.run(context.Background(), a, m)
		},
	}
	cmd.Flags().BoolVar(&r.all, "all", false, "bring back all that can be")
	cmd.Flags().StringVar(&r.since, "since", "", "bring back what was removed since: a `TIME` ago, such as 2h or 3d, a date (2026-11-23), or a date and a time (2026-11-23T14:00)")
	cmd.Flags().BoolVar(&r.dry, "dry-run", false, "say what would be brought back, and change nothing")
	folder.add(cmd)
	return cmd
}

// A restorer knows what is to come back.
type restorer struct {
	all, dry bool
	since    string

	ids   []string  // if it is by unique-ids
	after time.Time // else; zero: all
}

func (r *restorer) which(cmd *cobra.Command, ids []string, now time.Time) (err error) {
	since := cmd.Flags().Changed("since")
	switch {
	case (r.all || since) && len(ids) > 0 || r.all && since:
		return errors.New("unique-ids, --since or --all, one of them")
	case since && r.since == "":
		return errors.New("--since needs a time") // =$UNSET must not mean all
	case !r.all && !since && len(ids) == 0:
		return fmt.Errorf("nothing to bring back; write %s, or --since or --all", cmd.UseLine())
	}
	r.ids = ids
	if r.after, err = parseTime(r.since, now, 0); err != nil {
		return fmt.Errorf("--since %w", err)
	}
	return nil
}

func (r *restorer) fits(m maildir.Removed) bool {
	if len(r.ids) > 0 {
		return slices.Contains(r.ids, m.UID)
	}
	return !m.At.Before(r.after)
}

func (r *restorer) run(ctx context.Context, a *app, m *userMail) error {
	there, err := m.store.Removed(ctx, m.owner)
	if err != nil {
		return err //nolint:wrapcheck // says where
	}
	for _, id := range r.ids {
		if !slices.ContainsFunc(there, func(m maildir.Removed) bool { return m.UID == id }) {
			return fmt.Errorf("%w with the unique-id %q among those that can be brought back%s; nothing was", maildrop.ErrNoMessage, id, m.limit())
		}
	}
	fit := slices.DeleteFunc(slices.Clone(there), func(m maildir.Removed) bool { return !r.fits(m) })
	if len(fit) == 0 {
		return r.none(there, m)
	}
	if r.dry {
		return a.sayRestored("would restore", m.whose(), fit)
	}
	back, err := m.store.Restore(ctx, m.owner, r.fits)
	if len(back) == 0 && err != nil {
		return m.busy(err)
	}
	return errors.Join(m.busy(err), a.sayRestored("restored", m.whose(), back))
}

// limit says why more may have been removed than can be brought back.
func (m *userMail) limit() string {
	switch life := m.owner.Life; {
	case life.Undelete > 0:
		return fmt.Sprintf(" (what was removed more than %s ago is gone: mail.undelete)", lasting(life.Undelete))
	case life.Deletion == maildrop.DeletionKeep:
		return " (mail.undelete is off; what sessions remove is kept, by mail.deletion)"
	}
	return " (mail.undelete is off: what is removed is gone at once)"
}

// none says that there is nothing to bring back, and why.
func (r *restorer) none(there []maildir.Removed, m *userMail) error {
	if len(there) == 0 {
		return fmt.Errorf("nothing of %s can be brought back%s", m.whose(), m.limit())
	}
	last := slices.MaxFunc(there, func(a, b maildir.Removed) int { return a.At.Compare(b.At) }).At
	return fmt.Errorf("nothing of %s that can be brought back was removed since %s; the last was at %s; see dewey mail list %s --removed",
		m.whose(), r.after.Local().Format(time.DateTime), last.Local().Format(time.DateTime), m.owner.Name)
}

func (a *app) sayRestored(what, user string, messages []maildir.Removed) error {
	w := bufio.NewWriter(a.out)
	for _, m := range messages {
		fmt.Fprintf(w, "%s %s, %s, removed %s\n", what, m.UID, plural(m.Octets, "octet"), m.At.Local().Format(time.DateTime))
	}
	fmt.Fprintf(w, "%s %s of %s\n", what, plural(int64(len(messages)), "message"), user)
	return w.Flush()
}
