// Package poptest plays transcripts: sessions written down as RFC 1939 writes its examples, held
// against a server octet by octet.
//
// A transcript begins with comments and headers, "name: value", up to an empty line; what the headers
// mean is the test's. Then one step a line:
//
//	# comment
//	S: text        the server sends exactly this line
//	S~ regexp      the server sends a line that matches all of this
//	C: text        the client sends this line
//	C> "text"      the client sends these octets, in Go's quotes, and no line end
//	wait 9m59s     so much time passes and the server sends nothing and does not hang up
//	hangs up       the server closes the connection within a second and sends nothing before that
//	close          the client closes the connection
//	connect        the client connects anew; the transcript begins connected
package poptest

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// A Transcript is one that was read.
type Transcript struct {
	Name    string // of the file, without its ending
	Headers map[string][]string
	steps   []step
}

type step struct {
	line       int
	verb, text string
}

// Read reads all transcripts (*.txt) of a folder; it fails the test if there is none or one is wrong.
func Read(t *testing.T, folder string) []Transcript {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(folder, "*.txt"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no transcripts in %s (%v)", folder, err)
	}
	var all []Transcript
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		tr, err := parse(data)
		if err != nil {
			t.Fatalf("%s:%v", file, err)
		}
		tr.Name = strings.TrimSuffix(filepath.Base(file), ".txt")
		all = append(all, tr)
	}
	return all
}

var verbs = []string{"S: ", "S~ ", "C: ", "C> ", "wait ", "hangs up", "close", "connect"}

func parse(data []byte) (Transcript, error) {
	tr := Transcript{Headers: make(map[string][]string)}
	inHeader := true
	for i, line := range strings.Split(strings.TrimSuffix(string(data), "\n"), "\n") {
		switch {
		case strings.HasPrefix(line, "#"):
			continue
		case line == "":
			inHeader = inHeader && len(tr.Headers) == 0
			continue
		}
		if inHeader {
			if name, value, ok := strings.Cut(line, ": "); ok && name != "S" && name != "C" {
				tr.Headers[name] = append(tr.Headers[name], value)
				continue
			}
			inHeader = false
		}
		known := false
		for _, v := range verbs {
			if bare := strings.TrimSuffix(v, " "); strings.HasPrefix(line, v) || line == bare {
				tr.steps = append(tr.steps, step{i + 1, bare, strings.TrimPrefix(line[len(bare):], " ")})
				known = true
				break
			}
		}
		if !known {
			return tr, fmt.Errorf("%d: no step: %q", i+1, line)
		}
	}
	return tr, nil
}

// Play plays the transcript on connections that dial makes, in a synctest bubble. At its end the connection is closed.
func (tr Transcript) Play(t *testing.T, dial func() net.Conn) {
	t.Helper()
	c := newClient(dial())
	defer func() { c.close() }()
	for _, s := range tr.steps {
		if s.verb == "connect" {
			c.close()
			synctest.Wait() // the server has noticed
			c = newClient(dial())
			continue
		}
		if err := c.do(s); err != nil {
			t.Errorf("%s.txt:%d: %s %s: %v", tr.Name, s.line, s.verb, s.text, err)
			return
		}
	}
}

// A client sends from a goroutine of its own: a pipe takes octets only while the other end reads.
type client struct {
	conn net.Conn
	in   *bufio.Reader
	out  chan []byte
	sent chan struct{}

	pending sync.WaitGroup // writes to come
}

func newClient(conn net.Conn) *client {
	c := &client{conn: conn, in: bufio.NewReader(conn), out: make(chan []byte, 100), sent: make(chan struct{})}
	go func() {
		defer close(c.sent)
		for p := range c.out {
			_, _ = conn.Write(p) // what is sent to a server that hung up is lost
			c.pending.Done()
		}
	}()
	return c
}

func (c *client) send(octets string) {
	c.pending.Add(1)
	c.out <- []byte(octets)
}

func (c *client) close() {
	close(c.out)
	_ = c.conn.Close()
	<-c.sent
}

func (c *client) do(s step) error {
	switch s.verb {
	case "C:":
		c.send(s.text + "\r\n")
	case "C>":
		octets, err := strconv.Unquote(s.text)
		if err != nil {
			return err
		}
		c.send(octets)
	case "S:", "S~":
		return c.expect(s)
	case "wait":
		d, err := time.ParseDuration(s.text)
		if err != nil {
			return err
		}
		return c.silence(d)
	case "hangs up":
		_ = c.conn.SetReadDeadline(time.Now().Add(time.Second))
		if rest, err := io.ReadAll(c.in); len(rest) > 0 || errors.Is(err, os.ErrDeadlineExceeded) {
			return fmt.Errorf("the server sent %q (%v)", rest, err)
		}
	case "close":
		c.pending.Wait()
		_ = c.conn.Close()
	}
	return nil
}

func (c *client) expect(s step) error {
	_ = c.conn.SetReadDeadline(time.Now().Add(time.Hour))
	got, err := c.in.ReadBytes('\n')
	if err != nil {
		return fmt.Errorf("got %q (%w)", got, err)
	}
	line, ok := bytes.CutSuffix(got, []byte("\r\n"))
	if !ok {
		return fmt.Errorf("%q does not end in CRLF", got)
	}
	if s.verb == "S:" && string(line) == s.text {
		return nil
	}
	if s.verb == "S~" {
		re, err := regexp.Compile("^(?:" + s.text + ")$")
		if err != nil {
			return err
		}
		if re.Match(line) {
			return nil
		}
	}
	return fmt.Errorf("the server sent %q", line)
}

func (c *client) silence(d time.Duration) error {
	_ = c.conn.SetReadDeadline(time.Now().Add(d))
	if b, err := c.in.ReadByte(); !errors.Is(err, os.ErrDeadlineExceeded) {
		return fmt.Errorf("the server sent %q or hung up (%v)", b, err)
	}
	return nil
}
