package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"dewey/auth"
	"dewey/auth/chain"
	"dewey/config"
	"dewey/maildrop"
	"dewey/recipients"
)

// What `dewey auth test` ends with.
const (
	exitRefused  = 1
	exitCantTell = 2
)

func (a *app) authCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "auth",
		Short: "Ask the backends that know users",
		Args:  onlyCommands,
		RunE:  help,
	}
	var t authTest
	test := &cobra.Command{
		Use:   "test USER | --recipient ADDRESS",
		Short: "Try a login, or an address that mail comes to, without a server",
		Long: "Ask the backends of the configuration (docs/AUTH.md) as a server would, and say what each one answers, how long it\n" +
			"took, and what the session would be. The password is asked for at the terminal; if standard input is no terminal,\n" +
			"its first line is the password. --recipient asks for whom mail for an address is, by rules and aliases.\n\n" +
			"It ends with 0 if the user was accepted, or the address has a recipient; 1 if not; 2 if that could not be told.",
		Args: func(cmd *cobra.Command, args []string) error {
			if given := cmd.Flags().Changed("recipient"); given && len(args) > 0 || !given && len(args) != 1 || given && t.recipient == "" {
				return &exitError{exitCantTell, errors.New("auth test takes a user's name, or --recipient ADDRESS; a password is never an argument")}
			}
			return nil
		},
		RunE: func(_ *cobra.Command, args []string) error {
			t.app = a
			return t.run(args)
		},
	}
	test.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return &exitError{exitCantTell, err} })
	test.Flags().StringVar(&t.recipient, "recipient", "", "say whose an `ADDRESS` is")
	test.Flags().StringVar(&t.from, "from", "127.0.0.1", "the client's `ADDRESS`, for backends that look at it")
	cmd.AddCommand(test)
	return cmd
}

// An authTest is one run of the command.
type authTest struct {
	app             *app
	recipient, from string
}

func (t *authTest) run(args []string) error {
	cantTell := func(err error) error { return &exitError{exitCantTell, err} }
	remote, err := netip.ParseAddr(t.from)
	if err != nil {
		return cantTell(fmt.Errorf("--from %q is no address; write one such as 192.0.2.1", t.from))
	}
	c, err := t.app.load()
	if err != nil {
		return cantTell(err)
	}
	log := slog.New(slog.NewTextHandler(t.app.err, &slog.HandlerOptions{Level: slog.LevelError}))
	users, err := startBackends(c, log, func(err error) { fmt.Fprintf(t.app.err, "dewey: %v\n", err) })
	if err != nil {
		return cantTell(err)
	}
	defer users.closing()
	if who, drop, err := server(c); err != nil { // as the server, whose rights count
		return cantTell(err)
	} else if drop {
		if err := who.Become(); err != nil {
			return cantTell(fmt.Errorf("process.user: %w", err))
		}
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	if t.recipient != "" {
		err = t.address(ctx, c, users)
	} else {
		err = t.login(ctx, c, users, args[0], remote)
	}
	switch {
	case err == nil:
		return nil
	case errors.Is(err, auth.ErrRejected), errors.Is(err, recipients.ErrUnknown):
		return &exitError{exitRefused, err}
	}
	return cantTell(err)
}

// login tries a name and a password.
func (t *authTest) login(ctx context.Context, c *config.Config, users *backends, name string, remote netip.Addr) error {
	user, view := viewOf(ctx, name, &c.Mail, users)
	password, err := t.password(name)
	if err != nil {
		return err
	}
	id, err := users.CheckPassword(chain.Trace(ctx, t.print), auth.Attempt{User: user, Password: password, Remote: remote})
	switch {
	case errors.Is(err, auth.ErrUnknownUser):
		return fmt.Errorf("refused: no backend knows %q; a client reads [AUTH]: %w", user, err)
	case errors.Is(err, auth.ErrRejected):
		return fmt.Errorf("refused: a client reads [AUTH]: %w", err)
	case err != nil:
		return fmt.Errorf("it could not be told: a client reads [SYS/TEMP]: %w", err)
	}
	return t.session(c, id, view)
}

// password asks for a password, once.
func (t *authTest) password(user string) (string, error) {
	f, ok := t.app.in.(*os.File)
	if !ok || !term.IsTerminal(int(f.Fd())) {
		return firstLine(t.app.in)
	}
	typed, err := askTyped(f, t.app.err, "Password for "+user+": ")
	if err != nil {
		return "", err
	}
	return typed[0], nil
}

// address says whose an address is.
func (t *authTest) address(ctx context.Context, c *config.Config, users *backends) error {
	resolver, err := openRecipients(c, users, slog.New(slog.DiscardHandler))
	if err != nil {
		return err
	}
	owners, err := resolver.Resolve(chain.Trace(ctx, t.print), t.recipient)
	switch {
	case errors.Is(err, recipients.ErrUnknown):
		return fmt.Errorf("unknown: mail for %q is refused for good (550): %w", t.recipient, err)
	case err != nil:
		return fmt.Errorf("it could not be told: mail for %q is to come again (451): %w", t.recipient, err)
	}
	for _, o := range owners {
		if err := t.session(c, auth.Identity{User: o.Name, Home: o.Home, Quota: auth.Quota(o.Quota), Life: auth.Life(o.Life)}, maildrop.View{}); err != nil {
			return err
		}
	}
	return nil
}

// print tells of one backend's answer.
func (t *authTest) print(a chain.Answer) {
	text := a.Outcome.String()
	switch a.Outcome {
	case chain.Unknown:
		text = "no such user"
	case chain.Rejected:
		text += " (a wrong password, or a user who may not log in): " + a.Err.Error()
	case chain.Failed:
		text += ": " + a.Err.Error()
	case chain.Skipped:
		text += ": " + a.Reason
	}
	who := a.Backend
	if a.Kind != a.Backend {
		who += " (" + a.Kind + ")"
	}
	took := ""
	if a.Outcome != chain.Skipped {
		took = "   " + a.Took.Round(100*time.Microsecond).String()
	}
	if a.User != "" && t.recipient != "" {
		who += " asked for " + strconv.Quote(a.User)
	}
	fmt.Fprintf(t.app.out, "%s: %s%s\n", visible(who), visible(text), took)
}

// session tells what it would be.
func (t *authTest) session(c *config.Config, id auth.Identity, view maildrop.View) error {
	owner := maildrop.Owner{Name: id.User, Home: id.Home}
	path, err := c.MaildirPath(owner)
	if err != nil {
		return fmt.Errorf("he has no maildrop: %w", err)
	}
	there := ""
	if !present(path) {
		there = " (not there yet)"
	}
	quota := maildrop.Quota(id.Quota).Or(quotaOf(c))
	life := maildrop.Life(id.Life).Or(lifeOf(c))
	rows := [][2]string{
		{"user", id.User},
		{"backend", id.Backend},
		{"home", id.Home},
		{"maildir", path + there},
		{"quota", limitOf(quota.Octets, octetsText) + ", " + limitOf(quota.Messages, func(n int64) string { return strconv.FormatInt(n, 10) + " messages" })},
		{"retention", spanOf(life.Retention, "no limit")},
		{"undelete", spanOf(life.Undelete, "no")},
		{"deletion", life.Deletion},
		{"sees", seenOf(life, view)},
		{"sessions", fmt.Sprintf("%d at once", c.Login.MaxPerUser)},
	}
	fmt.Fprintln(t.app.out)
	for _, row := range rows {
		if row[1] != "" {
			fmt.Fprintf(t.app.out, "  %-10s %s\n", row[0], visible(row[1]))
		}
	}
	return nil
}

func limitOf(n int64, show func(int64) string) string {
	if n <= 0 {
		return "no limit of " + strings.TrimLeft(show(0), "0 ")
	}
	return show(n)
}

func octetsText(n int64) string { return strconv.FormatInt(n, 10) + " octets" }

func spanOf(d time.Duration, none string) string {
	if d <= 0 {
		return none
	}
	return lasting(d)
}

// seenOf says what of his mail a session shows.
func seenOf(life maildrop.Life, view maildrop.View) string {
	var parts []string
	switch {
	case view.Folder != "":
		parts = append(parts, "the folder "+view.Folder+" alone")
	case len(life.Folders) > 0:
		parts = append(parts, "his own mail, and the folders "+strings.Join(life.Folders, ", "))
	}
	switch {
	case view.Recent > 0:
		parts = append(parts, "what was delivered in the last "+lasting(view.Recent))
	case life.Window > 0:
		parts = append(parts, "what was delivered in the last "+lasting(life.Window))
	}
	if life.WindowMessages > 0 && view.Recent == 0 {
		parts = append(parts, fmt.Sprintf("the newest %d messages", life.WindowMessages))
	}
	if len(parts) == 0 {
		return "all his mail"
	}
	return strings.Join(parts, "; ")
}
