package main

import (
	"fmt"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"dewey/config"
)

func (a *app) configCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "config",
		Short: "Check or print the configuration",
		Long:  "Check or print the configuration: the defaults, over them --config FILE, over that --set.\n\n" + reference(),
		Args:  onlyCommands,
		RunE:  help,
	}
	cmd.AddCommand(&cobra.Command{
		Use:   "check",
		Short: "Say OK, or all that is wrong, each with its line",
		Args:  cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			if _, err := a.load(); err != nil {
				return err
			}
			_, err := fmt.Fprintln(a.out, "OK")
			return err
		},
	}, &cobra.Command{
		Use:   "print",
		Short: "Print the whole as TOML, with where each value came from",
		Args:  cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			c, err := a.load()
			if err != nil {
				return err
			}
			return c.Print(a.out)
		},
	})
	return cmd
}

// reference lists every key with its default.
func reference() string {
	var b strings.Builder
	b.WriteString("Keys:\n")
	w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	for _, k := range config.Keys() {
		fmt.Fprintf(w, "  %s\t%s\t%s\n", k.Name, k.Default, k.Doc)
	}
	_ = w.Flush() // a strings.Builder takes all
	b.WriteString("\nIn the file a key a.b is the line b = … below [a].")
	return b.String()
}
