package lmtp

import (
	"errors"
	"fmt"
	"time"
)

// Settings are what may be changed while a Server runs, by Reconfigure. The zero value is of use.
type Settings struct {
	// Hostname is shown in the greeting and in Received. Empty: "localhost".
	Hostname string

	// MaxSize is how many octets a message may have, as it is sent and before byte-stuffing, without the
	// trace that we add. 0: no bound. RFC 1870 section 5.
	MaxSize int64

	// MaxRecipients bounds the recipients of one transaction. 0 means 100, and less than that is an error.
	// RFC 5321 section 4.5.3.1.8.
	MaxRecipients int

	// MaxConnections bounds the connections in all. Beyond it a client is told and sent away. 0: no bound.
	//
	// While a message comes in each copy of it may be an open file: MaxConnections times MaxRecipients, and up to
	// 1000 a connection where aliases have many owners. Beyond what the process may open it is 451 for the copy.
	MaxConnections int

	// Timeout is how long a command may take to come in whole, and a reply to go out. 0 means 5 minutes,
	// and less than that is an error. RFC 5321 section 4.5.3.2.7.
	Timeout time.Duration

	// DataTimeout is how long the next octets of a message may take to come. 0 means 5 minutes; less than 3
	// and more than 10 is an error. RFC 5321 section 4.5.3.2.5.
	DataTimeout time.Duration

	// OverQuotaTemporary tells the sender of a message for which an owner has no room to try again later,
	// instead of giving up.
	OverQuotaTemporary bool
}

const (
	minRecipients   = 100
	minTimeout      = 5 * time.Minute
	minDataTimeout  = 3 * time.Minute
	maxDataTimeout  = 10 * time.Minute
	defaultHostname = "localhost"
)

// checked returns the settings with defaults in place of what is not set, or all that is wrong with them.
func (s Settings) checked() (Settings, error) {
	var errs []error
	bad := func(format string, args ...any) { errs = append(errs, fmt.Errorf("lmtp: "+format, args...)) }

	if s.Hostname == "" {
		s.Hostname = defaultHostname
	}
	if !validDomain(s.Hostname, false) {
		bad("Hostname %q is not a domain", s.Hostname)
	}
	if s.MaxSize < 0 || s.MaxConnections < 0 {
		bad("a bound is negative: MaxSize %d, MaxConnections %d", s.MaxSize, s.MaxConnections)
	}
	if s.MaxRecipients == 0 {
		s.MaxRecipients = minRecipients
	}
	if s.MaxRecipients < minRecipients {
		bad("MaxRecipients %d is less than the %d of RFC 5321 section 4.5.3.1.8", s.MaxRecipients, minRecipients)
	}
	if s.Timeout == 0 {
		s.Timeout = minTimeout
	}
	if s.Timeout < minTimeout {
		bad("Timeout %v is shorter than the %v of RFC 5321 section 4.5.3.2.7", s.Timeout, minTimeout)
	}
	if s.DataTimeout == 0 {
		s.DataTimeout = minTimeout
	}
	if s.DataTimeout < minDataTimeout || s.DataTimeout > maxDataTimeout {
		bad("DataTimeout %v is not between %v and %v", s.DataTimeout, minDataTimeout, maxDataTimeout)
	}
	return s, errors.Join(errs...)
}
