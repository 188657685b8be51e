package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"dewey/auth"
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
		Long: "Say OK, or all that is wrong, each with its line: in the configuration, and in the users, the aliases and the\n" +
			"certificates that it names. Nothing is changed, and no port is bound. Run it as who will run dewey serve: others may\n" +
			"not be allowed to read all of these files.",
		Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			c, err := a.load()
			if err != nil {
				return err
			}
			log := slog.New(slog.NewTextHandler(a.err, &slog.HandlerOptions{Level: slog.LevelWarn}))
			if err := checkFiles(c, log); err != nil {
				return err
			}
			_, err = fmt.Fprintln(a.out, "OK")
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

// checkFiles reads the files that a configuration names as serve does at its start. It makes none.
func checkFiles(c *config.Config, log *slog.Logger) error {
	var errs []error
	users, err := openBackends(c, nil, log)
	errs = append(errs, err)
	if err == nil {
		_, err = openRecipients(c, users, log)
	} else { // which targets are users can't be told
		_, err = openRecipients(c, nobody{}, slog.New(slog.DiscardHandler))
	}
	errs = append(errs, err, checkCertificates(c, log))
	_, err = rightsOf(c)
	return errors.Join(append(errs, err)...)
}

// nobody is no user.
type nobody struct{}

func (nobody) Recipient(context.Context, string) (auth.Identity, error) {
	return auth.Identity{}, auth.ErrRejected
}

// checkCertificates opens the certificates that are there. What serve would make itself is made, and forgotten, in a
// folder for that.
func checkCertificates(c *config.Config, log *slog.Logger) error {
	made, err := os.MkdirTemp("", "dewey-check-")
	if err != nil {
		return fmt.Errorf("a folder to check in: %w", err)
	}
	defer os.RemoveAll(made)
	quiet := slog.New(slog.DiscardHandler)
	probe := *c
	probe.Data = made
	if len(c.TLS.Certificate) == 0 && len(c.TLS.ACMEDomains) == 0 {
		cert, key := filepath.Join(c.Data, "tls", "cert.pem"), filepath.Join(c.Data, "tls", "key.pem")
		if present(cert) && present(key) {
			probe.TLS.Certificate, probe.TLS.Key = []string{cert}, []string{key}
		}
	}
	if len(probe.TLS.Certificate) == 0 {
		log = quiet
	}
	_, err = openCertificates(&probe, nil, log)
	if c.TLS.ACMERoots == "" {
		return err
	}
	roots := probe
	roots.TLS.Certificate, roots.TLS.Key, roots.TLS.ClientCA = nil, nil, c.TLS.ACMERoots
	_, rootsErr := openCertificates(&roots, nil, quiet)
	return errors.Join(err, rootsErr)
}

func present(name string) bool {
	_, err := os.Stat(name)
	return err == nil
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
	b.WriteString("\nIn the file a key a.b is the line b = … below [a].\n\nKeys of [[auth]], of which there may be several, by kind:\n")
	for _, k := range config.AuthKeys() {
		fmt.Fprintf(w, "  %s\t%s\t%s\t%s\n", orDash(k.Kind), k.Name, k.Default, k.Doc)
	}
	_ = w.Flush() // a strings.Builder takes all
	return strings.TrimSuffix(b.String(), "\n")
}
