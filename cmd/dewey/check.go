package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"dewey/auth"
	"dewey/config"
	"dewey/maildrop"
	"dewey/store/maildir"
)

// How dewey check ends, where not with 0 or exitTempFail.
const (
	exitProblems   = 1 // errors are left, or something could not be looked at
	exitNotChecked = 2 // nothing was looked at
)

// checkWait is how long a session that has a Maildir is waited for.
const checkWait = 2 * time.Second

func (a *app) checkCommand() *cobra.Command {
	k := checking{app: a}
	cmd := &cobra.Command{
		Use:   "check [USER...]",
		Short: "Check Maildirs, and repair them",
		Long: "Check the Maildirs of users, or of all users: folders, files, unique-ids, sizes, and what was removed and can be\n" +
			"brought back. It works beside a running server, and holds each Maildir for as long as it looks at it. Without\n" +
			"--repair it changes nothing. docs/CHECK.md says what it finds.\n\n" +
			"It ends with 0 if all is well or there are no more than notes and warnings; with 1 if errors are left; with 2 if it\n" +
			"was called wrongly; with 75 if there are no errors but a session had a Maildir, and to try again later would be right.",
		Example: "  dewey check\n" +
			"  dewey check mrose --sizes\n" +
			"  dewey check mrose --repair",
		RunE: func(_ *cobra.Command, args []string) error {
			ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
			defer stop()
			return k.run(ctx, args)
		},
	}
	cmd.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return &exitError{exitNotChecked, err} })
	cmd.Flags().BoolVar(&k.opts.Repair, "repair", false, "mend what can be mended without a person's decision; no message and no unique-id is thrown away")
	cmd.Flags().BoolVar(&k.opts.DropMissing, "drop-missing", false, "with --repair: drop what lists have of messages whose files are not there")
	cmd.Flags().BoolVar(&k.opts.Sizes, "sizes", false, "read all mail, and measure it")
	cmd.Flags().BoolVar(&k.folders, "folders", true, "check folders of Maildir++ too")
	cmd.Flags().BoolVar(&k.json, "json", false, "print JSON")
	cmd.Flags().BoolVar(&k.quiet, "quiet", false, "leave out notes")
	return cmd
}

// A checking is one run of the command.
type checking struct {
	app                  *app
	opts                 maildir.CheckOptions
	folders, json, quiet bool

	all      maildir.Checked
	users    int
	failed   int    // users who could not be checked, or not wholly
	left     [3]int // problems, by severity
	repaired int
	printed  bool // a problem in JSON
}

func (k *checking) run(ctx context.Context, names []string) error {
	unchecked := func(err error) error { return &exitError{exitNotChecked, err} }
	if k.opts.DropMissing && !k.opts.Repair {
		return unchecked(errors.New("--drop-missing needs --repair"))
	}
	c, err := k.app.load()
	if err != nil {
		return unchecked(err)
	}
	log := slog.New(slog.NewTextHandler(k.app.err, &slog.HandlerOptions{Level: slog.LevelError}))
	var faults error // of lines of users files
	users, err := startBackends(c, log, func(err error) { faults = errors.Join(faults, err) })
	if err != nil {
		return unchecked(err)
	}
	defer users.closing()
	if who, drop, err := server(c); err != nil {
		return unchecked(err)
	} else if drop {
		if err := who.Become(); err != nil {
			return unchecked(fmt.Errorf("process.user: %w", err))
		}
	}
	owners, err := k.owners(ctx, c, users, names)
	if err == nil && faults != nil {
		if len(names) > 0 { // as before, a file with errors answers no question about one of its users
			return unchecked(faults)
		}
		faults = &exitError{exitProblems, faults}
	}
	if err != nil {
		return unchecked(err)
	}
	k.opts.OwnAlone, k.opts.Wait = !k.folders, checkWait
	store := maildir.New(maildir.Options{
		Path: maildirOf(c), Logger: slog.New(slog.DiscardHandler), CacheOctets: -1, Quota: func() maildrop.Quota { return quotaOf(c) },
	})
	w := bufio.NewWriter(k.app.out)
	if k.json {
		fmt.Fprint(w, "{\n  \"problems\": [")
	}
	errs := []error{faults}
	for _, owner := range owners {
		if ctx.Err() != nil {
			errs = append(errs, errors.New("it was interrupted; not all were checked"))
			break
		}
		errs = append(errs, k.check(ctx, w, store, owner))
	}
	k.summary(w)
	return errors.Join(append(errs, w.Flush(), k.verdict())...)
}

// owners are the users with those names, or all that can be listed.
func (k *checking) owners(ctx context.Context, c *config.Config, users *backends, names []string) (owners []maildrop.Owner, err error) {
	owner := func(name, home string, quota auth.Quota, life auth.Life) {
		owners = append(owners, maildrop.Owner{Name: name, Home: home, Quota: maildrop.Quota(quota), Life: maildrop.Life(life).Or(lifeOf(c))})
	}
	if len(names) == 0 {
		list, unlisted, _ := users.users() // the errors of files were told when they were opened
		for _, u := range list {
			owner(u.Name, u.Home, u.Quota, u.Life)
		}
		if len(unlisted) > 0 {
			fmt.Fprintf(k.app.err, "dewey: the users of %s can't be listed; to check their maildrops, name them\n", strings.Join(unlisted, ", "))
		}
		return owners, nil
	}
	for _, name := range names {
		id, err := users.Recipient(ctx, name)
		if errors.Is(err, auth.ErrRejected) {
			return nil, noUser(c, name)
		}
		if err != nil {
			return nil, err
		}
		owner(id.User, id.Home, id.Quota, id.Life)
	}
	return owners, nil
}

// check checks one user's, and prints what is wrong.
func (k *checking) check(ctx context.Context, w *bufio.Writer, store *maildir.Store, owner maildrop.Owner) error {
	got, err := store.Check(ctx, owner, k.opts)
	k.users++
	for _, p := range got.Problems {
		if k.quiet && p.Severity == maildir.SeverityNote {
			continue
		}
		if !k.json {
			fmt.Fprintln(w, visible(p.String()))
			continue
		}
		if k.printed {
			fmt.Fprint(w, ",")
		}
		k.printed = true
		p.File, p.What, p.Maildir = readable(p.File), readable(p.What), readable(p.Maildir)
		fmt.Fprintf(w, "\n    %s", jsonText(struct {
			User string `json:"user"`
			maildir.Problem
		}{owner.Name, p}))
	}
	k.add(got)
	if err == nil {
		return nil
	}
	k.failed++
	return &exitError{exitProblems, fmt.Errorf("not all of %s's mail was checked: %w", owner.Name, err)}
}

func (k *checking) add(got maildir.Checked) {
	k.all.Maildirs += got.Maildirs
	k.all.Busy += got.Busy
	k.all.Messages += got.Messages
	k.all.Octets += got.Octets
	k.all.Removed += got.Removed
	for _, p := range got.Problems {
		switch {
		case p.Repaired:
			k.repaired++
		default:
			k.left[p.Severity]++
		}
	}
}

func (k *checking) summary(w *bufio.Writer) {
	errs, warnings, notes := k.left[maildir.SeverityError], k.left[maildir.SeverityWarning], k.left[maildir.SeverityNote]
	if k.json {
		if k.printed {
			fmt.Fprint(w, "\n  ")
		}
		fmt.Fprintf(w, "],\n  \"users\": %d,\n  \"maildirs\": %d,\n  \"messages\": %d,\n  \"octets\": %d,\n  \"removed\": %d,\n  \"in_use\": %d,\n"+
			"  \"failed\": %d,\n  \"errors\": %d,\n  \"warnings\": %d,\n  \"notes\": %d,\n  \"repaired\": %d\n}\n",
			k.users, k.all.Maildirs, k.all.Messages, k.all.Octets, k.all.Removed, k.all.Busy, k.failed, errs, warnings, notes, k.repaired)
		return
	}
	var parts []string
	for _, n := range []struct {
		n    int
		noun string
	}{{errs, "error"}, {warnings, "warning"}, {notes, "note"}} {
		parts = append(parts, plural(int64(n.n), n.noun))
	}
	if k.opts.Repair {
		parts = append(parts, fmt.Sprintf("%d repaired", k.repaired))
	}
	fmt.Fprintf(w, "%s, %s, %s, %s: %s\n", plural(int64(k.users), "user"), plural(int64(k.all.Maildirs), "Maildir"),
		plural(int64(k.all.Messages), "message"), plural(k.all.Octets, "octet"), strings.Join(parts, ", "))
}

// verdict is how the command ends if all could be looked at.
func (k *checking) verdict() error {
	switch errs := k.left[maildir.SeverityError]; {
	case k.failed > 0:
		return nil // it was said
	case errs > 0:
		return exit(exitProblems, "%s left", plural(int64(errs), "error"))
	case k.all.Busy > 0:
		return exit(exitTempFail, "%s in use: not checked; try again later", plural(int64(k.all.Busy), "Maildir"))
	}
	return nil
}
