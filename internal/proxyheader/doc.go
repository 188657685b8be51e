// Package proxyheader reads the header that a proxy puts before what its client sends, so that the
// server sees the client's address and not the proxy's. The header is that of haproxy's
// proxy-protocol.txt, which comments here call the specification, in version 1 or 2.
//
// A header is a claim. It is believed of the networks that the administrator names and of nobody else,
// and from those it must come: the specification forbids to guess whether there is one (trap 51).
package proxyheader
