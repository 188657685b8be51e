package passwdfile

import (
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"dewey/auth"
	"dewey/auth/scheme"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestParse(t *testing.T) {
	text := "# users\r\n\n  \nmrose:{PLAIN}tanstaaf\r\n" +
		"full:{PLAIN}x:1000:1000:Full Name:/srv/full:/bin/sh:allow_nets=192.0.2.0/24,2001:db8::1,local other=1\n" +
		"relative:{plain}x::::srv/mail\n" +
		"empty:\n" +
		"locked:!{PLAIN}x::::/srv/locked\n" +
		"under@example.org:{PLAIN}x:::::\n" +
		"with space:{PLAIN}x\n" +
		"last:{PLAIN}y::::::nologin"
	table, err := parse("users", text, scheme.Strong)
	if err != nil {
		t.Fatal(err)
	}
	type user struct {
		Home  string
		Admit bool
	}
	got := map[string]user{}
	for name, offset := range table.index {
		e := table.at(offset)
		if e.name != name {
			t.Errorf("%q is at the line of %q", e.name, name)
		}
		got[name] = user{e.home, e.extra.admits(netip.MustParseAddr("::ffff:192.0.2.7"))}
	}
	want := map[string]user{
		"mrose": {"", true}, "full": {"/srv/full", true}, "relative": {"", true}, "empty": {"", true},
		"locked": {"/srv/locked", true}, "under@example.org": {"", true}, "with space": {"", true}, "last": {"", false},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	n := 0
	for _, b := range table.costs {
		n += b.users
	}
	if n != 6 {
		t.Errorf("%d lines have a hash to run, not 6", n)
	}
	full, _ := table.lookup("Full")
	for address, admitted := range map[string]bool{
		"192.0.2.255": true, "192.0.3.1": false, "2001:db8::1": true, "2001:db8::2": false, "": false,
	} {
		remote, _ := netip.ParseAddr(address)
		if full.extra.admits(remote) != admitted {
			t.Errorf("allow_nets and %q: %v", address, !admitted)
		}
	}
}

// All errors come at once, each with its line, and a wrong line takes no other one with it.
func TestParseErrors(t *testing.T) {
	lines := []struct{ line, wrong string }{
		{"good:{PLAIN}x", ""},
		{"tanstaaf", "no colon"},
		{":{PLAIN}tanstaaf", "empty user name"},
		{"a/b:{PLAIN}tanstaaf", "slash"},
		{"..:{PLAIN}tanstaaf", "dot"},
		{".:{PLAIN}tanstaaf", "dot"},
		{".hidden:{PLAIN}tanstaaf", "dot"},
		{" led:{PLAIN}tanstaaf", "space"},
		{strings.Repeat("n", 256) + ":{PLAIN}tanstaaf", "255"},
		{strings.Repeat("n", 255) + ":{PLAIN}x", ""},
		{"nul:{PLAIN}tans\x00taaf", "control octet"},
		{"tab:{PLAIN}tans\ttaaf", "control octet"},
		{"del\x7f:{PLAIN}tanstaaf", "control octet"},
		{"cr:{PLAIN}tanstaaf\r\r", "control octet"},
		{"long:{PLAIN}" + strings.Repeat("tanstaaf", 1024), "octets"},
		{"good:{PLAIN}tanstaaf", "line 1 again"},
		{"unknown:{tanstaaf}x", "unknown password scheme"},
		{"weak:{MD5-CRYPT}tanstaaf", "too weak: {MD5-CRYPT}; users.weak_schemes = true"},
		{"weak:$1$salt$OiZvjWTmJFjFgNfKL5OTp0", "too weak: {CRYPT}; users.weak_schemes = true"},
		{"iterations:{SCRAM-SHA-1}999999999,tanstaaf,,", "too costly"},
		{"bare:tanstaaf", "malformed"},
		{"dear:{SHA512-CRYPT}$6$rounds=999999999$tanstaaf$x", "too costly"},
		{"nets:{PLAIN}tanstaaf::::::allow_nets=tanstaaf", "allow_nets"},
		{"# comment \x00 of any kind", ""},
		{"also good:{PLAIN}x", ""},
	}
	var text strings.Builder
	n := 0
	for _, l := range lines {
		text.WriteString(l.line + "\n")
		if l.wrong != "" {
			n++
		}
	}
	table, err := parse("users", text.String(), scheme.Strong)
	if err == nil {
		t.Fatal("no errors")
	}
	messages := strings.Split(err.Error(), "\n")
	if len(messages) != n {
		t.Errorf("%d errors, not %d:\n%v", len(messages), n, err)
	}
	i := 0
	for number, l := range lines {
		if l.wrong == "" {
			continue
		}
		prefix := "users:" + itoa(number+1) + ": "
		if !strings.HasPrefix(messages[i], prefix) || !strings.Contains(messages[i], l.wrong) || !strings.Contains(messages[i], "would be right") {
			t.Errorf("%s… %s: %s", prefix, l.wrong, messages[i])
		}
		i++
	}
	if strings.Contains(err.Error(), "tanstaaf") {
		t.Errorf("a secret shows:\n%v", err)
	}
	if len(table.index) != 3 {
		t.Errorf("%d users, not 3", len(table.index))
	}
}

func TestErrorsAreBounded(t *testing.T) {
	_, err := parse("users", strings.Repeat("wrong\n", 5000), scheme.Strong)
	if messages := strings.Split(err.Error(), "\n"); len(messages) != maxErrors+1 || !strings.HasSuffix(messages[maxErrors], "4000 more errors") {
		t.Errorf("%d messages, at last %q", len(messages), messages[len(messages)-1])
	}
}

func TestOpenRefusesWhatIsNoFile(t *testing.T) {
	folder := t.TempDir()
	if _, err := Open(folder, Options{}); err == nil || !strings.Contains(err.Error(), "not a regular file") {
		t.Error(err)
	}
	large := filepath.Join(folder, "large")
	if err := os.WriteFile(large, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(large, maxFile+1); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(large, Options{}); err == nil || !strings.Contains(err.Error(), "over 256 MiB") {
		t.Error(err)
	}
}

func FuzzParse(f *testing.F) {
	for _, seed := range []string{
		"", "\n", "#\n", "mrose:{PLAIN}tanstaaf\r\n", "a:b:c:d:e:/f:g:allow_nets=::1 nologin:h", "a:!:\na:*", "Ab:{PLAIN.HEX}00\n..:x",
		"a:{ARGON2ID}$argon2id$v=19$m=8,t=1,p=1$/HgoYH/3VKuUad5sTE3+6Q$FMXMUiC64SakYG5lvWmn2aICHA9/H1vIip86deoyxuA",
		"a:$6$rounds=1000$s$x\n", "a:$y$j75$z7ztFz2FayrKI79/jEwlL.$u5x/j193MQ09wbFaRGYr0AH/A/jh3kunjuhYRVRNkmC",
		"a:{PBKDF2}$1$salt$5000$0123456789abcdef0123456789abcdef01234567\nb:{SSHA}x\nc:$1$salt$OiZvjWTmJFjFgNfKL5OTp0",
		"a:{SCRAM-SHA-1}4096,H+aP2+Ox3X7kjeHyp/6dxQ==,nTueS5dTsCNvh607aImugXjNvXc=,FokZX8d4bv+SJoSMDocfAC4H4ic=\n",
		"a:{BLF-CRYPT}$2y$05$jdwwbv1sfCbIvGMvRUi.ve2njojkOPaP6YSo55EWTI.Nhai03hzt2",
		"a:x::::::retention=90d undelete=7h deletion=keep window=never window_messages=0 folders=Spam,Lists/dewey\nb:x::::::folders=",
		"a:{PLAIN}x::::::retention=0 retention=36500d folders=\xff,..,/a,a//b,INBOX nologin\nb:{PLAIN}y::::::window=213503982334602d",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		table, err := parse("users", text, scheme.Strong)
		for name, offset := range table.index {
			if e := table.at(offset); e.name != name || badName(name) != "" {
				t.Fatalf("%q is at the line of %q", name, e.name)
			}
			checkLife(t, table.at(offset).extra.life)
			if offset > 0 && text[offset-1] != '\n' {
				t.Fatalf("%q does not begin a line", name)
			}
		}
		if err != nil {
			return
		}
		again, err := parse("users", strings.ReplaceAll(strings.ReplaceAll(text, "\r\n", "\n"), "\n", "\r\n"), scheme.Strong)
		if err != nil || len(again.index) != len(table.index) || len(again.costs) != len(table.costs) {
			t.Fatalf("with CRLF: %v", err)
		}
	})
}

// checkLife holds what was read of a line against the bounds of its fields.
func checkLife(t *testing.T, l auth.Life) {
	t.Helper()
	if l.Retention < -1 || l.Retention > 0 && l.Retention%day != 0 || l.Retention > mostDays || l.Undelete < -1 || l.Undelete > mostUndelete ||
		l.Window < -1 || l.Window > mostDays || l.WindowMessages < -1 || len(l.Folders) > mostFolders {
		t.Fatalf("%+v", l)
	}
	for _, name := range l.Folders {
		if !filepath.IsLocal(name) || filepath.Clean(name) != name || len(name) > maxFolder || !utf8.ValidString(name) || strings.ContainsFunc(name, control) {
			t.Fatalf("a folder %q", name)
		}
	}
}
