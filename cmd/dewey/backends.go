package main

import (
	"bufio"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"dewey/auth/chain"
	"dewey/auth/passwdfile"
	"dewey/auth/scheme"
	"dewey/config"
)

// backends are the [[auth]] tables at work: those of the last configuration that was taken.
type backends struct {
	*chain.Chain
	log     *slog.Logger
	key     []byte            // of what unknown names are shown; nil: a random one
	workers *scheme.Workers   // hash for all but passwd-files, which have their own
	secrets map[string]string // contents of files, as they were last read
	now     atomic.Pointer[opened]
	lenient func(error) // takes the errors of a users file of which other lines are right; nil: they are errors
}

// opened are the backends of one configuration.
type opened struct {
	list  []chain.Backend
	files []usersFile
	reach reach
}

// A usersFile is a passwd-file of the chain.
type usersFile struct {
	*passwdfile.File
	path   string
	weak   bool
	others bool // passwdfile.Options.Others
}

// newBackends makes a chain without any yet.
func newBackends(key []byte, log *slog.Logger) *backends {
	b := &backends{Chain: chain.New(log), log: log, key: key, workers: scheme.NewWorkers(), secrets: make(map[string]string)}
	b.now.Store(new(opened))
	return b
}

// current are the backends that were taken last.
func (b *backends) current() *opened { return b.now.Load() }

// openBackends makes a chain of those that a configuration lists. They are not asked anything yet.
func openBackends(c *config.Config, key []byte, log *slog.Logger) (*backends, error) {
	b := newBackends(key, log)
	o, err := b.open(c)
	if err != nil {
		return nil, err
	}
	b.take(o)
	return b, nil
}

// startBackends is openBackends for a command that asks them. A lenient one takes the errors of users files of which other
// lines are right.
func startBackends(c *config.Config, log *slog.Logger, lenient func(error)) (*backends, error) {
	b := newBackends(nil, log)
	b.lenient = lenient
	o, err := b.open(c)
	if err == nil {
		err = o.start(context.Background(), opened{})
	}
	if err != nil {
		b.discard(o)
		return nil, err
	}
	b.take(o)
	return b, nil
}

// open makes backends, or says all that is wrong. Those that are there and would be the same stay, with all that they
// know and the connections that they have.
func (b *backends) open(c *config.Config) (opened, error) {
	var o opened
	var errs []error
	for _, a := range c.Backends() {
		before := len(o.files)
		link, err := b.link(c, a, &o)
		if err != nil {
			errs = append(errs, atTable(&a, err))
			o.files = o.files[:before]
			continue
		}
		o.list = append(o.list, link)
	}
	if err := errors.Join(errs...); err != nil {
		b.discard(o)
		return opened{}, err
	}
	return o, nil
}

// atTable says of each error in which table to look. The default one has none, and its errors name their file.
func atTable(a *config.Auth, err error) error {
	if a.At().IsDefault() {
		return err
	}
	if several, ok := err.(interface{ Unwrap() []error }); ok { //nolint:errorlint // not as a whole, but its parts
		var all []error
		for _, e := range several.Unwrap() {
			all = append(all, atTable(a, e))
		}
		return errors.Join(all...)
	}
	return fmt.Errorf("%s: auth %s: %w", a.At(), a.Name, err)
}

// take puts backends into effect.
func (b *backends) take(o opened) {
	b.now.Store(&o)
	b.Replace(o.list...)
}

// discard closes backends that are not taken.
func (b *backends) discard(o opened) {
	for _, l := range o.list {
		if b.like(l.Fingerprint) == nil {
			closeUsers(l.Users)
		}
	}
}

// closeUsers closes a backend that nobody has asked anything.
func closeUsers(users any) {
	if c, ok := users.(io.Closer); ok {
		_ = c.Close()
	}
}

// like returns what answers with this fingerprint.
func (b *backends) like(fingerprint string) any {
	for _, l := range b.current().list {
		if l.Fingerprint == fingerprint {
			return l.Users
		}
	}
	return nil
}

// hashWait is how long a backend that hashes may take beyond its timeout: hashes have their turns, and in a flood those
// who are known come first. margin is that of the others, which say themselves what took too long.
const (
	hashWait = 30 * time.Second
	margin   = time.Second
)

// link makes one backend.
func (b *backends) link(c *config.Config, a config.Auth, o *opened) (chain.Backend, error) {
	link := chain.Backend{
		Name: a.Name, Kind: a.Kind, Domains: a.Domains, Timeout: a.Timeout + margin, RememberOutage: a.RememberOutage,
		Local: a.Kind == config.KindPasswdFile,
	}
	files := &fileReader{backends: b, config: c}
	build, err := makers[a.Kind](b, c, &a, files, &o.reach)
	if err == nil && len(files.errs) > 0 && build != nil { // what else is wrong
		var users any
		if users, err = build(); err == nil {
			closeUsers(users)
		}
	}
	if err := errors.Join(append(files.errs, err)...); err != nil {
		return link, err
	}
	link.Fingerprint = fmt.Sprintf("%s%x", a.Fingerprint(), files.sum())
	if a.Kind == config.KindPasswdFile {
		link.Users, err = b.usersFile(c, &a, o)
		return link, err
	}
	if a.Kind == config.KindSQL || a.Kind == config.KindLDAP && a.Mode == "lookup" {
		link.Timeout = a.Timeout + hashWait
	}
	if a.Kind == config.KindOAuth { // it asks the provider twice, and then the other backends
		link.Timeout, link.Domains = 3*a.Timeout+margin, nil
	}
	if link.Users = b.like(link.Fingerprint); link.Users == nil {
		link.Users, err = build()
	}
	return link, err
}

// usersFile opens a passwd-file, or takes the one that is open.
func (b *backends) usersFile(c *config.Config, a *config.Auth, o *opened) (*passwdfile.File, error) {
	path, weak := usersPath(c, a)
	for _, f := range b.current().files {
		if f.path == path && f.weak == weak && f.others == others(c) {
			o.files = append(o.files, f)
			return f.File, nil
		}
	}
	f, err := b.openUsers(c, a, path, weak)
	if f != nil && err != nil && b.lenient != nil {
		b.lenient(err)
		err = nil
	}
	if err != nil {
		return nil, err
	}
	o.files = append(o.files, usersFile{f, path, weak, others(c)})
	return f, nil
}

// openUsers reads a users file. Only the default one may be missing. Beside an error there is a File that has the users
// of the other lines, if there are any.
func (b *backends) openUsers(c *config.Config, a *config.Auth, name string, weak bool) (*passwdfile.File, error) {
	if _, err := os.Stat(name); errors.Is(err, fs.ErrNotExist) {
		switch at := c.Source("users.file"); {
		case a.File != "":
			return nil, fmt.Errorf("%s does not exist; make it with: dewey user add NAME --set users.file=%s", name, name)
		case !at.IsDefault():
			return nil, fmt.Errorf("users.file: %s does not exist (set by %s); make it with: dewey user add NAME", name, at)
		}
		b.log.Warn("no users yet; add one: dewey user add NAME", "file", name)
	}
	return passwdfile.Open(name, passwdfile.Options{Logger: b.log, Weak: weak, Remember: c.Login.Remember, Others: others(c), Key: b.key}) //nolint:wrapcheck // names the file and the line of each error
}

// others says that users are elsewhere too.
func others(c *config.Config) bool { return len(c.Auth) > 1 }

// usersPath says where a passwd-file is, and whether weak schemes are taken in it.
func usersPath(c *config.Config, a *config.Auth) (path string, weak bool) {
	if path = c.AuthFile(a.File); path == "" || path == c.UsersFile() {
		return c.UsersFile(), a.WeakSchemes || c.Users.WeakSchemes
	}
	return path, a.WeakSchemes
}

// readsUsers says whether users.file is a backend's.
func readsUsers(c *config.Config) bool {
	return slices.ContainsFunc(c.Backends(), func(a config.Auth) bool {
		path, _ := usersPath(c, &a)
		return a.Kind == config.KindPasswdFile && path == c.UsersFile()
	})
}

// plain counts the passwords that can be read.
func (b *backends) plain() (n int) {
	for _, f := range b.current().files {
		n += f.Plain()
	}
	return n
}

// reload reads the users files.
func (b *backends) reload() error {
	var errs []error
	for _, f := range b.current().files {
		errs = append(errs, f.Reload())
	}
	return errors.Join(errs...)
}

// users are those of the files: others can't be listed, and unlisted says of which kinds they are. Those whose lines are
// right come also with an error.
func (b *backends) users() (users []passwdfile.User, unlisted []string, err error) {
	var errs []error
	seen := make(map[string]bool)
	now := b.current()
	for _, l := range now.list {
		if l.Kind != config.KindPasswdFile && l.Kind != config.KindOAuth {
			unlisted = append(unlisted, l.Name)
		}
	}
	for _, f := range now.files {
		list, err := passwdfile.List(f.path, passwdfile.Options{Weak: f.weak})
		errs = append(errs, err)
		for _, u := range list {
			if !seen[u.Name] { // else it is the first one's
				users = append(users, u)
			}
			seen[u.Name] = true
		}
	}
	return users, unlisted, errors.Join(errs...)
}

// secretFiles are those that are read again at a reload.
func (b *backends) secretFiles() []string { return slices.Sorted(maps.Keys(b.secrets)) }

// noUser says that no backend knows a user.
func noUser(c *config.Config, user string) error {
	if len(c.Auth) == 0 {
		return fmt.Errorf("%w: %q in %s", passwdfile.ErrNoUser, user, c.UsersFile())
	}
	return fmt.Errorf("%w: %q; dewey auth test --recipient says who was asked", passwdfile.ErrNoUser, user)
}

// closing closes the backends, and logs what they have done.
func (b *backends) closing() {
	ctx, cancel := context.WithTimeout(context.Background(), closeWait)
	defer cancel()
	b.Close(ctx)
}

// closeWait is how long answers are waited for that nobody waits for any more.
const closeWait = 5 * time.Second

// maxSecret is the most octets of a file with a secret, or of one with certificates.
const maxSecret = 1 << 20

// A fileReader reads the files of a table. What can't be read any more, since rights were given up, stays as it was.
type fileReader struct {
	*backends
	config *config.Config
	errs   []error
	all    []string // names and contents of what was read
}

// text reads a whole file; "" if there is none.
func (r *fileReader) text(name string, secret bool) string {
	if name = r.config.AuthFile(name); name == "" {
		return ""
	}
	text, err := r.read(name, secret)
	old, had := r.secrets[name]
	switch {
	case err == nil:
		r.secrets[name] = text
	case had && errors.Is(err, fs.ErrPermission):
		r.log.Warn("a file can't be read any more, and stays as it was: restart dewey for a new one, or let it be read", "file", name, "error", cause(err))
		text = old
	default:
		r.errs = append(r.errs, err)
	}
	r.all = append(r.all, name, text)
	return text
}

func (r *fileReader) read(name string, secret bool) (string, error) {
	f, err := os.Open(name)
	if err != nil {
		return "", err //nolint:wrapcheck // names it
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return "", err //nolint:wrapcheck // names it
	}
	if secret && st.Mode().Perm()&0o004 != 0 {
		r.log.Warn("a file with a secret can be read by everybody; mode 0600 would be right", "file", name)
	}
	data, err := io.ReadAll(io.LimitReader(f, maxSecret+1))
	if err == nil && len(data) > maxSecret {
		err = fmt.Errorf("%s is larger than %d octets", name, maxSecret)
	}
	return string(data), err
}

// secret reads a file's first line, without its end.
func (r *fileReader) secret(name string) string {
	before := len(r.errs)
	text := r.text(name, true)
	if name == "" {
		return ""
	}
	if len(r.errs) > before {
		return "unread"
	}
	line, _ := bufio.NewReader(strings.NewReader(text)).ReadString('\n')
	line = strings.TrimSuffix(strings.TrimSuffix(line, "\n"), "\r")
	if line == "" {
		r.errs = append(r.errs, fmt.Errorf("%s: its first line is empty; the secret would be right", r.config.AuthFile(name)))
		return "unread"
	}
	return line
}

// pem reads a file with certificates; nil if there is none.
func (r *fileReader) pem(name string) []byte {
	if text := r.text(name, false); text != "" {
		return []byte(text)
	}
	return nil
}

// sum stands for all that was read.
func (r *fileReader) sum() [sha256.Size]byte {
	return sha256.Sum256([]byte(strings.Join(r.all, "\x00")))
}

// absolute is a path of the configuration from the root on.
func absolute(name string) string {
	if name == "" {
		return ""
	}
	if path, err := filepath.Abs(name); err == nil {
		return path
	}
	return name
}
