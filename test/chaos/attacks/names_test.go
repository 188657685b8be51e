package attacks

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"dewey/auth"
	"dewey/config"
	"dewey/pop3server"
	"dewey/store/maildir"
	"dewey/test/chaos/harness"
)

// tricks are names that lead out of a folder, into another's, end early, or look like another's.
var tricks = []string{
	"../x", "..", ".", "x/y", "/x", "x/", "x/../ann", "../mail/ann", "./ann", "ann/", "ann/.", "ann/new", ".ann", "/etc/passwd", "~ann", "$HOME", "{user}",
	"ann\x00", "\x00ann", "ann\x00/../x", "..\\ann", "x\\y", "ann\r", "ann\x1b[2J", "ann\x7f", "\u0085ann", "ann\u202e", "ann  ", " ann",
	"Ann\u200b", "\u0430nn", "\uff41\uff4e\uff4e", "ann\u0301", "a\u0148n", "\uff0e\uff0e\uff0fx", "..\u2215x", "\u2024\u2024/x", "%2e%2e%2fx", "ann%00", "\xc0\xae\xc0\xae\xc0\xafx", "\xff\xfe",
	"ann:", "#ann", "ann*", "*", "ann@../../x", "../..@x", "@", "ann@", "@ann", "recent:../x", "recent:recent:ann", "recent:", "ann+../x", "ann+../../ann", "ann+.", "ann++",
	strings.Repeat("a", 255), strings.Repeat("a", 10_000), strings.Repeat("../", 60) + "etc", strings.Repeat("\u00e9", 128), "con", "-rf", "--", "ann'; --", "ann%s%n", "ann,S=1",
}

// bait lies wherever such a name may lead: a Maildir with a message in it.
func bait(t *testing.T, data string) {
	t.Helper()
	for _, path := range []string{"x", "mail/x/y", "mail/ann/x", "mail/x", "mail/.ann", "mail/ann/.x", "mail/etc"} {
		harness.Put(t, filepath.Join(data, path), "cur", "1.bait:2,", harness.Text("bait", 0))
	}
}

// Names that are tricks are refused in each way to log in, and in mail; no file is made, and none is looked at where they
// lead. "Refused" is as for any wrong password, or as a bad line.
func TestNames(t *testing.T) {
	t.Parallel()
	x := besiege(t, "login.mechanisms=PLAIN,LOGIN,CRAM-MD5,SCRAM-SHA-256,APOP", "mail.folder_delimiter=+", "login.failure_delay=0s", "login.max_delay=0s", "login.max_attempts=1000")
	bait(t, x.data)
	x.poll() // and so the lists of the witness are made
	before := tree(t, x.data)
	b64 := func(s string) string { return base64.StdEncoding.EncodeToString([]byte(s)) }
	tried := 0
	for i, name := range tricks {
		c := x.must(x.POP3)
		want := func(what string, err error) {
			t.Helper()
			tried++
			refused(t, fmt.Sprintf("%.80q by %s", name, what), err)
		}
		said := func(lines ...string) error {
			for _, l := range lines[:len(lines)-1] {
				if err := c.Send(l); err != nil {
					return err
				}
				if reply, err := c.In.ReadString('\n'); err != nil || strings.HasPrefix(reply, "-ERR") {
					return &harness.Refusal{Command: l, Reply: reply}
				}
			}
			_, err := c.Do(lines[len(lines)-1])
			return err
		}
		if strings.ContainsAny(name, "\r\n") {
			name = strings.Trim(name, "\r\n") + "/.." // of a line it can't be a part
		}
		want("PASS", said("USER "+name, "PASS "+harness.Password))
		want("APOP", said("APOP "+name+" 0123456789abcdef0123456789abcdef"))
		want("PLAIN", said("AUTH PLAIN "+b64("\x00"+name+"\x00"+harness.Password)))
		want("PLAIN, to act as it", said("AUTH PLAIN "+b64(name+"\x00mrose\x00"+harness.Password)))
		want("LOGIN", said("AUTH LOGIN", b64(name), b64(harness.Password)))
		want("CRAM-MD5", said("AUTH CRAM-MD5", b64(name+" 0123456789abcdef0123456789abcdef")))
		want("SCRAM", said("AUTH SCRAM-SHA-256 "+b64("n,,n="+name+",r=abcdefgh"), b64("c=biws,r=abcdefgh,p=AAAA")))
		want("OAUTHBEARER", said("AUTH OAUTHBEARER "+b64("n,a="+name+",\x01auth=Bearer x\x01\x01")))
		_ = c.Close()
		l := x.lmtp()
		for _, address := range []string{"<" + name + ">", "<" + name + "@example.org>", "<\"" + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(name) + "\"@example.org>"} {
			if _, err := l.Do("RSET", "250"); err != nil {
				t.Fatal(err)
			}
			utf8 := []string{"", " SMTPUTF8"}[i%2]
			if _, err := l.Do("MAIL FROM:<>"+utf8, "250"); err != nil {
				t.Fatal(err)
			}
			_, err := l.Do("RCPT TO:"+address, "25")
			if plus, _, _ := strings.Cut(name, "+"); plus == witness && err == nil {
				continue // a detail: it is hers, and names no folder
			}
			want("RCPT TO:"+address[:min(len(address), 80)], err)
		}
		_ = l.Close()
	}
	x.figures["names"], x.figures["tries"] = len(tricks), tried
	for _, path := range tree(t, x.data) {
		if !slices.Contains(before, path) && !strings.Contains(path, "/history") {
			t.Errorf("made: %s", path)
		}
	}
	x.end(32, 6*tried)
}

// `dewey user add` takes no name that can't be a folder's; what only looks like another's is another user. A line of the users
// file by hand keeps nobody else out.
func TestNamesInTheUsersFile(t *testing.T) {
	t.Parallel()
	data := harness.Dir(t)
	harness.AddUsers(t, data, "mrose", witness)
	for _, name := range tricks {
		harmless := !strings.ContainsAny(name, "/\x00\r\n\x1b\x7f:") && name != "" && name[0] != '.' && name[0] != '#' && !strings.Contains(name, " ") && len(name) <= 255
		if strings.Contains(name, "\x00") {
			continue // no argument has one: execve(2)
		}
		var told bytes.Buffer
		cmd := exec.Command(harness.Binary(), "user", "add", "--weak", "--scheme=plain", "--set", "data="+data, "--", name)
		cmd.Stdin, cmd.Stderr = strings.NewReader(harness.Password+"\n"), &told
		err := cmd.Run()
		if exit := (*exec.ExitError)(nil); err != nil && !errors.As(err, &exit) {
			t.Fatal(err)
		}
		stderr, code := told.String(), cmd.ProcessState.ExitCode()
		if (code == 0) != harmless || strings.Count(stderr, "\n") > 2 || len(stderr) > mostLine || strings.ContainsAny(stderr, "\x1b\r\x00") {
			t.Errorf("user add %.80q: exit code %d, %.300q", name, code, stderr)
		}
	}

	// By hand, what user add refuses: the line is an error, which is told, and other users are served.
	text := fmt.Sprintf("mrose:{PLAIN}%[1]s\nann:{PLAIN}%[1]s\n", harness.Password)
	for _, name := range tricks {
		if !strings.ContainsAny(name, "\n\r:") {
			text += name + ":{PLAIN}" + harness.Password + "\n"
		}
	}
	users := filepath.Join(data, "users")
	x := besiege(t, "mail.folder_delimiter=", "login.max_attempts=1000", "login.failure_delay=0s", "login.max_delay=0s")
	bait(t, x.data)
	if err := os.WriteFile(users, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(users, filepath.Join(x.data, "users")); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(x.Pid(), syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	x.Await("the file to be told of", func() bool { return strings.Contains(x.Log(), "users file has errors") })
	for _, name := range tricks {
		if !strings.ContainsAny(name, "/\x00\r\n\x1b\x7f:") && name != "" && name[0] != '.' && len(name) <= 200 {
			continue // a name like others
		}
		if strings.HasPrefix(name, "recent:") {
			continue
		}
		c := x.must(x.POP3)
		_, err := c.Do("USER " + name)
		if err == nil {
			_, err = c.Do("PASS " + harness.Password)
		}
		refused(t, fmt.Sprintf("%.80q", name), err)
		_ = c.Close()
	}
	x.stop()
	x.wg.Wait()
	for line := range strings.Lines(x.Log()) {
		if len(line) > mostLine || strings.ContainsAny(line, "\x1b\x00\r") || strings.Contains(line, harness.Password) {
			t.Errorf("a line of %d octets: %.200q", len(line), line)
		}
	}
}

// A token that names such a user opens nothing, whatever the identity provider vouches for: the path of the Maildir is what
// decides.
func TestNamesInTokens(t *testing.T) {
	t.Parallel()
	data := harness.Dir(t)
	bait(t, data)
	c, err := config.Load("", []string{"data=" + data})
	if err != nil {
		t.Fatal(err)
	}
	var log bytes.Buffer
	logger := slog.New(slog.NewTextHandler(&log, nil))
	srv := &pop3server.Server{
		Users: vouching{}, Logger: logger,
		Maildrops: maildir.New(maildir.Options{Path: c.MaildirPath, Logger: logger}),
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- srv.Serve(l) }()
	before := tree(t, data)
	for _, name := range tricks {
		if !strings.ContainsAny(name, "/\x00\r\x1b\x7f") && name[0] != '.' || strings.Contains(name, "\x01") {
			continue // a name like others
		}
		p, err := harness.DialPOP3(l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		_, err = p.Do("AUTH OAUTHBEARER " + base64.StdEncoding.EncodeToString([]byte("n,,\x01auth=Bearer "+base64.RawURLEncoding.EncodeToString([]byte(name))+"\x01\x01")))
		refused(t, fmt.Sprintf("%.80q", name), err)
		_ = p.Close()
	}
	_ = srv.Close()
	_ = srv.Shutdown(context.Background())
	<-served
	if after := tree(t, data); !slices.Equal(before, after) {
		t.Errorf("made: %q", after)
	}
	if strings.ContainsAny(log.String(), "\x00\x1b\r\x7f") || !strings.Contains(log.String(), "can't be part of a path") {
		t.Errorf("%.500q", log.String())
	}
}

// vouching is a provider that says of each token that it is good, and names the user in it.
type vouching struct{}

func (vouching) CheckPassword(context.Context, auth.Attempt) (auth.Identity, error) {
	return auth.Identity{}, auth.ErrRejected
}

func (vouching) CheckToken(_ context.Context, t auth.Token) (auth.Identity, error) {
	name, err := base64.RawURLEncoding.DecodeString(t.Bearer)
	if err != nil {
		return auth.Identity{}, fmt.Errorf("%w: %w", err, auth.ErrRejected)
	}
	return auth.Identity{User: string(name)}, nil
}
