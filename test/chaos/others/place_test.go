package others

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"dewey/test/chaos/harness"
)

func TestMain(m *testing.M) { harness.Main(m) }

// patience is how long a session, or a run of a program, may take: one that takes longer hangs.
const patience = 60 * time.Second

// A place is a Maildir that all of them use, and what each was told of the messages in it.
type place struct {
	*harness.Server
	t       *testing.T
	data    string
	maildir string
	dovecot string // its configuration
	cred    *syscall.Credential
	log     *buffer // what other programs complain of
	model   *harness.Model
	skips   bool // Dovecot takes for expunged what mutt renames: see TestAtOnce

	mu    sync.Mutex
	ids   map[string]string // unique-id of a message
	owner map[string]string // message of a unique-id
	done  map[string]int    // operations, by kind
	count int               // of keys
}

// newPlace starts dewey on a new Maildir. Dovecot serves nobody's mail as root, so that all run as somebody else then.
func newPlace(t *testing.T) *place {
	t.Helper()
	p := &place{
		t: t, data: harness.Dir(t), log: new(buffer), model: harness.NewModel(),
		ids: map[string]string{}, owner: map[string]string{}, done: map[string]int{},
	}
	p.maildir = filepath.Join(p.data, "mail", "mrose")
	uid, gid := os.Getuid(), os.Getgid()
	if uid == 0 {
		uid, gid = 65534, 65534
		p.cred = &syscall.Credential{Uid: 65534, Gid: 65534}
	}
	harness.AddUsers(t, p.data, "mrose")
	for _, sub := range []string{"new", "cur", "tmp"} {
		p.check(os.MkdirAll(filepath.Join(p.maildir, sub), 0o700))
	}
	p.check(p.configure(uid, gid))
	p.check(os.Chmod(filepath.Dir(harness.Binary()), 0o755))
	if p.cred != nil {
		p.check(filepath.WalkDir(p.data, func(path string, _ fs.DirEntry, err error) error {
			return errors.Join(err, os.Chown(path, uid, gid))
		}))
	}
	p.Server = harness.Start(t, harness.Options{Data: p.data, Prepare: p.as, Settings: []string{"process.landlock=off"}})
	return p
}

func (p *place) check(err error) {
	p.t.Helper()
	if err != nil {
		p.t.Fatal(err)
	}
}

// as has a program run as whom the mail belongs to.
func (p *place) as(cmd *exec.Cmd) {
	cmd.Dir = p.data
	if p.cred != nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: p.cred}
	}
}

// run runs a program to its end.
func (p *place) run(stdin string, env []string, name string, args ...string) error {
	return p.runFor(patience, stdin, env, name, args...)
}

// runFor runs a program for so long at the most: context.DeadlineExceeded.
func (p *place) runFor(long time.Duration, stdin string, env []string, name string, args ...string) error {
	ctx, cancel := context.WithTimeout(context.Background(), long)
	defer cancel()
	cmd := exec.CommandContext(ctx, name, args...)
	p.as(cmd)
	var out bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(stdin), &out, &out
	cmd.Env = append([]string{"HOME=" + p.data, "PATH=/usr/bin:/bin", "LOGNAME=mrose"}, env...)
	cmd.WaitDelay = time.Second // what it has started may hold the pipes
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("%s: %w: %s", name, errors.Join(err, ctx.Err()), out.String()[max(0, out.Len()-300):])
	}
	return nil
}

// did counts operations.
func (p *place) did(what string, n int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.done[what] += n
}

// Who may remove a message: so that each knows what becomes of those that he removes.
const removers = 6

const (
	byPOP3 = iota // by DELE and QUIT
	byIMAP        // by EXPUNGE
	byMutt
)

// next is the key of a new message, and the message.
func (p *place) next() (key, text string) {
	p.mu.Lock()
	p.count++
	n := p.count
	p.mu.Unlock()
	key = fmt.Sprintf("k%d-%d", n, n%removers)
	text = harness.Text(key, 200+n%7*300)
	p.model.Sent(key, text)
	return key, text
}

// some chooses up to n of the messages that are there and that one may remove.
func (p *place) some(r *rand.Rand, by, n int) []string {
	var keys []string
	for _, key := range p.model.Keys(harness.There) {
		if strings.HasSuffix(key, fmt.Sprintf("-%d", by)) {
			keys = append(keys, key)
		}
	}
	r.Shuffle(len(keys), func(i, j int) { keys[i], keys[j] = keys[j], keys[i] })
	return keys[:min(n, len(keys))]
}

// A before is what was true before a look began.
type before struct{ there, gone map[string]bool }

func (p *place) before() before {
	b := before{map[string]bool{}, map[string]bool{}}
	for _, key := range p.model.Keys(harness.There) {
		b.there[key] = true
	}
	for _, key := range p.model.Keys(harness.Gone) {
		b.gone[key] = true
	}
	return b
}

// saw holds what somebody saw against what was true before he looked and still is: each message that was there is there,
// none that was gone, and none without having been sent. removing is his own.
func (p *place) saw(who string, keys map[string]bool, b before) {
	p.t.Helper()
	for _, key := range p.model.Keys(harness.There) {
		if b.there[key] && !keys[key] {
			p.t.Errorf("%s does not see %s, which is there", who, key)
		}
	}
	for key := range keys {
		if b.gone[key] {
			p.t.Errorf("%s sees %s, which was gone", who, key)
		}
	}
	known := p.model.Keys(harness.Gone, harness.Maybe, harness.There)
	all := make(map[string]bool, len(known))
	for _, key := range known {
		all[key] = true
	}
	for key := range keys {
		if !all[key] {
			p.t.Errorf("%s sees %q, which nobody has sent", who, key)
		}
	}
}

// id notes under which unique-id a message was served: always the same, but where Dovecot has given it another, and nobody
// else's, ever.
func (p *place) id(who, key, id string) {
	p.t.Helper()
	p.mu.Lock()
	defer p.mu.Unlock()
	if was, ok := p.ids[key]; ok && was != id && p.skips && id > was { // Dovecot's uids rise, and are the first part
		p.done["dovecot_renumbered"]++
	} else if ok && was != id {
		p.t.Errorf("%s: %s had the unique-id %s, now %s", who, key, was, id)
	}
	if was, ok := p.owner[id]; ok && was != key {
		p.t.Errorf("%s: the unique-id %s of %s was that of %s", who, id, key, was)
	}
	p.ids[key], p.owner[id] = id, key
}

// figures are for the report.
func (p *place) figures() map[string]any {
	p.mu.Lock()
	defer p.mu.Unlock()
	all := map[string]any{}
	for k, n := range maps.All(p.done) {
		all[k] = n
	}
	return all
}

// A buffer takes what processes print at the same time.
type buffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *buffer) Write(text []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(text)
}

func (b *buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}
