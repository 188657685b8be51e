package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"os/signal"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"dewey/auth/passwdfile"
	"dewey/config"
	"dewey/pop3server"
	"dewey/store/maildir"
)

// A daemon is `dewey serve` while it runs. One goroutine, that of run, uses its fields.
type daemon struct {
	log     *slog.Logger
	load    func() (*config.Config, error)
	grace   time.Duration
	signals <-chan os.Signal
	manager manager

	started *config.Config // what it was started with: where users and mail are
	config  *config.Config // what is in effect for the rest
	users   *passwdfile.File
	server  *pop3server.Server
	bound   map[string]net.Listener // by their address in pop3.listen
	passed  []net.Listener          // by systemd, used instead
	serving sync.WaitGroup
	failed  chan error // from a listener that could not be served
}

// run serves until a signal ends it. An error is one line for the administrator.
func (d *daemon) run() error {
	if err := d.prepare(); err != nil {
		return err
	}
	if err := d.bind(); err != nil {
		return err
	}
	d.failed = make(chan error, 1)
	for _, l := range d.listeners() {
		d.serve(l)
	}
	d.manager.ready(d.status())
	err := d.loop()
	d.serving.Wait()
	return err
}

// prepare does all that can fail before a port is bound.
func (d *daemon) prepare() error {
	c, err := d.load()
	if err != nil {
		return err
	}
	d.started, d.config = c, c
	if err := makeData(c.Data); err != nil {
		return err
	}
	if d.users, err = openUsers(c, d.log); err != nil {
		return err
	}
	d.server = &pop3server.Server{
		Users:     d.users,
		Maildrops: maildir.New(maildir.Options{Path: c.MaildirPath, Logger: d.log}),
		Settings:  settings(c),
		Logger:    d.log,
	}
	if err := d.server.Reconfigure(settings(c)); err != nil { // checks them
		return fmt.Errorf("settings: %w", err)
	}
	d.warn(c)
	return nil
}

// makeData makes the data folder if there is none, and proves that it can be written.
func makeData(folder string) error {
	err := os.MkdirAll(folder, 0o700)
	if err == nil {
		var probe *os.File
		if probe, err = os.CreateTemp(folder, ".probe-*"); err == nil {
			err = errors.Join(probe.Close(), os.Remove(probe.Name()))
		}
	}
	if err != nil {
		return fmt.Errorf("data: the folder %s can't be written: %w; choose another with --set data=FOLDER", folder, cause(err))
	}
	return nil
}

// cause takes operation and name out of an error of package os.
func cause(err error) error {
	var pe *fs.PathError
	if errors.As(err, &pe) {
		return pe.Err
	}
	return err
}

// openUsers reads the users file. Only the default one may be missing.
func openUsers(c *config.Config, log *slog.Logger) (*passwdfile.File, error) {
	name := c.UsersFile()
	if _, err := os.Stat(name); errors.Is(err, fs.ErrNotExist) {
		if s := c.Source("users.file"); !s.IsDefault() {
			return nil, fmt.Errorf("users.file: %s does not exist (set by %s); make it with: dewey user add NAME", name, s)
		}
		log.Warn("no users yet; add one: dewey user add NAME", "file", name)
	}
	f, err := passwdfile.Open(name, passwdfile.Options{Logger: log, Weak: c.Users.WeakSchemes})
	if err != nil {
		return nil, err //nolint:wrapcheck // names the file and the line of each error
	}
	return f, nil
}

// settings turns the configuration into the server's words.
func settings(c *config.Config) pop3server.Settings {
	s := pop3server.Settings{
		Hostname:           c.Hostname,
		Plaintext:          plaintext[c.Login.Plaintext],
		IdleTimeout:        c.Login.IdleTimeout,
		FailureDelay:       c.Login.FailureDelay,
		MaxConnections:     c.Login.MaxConnections,
		MaxUnauthenticated: c.Login.MaxUnauthenticated,
		MaxPerUser:         c.Login.MaxPerUser,
		MaxPerAddress:      c.Login.MaxPerAddress,
		Trusted:            c.Login.TrustedNetworks,
		Language:           c.POP3.Language,
	}
	if c.POP3.ShowVersion {
		s.Implementation = "dewey-" + shortVersion()
	}
	return s
}

var plaintext = map[string]pop3server.Plaintext{
	config.PlaintextNever:    pop3server.PlaintextNever,
	config.PlaintextLoopback: pop3server.PlaintextLoopback,
	config.PlaintextAlways:   pop3server.PlaintextAlways,
}

// warn tells what is configured and will not be as the administrator may think.
func (d *daemon) warn(c *config.Config) {
	var unserved []string
	for key, empty := range map[string]bool{
		"pop3s.listen":    len(c.POP3S.Listen) == 0,
		"lmtp.listen":     len(c.LMTP.Listen) == 0,
		"tls.certificate": len(c.TLS.Certificate) == 0,
		"tls.key":         len(c.TLS.Key) == 0,
	} {
		if !empty && !c.Source(key).IsDefault() {
			unserved = append(unserved, key)
		}
	}
	if len(unserved) > 0 {
		slices.Sort(unserved)
		d.log.Warn("set, but without effect: this version serves neither TLS nor LMTP", "keys", strings.Join(unserved, " "))
	}
	if n := d.users.Plain(); n > 0 {
		d.log.Warn("whoever can read the users file can read passwords in it: {PLAIN}, or one of its other names; only APOP and CRAM-MD5 need that; to change one: dewey user passwd NAME",
			"users", n)
	}
	switch c.Login.Plaintext {
	case config.PlaintextNever:
		d.log.Warn("nobody can log in: login.plaintext is never, and this version has no TLS")
	case config.PlaintextLoopback:
		if slices.ContainsFunc(c.POP3.Listen, reachable) {
			d.log.Warn("only this machine can log in: login.plaintext is loopback, and this version has no TLS")
		}
	}
}

// reachable tells whether an address can be reached from another machine, as far as one can see.
func reachable(address string) bool {
	host, _, err := net.SplitHostPort(address)
	if err != nil || host == "localhost" {
		return false
	}
	ip, err := netip.ParseAddr(host)
	return err != nil || !ip.IsLoopback()
}

// bind binds the addresses of pop3.listen, or takes the sockets that systemd has bound.
func (d *daemon) bind() error {
	var err error
	if d.passed, err = activated(); err != nil {
		return err
	}
	if len(d.passed) > 0 {
		if !d.config.Source("pop3.listen").IsDefault() {
			d.log.Warn("pop3.listen is without effect: systemd passed the sockets")
		}
		return nil
	}
	if len(d.config.POP3.Listen) == 0 {
		return errors.New("pop3.listen: is empty, so there is nothing to serve; write host:port, such as 127.0.0.1:1110")
	}
	d.bound, err = listenAll("pop3.listen", d.config.POP3.Listen)
	return err
}

// listeners are all that are served, in the order of their addresses.
func (d *daemon) listeners() []net.Listener {
	list := slices.Clone(d.passed)
	for _, l := range d.bound {
		list = append(list, l)
	}
	slices.SortFunc(list, func(a, b net.Listener) int { return strings.Compare(a.Addr().String(), b.Addr().String()) })
	return list
}

// serve starts to serve a listener. Whoever closes it ends that.
func (d *daemon) serve(l net.Listener) {
	d.log.Info("listening", "key", "pop3.listen", "address", l.Addr().String())
	d.serving.Go(func() {
		err := d.server.Serve(l)
		if errors.Is(err, pop3server.ErrServerClosed) || errors.Is(err, net.ErrClosed) {
			return
		}
		select {
		case d.failed <- fmt.Errorf("serve %s: %w", l.Addr(), err):
		default: // one failure is enough to end
		}
	})
}

// status is what `systemctl status` shows.
func (d *daemon) status() string {
	var at []string
	for _, l := range d.listeners() {
		at = append(at, l.Addr().String())
	}
	return "POP3 on " + strings.Join(at, ", ")
}

// loop does what signals say until the server has ended. The watchdog's ticks come from here: a
// manager that hears none knows that signals are not heard either.
func (d *daemon) loop() error {
	ticks, stop := d.manager.watchdog()
	defer stop()
	var ended chan struct{} // not nil: ending
	var hurry context.CancelFunc
	defer func() {
		if hurry != nil {
			hurry()
		}
	}()
	for {
		select {
		case <-ticks:
			d.manager.alive()
		case sig := <-d.signals:
			switch {
			case sig == syscall.SIGHUP && ended == nil:
				d.reload()
			case sig == syscall.SIGHUP:
			case ended == nil:
				d.log.Info("ending: waiting for sessions", "signal", sig.String(), "grace", d.grace)
				d.manager.stopping()
				ended, hurry = d.end()
			default:
				d.log.Warn("ending at once", "signal", sig.String())
				signal.Reset(syscall.SIGTERM, syscall.SIGINT) // a third one needs no help of ours
				hurry()
			}
		case err := <-d.failed:
			_ = d.server.Close() // its only error would be told after this one
			return err
		case <-ended:
			d.log.Info("ended")
			return nil
		}
	}
}

// end lets sessions end for the time of grace and closes what is left then, or once hurry is called.
func (d *daemon) end() (ended chan struct{}, hurry context.CancelFunc) {
	ctx, hurry := context.WithTimeout(context.Background(), d.grace)
	ended = make(chan struct{})
	d.serving.Go(func() {
		defer close(ended)
		if err := d.server.Shutdown(ctx); err == nil {
			return
		}
		d.log.Warn("closing the sessions that are left")
		if err := d.server.Close(); err != nil {
			d.log.Error("close", "error", err)
		}
	})
	return ended, hurry
}
