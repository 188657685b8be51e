package recipients

import (
	"strings"
	"testing"
)

// What editors and copying leave around names is no part of them: a byte order mark, CRLF, tabs, no-break spaces.
func TestAliasesAsEditorsWriteThem(t *testing.T) {
	for name, text := range map[string]string{
		"plain":           "info: mrose, bob\nlist:\n mrose\n",
		"byte order mark": "\ufeffinfo: mrose, bob\nlist: mrose\n",
		"CRLF":            "info: mrose, bob\r\nlist:\r\n mrose\r\n",
		"both":            "\ufeffinfo: mrose, bob\r\nlist: mrose\r\n",
		"tabs":            "info\t:\tmrose\t,\tbob\nlist:\n\tmrose\t# a comment\n",
		"no-break spaces": "info\u00a0: \u00a0mrose,\u00a0bob\u00a0\n\u00a0list: mrose # no\u00a0matter\n",
		"no end":          "list: mrose\ninfo: mrose, bob",
	} {
		aliases, err := parseAliases("aliases", text, nil)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		var got []string
		for _, key := range []string{"info", "list"} {
			if a := aliases[key]; a != nil {
				for _, target := range a.targets {
					got = append(got, key+"="+target.address.name())
				}
			}
		}
		if all := strings.Join(got, " "); all != "info=mrose info=bob list=mrose" || len(aliases) != 2 {
			t.Errorf("%s: %s, of %d aliases", name, all, len(aliases))
		}
	}
}

// A name that looks like another one, a catch-all that means itself, and texts in other encodings are errors, with
// their line.
func TestAliasesThatMeanNothing(t *testing.T) {
	for text, want := range map[string]string{
		"*: *":                                       "aliases:1: * is nobody",
		"a: b\n*: mrose,\n  *\n":                     "aliases:3: * is nobody",
		"*: \"*\"\n":                                 "aliases:1: * is nobody",
		"info: *\n":                                  "aliases:1: * is nobody",
		"in\u00a0fo: mrose":                          "has the character U+00A0",
		"info: mrose\u00a0bob":                       "has the character U+00A0",
		"a: b\n\u200binfo: mrose":                    "aliases:2: \"\\u200binfo\" has the character U+200B",
		"info: mro\u00adse":                          "has the character U+00AD",
		"info: \"Ann\u2003Lee\"@example.org":         "has the character U+2003",
		"a: b\n\ufeffinfo: mrose":                    "aliases:2: \"\\ufeffinfo\" has the character U+FEFF",
		"info: mrose\rlist: mrose\r":                 "an octet that is no text",
		"\xff\xfei\x00n\x00f\x00o\x00:\x00":          "an octet that is no text",
		"info\uff1a mrose":                           "no colon",
		"info: mrose@\u200eexample.org, \u202ebob\n": "has the character U+202E",
	} {
		_, err := parseAliases("aliases", text, nil)
		if err == nil || !strings.Contains(err.Error(), want) || strings.Count(err.Error(), "would be right") != strings.Count(err.Error(), "aliases:") {
			t.Errorf("%q: %v, want %s", text, err, want)
		}
	}
	for _, text := range []string{
		"*: mrose\ninfo: *\n", // who gets what nobody else has
		"*: \\*\n",            // a user of that name
		"نامه\u200cها: mrose\nक्\u200dष: mrose\n", // joiners that belong there
	} {
		if _, err := parseAliases("aliases", text, nil); err != nil {
			t.Errorf("%q: %v", text, err)
		}
	}
}
