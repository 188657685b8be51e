package main

import (
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"dewey/auth/passwdfile"
	"dewey/config"
	"dewey/maildrop"
	"dewey/pop3"
)

func (a *app) userCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "user",
		Short: "Add, list, change and remove users",
		Long: "Add, list, change and remove the users of users.file. A running server sees a change by itself.\n\n" +
			"A password is asked for at the terminal. If standard input is no terminal, its first line is the password.\n\n" +
			"A scheme decides what a password is good for. Each does for PASS and for SASL's PLAIN and LOGIN. scram-sha-256 and\n" +
			"scram-sha-1 hold what the mechanism of that name needs too. APOP and CRAM-MD5 need the password itself: plain,\n" +
			"which whoever can read the file can read.",
		Args: onlyCommands,
		RunE: help,
	}
	cmd.AddCommand(a.userAdd(), a.userPasswd(), a.userRemove(), a.userList())
	return cmd
}

// passwordFlags are those of the commands that take a password.
type passwordFlags struct {
	scheme string
	weak   bool
}

func (f *passwordFlags) register(cmd *cobra.Command) {
	strong, weak := passwdfile.Schemes()
	cmd.Flags().StringVar(&f.scheme, "scheme", strings.ToLower(passwdfile.DefaultScheme),
		"how the password is kept: "+strings.ToLower(strings.Join(strong, ", "))+
			"; apop is another word for plain"+
			";\nif users.weak_schemes = true, also: "+strings.ToLower(strings.Join(weak, ", ")))
	cmd.Flags().BoolVar(&f.weak, "weak", false, "take a password that is easy to guess")
}

// password asks for a user's new password and checks it.
func (a *app) password(f passwordFlags, user string) (string, error) {
	password, err := readPassword(a.in, a.err, user)
	if err != nil {
		return "", err
	}
	// PASS, a space and CRLF take the rest of a command line. RFC 2449 section 4.
	if most := pop3.MaxCommand - len("PASS \r\n"); len(password) > most {
		return "", fmt.Errorf("a password of %d octets; POP3's PASS carries at most %d", len(password), most)
	}
	if strings.ContainsFunc(password, func(r rune) bool { return r < ' ' || r == 0x7f }) {
		return "", errors.New("a password with a control octet, a tab perhaps, which POP3's PASS can't carry; choose another")
	}
	if f.weak {
		return password, nil
	}
	if err := passwdfile.CheckStrength(user, password); err != nil {
		return "", fmt.Errorf("%w; choose another, or insist with --weak", err)
	}
	return password, nil
}

func (a *app) userAdd() *cobra.Command {
	var f passwordFlags
	cmd := &cobra.Command{
		Use:   "add NAME",
		Short: "Add a user",
		Args:  oneName,
		RunE: func(_ *cobra.Command, args []string) error {
			c, err := a.load()
			if err != nil {
				return err
			}
			user := args[0]
			byHome := strings.Contains(c.Maildir.Path, "{home}")
			if _, err := c.MaildirPath(maildrop.Owner{Name: user}); err != nil && !byHome {
				return err
			}
			// A name that is taken is told before the password is asked for; Add decides.
			if users, err := passwdfile.List(c.UsersFile(), usersOptions(c)); err == nil && has(users, user) {
				return fmt.Errorf("%w: %q in %s", passwdfile.ErrUserExists, user, c.UsersFile())
			}
			password, err := a.password(f, user)
			if err != nil {
				return err
			}
			if err := passwdfile.Add(c.UsersFile(), user, password, f.scheme, usersOptions(c)); err != nil {
				return err
			}
			if byHome {
				fmt.Fprintf(a.err, "dewey: maildir.path uses {home}: give %s a home in %s\n", user, c.UsersFile())
			}
			if !readsUsers(c) {
				fmt.Fprintf(a.err, "dewey: no [[auth]] table has its users from %s, and %s can't log in; kind = \"passwd-file\" would be right, or its file in --set users.file\n", c.UsersFile(), user)
			}
			return a.say("added %s to %s", user, c.UsersFile())
		},
	}
	f.register(cmd)
	return cmd
}

func (a *app) userPasswd() *cobra.Command {
	var f passwordFlags
	cmd := &cobra.Command{
		Use:   "passwd NAME",
		Short: "Change a user's password",
		Args:  oneName,
		RunE: func(_ *cobra.Command, args []string) error {
			c, err := a.load()
			if err != nil {
				return err
			}
			user := args[0]
			if users, err := passwdfile.List(c.UsersFile(), usersOptions(c)); err == nil && !has(users, user) {
				return fmt.Errorf("%w: %q in %s", passwdfile.ErrNoUser, user, c.UsersFile())
			}
			password, err := a.password(f, user)
			if err != nil {
				return err
			}
			if err := passwdfile.SetPassword(c.UsersFile(), user, password, f.scheme, usersOptions(c)); err != nil {
				return err
			}
			return a.say("changed the password of %s in %s", user, c.UsersFile())
		},
	}
	f.register(cmd)
	return cmd
}

func (a *app) userRemove() *cobra.Command {
	return &cobra.Command{
		Use:   "remove NAME",
		Short: "Remove a user; his mail stays",
		Args:  oneName,
		RunE: func(_ *cobra.Command, args []string) error {
			c, err := a.load()
			if err != nil {
				return err
			}
			if err := passwdfile.Remove(c.UsersFile(), args[0], usersOptions(c)); err != nil {
				return err
			}
			return a.say("removed %s from %s", args[0], c.UsersFile())
		},
	}
}

func usersOptions(c *config.Config) passwdfile.Options {
	return passwdfile.Options{Weak: c.Users.WeakSchemes}
}

// oneName wants exactly the user's name, and says so in words.
func oneName(cmd *cobra.Command, args []string) error {
	if len(args) != 1 {
		return fmt.Errorf("%s takes one name, not %d; write %s", cmd.CommandPath(), len(args), cmd.UseLine())
	}
	return nil
}

func has(users []passwdfile.User, name string) bool {
	for _, u := range users {
		if u.Name == name {
			return true
		}
	}
	return false
}

func orDash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

func (a *app) say(format string, args ...any) error {
	_, err := fmt.Fprintf(a.out, format+"\n", args...)
	return err
}
