// Package pop3 holds the words of the Post Office Protocol that a server and a client share: the
// states of a session, the response codes and the limits. It speaks to nobody itself; see
// pop3server for that.
package pop3

import "time"

// State is where a session stands. The values are bits, so that a set of states can be or-ed
// together. RFC 1939 section 3.
type State uint8

// The states of a session. Closed is not in the RFC: it is a session whose connection has ended.
const (
	Authorization State = 1 << iota // RFC 1939 section 4
	Transaction                     // RFC 1939 section 5
	Update                          // RFC 1939 section 6
	Closed
)

// String returns the state's name as the RFC writes it.
func (s State) String() string {
	switch s {
	case Authorization:
		return "AUTHORIZATION"
	case Transaction:
		return "TRANSACTION"
	case Update:
		return "UPDATE"
	case Closed:
		return "CLOSED"
	}
	return "more than one state"
}

// Code is a response code: what a machine may read between square brackets at the start of a
// reply's text, without the brackets. The empty Code stands for none. RFC 2449 section 8.
type Code string

// The response codes that are defined, each valid in an -ERR reply only.
const (
	CodeInUse      Code = "IN-USE"      // the maildrop is held by another session: RFC 2449 section 8.1.2
	CodeLoginDelay Code = "LOGIN-DELAY" // too soon after the last login: RFC 2449 section 8.1.1
	CodeSysTemp    Code = "SYS/TEMP"    // a fault that will likely pass: RFC 3206 section 4
	CodeSysPerm    Code = "SYS/PERM"    // a fault that needs a person: RFC 3206 section 4
	CodeAuth       Code = "AUTH"        // the credentials are not good: RFC 3206 section 5
	CodeUTF8       Code = "UTF8"        // the message needs UTF-8 mode: RFC 6856 section 5
)

const (
	// MaxCommand is the most octets of a command line, its CRLF included. RFC 2449 section 4.
	MaxCommand = 255
	// MaxResponse is the most octets of the first line of a response, and of a line of a capability
	// list, CRLF included. RFC 1939 section 3, RFC 2449 sections 4 and 5.
	MaxResponse = 512
	// MaxUID is the most octets of a unique-id, each in the range 0x21 to 0x7E. RFC 1939 section 7.
	MaxUID = 70
	// MinIdle is the shortest time that an inactivity autologout timer may have. RFC 1939 section 3.
	MinIdle = 10 * time.Minute
)
