package pop3server_test

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"slices"
	"strings"
	"testing"

	"dewey/auth"
	"dewey/pop3server"
	"dewey/sasl"
)

// An offer is one combination of what decides which mechanisms there are.
type offer struct {
	mechanisms []string
	policy     pop3server.Plaintext
	local      bool
	tls        bool // under TLS, by us
	proxied    bool // under TLS, up to a proxy
	secrets    bool // there is an auth.SecretKeeper
	weak       bool // but users without a secret too
	directory  bool
	tokens     bool // there is an auth.TokenChecker
	able       bool // there are all methods, and auth.Abilities say which count
	certified  bool // Server.Certified is set
	client     bool // and the client has a certificate
}

// want says by the documentation alone whether a mechanism is offered.
func (o offer) want(name string) bool {
	safe := o.tls || o.proxied || o.policy == pop3server.PlaintextAlways || o.policy == pop3server.PlaintextLoopback && o.local
	listed := o.mechanisms == nil || slices.Contains(o.mechanisms, name)
	switch name {
	case "PLAIN", "LOGIN":
		return listed && safe
	case "OAUTHBEARER", "XOAUTH2":
		return listed && safe && o.tokens
	case "EXTERNAL":
		return listed && o.tls && o.client && o.certified && o.directory
	case "SCRAM-SHA-256-PLUS", "SCRAM-SHA-1-PLUS":
		if !o.tls {
			return false
		}
	}
	return listed && o.secrets && (o.mechanisms != nil || !o.weak)
}

func offers() (all []offer) {
	yes := []bool{false, true}
	for _, mechanisms := range [][]string{nil, {}, {"PLAIN"}, {"LOGIN", "CRAM-MD5", "APOP"}, {"SCRAM-SHA-256-PLUS", "SCRAM-SHA-1", "EXTERNAL"}, sasl.Names()} {
		for _, policy := range []pop3server.Plaintext{pop3server.PlaintextLoopback, pop3server.PlaintextNever, pop3server.PlaintextAlways} {
			for _, way := range []string{"local", "remote", "tls", "certificate", "proxy"} {
				for _, secrets := range []string{"", "weak", "strong"} {
					for _, directory := range yes {
						all = append(all, offer{
							mechanisms: mechanisms, policy: policy, local: way == "local",
							tls: way == "tls" || way == "certificate", proxied: way == "proxy",
							secrets: secrets != "", weak: secrets == "weak",
							directory: directory, tokens: directory != (secrets == "weak"), certified: way != "tls", client: way == "certificate",
							able: directory && policy == pop3server.PlaintextNever,
						})
					}
				}
			}
		}
	}
	return all
}

func (o offer) users() auth.PasswordChecker {
	r := newRoster()
	if o.weak {
		r.weak = []string{auth.APOP, auth.CRAMMD5, auth.SCRAMSHA1, auth.SCRAMSHA256}
	}
	if o.able {
		return abilities{tokens{r, nil}, o}
	}
	if o.tokens {
		t := tokens{r, nil}
		switch {
		case o.secrets && o.directory:
			return t
		case o.secrets:
			return struct {
				secretive
				auth.TokenChecker
			}{secretive{r, r}, t}
		case o.directory:
			return struct {
				directed
				auth.TokenChecker
			}{directed{r, r}, t}
		}
		return struct {
			checker
			auth.TokenChecker
		}{checker{r}, t}
	}
	switch {
	case o.secrets && o.directory:
		return r
	case o.secrets:
		return secretive{r, r}
	case o.directory:
		return directed{r, r}
	}
	return checker{r}
}

// abilities are users who can do all, but at the time.
type abilities struct {
	tokens
	o offer
}

func (a abilities) KeepsSecrets() bool { return a.o.secrets }

func (a abilities) ChecksTokens() bool { return a.o.tokens }

func certified(c *x509.Certificate) (string, error) { return c.Subject.CommonName, nil }

// withCertificates asks clients for certificates, of the authorities that it trusts.
func withCertificates(s *pop3server.Server) {
	withTLS(s)
	s.TLS.ClientAuth, s.TLS.ClientCAs = tls.VerifyClientCertIfGiven, pool(timsCert())
	s.TLS.SessionTicketsDisabled = true // they would come late, while the client writes: a pipe could not bear it
	s.Certified = certified
}

// CAPA's SASL line, the answer to a bare AUTH, and what AUTH takes are the same in every combination of settings, and
// what the settings say. RFC 5034 sections 3 and 4; trap 43.
func TestTrap43OffersAreWhatIsTaken(t *testing.T) {
	if n := len(offers()); n < 500 {
		t.Fatalf("%d combinations", n)
	}
	for _, o := range offers() {
		o.check(t)
	}
}

func (o offer) check(t *testing.T) {
	b := newBench(t, newShelf(), func(s *pop3server.Server) {
		withCertificates(s)
		s.Users, s.Settings.Mechanisms, s.Settings.Plaintext, s.Settings.FailureDelay = o.users(), o.mechanisms, o.policy, 0
		if !o.certified {
			s.Certified = nil
		}
		if o.proxied {
			s.Wrap = wrapSecured
		}
	})
	defer b.end()
	from := remote
	if o.local {
		from = "127.0.0.1"
	}
	v := b.visit(t, from)
	_ = v.line(t)
	if o.tls {
		config := clientTLS()
		if o.client {
			config.Certificates = []tls.Certificate{timsCert()}
		}
		v.stls(t, config)
	}
	var want []string
	for _, name := range sasl.Names() {
		if o.want(name) {
			want = append(want, name)
		}
	}
	slices.Sort(want)
	var capa []string
	user := false
	for _, tag := range v.multi(t, "CAPA") {
		if list, ok := strings.CutPrefix(tag, "SASL"); ok {
			if capa = strings.Fields(list); len(capa) == 0 {
				t.Errorf("%+v: SASL without a mechanism", o)
			}
		}
		user = user || tag == "USER"
	}
	slices.Sort(capa)
	list := v.multi(t, "AUTH")
	slices.Sort(list)
	if !slices.Equal(capa, want) || !slices.Equal(list, want) {
		t.Errorf("%+v: CAPA says %q, AUTH says %q, want %q", o, capa, list, want)
	}
	safe := offer{policy: o.policy, local: o.local, tls: o.tls, proxied: o.proxied}.want("PLAIN")
	if got := strings.HasPrefix(v.say(t, "USER mrose"), "+OK"); got != safe || user != safe {
		t.Errorf("%+v: USER taken: %v, announced: %v", o, got, user)
	}
	for _, name := range sasl.Names() {
		got := v.say(t, "AUTH "+name)
		if taken := strings.HasPrefix(got, "+ "); taken != slices.Contains(want, name) {
			t.Errorf("%+v: AUTH %s: %q", o, name, got)
		} else if taken {
			v.ask(t, "*", "-ERR authentication cancelled")
		}
	}
}

// Settings that name a mechanism which does not exist, or not in capitals, are refused.
func TestUnknownMechanism(t *testing.T) {
	for _, name := range []string{"plain", "NTLM", "", "SASL", "APOP "} {
		srv := &pop3server.Server{Users: users, Maildrops: newShelf(), Settings: pop3server.Settings{Mechanisms: []string{"PLAIN", name}}}
		if err := srv.Serve(newListener()); err == nil || !strings.Contains(err.Error(), fmt.Sprintf("%q", name)) {
			t.Errorf("%q: %v", name, err)
		}
	}
}
