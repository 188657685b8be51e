package bench

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"net"
	"strings"
	"time"
)

// Bounds of a message to deliver, in octets: its header section must fit, and it is held in memory.
const (
	minSize = 400
	maxSize = 256 << 20
)

// reply reads an LMTP reply, which may have several lines, and wants a code that begins with class. RFC 5321 section
// 4.2.
func (c *conn) reply(command string, class byte) error {
	for {
		l, err := c.line()
		if err != nil {
			return c.told(command, err)
		}
		if len(l) < 3 || l[0] != class || len(l) > 3 && l[3] != ' ' && l[3] != '-' {
			return c.told(command, fmt.Errorf("the server said %q", c.clean(l)))
		}
		if len(l) == 3 || l[3] == ' ' {
			return nil
		}
	}
}

// lhlo connects and says LHLO. RFC 2033 section 4.1.
func (s *slot) lhlo(ctx context.Context, number uint64) (*conn, error) {
	c, err := s.dial(ctx, number)
	if err != nil {
		return nil, err
	}
	if err = c.reply("greeting", '2'); err == nil {
		c.put("LHLO bench.invalid")
		if err = c.flush(); err != nil {
			err = c.told("LHLO", err)
		} else {
			err = c.reply("LHLO", '2')
		}
	}
	if err != nil {
		c.close()
		return nil, err
	}
	return c, nil
}

// A letter is the message that is delivered over and over, each time under a Message-ID of its own.
type letter struct {
	text []byte // byte-stuffed, with the dot that ends it
	id   int    // where the digits of the Message-ID begin
}

const idDigits = 32

// newLetter writes a message of size octets, before byte-stuffing: a header section, lines of 78 octets, and every
// hundredth of them begins with a dot.
func newLetter(size int) *letter {
	var b bytes.Buffer
	b.WriteString("Date: " + time.Now().UTC().Format("Mon, 02 Jan 2006 15:04:05 -0700") + "\r\n" +
		"From: bench <bench@bench.invalid>\r\nTo: undisclosed-recipients:;\r\nSubject: load\r\nMessage-ID: <")
	l := &letter{id: b.Len()}
	b.WriteString(strings.Repeat("0", idDigits) + "@bench.invalid>\r\nMIME-Version: 1.0\r\nContent-Type: text/plain; charset=us-ascii\r\n\r\n")
	left := size - b.Len()
	const width = 78
	row := "Load is a burden that somebody else carries, until it is measured; then we all"
	for n := 1; left > 0; n++ {
		text := row[:min(width-2, max(left-2, 0))]
		if left-len(text)-2 == 1 { // a rest of one octet is no line
			text = row[:len(text)+1]
		}
		left -= len(text) + 2
		if n%100 == 0 && text != "" {
			text = ".." + text[1:]
		}
		b.WriteString(text + "\r\n")
	}
	b.WriteString(".\r\n")
	l.text = b.Bytes()
	return l
}

// send delivers a message to each of the recipients. MAIL, RCPT and DATA go at once (RFC 2033 section 4.1 has
// PIPELINING); one reply a recipient follows the message (section 4.2).
func (c *conn) send(l *letter, sender string, to []User, sequence [16]byte) error {
	c.whose = to[0].Name
	c.put("MAIL FROM:<", sender, ">")
	for _, u := range to {
		c.put("RCPT TO:<", u.Name, ">")
	}
	c.put("DATA")
	if err := c.flush(); err != nil {
		return c.told("MAIL", err)
	}
	if err := c.reply("MAIL", '2'); err != nil {
		return err
	}
	for _, u := range to {
		if err := c.reply("RCPT TO:<"+u.Name+">", '2'); err != nil {
			return err
		}
	}
	if err := c.reply("DATA", '3'); err != nil {
		return err
	}
	var id [idDigits]byte
	hex.Encode(id[:], sequence[:])
	c.later()
	parts := net.Buffers{l.text[:l.id], id[:], l.text[l.id+idDigits:]}
	if _, err := parts.WriteTo(c.net); err != nil {
		return c.told("message", err)
	}
	for _, u := range to {
		if err := c.reply("the message to "+u.Name, '2'); err != nil {
			return err
		}
	}
	return nil
}

// sequence makes a Message-ID of the run's own number and the message's.
func sequence(run, message uint64) (id [16]byte) {
	binary.BigEndian.PutUint64(id[:], run)
	binary.BigEndian.PutUint64(id[8:], message)
	return id
}
