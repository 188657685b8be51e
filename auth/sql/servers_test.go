package sqlauth

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

const dbPassword = "S3cret/of:the@database" // of the role tester, URL-encoded where it must be

// A server is a real one, in a folder and on a port of its own. It is started for the first test that wants it.
type server struct {
	kind    string
	folder  string
	port    int
	ca      []byte
	command *exec.Cmd
	waited  chan struct{}
	once    sync.Once
	run     []string // the server's program and its arguments
	as      string   // the user of the system that it runs as
	client  []string // reads SQL
}

var postgresServer, mariaServer = &server{kind: Postgres}, &server{kind: MySQL}

func TestMain(m *testing.M) {
	code := m.Run()
	for _, s := range []*server{postgresServer, mariaServer} {
		s.stop()
		os.RemoveAll(s.folder)
	}
	os.Exit(code)
}

// program finds one of those that Debian puts in different places.
func program(t *testing.T, name, debian string) string {
	t.Helper()
	places, _ := filepath.Glob("/usr/lib/postgresql/*/bin/" + name)
	places = append([]string{"/usr/sbin/" + name, "/usr/bin/" + name}, places...)
	i := slices.IndexFunc(places, func(p string) bool { _, err := os.Stat(p); return err == nil })
	if i < 0 {
		t.Fatalf("%s is missing: install the Debian package %s", name, debian)
	}
	return places[i]
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// sudo makes a command of the user of the system that the server runs as.
func (s *server) sudo(t *testing.T, args ...string) *exec.Cmd {
	t.Helper()
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Dir = s.folder
	if os.Getuid() != 0 {
		t.Fatalf("not root: %s runs as the user %s, which takes root to start", s.kind, s.as)
	}
	u, err := user.Lookup(s.as)
	must(t, err)
	uid, _ := strconv.Atoi(u.Uid)
	gid, _ := strconv.Atoi(u.Gid)
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}}
	return cmd
}

func (s *server) start(t *testing.T) *server {
	t.Helper()
	s.once.Do(func() {
		var err error
		s.folder, err = os.MkdirTemp("", "dewey-"+s.kind)
		must(t, err)
		s.port = freePort(t)
		var cert, key []byte
		s.ca, cert, key = certificates(t)
		must(t, os.WriteFile(filepath.Join(s.folder, "cert.pem"), cert, 0o600))
		must(t, os.WriteFile(filepath.Join(s.folder, "key.pem"), key, 0o600))
		must(t, os.WriteFile(filepath.Join(s.folder, "ca.pem"), s.ca, 0o644))
		if s.kind == Postgres {
			s.makePostgres(t)
		} else {
			s.makeMaria(t)
		}
		s.launch(t)
		s.exec(t, schema[s.kind])
	})
	if s.waited == nil {
		t.Fatalf("%s did not start", s.kind)
	}
	return s
}

func (s *server) own(t *testing.T) {
	u, err := user.Lookup(s.as)
	must(t, err)
	uid, _ := strconv.Atoi(u.Uid)
	gid, _ := strconv.Atoi(u.Gid)
	must(t, filepath.Walk(s.folder, func(p string, _ os.FileInfo, err error) error { return os.Chown(p, uid, gid) }))
}

func (s *server) makePostgres(t *testing.T) {
	s.as = "postgres"
	data := filepath.Join(s.folder, "data")
	s.own(t)
	out, err := s.sudo(t, program(t, "initdb", "postgresql"), "-D", data, "-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync").CombinedOutput()
	if err != nil {
		t.Fatalf("initdb: %v: %s", err, out)
	}
	must(t, os.WriteFile(filepath.Join(data, "pg_hba.conf"), []byte("local all postgres trust\nlocal all all scram-sha-256\nhost all all 127.0.0.1/32 scram-sha-256\n"), 0o644))
	s.run = []string{
		program(t, "postgres", "postgresql"), "-D", data, "-h", "127.0.0.1", "-p", fmt.Sprint(s.port), "-k", s.folder, "-F",
		"-c", "ssl=on", "-c", "ssl_cert_file=" + s.folder + "/cert.pem", "-c", "ssl_key_file=" + s.folder + "/key.pem",
	}
	s.client = []string{program(t, "psql", "postgresql-client"), "-h", s.folder, "-p", fmt.Sprint(s.port), "-U", "postgres", "-qtAX", "-v", "ON_ERROR_STOP=1", "postgres"}
}

func (s *server) makeMaria(t *testing.T) {
	s.as = "mysql"
	data := filepath.Join(s.folder, "data")
	s.own(t)
	out, err := s.sudo(t, program(t, "mariadb-install-db", "mariadb-server"), "--no-defaults", "--datadir="+data, "--auth-root-authentication-method=normal", "--skip-test-db").CombinedOutput()
	if err != nil {
		t.Fatalf("mariadb-install-db: %v: %s", err, out)
	}
	s.run = []string{
		program(t, "mariadbd", "mariadb-server"), "--no-defaults", "--datadir=" + data, "--bind-address=127.0.0.1", "--port=" + fmt.Sprint(s.port),
		"--socket=" + s.folder + "/mysqld.sock", "--pid-file=" + s.folder + "/pid", "--ssl-cert=" + s.folder + "/cert.pem", "--ssl-key=" + s.folder + "/key.pem",
		"--innodb-buffer-pool-size=8M", "--innodb-flush-log-at-trx-commit=0", "--performance-schema=OFF",
	}
	s.client = []string{program(t, "mariadb", "mariadb-client"), "--no-defaults", "--socket=" + s.folder + "/mysqld.sock", "-u", "root", "-N", "-B"}
}

// launch starts the server, again too, and waits until it answers.
func (s *server) launch(t *testing.T) {
	t.Helper()
	logs, err := os.Create(filepath.Join(s.folder, "log"))
	must(t, err)
	defer logs.Close()
	s.command = s.sudo(t, s.run...)
	s.command.Stdout, s.command.Stderr = logs, logs
	must(t, s.command.Start())
	waited, command := make(chan struct{}), s.command
	go func() {
		_ = command.Wait()
		close(waited)
	}()
	s.waited = waited
	eventually(t, s.kind+" starts", func() bool {
		select {
		case <-waited:
			text, _ := os.ReadFile(logs.Name())
			t.Fatalf("%s ended: %s", s.kind, text)
		default:
		}
		return s.query("SELECT 1") == nil
	})
}

// stop kills the server; all of it, as PostgreSQL's children end by themselves.
func (s *server) stop() {
	if s.waited != nil {
		_ = s.command.Process.Signal(syscall.SIGCONT)
		_ = s.command.Process.Signal(syscall.SIGQUIT)
		if s.kind == MySQL {
			_ = s.command.Process.Kill()
		}
		<-s.waited
	}
}

// signal reaches all of the server's processes.
func (s *server) signal(t *testing.T, sig syscall.Signal) {
	t.Helper()
	children, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%[1]d/children", s.command.Process.Pid))
	must(t, err)
	for _, pid := range append(strings.Fields(string(children)), fmt.Sprint(s.command.Process.Pid)) {
		n, _ := strconv.Atoi(pid)
		_ = syscall.Kill(n, sig)
		eventually(t, "the signal has come", func() bool {
			tasks, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", n))
			return sig != syscall.SIGSTOP || !slices.ContainsFunc(tasks, func(path string) bool {
				stat, err := os.ReadFile(path)
				return err == nil && !strings.Contains(string(stat), ") T ") && !strings.Contains(string(stat), ") Z ")
			})
		})
	}
}

func (s *server) query(sql string) error {
	cmd := exec.Command(s.client[0], s.client[1:]...)
	cmd.Stdin = strings.NewReader(sql)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%w: %s", err, out)
	}
	return nil
}

func (s *server) exec(t *testing.T, sql string) {
	t.Helper()
	must(t, s.query(sql))
}

// dsn is one by TCP.
func (s *server) dsn() string {
	if s.kind == Postgres {
		return fmt.Sprintf("postgres://tester:S3cret%%2Fof%%3Athe%%40database@127.0.0.1:%d/test", s.port)
	}
	return fmt.Sprintf("tester:%s@tcp(127.0.0.1:%d)/test", dbPassword, s.port)
}

func (s *server) socketDSN() string {
	if s.kind == Postgres {
		return fmt.Sprintf("host=%s port=%d user=tester password='%s' dbname=test", s.folder, s.port, dbPassword)
	}
	return fmt.Sprintf("tester:%s@unix(%s/mysqld.sock)/test", dbPassword, s.folder)
}

func freePort(t *testing.T) int {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}

// eventually polls, for half a minute at most.
func eventually(t *testing.T, what string, is func() bool) {
	t.Helper()
	deadline := time.Now().Add(30 * time.Second)
	for tick := time.NewTicker(20 * time.Millisecond); !is(); <-tick.C {
		if time.Now().After(deadline) {
			t.Fatalf("not in half a minute: %s", what)
		}
	}
}

// certificates makes an authority, and a certificate for 127.0.0.1.
func certificates(t *testing.T) (ca, cert, key []byte) {
	t.Helper()
	encode := func(kind string, der []byte) []byte {
		return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
	}
	caKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	authority := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), KeyUsage: x509.KeyUsageCertSign,
	}
	caDER, err := x509.CreateCertificate(rand.Reader, authority, authority, &caKey.PublicKey, caKey)
	must(t, err)
	leafKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	leaf := &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: "database"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		NotBefore: authority.NotBefore, NotAfter: authority.NotAfter, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	leafDER, err := x509.CreateCertificate(rand.Reader, leaf, authority, &leafKey.PublicKey, caKey)
	must(t, err)
	keyDER, err := x509.MarshalPKCS8PrivateKey(leafKey)
	must(t, err)
	return encode("CERTIFICATE", caDER), encode("CERTIFICATE", leafDER), encode("PRIVATE KEY", keyDER)
}

// What crypt(3) makes of "tanstaaf".
const (
	sha512Hash = "$6$rounds=1000$saltsalt$rXjl5uYHGWEqW/rCvZtCboIF4gG9Mm2IgawiKhopbnZ3Wo8X8lHSiLnrN1Z0o3jtyNmfEJVSATxUqKvsHnqia0"
	bcryptHash = "$2b$04$abcdefghijklmnopqrstuumJUK7dJmoK7yMfXBMkeTJL1Y.du7qIG"
	md5Hash    = "$1$saltsalt$roN2lUfEbZqZad1NpG.Zy1"
)

// users is the table of the tests, in all three databases.
const users = `
CREATE TABLE users (name VARCHAR(255) PRIMARY KEY, secret VARCHAR(255), home VARCHAR(255), octets BIGINT, messages DECIMAL(12,2), off BOOLEAN);
INSERT INTO users VALUES
 ('bob', '{PLAIN}tanstaaf', '/var/vmail/bob', 1000000, 100, false),
 ('ann@example.org', '` + sha512Hash + `', NULL, 0, NULL, NULL),
 ('bcrypt', '{BLF-CRYPT}` + bcryptHash + `', NULL, NULL, NULL, false),
 ('md5', '` + md5Hash + `', NULL, NULL, NULL, false),
 ('nobody', NULL, NULL, NULL, NULL, false),
 ('locked', '!` + sha512Hash + `', NULL, NULL, NULL, false),
 ('off', '{PLAIN}tanstaaf', NULL, NULL, NULL, true),
 ('broken', '{SHA512-CRYPT}nonsense', NULL, NULL, NULL, false),
 ('lost', '{PLAIN}tanstaaf', 'not/absolute', NULL, NULL, false),
 ('o''brien', '{PLAIN}tanstaaf', NULL, NULL, NULL, false),
 ('grüße', '{PLAIN}tanstaaf', NULL, NULL, NULL, false);
`

const userQuery = "SELECT name AS user, secret AS password, home, octets AS quota_octets, messages AS quota_messages, off AS disabled FROM users WHERE name = {user}"

var schema = map[string]string{
	Postgres: `CREATE ROLE tester LOGIN PASSWORD '` + dbPassword + `';
CREATE DATABASE test;
\c test
` + users + `
GRANT SELECT ON users TO tester;`,
	MySQL: `CREATE DATABASE test CHARACTER SET utf8mb4; USE test;
` + users + `
CREATE USER tester IDENTIFIED BY '` + dbPassword + `';
GRANT SELECT ON test.users TO tester;`,
}
