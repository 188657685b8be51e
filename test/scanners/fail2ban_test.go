package scanners

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

var (
	fail2banRegex  = tool{"fail2ban-regex", "fail2ban"}
	fail2banClient = tool{"fail2ban-client", "fail2ban"}
)

// logTimes are the times of lines, in several zones, with what RFC 3339 makes of them.
var logTimes = []time.Time{
	time.Date(2026, 11, 23, 15, 4, 5, 0, time.UTC),
	time.Date(2026, 11, 23, 15, 4, 5, 123e6, time.FixedZone("", 3600)),
	time.Date(2026, 11, 23, 15, 4, 5, 123456789, time.FixedZone("", -(3*3600+1800))),
	time.Date(2026, 1, 2, 3, 4, 59, 999999999, time.UTC),
}

// A line is one of dewey's, with what fail2ban is to make of it.
type line struct {
	at   time.Time
	text string
}

// logLine lets log/slog write a line. The names of a client's are behind the address.
func logLine(json bool, at time.Time, level slog.Level, msg string, args ...any) line {
	var buf bytes.Buffer
	var h slog.Handler = slog.NewTextHandler(&buf, nil)
	if json {
		h = slog.NewJSONHandler(&buf, nil)
	}
	r := slog.NewRecord(at, level, msg, 0)
	r.Add(args...)
	if err := h.Handle(context.Background(), r); err != nil {
		panic(err)
	}
	return line{at, strings.TrimSuffix(buf.String(), "\n")}
}

func refusal(json bool, at time.Time, msg, remote, user string) line {
	return logLine(json, at, slog.LevelWarn, msg,
		"session", 7, "remote", remote, "method", "PASS", "user", user, "error", "credentials rejected")
}

func refusedConnection(json bool, remote, reason string) line {
	return logLine(json, logTimes[0], slog.LevelWarn, "connection refused", "session", 7, "remote", remote, "reason", reason)
}

// prefixes are what a syslog daemon puts before a line, if it goes through one: its old format, as
// fail2ban gives what it has read from the journal, too; and the newer one.
var prefixes = []string{"", "Nov 23 15:04:05 mail dewey[123]: ", "2026-11-23T16:04:05.123456+01:00 mail.example.org dewey[123]: "}

// find returns what fail2ban finds in the lines: times and addresses.
func find(t *testing.T, mode string, lines []line) []string {
	t.Helper()
	var all strings.Builder
	for _, l := range lines {
		all.WriteString(l.text + "\n")
	}
	return findIn(t, mode, all.String())
}

func findIn(t *testing.T, mode, log string) []string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "dewey.log")
	if err := os.WriteFile(path, []byte(log), 0o600); err != nil {
		t.Fatal(err)
	}
	filter, err := filepath.Abs("../../contrib/fail2ban/filter.d/dewey.conf")
	if err != nil {
		t.Fatal(err)
	}
	if mode != "" {
		filter += "[mode=" + mode + "]"
	}
	// Somewhere else than UTC, so that a zone that is not read shows.
	stdout, stderr, exit := fail2banRegex.run(t, []string{"TZ=America/New_York"}, "--raw", "--out", "<time> <ip>", path, filter)
	if exit != 0 && exit != 255 { // 255: nothing found
		t.Fatalf("exit code %d\n%s%s", exit, stdout, stderr)
	}
	return strings.Fields(strings.ReplaceAll(stdout, ".0 ", " "))
}

// The address of each refused login is found, at its time, in both formats and with any prefix.
func TestFail2banFindsRefusedLogins(t *testing.T) {
	remotes := map[string]string{
		"192.0.2.1:51234":                "192.0.2.1",
		"255.255.255.255:1":              "255.255.255.255",
		"[2001:db8::1]:51234":            "2001:db8::1",
		"[2001:db8:1:2:3:4:5:6]:65535":   "2001:db8:1:2:3:4:5:6",
		"[2001:db8::]:1":                 "2001:db8::",
		"[::1]:1":                        "::1",
		"[fe80::1%eth0]:51234":           "fe80::1",
		"[fe80::a:b%enx001122aabbcc]:22": "fe80::a:b",
	}
	for _, json := range []bool{false, true} {
		var lines []line
		var want []string
		for remote, ip := range remotes {
			for _, at := range logTimes {
				for _, user := range []string{"mrose", "maria magdalena", ""} {
					lines = append(lines, refusal(json, at, "login refused", remote, user))
					want = append(want, fmt.Sprint(at.Unix()), ip)
				}
			}
		}
		if got := find(t, "", lines); !slices.Equal(got, want) {
			t.Errorf("json %v: found\n%s\nwant\n%s", json, got, want)
		}

		// Prefixed, the time is the syslog daemon's: of its old format, which has no zone and no year,
		// only the address is compared.
		for _, prefix := range prefixes[1:] {
			var prefixed []line
			for _, l := range lines {
				prefixed = append(prefixed, line{l.at, prefix + l.text})
			}
			got := find(t, "", prefixed)
			if len(got) != len(want) {
				t.Fatalf("json %v, %q: found %d, want %d", json, prefix, len(got)/2, len(want)/2)
			}
			for i := 0; i < len(want); i += 2 {
				if got[i+1] != want[i+1] || strings.HasPrefix(prefix, "2026") && got[i] != fmt.Sprint(logTimes[0].Unix()) {
					t.Errorf("json %v, %q: found %s, want %s", json, prefix, got[i:i+2], want[i:i+2])
				}
			}
		}
	}
}

// names are what a client may say that it is called, to have somebody else banned: 10.0.0.0/8 are
// addresses that nothing came from.
var names = []string{
	"x remote=10.0.0.1:1",
	"x remote=10.0.0.1:1 ",
	`x" remote=10.0.0.1:1 method=PASS user="y`,
	`x\" remote=10.0.0.1:1 `,
	`level=WARN msg="login refused" session=1 remote=10.0.0.1:1 method=PASS`,
	"x\n" + `time=2026-11-23T15:04:05.000Z level=WARN msg="login refused" session=1 remote=10.0.0.1:1 method=PASS`,
	"x\r\nNov 23 15:04:05 mail dewey[1]: " + `level=WARN msg="login refused" session=1 remote=10.0.0.1:1 method=PASS`,
	"x\u2028" + `time=2026-11-23T15:04:05.000Z level=WARN msg="login refused" session=1 remote=10.0.0.1:1`,
	"x\u0085" + `time=2026-11-23T15:04:05.000Z level=WARN msg="login refused" session=1 remote=10.0.0.1:1`,
	"x\v\f\x1c\x1d\x1e" + `level=WARN msg="login refused" session=1 remote=10.0.0.1:1`,
	`x","remote":"10.0.0.1:1`,
	`x"}` + "\n" + `{"time":"2026-11-23T15:04:05.000Z","level":"WARN","msg":"login refused","session":7,"remote":"10.0.0.1:1"}`,
	`{"level":"WARN","msg":"login refused","session":7,"remote":"10.0.0.1:1"}`,
	"10.0.0.1", "[10.0.0.1]", "rhost=10.0.0.1", "from 10.0.0.1", "<HOST>", "%(host)s", "</F-CONTENT>",
	"2026-11-23T15:04:05Z 10.0.0.1",
	strings.Repeat("a", 255),
	strings.Repeat(`"`, 255),
	strings.Repeat(" remote=10.0.0.1:1", 14),
	strings.Repeat("\\", 255),
	"żółć-日本-\u202e10.0.0.1\u202c",
	"\xff\xfe10.0.0.1\x80",
	"x\x0010.0.0.1",
	"\x1b[2J10.0.0.1\x7f",
}

// A name that a client says it has changes nothing: found is the one address that the line came from,
// and none in a line of another kind.
func TestFail2banTakesNoNamesForAddresses(t *testing.T) {
	for _, json := range []bool{false, true} {
		for _, prefix := range prefixes {
			for _, mode := range []string{"", "aggressive"} {
				var lines []line
				var want []string
				for i, name := range names {
					ip := fmt.Sprintf("192.0.2.%d", i+1)
					lines = append(lines,
						refusal(json, logTimes[0], "login refused", ip+":51234", name),
						refusal(json, logTimes[0], "login failed", "192.0.2.200:51234", name),
						logLine(json, logTimes[0], slog.LevelWarn, "login failed", "session", 7, "remote", "192.0.2.201:1", "user", "mrose", "error", name),
						logLine(json, logTimes[0], slog.LevelInfo, "logged in", "session", 7, "remote", "192.0.2.202:1", "user", name),
						logLine(json, logTimes[0], slog.LevelError, "login refused", "user", name, "remote", "192.0.2.203:1"),
						logLine(json, logTimes[0], slog.LevelWarn, "connection refused", "session", 7, "remote", "192.0.2.204:1", "reason", name),
					)
					want = append(want, ip)
				}
				for i := range lines {
					lines[i].text = prefix + lines[i].text
				}
				var got []string
				for i, field := range find(t, mode, lines) {
					if i%2 == 1 {
						got = append(got, field)
					}
				}
				if !slices.Equal(got, want) {
					t.Errorf("json %v, %q, %q: found\n%s\nwant\n%s", json, prefix, mode, got, want)
				}
			}
		}
	}
}

// Where a syslog daemon mixes dewey's lines with those of others, theirs are not taken for dewey's, even
// if they quote one.
func TestFail2banForeignLines(t *testing.T) {
	var lines []line
	for _, json := range []bool{false, true} {
		_, quoted, _ := strings.Cut(refusal(json, logTimes[0], "login refused", "10.0.0.1:1", "mrose").text, "Z ")
		if json {
			quoted = refusal(json, logTimes[0], "login refused", "10.0.0.1:1", "mrose").text
		}
		for _, before := range []string{
			"Nov 23 15:04:05 mail nginx[1]: ",
			"Nov 23 15:04:05 mail nginx[1]: mail dewey[1]: ",
			"Nov 23 15:04:05 mail dewey[1]: mail dewey[1]: ",
			"Nov 23 15:04:05 mail notdewey[1]: ",
			"2026-11-23T15:04:05Z mail web[1]: GET ",
			"time=2026-11-23T15:04:05.000Z level=INFO msg=x ",
			`{"time":"2026-11-23T15:04:05Z","level":"INFO",`,
		} {
			lines = append(lines, line{text: before + quoted})
		}
	}
	if got := find(t, "", lines); len(got) != 0 {
		t.Errorf("found %s", got)
	}
}

// A connection that was refused counts in mode aggressive alone, and only if it was its address that had
// too many.
func TestFail2banConnections(t *testing.T) {
	for _, json := range []bool{false, true} {
		lines := []line{
			refusedConnection(json, "192.0.2.1:1", "too many connections from this address"),
			refusedConnection(json, "[2001:db8::1]:1", "too many connections from this address"),
			refusedConnection(json, "192.0.2.2:1", "too many connections"),
		}
		if got := find(t, "", lines); len(got) != 0 {
			t.Errorf("found %s", got)
		}
		now := fmt.Sprint(logTimes[0].Unix())
		if got, want := find(t, "aggressive", lines), []string{now, "192.0.2.1", now, "2001:db8::1"}; !slices.Equal(got, want) {
			t.Errorf("aggressive: found %s, want %s", got, want)
		}
	}
}

// fail2ban reads the jail, with the filter that is named in it, and would watch what it says.
func TestFail2banJail(t *testing.T) {
	etc := t.TempDir()
	for from, to := range map[string]string{
		"/etc/fail2ban/fail2ban.conf":                    "fail2ban.conf",
		"/etc/fail2ban/jail.conf":                        "jail.conf",
		"/etc/fail2ban/paths-debian.conf":                "paths-debian.conf",
		"/etc/fail2ban/paths-common.conf":                "paths-common.conf",
		"../../contrib/fail2ban/filter.d/dewey.conf":     "filter.d/dewey.conf",
		"../../contrib/fail2ban/jail.d/dewey.conf":       "jail.d/dewey.conf",
		"/etc/fail2ban/action.d/iptables.conf":           "action.d/iptables.conf",
		"/etc/fail2ban/action.d/iptables-multiport.conf": "action.d/iptables-multiport.conf",
	} {
		copyFile(t, from, filepath.Join(etc, to))
	}
	stdout, stderr, exit := fail2banClient.run(t, nil, "-c", etc, "-d")
	if exit != 0 || strings.Contains(stderr, "ERROR") {
		t.Fatalf("exit code %d\n%s%s", exit, stdout, stderr)
	}
	for _, want := range []string{
		"['add', 'dewey', 'systemd']",
		"'addjournalmatch', '_SYSTEMD_UNIT=dewey.service'",
		"['set', 'dewey', 'maxretry', 10]",
		"['set', 'dewey', 'findtime', '10m']",
		"['set', 'dewey', 'bantime', '1h']",
		"['start', 'dewey']",
		"pop3,pop3s",
	} {
		if !strings.Contains(stdout, want) {
			t.Errorf("no %s in\n%s", want, stdout)
		}
	}
}

func copyFile(t *testing.T, from, to string) {
	t.Helper()
	in, err := os.Open(from)
	if err != nil {
		t.Fatalf("%v: install Debian's package fail2ban (make test does)", err)
	}
	defer in.Close()
	content, err := io.ReadAll(in)
	if err == nil {
		err = os.MkdirAll(filepath.Dir(to), 0o700)
	}
	if err == nil {
		err = os.WriteFile(to, content, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
}
