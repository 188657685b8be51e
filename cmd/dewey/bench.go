package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"dewey/bench"
)

func (a *app) benchCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "bench",
		Short: "Put load on a POP3 or LMTP server, and measure it",
		Long: "Put load on a POP3 or LMTP server, of any make, and measure rates, latencies, and, if its processes run on this\n" +
			"machine and --pid or --name says which they are, what CPU time and memory it costs them.\n\n" +
			"Load goes nowhere but to --address, which has no default; no configuration is read. What the server answers is\n" +
			"checked: the first reply that is not what it should be ends the run, unless --keep-going has it counted. With\n" +
			"errors, or if nothing was measured, the exit code is 1. ^C ends a run, and prints what was measured so far.\n\n" +
			"docs/BENCH.md says how to read the output and how to compare two servers.",
		Args: onlyCommands,
		RunE: help,
	}
	cmd.AddCommand(a.benchPoll(), a.benchFetch(), a.benchPipeline(), a.benchOpen(), a.benchUpdate(), a.benchIdle(), a.benchDeliver())
	return cmd
}

// benchLoad makes the command of one workload.
func (a *app) benchLoad(name, short, long string, f *benchFlags) *cobra.Command {
	cmd := &cobra.Command{
		Use:   name,
		Short: short,
		Long:  long,
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := f.finish(cmd, a.in, a.err); err != nil {
				return err
			}
			return a.bench(name, f)
		},
	}
	f.register(cmd.Flags(), name)
	return cmd
}

func (a *app) benchPoll() *cobra.Command {
	return a.benchLoad("poll", "Sessions that look for new mail and find none", "Connect, CAPA, login, STAT, UIDL, QUIT, over and over: what clients do that leave their mail on the server.", &benchFlags{})
}

func (a *app) benchOpen() *cobra.Command {
	return a.benchLoad("open", "The time from login to the end of UIDL, of large maildrops",
		"The same commands as poll. The latency \"open\" is from login to the end of UIDL.", &benchFlags{})
}

func (a *app) benchFetch() *cobra.Command {
	f := &benchFlags{}
	cmd := a.benchLoad("fetch", "RETR of all messages", "Log in, LIST, RETR of each message, QUIT. Of each the octets, byte-unstuffed, are held against LIST. Nothing is removed.", f)
	cmd.Flags().IntVar(&f.Messages, "messages", 0, "only the first `N` of each maildrop")
	return cmd
}

func (a *app) benchPipeline() *cobra.Command {
	f := &benchFlags{}
	cmd := a.benchLoad("pipeline", "Commands that do not wait for the replies to those before",
		"Log in, LIST, and then for each message the commands of --commands, --depth of them sent at once. Nothing is removed.", f)
	cmd.Flags().IntVar(&f.Messages, "messages", 0, "only the first `N` of each maildrop")
	cmd.Flags().IntVar(&f.Depth, "depth", 16, "`commands` that are sent before their replies are read")
	cmd.Flags().StringSliceVar(&f.Commands, "commands", []string{"UIDL", "RETR"}, "for each message, some of LIST, UIDL, TOP, RETR and NOOP")
	return cmd
}

func (a *app) benchUpdate() *cobra.Command {
	f := &benchFlags{}
	cmd := a.benchLoad("update", "DELE of all messages, until they are gone for good: REMOVES MAIL",
		"Log in, DELE of all messages, QUIT, once for each user. The latency \"update\" is from the first DELE to the reply to QUIT.\n"+
			"ALL MAIL of these users is removed, so it wants --yes.", f)
	cmd.Flags().IntVar(&f.Depth, "depth", 1, "`commands` that are sent before their replies are read")
	cmd.Flags().BoolVar(&f.yes, "yes", false, "all mail of these users may be removed")
	return cmd
}

func (a *app) benchIdle() *cobra.Command {
	f := &benchFlags{}
	cmd := a.benchLoad("idle", "Connections that are held and do nothing",
		"Open --connections, hold them for --duration, look if all are still served, QUIT. With --pid or --name it tells the memory\n"+
			"for each. A source address has some 28,000 ports; --source 127.0.0.2-127.0.0.20 gives more.", f)
	cmd.Flags().BoolVar(&f.Login, "login", true, "log in, each as another user")
	return cmd
}

func (a *app) benchDeliver() *cobra.Command {
	f := &benchFlags{}
	cmd := a.benchLoad("deliver", "Messages by LMTP: ADDS MAIL",
		"Deliver messages by LMTP, each with a Message-ID of its own. Every 250 is a delivery. --address may be unix:/path.", f)
	flags := cmd.Flags()
	flags.StringVar(&f.user, "recipient", "", "the recipients' `address`es; %d in it is a number from 1 to --users")
	flags.IntVar(&f.Size, "size", 4096, "`octets` of a message, its header section with it")
	flags.IntVar(&f.PerMessage, "recipients-per-message", 1, "`recipients` of a message")
	flags.IntVar(&f.PerConnection, "messages-per-connection", 0, "`messages` of a connection; 0: any number")
	flags.StringVar(&f.Sender, "sender", "bench@bench.invalid", "the `address` of MAIL FROM; may be empty")
	return cmd
}

// bench runs a workload and prints what came out, which is something after an error too.
func (a *app) bench(name string, f *benchFlags) error {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	context.AfterFunc(ctx, stop) // the second ^C ends it at once
	live := liveLine{w: a.err}
	if e, ok := a.err.(*os.File); ok && term.IsTerminal(int(e.Fd())) {
		f.Live = live.show
	}
	result, err := bench.Run(ctx, name, f.Options)
	live.clear()
	if result == nil {
		return err //nolint:wrapcheck // says what is wrong
	}
	print := result.Write
	if f.json {
		print = func(w io.Writer) error {
			e := json.NewEncoder(w)
			e.SetIndent("", "  ")
			return e.Encode(result)
		}
	}
	switch failed := print(a.out); {
	case failed != nil:
		return fmt.Errorf("print the result: %w", failed)
	case err != nil:
		return err //nolint:wrapcheck // names the user and the command
	case result.Interrupted:
		return errors.New("interrupted; the result is of part of the run")
	case result.Errors > 0:
		return errors.New(plural(result.Errors, "error"))
	}
	return nil
}

// A liveLine is written over and over at a terminal.
type liveLine struct {
	w     io.Writer
	width int
}

func (l *liveLine) show(p bench.Progress) {
	text := fmt.Sprintf("%6.1f s  %d %s  %.1f/s  p99 %.2f ms  %d errors", p.Elapsed.Seconds(), p.Units, p.Unit, p.PerSecond,
		float64(p.P99)/float64(time.Millisecond), p.Faults)
	fmt.Fprintf(l.w, "\r%-*s", l.width, text)
	l.width = len(text)
}

func (l *liveLine) clear() {
	if l.width > 0 {
		fmt.Fprintf(l.w, "\r%s\r", strings.Repeat(" ", l.width))
	}
}
