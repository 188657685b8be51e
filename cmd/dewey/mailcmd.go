package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"dewey/auth"
	"dewey/config"
	"dewey/internal/confine"
	"dewey/maildrop"
	"dewey/store/maildir"
)

func (a *app) mailCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "mail",
		Short: "List, show, add, remove and restore a user's mail",
		Long: "List, show, add, remove and bring back what is in a user's maildrop, and say what his sessions did, beside a running server.\n" +
			"docs/MAIL.md says more. They end with 75 if a session has the maildrop, and to try again later would be right;\n" +
			"else with 0 or 1.",
		Args: onlyCommands,
		RunE: help,
	}
	cmd.AddCommand(a.mailList(), a.mailShow(), a.mailAdd(), a.mailRemove(), a.mailRestore(), a.mailHistory())
	return cmd
}

// mailArgs wants a user and so many other arguments.
func mailArgs(least, most int) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if n := len(args) - 1; n < least || n > most {
			return fmt.Errorf("wrong number of arguments; write %s", cmd.UseLine())
		}
		return nil
	}
}

// A userMail is a user's maildrop, for a person at the command line.
type userMail struct {
	config *config.Config
	store  *maildir.Store
	owner  maildrop.Owner
	path   string
}

// openMail finds a user's maildrop. Started as root the process becomes process.user, as the server does, unless
// asRoot is set: then files go to whom the Maildir belongs, and one that is not there yet is to be made by makeHome.
func (a *app) openMail(user string, asRoot bool) (*userMail, error) {
	c, err := a.load()
	if err != nil {
		return nil, err
	}
	log := slog.New(slog.NewTextHandler(a.err, &slog.HandlerOptions{Level: slog.LevelError}))
	// Other users' lines are no reason to leave this one without help.
	users, err := startBackends(c, log, func(err error) { fmt.Fprintf(a.err, "dewey: %v\n", err) })
	if err != nil {
		return nil, err
	}
	defer users.closing()
	if who, drop, err := server(c); err != nil {
		return nil, err
	} else if drop && !asRoot {
		if err := who.Become(); err != nil {
			return nil, fmt.Errorf("process.user: %w", err)
		}
	}
	id, err := users.Recipient(context.Background(), user)
	if errors.Is(err, auth.ErrRejected) {
		return nil, noUser(c, user)
	}
	if err != nil {
		return nil, err //nolint:wrapcheck // says where
	}
	m := &userMail{config: c, owner: maildrop.Owner{Name: id.User, Home: id.Home, Quota: maildrop.Quota(id.Quota), Life: maildrop.Life(id.Life).Or(lifeOf(c))}}
	if m.path, err = c.MaildirPath(m.owner); err != nil {
		return nil, err //nolint:wrapcheck // names the key and the user
	}
	m.store = maildir.New(maildir.Options{Path: maildirOf(c), Logger: log, Quota: func() maildrop.Quota { return quotaOf(c) }})
	a.mail = m.store
	return m, nil
}

// A folderFlag is --folder, of commands that look at a folder's mail in place of the user's own.
type folderFlag string

func (f *folderFlag) add(cmd *cobra.Command) {
	cmd.Flags().StringVar((*string)(f), "folder", "", "in place of the user's own mail that of a folder, such as `NAME` Spam or Lists/dewey, in mail.folders or not")
}

// open is openMail of the folder.
func (f *folderFlag) open(a *app, cmd *cobra.Command, user string) (*userMail, error) {
	if cmd.Flags().Changed("folder") && *f == "" {
		return nil, errors.New("--folder needs a name") // =$UNSET must not mean the user's own mail
	}
	m, err := a.openMail(user, false)
	if err == nil {
		m.owner.View.Folder = string(*f)
	}
	return m, err
}

// whose says in words what mail it is.
func (m *userMail) whose() string {
	if m.owner.View.Folder == "" {
		return m.owner.Name
	}
	return fmt.Sprintf("%s, folder %q", m.owner.Name, m.owner.View.Folder)
}

// server is whom the server becomes; false if it stays who it is.
func server(c *config.Config) (who confine.Who, drop bool, err error) {
	if c.Process.User == "" || os.Geteuid() != 0 {
		return confine.Who{}, false, nil
	}
	if who, err = confine.LookUp(c.Process.User, c.Process.Group); err != nil {
		return confine.Who{}, false, fmt.Errorf("process.user: %w", err)
	}
	return who, true, nil
}

// makeHome makes the folder of a Maildir, and those above it, as process.user would make them.
func (m *userMail) makeHome() error {
	who, drop, err := server(m.config)
	if err != nil || !drop {
		return err
	}
	var missing []string
	for path := m.path; ; path = filepath.Dir(path) {
		_, err := os.Lstat(path)
		if err == nil {
			break
		}
		if !errors.Is(err, fs.ErrNotExist) {
			return err //nolint:wrapcheck // names it
		}
		missing = append(missing, path)
	}
	for _, path := range slices.Backward(missing) {
		if err := os.Mkdir(path, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
			return err //nolint:wrapcheck // names it
		}
		if err := who.Own(path); err != nil {
			return fmt.Errorf("process.user: %w", err)
		}
	}
	return nil
}

func (m *userMail) look(ctx context.Context) (*maildir.Look, error) {
	look, err := m.store.Look(ctx, m.owner)
	return look, m.busy(err)
}

// busy puts into words that somebody else has the maildrop.
func (m *userMail) busy(err error) error {
	if errors.Is(err, maildrop.ErrInUse) {
		return exit(exitTempFail, "the maildrop of %s is in use: a session has it, and messages could go; try again later", m.owner.Name)
	}
	return err
}

// findMessage returns the number of the message with that unique-id, or else of that number.
func findMessage(messages []maildrop.Message, what string) (int, error) {
	number, err := strconv.ParseUint(what, 10, 31)
	if err != nil {
		number = 0
	}
	byID, byNumber, other := 0, 0, ""
	for i := range messages {
		if messages[i].UID == what {
			byID = i + 1
		}
		if uint64(i+1) == number {
			byNumber, other = i+1, messages[i].UID
		}
	}
	switch {
	case byID == 0 && byNumber == 0:
		return 0, fmt.Errorf("%w: %q is neither a unique-id nor a number from 1 to %d", maildrop.ErrNoMessage, what, len(messages))
	case byID == 0:
		return byNumber, nil
	case byNumber != 0 && byNumber != byID:
		return 0, fmt.Errorf("%s is the unique-id of message %d, and the number of the one with the unique-id %s; write %d or %s",
			what, byID, other, byID, other)
	}
	return byID, nil
}

// widthOf returns the width of the terminal that a stream is; false if it is none.
func widthOf(stream any) (width int, ok bool) {
	f, ok := stream.(*os.File)
	if !ok || !term.IsTerminal(int(f.Fd())) {
		return 0, false
	}
	width, _, err := term.GetSize(int(f.Fd()))
	if err != nil || width < 1 {
		width = 80
	}
	return width, true
}

// sure asks at the terminal; where there is none it wants --yes.
func (a *app) sure(yes bool, question string) error {
	if yes {
		return nil
	}
	if _, ok := widthOf(a.in); !ok {
		return fmt.Errorf("%s? Say so with --yes", question)
	}
	fmt.Fprintf(a.err, "%s? [y/N] ", question)
	answer, _ := bufio.NewReader(a.in).ReadString('\n')
	if answer = strings.ToLower(strings.TrimSpace(answer)); answer != "y" && answer != "yes" {
		return errors.New("nothing was changed")
	}
	return nil
}

// plural writes a number with its noun.
func plural(n int64, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return strconv.FormatInt(n, 10) + " " + noun + "s"
}
