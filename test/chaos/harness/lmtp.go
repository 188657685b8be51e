package harness

import (
	"bufio"
	"fmt"
	"net"
	"strings"
)

// An LMTP is a client that delivers. Its methods return a *Refusal for a reply of another code than they need, and any
// other error for a connection that is gone.
type LMTP struct {
	net.Conn
	In *bufio.Reader
}

// DialLMTP connects, reads the greeting and says LHLO.
func DialLMTP(address string) (*LMTP, error) {
	conn, in, err := dial(address)
	if err != nil {
		return nil, err
	}
	c := &LMTP{conn, in}
	if _, err = c.Reply("greeting", "220"); err == nil {
		_, err = c.Do("LHLO client.example", "250")
	}
	if err != nil {
		return nil, closing(conn, err)
	}
	return c, nil
}

// Reply reads a reply, of several lines perhaps, that has to have that code. It returns its last line.
func (c *LMTP) Reply(command, code string) (string, error) {
	for {
		l, err := line(c.In)
		if err != nil {
			return "", fmt.Errorf("%s: %w", command, err)
		}
		if len(l) < 3 || len(l) > 3 && l[3] != ' ' && l[3] != '-' {
			return "", fmt.Errorf("%s: no reply: %q", command, l)
		}
		if len(l) > 3 && l[3] == '-' {
			continue
		}
		if !strings.HasPrefix(l, code) {
			return "", &Refusal{command, l}
		}
		return l, nil
	}
}

// Do sends a command and reads its reply.
func (c *LMTP) Do(command, code string) (string, error) {
	if _, err := fmt.Fprintf(c, "%s\r\n", command); err != nil {
		return "", err
	}
	return c.Reply(command, code)
}

// Begin says MAIL and RCPT: all recipients have to be taken.
func (c *LMTP) Begin(to ...string) error {
	if _, err := c.Do("MAIL FROM:<ann@example.com>", "250"); err != nil {
		return err
	}
	for _, rcpt := range to {
		if _, err := c.Do("RCPT TO:<"+rcpt+">", "250"); err != nil {
			return err
		}
	}
	return nil
}

// Deliver delivers a text with CRLF line ends by DATA. It returns what became of it for each recipient (nil: 250), or an
// error before that. An error beside that of a *Refusal, in either, leaves in doubt what became of the message.
func (c *LMTP) Deliver(text string, to ...string) ([]error, error) {
	if err := c.Begin(to...); err != nil {
		return nil, err
	}
	if _, err := c.Do("DATA", "354"); err != nil {
		return nil, err
	}
	stuffed := strings.ReplaceAll("\r\n"+text, "\r\n.", "\r\n..")[2:]
	if _, err := c.Write([]byte(stuffed + ".\r\n")); err != nil {
		return nil, err
	}
	return c.results(len(to)), nil
}

// Chunks delivers a text by BDAT, in chunks of so many octets. It returns what Deliver does.
func (c *LMTP) Chunks(text string, size int, to ...string) ([]error, error) {
	if err := c.Begin(to...); err != nil {
		return nil, err
	}
	for len(text) > size {
		if _, err := fmt.Fprintf(c, "BDAT %d\r\n%s", size, text[:size]); err != nil {
			return nil, err
		}
		if _, err := c.Reply("BDAT", "250"); err != nil {
			return nil, err
		}
		text = text[size:]
	}
	if _, err := fmt.Fprintf(c, "BDAT %d LAST\r\n%s", len(text), text); err != nil {
		return nil, err
	}
	return c.results(len(to)), nil
}

func (c *LMTP) results(n int) []error {
	errs := make([]error, n)
	for i := range errs {
		_, errs[i] = c.Reply("the message", "250")
	}
	return errs
}
