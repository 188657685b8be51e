package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// password is that of all users. Its hash is a digest that costs nothing, so that sessions are compared, not hashes.
const password = "secret"

func hashed() string {
	sum := sha256.Sum256([]byte(password))
	return "{SHA256}" + base64.StdEncoding.EncodeToString(sum[:])
}

// An environment is what all servers share.
type environment struct {
	*options
	dir         string
	owner       int    // whose mail it is: nobody, or who runs this
	dewey       string // the program
	load        string // the same in a file of its own, so that it shares no pages with the server
	certificate string
	key         string
	users       []string
	servers     []*server
	absent      []string // which servers are left out, and why
}

// A server is one that is compared.
type server struct {
	name, version      string
	settings           string // what was set, as the report shows it
	dir                string // all it has
	mail               string // of Maildirs, one a user
	pop3, pop3s, lmtp  string // addresses; no lmtp: it has none
	sessionsAreProcess bool
	apart              bool // of its processes the last but one serves plain connections alone, and the last TLS
	part               int  // it does one of so many sessions: it is slow
	launch             func(s *server) error
	running            []*exec.Cmd
	primed             map[string]bool // jobs
}

// newEnvironment builds dewey and prepares the servers.
func newEnvironment(ctx context.Context, o *options, dir string) (*environment, error) {
	e := &environment{options: o, dir: dir, owner: os.Getuid(), users: userNames(o.scale, o.pairs)}
	if e.owner == 0 {
		e.owner = 65534 // Dovecot serves no mail as root
	}
	if err := os.Chmod(dir, 0o755); err != nil { //nolint:gosec // servers become other users
		return nil, fmt.Errorf("the folder for the data: %w", err)
	}
	raiseLimit()
	e.dewey, e.load = filepath.Join(dir, "bin", "dewey"), filepath.Join(dir, "bin", "dewey-load")
	e.say("building dewey")
	build := exec.CommandContext(ctx, "go", "build", "-trimpath", "-o", e.dewey, "dewey/cmd/dewey") //nolint:gosec // our own folder
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("go build: %w\n%s", err, out)
	}
	program, err := os.ReadFile(e.dewey)
	if err != nil {
		return nil, fmt.Errorf("a copy of dewey: %w", err)
	}
	if err := os.WriteFile(e.load, program, 0o755); err != nil { //nolint:gosec // a program
		return nil, fmt.Errorf("a copy of dewey: %w", err)
	}
	if err := e.makeCertificate(); err != nil {
		return nil, err
	}
	for _, name := range o.peers {
		s := &server{name: name, dir: filepath.Join(dir, name), primed: make(map[string]bool), part: 1}
		if err := os.MkdirAll(s.dir, 0o755); err != nil { //nolint:gosec // servers become other users
			return nil, fmt.Errorf("the folder of %s: %w", name, err)
		}
		for _, address := range []*string{&s.pop3, &s.pop3s, &s.lmtp} {
			if *address, err = freeAddress(); err != nil {
				return nil, err
			}
		}
		set, known := map[string]func(*environment, context.Context, *server) error{
			"dovecot": (*environment).dovecot, "courier": (*environment).courier, "dewey": (*environment).ownServer,
		}[name]
		if !known {
			return nil, fmt.Errorf("there is no server %q; there are dovecot, courier and dewey", name)
		}
		err := set(e, ctx, s)
		if errors.Is(err, errAbsent) {
			e.absent = append(e.absent, err.Error())
			e.say("%v", err)
			continue
		} else if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		e.servers = append(e.servers, s)
	}
	return e, nil
}

var errAbsent = errors.New("left out")

// raiseLimit lets this process and those it starts have as many descriptors as the system allows.
func raiseLimit() {
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err == nil {
		limit.Cur = limit.Max
		_ = syscall.Setrlimit(syscall.RLIMIT_NOFILE, &limit) // what it can't have, the idle rows do without
	}
}

// makeCertificate makes one for 127.0.0.1, which all servers show.
func (e *environment) makeCertificate() error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return fmt.Errorf("a key: %w", err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "127.0.0.1"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().AddDate(0, 1, 0), IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return fmt.Errorf("a certificate: %w", err)
	}
	secret, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return fmt.Errorf("a key: %w", err)
	}
	e.certificate, e.key = filepath.Join(e.dir, "cert.pem"), filepath.Join(e.dir, "key.pem")
	return errors.Join(
		os.WriteFile(e.certificate, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o644), //nolint:gosec // public
		os.WriteFile(e.key, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: secret}), 0o600))
}

func freeAddress() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", fmt.Errorf("a free port: %w", err)
	}
	defer l.Close()
	return l.Addr().String(), nil
}

func port(address string) string { return address[strings.LastIndexByte(address, ':')+1:] }

// begin starts one of a server's processes. What it says goes to a file.
func (s *server) begin(cmd *exec.Cmd) error {
	log, err := os.OpenFile(filepath.Join(s.dir, "log"), os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("%s's log: %w", s.name, err)
	}
	defer log.Close()
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = orNew(cmd.SysProcAttr)
	cmd.SysProcAttr.Setpgid = true // a ^C at the terminal is for us: we end them
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start %s: %w", s.name, err)
	}
	s.running = append(s.running, cmd)
	return nil
}

func orNew(a *syscall.SysProcAttr) *syscall.SysProcAttr {
	if a == nil {
		return new(syscall.SysProcAttr)
	}
	return a
}

// start starts a server and waits until it greets.
func (s *server) start() error {
	if len(s.running) > 0 {
		return nil
	}
	err := s.launch(s)
	for deadline := time.Now().Add(30 * time.Second); err == nil; {
		if greets(s.pop3) && (s.lmtp == "" || greets(s.lmtp)) {
			return nil
		}
		if time.Now().After(deadline) {
			err = errors.New("it does not answer")
		}
		time.Sleep(50 * time.Millisecond)
	}
	log, _ := os.ReadFile(filepath.Join(s.dir, "log"))
	s.stop()
	return fmt.Errorf("%s: %w\n%s", s.name, err, log[max(0, len(log)-4000):])
}

func greets(address string) bool {
	c, err := net.DialTimeout("tcp", address, time.Second)
	if err != nil {
		return false
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(5 * time.Second))
	n, _ := c.Read(make([]byte, 3))
	return n == 3
}

// stop ends a server's processes: the last that was started first.
func (s *server) stop() {
	for i := len(s.running) - 1; i >= 0; i-- {
		cmd := s.running[i]
		_ = cmd.Process.Signal(syscall.SIGTERM)
		late := time.AfterFunc(15*time.Second, func() { _ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) })
		_ = cmd.Wait() // how it ends does not matter any more
		late.Stop()
		_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) // its group: what it has left behind
	}
	s.running = nil
}

func (e *environment) stop() {
	for _, s := range e.servers {
		s.stop()
	}
}

// pids are flags that name the processes which serve connections of a kind.
func (s *server) pids(secure bool) (list []string) {
	for i, cmd := range s.running {
		if last := len(s.running) - 1; s.apart && (secure && i == last-1 || !secure && i == last) {
			continue
		}
		list = append(list, "--pid", fmt.Sprint(cmd.Process.Pid))
	}
	return list
}
