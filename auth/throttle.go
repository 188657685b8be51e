package auth

import (
	"context"
	"errors"
	"hash/maphash"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"
)

// ErrBusy says that too many logins wait for their turn at one address, and this one would have been
// the last of them. It says nothing of the credentials: to try again later is right.
var ErrBusy = errors.New("too many logins wait at this address")

// An Outcome is what came of a login.
type Outcome int

// Undecided is a login that said nothing of the password: a fault of the backend, a
// client that was gone before the password was looked at. A wrong password is Failed also if the client
// has gone meanwhile.
const (
	Undecided Outcome = iota
	Passed
	Failed
)

// Limits say how a Throttle works.
type Limits struct {
	MaxDelay time.Duration  // the longest that one login waits because of earlier failures; 0: nothing waits
	Trusted  []netip.Prefix // addresses that are not delayed (a webmail host), nor are their failures counted
}

// A Throttle makes guessing slow and locks nobody out. It delays the start of attempts to log in; it
// refuses none but with ErrBusy. Many goroutines may use one. A nil Throttle lets all pass at once.
//
// An address is one of IPv4, a /64 of IPv6 (Network); connections without one share one. It pays for its
// failures, not the connection, so that to hang up and come back gains nothing: after three of them it has
// to leave 1 s between the starts of attempts, then 2, 4, up to MaxDelay, and has one attempt at a time;
// before, four less its failures. One failure is forgiven each minute, none for success, or an attacker
// would log in as himself between guesses. So in the long run an address tries once in MaxDelay (at the
// latest once a minute), however many connections it has and however long it leaves attempts undecided:
// with 8 s, 7.5 times a minute. A /48 of IPv6 is counted as well, as one customer may have all its 65,536
// /64s: it has 32 failures free and 16 forgiven each minute, which is about what it reaches in the long
// run and what no single /64 in it can use up.
//
// Whose turn is next at an address: the user's whose name was served longest ago, so that who guesses at
// bob does not keep alice out; then the connection's with the fewest tries; then the first that came. When
// a hundred wait, the last in this order gets ErrBusy, which need not be the newest.
//
// Failures of a name that come from changing addresses delay its attempts in the same way, but without a line or a
// turn: each waits by itself, MaxDelay at most. So nobody can lock a user out from elsewhere.
//
// A user who logged in from an address in the last day is proven there, until he fails there twice running:
// his attempts start at once, whatever others do at that address or to his name; four at once, so that a
// proof is not worth many guesses. What remains: who shares an address with an attacker, is not proven there, and meets
// a hundred waiting attempts with names as fresh as his own, or with his own name, waits as one of them.
//
// Names count in lower case, hashed under a random key. All state is bounded; what is not held by an
// attempt that runs or waits is dropped when it is forgiven or, in a full table, for having the fewest
// failures among those touched longest ago.
type Throttle struct {
	mu     sync.Mutex
	limits Limits
	seed   maphash.Seed
	came   uint64                       // attempts so far
	places *table[netip.Prefix, *place] // addresses, and /48s of IPv6
	users  *table[uint64, *guesses]     // failures of names, by their hashes
	homes  *table[uint64, *home]        // where users are proven
}

// A rule says what failures cost.
type rule struct {
	free    int           // failures that make no pause
	most    int           // attempts that may be undecided at once, less the failures
	forgive time.Duration // in which one failure is forgiven
	bound   int           // failures that are counted
	waiting int           // attempts that may wait
}

var (
	ofUnit = rule{free: 2, most: 4, forgive: time.Minute, bound: 16, waiting: 100}
	ofSite = rule{free: 32, most: 64, forgive: time.Minute / 16, bound: 256, waiting: 400}
	ofUser = rule{free: 2, forgive: time.Minute, bound: 16}
)

const (
	proof     = 24 * time.Hour // how long a login proves a user where he logged in
	proven    = 4              // undecided attempts of a proven user at once
	homeUnits = 16             // addresses where one user is proven

	// A turn that stays undecided for this many MaxDelays no longer keeps others waiting. The number is
	// ofUnit.most, so that who lets all his attempts hang is no faster than who fails.
	patience = 4

	maxPlaces, maxUsers, maxHomes = 1 << 16, 1 << 16, 1 << 16
)

// A Turn is an attempt that may be made now. A nil Turn is one too.
type Turn struct {
	throttle *Throttle
	user     uint64
	nets     []netip.Prefix // the address, and the /48 of IPv6
	began    time.Time
	pair     *pair // if the attempt skipped the line
	standing Standing
	done     bool
}

// Standing is what a Throttle knows of who makes an attempt. Where work is bounded, a backend serves the
// better ones first.
type Standing int

// The standings, the best one first.
const (
	Proven  Standing = iota - 1 // he has logged in from there in the last day
	Unknown                     // the zero Standing
	Suspect                     // logins from there have failed lately
)

type standingKey struct{}

// Mark returns a context that tells backends the Standing of the attempt.
func (u *Turn) Mark(ctx context.Context) context.Context {
	if u == nil || u.standing == Unknown {
		return ctx
	}
	return context.WithValue(ctx, standingKey{}, u.standing)
}

// StandingOf returns what Mark has noted; Unknown if it has not.
func StandingOf(ctx context.Context) Standing {
	s, _ := ctx.Value(standingKey{}).(Standing)
	return s
}

// A waiter is an attempt before its turn.
type waiter struct {
	user   uint64
	remote netip.Addr
	nets   []netip.Prefix
	unit   *place
	root   *place        // whose line it stands in: the /48, or the unit of IPv4
	after  time.Time     // when its user's delay ends
	tries  int           // on its connection
	came   uint64        // its number
	ready  chan struct{} // closed when turn or err is set
	turn   *Turn
	err    error
}

// NewThrottle returns a Throttle that knows of no failures.
func NewThrottle(l Limits) *Throttle {
	t := &Throttle{limits: l, seed: maphash.MakeSeed()}
	t.places = newTable[netip.Prefix](maxPlaces, (*place).worth)
	t.users = newTable[uint64](maxUsers, func(c *guesses, now time.Time) int { return c.at(now, &ofUser) })
	t.homes = newTable[uint64](maxHomes, (*home).worth)
	return t
}

// Reconfigure sets other limits, for those who wait too. What was counted stays.
func (t *Throttle) Reconfigure(l Limits) {
	if t == nil {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.limits = l
	for _, p := range t.places.all() {
		t.serve(p, time.Now())
	}
}

// Wait waits until a login of user from remote may be tried; tries is how many have failed on this
// connection. To be called as late as can be, right before the password or the proof is looked at. The
// Turn's Done has to follow. The error is ctx's, or ErrBusy.
func (t *Throttle) Wait(ctx context.Context, user string, remote netip.Addr, tries int) (*Turn, error) {
	if t == nil {
		return nil, nil
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	w := t.join(user, remote.Unmap().WithZone(""), tries)
	if w == nil {
		return nil, nil
	}
	select {
	case <-w.ready:
	case <-ctx.Done():
		t.leave(w, ctx.Err())
	}
	return w.turn, w.err
}

// join puts an attempt in line and serves the line; nil if there is nothing to wait for.
func (t *Throttle) join(user string, remote netip.Addr, tries int) *waiter {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.passes(remote) {
		return nil
	}
	now := time.Now()
	t.came++
	w := &waiter{
		user: maphash.String(t.seed, strings.ToLower(user)), remote: remote, nets: networks(remote),
		tries: tries, came: t.came, ready: make(chan struct{}),
	}
	w.after = now
	if c, found := t.users.peek(w.user); found {
		w.after = now.Add(ofUser.pause(c.at(now, &ofUser), t.limits.MaxDelay))
	}
	for _, net := range w.nets {
		p := t.place(net, now)
		if w.unit == nil {
			w.unit = p
		}
		w.root = p
		p.waiting++
	}
	w.root.line = append(w.root.line, w)
	t.serve(w.root, now)
	switch {
	case w.unit.waiting > w.unit.rule.waiting:
		t.crowd(w.root, w.unit)
	case w.root.waiting > w.root.rule.waiting:
		t.crowd(w.root, nil)
	}
	return w
}

// crowd sends away who would be served last, of a unit if it is given.
func (t *Throttle) crowd(root, unit *place) {
	var last *waiter
	for _, w := range root.line {
		if (unit == nil || w.unit == unit) && (last == nil || last.before(w)) {
			last = w
		}
	}
	t.settle(last, nil, ErrBusy)
}

// leave takes an attempt whose client is gone out of the line, unless it has its turn already.
func (t *Throttle) leave(w *waiter, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if w.turn != nil || w.err != nil {
		return
	}
	t.settle(w, nil, err)
	t.serve(w.root, time.Now()) // which stops the timer of a line without waiters
	t.tidy(w.nets, time.Now())
}

// settle ends the wait of one who stands in line.
func (t *Throttle) settle(w *waiter, turn *Turn, err error) {
	w.root.line = slices.DeleteFunc(w.root.line, func(o *waiter) bool { return o == w })
	w.unit.waiting--
	if w.root != w.unit {
		w.root.waiting--
	}
	w.turn, w.err = turn, err
	close(w.ready)
}

// serve gives a turn to each in line who may start now, and has the next one woken in time.
func (t *Throttle) serve(root *place, now time.Time) {
	for len(root.line) > 0 {
		var next *waiter
		var wake time.Time
		for _, w := range root.line {
			if at := t.opens(w, now); at.After(now) {
				if wake.IsZero() || at.Before(wake) {
					wake = at
				}
			} else if next == nil || w.before(next) {
				next = w
			}
		}
		if next == nil {
			root.wake(wake.Sub(now), t)
			return
		}
		t.begin(next, now)
	}
	root.wake(0, t)
}

// opens says when an attempt may start, as it looks now.
func (t *Throttle) opens(w *waiter, now time.Time) time.Time {
	if t.passes(w.remote) || t.pair(w, now) != nil {
		return now
	}
	at := w.after
	for _, p := range w.places() {
		if opens := p.opens(now, t.limits.MaxDelay); opens.After(at) {
			at = opens
		}
	}
	return at
}

// begin gives an attempt its turn.
func (t *Throttle) begin(w *waiter, now time.Time) {
	u := &Turn{throttle: t, user: w.user, nets: w.nets, began: now, pair: t.pair(w, now)}
	if u.pair != nil {
		u.standing = Proven
		u.pair.trying++
	} else {
		if w.unit.failures.at(now, w.unit.rule) > 0 {
			u.standing = Suspect
		}
		if len(w.root.line) > 1 || w.unit.failures.n > 0 { // else nobody asks whose turn it was
			w.root.note(w.user)
		}
		for _, p := range w.places() {
			p.last = now
			p.turns = append(p.turns, u)
		}
	}
	t.settle(w, u, nil)
}

// Done says what came of the attempt. The first call counts.
func (u *Turn) Done(o Outcome) {
	if u == nil {
		return
	}
	t := u.throttle
	t.mu.Lock()
	defer t.mu.Unlock()
	if u.done {
		return
	}
	u.done = true
	now := time.Now()
	if u.pair != nil {
		u.pair.trying--
	}
	for _, net := range u.nets {
		// Looked up anew: the record may have gone while the attempt hung.
		if p, found := t.places.get(net); found {
			p.turns = slices.DeleteFunc(p.turns, func(o *Turn) bool { return o == u })
		}
		if o == Failed {
			p := t.place(net, now)
			p.failures.add(now, p.rule)
		}
	}
	switch o {
	case Failed:
		c, found := t.users.get(u.user)
		if !found {
			c = &guesses{}
			t.users.put(u.user, c, now)
		}
		if c.from != u.nets[0] { // one address pays for itself, and nobody elsewhere for it
			c.add(now, &ofUser)
		}
		c.from = u.nets[0]
		if h, found := t.homes.get(u.user); found {
			h.fail(u.nets[0])
		}
	case Passed:
		h, found := t.homes.get(u.user)
		if !found {
			h = &home{}
			t.homes.put(u.user, h, now)
		}
		h.prove(u.nets[0], now)
	}
	if root, found := t.places.get(u.nets[len(u.nets)-1]); found {
		t.serve(root, now)
	}
	t.tidy(u.nets, now)
}

// passes says that nothing makes an address wait.
func (t *Throttle) passes(remote netip.Addr) bool {
	return t.limits.MaxDelay <= 0 ||
		slices.ContainsFunc(t.limits.Trusted, func(net netip.Prefix) bool { return contains(net, remote) })
}

// pair returns the proof of an attempt that may skip the line.
func (t *Throttle) pair(w *waiter, now time.Time) *pair {
	h, found := t.homes.peek(w.user)
	if !found {
		return nil
	}
	p := h.at(w.nets[0])
	if p == nil || now.Sub(p.since) > proof || p.trying >= proven {
		return nil
	}
	return p
}

// place returns the record of an address, or of a /48.
func (t *Throttle) place(net netip.Prefix, now time.Time) *place {
	p, found := t.places.get(net)
	if !found {
		p = &place{rule: &ofUnit}
		if net.Addr().Is6() && net.Bits() == siteBits {
			p.rule = &ofSite
		}
		t.places.put(net, p, now)
	}
	return p
}

// tidy drops records that say nothing.
func (t *Throttle) tidy(nets []netip.Prefix, now time.Time) {
	for _, net := range nets {
		if p, found := t.places.peek(net); found && p.worth(now) == 0 {
			t.places.remove(net)
		}
	}
}

// places returns whose leave an attempt needs.
func (w *waiter) places() []*place {
	if w.root == w.unit {
		return []*place{w.unit}
	}
	return []*place{w.unit, w.root}
}

// before says that w is served before o. Both stand in the same line.
func (w *waiter) before(o *waiter) bool {
	if a, b := slices.Index(w.root.served, w.user), slices.Index(o.root.served, o.user); a != b {
		return a < b // -1: not lately
	}
	if w.tries != o.tries {
		return w.tries < o.tries
	}
	return w.came < o.came
}
