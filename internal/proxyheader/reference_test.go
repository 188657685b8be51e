package proxyheader

import (
	"bytes"
	"encoding/hex"
	"hash/crc32"
	"net"
	"net/netip"
	"regexp"
	"strconv"
	"strings"
)

// A verdict is what a header means, as the small parser here reads the specification: written a second
// time, with other means, so that the tests do not ask the code what the code should do.
type verdict struct {
	ok                  bool
	end                 int // where what follows begins
	local               bool
	source, destination netip.AddrPort
	secured             bool
}

var line = regexp.MustCompile(`\A(?s:PROXY (?:(UNKNOWN(?: [^\n]*)?)|(TCP[46]) ([0-9a-fA-F:.]+) ([0-9a-fA-F:.]+) (0|[1-9][0-9]{0,4}) (0|[1-9][0-9]{0,4})))\r\n`)

func judge(octets []byte) verdict {
	if m := line.FindSubmatch(octets[:min(len(octets), 107)]); m != nil {
		v := verdict{ok: true, end: len(m[0]), local: len(m[1]) > 0}
		if v.local {
			return v
		}
		var ok1, ok2 bool
		v.source, ok1 = end(string(m[2]), string(m[3]), string(m[5]))
		v.destination, ok2 = end(string(m[2]), string(m[4]), string(m[6]))
		if ok1 && ok2 {
			return v
		}
		return verdict{}
	}
	text := hex.EncodeToString(octets)
	rest, ok := strings.CutPrefix(text, "0d0a0d0a000d0a515549540a"+"2")
	if !ok || len(rest) < 7 {
		return verdict{}
	}
	length, _ := strconv.ParseUint(rest[3:7], 16, 16)
	end := 16 + int(length)
	if end > 4096 || end > len(octets) {
		return verdict{}
	}
	family, body := rest[1:3], octets[16:end]
	switch {
	case rest[0] == '0':
		known := strings.Contains(" 00 11 12 21 22 31 32 ", " "+family+" ")
		return verdict{ok: known, end: end, local: true}
	case rest[0] == '1' && family == "11" && length >= 12:
		return extended(octets[:end], body[12:], verdict{
			ok: true, end: end,
			source:      numeric(body[0:4], body[8:10]),
			destination: numeric(body[4:8], body[10:12]),
		})
	case rest[0] == '1' && family == "21" && length >= 36:
		return extended(octets[:end], body[36:], verdict{
			ok: true, end: end,
			source:      numeric(body[0:16], body[32:34]),
			destination: numeric(body[16:32], body[34:36]),
		})
	}
	return verdict{}
}

func end(family, host, port string) (netip.AddrPort, bool) {
	ip := net.ParseIP(host)
	n, err := strconv.Atoi(port)
	if ip == nil || err != nil || n > 65535 || (family == "TCP6") != strings.Contains(host, ":") {
		return netip.AddrPort{}, false
	}
	return numeric(ip.To16(), []byte{byte(n >> 8), byte(n)}), true
}

func numeric(ip, port []byte) netip.AddrPort {
	if four := net.IP(ip).To4(); four != nil {
		ip = four
	}
	a, _ := netip.AddrFromSlice(ip)
	return netip.AddrPortFrom(a, uint16(port[0])<<8|uint16(port[1]))
}

// split splits extensions into their types and values.
func split(b []byte) (kinds []byte, values [][]byte, ok bool) {
	for len(b) > 0 {
		if len(b) < 3 || len(b) < 3+int(b[1])<<8+int(b[2]) {
			return nil, nil, false
		}
		n := 3 + int(b[1])<<8 + int(b[2])
		kinds, values, b = append(kinds, b[0]), append(values, b[3:n]), b[n:]
	}
	return kinds, values, true
}

func extended(whole, extensions []byte, v verdict) verdict {
	kinds, values, ok := split(extensions)
	if !ok {
		return verdict{}
	}
	for i, kind := range kinds {
		switch value := values[i]; kind {
		case 0x03:
			if len(value) != 4 {
				return verdict{}
			}
			at := 16 + int(whole[14])<<8 + int(whole[15]) - len(extensions)
			for _, earlier := range values[:i] {
				at += 3 + len(earlier)
			}
			zeroed := bytes.Clone(whole)
			copy(zeroed[at+3:], []byte{0, 0, 0, 0})
			if hex.EncodeToString(value) != hexSum(zeroed) {
				return verdict{}
			}
		case 0x20:
			if len(value) < 5 {
				return verdict{}
			}
			v.secured = value[0]%2 == 1
			kinds, values, ok := split(value[5:])
			if !ok || v.secured && !bytes.Contains(kinds, []byte{0x21}) {
				return verdict{}
			}
			for j, kind := range kinds {
				ascii := !strings.ContainsFunc(string(values[j]), func(r rune) bool { return r > 127 })
				utf := strings.ToValidUTF8(string(values[j]), "") == string(values[j])
				if len(values[j]) == 0 && kind >= 0x21 && kind <= 0x23 ||
					(kind == 0x21 || kind == 0x23) && !ascii || kind == 0x22 && !utf {
					return verdict{}
				}
			}
		}
	}
	return v
}

func hexSum(b []byte) string {
	sum := crc32.Checksum(b, crc32.MakeTable(crc32.Castagnoli))
	return hex.EncodeToString([]byte{byte(sum >> 24), byte(sum >> 16), byte(sum >> 8), byte(sum)})
}
