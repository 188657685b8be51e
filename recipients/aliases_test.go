package recipients

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// Every error is told at once, with its line and what would be right.
func TestAliasErrors(t *testing.T) {
	const file = `	early: x
no colon here
(x): mrose
empty:
empty2: # nothing
cmd: "|/usr/bin/vacation mrose", mrose,
	|/bin/true,

	/var/mail/x, "/dev/null"
incl: :include:/etc/list
blank: mrose bob
comma: mrose,, bob
end: mrose,
open: "mrose
*@example.org: mrose
@: mrose
@exa mple: mrose
far@example.edu: mrose
@example.edu: mrose
away: mrose@example.edu
a: b
B: c,
	d
c: a
d: d
a: x
A: x
x y: mrose
ctrl: mro` + "\x01" + `se
raw: m` + "\xff" + `rose
<a@example.org>: mrose
<: mrose
`
	_, err := parseAliases("aliases", file, []string{"example.org"})
	if err == nil {
		t.Fatal("no error")
	}
	got := strings.Split(err.Error(), "\n")
	var begins []string
	for _, line := range got {
		_, rest, _ := strings.Cut(line, ":")
		number, text, _ := strings.Cut(rest, ": ")
		begins = append(begins, number+" "+text[:min(len(text), 20)])
		if !strings.Contains(line, "would be right") {
			t.Errorf("%s: and what would be right?", line)
		}
	}
	slices.SortStableFunc(begins, func(a, b string) int {
		line := func(s string) int { n, _ := strconv.Atoi(strings.Fields(s)[0]); return n }
		return line(a) - line(b)
	})
	want := []string{
		"1 a line that ", "2 no colon; n", `3 "(x)" is no `, "4 a target is", "5 a target is", "6 a command: ", "7 a command: ", "9 a file: dew", "9 a file: dew",
		"10 :include: an", `11 "mrose bob" `, "12 a target is", "13 a target is", "14 a quotation", `15 "*@example.`, `16 "@" is no d`, `17 "@exa mple"`,
		"18 the domain", "19 the domain", "20 the domain o", "24 a loop, a (l", "26 the alias of", "27 the alias of", `28 "x y" is no `,
		"29 an octet tha", "30 an octet tha", `31 "<a@example`, `32 "<" is no a`,
	}
	if !slices.EqualFunc(begins, want, strings.HasPrefix) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(begins, "\n"), strings.Join(want, "\n"))
	}
	if !strings.Contains(err.Error(), "aliases:24: a loop, a (line 21) to b (line 22) to c (line 24) to a; ") {
		t.Error(err)
	}
}

func TestAliasesDeep(t *testing.T) {
	chain := func(n int) string {
		var b strings.Builder
		for i := range n {
			fmt.Fprintf(&b, "a%d: a%d\n", i, i+1)
		}
		return b.String()
	}
	if _, err := parseAliases("aliases", chain(10), nil); err != nil {
		t.Error(err)
	}
	if _, err := parseAliases("aliases", chain(11), nil); err == nil || !strings.Contains(err.Error(), "aliases:1: more than 10 aliases") {
		t.Error(err)
	}
	if _, err := parseAliases("aliases", chain(200000), nil); err == nil || strings.Count(err.Error(), "\n") > 0 {
		t.Error("a long chain is told of once")
	}
	if _, err := parseAliases("aliases", strings.Repeat("x\n", 5000), nil); err == nil || !strings.HasSuffix(err.Error(), "aliases: and 4900 more errors") {
		t.Error("too many errors are counted")
	}
	// Many ways to the same users are no more work than the file is long.
	var wide strings.Builder
	for i := range 9 {
		fmt.Fprintf(&wide, "a%d: %s\n", i, strings.Repeat(fmt.Sprintf("a%d,", i+1), 50)+"mrose")
	}
	r := resolver(t, Rules{}, wide.String()+"a9: mrose", nil)
	begun := time.Now()
	expect(t, r, map[string]string{"a0": "mrose"})
	if took := time.Since(begun); took > time.Second {
		t.Errorf("took %v", took)
	}
}

func FuzzAliases(f *testing.F) {
	f.Add(streets, "info@example.org")
	f.Add("a: b\nb: a\n*: \\x, \"y z\"@[IPv6:::1]\n", "a+x@example.org")
	f.Add("a: \"b\\\"c\" # d\n\t,e\r\n\n#\n @f: g", "q")
	f.Fuzz(func(t *testing.T, text, address string) {
		aliases, err := parseAliases("aliases", text, nil)
		lines := strings.Count(text, "\n") + 1
		if err != nil {
			for one := range strings.SplitSeq(err.Error(), "\n") {
				var n int
				if _, scanned := fmt.Sscanf(one, "aliases:%d: ", &n); scanned == nil && (n < 1 || n > lines) || !strings.HasPrefix(one, "aliases:") {
					t.Errorf("%q of %d lines", one, lines)
				}
			}
			return
		}
		users := people{names: []string{"mrose"}, faulty: "fault"}
		r, err := New(users, Rules{Delimiter: "+"}, "", nil)
		if err != nil {
			t.Fatal(err)
		}
		st := *r.state.Load()
		st.aliases = aliases
		r.state.Store(&st)
		owners, err := r.Resolve(t.Context(), address)
		if (err == nil) != (len(owners) == 1) {
			t.Errorf("%d owners, %v", len(owners), err)
		}
		for key, a := range aliases {
			if len(a.targets) == 0 || a.line < 1 || a.line > lines || a.key != key {
				t.Errorf("%q: %+v", key, a)
			}
		}
	})
}

// What is taken for an address is one, and quoting it gives the same again.
func FuzzAddress(f *testing.F) {
	for _, s := range []string{`"a b"@example.org`, "@a,@b:c@d", `"\"\\"@[IPv6:::1]`, "mrose", "ü@ü.example", "a@b@c", `""`, `a@[@]`} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		a, ok := parseAddress(text)
		if !ok {
			return
		}
		if a.local == "" || strings.ContainsFunc(a.name(), control) || a.domain != lower(a.domain) || strings.Contains(a.domain, "@") {
			t.Errorf("%q: %+v", text, a)
		}
		again := `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(a.local) + `"`
		if a.domain != "" {
			again += "@" + a.spelt
		}
		if b, ok := parseAddress(again); len(again) <= maxAddress && (!ok || b != a) {
			t.Errorf("%q: %+v, then %+v", text, a, b)
		}
	})
}
