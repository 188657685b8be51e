package main

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"log/slog"
	"maps"
	"net"
	"os"
	"os/signal"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"dewey/auth"
	"dewey/certificate"
	"dewey/config"
	"dewey/history"
	"dewey/internal/confine"
	"dewey/internal/proxyheader"
	"dewey/lmtp"
	"dewey/maildrop"
	"dewey/pop3server"
	"dewey/recipients"
	"dewey/store/maildir"
)

// A daemon is `dewey serve` while it runs. One goroutine, that of run, uses its fields.
type daemon struct {
	log     *slog.Logger
	load    func() (*config.Config, error)
	file    string // of the configuration; empty: none
	grace   time.Duration
	signals <-chan os.Signal
	manager manager
	confine func(confine.Cage) (int, error) // nil: the process is not ours to confine

	started      *config.Config // what it was started with: where users and mail are
	config       *config.Config // what is in effect for the rest
	users        *backends
	confined     bool  // by Landlock
	lessened     bool  // what it starts now has not the rights that it had at its start
	reach        reach // of the backends; if confined, of the process
	certificates *certificate.Keeper
	throttle     *auth.Throttle
	proxies      atomic.Pointer[proxyheader.Proxies]
	current      atomic.Pointer[config.Config] // what is in effect, for other goroutines
	reloaded     chan struct{}                 // tells the night's work of it
	mail         *maildir.Store
	server       *pop3server.Server
	history      *history.Recorder
	recipients   *recipients.Resolver
	lmtp         *lmtp.Server
	bound        map[spot]net.Listener // those of the configuration
	passed       map[spot]net.Listener // by systemd: their doors have no others
	challenges   net.Listener          // where ACME's are answered; nil without ACME
	serving      sync.WaitGroup
	failed       chan error // from a listener that could not be served
}

// run serves until a signal ends it. An error is one line for the administrator.
func (d *daemon) run() error {
	if err := d.prepare(); err != nil {
		return err
	}
	if err := d.bind(); err != nil {
		return err
	}
	// Keys may be root's to read. What dewey makes itself is made by whom it becomes, in his folder.
	steps := []func() error{d.drop, d.certify, d.cage}
	if len(d.config.TLS.Certificate) > 0 || d.config.TLS.ClientCA != "" {
		steps = []func() error{d.certify, d.drop, d.cage}
	}
	for _, step := range steps {
		if err := step(); err != nil {
			return err
		}
	}
	defer d.record()()
	d.failed = make(chan error, 1)
	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	d.serving.Go(func() {
		if err := d.certificates.Run(ctx); err != nil && ctx.Err() == nil {
			d.log.Error("certificates are no longer looked after", "error", err)
		}
	})
	for s, l := range d.listeners() {
		d.serve(s, l)
	}
	nights, dawn := context.WithCancel(ctx)
	defer dawn()
	d.serving.Go(func() { d.night().run(nights) })
	d.manager.ready(d.status())
	err := d.loop(dawn)
	stop()
	d.serving.Wait()
	d.users.closing()
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
	key, err := loginKey(c.Data)
	if err != nil {
		return err
	}
	if d.users, err = openBackends(c, key, d.log); err != nil {
		return err
	}
	if err := d.users.current().start(context.Background(), opened{}); err != nil {
		return err
	}
	d.reach = d.users.current().reach
	if d.recipients, err = openRecipients(c, d.users, d.log); err != nil {
		return err
	}
	d.current.Store(c)
	d.mail = maildir.New(maildir.Options{Path: maildirOf(c), Logger: d.log, Quota: func() maildrop.Quota { return quotaOf(d.current.Load()) }})
	d.lmtp = &lmtp.Server{Recipients: resolve(d.recipients), Mail: d.mail, Logger: d.log}
	if err := d.lmtp.Reconfigure(mailSettings(c)); err != nil { // checks them
		return fmt.Errorf("settings: %w", err)
	}
	d.throttle = auth.NewThrottle(limits(c))
	d.takeProxies(c)
	d.history = history.New(history.Options{Dir: historyDir(c), Keep: c.History.Keep, Logger: d.log})
	d.server = &pop3server.Server{
		Users:     d.users,
		Maildrops: d.mail,
		Settings:  settings(c),
		Logger:    d.log,
		Throttle:  d.throttle,
		Hooks:     d.history.Hooks(pop3server.Hooks{}),
		Wrap: func(ctx context.Context, c net.Conn) (net.Conn, error) {
			return d.proxies.Load().Wrap(ctx, c) //nolint:wrapcheck // says all
		},
		View: func(ctx context.Context, name string) (string, maildrop.View) {
			return viewOf(ctx, name, &d.current.Load().Mail, d.users)
		},
	}
	d.warn(c)
	return nil
}

// certify opens the certificates, which needs the rights that the process has at start.
func (d *daemon) certify() error {
	var err error
	if d.certificates, err = openCertificates(d.config, d.challenges, d.log); err != nil {
		return err
	}
	for _, i := range d.certificates.Describe() {
		d.log.Info("certificate", "names", strings.Join(i.Names, " "), "file", i.File, "self_made", i.SelfMade,
			"not_after", i.NotAfter.UTC().Format(time.DateOnly), "sha256", i.Fingerprint)
	}
	d.server.TLS = d.certificates.TLS()
	if d.config.TLS.ClientCA != "" {
		d.server.Certified = func(c *x509.Certificate) (string, error) { return certificate.Name(d.started.TLS.ClientName, c) }
	}
	if err := d.server.Reconfigure(settings(d.config)); err != nil { // checks them
		return fmt.Errorf("settings: %w", err)
	}
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

// settings turns the configuration into the server's words.
func settings(c *config.Config) pop3server.Settings {
	s := pop3server.Settings{
		Hostname:           c.Hostname,
		Plaintext:          plaintext[c.Login.Plaintext],
		NoUserPass:         !c.Login.UserPass,
		Mechanisms:         c.Login.Mechanisms,
		IdleTimeout:        c.Login.IdleTimeout,
		LoginTimeout:       c.Login.TimeLimit,
		LoginDelay:         c.Login.Delay.Truncate(time.Second),
		FailureDelay:       c.Login.FailureDelay,
		MaxAttempts:        c.Login.MaxAttempts,
		MaxConnections:     c.Login.MaxConnections,
		MaxUnauthenticated: c.Login.MaxUnauthenticated,
		MaxPerUser:         c.Login.MaxPerUser,
		MaxPerAddress:      c.Login.MaxPerAddress,
		Trusted:            c.Login.TrustedNetworks,
		Language:           c.POP3.Language,
		Life:               lifeOf(c),
	}
	if c.POP3.ShowVersion {
		s.Implementation = "dewey-" + shortVersion()
	}
	return s
}

// limits are what the throttle goes by. Who sets a shorter delay for one failure, and says nothing of several,
// wants shorter ones for those too.
func limits(c *config.Config) auth.Limits {
	most := c.Login.MaxDelay
	if c.Source("login.max_delay").IsDefault() {
		most = min(most, 8*c.Login.FailureDelay)
	}
	return auth.Limits{MaxDelay: most, Trusted: c.Login.TrustedNetworks}
}

func (d *daemon) takeProxies(c *config.Config) {
	proxies := proxyheader.Proxies(c.Login.ProxyNetworks)
	d.proxies.Store(&proxies)
}

var tlsVersions = map[string]uint16{config.TLS12: tls.VersionTLS12, config.TLS13: tls.VersionTLS13}

var plaintext = map[string]pop3server.Plaintext{
	config.PlaintextNever:    pop3server.PlaintextNever,
	config.PlaintextLoopback: pop3server.PlaintextLoopback,
	config.PlaintextAlways:   pop3server.PlaintextAlways,
}

// bind binds the addresses of each door, or takes the sockets that systemd has bound for it.
func (d *daemon) bind() error {
	var err error
	if d.passed, err = activated(); err != nil {
		return err
	}
	for _, door := range doors {
		if d.has(door) && !d.config.Source(door.key).IsDefault() {
			d.log.Warn(door.key + " is without effect: systemd passed the sockets")
		}
	}
	must, may := d.spots(d.config)
	if d.bound, err = listenAll(must, d.config); err != nil {
		return err
	}
	for _, s := range may {
		if l, err := listen(s.key, s.address, socketRights{}); err == nil {
			d.bound[s] = l
		} else {
			d.log.Warn("not served", "error", err)
		}
	}
	if len(d.bound)+len(d.passed) == 0 {
		return errors.New("pop3.listen: is empty, and so are pop3s.listen and lmtp.listen: there is nothing to serve; write host:port, such as 127.0.0.1:1110")
	}
	if len(d.config.TLS.ACMEDomains) > 0 {
		d.challenges, err = listen("tls.acme_listen", d.config.TLS.ACMEListen[0], socketRights{})
	}
	return err
}

// spots are those that a configuration asks for, and those that it may have if they are free: the default of
// pop3s.listen where pop3.listen is not the default, since two servers on one machine may be told apart by
// that alone. Where systemd passed sockets no default counts.
func (d *daemon) spots(c *config.Config) (must, may []spot) {
	for _, door := range doors {
		byDefault := c.Source(door.key).IsDefault()
		if d.has(door) || byDefault && len(d.passed) > 0 {
			continue
		}
		list := &must
		if byDefault && door.key == "pop3s.listen" && !c.Source("pop3.listen").IsDefault() {
			list = &may
		}
		for _, address := range door.listen(c) {
			*list = append(*list, spot{door.key, address})
		}
	}
	return must, may
}

// has says that systemd passed sockets for a door.
func (d *daemon) has(door door) bool {
	for s := range d.passed {
		if s.key == door.key {
			return true
		}
	}
	return false
}

// listeners are all that are served, in the order of doors and addresses.
func (d *daemon) listeners() iter.Seq2[spot, net.Listener] {
	all := maps.Clone(d.passed)
	maps.Copy(all, d.bound)
	spots := slices.SortedFunc(maps.Keys(all), func(a, b spot) int {
		return cmp.Or(strings.Compare(a.key, b.key), strings.Compare(all[a].Addr().String(), all[b].Addr().String()))
	})
	return func(yield func(spot, net.Listener) bool) {
		for _, s := range spots {
			if !yield(s, all[s]) {
				return
			}
		}
	}
}

// serve starts to serve a listener. Whoever closes it ends that.
func (d *daemon) serve(s spot, l net.Listener) {
	d.log.Info("listening", "key", s.key, "address", l.Addr().String())
	door := doors[slices.IndexFunc(doors, func(d door) bool { return d.key == s.key })]
	d.serving.Go(func() {
		err := door.serve(d, l)
		if errors.Is(err, pop3server.ErrServerClosed) || errors.Is(err, lmtp.ErrServerClosed) || errors.Is(err, net.ErrClosed) {
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
	for s, l := range d.listeners() {
		name, _, _ := strings.Cut(s.key, ".")
		at = append(at, name+" on "+l.Addr().String())
	}
	return strings.Join(at, ", ")
}

// loop does what signals say until the server has ended; ending is called when that begins. The watchdog's ticks come
// from here: a manager that hears none knows that signals are not heard either.
func (d *daemon) loop(ending func()) error {
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
				ending()
				ended, hurry = d.end()
			default:
				d.log.Warn("ending at once", "signal", sig.String())
				signal.Reset(syscall.SIGTERM, syscall.SIGINT) // a third one needs no help of ours
				hurry()
			}
		case err := <-d.failed:
			_ = errors.Join(d.lmtp.Close(), d.server.Close()) // their errors would be told after this one
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
		var mail error
		var both sync.WaitGroup
		both.Go(func() { mail = d.lmtp.Shutdown(ctx) })
		err := d.server.Shutdown(ctx)
		if both.Wait(); err != nil || mail != nil {
			d.log.Warn("closing the sessions that are left")
			if err := errors.Join(d.lmtp.Close(), d.server.Close()); err != nil {
				d.log.Error("close", "error", err)
			}
		}
		if err := d.mail.Finish(ctx); err != nil {
			d.log.Warn("ending before all is done: the next session does it", "error", err)
		}
	})
	return ended, hurry
}
