package mailfile

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"
)

// Kind is what a Source turned out to be.
type Kind int

// The kinds of sources.
const (
	KindMessage Kind = iota // one message, such as an .eml file
	KindMbox
	KindMaildir
)

func (k Kind) String() string { return [...]string{"message", "mbox", "Maildir"}[k] }

// What Open fails with, beside the system's errors.
var (
	ErrNoMail    = errors.New("begins neither with a message's header section, nor with a line From as an mbox does")
	ErrNoMaildir = errors.New("is a folder, but no Maildir: it has no new/ and cur/")
	ErrEmpty     = errors.New("is empty")
)

// An Item is a message in a Source.
type Item struct {
	Name string    // for people: where in the Source it is
	At   time.Time // of its delivery; zero if nothing tells
	Body io.Reader // up to io.EOF, until the next call of Next
}

// A Source is something with messages in it. One goroutine uses it at a time.
type Source struct {
	Name string // as it was given
	Kind Kind

	items items
	count *counter
	size  int64 // octets; 0: not known
}

type items interface {
	next() (Item, error)
	notes() []string
	close() error
}

// Open looks at what is at path, an mbox, a message or a Maildir, and opens it for reading. An empty file is an mbox
// without messages. Errors name the path.
func Open(path string, quoting Quoting) (*Source, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, err //nolint:wrapcheck // names it
	}
	st, err := file.Stat()
	if err != nil {
		return nil, errors.Join(err, file.Close())
	}
	if st.IsDir() {
		_ = file.Close()
		dir, err := openMaildir(path)
		if err != nil {
			return nil, err
		}
		return &Source{Name: path, Kind: KindMaildir, items: dir}, nil
	}
	var at time.Time
	if st.Mode().IsRegular() {
		at = st.ModTime()
	}
	s, err := read(path, file, at, quoting)
	switch {
	case errors.Is(err, ErrEmpty) && st.Mode().IsRegular(): // a maildrop that was emptied
		s = &Source{Kind: KindMbox, items: &mbox{m: NewMbox(file, quoting)}, count: &counter{}}
	case err != nil:
		return nil, errors.Join(fmt.Errorf("%s %w", path, err), file.Close())
	}
	s.Name, s.size = path, st.Size()
	s.items = closing{s.items, file}
	return s, nil
}

// Read is Open for what comes from a stream, which is never closed. Nothing in it is ErrEmpty.
func Read(name string, r io.Reader, quoting Quoting) (*Source, error) {
	s, err := read(name, r, time.Time{}, quoting)
	if err != nil {
		return nil, fmt.Errorf("%s %w", name, err)
	}
	s.Name = name
	return s, nil
}

func read(name string, r io.Reader, at time.Time, quoting Quoting) (*Source, error) {
	count := &counter{r: r}
	in := bufio.NewReaderSize(count, window)
	begin, err := in.Peek(window)
	if len(begin) == 0 || err != nil && err != io.EOF {
		if err == io.EOF {
			err = ErrEmpty
		}
		return nil, err
	}
	switch {
	case bytes.HasPrefix(bytes.TrimLeft(begin, "\r\n"), []byte(from)):
		return &Source{Kind: KindMbox, items: &mbox{m: NewMbox(in, quoting)}, count: count}, nil
	case header(begin):
		return &Source{Kind: KindMessage, items: &single{Item{Name: name, At: at, Body: in}, false}, count: count}, nil
	}
	return nil, ErrNoMail
}

// known are fields of which any message has one, in lower case. Other files have lines with a colon too.
var known = []string{
	"from", "date", "subject", "to", "received", "return-path", "message-id", "delivered-to", "mime-version", "content-type",
	"cc", "sender", "reply-to",
}

// header says whether text begins with a header section: with a field, and with one that is known among the first.
// RFC 5322 section 2.2.
func header(text []byte) bool {
	for line := range bytes.Lines(text) {
		if line[0] == ' ' || line[0] == '\t' {
			continue
		}
		name, _, found := bytes.Cut(line, []byte(":"))
		name = bytes.TrimRight(name, " \t")
		if !found || len(name) == 0 || bytes.ContainsFunc(name, func(r rune) bool { return r <= ' ' || r > '~' }) {
			return false
		}
		if slices.Contains(known, strings.ToLower(string(name))) {
			return true
		}
	}
	return false
}

// Next passes over what is left of a message and returns the next one; io.EOF if there are no more. After another
// error nothing more can be read.
func (s *Source) Next() (Item, error) {
	it, err := s.items.next()
	if err != nil && err != io.EOF {
		err = fmt.Errorf("%s: %w", s.Name, err)
	}
	return it, err
}

// Progress is how much of the Source was read, and how much there is of it, in octets or messages; 0 if that is not
// known.
func (s *Source) Progress() (done, all int64) {
	if d, ok := s.items.(*folder); ok {
		return int64(d.at), int64(len(d.files))
	}
	return s.count.n, s.size
}

// Notes are what a person should know, after the last message.
func (s *Source) Notes() []string { return s.items.notes() }

// Close closes what Open opened.
func (s *Source) Close() error { return s.items.close() }

type counter struct {
	r io.Reader
	n int64
}

func (c *counter) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.n += int64(n)
	return n, err
}

// closing has a file to be closed.
type closing struct {
	items
	file *os.File
}

func (c closing) close() error { return c.file.Close() }

// A single is one message.
type single struct {
	item Item
	over bool
}

func (s *single) next() (Item, error) {
	if s.over {
		return Item{}, io.EOF
	}
	s.over = true
	return s.item, nil
}

func (*single) notes() []string { return nil }
func (*single) close() error    { return nil }

// A mbox is one.
type mbox struct {
	m *Mbox
	n int
}

func (b *mbox) next() (Item, error) {
	at, err := b.m.Next()
	if err != nil {
		return Item{}, err
	}
	b.n++
	return Item{Name: fmt.Sprintf("message %d", b.n), At: at, Body: b.m}, nil
}

func (b *mbox) notes() []string {
	var notes []string
	if b.m.Cut() {
		notes = append(notes, "its last line has no end: if the file was cut, so is its last message")
	}
	if n := b.m.Doubtful(); n > 0 {
		notes = append(notes, fmt.Sprintf("%d lines after an empty one begin with \"From \" and end in no date: they were taken for text", n))
	}
	return notes
}

func (*mbox) close() error { return nil }
