package history

import (
	"context"
	"log/slog"
	"strconv"
	"sync"
	"time"

	"dewey/maildrop"
	"dewey/pop3server"
)

// Options say what a Recorder is to do.
type Options struct {
	Dir    string        // of the files; it is made with the first
	Keep   time.Duration // how long a day is kept after its end; 0: nothing is recorded, and what there is goes
	Logger *slog.Logger  // nil means slog.Default
}

// A Recorder records what sessions hand out and remove. Its hooks never wait for the disk: what the disk is too
// slow for, or refuses, is dropped and counted in the log.
type Recorder struct {
	dir  string
	keep time.Duration
	log  *slog.Logger
	wake chan struct{} // holds a token if Run has something to do

	mu    sync.Mutex
	open  map[uint64]*session
	dirty map[*session]struct{} // have a piece in memory
	empty chan struct{}         // if not nil: closed when the last of open has ended

	queue  queue
	file   file // Run's, and so is:
	unsafe bool // the last sync failed, and that was told
}

const (
	// pieceSize is where a piece of a record ends: what a session keeps in memory.
	pieceSize = 4 << 10
	// settle is how long what happened may stay in memory, and what was written without a sync.
	settle = 5 * time.Second
	// shown is how many unique-ids of a kind the log's line has.
	shown = 8
	// maxWhy bounds what an error may say.
	maxWhy = 200
)

// A session is one that has logged in.
type session struct {
	mu    sync.Mutex // guards piece, between the session's goroutine and Run
	who   Who
	piece *[]byte // nil if it has no message; else a line up to its last message
	sum   End
	first [4][]string // unique-ids, for the log
}

var kinds = [...]Kind{Fetched, Cut, Removed, Kept}

// pieces are buffers for pieces.
var pieces = sync.Pool{New: func() any { b := make([]byte, 0, 1<<10); return &b }}

// New returns a Recorder. Nothing is written before Run.
func New(o Options) *Recorder {
	if o.Logger == nil {
		o.Logger = slog.Default()
	}
	return &Recorder{
		dir: o.Dir, keep: o.Keep, log: o.Logger,
		wake:  make(chan struct{}, 1),
		open:  map[uint64]*session{},
		dirty: map[*session]struct{}{},
		file:  file{dir: o.Dir},
	}
}

// Hooks returns hooks that record, and then call those of next. If nothing is to be recorded they are next.
func (r *Recorder) Hooks(next pop3server.Hooks) pop3server.Hooks {
	if r.keep <= 0 {
		return next
	}
	hooks := next
	hooks.LoggedIn = func(s pop3server.Session, messages int, octets int64) {
		r.loggedIn(s)
		if next.LoggedIn != nil {
			next.LoggedIn(s, messages, octets)
		}
	}
	hooks.Retrieved = func(s pop3server.Session, number int, m maildrop.Message, err error) {
		r.retrieved(s.ID, m, err)
		if next.Retrieved != nil {
			next.Retrieved(s, number, m, err)
		}
	}
	hooks.Updated = func(s pop3server.Session, removed []maildrop.Message, err error) {
		r.updated(s.ID, removed, err)
		if next.Updated != nil {
			next.Updated(s, removed, err)
		}
	}
	hooks.Closed = func(s pop3server.Session, end pop3server.End) {
		r.closed(s, end)
		if next.Closed != nil {
			next.Closed(s, end)
		}
	}
	return hooks
}

func (r *Recorder) loggedIn(s pop3server.Session) {
	o := &session{who: Who{
		Session: s.ID, Login: time.Now().UTC(), From: s.Remote, Method: s.Method, TLS: s.TLS, By: s.By, User: s.User,
	}}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.open[s.ID] = o
}

func (r *Recorder) find(id uint64) *session {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.open[id]
}

func (r *Recorder) retrieved(id uint64, m maildrop.Message, err error) {
	o := r.find(id)
	if o == nil {
		return
	}
	kind := Fetched
	if err != nil {
		kind = Cut
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	r.add(o, kind, m, err)
}

func (r *Recorder) updated(id uint64, removed []maildrop.Message, err error) {
	o := r.find(id)
	if o == nil {
		return
	}
	kind := Removed
	if err != nil {
		kind = Kept
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	for i, m := range removed {
		r.add(o, kind, m, err)
		if i == 0 {
			err = nil // said once
		}
	}
}

// add adds a message to a session's record; its lock is held.
func (r *Recorder) add(o *session, kind Kind, m maildrop.Message, err error) {
	r.begin(o)
	line := Message{Kind: kind, UID: m.UID, Octets: m.Octets, At: time.Since(o.who.Login)}
	if m.Surrogate > 0 { // next to no client says UTF8, and the hook does not tell
		line.Octets = m.Surrogate
	}
	if err != nil {
		line.Why = short(err)
	}
	var of int
	switch kind {
	case Fetched:
		o.sum.Fetched++
		o.sum.Octets += line.Octets
	case Cut:
		of = 1
		o.sum.Cut++
	case Removed:
		of = 2
		o.sum.Removed++
	case Kept:
		of = 3
		o.sum.Kept++
	}
	if len(o.first[of]) < shown {
		o.first[of] = append(o.first[of], m.UID)
	}
	*o.piece = appendMessage(*o.piece, &line)
	if len(*o.piece) > pieceSize {
		r.flush(o, nil)
	}
}

// begin makes sure that there is a piece to add to.
func (r *Recorder) begin(o *session) {
	if o.piece != nil {
		return
	}
	o.piece = pieces.Get().(*[]byte)
	*o.piece = appendWho((*o.piece)[:0], &o.who)
	r.mu.Lock()
	r.dirty[o] = struct{}{}
	r.mu.Unlock()
	r.stir()
}

// flush gives a session's piece to the queue.
func (r *Recorder) flush(o *session, end *End) {
	*o.piece = appendEnd(*o.piece, end)
	if r.queue.add(*o.piece) {
		r.log.Warn("history is lost: the disk is too slow", "folder", r.dir)
	}
	pieces.Put(o.piece)
	o.piece = nil
	r.mu.Lock()
	delete(r.dirty, o)
	r.mu.Unlock()
	r.stir()
}

// stir tells Run that there is something to do.
func (r *Recorder) stir() {
	select {
	case r.wake <- struct{}{}:
	default:
	}
}

func (r *Recorder) closed(s pop3server.Session, end pop3server.End) {
	o := r.find(s.ID)
	if o == nil {
		return
	}
	defer r.forget(s.ID) // and not before: Run may end then
	if o.sum.Fetched+o.sum.Cut+o.sum.Removed+o.sum.Kept == 0 {
		return // a poll; the log has it
	}
	r.last(o, end)
	r.logLine(o)
}

func (r *Recorder) forget(id uint64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.open, id)
	if len(r.open) == 0 && r.empty != nil {
		close(r.empty)
		r.empty = nil
	}
}

// last gives the last piece of a session's record to the queue.
func (r *Recorder) last(o *session, end pop3server.End) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.sum.At, o.sum.Octets, o.sum.Why = time.Since(o.who.Login), end.Octets, "quit"
	if end.Err != nil {
		o.sum.Why = short(end.Err)
	}
	r.begin(o)
	r.flush(o, &o.sum)
}

// logLine logs what a session handed out and removed, in one line of bounded length.
func (r *Recorder) logLine(o *session) {
	about := make([]slog.Attr, 0, 7)
	about = append(about, slog.Uint64("session", o.who.Session))
	if o.who.From.IsValid() {
		about = append(about, slog.String("remote", o.who.From.String()))
	}
	about = append(about, slog.String("user", o.who.User))
	for i, n := range []int{o.sum.Fetched, o.sum.Cut, o.sum.Removed, o.sum.Kept} {
		if n > 0 {
			about = append(about, slog.String(string(kinds[i]), list(o.first[i], n)))
		}
	}
	r.log.LogAttrs(context.Background(), slog.LevelInfo, "handed out", about...)
}

// list writes unique-ids, and how many more there are.
func list(first []string, all int) string {
	var b []byte
	for i, uid := range first {
		if i > 0 {
			b = append(b, ' ')
		}
		b = append(b, uid...)
	}
	if more := all - len(first); more > 0 {
		b = append(b, " and "...)
		b = strconv.AppendInt(b, int64(more), 10)
		b = append(b, " more"...)
	}
	return string(b)
}

func short(err error) string {
	text := err.Error()
	return text[:min(len(text), maxWhy)]
}

// Run writes what is recorded until ctx ends and all sessions have, or a second more has passed; then it
// writes what is left. It is called once. Days that are too old are removed at its start and within the hour
// after they have become so.
func (r *Recorder) Run(ctx context.Context) {
	r.prune()
	if r.keep <= 0 {
		return
	}
	hourly := time.NewTicker(time.Hour)
	defer hourly.Stop()
	var settled <-chan time.Time
	for {
		select {
		case <-r.wake:
			r.write()
			if settled == nil {
				settled = time.After(settle)
			}
		case <-settled:
			settled = nil
			r.sweep()
			r.write()
			r.sync()
		case <-hourly.C:
			r.prune()
		case <-ctx.Done():
			r.finish()
			return
		}
	}
}

// finish ends Run. A server that closed its sessions does not wait until their hooks have run.
func (r *Recorder) finish() {
	r.mu.Lock()
	empty := make(chan struct{})
	if r.empty = empty; len(r.open) == 0 {
		close(empty)
		r.empty = nil
	}
	r.mu.Unlock()
	patience := time.NewTimer(time.Second)
	defer patience.Stop()
	for waiting := true; waiting; {
		select {
		case <-r.wake:
			r.write()
		case <-empty:
			waiting = false
		case <-patience.C:
			waiting = false
		}
	}
	r.sweep()
	r.write()
	r.sync()
	r.file.close()
}

// sweep takes over what sessions that go on have recorded so far.
func (r *Recorder) sweep() {
	r.mu.Lock()
	dirty := r.dirty
	r.dirty = map[*session]struct{}{}
	r.mu.Unlock()
	for o := range dirty {
		o.mu.Lock()
		if o.piece != nil {
			r.flush(o, nil)
		}
		o.mu.Unlock()
	}
}

// write writes what is in the queue.
func (r *Recorder) write() {
	data := r.queue.take()
	if len(data) > 0 {
		lost, err := r.file.write(data, time.Now())
		r.told(r.queue.done(lost, err))
	}
}

func (r *Recorder) sync() {
	err := r.file.sync()
	if err != nil && !r.unsafe {
		r.log.Error("history can't be synced", "error", err)
	}
	r.unsafe = err != nil
}

// told logs what befell the disk: a fault once, and its end with how much was lost.
func (r *Recorder) told(lost int, began error) {
	if began != nil {
		r.log.Error("history is lost: it can't be written", "error", began)
	}
	if lost > 0 {
		r.log.Warn("history is written again", "lost", lost)
	}
}

func (r *Recorder) prune() {
	removed, err := prune(r.dir, r.keep, time.Now())
	if err != nil {
		r.log.Error("old history not removed", "error", err)
	}
	for _, name := range removed {
		r.log.Info("old history removed", "file", name)
	}
}
