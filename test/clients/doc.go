// Package clients holds no code of its own. Its tests drive real mail clients, as Debian 12 ships
// them, against a running dewey, each as a process of its own: each must get every message as it is
// stored, leave mail on the server, delete it, and say plainly that a password is wrong or that the
// maildrop is busy. Each logs in by every way that it has, in plain, by STLS and inside TLS, with
// certificates verified; dewey's log must say that it was this way.
//
// The programs are installed by make test; test/packages.txt at the top of the checkout names them.
// A program that is missing fails the test: a client that nobody runs proves nothing.
//
// TestClients runs against a real Dovecot too, to tell a client's own fault from one of dewey's:
//
//	go test ./test/clients -run TestClients -peer dovecot
package clients
