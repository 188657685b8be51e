package lmtp

import (
	"net"
	"net/netip"
	"strings"
	"time"
)

// trace returns the lines that a copy begins with. What a client said is in them only after parsePath,
// validDomain and clean have passed it, so that it can't begin a line of its own (trap 41). A Return-Path
// that the message has already stays, below ours. RFC 5321 section 4.4.
func (s *session) trace(t *transaction, to string) string {
	var b strings.Builder
	b.WriteString("Return-Path: <" + t.from + ">\r\nDelivered-To: " + to + "\r\nReceived: from " + s.name)
	if remote := addressLiteral(s.conn.RemoteAddr()); remote != "" {
		b.WriteString(" (" + remote + ")")
	}
	with := "LMTP" // RFC 3848
	if t.utf8 {
		with = "UTF8LMTP" // RFC 6531 section 4.3
	}
	b.WriteString("\r\n\tby " + s.settings.Hostname + " (dewey) with " + with + " id " + t.id)
	b.WriteString("\r\n\tfor <" + to + ">;\r\n\t" + t.began.Format(time.RFC1123Z) + "\r\n")
	return b.String()
}

// addressLiteral: RFC 5321 section 4.1.3. Empty if the peer has no address: one on a unix socket.
func addressLiteral(a net.Addr) string {
	t, ok := a.(*net.TCPAddr)
	if !ok {
		return ""
	}
	ip, _ := netip.AddrFromSlice(t.IP)
	if ip = ip.Unmap(); ip.Is4() {
		return "[" + ip.String() + "]"
	}
	if !ip.IsValid() {
		return ""
	}
	return "[IPv6:" + ip.WithZone("").String() + "]"
}
