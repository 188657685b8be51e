package sasl

import (
	"cmp"
	"crypto/sha1" //nolint:gosec // SCRAM does not rest on what is broken in it
	"crypto/sha256"
	"fmt"

	"github.com/xdg-go/scram"

	"dewey/auth"
)

// A scramForm is one of the SCRAM mechanisms, with and without channel binding.
type scramForm struct {
	secret string
	hash   scram.HashGeneratorFcn
	size   int
}

var (
	sha1Form   = scramForm{auth.SCRAMSHA1, scram.SHA1, sha1.Size}
	sha256Form = scramForm{auth.SCRAMSHA256, scram.SHA256, sha256.Size}
)

func (f scramForm) base(h Host, c Channel) Server { return newSCRAM(f, false, h, c, nil) }

func (f scramForm) plus(h Host, c Channel) Server { return newSCRAM(f, true, h, c, nil) }

// A scramServer is an exchange of RFC 5802. The library does the arithmetic. This looks at the messages
// first, because the library takes more than the grammar has, and at the channel binding; it keeps the
// library's errors in, which quote what the client sent.
type scramServer struct {
	scramForm
	plus    bool
	host    Host
	channel Channel
	nonce   func() string // nil: the library's, 24 random octets; else for tests

	conversation *scram.ServerConversation
	user, as     string // prepared
	refusal      error  // the host's, kept until the end
}

func newSCRAM(f scramForm, plus bool, h Host, c Channel, nonce func() string) Server {
	s := &scramServer{scramForm: f, plus: plus, host: h, channel: c, nonce: nonce}
	return &exchange{opening: []byte{}, next: s.first}
}

// first takes client-first-message. RFC 5802 section 7.
func (s *scramServer) first(response []byte) ([]byte, step, error) {
	message := string(response)
	flag, name, err := parseClientFirst(message)
	if err != nil {
		return nil, nil, err
	}
	binding, err := s.binding(flag, name)
	if err != nil {
		return nil, nil, err
	}
	var lookup error
	server, err := s.hash.NewServer(func(user string) (scram.StoredCredentials, error) {
		var c scram.StoredCredentials
		c, lookup = s.credentials(user)
		return c, lookup
	})
	if err != nil {
		return nil, nil, fmt.Errorf("scram: %w", err)
	}
	if s.nonce != nil {
		server.WithNonceGenerator(s.nonce)
	}
	if s.plus {
		s.conversation = server.NewConversationWithChannelBindingRequired(binding)
	} else {
		s.conversation = server.NewConversation()
	}
	challenge, err := s.conversation.Step(message)
	switch {
	case lookup != nil:
		return nil, nil, lookup
	case err != nil: // a name with "=" and not "=2C" or "=3D" after it: section 5.1
		return nil, nil, fmt.Errorf("%w: client-first-message", ErrForm)
	}
	if as := s.conversation.AuthzID(); as != "" {
		if s.as, err = prepare(as); err != nil {
			return nil, nil, err
		}
	}
	return []byte(challenge), s.final, nil
}

// binding returns the channel binding of the kind that the client names. A flag that does not fit the
// mechanism, or the mechanism not to what was offered, means that someone may sit in the middle. RFC 5802
// section 6. TLS 1.3 has no tls-unique (RFC 9266 section 3).
func (s *scramServer) binding(flag, name string) (scram.ChannelBinding, error) {
	var none scram.ChannelBinding
	switch {
	case s.plus && flag != "p":
		return none, fmt.Errorf("%w: a -PLUS mechanism without a channel binding", auth.ErrRejected)
	case !s.plus && flag == "p":
		return none, fmt.Errorf("%w: a channel binding without a -PLUS mechanism", auth.ErrRejected)
	case flag == "y" && s.channel.Plus:
		return none, fmt.Errorf("%w: the client did not see that -PLUS was offered", auth.ErrRejected)
	case !s.plus:
		return none, nil
	}
	b := scram.ChannelBinding{Type: scram.ChannelBindingType(name)}
	switch b.Type {
	case scram.ChannelBindingTLSExporter:
		b.Data = s.channel.Exporter
	case scram.ChannelBindingTLSServerEndpoint:
		b.Data = s.channel.EndPoint
	case scram.ChannelBindingTLSUnique:
		b.Data = s.channel.Unique
	}
	if len(b.Data) == 0 {
		return none, fmt.Errorf("%w: no channel binding of the kind %q here", auth.ErrRejected, name)
	}
	return b, nil
}

// credentials looks a user up. Who does not exist gets what the host makes up for him, never the
// library's e=unknown-user (trap 42).
func (s *scramServer) credentials(user string) (scram.StoredCredentials, error) {
	var none scram.StoredCredentials
	var err error
	if s.user, err = prepare(user); err != nil {
		return none, err
	}
	stored, refusal, err := secret(s.host, s.user, s.secret)
	if err != nil {
		return none, err
	}
	other := auth.SCRAM{
		Salt:       madeUp(s.secret, s.user, madeUpSalt),
		Iterations: madeUpIterations,
		StoredKey:  madeUp(s.secret+" StoredKey", s.user, s.size),
		ServerKey:  madeUp(s.secret+" ServerKey", s.user, s.size),
	}
	k := stored.SCRAM
	if len(k.Salt) == 0 || k.Iterations <= 0 || len(k.StoredKey) != s.size || len(k.ServerKey) != s.size {
		k, refusal = other, cmp.Or(refusal, errNoSecret)
	}
	s.refusal = refusal
	return scram.StoredCredentials{
		KeyFactors: scram.KeyFactors{Salt: string(k.Salt), Iters: k.Iterations},
		StoredKey:  k.StoredKey,
		ServerKey:  k.ServerKey,
	}, nil
}

// final takes client-final-message. A refusal goes out at once, without server-error, as RFC 5802 section
// 5.1 allows. The server's signature is a challenge, because POP3 has no room for it beside success: RFC
// 5034 section 4.
func (s *scramServer) final(response []byte) ([]byte, step, error) {
	message := string(response)
	if err := parseClientFinal(message, s.size); err != nil {
		return nil, nil, err
	}
	challenge, err := s.conversation.Step(message)
	switch {
	case challenge == scram.ErrChannelBindingsDontMatch:
		return nil, nil, fmt.Errorf("%w: another channel binding or GS2 header than this connection's", auth.ErrRejected)
	case s.refusal != nil:
		return nil, nil, s.refusal
	case challenge == scram.ErrInvalidProof:
		return nil, nil, fmt.Errorf("%w: wrong proof", auth.ErrRejected)
	case err != nil || !s.conversation.Valid():
		return nil, nil, fmt.Errorf("%w: another nonce than this exchange's", auth.ErrRejected)
	}
	if err := actAs(s.host, s.as, s.user); err != nil {
		return nil, nil, err
	}
	return []byte(challenge), confirm, nil
}

// confirm takes the client's answer to the server's signature.
func confirm(response []byte) ([]byte, step, error) {
	if len(response) != 0 {
		return nil, nil, fmt.Errorf("%w: an answer to the server's signature", ErrForm)
	}
	return nil, nil, nil
}
