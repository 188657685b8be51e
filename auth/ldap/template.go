package ldap

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	goldap "github.com/go-ldap/ldap/v3"
)

// A plan is a Config that was checked and read.
type plan struct {
	servers    []*server
	scope      int
	filter     filter
	recipient  filter
	group      filter
	dn         dnTemplate
	attributes []string // what of a user's entry counts beside the password
}

// maxTemplate bounds filters and names in a configuration, in octets.
const maxTemplate = 4096

// A filter is one of RFC 4515 with placeholders in it; empty: there is none.
type filter string

// A dnTemplate is a name of RFC 4514 with placeholders in it.
type dnTemplate struct {
	text string
	tail *goldap.DN // the end of it that has no placeholder
}

// values are what placeholders stand for.
type values map[string]string

// valuesOf takes a user's name apart.
func valuesOf(user string) values {
	local, domain := user, ""
	if i := strings.LastIndexByte(user, '@'); i >= 0 {
		local, domain = user[:i], user[i+1:]
	}
	return values{"user": user, "local": local, "domain": domain}
}

// fill puts escaped values in. False if a part that the template needs is empty.
func (v values) fill(template string, escape func(string) string) (string, bool) {
	var pairs []string
	for name, value := range v {
		if value == "" && contains(template, name) {
			return "", false
		}
		pairs = append(pairs, "{"+name+"}", escape(value))
	}
	return strings.NewReplacer(pairs...).Replace(template), true
}

func contains(template, placeholder string) bool {
	return strings.Contains(template, "{"+placeholder+"}")
}

// fill puts values in, escaped: RFC 4515 section 3.
func (f filter) fill(v values) (string, bool) { return v.fill(string(f), goldap.EscapeFilter) }

// fill puts values in, escaped: RFC 4514 section 2.4.
func (t dnTemplate) fill(v values) (string, bool) { return v.fill(t.text, goldap.EscapeDN) }

// samples stand for all placeholders when a template is read.
func samples(names []string) values {
	v := values{}
	for _, name := range names {
		v[name] = "x"
	}
	return v
}

func parseFilter(text string, known ...string) (filter, error) {
	// Where a value stands, nothing of it is more than a value once it is escaped; elsewhere = and : would be.
	if err := checkPlaceholders(text, "(", known); err != nil {
		return "", err
	}
	sample, _ := samples(known).fill(text, goldap.EscapeFilter)
	if _, err := goldap.CompileFilter(sample); err != nil {
		return "", fmt.Errorf("%q is no filter: %w; one such as (uid={user}) would be right", text, err)
	}
	return filter(text), nil
}

func parseDN(text string, known ...string) (dnTemplate, error) {
	if err := checkPlaceholders(text, ",+;", known); err != nil {
		return dnTemplate{}, err
	}
	sample, _ := samples(known).fill(text, goldap.EscapeDN)
	if err := checkDN(sample); err != nil {
		return dnTemplate{}, err
	}
	last := strings.LastIndexByte(text, '}')
	end := strings.IndexByte(text[last:], ',')
	if end < 0 {
		return dnTemplate{}, fmt.Errorf("%q does not end in a fixed name; uid={user},ou=people,dc=example,dc=org would be right", text)
	}
	tail, err := goldap.ParseDN(text[last+end+1:])
	if err != nil {
		return dnTemplate{}, fmt.Errorf("%q: %w", text, err)
	}
	return dnTemplate{text, tail}, nil
}

// checkPlaceholders says whether a template has placeholders, only those it may, and each after the = that follows one of
// the octets in begin.
func checkPlaceholders(text, begin string, known []string) error {
	right := "{" + strings.Join(known, "}, {") + "}"
	if len(text) > maxTemplate {
		return fmt.Errorf("longer than %d octets; a shorter one would be right", maxTemplate)
	}
	found := false
	for rest := text; ; {
		before, after, open := strings.Cut(rest, "{")
		if strings.Contains(before, "}") {
			return fmt.Errorf("%q has a } without {; %s would be right", text, right)
		}
		if !open {
			break
		}
		name, behind, closed := strings.Cut(after, "}")
		if !closed || !slices.Contains(known, name) {
			return fmt.Errorf("%q has another placeholder than there are; %s would be right", text, right)
		}
		so := text[:len(text)-len(after)-1]
		if !strings.Contains(so[strings.LastIndexAny(so, begin)+1:], "=") {
			return fmt.Errorf("%q has {%s} where no value is; one after =, as in uid={user}, would be right", text, name)
		}
		found, rest = true, behind
	}
	if !found {
		return fmt.Errorf("%q is the same for every user; %s in it would be right", text, right)
	}
	return nil
}

// checkDN says what is wrong with a name; an empty one is none.
func checkDN(text string) error {
	if len(text) > maxTemplate {
		return fmt.Errorf("longer than %d octets; a shorter one would be right", maxTemplate)
	}
	if _, err := goldap.ParseDN(text); err != nil {
		return fmt.Errorf("%q is no name of an entry: %w; one such as ou=people,dc=example,dc=org would be right", text, err)
	}
	return nil
}

func scopeOf(text string) (int, error) {
	switch text {
	case "sub":
		return goldap.ScopeWholeSubtree, nil
	case "one":
		return goldap.ScopeSingleLevel, nil
	case "base":
		return goldap.ScopeBaseObject, nil
	}
	return 0, fmt.Errorf("ldap: scope %q; sub, one or base would be right", text)
}

// absent says whether a server's noSuchObject means that a user's entry alone is missing: what it found ends in the
// template's fixed end. RFC 4511 section 4.1.9. Without it, the fixed end may be wrong, or hidden from who asked.
func (t dnTemplate) absent(err error) bool {
	var e *goldap.Error
	if !errors.As(err, &e) || e.ResultCode != goldap.LDAPResultNoSuchObject {
		return false
	}
	matched, err := goldap.ParseDN(e.MatchedDN)
	if err != nil {
		return false
	}
	return t.tail.EqualFold(matched) || t.tail.AncestorOfFold(matched)
}
