package certificate

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"net/mail"
	"net/url"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/caddyserver/certmagic"
	"go.uber.org/zap"
	"golang.org/x/net/netutil"
)

// patience is when certmagic gives up on a domain that never had a certificate; we do not.
const patience = 31 * 24 * time.Hour

func (a *ACME) directory() string {
	if a.Directory == "" {
		return certmagic.LetsEncryptProductionCA
	}
	return a.Directory
}

// open checks all there is to check without asking the CA, and returns the domains' sources. The files
// are certmagic's, so that what came by ACME before is served from the start.
func (a *ACME) open() ([]*source, error) {
	var errs []error
	fail := func(format string, args ...any) { errs = append(errs, fmt.Errorf("ACME: "+format, args...)) }
	if u, err := url.Parse(a.directory()); err != nil || u.Scheme != "https" || u.Host == "" {
		fail("the directory must be an https URL (RFC 8555 section 6.1), not %q", a.Directory)
	}
	if a.Email != "" {
		if addr, err := mail.ParseAddress(a.Email); err != nil || addr.Address != a.Email {
			fail("%q is no mail address", a.Email)
		}
	}
	if _, err := a.roots(); err != nil {
		errs = append(errs, err)
	}
	if a.Listener == nil || !isTCP(a.Listener) {
		fail("HTTP-01 challenges need a TCP listener (port 80)")
	}
	if a.Dir == "" {
		fail("a folder for accounts and certificates is needed")
	} else if err := os.MkdirAll(a.Dir, 0o700); err != nil {
		fail("the folder for accounts and certificates: %w", err)
	}
	if len(a.Domains) == 0 {
		fail("no domain is given")
	}
	storage := certmagic.FileStorage{Path: a.Dir}
	issuer := (&certmagic.ACMEIssuer{CA: a.directory()}).IssuerKey()
	var sources []*source
	for _, d := range a.Domains {
		if strings.HasPrefix(d, "*.") {
			fail("%s: HTTP-01 gives no wildcards; name each host (RFC 8555 section 8.3)", d)
			continue
		}
		name, err := asciiName(d)
		if err != nil {
			fail("%w", err)
			continue
		}
		s := newSource(Pair{
			storage.Filename(certmagic.StorageKeys.SiteCert(issuer, name)),
			storage.Filename(certmagic.StorageKeys.SitePrivateKey(issuer, name)),
		})
		s.acme = name
		sources = append(sources, s)
	}
	return sources, errors.Join(errs...)
}

// roots returns nil for the system's.
func (a *ACME) roots() (*x509.CertPool, error) {
	if a.Roots == "" {
		return nil, nil
	}
	data, err := readFile(a.Roots)
	if err != nil {
		return nil, err
	}
	list, err := readCAs(data, a.Roots)
	if err != nil {
		return nil, err
	}
	pool := x509.NewCertPool()
	for _, ca := range list {
		pool.AddCert(ca)
	}
	return pool, nil
}

// manager is certmagic at work.
type manager struct {
	cache   *certmagic.Cache
	config  *certmagic.Config
	http    *http.Server
	bridge  *bridge
	domains []string
	asked   time.Time
}

// startACME lets certmagic get and renew what is wanted until ctx ends. Nothing here is certmagic's
// package-level state, but what it can't do without: its queue of jobs and its table of locks.
func (k *Keeper) startACME(ctx context.Context) *manager {
	a := k.options.ACME
	roots, err := a.roots()
	if err != nil { // it was readable in Open; without it, the CA is refused and asked again later
		k.log.Error("the CAs for the ACME server can't be read", "error", err)
		roots = x509.NewCertPool()
	}
	m := &manager{bridge: newBridge(k.log)}
	logger := zap.New(m.bridge)
	m.cache = certmagic.NewCache(certmagic.CacheOptions{
		GetConfigForCert:   func(certmagic.Certificate) (*certmagic.Config, error) { return m.config, nil },
		RenewCheckInterval: a.renewCheck,
		Logger:             logger,
	})
	m.config = certmagic.New(m.cache, certmagic.Config{
		Issuers:            []certmagic.Issuer{}, // below: it needs the Config
		Storage:            &certmagic.FileStorage{Path: a.Dir},
		RenewalWindowRatio: a.renewWindow,
		Logger:             logger,
		OnEvent: func(context.Context, string, map[string]any) error {
			select {
			case k.kick <- struct{}{}:
			default:
			}
			return nil
		},
		ShouldEmitFunc: func(event string) bool { return event == "cached_managed_cert" },
	})
	addr := a.Listener.Addr().(*net.TCPAddr)
	host := ""
	if !addr.IP.IsUnspecified() {
		host = addr.IP.String()
	}
	issuer := certmagic.NewACMEIssuer(m.config, certmagic.ACMEIssuer{
		CA:                      a.directory(),
		Email:                   a.Email,
		Agreed:                  true,
		TrustedRoots:            roots,
		DisableTLSALPNChallenge: true, // port 443 is not ours (RFC 8737)
		// For each challenge certmagic tries to listen here. It finds the port taken, connects to it, and
		// is content that somebody answers: our server, which was bound while there were rights to.
		ListenHost:  host,
		AltHTTPPort: addr.Port,
		Logger:      logger,
	})
	m.config.Issuers = []certmagic.Issuer{issuer}

	m.http = &http.Server{
		Handler:        issuer.HTTPChallengeHandler(http.NotFoundHandler()),
		ReadTimeout:    10 * time.Second,
		WriteTimeout:   10 * time.Second,
		MaxHeaderBytes: 8 << 10,
		ErrorLog:       slog.NewLogLogger(k.log.Handler(), slog.LevelDebug),
	}
	m.http.SetKeepAlivesEnabled(false)
	// The port is open to all; what it takes must not be what POP3 lacks.
	listener := netutil.LimitListener(a.Listener, 128)
	go func() {
		if err := m.http.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
			k.log.Error("ACME: challenges are not answered any more", "error", err)
		}
	}()

	for _, s := range k.sources {
		if s.acme != "" {
			m.domains = append(m.domains, s.acme)
			k.putAside(s)
		}
	}
	m.ask(ctx, m.domains, time.Now())
	return m
}

// putAside renames a stored pair that a crash has damaged or mixed, so that another is asked for:
// certmagic stores key and certificate one after the other, and leaves alone for ever what it can't read.
func (k *Keeper) putAside(s *source) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if !s.present() {
		return
	}
	var system *fs.PathError // a file that can't be opened may well be whole
	if _, err := s.read(); err == nil || errors.As(err, &system) {
		return
	}
	for _, name := range s.files {
		if err := os.Rename(name, name+".damaged"); err != nil {
			k.log.Warn("ACME: what is damaged can't be put aside", "error", err)
		}
	}
}

func (m *manager) ask(ctx context.Context, domains []string, now time.Time) {
	m.asked = now
	if err := m.config.ManageAsync(ctx, domains); err != nil {
		m.bridge.log.Error("ACME", "error", err)
	}
}

// askAgain begins anew for domains on which certmagic has given up.
func (m *manager) askAgain(ctx context.Context, now time.Time) {
	if now.Sub(m.asked) < patience {
		return
	}
	missing := slices.DeleteFunc(slices.Clone(m.domains), func(d string) bool { return m.certificate(d) != nil })
	m.ask(ctx, missing, now)
}

// certificate returns the newest certificate of a domain, with its OCSP staple, or nil.
func (m *manager) certificate(domain string) *tls.Certificate {
	var newest *tls.Certificate
	for _, c := range m.cache.AllMatchingCertificates(domain) {
		if c.Leaf != nil && (newest == nil || c.Leaf.NotBefore.After(newest.Leaf.NotBefore)) {
			newest = &c.Certificate
		}
	}
	return newest
}

// stop ends what ctx does not end. What certmagic says from now on is only that it was interrupted.
func (m *manager) stop() {
	m.bridge.quiet.Store(true)
	m.http.Close()
	stopped := make(chan struct{})
	go func() {
		m.cache.Stop()
		close(stopped)
	}()
	select {
	case <-stopped:
	case <-time.After(2 * time.Second): // it may be asking a CA that does not answer
	}
	// A lock that is left makes the next start wait until it is stale.
	certmagic.CleanUpOwnLocks(context.Background(), zap.NewNop())
}
