package certificate

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"
)

// Pair names the PEM files of one certificate.
type Pair struct {
	Certificate string // the server's own certificate first, then its chain
	Key         string // may be the same file
}

// Options say what to serve. Pairs and ACME may both be given; SelfDir is used where neither is.
type Options struct {
	Pairs      []Pair // told apart by SNI; the first is served where none fits
	SelfDir    string // folder of the self-made certificate, 0700, made if missing
	Hostname   string // the name in the self-made certificate, beside localhost, 127.0.0.1 and ::1
	ACME       *ACME  // nil: none
	ClientCA   string // a PEM file of CAs whose client certificates are asked for; empty: none are
	MinVersion uint16 // tls.VersionTLS12 if 0
	Logger     *slog.Logger
}

// ACME says how to get certificates by RFC 8555, one for each domain. Its use means agreeing to the
// terms of the CA.
type ACME struct {
	Domains   []string
	Email     string
	Directory string       // https URL; empty: Let's Encrypt
	Roots     string       // PEM file of CAs trusted for Directory; empty: the system's
	Dir       string       // storage folder, 0700, made if missing
	Listener  net.Listener // TCP; HTTP-01 challenges are answered here while Run runs, which closes it

	renewCheck  time.Duration // for tests: how often certmagic looks for what is to be renewed
	renewWindow float64       // for tests: how much of its lifetime is left when a certificate is renewed
}

// Info describes one certificate for the log.
type Info struct {
	Names       []string // as the certificate has them
	NotAfter    time.Time
	Fingerprint string // SHA-256, colon-separated, as openssl x509 -fingerprint -sha256 prints it
	SelfMade    bool
	File        string // empty if there is none yet
}

// A Keeper holds the certificates that are served. All methods may be called at any time by anyone.
type Keeper struct {
	options Options
	log     *slog.Logger
	base    *tls.Config
	every   time.Duration // between two looks at the files
	kick    chan struct{} // the next look comes now

	now atomic.Pointer[served]

	mu        sync.Mutex // protects what follows
	sources   []*source  // in the order in which they are preferred
	clients   *clientCAs // nil: none
	temporary *source    // made in memory while ACME has nothing yet
	warned    time.Time  // when expiry was last warned of
	acme      *manager   // nil: none, or Run does not run
}

// Open reads all that is to be served and makes what is to be made. It starts nothing. Its error joins
// all that is wrong.
func Open(o Options) (*Keeper, error) {
	k := &Keeper{options: o, log: o.Logger, every: 5 * time.Second, kick: make(chan struct{}, 1)}
	if k.log == nil {
		k.log = slog.New(slog.DiscardHandler)
	}
	var errs []error
	if k.options.MinVersion == 0 {
		k.options.MinVersion = tls.VersionTLS12
	}
	// RFC 8314 section 4: TLS 1.2 or later.
	if v := k.options.MinVersion; v < tls.VersionTLS12 || v > tls.VersionTLS13 {
		errs = append(errs, fmt.Errorf("the lowest TLS version is %#04x: it can be TLS 1.2 or 1.3", v))
	}
	for _, p := range o.Pairs {
		s := newSource(p)
		k.sources = append(k.sources, s)
		errs = append(errs, k.open(s))
	}
	if o.ACME != nil {
		sources, err := o.ACME.open()
		errs = append(errs, err)
		for _, s := range sources {
			k.sources = append(k.sources, s)
			if !s.present() {
				continue
			}
			if err := k.open(s); err != nil {
				k.log.Warn("ACME: what was stored can't be used", "error", err)
			}
		}
	}
	if len(o.Pairs) == 0 && o.ACME == nil {
		p, err := k.keepSelf()
		errs = append(errs, err)
		if err == nil {
			s := newSource(p)
			s.self = true
			k.sources = append(k.sources, s)
			errs = append(errs, k.open(s))
			k.checkHostname(s)
		}
	}
	if o.ClientCA != "" {
		k.clients = newClientCAs(o.ClientCA)
		warnings, err := k.clients.read()
		errs = append(errs, err)
		for _, w := range warnings {
			k.log.Warn(w, "file", o.ClientCA)
		}
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	if err := k.publish(); err != nil {
		return nil, err
	}
	k.base = &tls.Config{
		MinVersion:             k.options.MinVersion,
		CipherSuites:           suites,
		NextProtos:             []string{"pop3"},
		SessionTicketsDisabled: true, // each certificate has its own: the package's comment says why
		GetCertificate: func(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
			return k.now.Load().choose(hello).certificate, nil
		},
		GetConfigForClient: func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
			return k.now.Load().choose(hello).config, nil
		},
	}
	if k.clients != nil {
		k.base.ClientAuth = tls.VerifyClientCertIfGiven
		k.base.ClientCAs = k.clients.pool
	}
	return k, nil
}

// open reads a source for the first time and says what is odd about it.
func (k *Keeper) open(s *source) error {
	if _, err := s.read(); err != nil {
		return err
	}
	k.warn(s)
	return nil
}

func (k *Keeper) warn(s *source) {
	for _, w := range s.warnings(time.Now()) {
		k.log.Warn(w, "certificate", s.pair.Certificate, "key", s.pair.Key)
	}
}

// TLS returns the one config of the process. It is not to be changed: clone it. What may be relied on is
// said in the package's comment.
func (k *Keeper) TLS() *tls.Config { return k.base }

// Leaf returns the certificate that is served to a client that asks for name and supports all there is;
// the name may be empty. Where a name has several certificates, and only there, a client that lacks
// ECDSA is served another.
func (k *Keeper) Leaf(name string) *x509.Certificate {
	return k.now.Load().forName(name, nil).certificate.Leaf
}

// Describe tells of each certificate that is served, the one that is served where no name fits first.
func (k *Keeper) Describe() []Info {
	var infos []Info
	for _, e := range k.now.Load().entries {
		infos = append(infos, e.info)
	}
	return infos
}

// publish serves what the sources have. Keeper.mu is held, or nobody else has the Keeper yet.
func (k *Keeper) publish() error {
	var have []*source
	for _, s := range k.sources {
		if s.certificate != nil {
			have = append(have, s)
		}
	}
	if len(have) == 0 { // ACME alone, and nothing came yet
		if k.temporary == nil {
			s, err := temporary(k.options.ACME.Domains)
			if err != nil {
				return err
			}
			k.temporary = s
			k.log.Warn("no certificate has come by ACME yet: a self-made one is served until then", "domains", k.options.ACME.Domains)
		}
		have = []*source{k.temporary}
	} else {
		k.temporary = nil
	}
	var pool *x509.CertPool
	if k.clients != nil {
		pool = k.clients.pool
	}
	before := k.now.Load()
	after := newServed(have, pool, k.options.MinVersion, before)
	k.now.Store(after)
	if before == nil {
		return nil
	}
	for _, e := range after.entries {
		if !before.has(e.fingerprint) {
			k.log.Info("a new certificate is served", "names", e.info.Names, "expires", e.info.NotAfter, "sha256", e.info.Fingerprint, "file", e.info.File)
		}
	}
	return nil
}

// keepSelf finds or makes the self-made pair.
func (k *Keeper) keepSelf() (Pair, error) {
	if k.options.SelfDir == "" {
		return Pair{}, errors.New("no certificate is given, and no folder for a self-made one")
	}
	p := Pair{filepath.Join(k.options.SelfDir, "cert.pem"), filepath.Join(k.options.SelfDir, "key.pem")}
	what, err := keepSelf(p, k.options.Hostname, time.Now())
	if err == nil && what != "" {
		k.log.Warn(what, "certificate", p.Certificate)
	}
	return p, err
}

// checkHostname tells of a self-made certificate that has another name than the server now has. It is
// kept: people have accepted its fingerprint, and a new one would look to them like an attack.
func (k *Keeper) checkHostname(s *source) {
	if s.certificate == nil || k.options.Hostname == "" {
		return
	}
	name, err := asciiName(k.options.Hostname)
	if err == nil && s.certificate.Leaf.VerifyHostname(name) != nil {
		k.log.Warn("the self-made certificate does not have the server's name; it is kept, because clients may have accepted it. "+
			"To have a new one, which they must accept anew, remove both files and start again",
			"name", name, "certificate", s.pair.Certificate, "key", s.pair.Key)
	}
}
