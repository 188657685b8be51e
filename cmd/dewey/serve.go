package main

import (
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"dewey/internal/confine"
)

func (a *app) serveCommand() *cobra.Command {
	var format, level string
	var grace time.Duration
	cmd := &cobra.Command{
		Use:   "serve",
		Short: "Serve maildrops by POP3",
		Long: "Serve maildrops by POP3, in the foreground, logging to standard error.\n\n" +
			"SIGTERM and SIGINT let sessions end for a while (--grace), then close them; a second one closes them at once.\n" +
			"SIGHUP reads the configuration and the users again. systemd is told of it all, and may pass the sockets.",
		Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			log, err := newLogger(a.err, format, level)
			if err != nil {
				return err
			}
			if grace < 0 {
				return fmt.Errorf("--grace %v is negative; write a time such as 30s", grace)
			}
			signals := make(chan os.Signal, 4)
			signal.Notify(signals, syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP)
			defer signal.Stop(signals)
			d := &daemon{log: log, load: a.load, file: a.file, grace: grace, signals: signals, manager: manager{log}, confine: confine.Restrict, reloaded: make(chan struct{}, 1)}
			return d.run()
		},
	}
	cmd.Flags().StringVar(&format, "log-format", "text", "text or json")
	cmd.Flags().StringVar(&level, "log-level", "info", "debug, info, warn or error")
	cmd.Flags().DurationVar(&grace, "grace", 30*time.Second, "how long sessions may go on after SIGTERM")
	return cmd
}

func newLogger(w io.Writer, format, level string) (*slog.Logger, error) {
	var options slog.HandlerOptions
	switch level {
	case "debug":
		options.Level = slog.LevelDebug
	case "info":
		options.Level = slog.LevelInfo
	case "warn":
		options.Level = slog.LevelWarn
	case "error":
		options.Level = slog.LevelError
	default:
		return nil, fmt.Errorf("--log-level %q is not a choice; write debug, info, warn or error", level)
	}
	switch format {
	case "text":
		return slog.New(slog.NewTextHandler(w, &options)), nil
	case "json":
		return slog.New(slog.NewJSONHandler(w, &options)), nil
	}
	return nil, fmt.Errorf("--log-format %q is not a choice; write text or json", format)
}
