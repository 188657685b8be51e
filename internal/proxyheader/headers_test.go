package proxyheader

import (
	"encoding/hex"
	"strings"
)

const sig2 = "0d0a0d0a000d0a515549540a"

// octets makes a header of hexadecimal digits; blanks are for the eye.
func octets(digits ...string) string {
	b, err := hex.DecodeString(strings.ReplaceAll(strings.Join(digits, ""), " ", ""))
	if err != nil {
		panic(err)
	}
	return string(b)
}

const v4 = "cb007107 c0000201 d431 006e" // 203.0.113.7:54321, 192.0.2.1:110

var v6 = "20010db8000000000000000000000007" + "20010db8000000000000000000000001" + "d431 03e3"

type headerTest struct {
	name, header  string
	remote, local string // none: the connection's own
	secured       bool
	why           string // of a header that is refused: what the error says
}

var tests = []headerTest{
	{name: "v1 IPv4", header: "PROXY TCP4 203.0.113.7 192.0.2.1 54321 110\r\n", remote: "203.0.113.7:54321", local: "192.0.2.1:110"},
	{name: "v1 IPv4 longest", header: "PROXY TCP4 255.255.255.255 255.255.255.255 65535 65535\r\n", remote: "255.255.255.255:65535", local: "255.255.255.255:65535"},
	{name: "v1 IPv6", header: "PROXY TCP6 2001:db8::7 2001:DB8::1 54321 995\r\n", remote: "[2001:db8::7]:54321", local: "[2001:db8::1]:995"},
	{name: "v1 IPv6 shortest", header: "PROXY TCP6 :: :: 0 0\r\n", remote: "[::]:0", local: "[::]:0"},
	{
		name: "v1 IPv6 longest", header: "PROXY TCP6 " + strings.Repeat("ffff:", 7) + "ffff " + strings.Repeat("ffff:", 7) + "ffff 65535 65535\r\n",
		remote: "[ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff]:65535", local: "[ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff]:65535",
	},
	{name: "v1 IPv4 as IPv6", header: "PROXY TCP6 ::ffff:203.0.113.7 ::ffff:192.0.2.1 54321 110\r\n", remote: "203.0.113.7:54321", local: "192.0.2.1:110"},
	{name: "v1 unknown", header: "PROXY UNKNOWN\r\n"},
	{name: "v1 unknown with addresses", header: "PROXY UNKNOWN 203.0.113.7 192.0.2.1 54321 110\r\n"},
	{name: "v1 unknown longest", header: "PROXY UNKNOWN " + strings.Repeat("\xff", 107-16) + "\r\n"},
	{name: "v1 unknown with an inner CR", header: "PROXY UNKNOWN a\rb\r\r\n"},
	{name: "v1 too long", header: "PROXY UNKNOWN " + strings.Repeat("\xff", 107-15) + "\r\n", why: "too long"},
	{name: "v1 endless", header: "PROXY TCP4 " + strings.Repeat("1", 4096), why: "too long"},
	{name: "v1 LF alone", header: "PROXY TCP4 203.0.113.7 192.0.2.1 54321 110\n", why: `must end with \r\n`},
	{name: "v1 unknown, LF alone", header: "PROXY UNKNOWN\nSTAT\r\n", why: "bad PROXY header"},
	{name: "v1 too short", header: "PROXY TCP4\r\nSTAT\r\n", why: "bad PROXY header"},
	{name: "v1 two blanks", header: "PROXY TCP4  203.0.113.7 192.0.2.1 54321 110\r\n", why: "address family"},
	{name: "v1 blank at the end", header: "PROXY TCP4 203.0.113.7 192.0.2.1 54321 110 \r\n", why: "address family"},
	{name: "v1 a port is missing", header: "PROXY TCP4 203.0.113.7 192.0.2.1 54321\r\n", why: "address family"},
	{name: "v1 UDP", header: "PROXY UDP4 203.0.113.7 192.0.2.1 54321 110\r\n", why: "address family"},
	{name: "v1 unknownish", header: "PROXY UNKNOWNS 203.0.113.7\r\n", why: "address family"},
	{name: "v1 lower case", header: "proxy TCP4 203.0.113.7 192.0.2.1 54321 110\r\n", why: "no PROXY header"},
	{name: "v1 leading zero", header: "PROXY TCP4 203.0.113.07 192.0.2.1 54321 110\r\n", why: "address"},
	{name: "v1 leading zero of a port", header: "PROXY TCP4 203.0.113.7 192.0.2.1 054321 110\r\n", why: "port"},
	{name: "v1 port with a sign", header: "PROXY TCP4 203.0.113.7 192.0.2.1 54321 +110\r\n", why: "port"},
	{name: "v1 port too high", header: "PROXY TCP4 203.0.113.7 192.0.2.1 65536 110\r\n", why: "port"},
	{name: "v1 octet too high", header: "PROXY TCP4 203.0.113.256 192.0.2.1 54321 110\r\n", why: "address"},
	{name: "v1 a name", header: "PROXY TCP4 evil.example.org 192.0.2.1 54321 110\r\n", why: "address"},
	{name: "v1 a zone", header: "PROXY TCP6 fe80::1%eth0 2001:db8::1 54321 110\r\n", why: "address"},
	{name: "v1 IPv6 in TCP4", header: "PROXY TCP4 2001:db8::7 2001:db8::1 54321 110\r\n", why: "address"},
	{name: "v1 IPv4 in TCP6", header: "PROXY TCP6 203.0.113.7 192.0.2.1 54321 110\r\n", why: "address"},
	{name: "v1 NUL", header: "PROXY TCP4 203.0.113.7\x00 192.0.2.1 54321 110\r\n", why: "address"},

	{name: "v2 IPv4", header: octets(sig2, "21 11 000c", v4), remote: "203.0.113.7:54321", local: "192.0.2.1:110"},
	{name: "v2 IPv6", header: octets(sig2, "21 21 0024", v6), remote: "[2001:db8::7]:54321", local: "[2001:db8::1]:995"},
	{
		name:   "v2 IPv4 as IPv6",
		header: octets(sig2, "21 21 0024", "00000000000000000000ffffcb007107", "00000000000000000000ffffc0000201", "d431 006e"),
		remote: "203.0.113.7:54321", local: "192.0.2.1:110",
	},
	{name: "v2 local", header: octets(sig2, "20 00 0000")},
	{name: "v2 local with addresses", header: octets(sig2, "20 11 000c", v4)},
	{name: "v2 local with too little", header: octets(sig2, "20 11 0003", "ffffff")},
	{name: "v2 local with rubbish", header: octets(sig2, "20 00 0007", "20 ffff 01020304")},
	{name: "v2 local over UDP", header: octets(sig2, "20 12 000c", v4)},
	{name: "v2 no-op, ALPN, own kind", header: octets(sig2, "21 11 001c", v4, "04 0003 000000", "01 0004 706f7033", "e0 0000"), remote: "203.0.113.7:54321", local: "192.0.2.1:110"},
	{
		name: "v2 4 KiB", header: octets(sig2, "21 11 0ff0", v4, "04 0fe1", strings.Repeat("00", 0xfe1)),
		remote: "203.0.113.7:54321", local: "192.0.2.1:110",
	},
	{name: "v2 over 4 KiB", header: octets(sig2, "21 11 0ff1", v4, "04 0fe2", strings.Repeat("00", 0xfe2)), why: "4 KiB"},
	{name: "v2 local over 4 KiB", header: octets(sig2, "20 00 ffff"), why: "4 KiB"},
	{name: "v2 TLS", header: octets(sig2, "21 11 001e", v4, "20 000f 01 00000000 21 0007 544c5376312e33"), remote: "203.0.113.7:54321", local: "192.0.2.1:110", secured: true},
	{name: "v2 no TLS", header: octets(sig2, "21 11 0014", v4, "20 0005 00 00000001"), remote: "203.0.113.7:54321", local: "192.0.2.1:110"},
	{name: "v2 TLS, no version", header: octets(sig2, "21 11 0014", v4, "20 0005 01 00000001"), why: "malformed TLV"},
	{name: "v2 TLS, too short", header: octets(sig2, "21 11 0013", v4, "20 0004 01 000000"), why: "TLS extension"},
	{name: "v2 TLS, cut within", header: octets(sig2, "21 11 0018", v4, "20 0009 01 00000000 21 0007 54"), why: "truncated TLV"},
	{name: "v2 cut extension", header: octets(sig2, "21 11 0010", v4, "04 0002 00"), why: "cut extension"},
	{name: "v2 cut extension's head", header: octets(sig2, "21 11 000e", v4, "04 00"), why: "cut extension"},
	{name: "v2 checksum", header: octets(sig2, "21 11 0013", v4, "03 0004 39579abf"), remote: "203.0.113.7:54321", local: "192.0.2.1:110"},
	{
		name: "v2 checksum by a balancer of Amazon's",
		header: octets(sig2, "21 11 0054", "ac1f0771 ac1f0a1f c8f2 0050", "03 0004 e8d6892d",
			"ea 0017 01 767063652d3038643262663135666163353030316339", "04 0024", strings.Repeat("00", 36)),
		remote: "172.31.7.113:51442", local: "172.31.10.31:80",
	},
	{name: "v2 wrong checksum", header: octets(sig2, "21 11 0013", v4, "03 0004 39579abe"), why: "checksum"},
	{name: "v2 checksum too short", header: octets(sig2, "21 11 0012", v4, "03 0003 39579a"), why: "checksum"},
	{name: "v2 unix", header: octets(sig2, "21 31 00d8", strings.Repeat("2f", 216)), why: "not TCP"},
	{name: "v2 unix datagram", header: octets(sig2, "21 32 00d8", strings.Repeat("2f", 216)), why: "not TCP"},
	{name: "v2 UDP over IPv4", header: octets(sig2, "21 12 000c", v4), why: "not TCP"},
	{name: "v2 UDP over IPv6", header: octets(sig2, "21 22 0024", v6), why: "not TCP"},
	{name: "v2 unspecified", header: octets(sig2, "21 00 0000"), why: "address family"},
	{name: "v2 IPv4 over nothing", header: octets(sig2, "21 10 000c", v4), why: "address family"},
	{name: "v2 IPv4 over a third", header: octets(sig2, "21 13 000c", v4), why: "address family"},
	{name: "v2 family 4", header: octets(sig2, "21 41 000c", v4), why: "address family"},
	{name: "v2 IPv4, too little", header: octets(sig2, "21 11 000b", "cb007107 c0000201 d431 00"), why: "invalid length"},
	{name: "v2 IPv6 with IPv4's length", header: octets(sig2, "21 21 000c", v4), why: "invalid length"},
	{name: "v2 command 2", header: octets(sig2, "22 11 000c", v4), why: "command"},
	{name: "version 1 in v2", header: octets(sig2, "11 11 000c", v4), why: "command"},
	{name: "version 3", header: octets(sig2, "31 11 000c", v4), why: "command"},
	{name: "another signature", header: octets("0d0a0d0a000d0a515549540b", "21 11 000c", v4), why: "no PROXY header"},
	{name: "a command", header: "CAPA\r\n", why: "no PROXY header"},
	{name: "a TLS handshake", header: "\x16\x03\x01\x02\x00\x01\x00", why: "no PROXY header"},
	{name: "an empty line", header: "\r\nUSER", why: "no PROXY header"},
}
