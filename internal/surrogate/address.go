package surrogate

import "strings"

// addresses rewrites a list of addresses. RFC 6857 section 3.2.1, RFC 5322 section 3.4.
func addresses(value string) ([]piece, verdict) { return addressList(value, true) }

// path rewrites an address in a field where no group may stand.
func path(value string) ([]piece, verdict) {
	pieces, v := addressList(value, false)
	if v == unparsed {
		v = inexpressible
	}
	return pieces, v
}

func addressList(value string, groups bool) ([]piece, verdict) {
	tokens, ok := tokenize(value)
	if !ok {
		return nil, unparsed
	}
	var b builder
	for len(tokens) > 0 {
		n, ok := addressEnd(tokens)
		if !ok {
			return nil, unparsed
		}
		if v := b.address(tokens[:n], groups); v != rewritten {
			return nil, v
		}
		tokens = tokens[n:]
		if len(tokens) > 0 && (tokens[0].kind == ',' || tokens[0].kind == ';') {
			b.literal(tokens[0].raw)
			b.space = " " // a place to fold, if there was none
			tokens = tokens[1:]
		}
	}
	return b.pieces, rewritten
}

// addressEnd is the length of the first address: up to a comma, or for a group up to and including
// its semicolon. Semicolons between addresses, as some clients write, are taken for commas.
func addressEnd(tokens []token) (n int, ok bool) {
	angle, group := false, false
	for i, t := range tokens {
		switch {
		case t.kind == '<' || t.kind == '>':
			if angle == (t.kind == '<') {
				return 0, false
			}
			angle = !angle
		case angle:
		case t.kind == ':':
			if group {
				return 0, false
			}
			group = true
		case t.kind == ';' && group:
			return i + 1, true
		case (t.kind == ',' || t.kind == ';') && !group:
			return i, true
		}
	}
	return len(tokens), !angle && !group
}

// address adds one address, a mailbox or a group.
func (b *builder) address(tokens []token, groups bool) verdict {
	colon, angle := indexKind(tokens, ':'), indexKind(tokens, '<')
	switch {
	case isASCII(rawOf(tokens)):
		b.tokens(tokens)
		return rewritten
	case colon >= 0 && (angle < 0 || colon < angle):
		return b.group(tokens[:colon], tokens[colon+1:len(tokens)-1], groups)
	}
	m, ok := parseMailbox(tokens)
	switch {
	case !ok:
		return unparsed
	case m.reachable():
		b.mailbox(m)
		return rewritten
	case !groups:
		return inexpressible
	}
	b.leadingSpace(tokens)
	b.unreachable(m.String())
	for _, t := range tokens {
		if t.kind == commentToken {
			b.space = " "
			b.comment(t.raw)
		}
	}
	return rewritten
}

// unreachable adds text as the name of an empty group. RFC 6857 section 3.1.
func (b *builder) unreachable(text string) {
	b.add(piece{encoded: true, text: text})
	b.space = " "
	b.literal(":;")
}

func (b *builder) leadingSpace(tokens []token) {
	if len(tokens) > 0 && tokens[0].kind == spaceToken {
		b.space = tokens[0].raw
	}
}

// group adds a group. If one of its mailboxes has no ASCII form the whole group becomes the name of
// an empty one, for groups do not nest. RFC 5322 section 3.4.
func (b *builder) group(name, list []token, groups bool) verdict {
	members, reachable := splitMailboxes(list)
	if members == nil {
		return unparsed
	}
	if !reachable {
		if !groups {
			return inexpressible
		}
		b.leadingSpace(name)
		b.unreachable(strings.Trim(unfold(rawOf(name)+":"+rawOf(list)), " \t"))
		return rewritten
	}
	b.phrase(name)
	b.literal(":")
	for i, m := range members {
		if i > 0 {
			b.literal(",")
			b.space = " "
		}
		b.mailbox(m)
	}
	b.literal(";")
	return rewritten
}

// splitMailboxes returns the mailboxes of a group, nil if they cannot be parsed, and whether all of
// them have an ASCII form.
func splitMailboxes(list []token) (members []mailbox, reachable bool) {
	reachable = true
	for {
		n := 0
		for angle := false; n < len(list) && (angle || list[n].kind != ','); n++ {
			angle = list[n].kind == '<' || angle && list[n].kind != '>'
		}
		m, ok := parseMailbox(list[:n])
		if !ok {
			return nil, false
		}
		members = append(members, m)
		reachable = reachable && m.reachable()
		if n == len(list) {
			return members, reachable
		}
		list = list[n+1:]
	}
}

// A mailbox is a name and an address in angle brackets, or an address alone.
type mailbox struct {
	name, addr, tail []token
	angle            bool
	spec             string // the address in ASCII without CFWS; empty if it has no ASCII form
}

// parseMailbox fails if something other than CFWS follows the angle brackets.
func parseMailbox(tokens []token) (mailbox, bool) {
	m := mailbox{addr: tokens}
	if open := indexKind(tokens, '<'); open >= 0 {
		end := indexKind(tokens, '>')
		if end < open || coreOf(tokens[end+1:]) != "" {
			return mailbox{}, false
		}
		m = mailbox{name: tokens[:open], addr: tokens[open+1 : end], tail: tokens[end+1:], angle: true}
	}
	m.spec = asciiAddress(m.addr)
	if m.angle {
		m.spec = "<" + m.spec + ">"
		if m.spec == "<>" && coreOf(m.addr) != "" {
			m.spec = ""
		}
	}
	return m, true
}

// asciiAddress is the address that the tokens say, its domain as A-labels, or nothing if there is no
// such address in ASCII. RFC 5891 section 5.
func asciiAddress(tokens []token) string {
	if core := coreOf(tokens); isASCII(core) {
		return core
	}
	at := len(tokens) - 1
	for at >= 0 && tokens[at].kind != '@' {
		at--
	}
	if at < 0 {
		return ""
	}
	local, domain := coreOf(tokens[:at]), coreOf(tokens[at+1:])
	domain, ok := asciiDomain(domain)
	if !ok || local == "" || !isASCII(local) {
		return ""
	}
	return local + "@" + domain
}

// reachable says whether the mailbox has an ASCII form; one without an address has.
func (m mailbox) reachable() bool { return m.spec != "" || coreOf(m.addr) == "" }

// String is the mailbox as a reader should see it.
func (m mailbox) String() string {
	addr := coreOf(m.addr)
	name := textOf(m.name)
	if name == "" {
		return addr
	}
	return name + " <" + addr + ">"
}

// mailbox adds a mailbox that has an ASCII form.
func (b *builder) mailbox(m mailbox) {
	if !m.angle && isASCII(coreOf(m.addr)) {
		b.tokens(m.addr)
		return
	}
	if !m.angle {
		b.leadingSpace(m.addr)
	}
	b.phrase(m.name)
	b.literal(m.spec)
	for _, t := range m.addr {
		if t.kind == commentToken {
			b.space = " "
			b.comment(t.raw)
		}
	}
	b.tokens(m.tail)
}

// phrases rewrites Keywords. RFC 5322 section 3.6.5.
func phrases(value string) ([]piece, verdict) {
	tokens, ok := tokenize(value)
	if !ok {
		return nil, unparsed
	}
	var b builder
	for {
		n := indexKind(tokens, ',')
		if n < 0 {
			b.phrase(tokens)
			return b.pieces, rewritten
		}
		b.phrase(tokens[:n])
		b.literal(",")
		b.space = " "
		tokens = tokens[n+1:]
	}
}
