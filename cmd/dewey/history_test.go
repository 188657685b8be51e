package main

import (
	"bufio"
	"context"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// historyOf returns what `dewey mail history` prints.
func historyOf(t *testing.T, data string, args ...string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "dewey", append([]string{"mail", "history", "mrose", "--set", "data=" + data}, args...)...)
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	return string(out)
}

// visit talks to a server and returns all that it says.
func visit(t *testing.T, address, commands string) string {
	t.Helper()
	c, err := (&net.Dialer{Timeout: patience}).DialContext(t.Context(), "tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(patience))
	if _, err := io.WriteString(c, commands); err != nil {
		t.Fatal(err)
	}
	got, err := io.ReadAll(c)
	if err != nil {
		t.Fatal(err)
	}
	return string(got)
}

// What a server records is there at once, beside it, and after a restart; also what it was ended in the middle of.
func TestHistory(t *testing.T) {
	data := t.TempDir()
	addUser(t, data, "mrose")
	folder := filepath.Join(data, "mail", "mrose", "new")
	if err := os.MkdirAll(folder, 0o700); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"1.a.host", "2.b.host"} {
		if err := os.WriteFile(filepath.Join(folder, name), []byte("Subject: dinner\n\nCome at seven.\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	p, address := serve(t, data, "--set", "pop3.listen=127.0.0.1:0", "--grace", "0s")
	got := visit(t, address, "USER mrose\r\nPASS tanstaaf\r\nUIDL 1\r\nRETR 1\r\nDELE 1\r\nQUIT\r\n")
	p.wait(`msg="handed out"`, "user=mrose", "fetched=", "removed=")
	_, uid, _ := strings.Cut(got, "\r\n+OK 1 ")
	uid, _, _ = strings.Cut(uid, "\r\n")
	if table := historyOf(t, data); !strings.Contains(table, "  PASS                no         1            35    0        1  quit\n") {
		t.Error(table)
	}
	if table := historyOf(t, data, "--uid", uid); strings.Count(table, uid) != 2 || strings.Count(table, "\n") != 3 {
		t.Errorf("%s: %s", uid, table)
	}
	files, err := filepath.Glob(filepath.Join(data, "history", "*"))
	if err != nil || len(files) != 1 {
		t.Fatalf("%q, %v", files, err)
	}
	if info, err := os.Stat(files[0]); err != nil || info.Mode() != 0o600 {
		t.Errorf("%v, %v", info, err)
	}

	c, err := (&net.Dialer{Timeout: patience}).DialContext(context.Background(), "tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := io.WriteString(c, "USER mrose\r\nPASS tanstaaf\r\nRETR 1\r\n"); err != nil {
		t.Fatal(err)
	}
	for s := bufio.NewScanner(c); s.Scan() && s.Text() != "."; {
	}
	p.signal(syscall.SIGTERM)
	if code := p.end(); code != 0 {
		t.Errorf("code %d", code)
	}
	if table := historyOf(t, data); strings.Count(table, "\n") != 3 || !strings.Contains(table, "server closed") {
		t.Error(table)
	}

	p, address = serve(t, data, "--set", "pop3.listen=127.0.0.1:0", "--set", "history.keep=0s")
	if !p.saw("old history removed") { // it may come before it listens
		p.wait("old history removed")
	}
	visit(t, address, "USER mrose\r\nPASS tanstaaf\r\nRETR 1\r\nQUIT\r\n")
	p.wait("session ended", "retrieved=1")
	if p.saw("handed out") || historyOf(t, data) != "" {
		t.Error("recorded all the same")
	}
}

// Without a zone a time is where the command runs; one that is there twice, as summer time ends, is one of the two.
func TestParseTime(t *testing.T) {
	zone := time.FixedZone("CET", 3600)
	now := time.Date(2026, 11, 23, 15, 4, 5, 0, zone)
	for text, want := range map[string]string{
		"2h":                        "2026-11-23T13:04:05+01:00",
		"0s":                        "2026-11-23T15:04:05+01:00",
		"3d":                        "2026-11-20T15:04:05+01:00",
		"2026-11-23":                "2026-11-23T00:00:00+01:00",
		"2026-11-23T14:00":          "2026-11-23T14:00:00+01:00",
		"2026-11-23T14:00:09":       "2026-11-23T14:00:09+01:00",
		"2026-11-23T14:00:09Z":      "2026-11-23T14:00:09Z",
		"2026-11-23T14:00:09-05:00": "2026-11-23T14:00:09-05:00",
		"yesterday":                 "",
		"-2h":                       "",
		"2026-11-23 14:00":          "",
		"2026-02-30":                "",
	} {
		at, err := parseTime(text, now, 0)
		if (err == nil) != (want != "") || want != "" && at.Format(time.RFC3339) != want {
			t.Errorf("%q: %v, %v; want %s", text, at, err, want)
		}
	}
	if at, err := parseTime("2026-11-23", now, 1); err != nil || !at.Equal(time.Date(2026, 11, 24, 0, 0, 0, 0, zone)) {
		t.Errorf("the end of a day is %v, %v", at, err)
	}
	berlin, err := time.LoadLocation("Europe/Berlin")
	if err != nil {
		t.Fatal(err)
	}
	at, err := parseTime("2026-10-25T02:30", now.In(berlin), 0)
	if utc := at.UTC().Format("15:04"); err != nil || utc != "00:30" && utc != "01:30" {
		t.Errorf("%v, %v", at, err)
	}
}
