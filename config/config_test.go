package config

import (
	"bytes"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

var ignoreSources = cmpopts.IgnoreUnexported(Config{})

// load is Load on a file that is made of the given text.
func load(t *testing.T, text string, sets ...string) (*Config, error) {
	t.Helper()
	name := filepath.Join(t.TempDir(), "dewey.toml")
	if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return Load(name, sets)
}

// The defaults are a contract that other tools rely on.
func TestDefaultsAreTheContract(t *testing.T) {
	got, err := Load("", nil)
	if err != nil {
		t.Fatal(err)
	}
	want := &Config{
		Hostname: "localhost",
		Data:     "./dewey-data",
		POP3:     POP3{Listen: []string{"127.0.0.1:1110"}, Language: "i-default"},
		POP3S:    Listener{Listen: []string{"127.0.0.1:1995"}},
		LMTP: LMTP{
			SocketMode: 0o600, MaxSize: 50 << 20, MaxRecipients: 100, MaxConnections: 100, Timeout: 5 * time.Minute, OverQuota: "reject",
		},
		TLS: TLS{
			MinVersion: "1.2", ClientName: "email",
			ACMEDirectory: "https://acme-v02.api.letsencrypt.org/directory", ACMEListen: []string{":80"},
		},
		Login: Login{
			Plaintext: "loopback", UserPass: true, IdleTimeout: 10 * time.Minute, TimeLimit: 30 * time.Minute,
			MaxUnauthenticated: 1000, MaxConnections: 100000, MaxPerUser: 10, MaxPerAddress: 100, MaxAttempts: 10,
			FailureDelay: time.Second, MaxDelay: 8 * time.Second, Remember: 5 * time.Minute,
		},
		Users:      Users{File: "{data}/users"},
		Recipients: Recipients{Rules: []string{"exact", "local", "detail"}, Delimiter: "+"},
		Maildir:    Maildir{Path: "{data}/mail/{user}"},
		Mail:       Mail{SweepAt: 3*time.Hour + 30*time.Minute, Deletion: "remove", Recent: 30 * 24 * time.Hour},
		History:    History{Keep: 30 * 24 * time.Hour},
		Process:    Process{Landlock: "auto"},
	}
	if got.Login.Mechanisms != nil {
		t.Errorf("login.mechanisms is %q, not auto", got.Login.Mechanisms)
	}
	if diff := cmp.Diff(want, got, ignoreSources, cmpopts.EquateEmpty()); diff != "" {
		t.Error(diff)
	}
	if got.UsersFile() != "dewey-data/users" {
		t.Errorf("UsersFile() = %q", got.UsersFile())
	}
}

func TestFileThenSet(t *testing.T) {
	c, err := load(t, `
hostname = "mail.example.org"
data = '/srv/dewey'
pop3 = { listen = [], language = "de" }

[login]
idle_timeout = "1h30m"
max_per_user = 1_000
trusted_networks = [
  "192.0.2.1",      # one
  "2001:db8::/32",  # many
]
`, "login.max_per_user=7", "pop3.listen=127.0.0.1:3110, :0", "pop3.listen=[::1]:110", "pop3.show_version=true")
	if err != nil {
		t.Fatal(err)
	}
	if got := c.POP3.Listen; !slices.Equal(got, []string{"[::1]:110"}) {
		t.Errorf("the last --set of a key must win: %q", got)
	}
	if c.Login.MaxPerUser != 7 || c.Login.IdleTimeout != 90*time.Minute || !c.POP3.ShowVersion || c.POP3.Language != "de" {
		t.Errorf("%+v", c)
	}
	for key, want := range map[string]string{
		"hostname": ":2", "data": ":3", "pop3.language": ":4", "login.trusted_networks": ":9",
		"login.max_per_user": "--set", "pop3.listen": "--set", "maildir.path": "default",
	} {
		if got := c.Source(key).String(); !strings.HasSuffix(got, want) {
			t.Errorf("source of %s is %q, want %q", key, got, want)
		}
	}
	if !c.Source("tls.key").IsDefault() || c.Source("data").IsDefault() {
		t.Error("IsDefault")
	}
}

func TestSetLists(t *testing.T) {
	for text, want := range map[string][]string{
		"":                                      {},
		"127.0.0.1:110":                         {"127.0.0.1:110"},
		"127.0.0.1:110,[::1]:110":               {"127.0.0.1:110", "[::1]:110"},
		"[::1]:110,127.0.0.1:110":               {"[::1]:110", "127.0.0.1:110"},
		`["127.0.0.1:110", '[::]:110']`:         {"127.0.0.1:110", "[::]:110"},
		"[]":                                    {},
		":110":                                  {":110"},
		"Localhost:0":                           {"localhost:0"},
		"[0:0::1]:0110":                         {"[::1]:110"},
		" mail_1.example.org.:1 , 192.0.2.1:2 ": {"mail_1.example.org.:1", "192.0.2.1:2"},
	} {
		c, err := Load("", []string{"pop3.listen=" + text})
		if err != nil {
			t.Errorf("%q: %v", text, err)
		} else if !slices.Equal(c.POP3.Listen, want) {
			t.Errorf("%q: %q, want %q", text, c.POP3.Listen, want)
		}
	}
}

// Every error of a file and of the command line is reported at once, each with its line.
func TestErrorsAllAtOnce(t *testing.T) {
	files, err := filepath.Glob("testdata/bad/*.toml")
	if err != nil || len(files) == 0 {
		t.Fatalf("no testdata: %v", err)
	}
	for _, f := range files {
		t.Run(filepath.Base(f), func(t *testing.T) {
			data, err := os.ReadFile(f)
			if err != nil {
				t.Fatal(err)
			}
			var sets []string
			for line := range strings.Lines(string(data)) {
				if s, found := strings.CutPrefix(line, "#--set "); found {
					sets = append(sets, strings.TrimSuffix(s, "\n"))
				}
			}
			_, problems := parse("dewey.toml", data, sets)
			golden := strings.TrimSuffix(f, ".toml") + ".want"
			if os.Getenv("UPDATE_GOLDEN") != "" {
				if err := os.WriteFile(golden, []byte(problems.Error()+"\n"), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(string(want), problems.Error()+"\n"); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestUnreadableFiles(t *testing.T) {
	dir := t.TempDir()
	huge := filepath.Join(dir, "huge.toml")
	if err := os.WriteFile(huge, bytes.Repeat([]byte("#\n"), maxFile), 0o600); err != nil {
		t.Fatal(err)
	}
	for file, want := range map[string]string{
		filepath.Join(dir, "none.toml"): ": no such file or directory",
		dir:                             ": is a directory",
		huge:                            "larger than 1048576 octets",
	} {
		_, err := Load(file, []string{"hostname=a b"})
		if err == nil || !strings.HasPrefix(err.Error(), file) || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", file, err)
		}
		if err != nil && !strings.Contains(err.Error(), "\n--set hostname: ") {
			t.Errorf("the error of --set is missing: %v", err)
		}
	}
}

// What Print writes gives the same configuration again.
func TestPrintRoundTrip(t *testing.T) {
	first, err := load(t, "data = \"/a\\u0020\\\"b\\\\ü#\"\n[tls]\ncertificate='/x'\nkey=['/y\",']\nacme_listen=[]\n",
		"login.mechanisms=plain", "login.remember=0", "process.user=vmail", "tls.acme_roots=/r",
		"login.trusted_networks=10.0.0.0/8,::ffff:192.0.2.9,2001:db8::1", "pop3.listen=", "login.failure_delay=1m0s",
		"maildir.path={home}/Maildir")
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	if err := first.Print(&out); err != nil {
		t.Fatal(err)
	}
	second, err := load(t, out.String())
	if err != nil {
		t.Fatalf("%v\n%s", err, &out)
	}
	if diff := cmp.Diff(first, second, ignoreSources, cmpopts.IgnoreFields(Config{}, "Auth"), cmpopts.EquateComparable(netip.Prefix{})); diff != "" {
		t.Error(diff)
	}
	if len(Changed(first, second)) > 0 {
		t.Errorf("Changed: %q", Changed(first, second))
	}
	for _, k := range keys {
		if second.Source(k.name).IsDefault() {
			t.Errorf("%s was not printed", k.name)
		}
	}
	for _, line := range []string{"listen = [] # --set", "hostname = \"localhost\" # default", "dewey.toml:3\n"} {
		if !strings.Contains(out.String(), line) {
			t.Errorf("missing %q in\n%s", line, &out)
		}
	}
}

func TestChanged(t *testing.T) {
	a, _ := Load("", nil)
	b, _ := Load("", []string{"data=/x", "login.max_per_user=11", "hostname=localhost"})
	if got := Changed(a, b); !slices.Equal(got, []string{"data", "login.max_per_user"}) {
		t.Errorf("%q", got)
	}
}

// The reference names each key once, with what it is for.
func TestKeys(t *testing.T) {
	seen := map[string]bool{}
	for _, k := range Keys() {
		if k.Doc == "" || k.Default == "" || seen[k.Name] {
			t.Errorf("%+v", k)
		}
		seen[k.Name] = true
	}
	if !slices.IsSortedFunc(keys, func(a, b key) int { // a table's rows stand together
		return slices.Index(append([]string{""}, tables()...), first(a.table())) - slices.Index(append([]string{""}, tables()...), first(b.table()))
	}) {
		t.Error("a table's keys do not stand together")
	}
}

func first(a, _ string) string { return a }
