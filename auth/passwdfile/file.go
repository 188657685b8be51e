package passwdfile

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/netip"
	"slices"
	"sync/atomic"
	"time"

	"dewey/auth"
	"dewey/auth/scheme"
)

// DefaultScheme is what new passwords are hashed with if no scheme is named.
const DefaultScheme = scheme.Default

// Schemes returns the names of the schemes that a users file may have, the default first, and of
// those that Options have to allow.
func Schemes() (strong, weak []string) {
	strong = scheme.Strong.Names()
	return strong, scheme.All.Names()[len(strong):]
}

// Options say how a File works, and what Add, SetPassword, Remove and List take.
type Options struct {
	Logger *slog.Logger // nil: nothing is logged. Passwords and hashes never are.
	Weak   bool         // whether weak schemes are taken; without it they are errors of their lines

	// Remember is how long a password that was found right need not be hashed again; 0: it is each time.
	Remember time.Duration
	// Others says that there are other users elsewhere: while there has been no file, and its folder is there, nobody is a
	// user of it, and Recipient says so.
	Others bool
	// Key, of 32 octets, makes what unknown names are shown the same after a restart. Nil: a random one.
	Key []byte
}

func (o Options) set() scheme.Set {
	if o.Weak {
		return scheme.All
	}
	return scheme.Strong
}

// A File is a users file that answers logins. Many goroutines may use it at once.
type File struct {
	path   string
	others bool
	set    scheme.Set
	log    *slog.Logger

	state   atomic.Pointer[state]
	reading chan struct{} // holds one token; who reads the file takes it
	begun   atomic.Uint64 // reads that were begun, so that those who wait share one
	opened  time.Time
	looked  atomic.Int64 // when the state was last found to be the file's: a time.Duration from opened

	hashing  *scheme.Workers
	verified *auth.Verified
	key      []byte // of all that is made up: see digest
	decoy    scheme.Hash

	now func() time.Time
	ran func(scheme.Hash) // for tests: called for each hash that is run, by its worker
}

// state is what was found at the last look at the file. It is never changed.
type state struct {
	table *table // of the last version that could be read
	seen  stamp  // of the version last looked at, with errors or not
	sum   [sha256.Size]byte
	read  bool  // some version was read: the file existed
	racy  bool  // the file was so young that a later change may bear the same stamp: look again
	err   error // of the version last looked at
}

var (
	errRejected = fmt.Errorf("passwdfile: %w", auth.ErrRejected)
	errUnknown  = fmt.Errorf("passwdfile: %w", auth.ErrUnknownUser)
	errFaulty   = errors.New("the user's line has an error, which was logged when the file was read")
	errVanished = errors.New("the users file has vanished; to put it back, even empty, would be right")
)

// remembered is how many users' passwords are remembered at once.
const remembered = 1 << 16

const keySize = 32

// Open reads a users file. One that does not exist has no users until it appears. If it has errors,
// all are returned at once (errors.Join), each with path, line, what is wrong and what would be right, beside a
// File that has the users of the other lines; nil if the file could not be read.
func Open(path string, opts Options) (*File, error) {
	if opts.Key != nil && len(opts.Key) != keySize {
		return nil, fmt.Errorf("passwdfile: a key of %d octets; %d would be right", len(opts.Key), keySize)
	}
	f := &File{
		path:     path,
		others:   opts.Others,
		set:      opts.set(),
		log:      opts.Logger,
		reading:  make(chan struct{}, 1),
		hashing:  scheme.NewWorkers(),
		verified: auth.NewVerified(remembered, opts.Remember),
		key:      slices.Clone(opts.Key),
		decoy:    scheme.Decoy(),
		opened:   time.Now(),
		now:      time.Now,
	}
	if f.key == nil {
		f.key = make([]byte, keySize)
		_, _ = rand.Read(f.key) // never fails
	}
	if f.log == nil {
		f.log = slog.New(slog.DiscardHandler)
	}
	f.state.Store(&state{table: &table{set: f.set}})
	err := f.Reload()
	if failed(err) {
		return nil, err
	}
	return f, err
}

// CheckPassword implements auth.PasswordChecker. The name is looked up as it is, then in ASCII lower
// case; the Identity has it as in the file.
//
// All refusals wrap auth.ErrRejected, and that of a name that is not in the file auth.ErrUnknownUser too; otherwise they
// read the same. Each try runs one hash, whatever comes of it: for an unknown or locked name that of some other user,
// always the same for the same name, so that unknown names take as long as known ones (trap 42). Only a password that was
// found right within Options.Remember runs none; a failure of its user, or any change of the file, ends that.
//
// Fewer hashes run at once than there are processors, and fewer still if they are large; a try waits for
// its turn, which goes round between networks, until ctx ends.
//
// An error that does not wrap auth.ErrRejected means that it could not tell: ctx ended, the file existed
// once and has vanished, or the line of this user has an error. If the file changes into one with errors
// they are logged, and the other lines count: who was removed is out. If it cannot be read, the last
// version that could be holds.
func (f *File) CheckPassword(ctx context.Context, a auth.Attempt) (auth.Identity, error) {
	st, err := f.current(ctx)
	if err != nil {
		return auth.Identity{}, fmt.Errorf("passwdfile: %w", err)
	}
	e, known, err := st.table.login(a.User)
	if err != nil {
		return auth.Identity{}, fmt.Errorf("passwdfile: %w", err)
	}
	h := f.stranger(st.table, a.User) // also if the name is known: it takes time
	refusal := errUnknown
	if known {
		refusal = errRejected
		own, err := f.set.Parse(e.secret)
		if err != nil {
			return auth.Identity{}, fmt.Errorf("passwdfile: %w", err)
		}
		if own.Locked() {
			known = false
		} else {
			h = own
		}
	}
	admitted := known && e.extra.admits(a.Remote)
	// Whom it does not help runs the hash, or the time would tell that his password is right.
	if h.Threads > 0 && f.verified.Has(e.name, e.secret, a.Password) && admitted {
		return e.identity(), nil
	}
	fits := false
	err = f.run(ctx, a.Remote, h, func() error {
		fits = h.Verify(a.Password)
		return nil
	})
	switch {
	case err != nil:
		return auth.Identity{}, fmt.Errorf("passwdfile: %w", err)
	case known && !fits:
		f.verified.Forget(e.name)
		return auth.Identity{}, refusal
	case !fits || !admitted:
		return auth.Identity{}, refusal
	}
	if h.Threads > 0 {
		f.verified.Remember(e.name, e.secret, a.Password)
	}
	return e.identity(), nil
}

// Plain returns how many users have a password that can be read in the file.
func (f *File) Plain() int { return f.state.Load().table.plain }

// stranger returns the hash that an unknown name runs: over all names, the same mix of costs as that
// of the known ones, and hardly another for one name when users come and go (see race).
func (f *File) stranger(t *table, name string) scheme.Hash {
	name = auth.Lower(name)
	best, most := (*borrowed)(nil), 0.0
	for cost, b := range t.costs {
		if score := f.race(b.users, "stranger", cost.String(), name); score > most {
			best, most = b, score
		}
	}
	if best == nil {
		return f.decoy
	}
	h, err := f.set.Parse(t.at(best.offset).secret)
	if err != nil {
		return f.decoy
	}
	return h
}

// run has a hash computed when its turn has come.
func (f *File) run(ctx context.Context, remote netip.Addr, h scheme.Hash, compute func() error) error {
	return f.hashing.Run(ctx, remote, h, func() error { //nolint:wrapcheck // the caller's own, or compute's
		if f.ran != nil {
			f.ran(h)
		}
		return compute()
	})
}

// Reload reads the file now, changed or not. It returns the errors of the file, all at once, or why
// it could not be read; see CheckPassword for what holds then.
func (f *File) Reload() error {
	f.reading <- struct{}{}
	defer func() { <-f.reading }()
	return f.read().err // who called tells it, so it is not logged
}

// current returns the state of the file as it is, which a stat proves.
func (f *File) current(ctx context.Context) (*state, error) {
	begun, now := f.begun.Load(), time.Since(f.opened)
	st := f.state.Load()
	if seen, err := stat(f.path); err == nil && seen == st.seen && !st.racy {
		f.looked.Store(int64(now))
		return st, st.usable()
	}
	select {
	case f.reading <- struct{}{}:
		defer func() { <-f.reading }()
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	if f.begun.Load() > begun { // a read that began after we asked serves us too
		st = f.state.Load()
	} else {
		old := f.state.Load()
		st = f.read()
		if st.err != nil && (st.sum != old.sum || old.err == nil || st.err.Error() != old.err.Error()) {
			for _, one := range each(st.err) { // once for each version of the file
				f.log.Error("users file", "error", one)
			}
		}
	}
	return st, st.usable()
}

// usable says whether logins can be answered.
func (st *state) usable() error {
	if errors.Is(st.err, errVanished) {
		return st.err
	}
	return nil
}

// read looks at the file and makes what it finds the state. Who calls it holds the token of reading,
// and logs or returns the errors.
func (f *File) read() *state {
	f.begun.Add(1)
	old := f.state.Load()
	next := &state{table: old.table, sum: old.sum, read: old.read}
	text, seen, err := readFile(f.path)
	next.seen = seen
	switch {
	case errors.Is(err, fs.ErrNotExist):
		if old.read {
			next.err = fmt.Errorf("%s: %w", f.path, errVanished)
		}
		next.seen = stamp{}
	case err != nil: // perhaps a passing one, too many open files: try again at the next login
		next.err = err
		next.racy = true
	default:
		next.racy = seen.young(f.now())
		next.sum = sha256.Sum256([]byte(text))
		next.read = true
		if old.read && next.sum == old.sum && !failed(old.err) {
			next.err = old.err
			break
		}
		next.table, next.err = parse(f.path, text, f.set)
		f.log.Info("users file read", "path", f.path, "users", len(next.table.index), "lines_with_errors", next.err != nil)
		if seen.mode&0o004 != 0 {
			f.log.Warn("users file can be read by everybody; mode 0600 would be right", "path", f.path)
		}
	}
	f.state.Store(next)
	if next.table != old.table {
		f.verified.Clear()
	}
	return next
}

// failed says that err is no finding about the file's text, but that it could not be read.
func failed(err error) bool {
	_, joined := err.(interface{ Unwrap() []error })
	return err != nil && !joined
}

// each returns the errors that were joined, or the one.
func each(err error) []error {
	if many, ok := err.(interface{ Unwrap() []error }); ok {
		return many.Unwrap()
	}
	return []error{err}
}
