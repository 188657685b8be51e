package sasl

import (
	"crypto/sha1"
	"crypto/sha256"
	"errors"
	"hash"
	"slices"
	"strings"
	"testing"

	"github.com/xdg-go/scram"

	"dewey/auth"
)

var (
	exporter = []byte("0123456789abcdef0123456789abcdef")
	endPoint = []byte("fedcba9876543210fedcba9876543210")
	overTLS  = Channel{Exporter: exporter, EndPoint: endPoint, Plus: true}
)

var hashes = map[string]func() hash.Hash{
	"SCRAM-SHA-1": sha1.New, "SCRAM-SHA-1-PLUS": sha1.New, "SCRAM-SHA-256": sha256.New, "SCRAM-SHA-256-PLUS": sha256.New,
}

// A case of RFC 5802 section 6: what the client says, what it binds to, and what must come of it.
type bindingCase struct {
	name, mechanism, gs2 string
	binding              []byte
	channel              Channel
	ok                   bool
}

var bindingCases = []bindingCase{
	{"no TLS", "SCRAM-SHA-256", "n,,", nil, Channel{}, true},
	{"no TLS, SHA-1", "SCRAM-SHA-1", "n,,", nil, Channel{}, true},
	{"a client that can't, over TLS", "SCRAM-SHA-256", "n,,", nil, overTLS, true},
	{"a client that could, and -PLUS was not offered", "SCRAM-SHA-256", "y,,", nil, Channel{}, true},
	{"tls-exporter", "SCRAM-SHA-256-PLUS", "p=tls-exporter,,", exporter, overTLS, true},
	{"tls-server-end-point", "SCRAM-SHA-256-PLUS", "p=tls-server-end-point,,", endPoint, overTLS, true},
	{"tls-exporter, SHA-1", "SCRAM-SHA-1-PLUS", "p=tls-exporter,,", exporter, overTLS, true},
	{"an authorization identity", "SCRAM-SHA-256-PLUS", "p=tls-exporter,a=user,", exporter, overTLS, true},

	{"downgrade: y although -PLUS was offered", "SCRAM-SHA-256", "y,,", nil, overTLS, false},
	{"downgrade: the mechanism's name was changed", "SCRAM-SHA-256", "p=tls-exporter,,", exporter, overTLS, false},
	{"-PLUS without binding", "SCRAM-SHA-256-PLUS", "n,,", nil, overTLS, false},
	{"-PLUS without binding, y", "SCRAM-SHA-256-PLUS", "y,,", nil, overTLS, false},
	{"another connection's exporter", "SCRAM-SHA-256-PLUS", "p=tls-exporter,,", endPoint, overTLS, false},
	{"another server's end point", "SCRAM-SHA-256-PLUS", "p=tls-server-end-point,,", exporter, overTLS, false},
	{"no binding data", "SCRAM-SHA-256-PLUS", "p=tls-exporter,,", nil, overTLS, false},
	{"more binding data", "SCRAM-SHA-256-PLUS", "p=tls-exporter,,", append(slices.Clone(exporter), 0), overTLS, false},
	{"tls-unique", "SCRAM-SHA-256-PLUS", "p=tls-unique,,", exporter, Channel{Unique: exporter}, true},
	{"tls-unique where there is none", "SCRAM-SHA-256-PLUS", "p=tls-unique,,", exporter, overTLS, false},
	{"an unknown type", "SCRAM-SHA-256-PLUS", "p=tls-telepathy,,", exporter, overTLS, false},
	{"the type in capitals", "SCRAM-SHA-256-PLUS", "p=TLS-EXPORTER,,", exporter, overTLS, false},
	{"no exporter on this channel", "SCRAM-SHA-256-PLUS", "p=tls-exporter,,", nil, Channel{EndPoint: endPoint}, false},
	{"no end point on this channel", "SCRAM-SHA-256-PLUS", "p=tls-server-end-point,,", nil, Channel{Exporter: exporter}, false},
	{"no TLS at all", "SCRAM-SHA-1-PLUS", "p=tls-exporter,,", exporter, Channel{}, false},
	{"binding data with n", "SCRAM-SHA-256", "n,,", exporter, overTLS, false},
}

func TestChannelBinding(t *testing.T) {
	for _, c := range bindingCases {
		h := newHost()
		client := &scramClient{hash: hashes[c.mechanism], gs2: c.gs2, bare: "n=tim,r=fyko+d2lbbFgONRv9qkxdawL", password: "tanstaaftanstaaf", binding: c.binding}
		s := start(t, c.mechanism, h, c.channel)
		first, _, err := s.Next([]byte(c.gs2 + client.bare))
		if err == nil {
			var got []string
			var done bool
			got, done, err = play(t, s, []byte(client.answer(t, string(first))), []byte{})
			if c.ok && (!done || len(got) != 1 || got[0] != client.serverSignature || h.user != "tim") {
				t.Errorf("%s: %q, %v, %v; want %q", c.name, got, done, err, client.serverSignature)
			}
		}
		if !c.ok && !errors.Is(err, auth.ErrRejected) {
			t.Errorf("%s: %v", c.name, err)
		}
		if err != nil && (strings.Contains(err.Error(), string(exporter)) || strings.Contains(err.Error(), string(endPoint))) {
			t.Errorf("%s: the error has the binding in it: %v", c.name, err)
		}
	}
}

// A man in the middle who changes the flag of a client that binds, or could, is found out by "c=".
func TestChangedGS2Header(t *testing.T) {
	for _, c := range []struct{ sent, arrived string }{
		{"y,,", "n,,"},
		{"n,,", "y,,"},
		{"n,,", "n,a=user,"},
		{"n,a=user,", "n,,"},
		{"p=tls-exporter,,", "n,,"},
	} {
		h := newHost()
		client := &scramClient{hash: sha256.New, gs2: c.sent, bare: "n=tim,r=nonce", password: "tanstaaftanstaaf"}
		s := start(t, "SCRAM-SHA-256", h, Channel{})
		first, _, err := s.Next([]byte(c.arrived + client.bare))
		if err != nil {
			t.Fatal(err)
		}
		_, done, err := play(t, s, []byte(client.answer(t, string(first))), []byte{})
		if done || !errors.Is(err, auth.ErrRejected) || h.as != "" {
			t.Errorf("%q for %q: %v, %v", c.arrived, c.sent, done, err)
		}
	}
}

// Another client than this package's tests: the library's.
func TestAnotherClient(t *testing.T) {
	for _, c := range []struct {
		mechanism string
		hash      scram.HashGeneratorFcn
		binding   scram.ChannelBinding
		channel   Channel
		y         bool
	}{
		{"SCRAM-SHA-1", scram.SHA1, scram.ChannelBinding{}, Channel{}, false},
		{"SCRAM-SHA-256", scram.SHA256, scram.ChannelBinding{}, overTLS, false},
		{"SCRAM-SHA-256", scram.SHA256, scram.ChannelBinding{}, Channel{}, true},
		{"SCRAM-SHA-1-PLUS", scram.SHA1, scram.ChannelBinding{Type: scram.ChannelBindingTLSExporter, Data: exporter}, overTLS, false},
		{"SCRAM-SHA-256-PLUS", scram.SHA256, scram.ChannelBinding{Type: scram.ChannelBindingTLSServerEndpoint, Data: endPoint}, overTLS, false},
	} {
		for _, user := range []string{"tim", "a,b=c,=2C", "Bücher", "Ⅸ"} {
			h := newHost()
			h.admin = "IX" // SASLprep's for that sign
			for _, name := range []string{"a,b=c,=2C", "Bücher", "IX"} {
				h.passwords[name] = "tanstaaftanstaaf"
			}
			as := ""
			if user == "Ⅸ" {
				as = "us,er="
			}
			client, err := c.hash.NewClientUnprepped(user, "tanstaaftanstaaf", as)
			if err != nil {
				t.Fatal(err)
			}
			talk := client.NewConversation()
			if c.binding.Type != "" {
				talk = client.NewConversationWithChannelBinding(c.binding)
			} else if c.y {
				talk = client.NewConversationAdvertisingChannelBinding()
			}
			s := start(t, c.mechanism, h, c.channel)
			challenge, done, err := s.Next(nil)
			for !done && err == nil {
				var response string
				if response, err = talk.Step(string(challenge)); err != nil {
					t.Errorf("%s, %s: the client says %v", c.mechanism, user, err)
					break
				}
				challenge, done, err = s.Next([]byte(response))
			}
			if !done || err != nil || !talk.Valid() || h.as != as {
				t.Errorf("%s, %s: %v, %v, as %q", c.mechanism, user, done, err, h.as)
			}
		}
	}
}

// As is asked when the proof was good, and before the server proves that it knows the user.
func TestSCRAMActsAsAnother(t *testing.T) {
	for _, c := range []struct {
		name, gs2, bare, password string
		calls                     []string
		want                      error
	}{
		{"as another", "n,a=us=2Cer,", "n=tim,r=nonce", "tanstaaftanstaaf", []string{"Secret tim SCRAM-SHA-256", "As us,er"}, nil},
		{"as himself", "n,a=tim,", "n=tim,r=nonce", "tanstaaftanstaaf", []string{"Secret tim SCRAM-SHA-256"}, nil},
		{"as himself, spelt otherwise", "n,a=t\u00adim,", "n=ti\u00adm,r=nonce", "tanstaaftanstaaf", []string{"Secret tim SCRAM-SHA-256"}, nil},
		{"wrong password", "n,a=user,", "n=tim,r=nonce", "wrong", []string{"Secret tim SCRAM-SHA-256"}, auth.ErrRejected},
		{"unknown", "n,a=user,", "n=mit,r=nonce", "wrong", []string{"Secret mit SCRAM-SHA-256"}, auth.ErrRejected},
		{"may not", "n,a=tim,", "n=user,r=nonce", "pencil", []string{"Secret user SCRAM-SHA-256", "As tim"}, auth.ErrRejected},
	} {
		h := newHost()
		client := &scramClient{hash: sha256.New, gs2: c.gs2, bare: c.bare, password: c.password}
		s := start(t, "SCRAM-SHA-256", h, Channel{})
		first, _, err := s.Next([]byte(c.gs2 + c.bare))
		if err != nil {
			t.Fatal(err)
		}
		got, done, err := play(t, s, []byte(client.answer(t, string(first))), []byte{})
		if done != (c.want == nil) || !errors.Is(err, c.want) || !slices.Equal(h.calls, c.calls) || c.want != nil && len(got) > 0 {
			t.Errorf("%s: %q, %v, %v, asked %q", c.name, got, done, err, h.calls)
		}
	}
}

// Names that SASLprep forbids, or of which it leaves nothing, are refused without asking. RFC 5802 section
// 5.1.
func TestSCRAMNames(t *testing.T) {
	for _, name := range []string{"\u00ad", "a\u200eb", "\ue000", "a\u0627", strings.Repeat("ﷺ", 300)} {
		for _, message := range []string{"n,,n=" + name + ",r=nonce", "n,a=" + name + ",n=tim,r=nonce"} {
			h := newHost()
			_, done, err := play(t, start(t, "SCRAM-SHA-1", h, Channel{}), []byte(message))
			if done || !errors.Is(err, auth.ErrRejected) || slices.Contains(h.calls, "As "+name) {
				t.Errorf("%q: %v, %v, %q", message, done, err, h.calls)
			}
		}
	}
}

// The server's signature is a challenge, and only an empty answer to it ends the exchange. RFC 5034
// section 4.
func TestServerSignatureIsAChallenge(t *testing.T) {
	for _, answer := range []string{"", "x", "=", "*"} {
		client := &scramClient{hash: sha1.New, gs2: "n,,", bare: "n=tim,r=nonce", password: "tanstaaftanstaaf"}
		s := start(t, "SCRAM-SHA-1", newHost(), Channel{})
		first, _, err := s.Next([]byte(client.gs2 + client.bare))
		if err != nil {
			t.Fatal(err)
		}
		signature, done, err := s.Next([]byte(client.answer(t, string(first))))
		if done || err != nil || string(signature) != client.serverSignature {
			t.Fatalf("%q, %v, %v", signature, done, err)
		}
		_, done, err = play(t, s, []byte(answer))
		if done != (answer == "") || (err == nil) != (answer == "") || answer != "" && !errors.Is(err, ErrForm) {
			t.Errorf("%q: %v, %v", answer, done, err)
		}
	}
}

// A replayed conversation fails: the server's part of the nonce is new each time.
func TestReplay(t *testing.T) {
	client := &scramClient{hash: sha256.New, gs2: "n,,", bare: "n=tim,r=nonce", password: "tanstaaftanstaaf"}
	s := start(t, "SCRAM-SHA-256", newHost(), Channel{})
	first, _, err := s.Next([]byte(client.gs2 + client.bare))
	if err != nil {
		t.Fatal(err)
	}
	final := client.answer(t, string(first))
	if _, done, err := play(t, s, []byte(final), []byte{}); !done {
		t.Fatal(err)
	}
	_, done, err := play(t, start(t, "SCRAM-SHA-256", newHost(), Channel{}), octets(client.gs2+client.bare, final, "")...)
	if done || !errors.Is(err, auth.ErrRejected) {
		t.Errorf("%v, %v", done, err)
	}
}

// Unknown optional extensions are ignored, but count in the proof: RFC 5802 section 5.1.
func TestExtensionsAreIgnored(t *testing.T) {
	client := &scramClient{hash: sha256.New, gs2: "n,,", bare: "n=tim,r=nonce,x=some=thing,Y=1", password: "tanstaaftanstaaf", extensions: ",z=1,Q=?"}
	s := start(t, "SCRAM-SHA-256", newHost(), Channel{})
	first, _, err := s.Next([]byte(client.gs2 + client.bare))
	if err != nil {
		t.Fatal(err)
	}
	if _, done, err := play(t, s, []byte(client.answer(t, string(first))), []byte{}); !done {
		t.Error(err)
	}
}
