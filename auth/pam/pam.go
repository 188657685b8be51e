// Package pam proves users by the PAM of the machine. It has no C library: it asks dewey-pam, a program beside dewey
// (see docs/PAM.md), which it starts itself with the rights that the process has at its start, or which runs as a service
// of its own behind a UNIX socket.
package pam

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"dewey/auth"
)

// Config says where dewey-pam is, and who is a user.
type Config struct {
	// Helper is the path of dewey-pam, which Start starts. Empty with Socket.
	Helper string
	// Socket is that of a dewey-pam which runs as a service of its own. Then Service, MinUID, Virtual, Network and
	// ServiceFolder are its own to say, and have no effect here.
	Socket string
	// Service is PAM's, a file in /etc/pam.d. Empty: "dewey".
	Service string
	// ServiceFolder stands for /etc/pam.d; empty: that one.
	ServiceFolder string
	// Processes is how many users are proven at the same time. 0: two. With Socket it should not be more than there.
	Processes int
	// Timeout bounds every call. 0: five seconds.
	Timeout time.Duration
	// MinUID is the lowest number of a user who is one: those of the system below it are unknown. 0: 1000.
	MinUID uint
	// Virtual says that users whom getpwnam(3) does not know are users too. Then only PAM knows who is one, and only with
	// a password: Recipient and Find know nobody. With Socket it says whether dewey-pam has no -system.
	Virtual bool
	// Network lets PAM's modules use the network. Without, a dewey-pam that root starts has none.
	Network bool
	// Home stands for the home that the system has, an absolute path with {user}, {local} and {domain}. Empty: the
	// system's, if it has one.
	Home string
	// KeepCase leaves names as clients send them; else they are asked for in ASCII lower case.
	KeepCase bool
	// Logger gets what dewey-pam says. Nil: slog.Default.
	Logger *slog.Logger
}

const (
	defaultService   = "dewey"
	defaultProcesses = 2
	defaultTimeout   = 5 * time.Second
	defaultMinUID    = 1000
	mostProcesses    = 256
	maxPassword      = 511 // PAM_MAX_RESP_SIZE, less the NUL
	maxName          = 255
)

// A Backend is an auth.PasswordChecker, and knows recipients. Many goroutines may use it.
type Backend struct {
	c      Config
	slots  chan struct{} // one for each conversation
	helper *helper       // nil: with a socket

	mu     sync.Mutex
	idle   []*conn
	failed failure
	closed bool
}

var errClosed = errors.New("pam: closed")

// New checks a configuration, and says all that is wrong with it. It starts nothing and asks nobody.
func New(c Config) (*Backend, error) {
	var errs []error
	bad := func(format string, args ...any) { errs = append(errs, fmt.Errorf("pam: "+format, args...)) }
	if (c.Helper == "") == (c.Socket == "") {
		bad("a helper or a socket, one of them, says how dewey-pam is reached")
	}
	for _, path := range []string{c.Helper, c.Socket, c.ServiceFolder} {
		if path != "" && (!filepath.IsAbs(path) || strings.ContainsRune(path, 0)) {
			bad("%q is not absolute; /usr/libexec/dewey/dewey-pam is", path)
		}
	}
	if strings.ContainsAny(c.Service, "/\x00") || strings.HasPrefix(c.Service, ".") {
		bad("service: %q is no name of a file in /etc/pam.d; dewey would be right", c.Service)
	}
	if c.Processes < 0 || c.Processes > mostProcesses {
		bad("processes: %d is not 1 to %d", c.Processes, mostProcesses)
	}
	if c.Timeout < 0 {
		bad("timeout: %v is negative", c.Timeout)
	}
	if _, err := home(c.Home, "user", ""); err != nil {
		bad("%w", err)
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	if c.Service == "" {
		c.Service = defaultService
	}
	if c.Processes == 0 {
		c.Processes = defaultProcesses
	}
	if c.Timeout == 0 {
		c.Timeout = defaultTimeout
	}
	if c.MinUID == 0 {
		c.MinUID = defaultMinUID
	}
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
	b := &Backend{c: c, slots: make(chan struct{}, c.Processes)}
	if c.Socket == "" {
		b.helper = &helper{path: c.Helper, args: c.args(), log: c.Logger, turn: make(chan struct{}, 1)}
	}
	return b, nil
}

// args are those that dewey-pam gets.
func (c Config) args() []string {
	return []string{
		"-fd", "-service=" + c.Service, "-confdir=" + c.ServiceFolder, "-processes=" + strconv.Itoa(c.Processes),
		"-min-uid=" + strconv.FormatUint(uint64(c.MinUID), 10), "-system=" + strconv.FormatBool(!c.Virtual), "-network=" + strconv.FormatBool(c.Network),
	}
}

// Start starts dewey-pam, which keeps the rights that the process has now, and returns when it is ready. Who does not
// call it starts it with the first user who is asked for. With a socket it does nothing: the service may start later.
func (b *Backend) Start(ctx context.Context) error {
	if b.helper == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, b.c.Timeout)
	defer cancel()
	return b.helper.start(ctx)
}

// Close ends dewey-pam, if it was started here, and all that it has started. Calls that wait for it get an error.
func (b *Backend) Close() error {
	b.mu.Lock()
	b.closed = true
	idle := b.idle
	b.idle = nil
	b.mu.Unlock()
	for _, c := range idle {
		_ = c.Close()
	}
	if b.helper != nil {
		b.helper.close()
	}
	for range cap(b.slots) { // those that are under way end with dewey-pam, or in time
		b.slots <- struct{}{}
	}
	for range cap(b.slots) {
		<-b.slots
	}
	return nil
}

// CheckPassword implements auth.PasswordChecker.
func (b *Backend) CheckPassword(ctx context.Context, a auth.Attempt) (auth.Identity, error) {
	name, err := b.name(a.User)
	if err != nil {
		return auth.Identity{}, err
	}
	if a.Password == "" || len(a.Password) > maxPassword || strings.ContainsRune(a.Password, 0) {
		return auth.Identity{}, fmt.Errorf("pam: a password that nobody can have: %w", auth.ErrRejected)
	}
	from := ""
	if a.Remote.IsValid() {
		from = a.Remote.Unmap().WithZone("").String()
	}
	return b.identity(ctx, askPassword, name, a.Password, from)
}

// Recipient implements auth.Recipients: users of the system are recipients, whether or not they may log in.
func (b *Backend) Recipient(ctx context.Context, user string) (auth.Identity, error) {
	return b.find(ctx, askMail, user)
}

// Find returns a user of the system by his name alone, if his account is good. Where he comes from does not count.
func (b *Backend) Find(ctx context.Context, user string, _ netip.Addr) (auth.Identity, error) {
	return b.find(ctx, askName, user)
}

func (b *Backend) find(ctx context.Context, what byte, user string) (auth.Identity, error) {
	name, err := b.name(user)
	if err != nil {
		return auth.Identity{}, err
	}
	if b.c.Virtual {
		return auth.Identity{}, fmt.Errorf("pam: knows users by their passwords alone: %w", auth.ErrUnknownUser)
	}
	return b.identity(ctx, what, name)
}

// name is the one that is asked for. Control characters and slashes are nobody's: modules make log lines and names of
// files of it (trap 41). What is not UTF-8 is nobody's either: a Maildir could not be called so.
func (b *Backend) name(user string) (string, error) {
	if user == "" || len(user) > maxName || !utf8.ValidString(user) || user == "." || user == ".." || strings.ContainsFunc(user, func(r rune) bool { return r < ' ' || r == 0x7f || r == '/' }) {
		return "", fmt.Errorf("pam: no name that a user of the system can have: %w", auth.ErrUnknownUser)
	}
	if b.c.KeepCase {
		return user, nil
	}
	return auth.Lower(user), nil
}

// identity asks, and returns what the answer says.
func (b *Backend) identity(ctx context.Context, what byte, texts ...string) (auth.Identity, error) {
	a, err := b.ask(ctx, what, texts)
	if err != nil {
		return auth.Identity{}, fmt.Errorf("pam: %w", err)
	}
	switch a.kind {
	case sayRejected:
		return auth.Identity{}, fmt.Errorf("pam: %q: %w", a.texts[0], auth.ErrRejected)
	case sayUnknown:
		return auth.Identity{}, fmt.Errorf("pam: %q: %w", a.texts[0], auth.ErrUnknownUser)
	case sayError:
		return auth.Identity{}, fmt.Errorf("pam: dewey-pam could not tell: %q", a.texts[0])
	}
	id := auth.Identity{User: a.texts[0]}
	if id.User == "" || len(id.User) > maxName || strings.ContainsFunc(id.User, func(r rune) bool { return r < ' ' || r == 0x7f || r == '/' }) {
		return auth.Identity{}, fmt.Errorf("pam: the user is called %q there, which can't be", id.User)
	}
	if id.Home, err = home(b.c.Home, id.User, a.texts[1]); err != nil {
		return auth.Identity{}, fmt.Errorf("pam: user %q: %w", id.User, err)
	}
	return id, nil
}

// home is where a user's home is: what the template says, else what the system has; empty: nowhere.
func home(template, user, systems string) (string, error) {
	path := systems
	if template != "" {
		local, domain, _ := strings.Cut(user, "@")
		path = strings.NewReplacer("{user}", user, "{local}", local, "{domain}", domain).Replace(template)
	}
	if path == "" {
		return "", nil
	}
	if !filepath.IsAbs(path) || strings.ContainsAny(path, "\x00{}") {
		return "", fmt.Errorf("home: %q is no absolute path; /var/vmail/{user} would be right, with {user}, {local} and {domain}", path)
	}
	for part := range strings.SplitSeq(path, "/") {
		if part == ".." {
			return "", fmt.Errorf("home: %q has .. in it", path)
		}
	}
	return filepath.Clean(path), nil
}
