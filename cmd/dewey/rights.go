package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"dewey/certificate"
	"dewey/config"
	"dewey/internal/confine"
)

// openCertificates reads the certificates, or makes one.
func openCertificates(c *config.Config, challenges net.Listener, log *slog.Logger) (*certificate.Keeper, error) {
	o := certificate.Options{
		SelfDir:    filepath.Join(c.Data, "tls"),
		Hostname:   c.Hostname,
		ClientCA:   c.TLS.ClientCA,
		MinVersion: tlsVersions[c.TLS.MinVersion],
		Logger:     log,
	}
	for i, name := range c.TLS.Certificate {
		o.Pairs = append(o.Pairs, certificate.Pair{Certificate: name, Key: c.TLS.Key[i]})
	}
	if challenges != nil {
		o.ACME = &certificate.ACME{
			Domains:   c.TLS.ACMEDomains,
			Email:     c.TLS.ACMEEmail,
			Directory: c.TLS.ACMEDirectory,
			Roots:     c.TLS.ACMERoots,
			Dir:       filepath.Join(c.Data, "acme"),
			Listener:  challenges,
		}
	}
	k, err := certificate.Open(o)
	if err != nil {
		return nil, tlsErrors(err)
	}
	return k, nil
}

// tlsErrors says of each error of the certificates, which names its file, where in the configuration to look.
func tlsErrors(err error) error {
	if several, ok := err.(interface{ Unwrap() []error }); ok { //nolint:errorlint // not as a whole, but its parts
		var all []error
		for _, e := range several.Unwrap() {
			all = append(all, tlsErrors(e))
		}
		return errors.Join(all...)
	}
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("tls: %w; name files that are there in tls.certificate, tls.key and tls.client_ca", err)
	}
	return fmt.Errorf("tls: %w", err)
}

// keySize is the octets of the file login-key.
const keySize = 32

// loginKey reads the key with which answers to unknown users are made up, so that they stay the same after a
// restart; it makes one at first start.
func loginKey(folder string) ([]byte, error) {
	name := filepath.Join(folder, "login-key")
	key, err := os.ReadFile(name)
	switch {
	case err == nil && len(key) != keySize:
		return nil, fmt.Errorf("%s: has %d octets, not %d; remove it, and a new one is made", name, len(key), keySize)
	case err == nil:
		return key, nil
	case !errors.Is(err, fs.ErrNotExist):
		return nil, fmt.Errorf("data: %w", err)
	}
	key = make([]byte, keySize)
	_, _ = rand.Read(key) // never fails
	if err := replaceFile(name, key); err != nil {
		return nil, fmt.Errorf("data: %w", err)
	}
	return key, nil
}

// drop gives up the rights that are no longer needed, now that ports are bound.
func (d *daemon) drop() error {
	switch {
	case d.confine == nil:
		return nil
	case d.config.Process.User != "":
		return d.become(d.config)
	case os.Geteuid() == 0:
		d.log.Warn("running as root; process.user would name whom to become once the ports are bound")
	}
	d.seal()
	return nil
}

func (d *daemon) seal() {
	if err := confine.Seal(); err != nil {
		d.log.Log(context.Background(), unconfined(err), "rights could not be given up", "error", err)
	} else {
		d.lessened = os.Geteuid() != 0 // no set-user-ID program helps what it starts
	}
}

// become makes the process that of process.user, who owns what is kept in the data folder.
func (d *daemon) become(c *config.Config) error {
	if os.Geteuid() != 0 {
		d.log.Warn("process.user is without effect: dewey was not started as root")
		d.seal()
		return nil
	}
	who, err := confine.LookUp(c.Process.User, c.Process.Group)
	if err != nil {
		return fmt.Errorf("process.user: %w", err)
	}
	ours := []string{c.Data, filepath.Join(c.Data, "login-key"), sweptFile(c), filepath.Join(c.Data, "tls"), filepath.Join(c.Data, "acme"), historyDir(c)}
	if c.Source("users.file").IsDefault() {
		ours = append(ours, c.UsersFile())
	}
	for _, name := range ours {
		if err := own(who, name); err != nil {
			return fmt.Errorf("process.user: %w", err)
		}
	}
	if err := who.Become(); err != nil {
		return fmt.Errorf("process.user: %w", err)
	}
	d.lessened = true
	if err := makeData(c.Data); err != nil {
		return fmt.Errorf("process.user: as %s: %w", c.Process.User, err)
	}
	if err := d.users.reload(); err != nil {
		return fmt.Errorf("process.user: %s must be able to read the users: %w", c.Process.User, err)
	}
	if err := d.recipients.Reload(); err != nil {
		return fmt.Errorf("process.user: %s must be able to read the aliases: %w", c.Process.User, err)
	}
	d.log.Info("rights given up", "user", c.Process.User)
	return nil
}

// own gives a file or folder, and all that is in it, to who, if it is root's.
func own(who confine.Who, name string) error {
	if !slices.Contains([]string{"tls", "acme", "history"}, filepath.Base(name)) {
		return ignoreMissing(who.Own(name))
	}
	return ignoreMissing(filepath.WalkDir(name, func(path string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		return who.Own(path) //nolint:wrapcheck // says all
	}))
}

func ignoreMissing(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// cage keeps the process in the folders that the configuration names.
func (d *daemon) cage() error {
	c := d.config
	if d.confine == nil || c.Process.Landlock == config.LandlockOff {
		return nil
	}
	must := c.Process.Landlock == config.LandlockRequired
	root, ok := maildirRoot(c)
	if !ok {
		if must {
			return errors.New("process.landlock: maildir.path begins with {home}, which may be anywhere; write off, or a path")
		}
		d.log.Warn("not confined by Landlock: maildir.path begins with {home}, which may be anywhere")
		return nil
	}
	// The zones of the clock; of /proc, whether the process lives that has locked a uid list; the names of users and
	// groups, of lmtp.socket_group say, at a reload.
	read := []string{"/etc/localtime", "/usr/share/zoneinfo", "/proc", "/etc/passwd", "/etc/group"}
	if d.challenges != nil { // ports of any kind, at any host
		d.reach.any, d.reach.names = true, true
	}
	if d.reach.names { // names of hosts are looked up, and certificates are checked
		read = append(read, "/etc/resolv.conf", "/etc/hosts", "/etc/nsswitch.conf", "/etc/ssl", "/etc/pki", "/usr/share/ca-certificates", "/usr/local/share/ca-certificates")
	}
	read = append(read, d.reach.read...)
	files := slices.Concat([]string{c.AliasesFile(), c.TLS.ClientCA, c.TLS.ACMERoots, d.file}, c.TLS.Certificate, c.TLS.Key, d.users.secretFiles())
	for _, f := range files {
		if f != "" {
			read = append(read, confine.Folders(f)...)
		}
	}
	write := []string{c.Data, root}
	for _, address := range c.LMTP.Listen { // the socket is removed at the end
		if path, ok := strings.CutPrefix(address, config.UnixPrefix); ok {
			write = append(write, filepath.Dir(path))
		}
	}
	d.reach.read = existing(slices.Concat(read, write)...)
	abi, err := d.confine(confine.Cage{Read: read, Write: write, Connect: d.reach.ports, AnyConnect: d.reach.any})
	switch {
	case err != nil && must:
		return fmt.Errorf("process.landlock: %w", err)
	case abi == 0 && must:
		return errors.New("process.landlock: is required, and this kernel has none")
	case err != nil:
		d.log.Log(context.Background(), unconfined(err), "not confined by Landlock", "error", err)
	case abi == 0:
		d.log.Info("not confined by Landlock: this kernel has none")
	default:
		d.confined, d.lessened = true, true
		d.log.Debug("confined by Landlock", "version", abi)
	}
	return nil
}

// unconfined is how loud it is to be said that rights could not be given up: who builds with cgo, for the race
// detector, knows it.
func unconfined(err error) slog.Level {
	if errors.Is(err, confine.ErrCgo) {
		return slog.LevelDebug
	}
	return slog.LevelWarn
}

// maildirRoot is the folder that all Maildirs are in, as far as it exists; false if they may be anywhere.
func maildirRoot(c *config.Config) (string, bool) {
	path := strings.ReplaceAll(c.Maildir.Path, "{data}", c.Data)
	if before, _, found := strings.Cut(path, "{"); found {
		path = before
	}
	if path == "" {
		return "", false
	}
	for path = filepath.Dir(path + "x"); ; path = filepath.Dir(path) {
		if fi, err := os.Stat(path); err == nil && fi.IsDir() {
			return path, true
		}
	}
}
