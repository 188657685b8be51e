package pop3server

import (
	"math"
	"strconv"
	"time"

	"dewey/auth"
	"dewey/maildrop"
	"dewey/pop3"
)

// An expiry is the least number of days that mail stays: the argument of EXPIRE. RFC 2449 section 6.7.
type expiry int64

const never expiry = math.MaxInt64

// expiryOf is what a Life that is merged comes to. Part of a day is none: no more is told than holds.
func expiryOf(l maildrop.Life) expiry {
	switch {
	case l.Deletion == maildrop.DeletionRetrieved:
		return 0
	case l.Retention > 0:
		return expiry(l.Retention / day)
	}
	return never
}

const day = 24 * time.Hour

// String is the capability.
func (e expiry) String() string {
	if e == never {
		return "EXPIRE NEVER"
	}
	return "EXPIRE " + strconv.FormatInt(int64(e), 10)
}

// expire is the capability: once logged in the user's own, before that the least that holds for any user, and
// whether another may. RFC 2449 section 6.7.
func (s *session) expire() string {
	if s.state == pop3.Transaction {
		return s.expiry.String()
	}
	var lives []auth.Life
	if users, ok := s.srv.Users.(auth.Lives); ok {
		lives = users.Lives()
	}
	if len(lives) == 0 {
		return expiryOf(s.settings.Life).String()
	}
	known := s.srv.least.Load()
	if known == nil || known.settings != s.settings || known.first != &lives[0] || known.n != len(lives) {
		known = &leastExpiry{s.settings, &lives[0], len(lives), leastOf(lives, s.settings.Life)}
		s.srv.least.Store(known)
	}
	return known.text
}

// A leastExpiry is the capability before login by these settings and that list of Lives, which may be long.
type leastExpiry struct {
	settings *Settings
	first    *auth.Life // of the list, which is not another one while this points there
	n        int
	text     string
}

func leastOf(lives []auth.Life, all maildrop.Life) string {
	least, most := never, expiry(0)
	for _, l := range lives {
		e := expiryOf(maildrop.Life(l).Or(all))
		least, most = min(least, e), max(most, e)
	}
	if least != most {
		return least.String() + " USER"
	}
	return least.String()
}
