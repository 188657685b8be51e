package bench

import (
	"bytes"
	"context"
	"crypto/md5" //nolint:gosec // APOP, RFC 1939 section 7
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"strconv"
	"strings"
)

// maxMessages bounds what is believed of a maildrop.
const maxMessages = 10_000_000

// greet connects as far as the greeting, and through TLS.
func (s *slot) greet(ctx context.Context, r *run, number uint64) (*conn, error) {
	c, err := s.dial(ctx, number)
	if err != nil {
		return nil, err
	}
	if err := c.greeted(ctx, s, r); err != nil {
		c.close()
		return nil, err
	}
	return c, nil
}

func (c *conn) greeted(ctx context.Context, s *slot, r *run) error {
	if s.o.TLS == Implicit {
		if err := c.secure(ctx, s.tls, r); err != nil {
			return err
		}
	}
	greeting, err := c.ok("greeting")
	if err != nil {
		return err
	}
	if from := strings.IndexByte(greeting, '<'); from >= 0 {
		if to := strings.IndexByte(greeting[from:], '>'); to > 0 {
			c.banner = greeting[from : from+to+1]
		}
	}
	if s.o.TLS == STLS {
		if _, err := c.command("STLS"); err != nil {
			return err
		}
		return c.secure(ctx, s.tls, r)
	}
	return nil
}

// ok reads a status line that is to be +OK, and returns its text. RFC 1939 section 3.
func (c *conn) ok(command string) (string, error) {
	l, err := c.line()
	if err != nil {
		return "", c.told(command, err)
	}
	if text, found := bytes.CutPrefix(l, []byte("+OK")); found && (len(text) == 0 || text[0] == ' ') {
		return string(bytes.TrimPrefix(text, []byte(" "))), nil
	}
	return "", c.told(command, fmt.Errorf("the server said %q", c.clean(l)))
}

// command sends a command of words and waits for +OK.
func (c *conn) command(words ...string) (string, error) {
	name := strings.Join(words, " ")
	c.put(name)
	return c.ask(name)
}

// ask sends what was put; name is what errors call it.
func (c *conn) ask(name string) (string, error) {
	if err := c.flush(); err != nil {
		return "", c.told(name, err)
	}
	return c.ok(name)
}

// login logs in. What errors say of it has no secrets.
func (c *conn) login(how string, u User) error {
	c.whose = u.Name
	if u.Password != "" {
		c.secrets = []string{u.Password}
	}
	switch how {
	case AuthAPOP:
		if c.banner == "" {
			return c.told("APOP", fmt.Errorf("the greeting has no timestamp, so that the server does not offer APOP"))
		}
		sum := md5.Sum([]byte(c.banner + u.Password)) //nolint:gosec // APOP
		c.put("APOP ", u.Name, " ", hex.EncodeToString(sum[:]))
		_, err := c.ask("APOP " + u.Name + " ****")
		return err
	case AuthPlain:
		response := base64.StdEncoding.EncodeToString([]byte("\x00" + u.Name + "\x00" + u.Password))
		c.secrets = append(c.secrets, response)
		c.put("AUTH PLAIN ", response)
		_, err := c.ask("AUTH PLAIN ****")
		return err
	}
	if _, err := c.command("USER " + u.Name); err != nil {
		return err
	}
	c.put("PASS ", u.Password)
	_, err := c.ask("PASS ****")
	return err
}

// capa returns what the server is capable of, a line each. RFC 2449 section 5.
func (c *conn) capa() (list []string, err error) {
	if _, err := c.command("CAPA"); err != nil {
		return nil, err
	}
	for {
		l, err := c.line()
		switch {
		case err != nil:
			return nil, c.told("CAPA", err)
		case string(l) == ".":
			return list, nil
		case len(list) == 1000:
			return nil, c.told("CAPA", fmt.Errorf("the response has more than 1000 lines"))
		}
		list = append(list, string(l))
	}
}

// stat returns the number of messages and their octets. RFC 1939 section 5.
func (c *conn) stat() (count int, octets int64, err error) {
	text, err := c.command("STAT")
	if err != nil {
		return 0, 0, err
	}
	n, rest, _ := strings.Cut(text, " ")
	size, _, _ := strings.Cut(rest, " ")
	count, err1 := strconv.Atoi(n)
	octets, err2 := strconv.ParseInt(size, 10, 64)
	if err1 != nil || err2 != nil || count < 0 || count > maxMessages || octets < 0 {
		return 0, 0, c.told("STAT", fmt.Errorf("%q is no drop listing", c.clean([]byte(text))))
	}
	return count, octets, nil
}

// listing sends LIST or UIDL and calls f for each line, which must be count in all, each of another message.
func (c *conn) listing(command string, count int, f func(n int, rest []byte) bool) error {
	if _, err := c.command(command); err != nil {
		return err
	}
	seen := 0
	for {
		l, err := c.line()
		if err != nil {
			return c.told(command, err)
		}
		if len(l) == 1 && l[0] == '.' {
			break
		}
		n, rest := number(l)
		if seen++; n < 1 || n > count || seen > count || !f(n, rest) {
			return c.told(command, fmt.Errorf("the line %q does not go with STAT, which says that there are %d messages, or is malformed", c.clean(l), count))
		}
	}
	if seen != count {
		return c.told(command, fmt.Errorf("the response has %d lines, and STAT says %d messages", seen, count))
	}
	return nil
}

// number takes a message's number off a line, and the blank behind it; 0 if there is none.
func number(l []byte) (n int, rest []byte) {
	for i, b := range l {
		switch {
		case b >= '0' && b <= '9' && n <= maxMessages:
			n = n*10 + int(b-'0')
		case b == ' ':
			return n, l[i+1:]
		default:
			return 0, nil
		}
	}
	return 0, nil
}

// uidl reads the unique-id listing. RFC 1939 section 7.
func (c *conn) uidl(count int) error {
	return c.listing("UIDL", count, func(_ int, id []byte) bool { return isUID(id) })
}

// isUID says if it is a unique-id: 1 to 70 octets from 0x21 to 0x7E. RFC 1939 section 7.
func isUID(id []byte) bool {
	for _, b := range id {
		if b < 0x21 || b > 0x7e {
			return false
		}
	}
	return len(id) > 0 && len(id) <= 70
}

// list reads the scan listing into sizes, and holds it against STAT.
func (c *conn) list(sizes []int64) ([]int64, error) {
	count, octets, err := c.stat()
	if err != nil {
		return sizes, err
	}
	sizes = append(sizes[:0], make([]int64, count)...)
	for i := range sizes {
		sizes[i] = -1
	}
	err = c.listing("LIST", count, func(n int, rest []byte) bool {
		text, _, _ := bytes.Cut(rest, []byte(" ")) // what follows is up to the server
		size, err := strconv.ParseInt(string(text), 10, 64)
		if err != nil || size < 0 || sizes[n-1] >= 0 {
			return false
		}
		sizes[n-1] = size
		octets -= size
		return true
	})
	if err == nil && octets != 0 {
		err = c.told("LIST", fmt.Errorf("the sizes are %d octets less than STAT says", octets))
	}
	return sizes, err
}

// message reads the rest of the response to RETR n, of which LIST has said size.
func (c *conn) message(n int, size int64) error {
	name := "RETR " + strconv.Itoa(n)
	octets, err := c.body()
	if err == nil && octets != size {
		err = fmt.Errorf("LIST says %d octets, and %d came", size, octets)
	}
	return c.told(name, err)
}

// quit says QUIT and waits for the end of the session.
func (c *conn) quit() error {
	_, err := c.command("QUIT")
	return err
}
