package main

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// The protocol between dewey and a worker, one request and one answer at a time. Package auth/pam has the other end.
//
// A message is its length (two octets, the high one first, at most maxFrame), the version, what it is, a number that the
// answer repeats (eight octets), and texts, each after its length (two octets).
const (
	version  = 1
	maxFrame = 4096

	askPassword = 'A' // name, password, address
	askName     = 'N' // name: the user, if he may log in
	askMail     = 'M' // name: the user, whether or not he may log in

	sayKnown    = 'K' // name, home (empty: none is known)
	sayRejected = 'R' // why
	sayUnknown  = 'U' // why
	sayError    = 'E' // why it can't be told
)

var errFrame = errors.New("malformed message")

// A frame is a message, taken apart.
type frame struct {
	kind   byte
	number uint64
	texts  []string
}

func readFrame(r io.Reader) (frame, error) {
	var head [2]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return frame{}, err
	}
	n := binary.BigEndian.Uint16(head[:])
	if n < 10 || n > maxFrame {
		return frame{}, fmt.Errorf("%w: %d octets", errFrame, n)
	}
	data := make([]byte, n)
	defer clear(data)
	if _, err := io.ReadFull(r, data); err != nil {
		return frame{}, err
	}
	if data[0] != version {
		return frame{}, fmt.Errorf("%w: of version %d; dewey and dewey-pam must be of the same build", errFrame, data[0])
	}
	f := frame{kind: data[1], number: binary.BigEndian.Uint64(data[2:])}
	for rest := data[10:]; len(rest) > 0; {
		if len(rest) < 2 || len(rest)-2 < int(binary.BigEndian.Uint16(rest)) {
			return frame{}, fmt.Errorf("%w: a text is cut", errFrame)
		}
		end := 2 + int(binary.BigEndian.Uint16(rest))
		f.texts = append(f.texts, string(rest[2:end]))
		rest = rest[end:]
	}
	return f, nil
}

// bytes is the message. Its texts must not be too long together.
func (f frame) bytes() []byte {
	data := append(make([]byte, 2, 64), version, f.kind)
	data = binary.BigEndian.AppendUint64(data, f.number)
	for _, t := range f.texts {
		data = append(binary.BigEndian.AppendUint16(data, uint16(len(t))), t...)
	}
	binary.BigEndian.PutUint16(data, uint16(len(data)-2))
	return data
}
