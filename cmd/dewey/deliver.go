package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"dewey/config"
	"dewey/internal/confine"
	"dewey/lmtp"
	"dewey/maildrop"
	"dewey/store/maildir"
)

// What `dewey deliver` ends with. sysexits(3). All that passes, or that somebody can put right, is exitTempFail, a
// wrong configuration too: of the others Postfix makes a bounce (pipe(8)).
const (
	exitUsage      = 64
	exitData       = 65
	exitNoUser     = 67
	exitCantCreate = 73
	exitTempFail   = 75
)

// An exitError ends the program with a code of its own.
type exitError struct {
	code int
	err  error
}

func (e *exitError) Error() string { return e.err.Error() }
func (e *exitError) Unwrap() error { return e.err }

func exit(code int, format string, args ...any) error {
	return &exitError{code, fmt.Errorf(format, args...)}
}

func (a *app) deliverCommand() *cobra.Command {
	var from string
	var addresses []string
	cmd := &cobra.Command{
		Use:   "deliver [-f SENDER] RECIPIENT...",
		Short: "Deliver a message from standard input",
		Long: "Deliver one message from standard input, as a mail server's pipe or procmail hands it over: through the running\n" +
			"server, if lmtp.listen names a socket at which it answers, else into the Maildirs. A line \"From …\" at the\n" +
			"beginning is dropped; without -f its sender counts.\n\n" +
			"It ends with 0 if every recipient has the message, and else with what sysexits(3) has for it:\n" +
			"  64  the command line is wrong, or an address in it\n" +
			"  65  the message is larger than lmtp.max_size, or there is none\n" +
			"  67  no such recipient\n" +
			"  73  the maildrop is full (with lmtp.over_quota = \"defer\": 75)\n" +
			"  75  not now: to try again would be right. Also for a wrong configuration, since mail servers bounce all others\n" +
			"Is one of several recipients unknown or full, the others have the message although it says 67 or 73. If one can't\n" +
			"be served for now nobody gets it, unless that shows at the very end. One recipient at a time is best.",
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args)+len(addresses) == 0 {
				return exit(exitUsage, "deliver needs a recipient; write %s", cmd.UseLine())
			}
			return nil
		},
		RunE: func(_ *cobra.Command, args []string) error {
			return a.deliver(from, append(addresses, args...))
		},
	}
	cmd.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return exit(exitUsage, "%w", err) })
	cmd.Flags().StringVarP(&from, "from", "f", unsaid, "the `SENDER`; empty, <> or MAILER-DAEMON: the null sender, that of bounces")
	cmd.Flags().Lookup("from").DefValue = ""
	cmd.Flags().StringArrayVarP(&addresses, "address", "a", nil, "a `RECIPIENT`, as without the flag; may be repeated")
	return cmd
}

// unsaid is no sender that anybody could name.
const unsaid = "\x00"

func (a *app) deliver(from string, to []string) error {
	paths := make([]string, len(to))
	for i, address := range to {
		var ok bool
		if paths[i], ok = path(address); !ok || address == "" {
			return exit(exitUsage, "%q is no address", address)
		}
	}
	in := bufio.NewReaderSize(a.in, 64<<10)
	envelope, err := fromLine(in)
	if err != nil {
		return err
	}
	said := from != unsaid
	if !said {
		from = envelope
	}
	sender, ok := path(nullSender(from))
	if !ok {
		if said {
			return exit(exitUsage, "-f: %q is no address", from)
		}
		sender = ""
	}
	c, err := a.load()
	if err != nil {
		return exit(exitTempFail, "%w", err)
	}
	if len(to) > c.LMTP.MaxRecipients {
		return exit(exitUsage, "%d recipients; lmtp.max_recipients is %d", len(to), c.LMTP.MaxRecipients)
	}
	conn, end, err := a.connect(c)
	if err != nil {
		return exit(exitTempFail, "%w", err)
	}
	defer end()
	client := &mailClient{conn: conn, in: bufio.NewReader(conn), defers: c.LMTP.OverQuota == config.OverQuotaDefer}
	err = client.begin(c.Hostname, sender, paths)
	if errorCode(err) == exitUsage && !said { // what the line From has need be no address
		err = client.mail("", paths)
	}
	if err != nil {
		return err
	}
	return client.deliver(paths, in)
}

// fromLine drops the line with which a message begins in an mbox, and returns the sender in it. It leaves what
// is none: a field's name has no space in it.
func fromLine(in *bufio.Reader) (sender string, err error) {
	const from = "From "
	begin, err := in.Peek(len(from))
	switch {
	case len(begin) == 0 && err == io.EOF: //nolint:errorlint // never wrapped
		return "", exit(exitData, "there is no message on standard input")
	case err != nil && err != io.EOF:
		return "", exit(exitTempFail, "standard input: %w", err)
	case string(begin) != from:
		return "", nil
	}
	line, err := in.ReadSlice('\n')
	if err != nil {
		return "", exit(exitData, "the message is nothing but a line From, or that has no end")
	}
	if _, err := in.Peek(1); err != nil {
		return "", exit(exitData, "the message is nothing but a line From")
	}
	sender, _, _ = strings.Cut(string(bytes.TrimRight(line[len(from):], "\r\n")), " ")
	return sender, nil
}

// nullSender knows the names that stand for nobody: pipe(8) of Postfix, and mboxes, write MAILER-DAEMON.
func nullSender(from string) string {
	if inside, ok := strings.CutPrefix(from, "<"); ok {
		from = strings.TrimSuffix(inside, ">")
	}
	if strings.EqualFold(from, "MAILER-DAEMON") {
		return ""
	}
	return from
}

// path writes an address as SMTP has it. Mail servers hand it over without the quotation marks that it needs there
// (pipe(8)). False for what can't be one; empty is. RFC 5321 section 4.1.2.
func path(address string) (string, bool) {
	if !utf8.ValidString(address) || strings.ContainsFunc(address, func(r rune) bool { return r < ' ' || r == 0x7f }) {
		return "", false
	}
	if strings.HasPrefix(address, `"`) || strings.HasPrefix(address, "@") && strings.Contains(address, ":") {
		return address, !strings.ContainsAny(address, "<>") // as it is there; the server looks closer
	}
	local, domain := address, ""
	if i := strings.LastIndexByte(address, '@'); i >= 0 {
		local, domain = address[:i], address[i:]
	}
	if strings.ContainsAny(domain, " <>\"") || local == "" && domain != "" {
		return "", false
	}
	if strings.ContainsAny(local, " \"(),:;<>@[\\]") {
		local = `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(local) + `"`
	}
	return local + domain, true
}

// connect returns a connection to the running server, or to one of our own that ends with it.
func (a *app) connect(c *config.Config) (conn net.Conn, end func(), err error) {
	for _, address := range c.LMTP.Listen {
		network := "tcp"
		if path, ok := strings.CutPrefix(address, config.UnixPrefix); ok {
			network, address = "unix", path
		}
		conn, err := net.DialTimeout(network, address, connectPatience)
		switch {
		case err == nil:
			return bounded(conn), func() { _ = conn.Close() }, nil
		case errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ECONNREFUSED) || errors.Is(err, unix.EACCES) || errors.Is(err, unix.EPERM):
			// nobody there, or not for us
		default:
			return nil, nil, err //nolint:wrapcheck // it says where
		}
	}
	server, err := a.ownServer(c)
	if err != nil {
		return nil, nil, err
	}
	ours, theirs := net.Pipe()
	l := &oneConn{conn: make(chan net.Conn, 1), closed: make(chan struct{})}
	l.conn <- theirs
	go func() { _ = server.Serve(l) }()
	return bounded(ours), func() {
		_ = ours.Close()
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		_ = server.Shutdown(ctx) // it throws away what was not delivered
	}, nil
}

const (
	// Before the greeting nothing has been said, so that to give up early costs nothing: a server that is stopped
	// or hangs takes connections, or its queue is full. It is on this machine, or near.
	connectPatience  = 5 * time.Second
	greetingPatience = 30 * time.Second
	// wholePatience leaves the ten minutes for the last reply that RFC 5321 section 4.5.3.2.6 asks for, since who gives
	// up then may deliver twice, and ends, with a minute for our own server's end, before whoever has called us loses
	// his: procmail kills after 960 s (TIMEOUT), Postfix after 1000 s (command_time_limit), Exim bounces after an hour.
	wholePatience = 14 * time.Minute
)

// A patientConn bounds the whole of a delivery, and the wait for its first octet.
type patientConn struct {
	net.Conn
	began   time.Time
	greeted bool
}

func bounded(conn net.Conn) net.Conn { return &patientConn{Conn: conn, began: time.Now()} }

func (c *patientConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	c.greeted = c.greeted || n > 0
	if errors.Is(err, os.ErrDeadlineExceeded) {
		err = fmt.Errorf("the server is stopped, hangs or is overloaded: %w", err)
	}
	return n, err //nolint:wrapcheck // as net has it
}

// SetDeadline sets none that is later than patience lasts.
func (c *patientConn) SetDeadline(t time.Time) error {
	last := c.began.Add(wholePatience)
	if !c.greeted {
		last = c.began.Add(greetingPatience)
	}
	if last.Before(t) {
		t = last
	}
	return c.Conn.SetDeadline(t) //nolint:wrapcheck // as net has it
}

// ownServer takes mail in as the running one would. Started as root it becomes process.user, whose Maildirs they
// are.
func (a *app) ownServer(c *config.Config) (*lmtp.Server, error) {
	log := slog.New(slog.NewTextHandler(a.err, &slog.HandlerOptions{Level: slog.LevelError}))
	users, err := startBackends(c, log, nil)
	if err != nil {
		return nil, err
	}
	if c.Process.User != "" && os.Geteuid() == 0 {
		who, err := confine.LookUp(c.Process.User, c.Process.Group)
		if err == nil {
			err = who.Become()
		}
		if err != nil {
			return nil, fmt.Errorf("process.user: %w", err)
		}
	}
	resolver, err := openRecipients(c, users, log)
	if err != nil {
		return nil, err
	}
	server := &lmtp.Server{
		Recipients: resolve(resolver),
		Mail:       maildir.New(maildir.Options{Path: maildirOf(c), Logger: log, Quota: func() maildrop.Quota { return quotaOf(c) }}),
		Settings:   mailSettings(c),
		Logger:     log,
	}
	return server, nil
}

// A oneConn is a listener with one connection.
type oneConn struct {
	conn   chan net.Conn
	closed chan struct{}
	once   sync.Once
}

func (l *oneConn) Accept() (net.Conn, error) {
	select {
	case c := <-l.conn:
		return c, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

func (l *oneConn) Close() error {
	l.once.Do(func() { close(l.closed) })
	return nil
}

func (l *oneConn) Addr() net.Addr { return &net.UnixAddr{Net: "unix"} }
