package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"dewey/auth/passwdfile"
	"dewey/config"
	"dewey/maildrop"
	"dewey/store/maildir"
)

func (a *app) userList() *cobra.Command {
	var asJSON, noUsage bool
	cmd := &cobra.Command{
		Use:   "list",
		Short: "List the users, what they have in their maildrops, and what they may have",
		Long: "List the users, what they have in their maildrops, and what they may have. Messages are counted by the names of\n" +
			"their files; none is read, and nobody is kept from logging in. A Maildir that can't be read has a - and its error\n" +
			"on standard error.",
		Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			c, err := a.load()
			if err != nil {
				return err
			}
			users, faults := passwdfile.List(c.UsersFile(), usersOptions(c)) // the right lines, even if some are wrong
			rows := make([]listed, len(users))
			for i, u := range users {
				rows[i] = listed{User: u, quota: maildrop.Quota(u.Quota).Or(quotaOf(c)), life: maildrop.Life(u.Life).Or(lifeOf(c))}
			}
			if !noUsage {
				a.count(c, rows)
			}
			show := a.listTable
			if asJSON {
				show = a.listJSON
			}
			return errors.Join(faults, show(c, rows, !noUsage))
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON, with octets and not rounded")
	cmd.Flags().BoolVar(&noUsage, "no-usage", false, "do not look into the Maildirs")
	return cmd
}

// A listed user is one line of the list.
type listed struct {
	passwdfile.User
	quota maildrop.Quota // 0: none
	life  maildrop.Life
	used  *maildir.Usage // nil: not known
}

// count finds out what the users have, by the files' names.
func (a *app) count(c *config.Config, rows []listed) {
	store := maildir.New(maildir.Options{Path: maildirOf(c), Logger: slog.New(slog.DiscardHandler)})
	for i, r := range rows {
		used, err := store.Usage(context.Background(), maildrop.Owner{Name: r.Name, Home: r.Home})
		if err != nil {
			fmt.Fprintf(a.err, "dewey: %s: %v\n", r.Name, err)
			continue
		}
		rows[i].used = &used
	}
}

func (a *app) listTable(c *config.Config, rows []listed, usage bool) error {
	if len(rows) == 0 {
		fmt.Fprintf(a.err, "dewey: no users in %s; add one: dewey user add NAME\n", c.UsersFile())
		return nil
	}
	w := tabwriter.NewWriter(a.out, 0, 0, 2, ' ', 0)
	line := func(name, scheme, used, messages, quota, home string) {
		cells := []string{name, scheme, used, messages, quota, home}
		if !usage {
			cells = []string{name, scheme, quota, home}
		}
		fmt.Fprintln(w, strings.Join(cells, "\t"))
	}
	line("USER", "SCHEME", "USED", "MESSAGES", "QUOTA", "HOME")
	for _, r := range rows {
		used, messages := "-", "-"
		if r.used != nil {
			used, messages = human(r.used.Octets), strconv.FormatInt(r.used.Messages, 10)
		}
		line(r.Name, orDash(r.Scheme), used, messages, quotaText(r.quota), orDash(r.Home))
	}
	return w.Flush()
}

func (a *app) listJSON(_ *config.Config, rows []listed, usage bool) error {
	type row struct {
		User          string `json:"user"`
		Scheme        string `json:"scheme"`
		Home          string `json:"home"`
		Octets        *int64 `json:"octets,omitempty"`
		Messages      *int64 `json:"messages,omitempty"`
		QuotaOctets   int64  `json:"quota_octets"` // 0: none
		QuotaMessages int64  `json:"quota_messages"`

		Retention      string   `json:"retention,omitempty"` // each as in the configuration; where it is missing there is no limit
		Undelete       string   `json:"undelete,omitempty"`
		Deletion       string   `json:"deletion,omitempty"` // where it is missing: remove
		Window         string   `json:"window,omitempty"`
		WindowMessages int64    `json:"window_messages,omitempty"`
		Folders        []string `json:"folders,omitempty"`
	}
	out := make([]row, len(rows))
	for i, r := range rows {
		out[i] = row{
			User: r.Name, Scheme: r.Scheme, Home: r.Home, QuotaOctets: r.quota.Octets, QuotaMessages: r.quota.Messages,
			Retention: lastingIf(r.life.Retention), Undelete: lastingIf(r.life.Undelete), Window: lastingIf(r.life.Window),
			WindowMessages: r.life.WindowMessages, Folders: r.life.Folders,
		}
		if r.life.Deletion != maildrop.DeletionRemove {
			out[i].Deletion = r.life.Deletion
		}
		if usage && r.used != nil {
			out[i].Octets, out[i].Messages = &r.used.Octets, &r.used.Messages
		}
	}
	e := json.NewEncoder(a.out)
	e.SetIndent("", "  ")
	return e.Encode(out)
}

// lastingIf is empty for no time.
func lastingIf(d time.Duration) string {
	if d == 0 {
		return ""
	}
	return lasting(d)
}

func quotaText(q maildrop.Quota) string {
	var parts []string
	if q.Octets > 0 {
		parts = append(parts, human(q.Octets))
	}
	if q.Messages > 0 {
		parts = append(parts, fmt.Sprintf("%d messages", q.Messages))
	}
	return orDash(strings.Join(parts, ", "))
}

// human writes a size to read, with the units of the configuration: 1536 is 1.5K.
func human(n int64) string {
	if n < 1<<10 {
		return strconv.FormatInt(n, 10)
	}
	f, unit := float64(n), -1
	for f >= 1023.95 && unit < 3 { // 1024 when it is rounded
		f /= 1 << 10
		unit++
	}
	return strings.TrimSuffix(strconv.FormatFloat(f, 'f', 1, 64), ".0") + "KMGT"[unit:unit+1]
}
