package main

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"
	"os"
	"os/signal"
	"slices"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"dewey/maildrop"
	"dewey/maildrop/message"
	"dewey/mailfile"
)

// quotings are the words for how an mbox keeps lines of text apart.
var quotings = map[string]mailfile.Quoting{"mboxrd": mailfile.QuotingRD, "mboxo": mailfile.QuotingO, "mboxcl2": mailfile.QuotingNone}

func (a *app) mailAdd() *cobra.Command {
	in := &importer{app: a}
	var quoting string
	cmd := &cobra.Command{
		Use:   "add USER FILE...",
		Short: "Add messages from files: .eml, mbox, Maildir",
		Long: "Add messages to a user's maildrop: from files with one message each (.eml), from mboxes, and from Maildirs, told\n" +
			"apart by looking at them; - is standard input. The files stay as they are. Messages keep their order and the time\n" +
			"of their delivery, and come after those that are there. They are new: flags and unique-ids are not taken over.\n" +
			"(To serve a Maildir as it is, unique-ids too, move it to where maildir.path says: docs/MOVING.md.)\n\n" +
			"Each message that is counted is safe on disk. If something goes wrong, what was added stays, and the error says\n" +
			"how to go on. Doing all of it again would add all again, but for --skip-duplicates.",
		Args: mailArgs(1, 1<<30),
		RunE: func(_ *cobra.Command, args []string) error {
			var ok bool
			if in.quoting, ok = quotings[quoting]; !ok {
				return fmt.Errorf("--quoting %q is not a choice; write mboxrd, mboxo or mboxcl2", quoting)
			}
			if in.skip < 0 {
				return fmt.Errorf("--skip %d is negative", in.skip)
			}
			return in.run(args[0], args[1:])
		},
	}
	cmd.Flags().IntVar(&in.skip, "skip", 0, "leave out the first `N` messages, to go on after an error")
	cmd.Flags().BoolVar(&in.once, "skip-duplicates", false, "leave out messages that are there already, octet by octet; all that is there is read")
	cmd.Flags().StringVar(&quoting, "quoting", "mboxrd",
		"what lines \">From \" of an mbox are: mboxrd and mboxo take the > away, mboxrd also\none of several; mboxcl2 leaves all as it is")
	return cmd
}

// What is made durable in one go.
const (
	mostBatch  = 64
	mostOctets = 32 << 20
)

// An importer adds messages to a maildrop.
type importer struct {
	*app
	*userMail
	skip    int
	once    bool
	quoting mailfile.Quoting

	seen  map[[sha256.Size]byte]struct{} // of messages that are there
	batch []pending
	size  int64

	read, done     int // messages: met, and met up to the last one of which all is known
	added, doubles int
	empty, old     int // old: the next night removes them again
	shown          time.Time
}

// A pending message is not committed yet.
type pending struct {
	maildrop.Deposit
	index int // from 1, among all that are met
}

func (in *importer) run(user string, files []string) error {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	context.AfterFunc(ctx, stop) // a second signal ends the process even if it waits for standard input
	var err error
	if in.userMail, err = in.openMail(user, true); err != nil {
		return err
	}
	if err := in.check(files); err != nil {
		return err
	}
	if err := in.makeHome(); err != nil {
		return err
	}
	if in.once {
		if err := in.readThere(ctx); err != nil {
			return err
		}
	}
	for _, file := range files {
		if err = in.file(ctx, file); err != nil {
			break
		}
	}
	err = errors.Join(err, in.commit(ctx))
	in.clear()
	said := in.say("%s", in.summary())
	if in.old > 0 {
		fmt.Fprintf(in.err, "dewey: %s older than %s, the retention of %s: the next night removes them, unless mail.retention or the users file says otherwise\n",
			plural(int64(in.old), "message")+map[bool]string{true: " is", false: " are"}[in.old == 1], lasting(in.owner.Life.Retention), in.owner.Name)
	}
	if err != nil {
		return fmt.Errorf("%w\nAll before that is safe. To go on: the same command with --skip %d", trimmed(err), in.done)
	}
	return said
}

// trimmed is an error in one line that begins as errors do here.
func trimmed(err error) error {
	if errors.Is(err, context.Canceled) {
		return errors.New("dewey: interrupted")
	}
	if errors.Is(err, maildrop.ErrFull) {
		return fmt.Errorf("dewey: the user's quota is reached: %w", err)
	}
	return fmt.Errorf("dewey: %w", err)
}

func (in *importer) summary() string {
	text := fmt.Sprintf("added %s to %s", plural(int64(in.added), "message"), in.owner.Name)
	if in.doubles > 0 {
		text += fmt.Sprintf(", left out %s that are there", plural(int64(in.doubles), "message"))
	}
	if in.empty > 0 {
		text += fmt.Sprintf(", left out %s of no octets", plural(int64(in.empty), "message"))
	}
	return text
}

// check finds what is wrong with the files before anything is added.
func (in *importer) check(files []string) error {
	stdin := 0
	for _, file := range files {
		if file == "-" {
			if stdin++; stdin > 1 {
				return errors.New("standard input is named twice")
			}
			continue
		}
		st, err := os.Stat(file)
		if err != nil {
			return err //nolint:wrapcheck // names it
		}
		if st.IsDir() {
			if own, err := os.Stat(in.path); err == nil && os.SameFile(own, st) {
				return fmt.Errorf("%s is the maildrop of %s itself", file, in.owner.Name)
			}
		}
		if !st.IsDir() && !st.Mode().IsRegular() { // a pipe can be read once
			continue
		}
		source, err := mailfile.Open(file, in.quoting)
		if err != nil {
			return err //nolint:wrapcheck // names it
		}
		if err := source.Close(); err != nil {
			return err //nolint:wrapcheck // names it
		}
	}
	return nil
}

// readThere notes what messages there are.
func (in *importer) readThere(ctx context.Context) error {
	look, err := in.look(ctx)
	if err != nil {
		return err
	}
	messages := look.Messages()
	in.seen = make(map[[sha256.Size]byte]struct{}, len(messages))
	for i := range messages {
		_, body, err := look.Retrieve(ctx, i+1)
		if errors.Is(err, maildrop.ErrGone) {
			continue
		}
		if err != nil {
			return fmt.Errorf("message %d: %w", i+1, err)
		}
		digest := sha256.New()
		_, err = io.Copy(digest, body)
		if err := errors.Join(err, body.Close()); err != nil {
			return fmt.Errorf("message %d: %w", i+1, err)
		}
		in.seen[sum(digest)] = struct{}{}
		in.progress(func() string { return fmt.Sprintf("compared %d of %d", i+1, len(messages)) })
	}
	return nil
}

func sum(digest hash.Hash) (s [sha256.Size]byte) {
	digest.Sum(s[:0])
	return s
}

func (in *importer) file(ctx context.Context, file string) error {
	source, err := in.open(file)
	if err != nil {
		return err
	}
	defer source.Close()
	for ctx.Err() == nil {
		item, err := source.Next()
		if err == io.EOF {
			notes := source.Notes()
			if source.Kind == mailfile.KindMaildir {
				notes = append(notes, "flags and unique-ids are not taken over")
			}
			for _, note := range notes {
				in.clear()
				fmt.Fprintf(in.err, "dewey: %s: %s\n", source.Name, note)
			}
			return nil
		}
		if err != nil {
			return err //nolint:wrapcheck // names it
		}
		if in.read++; in.read <= in.skip {
			in.done = in.read
			continue
		}
		if err := in.message(ctx, item); err != nil {
			in.read--
			return fmt.Errorf("%s, %s: %w", source.Name, item.Name, err)
		}
		in.progress(func() string {
			done, all := source.Progress()
			if all <= 0 {
				return fmt.Sprintf("added %d", in.added)
			}
			return fmt.Sprintf("added %d, %d %% of %s", in.added, min(100, 100*done/all), visible(source.Name))
		})
	}
	return ctx.Err()
}

func (in *importer) open(file string) (*mailfile.Source, error) {
	if file == "-" {
		return mailfile.Read("standard input", in.app.in, in.quoting) //nolint:wrapcheck // says all
	}
	return mailfile.Open(file, in.quoting) //nolint:wrapcheck // says all
}

// message writes a message to the maildrop, to be committed with others.
func (in *importer) message(ctx context.Context, item mailfile.Item) error {
	d, err := in.store.DepositAt(ctx, in.owner, item.At)
	if err != nil {
		return err //nolint:wrapcheck // says where
	}
	n, digest, err := in.copy(d, item.Body)
	if err != nil {
		d.Discard()
		return err
	}
	_, double := in.seen[digest]
	switch {
	case n == 0:
		in.empty++
		d.Discard()
	case in.once && double:
		in.doubles++
		d.Discard()
	default:
		if in.once {
			in.seen[digest] = struct{}{}
		}
		in.batch = append(in.batch, pending{d, in.read})
		in.size += n
		if stay := in.owner.Life.Retention; stay > 0 && !item.At.IsZero() && time.Since(item.At) > stay {
			in.old++
		}
	}
	if len(in.batch) >= mostBatch || in.size >= mostOctets {
		return in.commit(ctx)
	}
	if len(in.batch) == 0 {
		in.done = in.read
	}
	return nil
}

// copy takes the digest of what RETR would send, so that line ends don't count.
func (in *importer) copy(d maildrop.Deposit, body io.Reader) (n int64, s [sha256.Size]byte, err error) {
	if !in.once {
		n, err = io.Copy(d, body)
		return n, s, err //nolint:wrapcheck // the caller says where
	}
	digest := sha256.New()
	n, err = io.Copy(digest, message.NewReader(io.TeeReader(body, d)))
	return n, sum(digest), err //nolint:wrapcheck // the caller says where
}

// commit makes what is pending durable and visible. It stops at nothing once it has begun.
func (in *importer) commit(ctx context.Context) error {
	if len(in.batch) == 0 {
		return nil
	}
	deposits := make([]maildrop.Deposit, len(in.batch))
	for i := range in.batch {
		deposits[i] = in.batch[i].Deposit
	}
	n, err := in.store.CommitAll(context.WithoutCancel(ctx), deposits)
	in.added += n
	if n == len(in.batch) {
		in.done = in.read
	} else {
		in.done = in.batch[n].index - 1
	}
	in.batch, in.size = slices.Delete(in.batch, 0, len(in.batch)), 0
	return err //nolint:wrapcheck // says where
}

// progress shows how far it is, from time to time, if somebody sees it.
func (in *importer) progress(text func() string) {
	if _, ok := widthOf(in.err); !ok || time.Since(in.shown) < 200*time.Millisecond {
		return
	}
	in.shown = time.Now()
	fmt.Fprintf(in.err, "\r%s\x1b[K", text())
}

// clear takes the line of progress away.
func (in *importer) clear() {
	if !in.shown.IsZero() {
		fmt.Fprint(in.err, "\r\x1b[K")
		in.shown = time.Time{}
	}
}
