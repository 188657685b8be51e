package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"net/netip"
	"path/filepath"
	"strconv"
	"strings"
	"time"
	"unicode"

	"github.com/spf13/cobra"

	"dewey/config"
	"dewey/history"
)

// historyDir is where what sessions did is recorded.
func historyDir(c *config.Config) string { return filepath.Join(c.Data, "history") }

// record starts to record what sessions do, as whom the process has become. What it returns ends it, once they have
// ended.
func (d *daemon) record() (end func()) {
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		d.history.Run(ctx)
	}()
	return func() {
		stop()
		<-done
	}
}

// historyFlags are those of `dewey mail history`.
type historyFlags struct {
	since, until, uid, from string
	verbose, json           bool
}

func (a *app) mailHistory() *cobra.Command {
	var f historyFlags
	cmd := &cobra.Command{
		Use:   "history USER",
		Short: "Say what a user's sessions fetched and removed",
		Long: "Say what a user's sessions fetched and removed, when, and from where: a line a session, in the order in which\n" +
			"they ended, and at last those that go on. With -v or --uid it is a line a message.\n\n" +
			"What is known is what a running server recorded in the time of history.keep. Sessions that neither fetched nor removed\n" +
			"anything are in the log alone. A message is \"fetched\" if it was handed to the connection whole: what a client that\n" +
			"did not say QUIT (END is not quit) was handed last may not have reached it. Who was removed can still be asked for.",
		Args: oneName,
		RunE: func(_ *cobra.Command, args []string) error {
			c, err := a.load()
			if err != nil {
				return err
			}
			q, err := f.query(args[0], time.Now())
			if err != nil {
				return err
			}
			return a.showHistory(c, q, f)
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&f.since, "since", "", "only what was later: a `TIME` ago, such as 2d or 12h, a date (2026-11-23), or a date and a time (2026-11-23T15:04:05Z)")
	flags.StringVar(&f.until, "until", "", "only what was before: a `TIME` as for --since; a date is the whole day")
	flags.StringVar(&f.uid, "uid", "", "only the message with this `UNIQUE-ID`")
	flags.StringVar(&f.from, "from", "", "only sessions from this `ADDRESS`, or prefix")
	flags.BoolVarP(&f.verbose, "verbose", "v", false, "a line a message")
	flags.BoolVar(&f.json, "json", false, "print JSON: an object a line")
	return cmd
}

// query turns the flags into package history's words.
func (f *historyFlags) query(user string, now time.Time) (q history.Query, err error) {
	q.User, q.UID = user, f.uid
	if user == "" {
		return q, errors.New("the user has no name; write dewey mail history USER")
	}
	if q.Since, err = parseTime(f.since, now, 0); err != nil {
		return q, fmt.Errorf("--since %w", err)
	}
	if q.Until, err = parseTime(f.until, now, 1); err != nil {
		return q, fmt.Errorf("--until %w", err)
	}
	if f.from != "" {
		if q.From, err = parsePrefix(f.from); err != nil {
			return q, fmt.Errorf("--from %q is no address; write one such as 192.0.2.1, or a prefix such as 2001:db8::/32", f.from)
		}
	}
	return q, nil
}

func parsePrefix(s string) (netip.Prefix, error) {
	if strings.Contains(s, "/") {
		return netip.ParsePrefix(s) //nolint:wrapcheck // query does
	}
	ip, err := netip.ParseAddr(s)
	if err != nil {
		return netip.Prefix{}, err //nolint:wrapcheck // query does
	}
	ip = ip.Unmap().WithZone("")
	return netip.PrefixFrom(ip, ip.BitLen()), nil
}

// parseTime reads a time ago, a date, or both date and time. A date is its first moment, so many days later. Without
// a zone they are where the command runs.
func parseTime(s string, now time.Time, days int) (time.Time, error) {
	if s == "" {
		return time.Time{}, nil
	}
	if d, err := config.ParseDuration(s); err == nil && d >= 0 {
		return now.Add(-d), nil
	}
	if t, err := time.ParseInLocation(time.DateOnly, s, now.Location()); err == nil {
		return t.AddDate(0, 0, days), nil
	}
	if t, err := time.Parse(time.RFC3339, s); err == nil {
		return t, nil
	}
	for _, layout := range []string{"2006-01-02T15:04", "2006-01-02T15:04:05"} {
		if t, err := time.ParseInLocation(layout, s, now.Location()); err == nil {
			return t, nil
		}
	}
	return time.Time{}, fmt.Errorf("%q is no time; write a time ago such as 2d or 12h, a date such as 2026-11-23, or 2026-11-23T15:04:05Z", s)
}

// showHistory prints as it reads: neither a table nor a list that has to be whole before its first line is out.
func (a *app) showHistory(c *config.Config, q history.Query, f historyFlags) error {
	out := bufio.NewWriter(a.out)
	var any bool
	var err error
	if f.verbose || f.uid != "" {
		any, err = showEach(out, historyEvents(q.Records(historyDir(c)), q), f.json, eventHead, eventLine)
	} else {
		any, err = showEach(out, q.Sessions(historyDir(c)), f.json, sessionHead, sessionLine)
	}
	if err := errors.Join(err, out.Flush()); err != nil {
		return err
	}
	if !any {
		why := "what is older than history.keep is gone"
		if c.History.Keep == 0 {
			why = "history.keep is 0s"
		}
		fmt.Fprintf(a.err, "dewey: nothing that fits is recorded of %s; %s\n", plainText(q.User), why)
	}
	return nil
}

// showEach prints a line for each of what is found, and then all that went wrong.
func showEach[T any](out io.Writer, found iter.Seq2[T, error], asJSON bool, head string, line func(T) string) (any bool, err error) {
	e := json.NewEncoder(out)
	var errs []error
	for x, err := range found {
		if err != nil {
			errs = append(errs, err)
			continue
		}
		if asJSON {
			err = e.Encode(jsonOf(x))
		} else {
			if !any {
				fmt.Fprintln(out, head)
			}
			_, err = io.WriteString(out, strings.TrimRight(line(x), " ")+"\n")
		}
		if any = true; err != nil {
			return any, fmt.Errorf("print: %w", err)
		}
	}
	return any, errors.Join(errs...)
}

// A historyEvent is what befell a message.
type historyEvent struct {
	history.Who
	history.Message
}

// historyEvents are the messages in records that befell something in the time that is asked for.
func historyEvents(records iter.Seq2[history.Record, error], q history.Query) iter.Seq2[historyEvent, error] {
	return func(yield func(historyEvent, error) bool) {
		for r, err := range records {
			if err != nil {
				if !yield(historyEvent{}, err) {
					return
				}
				continue
			}
			for _, m := range r.Messages {
				at := r.Login.Add(m.At)
				if at.Before(q.Since) || !q.Until.IsZero() && !at.Before(q.Until) {
					continue
				}
				if !yield(historyEvent{r.Who, m}, nil) {
					return
				}
			}
		}
	}
}

const (
	historyRow  = "%-25s  %-21s  %-18s  %-3s  "
	eventRow    = historyRow + "%-11s  %10s  %s"
	sessionRow  = historyRow + "%7s  %12s  %3s  %7s  %s"
	unendedText = "goes on, or the server ended"
)

var (
	eventHead   = fmt.Sprintf(eventRow, "TIME", "FROM", "METHOD", "TLS", "WHAT", "OCTETS", "UNIQUE-ID")
	sessionHead = fmt.Sprintf(sessionRow, "LOGIN", "FROM", "METHOD", "TLS", "FETCHED", "OCTETS", "CUT", "REMOVED", "END")
)

// whatText says in a person's words what happened to a message.
var whatText = map[history.Kind]string{history.Cut: "cut off", history.Kept: "not removed"}

func eventLine(e historyEvent) string {
	what := whatText[e.Kind]
	if what == "" {
		what = plainText(string(e.Kind))
	}
	return fmt.Sprintf(eventRow, local(e.Login.Add(e.At)), address(e.From), plainText(e.Method), yesNo(e.TLS),
		what, strconv.FormatInt(e.Octets, 10), plainText(e.UID)+notes(e.By, e.Why))
}

func sessionLine(s history.Session) string {
	end := s.End.Why
	if !s.Ended {
		end = unendedText
	}
	var kept string
	if s.End.Kept > 0 {
		kept = strconv.Itoa(s.End.Kept) + " not removed by a fault"
	}
	return fmt.Sprintf(sessionRow, local(s.Login), address(s.From), plainText(s.Method), yesNo(s.TLS), strconv.Itoa(s.End.Fetched),
		strconv.FormatInt(s.End.Octets, 10), strconv.Itoa(s.End.Cut), strconv.Itoa(s.End.Removed), plainText(end)+notes(s.By, kept))
}

// notes are what few lines have.
func notes(by, why string) string {
	var list []string
	if by != "" {
		list = append(list, "by "+plainText(by))
	}
	if why != "" {
		list = append(list, plainText(why))
	}
	if list == nil {
		return ""
	}
	return " (" + strings.Join(list, "; ") + ")"
}

// jsonOf is what stands for a line in JSON.
func jsonOf(x any) any {
	switch x := x.(type) {
	case historyEvent:
		return struct {
			Time time.Time `json:"time"`
			history.Who
			history.Message
		}{x.Login.Add(x.At), x.Who, x.Message}
	case history.Session:
		row := struct {
			history.Who
			Ended *time.Time `json:"ended"` // null: it goes on, or the server ended
			history.End
		}{Who: x.Who, End: x.End}
		if x.Ended {
			at := x.Login.Add(x.End.At)
			row.Ended = &at
		}
		return row
	}
	return x
}

func local(t time.Time) string { return t.Local().Format(time.RFC3339) }

func address(a netip.AddrPort) string {
	if !a.IsValid() {
		return "-"
	}
	return a.String()
}

func yesNo(b bool) string {
	if b {
		return "yes"
	}
	return "no"
}

// plainText is what may go to a terminal.
func plainText(s string) string {
	return strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return '?'
		}
		return r
	}, s)
}
