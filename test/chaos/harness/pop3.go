package harness

import (
	"bufio"
	"fmt"
	"net"
	"strconv"
	"strings"
	"time"
)

// A Refusal is a reply that says no, or one that should not have come.
type Refusal struct {
	Command, Reply string
}

func (r *Refusal) Error() string { return fmt.Sprintf("%s: %q", r.Command, r.Reply) }

// A POP3 is a strict client: it takes nothing that RFC 1939 does not allow. Its methods return a *Refusal for -ERR, and
// any other error for a connection that is gone or a server that is wrong.
type POP3 struct {
	net.Conn
	In *bufio.Reader
}

// DialPOP3 connects and reads the greeting. The connection has the time of Patience in all; SetDeadline gives it more.
func DialPOP3(address string) (*POP3, error) {
	conn, in, err := dial(address)
	if err != nil {
		return nil, err
	}
	c := &POP3{conn, in}
	if _, err := c.status("greeting"); err != nil {
		return nil, closing(conn, err)
	}
	return c, nil
}

func dial(address string) (net.Conn, *bufio.Reader, error) {
	conn, err := net.DialTimeout("tcp", address, Patience)
	if err != nil {
		return nil, nil, err
	}
	if err := conn.SetDeadline(time.Now().Add(Patience)); err != nil {
		return nil, nil, closing(conn, err)
	}
	return conn, bufio.NewReaderSize(conn, 1<<16), nil
}

func closing(conn net.Conn, err error) error {
	_ = conn.Close()
	return err
}

// line reads one that ends in CRLF, and takes that away.
func line(in *bufio.Reader) (string, error) {
	text, err := in.ReadString('\n')
	if err != nil {
		return "", fmt.Errorf("after %q: %w", text, err)
	}
	if !strings.HasSuffix(text, "\r\n") {
		return "", fmt.Errorf("a line without CRLF: %q", text)
	}
	return text[:len(text)-2], nil
}

func (c *POP3) status(command string) (string, error) {
	reply, err := line(c.In)
	switch {
	case err != nil:
		return "", fmt.Errorf("%s: %w", command, err)
	case reply == "+OK" || strings.HasPrefix(reply, "+OK "):
		return strings.TrimPrefix(reply[3:], " "), nil
	case strings.HasPrefix(reply, "-ERR"):
		return "", &Refusal{command, reply}
	}
	return "", fmt.Errorf("%s: neither +OK nor -ERR: %q", command, reply)
}

// Send sends commands and reads nothing.
func (c *POP3) Send(commands ...string) error {
	_, err := c.Write([]byte(strings.Join(commands, "\r\n") + "\r\n"))
	return err
}

// Do sends a command and returns what follows +OK.
func (c *POP3) Do(command string) (string, error) {
	if err := c.Send(command); err != nil {
		return "", err
	}
	return c.status(command)
}

// Multi sends a command and returns the lines of its response, each with CRLF, without byte-stuffing.
func (c *POP3) Multi(command string) (string, error) {
	if _, err := c.Do(command); err != nil {
		return "", err
	}
	return c.body(command)
}

func (c *POP3) body(command string) (string, error) {
	var text strings.Builder
	for {
		l, err := line(c.In)
		if err != nil {
			return text.String(), fmt.Errorf("%s, after %d octets: %w", command, text.Len(), err)
		}
		if l == "." {
			return text.String(), nil
		}
		if strings.HasPrefix(l, ".") && !strings.HasPrefix(l, "..") {
			return text.String(), fmt.Errorf("%s: not byte-stuffed: %q", command, l)
		}
		text.WriteString(strings.TrimPrefix(l, ".") + "\r\n")
	}
}

// Login says USER and PASS.
func (c *POP3) Login(user string) error {
	if _, err := c.Do("USER " + user); err != nil {
		return err
	}
	_, err := c.Do("PASS " + Password)
	return err
}

// A Seen is a message as a client sees it.
type Seen struct {
	Number int
	Octets int64 // by LIST
	UID    string
	Text   string
}

// Listing asks for sizes and unique-ids, and wants STAT, LIST and UIDL to say the same.
func (c *POP3) Listing() ([]Seen, error) {
	stat, err := c.Do("STAT")
	if err != nil {
		return nil, err
	}
	sizes, err := c.Multi("LIST")
	if err != nil {
		return nil, err
	}
	ids, err := c.Multi("UIDL")
	if err != nil {
		return nil, err
	}
	var all []Seen
	var sum int64
	used := map[string]bool{}
	names := strings.Split(ids, "\r\n")
	for i, l := range strings.Split(strings.TrimSuffix(sizes, "\r\n"), "\r\n") {
		if l == "" {
			break
		}
		var m Seen
		if _, err := fmt.Sscanf(l, "%d %d", &m.Number, &m.Octets); err != nil {
			return nil, fmt.Errorf("LIST: %q", l)
		}
		n, uid, _ := strings.Cut(names[min(i, len(names)-1)], " ")
		if n != strconv.Itoa(m.Number) || uid == "" || used[uid] {
			return nil, fmt.Errorf("LIST says %q, UIDL %q, which it has said before: %v", l, names[i], used[uid])
		}
		used[uid], m.UID = true, uid
		sum += m.Octets
		all = append(all, m)
	}
	if want := fmt.Sprintf("%d %d", len(all), sum); stat != want && !strings.HasPrefix(stat, want+" ") || len(names) != len(all)+1 {
		return nil, fmt.Errorf("STAT says %q, LIST %q; UIDL has %d lines", stat, want, len(names)-1)
	}
	return all, nil
}

// Fetch asks for all messages, and wants each to have the octets that were announced.
func (c *POP3) Fetch() ([]Seen, error) {
	all, err := c.Listing()
	if err != nil {
		return nil, err
	}
	for i := range all {
		m := &all[i]
		if m.Text, err = c.Multi(fmt.Sprintf("RETR %d", m.Number)); err != nil {
			return nil, err
		}
		if int64(len(m.Text)) != m.Octets {
			return nil, fmt.Errorf("RETR %d: %d octets came, LIST said %d", m.Number, len(m.Text), m.Octets)
		}
	}
	return all, nil
}

// Fetch logs in, fetches all, and says QUIT.
func Fetch(address, user string) ([]Seen, error) {
	c, err := DialPOP3(address)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	if err := c.Login(user); err != nil {
		return nil, err
	}
	all, err := c.Fetch()
	if err != nil {
		return nil, err
	}
	_, err = c.Do("QUIT")
	return all, err
}
