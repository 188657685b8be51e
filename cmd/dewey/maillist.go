package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"
	"unicode/utf16"
	"unicode/utf8"

	"github.com/spf13/cobra"

	"dewey/maildrop"
	"dewey/store/maildir"
)

func (a *app) mailList() *cobra.Command {
	var asJSON, removed bool
	var folder folderFlag
	cmd := &cobra.Command{
		Use:   "list USER",
		Short: "List the messages in a user's maildrop",
		Long: "List the messages in a user's maildrop as a POP3 session would see them: number, unique-id, octets, date, from and\n" +
			"subject. The date is that of the header section if it can be read, else that of the delivery. Numbers hold for\n" +
			"one session, unique-ids for good. A folder's mail is listed with --folder alone, whatever mail.folders says.\n\n" +
			"With --removed it is what dewey mail restore can bring back, and when it was removed.\n\n" +
			"In the table, who a message is from is cut, and at a terminal the subject too. Signs that a terminal acts upon are\n" +
			`written as \x1b or \u202e. JSON has all.`,
		Args: mailArgs(0, 0),
		RunE: func(cmd *cobra.Command, args []string) error {
			m, err := folder.open(a, cmd, args[0])
			if err != nil {
				return err
			}
			list, err := m.list(context.Background(), removed)
			if err != nil {
				return err
			}
			show := a.mailTable
			if asJSON {
				show = a.mailJSON
			}
			return show(m.owner.Name, list)
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	cmd.Flags().BoolVar(&removed, "removed", false, "list what was removed, and can be brought back")
	folder.add(cmd)
	return cmd
}

// A mailing is messages to be listed.
type mailing struct {
	rows []mailRow
	open func(i int) (delivered time.Time, stored io.ReadCloser, err error)
}

func (m *userMail) list(ctx context.Context, removed bool) (*mailing, error) {
	if removed {
		return m.listRemoved(ctx)
	}
	look, err := m.look(ctx)
	if err != nil {
		return nil, err
	}
	return listLook(look, m.owner.View.Folder), nil
}

func listLook(look *maildir.Look, folder string) *mailing {
	list := &mailing{open: func(i int) (time.Time, io.ReadCloser, error) { return look.Stored(context.Background(), i+1) }}
	for i, message := range look.Messages() {
		list.rows = append(list.rows, mailRow{Number: i + 1, UniqueID: message.UID, Octets: message.Octets, Folder: folder, Kept: look.Hidden(i + 1)})
	}
	return list
}

// A mailRow is a message in a list.
type mailRow struct {
	Number    int        `json:"number,omitempty"` // 0: it was removed
	UniqueID  string     `json:"unique_id"`
	Octets    int64      `json:"octets"`
	Date      time.Time  `json:"date"`
	Delivered time.Time  `json:"delivered"`
	From      string     `json:"from"`
	Subject   string     `json:"subject"`
	Removed   *time.Time `json:"removed,omitempty"`
	Folder    string     `json:"folder,omitempty"` // if it is in one, or was when it was removed
	Kept      bool       `json:"kept,omitempty"`   // sessions do not see it, although it is there
	Error     string     `json:"error,omitempty"`  // why there is no more
}

// each calls f for each message. One that can't be read is listed all the same.
func (list *mailing) each(f func(*mailRow) error) error {
	var buf []byte
	for i, row := range list.rows {
		var err error
		if buf, err = row.read(list.open, i, buf); err != nil {
			row.Error = err.Error()
			if errors.Is(err, maildrop.ErrGone) {
				row.Error = "it was removed meanwhile"
			}
		}
		if err := f(&row); err != nil {
			return err
		}
	}
	return nil
}

func (row *mailRow) read(open func(int) (time.Time, io.ReadCloser, error), i int, buf []byte) ([]byte, error) {
	at, r, err := open(i)
	if err != nil {
		return buf, err //nolint:wrapcheck // names the file
	}
	defer r.Close()
	row.Delivered = sane(at.Truncate(time.Second))
	row.Date = row.Delivered
	section, err := readHeader(r, buf)
	if err != nil {
		return section, err
	}
	h := parseHeading(section)
	row.From, row.Subject = h.from, h.subject
	if !h.date.IsZero() {
		row.Date = h.date
	}
	return section, nil
}

func (list *mailing) octets() (n int64) {
	for i := range list.rows {
		n += list.rows[i].Octets
	}
	return n
}

// mostFrom is how many columns a table has for whom a message is from, leastSubject for its subject at least.
const (
	mostFrom     = 24
	leastSubject = 12
)

// first is what the first column has: a number, or when it was removed.
func (row *mailRow) first() string {
	text := strconv.Itoa(row.Number)
	if row.Removed != nil {
		text = row.Removed.Local().Format(time.DateTime)
	}
	if row.Kept {
		text += "*"
	}
	return text
}

func (a *app) mailTable(_ string, list *mailing) error {
	columns, isTerminal := widthOf(a.out)
	head, number, id, octets, kept := "NUMBER", 0, len("UNIQUE-ID"), len("OCTETS"), false
	for i := range list.rows {
		row := &list.rows[i]
		if row.Removed != nil {
			head = "REMOVED"
		}
		number = max(number, len(head), len(row.first()))
		id = max(id, len(row.UniqueID))
		octets = max(octets, len(strconv.FormatInt(row.Octets, 10)))
		kept = kept || row.Kept
	}
	first := number
	if head == "REMOVED" {
		first = -first // to the left
	}
	w := bufio.NewWriterSize(a.out, 64<<10)
	line := func(n, uid, size, date, from, subject string) {
		from, taken := cut(from, mostFrom)
		if isTerminal {
			subject, _ = cut(subject, max(leastSubject, columns-number-id-octets-len(time.DateTime)+len(":05")-mostFrom-10))
		}
		fmt.Fprintf(w, "%*s  %-*s  %*s  %-16s  %s%*s  %s", first, n, id, uid, octets, size, date, from, mostFrom-taken, "", subject)
		fmt.Fprintln(w)
	}
	if len(list.rows) > 0 {
		line(head, "UNIQUE-ID", "OCTETS", "DATE", "FROM", "SUBJECT")
	}
	err := list.each(func(row *mailRow) error {
		date, from, subject := row.Date.Local().Format("2006-01-02 15:04"), visible(author(row.From)), visible(row.Subject)
		if row.Error != "" {
			date, from, subject = "-", "-", "("+visible(row.Error)+")"
		}
		line(row.first(), row.UniqueID, strconv.FormatInt(row.Octets, 10), date, orDash(from), orDash(subject))
		return nil
	})
	fmt.Fprintf(w, "%s, %s\n", plural(int64(len(list.rows)), "message"), plural(list.octets(), "octet"))
	if kept {
		fmt.Fprintln(w, "* removed by a session, and kept in the Maildir: mail.deletion = \"keep\"")
	}
	return errors.Join(err, w.Flush())
}

// mailJSON writes a message at a time: there may be many.
func (a *app) mailJSON(user string, list *mailing) error {
	w := bufio.NewWriterSize(a.out, 64<<10)
	fmt.Fprintf(w, "{\n  \"user\": %s,\n  \"count\": %d,\n  \"octets\": %d,\n  \"messages\": [", jsonText(user), len(list.rows), list.octets())
	before := "\n    "
	err := list.each(func(row *mailRow) error {
		row.From, row.Subject, row.Error = readable(row.From), readable(row.Subject), readable(row.Error)
		_, err := fmt.Fprintf(w, "%s%s", before, jsonText(row))
		before = ",\n    "
		return err
	})
	if len(list.rows) > 0 {
		fmt.Fprint(w, "\n  ")
	}
	fmt.Fprint(w, "]\n}\n")
	return errors.Join(err, w.Flush())
}

// readable writes octets that are no UTF-8, which JSON can't have, as \xff.
func readable(s string) string {
	if utf8.ValidString(s) {
		return s
	}
	var b strings.Builder
	for i, r := range s {
		if r == utf8.RuneError && broken(s[i:]) {
			fmt.Fprintf(&b, `\x%02x`, s[i])
		} else {
			b.WriteRune(r)
		}
	}
	return b.String()
}

// jsonText is a value in JSON, in which signs are escaped that a terminal acts upon.
func jsonText(value any) string {
	var b strings.Builder
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(value); err != nil {
		panic(err) // texts, numbers and times in the range of years
	}
	var escaped strings.Builder
	for _, r := range strings.TrimSuffix(b.String(), "\n") {
		switch {
		case !acts(r) || r == '\n':
			escaped.WriteRune(r)
		case r <= 0xffff:
			fmt.Fprintf(&escaped, `\u%04x`, r)
		default:
			high, low := utf16.EncodeRune(r)
			fmt.Fprintf(&escaped, `\u%04x\u%04x`, high, low)
		}
	}
	return escaped.String()
}
