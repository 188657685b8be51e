package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"dewey/config"
	"dewey/maildrop"
	"dewey/store/maildir"
)

func (a *app) mailRemove() *cobra.Command {
	var r remover
	var folder folderFlag
	cmd := &cobra.Command{
		Use:   "remove USER UNIQUE-ID...",
		Short: "Remove messages from a user's maildrop",
		Long: "Remove messages from a user's maildrop: those with the unique-ids, or with --all, --before or --older-than all that\n" +
			"were delivered before then. (The time of delivery counts, not the date that a sender has written: \"delivered\" in\n" +
			"dewey mail list --json.) Numbers are not taken, since they change. The other messages keep their unique-ids.\n" +
			"Mail in folders stays, whatever mail.folders says; with --folder it is that of a folder. What was removed is printed.",
		Example: "  dewey mail remove mrose 000000036b03a418\n" +
			"  dewey mail remove mrose --older-than 365d\n" +
			"  dewey mail remove mrose --all --before 2024-01-01 --yes",
		Args: mailArgs(0, 1<<30),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := r.which(cmd, args[1:]); err != nil {
				return err
			}
			m, err := folder.open(a, cmd, args[0])
			if err != nil {
				return err
			}
			return r.run(a, m)
		},
	}
	cmd.Flags().BoolVar(&r.all, "all", false, "remove all messages; with --before or --older-than, all of them")
	cmd.Flags().StringVar(&r.date, "before", "", "remove what was delivered before a `DATE`: 2024-12-31, or 2024-12-31T23:59:59Z")
	cmd.Flags().StringVar(&r.age, "older-than", "", "remove what was delivered longer ago than a `TIME`: 30d, 12h")
	cmd.Flags().BoolVar(&r.yes, "yes", false, "don't ask, with --all, --before and --older-than")
	folder.add(cmd)
	return cmd
}

// A remover knows what is to go.
type remover struct {
	all, yes  bool
	date, age string

	ids    []string  // if it is by unique-ids
	before time.Time // else; zero: all
}

func (r *remover) which(cmd *cobra.Command, ids []string) error {
	bulk := r.all || r.date != "" || r.age != ""
	switch {
	case bulk && len(ids) > 0:
		return errors.New("unique-ids, or --all, --before or --older-than, not both")
	case r.date != "" && r.age != "":
		return errors.New("--before or --older-than, not both")
	case cmd.Flags().Changed("before") && r.date == "" || cmd.Flags().Changed("older-than") && r.age == "":
		return errors.New("--before and --older-than need a time") // =$UNSET must not mean all
	case !bulk && len(ids) == 0:
		return fmt.Errorf("nothing to remove; write %s, or --all, --before or --older-than", cmd.UseLine())
	}
	r.ids = ids
	switch {
	case r.date != "":
		var err error
		if r.before, err = time.ParseInLocation(time.DateOnly, r.date, time.Local); err != nil {
			r.before, err = time.Parse(time.RFC3339, r.date)
		}
		if err != nil || r.before.IsZero() {
			return fmt.Errorf("--before %q is no date; write 2024-12-31 or 2024-12-31T23:59:59Z", r.date)
		}
	case r.age != "":
		d, err := config.ParseDuration(r.age)
		if err != nil || d <= 0 {
			return fmt.Errorf("--older-than %q is no time; write 30d or 12h", r.age)
		}
		r.before = time.Now().Add(-d)
	}
	return nil
}

// run removes by unique-id whatever was asked for, so that what comes and goes while somebody is asked does not
// change what is meant.
func (r *remover) run(a *app, m *userMail) error {
	ids := r.ids
	if len(ids) == 0 {
		look, err := m.look(context.Background())
		if err != nil {
			return err
		}
		var octets int64
		if ids, octets, err = r.choose(look); err != nil {
			return err
		}
		if len(ids) == 0 {
			return a.say("removed 0 messages of %s", m.whose())
		}
		question := fmt.Sprintf("Remove %s (%s) of %s", plural(int64(len(ids)), "message"), plural(octets, "octet"), m.whose())
		if m.owner.Life.Undelete <= 0 {
			question += " for good"
		}
		if err := a.sure(r.yes, question); err != nil {
			return err
		}
	}
	owner := m.owner // for whose sessions to keep messages is no reason to keep these, nor that they are hidden
	owner.Life.Deletion, owner.View.Recent = maildrop.DeletionRemove, 1
	if owner.View.Folder == "" {
		owner.Life.Folders = nil // as look has it
	}
	drop, err := m.store.Open(context.Background(), owner)
	if err != nil {
		return m.busy(err)
	}
	numbers, err := numbersOf(drop.Messages(), ids, len(r.ids) > 0)
	if err != nil {
		return errors.Join(err, drop.Close())
	}
	removed := make([]maildrop.Message, len(numbers))
	for i, n := range numbers {
		removed[i] = drop.Messages()[n-1]
	}
	fault := errors.Join(drop.Remove(context.Background(), numbers), drop.Close())
	if fault != nil {
		removed, err = m.gone(removed)
		fault = errors.Join(fault, err)
	}
	return errors.Join(fault, a.sayRemoved(m.whose(), removed))
}

// choose returns the unique-ids of the messages that were delivered before the time.
func (r *remover) choose(look *maildir.Look) (ids []string, octets int64, err error) {
	for i, m := range look.Messages() {
		if !r.before.IsZero() {
			at, body, err := look.Stored(context.Background(), i+1)
			if errors.Is(err, maildrop.ErrGone) {
				continue
			}
			if err != nil {
				return nil, 0, fmt.Errorf("message %d: %w; nothing was removed", i+1, err)
			}
			_ = body.Close()
			if !at.Before(r.before) {
				continue
			}
		}
		ids = append(ids, m.UID)
		octets += m.Octets
	}
	return ids, octets, nil
}

// numbersOf finds the messages, in order. One that is not there is an error if all must be.
func numbersOf(messages []maildrop.Message, ids []string, must bool) ([]int, error) {
	byID := make(map[string]int, len(messages))
	for i := range messages {
		byID[messages[i].UID] = i + 1
	}
	var numbers []int
	for _, id := range ids {
		n, there := byID[id]
		if there {
			numbers = append(numbers, n)
			continue
		}
		if !must {
			continue
		}
		hint := ""
		if n, err := strconv.Atoi(id); err == nil && n >= 1 && n <= len(messages) {
			hint = "; numbers are not taken, since they change: message " + id + " has the unique-id " + messages[n-1].UID
		}
		return nil, fmt.Errorf("%w with the unique-id %q%s; nothing was removed", maildrop.ErrNoMessage, id, hint)
	}
	slices.Sort(numbers)
	return slices.Compact(numbers), nil
}

// gone returns those of the messages that are not there, after a removal that went wrong.
func (m *userMail) gone(messages []maildrop.Message) ([]maildrop.Message, error) {
	look, err := m.look(context.Background())
	if err != nil {
		return nil, fmt.Errorf("what was removed and what was not can't be told: %w", err)
	}
	there := make(map[string]bool)
	for _, m := range look.Messages() {
		there[m.UID] = true
	}
	return slices.DeleteFunc(messages, func(m maildrop.Message) bool { return there[m.UID] }), nil
}

func (a *app) sayRemoved(user string, removed []maildrop.Message) error {
	w := bufio.NewWriter(a.out)
	for _, m := range removed {
		fmt.Fprintf(w, "removed %s, %s\n", m.UID, plural(m.Octets, "octet"))
	}
	fmt.Fprintf(w, "removed %s of %s\n", plural(int64(len(removed)), "message"), user)
	return w.Flush()
}
