package pop3server

import (
	"context"
	"errors"
	"net/netip"
	"strconv"
	"strings"
)

var (
	errStray   = errors.New("a PROXY header from an address that is no proxy's")
	errXCLIENT = errors.New("XCLIENT without an address that could be a client's")
)

// signature is how a PROXY header of version 2 begins, in lines; the next one is QUIT.
var signature = []string{"", "", "\x00"}

// stray says that a connection's first lines, of which line is the nth, begin a PROXY header, version 1 or 2. Who
// may send one does so before there is a session; from others it is a try to seem someone else (trap 51). It may
// come in pieces: then the empty lines are answered before it shows what they are.
func (s *session) stray(n int, line string) bool {
	if s.signed == n-1 && n <= len(signature) && line == signature[n-1] {
		s.signed++
	}
	return n == 1 && strings.HasPrefix(line, "PROXY ") || s.signed == len(signature)
}

// xclient takes the client's address from a proxy that is trusted, as Dovecot does. From others it is no
// command. What else it says is of no use here.
func (s *session) xclient(_ context.Context, args []string) (response, error) {
	if !s.trusted {
		s.log.Warn("XCLIENT from an address that is not trusted")
		return response{}, errUnknown
	}
	remote := s.info.Remote
	for _, arg := range args {
		key, value, _ := strings.Cut(arg, "=")
		switch upper(key) {
		case "ADDR":
			a, err := netip.ParseAddr(value)
			if err != nil {
				return response{}, errXCLIENT
			}
			remote = netip.AddrPortFrom(a.Unmap(), remote.Port())
		case "PORT":
			port, err := strconv.ParseUint(value, 10, 16)
			if err != nil {
				return response{}, errXCLIENT
			}
			remote = netip.AddrPortFrom(remote.Addr(), uint16(port))
		}
	}
	s.log.Debug("XCLIENT", "client", remote.String())
	s.info.Remote = remote
	s.name()
	s.local = s.local && remote.Addr().IsLoopback()
	settings := s.srv.settings.Load()
	s.trusted = trusted(settings.Trusted, remote.Addr())
	if err := s.place.move(remote.Addr(), settings); err != nil {
		s.last = err
		return response{}, err
	}
	return response{}, nil
}
