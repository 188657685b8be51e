package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"slices"
	"strings"
	"syscall"

	"dewey/config"
)

// restart lists the keys that a running server keeps: sessions hold locks where the mail is, users
// whose file was exchanged under them would be other people, and rights that were dropped are gone.
var restart = []string{
	"data", "users.file", "users.weak_schemes", "recipients.aliases", "maildir.path", "login.remember", "history.keep",
	"lmtp.socket_mode", "lmtp.socket_user", "lmtp.socket_group",
	"tls.certificate", "tls.key", "tls.min_version", "tls.client_ca", "tls.client_name",
	"tls.acme_domains", "tls.acme_email", "tls.acme_directory", "tls.acme_roots", "tls.acme_listen",
	"process.user", "process.group", "process.landlock",
}

// reload reads users and configuration again. What is wrong is logged. Of the users the lines without
// errors count, a configuration counts as a whole or not at all.
func (d *daemon) reload() {
	d.manager.reloading()
	defer func() { d.manager.ready(d.status()) }()
	d.log.Info("reloading")
	if err := d.users.reload(); err != nil {
		logLines(d.log, "users file has errors", err)
	}
	if err := d.recipients.Reload(); err != nil {
		logLines(d.log, "aliases stay as they were", err)
	}
	if err := d.certificates.Reload(); err != nil {
		logLines(d.log, "certificates stay as they were", err)
	}
	c, err := d.load()
	if err != nil {
		logLines(d.log, "configuration stays as it was", err)
		return
	}
	if err := d.apply(c); err != nil {
		logLines(d.log, "configuration stays as it was", err)
		return
	}
	d.log.Info("reloaded")
}

// apply puts a new configuration into effect, or changes nothing.
func (d *daemon) apply(c *config.Config) error {
	// The new ones are open before the old ones close: there is no moment without a listener.
	must, may := d.spots(c)
	missing := slices.DeleteFunc(slices.Clone(must), func(s spot) bool { return d.bound[s] != nil })
	fresh, err := listenAll(missing, c)
	if err != nil {
		if errors.Is(err, syscall.EADDRINUSE) && d.holdsPort(missing) {
			err = fmt.Errorf("%w; if it is dewey itself that listens there, at an address that is no longer listed: restart it", err)
		}
		return err
	}
	users, err := d.backends(c)
	if err != nil {
		closeAll(fresh)
		return err
	}
	if err := d.reconfigure(c); err != nil {
		closeAll(fresh)
		d.users.discard(users)
		_ = d.reconfigure(d.config) // was right before
		return err
	}
	d.users.take(users)
	d.throttle.Reconfigure(limits(c))
	d.takeProxies(c)
	d.current.Store(c)
	select {
	case d.reloaded <- struct{}{}:
	default: // it will look anyway
	}
	d.move(append(must, may...), fresh)
	d.rebind(c)
	d.config = c
	var late []string
	for _, key := range config.Changed(d.started, c) {
		if slices.Contains(restart, key) {
			late = append(late, key)
		}
	}
	if len(late) > 0 {
		d.log.Warn("these changes need a restart", "keys", strings.Join(late, " "))
	}
	d.warn(c)
	return nil
}

// backends opens those of a new configuration, with what a running server keeps of the old one, and with what it can
// still reach.
func (d *daemon) backends(c *config.Config) (opened, error) {
	kept := *c
	kept.Data, kept.Users, kept.Login.Remember = d.started.Data, d.started.Users, d.started.Login.Remember
	o, err := d.users.open(&kept)
	switch {
	case err == nil && d.confined:
		err = o.reach.within(d.reach)
	case d.confined && errors.Is(err, fs.ErrPermission):
		err = errors.Join(err, errors.New("auth: files that this process did not have at its start may be out of its reach (process.landlock): restart dewey"))
	}
	if err == nil {
		err = d.startable(&kept, o)
	}
	if err == nil {
		err = o.start(context.Background(), *d.users.current())
	}
	if err != nil {
		d.users.discard(o)
		return opened{}, err
	}
	return o, nil
}

// startable refuses programs that would be started with less rights than they need.
func (d *daemon) startable(c *config.Config, o opened) error {
	var errs []error
	for i, a := range c.Backends() { // in step with o.list
		if d.lessened && a.Kind == config.KindPAM && a.Socket == "" && d.users.like(o.list[i].Fingerprint) == nil {
			errs = append(errs, atTable(&a, errLessened))
		}
	}
	return errors.Join(errs...)
}

var errLessened = errors.New("dewey has given up the rights that a new dewey-pam needs: restart dewey; " +
	"run as a service of its own (socket) dewey-pam does not depend on it")

// reconfigure gives new settings to those who can refuse them.
func (d *daemon) reconfigure(c *config.Config) error {
	if err := d.recipients.Reconfigure(rules(c)); err != nil {
		return err //nolint:wrapcheck // it says where it comes from
	}
	if err := d.lmtp.Reconfigure(mailSettings(c)); err != nil {
		return err //nolint:wrapcheck // it says where it comes from
	}
	return d.server.Reconfigure(settings(c)) //nolint:wrapcheck // it says where it comes from
}

// holdsPort tells whether a listener of ours has the port of one of the spots: 127.0.0.1:110 is
// in the way of :110.
func (d *daemon) holdsPort(spots []spot) bool {
	for _, s := range spots {
		_, port, err := net.SplitHostPort(s.address)
		for _, l := range d.bound {
			if _, own, ownErr := net.SplitHostPort(l.Addr().String()); err == nil && ownErr == nil && own == port {
				return true
			}
		}
	}
	return false
}

// move serves the fresh listeners and closes those that are no longer listed. Their sessions go on.
func (d *daemon) move(listed []spot, fresh map[spot]net.Listener) {
	for s, l := range fresh {
		d.bound[s] = l
		d.serve(s, l)
	}
	for s, l := range d.bound {
		if slices.Contains(listed, s) {
			continue
		}
		delete(d.bound, s)
		d.log.Info("no longer listening", "key", s.key, "address", l.Addr().String())
		if err := l.Close(); err != nil && !errors.Is(err, net.ErrClosed) {
			d.log.Error("close listener", "address", l.Addr().String(), "error", err)
		}
	}
	if len(d.bound)+len(d.passed) == 0 {
		d.log.Warn("pop3.listen, pop3s.listen and lmtp.listen are empty: nobody can connect")
	}
}

// logLines logs each line of an error that tells of many by itself.
func logLines(log *slog.Logger, message string, err error) {
	for line := range strings.Lines(err.Error()) {
		log.Error(message, "error", strings.TrimSuffix(line, "\n"))
	}
}
