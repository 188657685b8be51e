package auth

import (
	"container/list"
	"net/netip"
	"slices"
	"time"
)

const (
	unitBits  = 64 // of IPv6: what one host may have at the least
	siteBits  = 48 // of IPv6: what one customer may have at the most
	maxServed = 64 // names whose turns a line remembers
	maxShift  = 20 // doublings of a pause
)

// Network returns what counts as one client: an address of IPv4, a /64 of IPv6, or, if there is no
// address, the zero Prefix.
func Network(a netip.Addr) netip.Prefix { return networks(a)[0] }

// networks returns an address's unit and, of IPv6, its /48.
func networks(a netip.Addr) []netip.Prefix {
	a = a.Unmap().WithZone("")
	switch {
	case a.Is4():
		return []netip.Prefix{netip.PrefixFrom(a, a.BitLen())}
	case a.Is6():
		return []netip.Prefix{netip.PrefixFrom(a, unitBits).Masked(), netip.PrefixFrom(a, siteBits).Masked()}
	}
	return []netip.Prefix{{}}
}

// contains says whether an address, unmapped, lies in a network, which may be written as 4in6.
func contains(net netip.Prefix, a netip.Addr) bool {
	if net.Addr().Is4In6() && net.Bits() >= 96 {
		net = netip.PrefixFrom(net.Addr().Unmap(), net.Bits()-96)
	}
	return net.Contains(a)
}

// pause is what n failures cost.
func (r *rule) pause(n int, most time.Duration) time.Duration {
	if n <= r.free {
		return 0
	}
	return min(time.Second<<min(n-r.free-1, maxShift), most)
}

// A tally counts failures, which time forgives.
type tally struct {
	n     int
	since time.Time // up to when is forgiven
}

// at returns how many failures are not forgiven yet.
func (c *tally) at(now time.Time, r *rule) int {
	if n := int(now.Sub(c.since) / r.forgive); n > 0 {
		c.n = max(0, c.n-n)
		c.since = c.since.Add(time.Duration(n) * r.forgive)
	}
	return c.n
}

func (c *tally) add(now time.Time, r *rule) {
	if c.at(now, r) == 0 {
		c.since = now
	}
	c.n = min(c.n+1, r.bound)
}

// guesses are the failures of a name that did not come from where the one before came from.
type guesses struct {
	tally
	from netip.Prefix
}

// A place is what is known of an address, or of a /48.
type place struct {
	rule     *rule
	failures tally
	last     time.Time // when the last attempt began
	turns    []*Turn   // undecided, oldest first; not those of proven users
	waiting  int

	// Of the one whose line it is.
	line   []*waiter
	served []uint64 // the users last served, latest last
	timer  *time.Timer
}

// opens says when the next attempt may start, as it looks now.
func (p *place) opens(now time.Time, most time.Duration) time.Time {
	hangs := func(u *Turn) time.Time { return u.began.Add(patience * most) }
	p.turns = slices.DeleteFunc(p.turns, func(u *Turn) bool { return !hangs(u).After(now) })
	n := p.failures.at(now, p.rule)
	at := p.last.Add(p.rule.pause(n, most))
	if excess := len(p.turns) - max(1, p.rule.most-n); excess >= 0 {
		if end := hangs(p.turns[excess]); end.After(at) {
			return end
		}
	}
	return at
}

// note puts a user last among those who were served.
func (p *place) note(user uint64) {
	p.served = slices.DeleteFunc(p.served, func(u uint64) bool { return u == user })
	if len(p.served) == maxServed {
		p.served = slices.Delete(p.served, 0, 1)
	}
	p.served = append(p.served, user)
}

// wake has the line served after a while, or not at all if it is 0.
func (p *place) wake(after time.Duration, t *Throttle) {
	switch {
	case after <= 0:
		if p.timer != nil {
			p.timer.Stop()
		}
	case p.timer == nil:
		p.timer = time.AfterFunc(after, func() {
			t.mu.Lock()
			defer t.mu.Unlock()
			t.serve(p, time.Now())
		})
	default:
		p.timer.Reset(after)
	}
}

// worth is how much would be lost with the record.
func (p *place) worth(now time.Time) int {
	if p.waiting > 0 || len(p.turns) > 0 {
		return inUse
	}
	return p.failures.at(now, p.rule)
}

// A home is where a user is proven.
type home struct{ pairs []*pair }

// A pair is one of these places.
type pair struct {
	net    netip.Prefix
	since  time.Time
	trying int // undecided attempts that it let pass
	slips  int // failures since then
}

// mostSlips is how many failures running end a proof: one slip of the finger does not.
const mostSlips = 2

func (h *home) at(net netip.Prefix) *pair {
	if i := slices.IndexFunc(h.pairs, func(p *pair) bool { return p.net == net }); i >= 0 {
		return h.pairs[i]
	}
	return nil
}

func (h *home) prove(net netip.Prefix, now time.Time) {
	p := h.at(net)
	if p == nil {
		p = &pair{net: net}
	}
	p.since, p.slips = now, 0
	h.leave(net)
	if len(h.pairs) == homeUnits {
		h.pairs = slices.Delete(h.pairs, 0, 1) // the oldest is first
	}
	h.pairs = append(h.pairs, p)
}

// fail notes a failure where a user may be proven.
func (h *home) fail(net netip.Prefix) {
	if p := h.at(net); p != nil {
		if p.slips++; p.slips >= mostSlips {
			h.leave(net)
		}
	}
}

func (h *home) leave(net netip.Prefix) {
	h.pairs = slices.DeleteFunc(h.pairs, func(p *pair) bool { return p.net == net })
}

func (h *home) worth(now time.Time) int {
	if len(h.pairs) == 0 || now.Sub(h.pairs[len(h.pairs)-1].since) > proof {
		return 0
	}
	return 1
}

const (
	inUse  = 1 << 30 // the worth of a record that must stay
	sample = 16      // records that are looked at when one has to go
)

// A table is a map with a bound. When it is full, of those touched longest ago the one that is worth
// least goes, so that nobody can cheaply have a record dropped that he does not like. Those in use may
// take it over its bound: each stands for an attempt that is going on, whose number others bound.
type table[K comparable, V any] struct {
	max   int
	worth func(V, time.Time) int
	byKey map[K]*list.Element
	order list.List // of *record[K, V]; the front was touched last
}

type record[K comparable, V any] struct {
	key   K
	value V
}

func newTable[K comparable, V any](most int, worth func(V, time.Time) int) *table[K, V] {
	return &table[K, V]{max: most, worth: worth, byKey: make(map[K]*list.Element)}
}

// get touches, and peek does not.
func (t *table[K, V]) get(key K) (V, bool) {
	if e, found := t.byKey[key]; found {
		t.order.MoveToFront(e)
	}
	return t.peek(key)
}

func (t *table[K, V]) peek(key K) (value V, found bool) {
	e, found := t.byKey[key]
	if found {
		value = e.Value.(*record[K, V]).value
	}
	return value, found
}

func (t *table[K, V]) put(key K, value V, now time.Time) {
	least, worth := (*list.Element)(nil), inUse
	e := t.order.Back()
	for range sample {
		if e == nil || worth == 0 {
			break
		}
		r := e.Value.(*record[K, V])
		if w := t.worth(r.value, now); w < worth {
			least, worth = e, w
		}
		e = e.Prev()
	}
	if least != nil && (worth == 0 || len(t.byKey) >= t.max) {
		t.remove(least.Value.(*record[K, V]).key)
	}
	t.byKey[key] = t.order.PushFront(&record[K, V]{key, value})
}

func (t *table[K, V]) remove(key K) {
	t.order.Remove(t.byKey[key])
	delete(t.byKey, key)
}

func (t *table[K, V]) all() []V {
	values := make([]V, 0, len(t.byKey))
	for e := t.order.Front(); e != nil; e = e.Next() {
		values = append(values, e.Value.(*record[K, V]).value)
	}
	return values
}
