package pop3server

import (
	"bytes"
	"io"
)

// topReader ends a message, its lines ending in CRLF, after the given number of lines of its body. The
// empty line after the header section is not one of them. RFC 1939 section 7; trap 15.
type topReader struct {
	r      io.Reader
	lines  int64
	octets int64 // that the message still has: sent to its end, it is held against its size as in RETR
	column int   // octets of the present line so far
	inBody bool  // the empty line was seen
	cut    bool  // the message was not read to its end
}

func (t *topReader) Read(p []byte) (int, error) {
	if t.cut {
		return 0, io.EOF
	}
	n, err := t.r.Read(p)
	if t.octets -= int64(n); err == io.EOF && t.octets != 0 {
		err = io.ErrUnexpectedEOF
	}
	for at := 0; at < n; {
		i := bytes.IndexByte(p[at:n], '\n')
		if i < 0 {
			t.column += n - at
			break
		}
		at += i + 1
		empty := t.column+i+1 == len("\r\n")
		t.column = 0
		if t.inBody {
			t.lines--
		} else if empty {
			t.inBody = true
		}
		if t.inBody && t.lines == 0 {
			t.cut = true
			return at, nil
		}
	}
	return n, err
}
