package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"dewey/auth"
	"dewey/maildrop"
	"dewey/store/maildir"
)

// A night is the work that is done once a day, at mail.sweep_at: mail that is past its retention is removed, and what
// was removed goes for good. Maildirs have their turns one after another.
type night struct {
	log      *slog.Logger
	file     string                   // a swept
	at       func() time.Duration     // mail.sweep_at
	reloaded <-chan struct{}          // at may say something else
	users    func() ([]string, error) // all there are; those it knows of even if there is an error
	owner    func(context.Context, string) (maildrop.Owner, error)
	sweep    func(context.Context, maildrop.Owner, time.Time) (maildir.Swept, error)
	wall     func() time.Time     // which somebody may set
	elapsed  func() time.Duration // which nobody can, and which counts while the machine sleeps
}

const (
	glance    = 5 * time.Minute // how often the clock is looked at: timers stand still while the machine sleeps
	insist    = time.Hour       // how long those are tried again whose maildrops are in use
	mostDrift = time.Hour       // how much the clocks may disagree
	// The time between two nights, of which the later one may be late: the machine was asleep. After a late one the next
	// may come too soon.
	leastPause, mostPause = 12 * time.Hour, 48 * time.Hour
	waryNights            = 7 // how many in a row have to look right after one in doubt
)

func (d *daemon) night() *night {
	return &night{
		log:      d.log,
		file:     sweptFile(d.started),
		at:       func() time.Duration { return d.current.Load().Mail.SweepAt },
		reloaded: d.reloaded,
		users: func() ([]string, error) {
			users, _, err := d.users.users()
			names := make([]string, len(users))
			for i, u := range users {
				names[i] = u.Name
			}
			return names, err
		},
		owner: func(ctx context.Context, user string) (maildrop.Owner, error) {
			id, err := d.users.Recipient(ctx, user)
			return maildrop.Owner{Name: id.User, Home: id.Home, Life: maildrop.Life(id.Life).Or(lifeOf(d.current.Load()))}, err //nolint:wrapcheck // says where
		},
		sweep:   d.mail.Sweep,
		wall:    time.Now,
		elapsed: elapsed,
	}
}

// elapsed is the time since the machine was started.
func elapsed() time.Duration {
	var t unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &t); err != nil {
		panic(err) // Linux has had it since 2.6.39
	}
	return time.Duration(t.Nano())
}

// A reading is of both clocks at the same time.
type reading struct {
	wall    time.Time
	elapsed time.Duration
}

func (n *night) read() reading { return reading{n.wall().Round(0), n.elapsed()} }

// run does the work of each night until the context ends.
func (n *night) run(ctx context.Context) {
	last := n.read()
	at := n.at()
	from := last.wall
	for ctx.Err() == nil {
		now := n.read()
		if now.wall.Before(from) || n.at() != at { // the clock was set back, or there is another time
			from, at = now.wall, n.at()
		}
		due := nextTime(from, at)
		if wait := due.Sub(now.wall); wait > 0 {
			n.pause(ctx, min(wait, glance))
			continue
		}
		from = now.wall
		n.work(ctx, last, now)
		last = now
	}
}

// pause returns after so long, or earlier.
func (n *night) pause(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-n.reloaded:
	case <-ctx.Done():
	}
}

// nextTime is when it is that time of day next, where the time says it is. Where a clock is put forward over it, it
// is within the hour; where it is that time twice, it is one of them.
func nextTime(after time.Time, at time.Duration) time.Time {
	y, m, d := after.Date()
	for {
		if t := time.Date(y, m, d, 0, int(at/time.Minute), 0, 0, after.Location()); t.After(after) {
			return t
		}
		d++
	}
}

// work is that of one night; last is when the one before was, or when the process began. After a night in doubt some
// more leave it out: a clock that was set wrong and goes on from there looks right a day later.
func (n *night) work(ctx context.Context, last, now reading) {
	before, err := readSwept(n.file)
	first := errors.Is(err, fs.ErrNotExist)
	var doubt string
	switch {
	case first:
	case err != nil:
		doubt = err.Error()
	default:
		doubt = n.doubt(before.at, last, now)
	}
	short := err == nil && doubt == "" && now.wall.Sub(before.at) < leastPause
	next := swept{at: now.wall, wary: before.wary, since: before.since}
	switch {
	case doubt != "":
		next.wary, next.since = waryNights, now.wall
	case before.wary > 0 && !short:
		next.wary--
	}
	if err := writeSwept(n.file, next); err != nil {
		n.log.Error("the time of the night's work can't be kept; the next one may be left out", "error", err)
	}
	switch {
	case first:
		n.log.Info("the first night: no old mail is removed; the next night does it")
	case doubt != "" || before.wary > 0:
		n.warn(doubt, next)
	case short:
		n.log.Info("the night's work is left out: the last was not long ago", "last", before.at.Format(time.RFC3339))
	default:
		n.all(ctx, now)
	}
}

// doubt says why the clock is not to be believed: what it says is old goes for good. Empty: it is.
func (n *night) doubt(before time.Time, last, now reading) string {
	drift := now.wall.Sub(last.wall) - (now.elapsed - last.elapsed)
	if drift.Abs() > mostDrift {
		return fmt.Sprintf("it was set by %v", drift.Round(time.Second))
	}
	if since := now.wall.Sub(before); since < -mostDrift || since > mostPause {
		return fmt.Sprintf("by it the last night was %v ago, on %s", since.Round(time.Minute), before.Format(time.RFC3339))
	}
	return ""
}

// warn tells of a night that leaves out the work, and from which one on it will be done by this clock.
func (n *night) warn(doubt string, s swept) {
	if doubt == "" {
		doubt = "it was in doubt some nights ago"
	}
	from := nextTime(s.at, n.at())
	if from.Sub(s.at) < leastPause {
		from = nextTime(from, n.at())
	}
	for range s.wary {
		from = nextTime(from, n.at())
	}
	n.log.Error("the clock may be wrong: the night's work is left out; mail will be removed from the night \"from\" on, unless the clock is put right",
		"reason", doubt, "in_doubt_since", s.since.Format(time.RFC3339), "from", from.Format(time.RFC3339), "or_remove", n.file)
}

// A tally is of what a night has done.
type tally struct {
	users, removed, purged int
}

// all gives all users their turns. Those whose maildrops are in use are tried again for a while.
func (n *night) all(ctx context.Context, now reading) {
	users, err := n.users()
	if err != nil {
		n.log.Error("not all users have their night's work done", "error", err)
	}
	var t tally
	busy, failed := n.turns(ctx, users, now.wall, &t)
	for end := n.elapsed() + insist; len(busy) > 0 && ctx.Err() == nil && n.elapsed() < end; {
		for until := n.elapsed() + glance; ctx.Err() == nil && n.elapsed() < until; { // a reload does not hasten it
			n.pause(ctx, until-n.elapsed())
		}
		var more int
		busy, more = n.turns(ctx, busy, now.wall, &t)
		failed += more
	}
	for _, user := range busy {
		if ctx.Err() == nil {
			n.log.Info("maildrop in use: its night's work is left to the next night", "user", user)
		}
	}
	done := "night's work done"
	if len(busy) > 0 && ctx.Err() != nil {
		done = "night's work cut short: the server ends"
	}
	n.log.Info(done, "users", t.users, "removed", t.removed, "purged", t.purged, "left_over", len(busy)+failed,
		"took", (n.elapsed() - now.elapsed).Round(time.Millisecond))
}

// turns gives each user his turn. It returns those whose maildrops are in use, or who had none before the context
// ended, and how many could not be served.
func (n *night) turns(ctx context.Context, users []string, now time.Time, t *tally) (busy []string, failed int) {
	for i, user := range users {
		if ctx.Err() != nil {
			return append(busy, users[i:]...), failed
		}
		owner, err := n.owner(ctx, user) // as a reload may have it meanwhile
		if errors.Is(err, auth.ErrRejected) {
			continue // he was removed
		}
		var swept maildir.Swept
		if err == nil {
			swept, err = n.sweep(ctx, owner, now)
		}
		t.removed += len(swept.Expired)
		t.purged += swept.Purged
		if len(swept.Expired) > 0 {
			var octets int64
			for _, m := range swept.Expired {
				octets += m.Octets
			}
			n.log.Info("old mail removed", "user", user, "messages", len(swept.Expired), "octets", octets, "older_than", lasting(owner.Life.Retention))
		}
		switch {
		case err == nil:
			t.users++
		case errors.Is(err, maildrop.ErrInUse) || ctx.Err() != nil:
			busy = append(busy, user)
		case errors.Is(err, fs.ErrNotExist): // as of a Maildir without cur/; the first session makes it whole
			failed++
			n.log.Warn("night's work: the Maildir is not whole", "user", user, "error", err)
		default:
			failed++
			n.log.Error("night's work", "user", user, "error", err)
		}
	}
	return busy, failed
}

// replaceFile puts a file in the place of another, durably: after a crash it is the old one or the new one.
func replaceFile(name string, data []byte) error {
	folder, err := os.Open(filepath.Dir(name))
	if err != nil {
		return err //nolint:wrapcheck // names it
	}
	defer folder.Close()
	f, err := os.CreateTemp(folder.Name(), "."+filepath.Base(name)+"-*")
	if err != nil {
		return err //nolint:wrapcheck // names it
	}
	_, err = f.Write(data)
	if err = errors.Join(err, f.Sync(), f.Close()); err == nil {
		err = os.Rename(f.Name(), name)
	}
	if err != nil {
		_ = os.Remove(f.Name())
		return err //nolint:wrapcheck // names it
	}
	return folder.Sync() //nolint:wrapcheck // names it
}

// lasting writes a time as a configuration does: days where it has whole ones.
func lasting(d time.Duration) string {
	const day = 24 * time.Hour
	if d%day == 0 {
		return fmt.Sprintf("%dd", d/day)
	}
	text := d.String()
	for _, none := range []string{"m0s", "h0m"} {
		if strings.HasSuffix(text, none) {
			text = text[:len(text)-2]
		}
	}
	return text
}
