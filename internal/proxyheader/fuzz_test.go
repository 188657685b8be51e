package proxyheader

import (
	"io"
	"net"
	"testing"
)

// FuzzWrap gives Wrap any octets in pieces of any sizes. What it accepts is what the small parser of the
// tests accepts, with the same addresses; it reads a header to its end and no further, also where there
// is nothing to read; and what follows comes through as it is.
func FuzzWrap(f *testing.F) {
	for _, test := range tests {
		f.Add([]byte(test.header+behind), []byte{0})
		f.Add([]byte(test.header), []byte{1, 2, 7})
	}
	f.Fuzz(func(t *testing.T, octets, sizes []byte) {
		want := judge(octets)
		in, c := script(string(octets), sizes...)
		got, err := proxies.Wrap(t.Context(), c)
		if (err == nil) != want.ok || (got == nil) == want.ok {
			t.Fatalf("%v; the other parser: %+v", err, want)
		}
		if err != nil {
			return
		}
		if read := len(octets) - in.Len(); read != want.end || c.ended {
			t.Errorf("read %d octets of a header of %d, and at the end: %v", read, want.end, c.ended)
		}
		if rest, err := io.ReadAll(got); err != nil || string(rest) != string(octets[want.end:]) {
			t.Errorf("behind the header: %q, %v", rest, err)
		}
		wrap, ok := got.(*Conn)
		if ok == want.local {
			t.Fatalf("%T; the other parser: %+v", got, want)
		}
		if ok && (wrap.RemoteAddr().(*net.TCPAddr).AddrPort() != want.source ||
			wrap.LocalAddr().(*net.TCPAddr).AddrPort() != want.destination || wrap.Secured() != want.secured) {
			t.Errorf("%v to %v, secured %v; the other parser: %+v", wrap.RemoteAddr(), wrap.LocalAddr(), wrap.Secured(), want)
		}
	})
}
