package recipients

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Bounds of a file of aliases.
const (
	maxFile   = 16 << 20 // octets
	maxDepth  = 10       // aliases one behind the other
	maxErrors = 100      // that are told; the rest is counted
)

// everybody is the key of the catch-all for all domains.
const everybody = "*"

// A table is one version of the file of aliases: those that stand in it, by their keys.
type table map[string]*alias

type alias struct {
	key     string
	line    int
	targets []target
	looked  look
	depth   int // of aliases below, when looked at
}

type look int

const (
	unseen look = iota
	seeing
	seen
)

type target struct {
	address address
	line    int
	plain   bool   // written with a backslash: a user
	to      *alias // nil: a user
}

// A parser reads a file of aliases.
type parser struct {
	path    string
	domains []string
	table   table
	order   []*alias // as in the file
	errs    []error
	wrong   int
}

// parseAliases reads the text of a file of aliases. It returns all errors at once (errors.Join), each with path,
// line, what is wrong and what would be right. domains are those that are ours; none: any.
func parseAliases(path, text string, domains []string) (table, error) {
	p := &parser{path: path, domains: domains, table: table{}}
	entry, first := []string(nil), 0
	number := 0
	for line := range strings.Lines(strings.TrimPrefix(text, "\ufeff")) { // editors put a byte order mark there
		number++
		line = strings.TrimSuffix(strings.TrimSuffix(line, "\n"), "\r")
		blank := strings.TrimLeft(line, " \t")
		if blank == "" || blank[0] == '#' {
			if entry != nil {
				entry = append(entry, "") // its lines are counted
			}
			continue
		}
		switch {
		case len(blank) == len(line):
			p.entry(entry, first)
			entry, first = []string{line}, number
		case entry == nil:
			p.fault(number, "a line that begins with a blank, and nothing before that it could continue; an alias at the line's begin would be right")
		default:
			entry = append(entry, line)
		}
	}
	p.entry(entry, first)
	for _, a := range p.order {
		p.link(a)
	}
	for _, a := range p.order {
		p.follow(a, nil)
	}
	if p.wrong > maxErrors {
		p.errs = append(p.errs, fmt.Errorf("%s: and %d more errors", path, p.wrong-maxErrors))
	}
	return p.table, errors.Join(p.errs...)
}

func (p *parser) fault(line int, format string, args ...any) {
	if p.wrong++; p.wrong <= maxErrors {
		p.errs = append(p.errs, fmt.Errorf("%s:%d: %s", p.path, line, fmt.Sprintf(format, args...)))
	}
}

// entry takes in an alias with the lines that continue it.
func (p *parser) entry(lines []string, first int) {
	if lines == nil {
		return
	}
	for i, line := range lines {
		if strings.ContainsFunc(line, func(r rune) bool { return r != '\t' && control(r) }) || !utf8.ValidString(line) {
			p.fault(first+i, "an octet that is no text; printable UTF-8 would be right")
			return
		}
	}
	fields, ok := cut(strings.Join(lines, "\n"), ':', 2)
	switch {
	case !ok:
		p.fault(first, "a quotation mark without its other one; one at each end would be right")
		return
	case len(fields) < 2:
		p.fault(first, "no colon; name: target, target would be right")
		return
	}
	a := &alias{line: first}
	var wrong string
	if a.key, wrong = p.key(strings.TrimSpace(fields[0].text)); wrong != "" {
		p.fault(first, "%s", wrong)
	}
	targets, _ := cut(fields[1].text, ',', -1)
	for _, f := range targets {
		line := first + fields[1].line + f.line + strings.Count(f.text[:len(f.text)-len(strings.TrimLeft(f.text, " \t\n"))], "\n")
		t, wrong := p.target(strings.TrimSpace(f.text))
		if wrong != "" {
			p.fault(min(line, first+len(lines)-1), "%s", wrong)
			continue
		}
		t.line = line
		a.targets = append(a.targets, t)
	}
	if a.key == "" {
		return
	}
	if other, taken := p.table[a.key]; taken {
		p.fault(first, "the alias of line %d again; all targets in one line would be right", other.line)
		return
	}
	p.table[a.key] = a
	p.order = append(p.order, a)
}

// A field is a part of an entry, and how many lines below the entry's first it begins.
type field struct {
	text string
	line int
}

// cut cuts at a separator outside of quotation marks and brackets, into at most most fields, and drops comments.
func cut(text string, separator byte, most int) (fields []field, ok bool) {
	var b strings.Builder
	f := field{}
	line, quoted, literal := 0, false, false
	for i := 0; i < len(text); i++ {
		c := text[i]
		switch {
		case c == '\n':
			line++
			literal = false
		case c == '\\' && quoted && i+1 < len(text) && text[i+1] != '\n':
			b.WriteByte(c)
			i++
			c = text[i]
		case c == '"':
			quoted = !quoted
		case quoted:
		case c == '[' || c == ']':
			literal = c == '['
		case c == '#' && i > 0 && strings.IndexByte(" \t", text[i-1]) >= 0:
			end := strings.IndexByte(text[i:], '\n')
			if end < 0 {
				end = len(text) - i
			}
			i += end - 1
			continue
		case c == separator && !literal && len(fields) != most-1:
			f.text = b.String()
			fields = append(fields, f)
			f = field{line: line}
			b.Reset()
			continue
		}
		b.WriteByte(c)
	}
	f.text = b.String()
	return append(fields, f), !quoted
}

// key reads what stands left of the colon, or says what is wrong with it.
func (p *parser) key(text string) (key, wrong string) {
	if wrong := hidden(text); wrong != "" {
		return "", wrong
	}
	if text == everybody {
		return everybody, ""
	}
	if domain, ok := strings.CutPrefix(text, "@"); ok {
		if !validDomain(domain) {
			return "", fmt.Sprintf("%s is no domain; @example.org would be right", quote(text))
		}
		return lower(text), p.foreign(lower(domain))
	}
	if domain, ok := strings.CutPrefix(text, "*@"); ok && validDomain(domain) {
		return "", fmt.Sprintf("%s is no address; @%s, which stands for all of the domain, would be right", quote(text), domain)
	}
	a, ok := parseAddress(text)
	if !ok {
		return "", fmt.Sprintf("%s is no address and no name; info@example.org, info, @example.org or * would be right", quote(text))
	}
	return a.key(), p.foreign(a.domain)
}

// foreign says what is wrong with a domain that is not ours.
func (p *parser) foreign(domain string) string {
	if domain == "" || len(p.domains) == 0 || slices.Contains(p.domains, domain) {
		return ""
	}
	return fmt.Sprintf("the domain %s is not in recipients.domains; one of those, or to list it there, would be right", quote(domain))
}

// target reads one target, or says what is wrong with it.
func (p *parser) target(text string) (target, string) {
	switch bare := strings.TrimLeft(text, `"`); {
	case text == "":
		return target{}, "a target is missing; name: target, target would be right"
	case bare != "" && bare[0] == '|':
		return target{}, "a command: dewey runs none; a user or an alias would be right, and the command in the mail server's own aliases"
	case bare != "" && bare[0] == '/':
		return target{}, "a file: dewey writes into maildrops alone; a user or an alias would be right"
	case bare != "" && bare[0] == ':':
		return target{}, ":include: and the like: dewey reads one file; the targets themselves, with commas between, would be right"
	}
	if wrong := hidden(text); wrong != "" {
		return target{}, wrong
	}
	text, plain := strings.CutPrefix(text, `\`)
	a, ok := parseAddress(text)
	if !ok {
		right := "mrose or mrose@example.org would be right"
		if strings.ContainsAny(text, " \t\n") {
			right = "a comma between two targets, or quotation marks around a name with blanks, would be right"
		}
		return target{}, fmt.Sprintf("%s is no user and no alias; %s", quote(text), right)
	}
	if p.foreign(a.domain) != "" {
		return target{}, fmt.Sprintf("the domain of %s is not in recipients.domains: dewey sends no mail on; a user or an alias of its own would be right", quote(text))
	}
	return target{address: a, plain: plain}, ""
}

// link finds the targets that are aliases. One that is the alias itself is the user of that name, who keeps
// a copy. aliases(5).
func (p *parser) link(a *alias) {
	for i, t := range a.targets {
		to := p.table[t.address.key()]
		if t.plain {
			continue
		}
		if t.address.key() == everybody && (to == nil || to == a) {
			p.fault(t.line, "* is nobody; right of the colon the users, such as mrose, would be right, or %s for a user of that name", `\*`)
		}
		if to != a {
			a.targets[i].to = to
		}
	}
}

// follow looks for loops below an alias, and measures how deep it goes. path is how it was come to.
func (p *parser) follow(a *alias, path []*alias) {
	if a.looked == seen {
		return
	}
	a.looked = seeing
	path = append(path, a)
	for _, t := range a.targets {
		if t.to == nil {
			continue
		}
		if t.to.looked == seeing {
			var loop strings.Builder
			for _, b := range path[slices.Index(path, t.to):] {
				fmt.Fprintf(&loop, "%s (line %d) to ", b.key, b.line)
			}
			p.fault(t.line, "a loop, %s%s; a target that is a user would be right", &loop, t.to.key)
			continue
		}
		p.follow(t.to, path)
		a.depth = max(a.depth, t.to.depth+1)
	}
	a.looked = seen
	if a.depth == maxDepth {
		p.fault(a.line, "more than %d aliases one behind the other; to name the users themselves would be right", maxDepth)
	}
}

// hidden says what is wrong with a name that looks like another one.
func hidden(text string) string {
	for _, r := range text {
		// The joiners belong to some scripts: RFC 5892 appendix A.
		if r > '~' && (unicode.IsSpace(r) || unicode.IsControl(r) || unicode.Is(unicode.Cf, r) && r != '\u200c' && r != '\u200d') {
			return fmt.Sprintf("%s has the character %U, which can't be seen or looks like a blank; the name without it would be right", quote(text), r)
		}
	}
	return ""
}

// quote shows a part of a line in an error: cut, and without control octets.
func quote(s string) string {
	const most = 80
	if len(s) > most {
		s = s[:most] + "…"
	}
	return fmt.Sprintf("%q", s)
}
