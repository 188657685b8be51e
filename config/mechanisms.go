package config

import (
	"slices"
	"strings"
)

// Mechanisms are those that login.mechanisms may list: APOP (RFC 1939 section 7), and SASL's by their
// names (RFC 4422 section 3.1).
var Mechanisms = []string{
	"APOP", "PLAIN", "LOGIN", "CRAM-MD5", "SCRAM-SHA-1", "SCRAM-SHA-256", "SCRAM-SHA-1-PLUS", "SCRAM-SHA-256-PLUS", "EXTERNAL", "OAUTHBEARER", "XOAUTH2",
}

// auto stands for the mechanisms that dewey chooses.
const auto = "auto"

// mechanisms is auto, which is nil, or a list of names.
var mechanisms = func() kind[[]string] {
	names := list(word(aString, `"PLAIN"`, mechanism, quoteTOML), `["PLAIN", "SCRAM-SHA-256"]`, func(s string) string { return s })
	return kind[[]string]{
		what: aList,
		read: func(r raw) ([]string, []fault) {
			if r.what == aList {
				return names.read(r)
			}
			if r.what == aString && strings.EqualFold(r.text, auto) {
				return nil, nil
			}
			wrong := "is " + r.what
			if r.what == aString {
				wrong = quote(r.text) + " is neither auto nor a list"
			}
			return nil, []fault{{line: r.line, wrong: wrong, right: `write "auto" or a list, such as ["PLAIN", "SCRAM-SHA-256"]`}}
		},
		split: func(s string) (raw, *fault) {
			if t := strings.TrimSpace(s); strings.EqualFold(t, auto) {
				return raw{what: aString, text: t}, nil
			}
			return names.split(s)
		},
		show: func(v []string) string {
			if v == nil {
				return quoteTOML(auto)
			}
			return names.show(v)
		},
	}
}()

// mechanism returns a mechanism's name in capitals.
func mechanism(s string) (string, *fault) {
	if name := strings.ToUpper(s); slices.Contains(Mechanisms, name) {
		return name, nil
	}
	right := "write some of " + strings.Join(Mechanisms, ", ")
	small := make([]string, len(Mechanisms))
	for i, m := range Mechanisms {
		small[i] = strings.ToLower(m)
	}
	if near := nearest(s, small); near != "" {
		right = "did you mean " + quoteTOML(strings.ToUpper(near)) + "?"
	}
	switch strings.ToUpper(s) {
	case "AUTO":
		right = `write mechanisms = "auto", without a list`
	case "USER", "PASS":
		right = "USER and PASS are switched by login.user_pass"
	}
	return "", faultf(right, "%s is not a mechanism that dewey knows", quote(s))
}
