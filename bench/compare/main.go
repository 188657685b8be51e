package main

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
)

// options are what the command line says.
type options struct {
	scale   scale
	pairs   int
	rows    []string // groups of jobs; none: all
	peers   []string
	out     string // the folder of BENCHMARKS.md
	dir     string // where the work's own folder is made
	command string // as it was called
	note    string
	older   *record // measured before: rows that are measured now come in the place of its own; nil: there is none
	log     io.Writer
}

func main() {
	if len(os.Args) > 1 && os.Args[1] == reaper {
		if err := reap(os.Args[2:]); err != nil {
			fmt.Fprintln(os.Stderr, "compare:", err)
			os.Exit(1)
		}
		return
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := compare(ctx, os.Args[1:], os.Stderr)
	stop()
	if err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(os.Stderr, "compare:", err)
		os.Exit(1)
	}
}

func compare(ctx context.Context, args []string, log io.Writer) error {
	o := options{scale: full, log: log, command: strings.Join(append([]string{"bench/compare/run"}, args...), " ")}
	flags := flag.NewFlagSet("compare", flag.ContinueOnError)
	flags.SetOutput(log)
	quick := flags.Bool("quick", false, "fewer messages and one pair: to see that all works")
	rows := flags.String("rows", "", "only these `groups`: "+strings.Join(groups(), ","))
	peers := flags.String("peers", "dovecot,courier,dewey", "the `servers`")
	from := flags.String("from", "", "the `results.json` of an older run: write its report, or with --rows measure these anew and keep the others")
	flags.StringVar(&o.note, "note", "", "a `text` for below the table: what else is to be known of this run")
	flags.IntVar(&o.pairs, "pairs", 0, "how `often` each server has its turn (5; 1 with --quick)")
	flags.StringVar(&o.out, "out", "", "the `folder` to write BENCHMARKS.md and benchmarks/ in (docs; bin/bench-quick with --quick)")
	flags.StringVar(&o.dir, "dir", os.TempDir(), "the `folder` for the servers' data, on the file system that is to be measured")
	if err := flags.Parse(args); err != nil {
		return err //nolint:wrapcheck // says what is wrong
	}
	if flags.NArg() > 0 {
		return fmt.Errorf("%q is no flag", flags.Arg(0))
	}
	pairs, out := 5, "docs"
	if *quick {
		o.scale, pairs, out = small, 1, "bin/bench-quick"
	}
	if o.pairs == 0 {
		o.pairs = pairs
	}
	if o.out == "" {
		o.out = out
	}
	if *from != "" {
		r, err := readRecord(*from)
		if err != nil {
			return err
		}
		r.Note = cmp.Or(o.note, r.Note)
		if *rows == "" {
			return r.write(o.out)
		}
		o.older = r
	}
	o.peers = strings.Split(*peers, ",")
	if *rows != "" {
		o.rows = strings.Split(*rows, ",")
	}
	return o.run(ctx)
}

// run measures all and writes the report.
func (o *options) run(ctx context.Context) error {
	for _, g := range o.rows {
		if !slices.Contains(groups(), g) {
			return fmt.Errorf("there are no rows %q; there are %s", g, strings.Join(groups(), ", "))
		}
	}
	for _, name := range []string{"dovecot", "dewey"} {
		if !slices.Contains(o.peers, name) {
			return fmt.Errorf("%s is needed: all is told as dewey's part of Dovecot's", name)
		}
	}
	if o.pairs < 1 {
		return errors.New("--pairs is at least 1")
	}
	begun := time.Now()
	dir, err := os.MkdirTemp(o.dir, "cmp") // short: the path of a UNIX socket has 107 octets at most
	if err != nil {
		return fmt.Errorf("a folder for the data: %w", err)
	}
	defer os.RemoveAll(dir)
	if dir, err = filepath.Abs(dir); err != nil {
		return fmt.Errorf("a folder for the data: %w", err)
	}
	e, err := newEnvironment(ctx, o, dir)
	if err != nil {
		return err
	}
	defer e.stop()
	r, err := e.measure(ctx)
	r.Took = time.Since(begun).Round(time.Second).String()
	r.Note = o.note
	if r.Interrupted = err != nil; len(r.Measurements) == 0 {
		return err
	}
	if o.older != nil {
		r = o.older.with(r)
	}
	if err := errors.Join(err, r.write(o.out)); err != nil {
		return err
	}
	o.say("wrote %s in %s", filepath.Join(o.out, "BENCHMARKS.md"), r.Took)
	return nil
}

func (o *options) say(format string, args ...any) {
	fmt.Fprintf(o.log, time.Now().Format("15:04:05 ")+format+"\n", args...)
}
