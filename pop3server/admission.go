package pop3server

import (
	"container/list"
	"net/netip"
	"sync"
	"time"
)

// admission counts who is connected and decides who else may be.
type admission struct {
	mu         sync.Mutex
	all        int
	perAddress map[netip.Prefix]int
	perUser    map[string]int
	outside    *list.List // of *session: not logged in, the oldest in front

	lastLogins map[string]time.Time
	swept      time.Time // when those that no longer count were dropped
}

func newAdmission() *admission {
	return &admission{
		perAddress: make(map[netip.Prefix]int),
		perUser:    make(map[string]int),
		outside:    list.New(),
		lastLogins: make(map[string]time.Time),
	}
}

// A place is what a connection holds of the bounds.
type place struct {
	in      *admission
	address netip.Prefix
	outside *list.Element // nil once logged in
	user    string
}

// network is the unit in which addresses are counted: an IPv4 address, or the /64 that a host on
// IPv6 can choose its address from.
func network(a netip.Addr) netip.Prefix {
	bits := a.BitLen()
	if a.Is6() {
		bits = 64
	}
	p, err := a.WithZone("").Prefix(bits)
	if err != nil {
		return netip.Prefix{} // no IP connection: all of them count as one address
	}
	return p
}

func trusted(networks []netip.Prefix, a netip.Addr) bool {
	for _, p := range networks {
		if p.Contains(a.WithZone("")) {
			return true
		}
	}
	return false
}

// connect takes a place for a connection. Where it finds too many that are not logged in, it returns
// the oldest of them, to be aborted. errServerBusy, errAddressBusy.
func (a *admission) connect(s *session, limits *Settings) (p *place, oldest []*session, err error) {
	addr := s.info.Remote.Addr()
	a.mu.Lock()
	defer a.mu.Unlock()
	p = &place{in: a, address: network(addr)}
	switch {
	case limits.MaxConnections > 0 && a.all >= limits.MaxConnections:
		return nil, nil, errServerBusy
	case limits.MaxPerAddress > 0 && a.perAddress[p.address] >= limits.MaxPerAddress && !trusted(limits.Trusted, addr):
		return nil, nil, errAddressBusy
	}
	for limits.MaxUnauthenticated > 0 && a.outside.Len() >= limits.MaxUnauthenticated {
		oldest = append(oldest, a.outside.Remove(a.outside.Front()).(*session))
	}
	a.all++
	a.perAddress[p.address]++
	p.outside = a.outside.PushBack(s)
	return p, oldest, nil
}

// move counts the connection under another address, that of the client behind a proxy. errAddressBusy.
func (p *place) move(to netip.Addr, limits *Settings) error {
	a := p.in
	a.mu.Lock()
	defer a.mu.Unlock()
	n := network(to)
	if n == p.address {
		return nil
	}
	if limits.MaxPerAddress > 0 && a.perAddress[n] >= limits.MaxPerAddress && !trusted(limits.Trusted, to) {
		return errAddressBusy
	}
	if a.perAddress[p.address]--; a.perAddress[p.address] == 0 {
		delete(a.perAddress, p.address)
	}
	a.perAddress[n]++
	p.address = n
	return nil
}

// trying says that the session is about to prove who it is: as if it had just come, so that those who
// come meanwhile do not push it out.
func (p *place) trying() {
	p.in.mu.Lock()
	defer p.in.mu.Unlock()
	p.in.outside.MoveToBack(p.outside) // does nothing if it was pushed out
}

// login takes a place for a session of a user who was proven. errUserBusy.
func (p *place) login(user string, limits *Settings) error {
	p.in.mu.Lock()
	defer p.in.mu.Unlock()
	if limits.MaxPerUser > 0 && p.in.perUser[user] >= limits.MaxPerUser {
		return errUserBusy
	}
	p.in.perUser[user]++
	p.user = user
	return nil
}

// soon says that a user has logged in within the delay. Only a login that succeeded counts: one that was refused
// does not start the time anew (trap 43).
func (a *admission) soon(user string, delay time.Duration) bool {
	if delay <= 0 {
		return false
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	last, found := a.lastLogins[user]
	return found && time.Since(last) < delay
}

// sweep drops the logins that no longer count.
func (a *admission) sweep(delay time.Duration) {
	if time.Since(a.swept) < delay {
		return
	}
	a.swept = time.Now()
	for user, last := range a.lastLogins {
		if time.Since(last) >= delay {
			delete(a.lastLogins, user)
		}
	}
}

// loggedIn says that the session is inside: it no longer counts as unauthenticated.
func (p *place) loggedIn(limits *Settings) {
	p.in.mu.Lock()
	defer p.in.mu.Unlock()
	p.in.sweep(limits.LoginDelay)
	if limits.LoginDelay > 0 {
		p.in.lastLogins[p.user] = time.Now()
	}
	p.in.outside.Remove(p.outside)
	p.outside = nil
}

// logout gives a user's place back, after a login that came to nothing.
func (p *place) logout() {
	p.in.mu.Lock()
	defer p.in.mu.Unlock()
	p.leaveUser()
}

func (p *place) leaveUser() {
	if p.user == "" {
		return
	}
	if p.in.perUser[p.user]--; p.in.perUser[p.user] == 0 {
		delete(p.in.perUser, p.user)
	}
	p.user = ""
}

// leave gives all of it back.
func (p *place) leave() {
	p.in.mu.Lock()
	defer p.in.mu.Unlock()
	p.in.all--
	if p.in.perAddress[p.address]--; p.in.perAddress[p.address] == 0 {
		delete(p.in.perAddress, p.address)
	}
	if p.outside != nil {
		p.in.outside.Remove(p.outside) // does nothing if it was pushed out
	}
	p.leaveUser()
}
