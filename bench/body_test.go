package bench

import (
	"bufio"
	"bytes"
	"io"
	"net"
	"testing"
	"testing/iotest"
	"time"
)

// FuzzBody holds body against the words of RFC 1939 section 3: lines end in CRLF, one that begins with the
// termination octet has it stripped, and one that is that octet alone is the end. However the octets come in.
func FuzzBody(f *testing.F) {
	for _, s := range []string{".\r\n", "a\r\n.\r\n", "..\r\n..x\r\n.\r\nmore", "a\n.\r\n\r\n.\r\n", "\r\r\n.\r\n", ".x\r\n.\r\n", "a\r\n.", "", "\r\n", "a.\r\n.\r.\r\n\r\n.\r\n"} {
		f.Add([]byte(s), uint8(1))
		f.Add([]byte(s), uint8(0))
	}
	one, other := net.Pipe()
	f.Cleanup(func() { one.Close(); other.Close() })
	f.Fuzz(func(t *testing.T, in []byte, how uint8) {
		want, ended, rest := int64(0), false, in
		for !ended {
			line, after, found := bytes.Cut(rest, []byte("\r\n"))
			if !found {
				break
			}
			rest = after
			if len(line) == 1 && line[0] == '.' {
				ended = true
			} else {
				want += int64(len(line)) + 2
				if len(line) > 0 && line[0] == '.' {
					want--
				}
			}
		}
		var r io.Reader = bytes.NewReader(in)
		if how&1 == 0 {
			r = iotest.OneByteReader(r)
		}
		c := &conn{raw: one, in: bufio.NewReaderSize(r, 16+int(how)), timeout: time.Minute}
		got, err := c.body()
		if ended != (err == nil) || ended && got != want {
			t.Fatalf("%q: %d, %v, want %d, ended %v", in, got, err, want, ended)
		}
		if left, _ := io.ReadAll(c.in); ended && !bytes.Equal(left, rest) {
			t.Fatalf("%q: %q is left, want %q", in, left, rest)
		}
	})
}
