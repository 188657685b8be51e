package proxyheader

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"net/netip"
	"os"
	"slices"
	"strings"

	"github.com/pires/go-proxyproto"
	"github.com/pires/go-proxyproto/tlvparse"
)

const (
	signature1 = "PROXY "
	signature2 = "\r\n\r\n\x00\r\nQUIT\n"

	shortest1 = len("PROXY UNKNOWN\r\n")
	longest1  = 107 // octets, section 2.1 of the specification
	fixed2    = 16  // octets before the addresses, section 2.2
	longest   = 4 << 10
)

// read reads a header and no octet more, so that a TLS handshake or a command right behind it stays
// where it is. The parser's own reader is not given the connection: it reads ahead, and it takes a line
// that comes in two packets for an attack.
func read(r io.Reader) ([]byte, error) {
	header := make([]byte, 0, 128)
	for {
		n, err := missing(header)
		if n == 0 || err != nil {
			return header, err
		}
		n = min(n, 512) // what a header claims costs no memory before it has come
		header = slices.Grow(header, n)
		got, err := r.Read(header[len(header) : len(header)+n])
		header = header[:len(header)+got]
		if got > 0 || err == nil {
			continue
		}
		kind := ErrHeader
		if len(header) == 0 {
			kind = ErrNoHeader
		}
		switch {
		case errors.Is(err, io.EOF) && len(header) > 0:
			err = io.ErrUnexpectedEOF
		case errors.Is(err, os.ErrDeadlineExceeded):
			err = fmt.Errorf("%w after %d octets", os.ErrDeadlineExceeded, len(header))
		}
		return nil, fmt.Errorf("%w: %w", kind, err)
	}
}

// missing says how many octets a header lacks at least; none means that it is whole, not that it is
// right.
func missing(header []byte) (int, error) {
	n := len(header)
	switch {
	case n == 0:
		return shortest1, nil
	case begins(header, signature2):
		return missing2(header)
	case !begins(header, signature1):
		return 0, ErrNoHeader
	}
	switch end := bytes.IndexByte(header, '\n'); {
	case end == n-1:
		return 0, nil
	case end >= 0:
		return 0, bad("line too short")
	case n < shortest1:
		return shortest1 - n, nil
	case n >= longest1:
		return 0, bad("line too long")
	case header[n-1] == '\r' || n == longest1-1:
		return 1, nil
	}
	return 2, nil
}

func missing2(header []byte) (int, error) {
	if len(header) < fixed2 {
		return fixed2 - len(header), nil
	}
	if c := proxyproto.ProtocolVersionAndCommand(header[12]); c != proxyproto.LOCAL && c != proxyproto.PROXY {
		return 0, bad("unknown version or command")
	}
	whole := fixed2 + int(binary.BigEndian.Uint16(header[14:]))
	if whole > longest {
		return 0, bad("over 4 KiB")
	}
	return whole - len(header), nil
}

// begins says whether header begins with signature, as far as it goes.
func begins(header []byte, signature string) bool {
	n := min(len(header), len(signature))
	return string(header[:n]) == signature[:n]
}

func bad(why string) error { return fmt.Errorf("%w: %s", ErrHeader, why) }

// A header is what a header says.
type header struct {
	local               bool // the proxy speaks for itself: there are no addresses
	source, destination netip.AddrPort
	secured             bool
}

// parse parses a whole header.
func parse(raw []byte) (header, error) {
	r := bufio.NewReaderSize(bytes.NewReader(raw), len(raw))
	h, err := proxyproto.Read(r)
	if err != nil {
		return header{}, bad(describe(err))
	}
	if r.Buffered() != 0 {
		return header{}, bad("length") // not reached as long as the parser and missing agree
	}
	if h.Command.IsLocal() {
		return header{local: true}, nil // and what else there is does not count: section 2.2
	}
	source, destination, ok := h.TCPAddrs()
	if !ok {
		return header{}, bad("not TCP")
	}
	parsed := header{source: unmapped(source.AddrPort()), destination: unmapped(destination.AddrPort())}
	if h.Version == 2 {
		addresses := 2*4 + 2*2
		if h.TransportProtocol.IsIPv6() {
			addresses = 2*16 + 2*2
		}
		parsed.secured, err = extras(raw, fixed2+addresses)
	}
	return parsed, err
}

// describe returns what an error of the parser says itself: those that it wraps quote what came.
func describe(err error) string {
	if several, ok := err.(interface{ Unwrap() []error }); ok { //nolint:errorlint // not as a whole, but its parts
		err = several.Unwrap()[0]
	}
	return strings.TrimPrefix(err.Error(), "proxyproto: ")
}

func unmapped(a netip.AddrPort) netip.AddrPort {
	return netip.AddrPortFrom(a.Addr().Unmap(), a.Port())
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// extras reads what follows the addresses: type, length, value, again and again. It checks the checksum,
// if there is one, and says whether the client came to the proxy over TLS. Sections 2.2.3, 2.2.6.
func extras(raw []byte, at int) (secured bool, err error) {
	for at < len(raw) {
		if len(raw)-at < 3 {
			return false, bad("cut extension")
		}
		kind, length := proxyproto.PP2Type(raw[at]), int(binary.BigEndian.Uint16(raw[at+1:]))
		if at += 3; len(raw)-at < length {
			return false, bad("cut extension")
		}
		value := raw[at : at+length]
		at += length
		switch kind {
		case proxyproto.PP2_TYPE_CRC32C:
			if !sound(raw, value) {
				return false, bad("checksum")
			}
		case proxyproto.PP2_TYPE_SSL:
			ssl, err := tlvparse.SSL(proxyproto.TLV{Type: kind, Value: value})
			if err != nil {
				return false, bad("TLS extension: " + describe(err))
			}
			secured = ssl.ClientSSL()
		}
	}
	return secured, nil
}

// sound checks a checksum, which lies in raw and was made while zeros lay there. The parser does not.
func sound(raw, checksum []byte) bool {
	if len(checksum) != 4 {
		return false
	}
	want := binary.BigEndian.Uint32(checksum)
	clear(checksum)
	ok := crc32.Checksum(raw, castagnoli) == want
	binary.BigEndian.PutUint32(checksum, want)
	return ok
}
