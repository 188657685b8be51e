// Package pop3server serves maildrops over POP3 (RFC 1939), with the extensions of RFC 2449 (CAPA,
// response codes, pipelining), RFC 3206 (SYS and AUTH codes) and RFC 6856 (UTF8 and LANG). It is used
// like net/http: fill in a Server, hand it listeners, shut it down.
//
// A program brings two things: an auth.PasswordChecker, which knows the users, and a maildrop.Store,
// which hands over their maildrops. All that the protocol defines is the server's: message numbers,
// deletion marks, TOP's cut, octet counts, byte-stuffing, and the rule that nothing is removed before
// QUIT. One goroutine serves a connection and holds all of its state.
//
// How the code is laid out: commands.go has the table of commands, one row each, and the loop that
// takes one line in and sends one response out; authorization.go and transaction.go have the
// handlers; refusals.go says what a client reads for each error; admission.go counts connections.
package pop3server
