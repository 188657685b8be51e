package main

import (
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	_ "modernc.org/sqlite"

	"dewey/auth"
	"dewey/config"
)

// database makes an SQLite file with a user.
func database(t *testing.T, name, user, password string) {
	t.Helper()
	db, err := sql.Open("sqlite", "file:"+name)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	for _, q := range []string{"CREATE TABLE users (name TEXT PRIMARY KEY, password TEXT)", fmt.Sprintf("INSERT INTO users VALUES ('%s', '{PLAIN}%s')", user, password)} {
		if _, err := db.ExecContext(t.Context(), q); err != nil {
			t.Fatal(err)
		}
	}
}

// pass tries a login and returns the reply to PASS.
func pass(t *testing.T, address, user, password string) string {
	t.Helper()
	c := dial(t, address)
	defer c.conn.Close()
	c.ok("USER " + user)
	fmt.Fprintf(c.conn, "PASS %s\r\n", password)
	return c.read()
}

func wantPass(t *testing.T, address, user, password, want string) {
	t.Helper()
	if got := pass(t, address, user, password); !strings.HasPrefix(got, want) {
		t.Errorf("%s with %s: %q, want %q", user, password, got, want)
	}
}

// silent accepts connections and says nothing.
func silent(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			if _, err := l.Accept(); err != nil {
				return
			}
		}
	}()
	return l.Addr().String()
}

// As root starts it, confined and as another user: secrets that root alone may read are read before, and stay at a reload;
// a backend that hangs hits nobody but who might be its own; a database that is away is outlived by who was in before; a
// port that the cage has no hole for asks for a restart.
func TestBackendsConfined(t *testing.T) {
	folder, err := os.MkdirTemp("", "dewey-backends") // t.TempDir lies in a folder that is root's alone
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(folder) })
	if err := os.Chmod(folder, 0o755); err != nil {
		t.Fatal(err)
	}
	data, file, users := filepath.Join(folder, "data"), filepath.Join(folder, "dewey.toml"), filepath.Join(folder, "users.sqlite")
	addUser(t, data, "ann")
	database(t, users, "bob", "bobs")
	if err := os.Chmod(users, 0o644); err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(folder, "dsn"), users+"\n")
	hanging := silent(t)
	configured := "[[auth]]\nkind = 'passwd-file'\n[[auth]]\nkind = 'sql'\ndriver = 'sqlite'\ndsn_file = '" + folder + "/dsn'\n" +
		"user_query = 'SELECT name AS user, password FROM users WHERE name = {user}'\nremember_outage = '1h'\n" +
		"[[auth]]\nkind = 'ldap'\nurls = ['ldap://" + hanging + "']\nbase = 'dc=example,dc=org'\nfilter = '(uid={user})'\ntimeout = '1s'\n"
	write(t, file, configured)
	if err := os.Chmod(file, 0o644); err != nil { // the configuration is to be read again
		t.Fatal(err)
	}
	p := startStatic(t, "--config", file, "--set", "data="+data, "--set", "process.user=nobody", "--set", "process.landlock=required")
	address := field(p.wait("msg=listening", "key=pop3.listen"), "address")
	wantPass(t, address, "ann", "tanstaaf", "+OK")
	wantPass(t, address, "ann", "wrong", "-ERR [AUTH]")
	wantPass(t, address, "bob", "bobs", "+OK")
	wantPass(t, address, "bob", "wrong", "-ERR [AUTH]")
	began := time.Now()
	wantPass(t, address, "zoe", "x", "-ERR [SYS/TEMP]")
	if took := time.Since(began); took > 10*time.Second {
		t.Errorf("a directory that hangs: %v", took)
	}
	p.wait("an auth backend can't tell", "backend=ldap")

	// The database is away.
	if err := os.Rename(users, users+".away"); err != nil {
		t.Fatal(err)
	}
	wantPass(t, address, "bob", "bobs", "+OK")
	wantPass(t, address, "bob", "wrong", "-ERR [SYS/TEMP]")
	wantPass(t, address, "ann", "tanstaaf", "+OK")
	p.signal(syscall.SIGHUP)
	p.wait("a file can't be read any more, and stays as it was", "file="+folder+"/dsn")
	p.wait("msg=reloaded")
	wantPass(t, address, "bob", "bobs", "+OK")
	if err := os.Rename(users+".away", users); err != nil {
		t.Fatal(err)
	}
	for end := time.Now().Add(patience); !strings.HasPrefix(pass(t, address, "bob", "wrong"), "-ERR [AUTH]"); {
		p.wait("command failed") // the log is read, or it would be full
		if time.Now().After(end) {
			t.Fatal("the database is back, and is not asked")
		}
	}

	// Another port is out of reach, and all stays as it was.
	write(t, file, strings.Replace(configured, hanging, "127.0.0.1:1", 1))
	p.signal(syscall.SIGHUP)
	p.wait("configuration stays as it was", "port 1,", "restart dewey")
	wantPass(t, address, "bob", "bobs", "+OK")
	// So is another folder, of a database or of certificates.
	other := filepath.Join(folder+".other", "users.sqlite")
	if err := os.Mkdir(filepath.Dir(other), 0o755); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(filepath.Dir(other)) })
	database(t, other, "eve", "eves")
	elsewhere := "[[auth]]\nname = 'other'\nkind = 'sql'\ndriver = 'sqlite'\ndsn = '" + other + "'\nuser_query = 'SELECT password FROM users WHERE name = {user}'\n"
	write(t, file, configured+elsewhere)
	p.signal(syscall.SIGHUP)
	p.wait("configuration stays as it was", filepath.Dir(other), "restart dewey")
	write(t, file, strings.Replace(configured, "kind = 'ldap'\n", "kind = 'ldap'\nca_file = '"+other+"'\n", 1))
	p.signal(syscall.SIGHUP)
	p.wait("configuration stays as it was", other+": permission denied")
	p.wait("configuration stays as it was", "restart dewey")
	wantPass(t, address, "bob", "bobs", "+OK")
	// A backend less is as it was.
	write(t, file, configured[:strings.LastIndex(configured, "[[auth]]")])
	p.signal(syscall.SIGHUP)
	p.wait("msg=reloaded")
	wantPass(t, address, "zoe", "x", "-ERR [AUTH]")
	p.signal(syscall.SIGTERM)
	if code := p.end(); code != 0 {
		t.Errorf("code %d", code)
	}
	if !p.saw(`msg="auth backend"`, "backend=sql", "remembered=") {
		t.Error("the end does not say what the backends have done")
	}
}

// keep_case asks for names as they were given; it is a key of those kinds that know of it.
func TestKeepCase(t *testing.T) {
	folder := t.TempDir()
	users, file := filepath.Join(folder, "users.sqlite"), filepath.Join(folder, "dewey.toml")
	database(t, users, "Bob", "bobs")
	table := "[[auth]]\nkind = 'sql'\ndriver = 'sqlite'\ndsn = '" + users + "'\nuser_query = 'SELECT name AS user, password FROM users WHERE name = {user}'\n"
	for keep, want := range map[string]string{"false": "", "true": "Bob"} {
		write(t, file, table+"keep_case = "+keep+"\n")
		c, err := config.Load(file, nil)
		if err != nil {
			t.Fatal(err)
		}
		b, err := openBackends(c, nil, slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		id, err := b.CheckPassword(t.Context(), auth.Attempt{User: "Bob", Password: "bobs"})
		if id.User != want || errors.Is(err, auth.ErrRejected) != (want == "") {
			t.Errorf("keep_case = %s: %q, %v", keep, id.User, err)
		}
		b.closing()
	}
	for text, good := range map[string]bool{
		"kind = 'ldap'\nurls = ['ldap://127.0.0.1']\nbase = 'dc=x'\nfilter = '(uid={user})'\nuser_attribute = 'uid'\n": true, "kind = 'pam'\n": true,
		"kind = 'passwd-file'\n": false, "kind = 'dovecot'\n": false,
	} {
		write(t, file, "[[auth]]\n"+text+"keep_case = true\n")
		if _, err := config.Load(file, nil); (err == nil) != good {
			t.Errorf("%s: %v", text, err)
		}
	}
}
