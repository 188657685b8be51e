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

// stray says that a connection's first line begins a PROXY header, version 1 or 2. Who may send one does so
// before there is a session; from others it is a try to seem someone else (trap 51).
func (s *session) stray(line string) bool {
	return strings.HasPrefix(line, "PROXY ") || line == "" && s.in.Next("\r\n\x00\r\nQUIT\n")
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
