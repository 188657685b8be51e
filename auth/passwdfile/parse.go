package passwdfile

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"

	"dewey/auth"
	"dewey/auth/scheme"
)

// Bounds of a users file. A million users with Argon2id hashes take about 130 MiB.
const (
	maxFile   = 256 << 20 // octets
	maxLine   = 8 << 10   // octets, without the line end
	maxName   = 255       // octets: a name may be a folder's
	maxErrors = 1000      // that are told; the rest is counted
)

// A table is one version of a users file. It keeps the text, and lines are taken apart again when
// somebody logs in: a million users cost little more than their file.
type table struct {
	text   string
	index  map[string]uint32         // by name: where the user's line begins in text
	set    scheme.Set                // what schemes the lines may have
	costs  map[scheme.Cost]*borrowed // unknown names borrow a hash to run
	plain  int                       // how many of them have a password that can be read
	faulty map[string]bool           // names that stand on lines with errors
	served served                    // how many of the users the mechanisms serve
	lives  lives                     // of those who have no nologin
}

// An entry is what one line says.
type entry struct {
	name   string
	secret string // the password field as it stands
	home   string // absolute, or empty
	extra  extra
}

// extra holds the extra fields that count.
type extra struct {
	nologin bool
	limited bool // to nets
	nets    []netip.Prefix
	loginAs []string // names, and patterns of names
	quota   auth.Quota
	life    auth.Life
}

func (e *entry) identity() auth.Identity {
	return auth.Identity{User: e.name, Home: e.home, Quota: e.extra.quota, Life: e.extra.life}
}

// parse reads a users file's text. It returns all errors at once (errors.Join), each with path, line,
// what is wrong and what would be right; none quotes the line, which may hold a password in the wrong
// place. The table holds the lines that are right, even if others are wrong.
func parse(path, text string, set scheme.Set) (*table, error) {
	t := &table{text: text, set: set, index: make(map[string]uint32, strings.Count(text, "\n")+1)}
	var errs []error
	wrong := 0
	number := 0
	for offset := 0; offset < len(text); {
		number++
		line, next := lineAt(text, offset)
		if err := t.add(line, offset); err != nil {
			t.fault(line)
			for _, one := range each(err) {
				if wrong++; wrong <= maxErrors {
					errs = append(errs, fmt.Errorf("%s:%d: %w", path, number, one))
				}
			}
		}
		offset = next
	}
	if wrong > maxErrors {
		errs = append(errs, fmt.Errorf("%s: and %d more errors", path, wrong-maxErrors))
	}
	return t, errors.Join(errs...)
}

// add takes in the line that begins at offset.
func (t *table) add(line string, offset int) error {
	if skipped(line) {
		return nil
	}
	e, err := parseLine(line)
	if err != nil {
		return err
	}
	if first, found := t.index[e.name]; found {
		return fmt.Errorf("the user of line %d again; one line a user would be right", 1+strings.Count(t.text[:first], "\n"))
	}
	h, err := t.set.Parse(e.secret)
	if err != nil {
		return err
	}
	t.index[e.name] = uint32(offset)
	if !e.extra.nologin {
		t.lives.add(e.extra.life)
	}
	if !h.Locked() {
		t.lend(h, uint32(offset))
		if h.Plain() {
			t.plain++
		}
		if !e.extra.nologin {
			t.served.add(h)
		}
	}
	return nil
}

// maxCosts bounds how many costs of hashes a table keeps: most files have few.
const maxCosts = 64

// A borrowed hash is one line's of those that cost the same.
type borrowed struct {
	offset uint32 // of the line
	users  int
}

func (t *table) lend(h scheme.Hash, offset uint32) {
	if b, found := t.costs[h.Cost()]; found {
		b.users++
		return
	}
	if t.costs == nil {
		t.costs = make(map[scheme.Cost]*borrowed)
	}
	if len(t.costs) < maxCosts {
		t.costs[h.Cost()] = &borrowed{offset, 1}
	}
}

// fault notes whose line has an error, if that can be told.
func (t *table) fault(line string) {
	name, _, found := strings.Cut(line, ":")
	if !found || badName(name) != "" {
		return
	}
	if t.faulty == nil {
		t.faulty = make(map[string]bool)
	}
	t.faulty[name] = true
}

// at returns the entry of a line that add took in.
func (t *table) at(offset uint32) entry {
	line, _ := lineAt(t.text, int(offset))
	e, _ := parseLine(line)
	return e
}

// lookup finds a user by the exact name, or else by its form in ASCII lower case: phones like to
// capitalize what is typed first.
func (t *table) lookup(name string) (entry, bool) {
	offset, found := t.index[name]
	if !found {
		offset, found = t.index[auth.Lower(name)]
	}
	if !found {
		return entry{}, false
	}
	return t.at(offset), true
}

// login finds a user who wants to log in, or the error of his line.
func (t *table) login(name string) (e entry, known bool, err error) {
	if _, exact := t.index[name]; t.faulty[name] || !exact && t.faulty[auth.Lower(name)] {
		return entry{}, false, errFaulty
	}
	e, known = t.lookup(name)
	return e, known, nil
}

// lineAt returns the line that begins at offset, without its end, and where the next one begins.
func lineAt(text string, offset int) (line string, next int) {
	line, next = text[offset:], len(text)
	if n := strings.IndexByte(line, '\n'); n >= 0 {
		line, next = line[:n], offset+n+1
	}
	return strings.TrimSuffix(line, "\r"), next
}

// skipped says that a line is a comment or blank.
func skipped(line string) bool {
	return strings.HasPrefix(line, "#") || strings.Trim(line, " \t") == ""
}

// parseLine takes one user's line apart. It does not look into the password field.
func parseLine(line string) (entry, error) {
	if len(line) > maxLine {
		return entry{}, fmt.Errorf("a line of %d octets; at most %d would be right", len(line), maxLine)
	}
	if strings.ContainsFunc(line, control) {
		return entry{}, errors.New("a control octet; printable text would be right")
	}
	var fields [8]string
	rest, more := line, true
	n := 0
	for ; more && n < len(fields)-1; n++ {
		fields[n], rest, more = strings.Cut(rest, ":")
	}
	if more {
		fields[7] = rest // the last field keeps its colons: IPv6 networks
	}
	if n == 1 {
		return entry{}, errors.New("no colon; user:{SCHEME}hash would be right")
	}
	e := entry{name: fields[0], secret: fields[1]}
	if what := badName(e.name); what != "" {
		return entry{}, errors.New(what)
	}
	if strings.HasPrefix(fields[5], "/") {
		e.home = fields[5]
	}
	var err error
	e.extra, err = parseExtra(fields[7])
	return e, err
}

// badName says what is wrong with a user's name and what would be right, or nothing. A name becomes a
// part of a path and of log lines.
func badName(name string) string {
	switch {
	case name == "":
		return "an empty user name; one of 1 to 255 octets would be right"
	case len(name) > maxName:
		return "a user name over 255 octets; a shorter one would be right"
	case strings.Contains(name, "/"):
		return "a user name with a slash; a name that can be a folder's would be right"
	case name[0] == '.':
		return "a user name that starts with a dot; a name that can be a folder's would be right"
	case name[0] == ' ' || name[len(name)-1] == ' ':
		return "a user name with a space at its start or end; none would be right"
	case name[0] == '#':
		return "a user name that starts with #, which makes a comment; another name would be right"
	case strings.Contains(name, ":"):
		return "a user name with a colon, which ends the name in the file; another name would be right"
	case strings.ContainsFunc(name, control):
		return "a user name with a control octet; printable text would be right"
	}
	return ""
}

func control(r rune) bool { return r < ' ' || r == 0x7f }

// parseExtra reads the extra fields, which spaces part. Unknown ones are left alone. It returns all errors at once.
func parseExtra(field string) (extra, error) {
	var x extra
	var errs []error
	for one := range strings.SplitSeq(field, " ") {
		key, value, given := strings.Cut(one, "=")
		switch key {
		case "nologin":
			x.nologin = true
		case "allow_nets":
			x.limited = true
			for net := range strings.SplitSeq(value, ",") {
				if net == "local" { // Dovecot's word for a UNIX socket; here nobody comes by one
					continue
				}
				prefix, err := parseNet(net)
				if err != nil {
					errs = append(errs, errors.New("allow_nets with something that is no address; 192.0.2.0/24,2001:db8::1 would be right"))
					break
				}
				x.nets = append(x.nets, prefix)
			}
		case "login_as":
			list, err := parseLoginAs(value)
			if err != nil {
				errs = append(errs, err)
			}
			x.loginAs = append(x.loginAs, list...)
		case "quota", "quota_messages", "userdb_quota_rule":
			if err := x.quotaField(key, value); err != nil {
				errs = append(errs, err)
			}
		case "retention", "undelete", "deletion", "window", "window_messages", "folders":
			if err := x.lifeField(key, value, given); err != nil {
				errs = append(errs, err)
			}
		}
	}
	if errs != nil {
		return extra{}, errors.Join(errs...)
	}
	return x, nil
}

func parseNet(text string) (netip.Prefix, error) {
	if strings.Contains(text, "/") {
		return netip.ParsePrefix(text)
	}
	a, err := netip.ParseAddr(text)
	if err != nil {
		return netip.Prefix{}, err
	}
	return netip.PrefixFrom(a, a.BitLen()), nil
}

// admits says whether a client at this address may log in.
func (x extra) admits(remote netip.Addr) bool {
	if x.nologin {
		return false
	}
	if !x.limited {
		return true
	}
	remote = remote.Unmap().WithZone("")
	for _, net := range x.nets {
		if net.Contains(remote) {
			return true
		}
	}
	return false
}
