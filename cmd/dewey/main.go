// Command dewey is a POP3 server and the tools that go with it.
//
// There is nothing here but wiring: the commands, what they print, and how the rooms of the house
// are put together. See `dewey help`.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"dewey/config"
	"dewey/store/maildir"
)

func main() {
	os.Exit(run(os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
}

// run is the whole program but for the process around it. It returns the exit code.
func run(args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	a := &app{in: stdin, out: stdout, err: stderr}
	root := a.root()
	root.SetArgs(args)
	root.SetIn(stdin)
	root.SetOut(stdout)
	root.SetErr(stderr)
	cmd, err := root.ExecuteC()
	if a.mail != nil { // the next session does what is left after that
		ctx, stop := context.WithTimeout(context.Background(), afterwards)
		defer stop()
		err = errors.Join(err, a.mail.Finish(ctx))
	}
	if err != nil {
		fmt.Fprintln(stderr, oneLine(err))
		if cmd.Name() == "deliver" {
			return errorCode(err)
		}
		if own := (*exitError)(nil); errors.As(err, &own) {
			return own.code
		}
		return 1
	}
	return 0
}

// oneLine is what an administrator reads of an error: one line, or one for each error of a file,
// which then says itself where it is.
func oneLine(err error) string {
	text := strings.TrimSpace(err.Error())
	var problems config.Problems
	if errors.As(err, &problems) || strings.Contains(text, "\n") {
		return text
	}
	return "dewey: " + text
}

// An app is what every command shares: its streams and the flags that name the configuration.
type app struct {
	in       io.Reader
	out, err io.Writer
	file     string
	sets     []string
	mail     *maildir.Store // that a command has opened maildrops of
}

// afterwards is how long a command waits for the files to be unlinked of which it has said that they are removed.
const afterwards = time.Minute

func (a *app) load() (*config.Config, error) { return config.Load(a.file, a.sets) }

func (a *app) root() *cobra.Command {
	root := &cobra.Command{
		Use:   "dewey",
		Short: "A POP3 server for Maildirs",
		Long: "dewey serves Maildirs by POP3.\n\n" +
			"To begin: dewey user add NAME, then dewey serve. Without a file the defaults hold;\n" +
			"`dewey config print` shows them, `dewey help config` explains them.",
		Args:          onlyCommands,
		RunE:          help,
		Version:       versionText(),
		SilenceUsage:  true,
		SilenceErrors: true,
		PersistentPreRunE: func(cmd *cobra.Command, _ []string) error {
			if cmd.Flags().Changed("config") && a.file == "" { // --config=$UNSET must not mean the defaults
				return errors.New("--config names no file; write --config FILE, or leave it out")
			}
			return nil
		},
	}
	root.SetVersionTemplate("dewey {{.Version}}\n")
	flags := root.PersistentFlags()
	flags.StringVar(&a.file, "config", "", "the configuration `FILE`, in TOML")
	flags.StringArrayVar(&a.sets, "set", nil, "set `key=value` over the file's; may be repeated")
	root.AddCommand(a.serveCommand(), a.deliverCommand(), a.userCommand(), a.authCommand(), a.mailCommand(), a.checkCommand(), a.configCommand(), a.benchCommand(), &cobra.Command{
		Use:   "version",
		Short: "Print the version",
		Args:  cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			_, err := fmt.Fprintf(a.out, "dewey %s\n", versionText())
			return err
		},
	})
	return root
}

// onlyCommands takes no argument: one that is given was meant to be a command.
func onlyCommands(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	cmd.SuggestionsMinimumDistance = 1
	if near := cmd.SuggestionsFor(args[0]); len(near) > 0 {
		return fmt.Errorf("%s has no command %q; did you mean %s?", cmd.CommandPath(), args[0], strings.Join(near, " or "))
	}
	return fmt.Errorf("%s has no command %q; write %s --help to see those that it has", cmd.CommandPath(), args[0], cmd.CommandPath())
}

// help is what a command does that only has commands below it.
func help(cmd *cobra.Command, _ []string) error { return cmd.Help() }
