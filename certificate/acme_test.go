package certificate

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"golang.org/x/net/dns/dnsmessage"
)

// buildPebble builds Let's Encrypt's ACME server for tests.
var buildPebble = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "dewey-pebble")
	if err != nil {
		return "", err
	}
	name := filepath.Join(dir, "pebble")
	out, err := exec.Command("go", "build", "-modfile=../tools.mod", "-o", name, "github.com/letsencrypt/pebble/v2/cmd/pebble").CombinedOutput()
	if err != nil {
		err = fmt.Errorf("building pebble: %w: %s", err, out)
	}
	return name, err
})

func TestMain(m *testing.M) {
	code := m.Run()
	if name, err := buildPebble(); err == nil {
		os.RemoveAll(filepath.Dir(name))
	}
	os.Exit(code)
}

// ca is a running pebble.
type ca struct {
	directory string
	roots     string // file
	issued    *x509.CertPool
	log       *log
}

// startPebble runs pebble with certificates of the given validity. It asks for challenges at port.
func startPebble(t *testing.T, port int, validity time.Duration, env ...string) *ca {
	t.Helper()
	pebble, err := buildPebble()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	mustOpen(t, Options{SelfDir: dir}) // what pebble itself shows to its clients
	config := func(addr, management string) string {
		data, err := json.Marshal(map[string]any{"pebble": map[string]any{
			"listenAddress": addr, "managementListenAddress": management,
			"certificate": filepath.Join(dir, "cert.pem"), "privateKey": filepath.Join(dir, "key.pem"),
			"httpPort": port, "tlsPort": 1, "keyAlgorithm": "ecdsa",
			"retryAfter": map[string]int{"authz": 1, "order": 1},
			"profiles":   map[string]any{"default": map[string]any{"description": "test", "validityPeriod": validity / time.Second}},
		}})
		if err != nil {
			t.Fatal(err)
		}
		name := filepath.Join(dir, "config.json")
		write(t, name, data)
		return name
	}
	addr, management := freeAddress(t), freeAddress(t)
	p := &ca{directory: "https://" + addr + "/dir", roots: filepath.Join(dir, "cert.pem"), log: new(log)}
	cmd := exec.Command(pebble, "-config", config(addr, management), "-dnsserver", serveDNS(t))
	cmd.Env = append(append(os.Environ(), "PEBBLE_VA_NOSLEEP=1", "PEBBLE_AUTHZREUSE=0"), env...)
	cmd.Stdout, cmd.Stderr = p.log, p.log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		if t.Failed() {
			t.Logf("pebble: %s", p.log)
		}
	})
	trust := x509.NewCertPool()
	trust.AppendCertsFromPEM(read(t, p.roots))
	client := &http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{DisableKeepAlives: true, TLSClientConfig: &tls.Config{RootCAs: trust}}}
	eventually(t, 30*time.Second, "pebble answers", func() bool {
		if _, err := client.Get(p.directory); err != nil {
			return false
		}
		response, err := client.Get("https://" + management + "/roots/0")
		if err != nil {
			return false
		}
		defer response.Body.Close()
		root, err := io.ReadAll(response.Body)
		p.issued = x509.NewCertPool()
		return err == nil && p.issued.AppendCertsFromPEM(root)
	})
	return p
}

// orders counts the orders that the CA was given.
func (p *ca) orders() int { return strings.Count(p.log.String(), "POST /order-plz -> calling handler") }

func freeAddress(t *testing.T) string {
	t.Helper()
	l := listen(t)
	defer l.Close()
	return l.Addr().String()
}

func listen(t *testing.T) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

// serveDNS answers that every name is 127.0.0.1, over TCP, as pebble asks, and has nothing else.
func serveDNS(t *testing.T) string {
	t.Helper()
	l := listen(t)
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				_ = c.SetDeadline(time.Now().Add(10 * time.Second))
				for answerDNS(c) == nil {
				}
			}()
		}
	}()
	return l.Addr().String()
}

func answerDNS(c net.Conn) error {
	length := make([]byte, 2)
	if _, err := io.ReadFull(c, length); err != nil {
		return err
	}
	question := make([]byte, binary.BigEndian.Uint16(length))
	if _, err := io.ReadFull(c, question); err != nil {
		return err
	}
	var m dnsmessage.Message
	if err := m.Unpack(question); err != nil {
		return err
	}
	m.Response, m.Additionals = true, nil
	for _, q := range m.Questions {
		if q.Type == dnsmessage.TypeA {
			m.Answers = append(m.Answers, dnsmessage.Resource{
				Header: dnsmessage.ResourceHeader{Name: q.Name, Class: q.Class, TTL: 1},
				Body:   &dnsmessage.AResource{A: [4]byte{127, 0, 0, 1}},
			})
		}
	}
	answer, err := m.Pack()
	if err != nil {
		return err
	}
	_, err = c.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(answer))), answer...))
	return err
}

// run runs a Keeper; the function that it returns ends it and waits.
func run(t *testing.T, k *Keeper) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- k.Run(ctx) }()
	stop = sync.OnceFunc(func() {
		cancel()
		select {
		case err := <-done:
			if err != nil {
				t.Error(err)
			}
		case <-time.After(10 * time.Second):
			t.Error("Run does not end")
		}
	})
	t.Cleanup(stop)
	return stop
}

const domain = "pop.example.test"

// A certificate comes while a self-made one is served, is found again after a restart without another
// order, and nobody is served anything else meanwhile.
func TestACME(t *testing.T) {
	l1 := listen(t)
	p := startPebble(t, l1.Addr().(*net.TCPAddr).Port, 90*24*time.Hour, "PEBBLE_WFE_NONCEREJECT=0")
	dir := t.TempDir()
	acme := &ACME{Domains: []string{domain, "Mail.Example.Test"}, Email: "admin@example.test", Directory: p.directory, Roots: p.roots, Dir: dir, Listener: l1}
	k, l := mustOpen(t, Options{ACME: acme})
	if info := k.Describe(); len(info) != 1 || !info[0].SelfMade || info[0].File != "" || k.Leaf("").VerifyHostname(domain) != nil {
		t.Errorf("before: %+v", info)
	}
	if l.count("no certificate has come by ACME yet") != 1 {
		t.Error(l)
	}
	insecure := &tls.Config{ServerName: domain, InsecureSkipVerify: true, ClientSessionCache: tls.NewLRUClientSessionCache(1)}
	mustShake(t, k.TLS(), insecure)
	stop := run(t, k)
	eventually(t, time.Minute, "certificates for both domains", func() bool {
		info := k.Describe()
		return len(info) == 2 && !info[0].SelfMade && !info[1].SelfMade
	})
	if cs := mustShake(t, k.TLS(), insecure); cs.DidResume {
		t.Error("a ticket of the self-made certificate resumed")
	}
	var keyFiles []string
	for _, info := range k.Describe() {
		if _, err := os.Stat(info.File); err != nil {
			t.Error(err)
		}
		keyFiles = append(keyFiles, strings.TrimSuffix(info.File, ".crt")+".key")
	}
	for _, name := range []string{domain, "mail.example.test"} {
		mustShake(t, k.TLS(), &tls.Config{ServerName: name, RootCAs: p.issued})
	}
	client := http.Client{Timeout: 5 * time.Second}
	if r, err := client.Get("http://" + l1.Addr().String() + "/"); err != nil || r.StatusCode != http.StatusNotFound {
		t.Errorf("the challenge port says %v, %v", r, err)
	}
	if err := k.Reload(); err != nil {
		t.Error(err)
	}
	leaf, orders := k.Leaf(domain), p.orders()
	stop()
	if _, err := net.Dial("tcp", l1.Addr().String()); err == nil {
		t.Error("the challenge port is still open")
	}
	if orders != 2 || l.count("a new certificate is served") != 2 {
		t.Errorf("%d orders, %s", orders, l)
	}
	l.noSecrets(t, append(keyFiles, accountKeys(t, dir)...)...)

	// Again: what is there is served at once, and stays.
	again := *acme
	again.Listener = listen(t)
	again.renewCheck = 100 * time.Millisecond
	k, l = mustOpen(t, Options{ACME: &again})
	mustShake(t, k.TLS(), &tls.Config{ServerName: domain, RootCAs: p.issued})
	stop = run(t, k)
	eventually(t, time.Minute, "certmagic has both", func() bool {
		k.mu.Lock()
		defer k.mu.Unlock()
		return k.acme != nil && k.acme.certificate(domain) != nil && k.acme.certificate("mail.example.test") != nil
	})
	time.Sleep(500 * time.Millisecond) // several looks at what is to be renewed; no result depends on it
	k.look(t.Context())
	stop()
	if !k.Leaf(domain).Equal(leaf) || p.orders() != orders || l.count("") != 0 {
		t.Errorf("after a restart: %d orders instead of %d, %s", p.orders(), orders, l)
	}

	// A crash has left a key and a certificate that do not fit: the other domain is served, this one is
	// asked for anew. (certmagic alone would do without it for ever.)
	write(t, keyFiles[0], read(t, keyFiles[1]))
	anew := *acme
	anew.Listener = l1Again(t, l1)
	k, l = mustOpen(t, Options{ACME: &anew})
	if stem(k, k.Leaf(domain)) != "mail.example.test" || l.count("do not belong together") != 1 {
		t.Errorf("%+v, %s", k.Describe(), l)
	}
	stop = run(t, k)
	eventually(t, time.Minute, "both again", func() bool { return len(k.Describe()) == 2 })
	stop()
	if p.orders() != orders+1 || k.Leaf(domain).VerifyHostname(domain) != nil {
		t.Errorf("%d orders, %s", p.orders(), l)
	}
}

// l1Again listens where l1 did, for that is where the CA asks.
func l1Again(t *testing.T, l1 net.Listener) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", l1.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

func accountKeys(t *testing.T, dir string) (list []string) {
	t.Helper()
	_ = filepath.WalkDir(filepath.Join(dir, "acme"), func(name string, d os.DirEntry, err error) error {
		if err == nil && strings.HasSuffix(name, ".key") {
			list = append(list, name)
		}
		return nil
	})
	if len(list) == 0 {
		t.Error("no account key in " + dir)
	}
	return list
}

// A certificate is renewed while the server runs, also by a CA that refuses one nonce in twenty, as
// pebble does (RFC 8555 section 6.5), and tickets end with the old one.
func TestACMERenewal(t *testing.T) {
	challenges := listen(t)
	p := startPebble(t, challenges.Addr().(*net.TCPAddr).Port, 40*time.Second, "PEBBLE_WFE_NONCEREJECT=5")
	k, l := mustOpen(t, Options{ACME: &ACME{
		Domains: []string{domain}, Directory: p.directory, Roots: p.roots, Dir: t.TempDir(), Listener: challenges,
		renewCheck: time.Second, renewWindow: 0.9,
	}})
	k.every = 50 * time.Millisecond
	stop := run(t, k)
	eventually(t, time.Minute, "a certificate", func() bool { return !k.Describe()[0].SelfMade })
	first := k.Leaf(domain)
	client := &tls.Config{ServerName: domain, RootCAs: p.issued, ClientSessionCache: tls.NewLRUClientSessionCache(1)}
	for again := range 2 {
		if cs := mustShake(t, k.TLS(), client); again == 1 && cs.PeerCertificates[0].Equal(first) && k.Leaf(domain).Equal(first) && !cs.DidResume {
			t.Error("not resumed")
		}
	}
	eventually(t, time.Minute, "a renewed certificate", func() bool { return !k.Leaf(domain).Equal(first) })
	cs := mustShake(t, k.TLS(), client)
	if cs.DidResume || cs.PeerCertificates[0].Equal(first) {
		t.Error("resumed with the certificate before")
	}
	stop()
	if l.count("a new certificate is served") < 2 {
		t.Error(l)
	}
}

// A CA that can't be reached, or is not trusted, is told once, holds up nothing, and ends nothing.
func TestACMEWithoutACA(t *testing.T) {
	challenges := listen(t)
	p := startPebble(t, challenges.Addr().(*net.TCPAddr).Port, time.Hour)
	stranger := filepath.Join(t.TempDir(), "ca.pem")
	write(t, stranger, newAuthority(t).pem)
	for what, acme := range map[string]*ACME{
		"refused":     {Directory: "https://" + freeAddress(t) + "/dir"},
		"not trusted": {Directory: p.directory, Roots: stranger},
		"not a CA":    {Directory: strings.TrimSuffix(p.directory, "dir") + "none", Roots: p.roots},
		"wrong port":  {Directory: p.directory, Roots: p.roots}, // the challenge is asked for elsewhere
	} {
		t.Run(what, func(t *testing.T) {
			acme.Domains, acme.Dir, acme.Listener = []string{domain}, t.TempDir(), listen(t)
			if what == "wrong port" {
				challenges.Close()
			}
			k, l := mustOpen(t, Options{ACME: acme})
			k.every = 10 * time.Millisecond
			stop := run(t, k)
			eventually(t, 30*time.Second, "a warning", func() bool { return l.count("will retry") > 0 })
			if cs := mustShake(t, k.TLS(), &tls.Config{ServerName: domain, InsecureSkipVerify: true}); cs.PeerCertificates[0].VerifyHostname(domain) != nil {
				t.Error("nothing is served")
			}
			stop()
			if n := l.count(""); n > 4 {
				t.Errorf("%d lines: %s", n, l)
			}
			if !strings.Contains(l.String(), domain) {
				t.Error(l)
			}
			l.noSecrets(t)
		})
	}
}

// Beside files, ACME needs no certificate of ours while it has none.
func TestACMEBesideFiles(t *testing.T) {
	ca, dir := newAuthority(t), t.TempDir()
	k, l := mustOpen(t, Options{
		Pairs: []Pair{ca.pair(t, dir, "file", newKey(t), "file.example.org")},
		ACME:  &ACME{Domains: []string{domain}, Dir: dir, Listener: listen(t)},
	})
	if info := k.Describe(); len(info) != 1 || info[0].SelfMade || stem(k, k.Leaf(domain)) != "file" || l.String() != "" {
		t.Errorf("%+v, %s", info, l)
	}
	if err := k.Reload(); err != nil {
		t.Error(err)
	}
}

// What certmagic says goes to slog: faults once an hour for each domain, the rest for those who debug.
func TestBridge(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := new(log)
		b := newBridge(l.logger())
		z := zap.New(b, zap.WithClock(bubbleClock{})).Named("obtain").With(zap.String("identifier", "a.example"))
		for i := range 100 {
			z.Error("could not", zap.Error(fmt.Errorf("order %d", i)))
			z.Error("could not", zap.String("identifier", "b.example"), zap.Error(errors.New("x")))
			z.Info("going on", zap.Int("n", i))
			z.Debug("POST", zap.String("body", "all of it"))
			time.Sleep(time.Minute)
		}
		if n := l.count("could not"); n != 4 {
			t.Errorf("%d lines", n)
		}
		if l.count("going on") != 0 || strings.Count(l.String(), "going on") != 100 || strings.Contains(l.String(), "POST") {
			t.Error(l)
		}
		if want := `level=WARN msg="ACME: could not" part=obtain error="order 0" identifier=a.example`; !strings.Contains(l.String(), want) {
			t.Error(l)
		}
		for i := range 2000 { // it is bounded
			b.first(zapcore.Entry{Time: time.Now(), Message: fmt.Sprint(i)}, nil)
		}
		if len(b.last) > 1001 {
			t.Errorf("%d entries", len(b.last))
		}
		b.quiet.Store(true)
		before := l.String()
		z.Error("interrupted")
		if l.String() != before || b.Sync() != nil {
			t.Error("not quiet")
		}
	})
}

type bubbleClock struct{}

func (bubbleClock) Now() time.Time                         { return time.Now() }
func (bubbleClock) NewTicker(d time.Duration) *time.Ticker { return time.NewTicker(d) }
