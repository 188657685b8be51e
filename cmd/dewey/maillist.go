package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
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
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "list USER",
		Short: "List the messages in a user's maildrop",
		Long: "List the messages in a user's maildrop as a POP3 session would see them: number, unique-id, octets, date, from and\n" +
			"subject. The date is that of the header section if it can be read, else that of the delivery. Numbers hold for\n" +
			"one session, unique-ids for good.\n\n" +
			"In the table, who a message is from is cut, and at a terminal the subject too. Signs that a terminal acts upon are\n" +
			`written as \x1b or \u202e. JSON has all.`,
		Args: mailArgs(0, 0),
		RunE: func(_ *cobra.Command, args []string) error {
			m, err := a.openMail(args[0], false)
			if err != nil {
				return err
			}
			look, err := m.look(context.Background())
			if err != nil {
				return err
			}
			show := a.mailTable
			if asJSON {
				show = a.mailJSON
			}
			return show(m.owner.Name, look)
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

// A mailRow is a message in a list.
type mailRow struct {
	Number    int       `json:"number"`
	UniqueID  string    `json:"unique_id"`
	Octets    int64     `json:"octets"`
	Date      time.Time `json:"date"`
	Delivered time.Time `json:"delivered"`
	From      string    `json:"from"`
	Subject   string    `json:"subject"`
	Error     string    `json:"error,omitempty"` // why there is no more
}

// rows calls f for each message. One that can't be read is listed all the same.
func rows(look *maildir.Look, f func(*mailRow) error) error {
	var buf []byte
	for i, m := range look.Messages() {
		row := mailRow{Number: i + 1, UniqueID: m.UID, Octets: m.Octets}
		var err error
		if buf, err = row.read(look, buf); err != nil {
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

func (row *mailRow) read(look *maildir.Look, buf []byte) ([]byte, error) {
	at, r, err := look.Stored(context.Background(), row.Number)
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

func totals(messages []maildrop.Message) (octets int64) {
	for i := range messages {
		octets += messages[i].Octets
	}
	return octets
}

// mostFrom is how many columns a table has for whom a message is from, leastSubject for its subject at least.
const (
	mostFrom     = 24
	leastSubject = 12
)

func (a *app) mailTable(_ string, look *maildir.Look) error {
	messages := look.Messages()
	columns, isTerminal := widthOf(a.out)
	number, id, octets := len("NUMBER"), len("UNIQUE-ID"), len("OCTETS")
	number = max(number, len(strconv.Itoa(len(messages))))
	for i := range messages {
		id = max(id, len(messages[i].UID))
		octets = max(octets, len(strconv.FormatInt(messages[i].Octets, 10)))
	}
	w := bufio.NewWriterSize(a.out, 64<<10)
	line := func(n, uid, size, date, from, subject string) {
		from, taken := cut(from, mostFrom)
		if isTerminal {
			subject, _ = cut(subject, max(leastSubject, columns-number-id-octets-len(time.DateTime)+len(":05")-mostFrom-10))
		}
		fmt.Fprintf(w, "%*s  %-*s  %*s  %-16s  %s%*s  %s", number, n, id, uid, octets, size, date, from, mostFrom-taken, "", subject)
		fmt.Fprintln(w)
	}
	if len(messages) > 0 {
		line("NUMBER", "UNIQUE-ID", "OCTETS", "DATE", "FROM", "SUBJECT")
	}
	err := rows(look, func(row *mailRow) error {
		date, from, subject := row.Date.Local().Format("2006-01-02 15:04"), visible(author(row.From)), visible(row.Subject)
		if row.Error != "" {
			date, from, subject = "-", "-", "("+visible(row.Error)+")"
		}
		line(strconv.Itoa(row.Number), row.UniqueID, strconv.FormatInt(row.Octets, 10), date, orDash(from), orDash(subject))
		return nil
	})
	fmt.Fprintf(w, "%s, %s\n", plural(int64(len(messages)), "message"), plural(totals(messages), "octet"))
	return errors.Join(err, w.Flush())
}

// mailJSON writes a message at a time: there may be many.
func (a *app) mailJSON(user string, look *maildir.Look) error {
	messages := look.Messages()
	w := bufio.NewWriterSize(a.out, 64<<10)
	fmt.Fprintf(w, "{\n  \"user\": %s,\n  \"count\": %d,\n  \"octets\": %d,\n  \"messages\": [", jsonText(user), len(messages), totals(messages))
	before := "\n    "
	err := rows(look, func(row *mailRow) error {
		row.From, row.Subject, row.Error = readable(row.From), readable(row.Subject), readable(row.Error)
		_, err := fmt.Fprintf(w, "%s%s", before, jsonText(row))
		before = ",\n    "
		return err
	})
	if len(messages) > 0 {
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
