package sasl

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"dewey/auth"
)

// Bounds of what a client sends with a token, in octets (trap 39).
const (
	maxToken  = 64 << 10
	maxBearer = maxToken + 2<<10
)

// newOAuthBearer is RFC 7628, of which go-sasl's server panics (trap 45).
func newOAuthBearer(h Host, _ Channel) Server {
	return newBearer(h, parseOAuthBearer, bearerError{Status: auth.TokenInvalid}, bearerError{Status: auth.TokenInsufficient})
}

// newXOAuth2 is what came before it, as Google and Microsoft document it. Its status is that of HTTP: RFC 6750
// section 3.1.
func newXOAuth2(h Host, _ Channel) Server {
	return newBearer(h, parseXOAuth2, bearerError{Status: "401", Schemes: "bearer"}, bearerError{Status: "403", Schemes: "bearer"})
}

// A bearerError is what a client is told of a token that is refused.
type bearerError struct {
	Status           string `json:"status"`
	Schemes          string `json:"schemes,omitempty"`
	Scope            string `json:"scope,omitempty"`
	ConfigurationURL string `json:"openid-configuration,omitempty"`
}

// newBearer is an exchange in which a token is all. Of one that is refused the client learns in a challenge what would
// be right, answers that with whatever it likes, and has failed. RFC 7628 section 3.2.3.
func newBearer(h Host, parse func(string) (auth.Token, error), invalid, insufficient bearerError) Server {
	return &exchange{opening: []byte{}, next: func(response []byte) ([]byte, step, error) {
		if len(response) > maxBearer {
			return nil, nil, bearerForm("too long")
		}
		t, err := parse(string(response))
		if err != nil {
			return nil, nil, err
		}
		if t.User != "" {
			if t.User, err = prepare(t.User); err != nil {
				return nil, nil, err
			}
		}
		err = h.CheckToken(t)
		if !errors.Is(err, auth.ErrRejected) {
			return nil, nil, err
		}
		told := invalid
		if refusal := new(auth.TokenRefusal); errors.As(err, &refusal) {
			if refusal.Status == auth.TokenInsufficient {
				told = insufficient
			}
			told.Scope, told.ConfigurationURL = refusal.Scope, refusal.ConfigurationURL
		}
		challenge, marshalErr := json.Marshal(told)
		if marshalErr != nil {
			return nil, nil, fmt.Errorf("sasl: %w", marshalErr)
		}
		return challenge, func([]byte) ([]byte, step, error) { return nil, nil, err }, nil
	}}
}

func bearerForm(what string) error { return fmt.Errorf("%w: bearer: %s", ErrForm, what) }

// parseOAuthBearer reads client-resp. RFC 7628 section 3.1, RFC 5801 section 4.
func parseOAuthBearer(response string) (auth.Token, error) {
	var t auth.Token
	header, rest, found := strings.Cut(response, "\x01")
	flag, header, comma := strings.Cut(header, ",")
	as, end, ended := strings.Cut(header, ",")
	switch {
	case !found || !comma || !ended || end != "":
		return t, bearerForm("no gs2-header")
	case flag != "n" && flag != "y": // there is no channel binding
		return t, bearerForm("gs2-cb-flag")
	case as != "" && !has(as, 'a'):
		return t, bearerForm("authzid")
	case as != "":
		name, ok := unescape(as[len("a="):])
		if !ok {
			return t, bearerForm("authzid")
		}
		t.User = name
	}
	pairs, err := parsePairs(rest)
	if err != nil {
		return t, err
	}
	t.Host, t.Port = pairs["host"], pairs["port"]
	if strings.ContainsAny(t.Host+t.Port, "\r\n\t") || len(t.Host)+len(t.Port) > maxCredential {
		return t, bearerForm("host or port")
	}
	t.Bearer, err = bearer(pairs)
	return t, err
}

// parseXOAuth2 reads user={user}^Aauth=Bearer {token}^A^A.
func parseXOAuth2(response string) (auth.Token, error) {
	pairs, err := parsePairs(response)
	if err != nil {
		return auth.Token{}, err
	}
	t := auth.Token{User: pairs["user"]}
	if t.User == "" {
		return t, bearerForm("no user")
	}
	t.Bearer, err = bearer(pairs)
	return t, err
}

// parsePairs reads *kvpair kvsep. Keys that mean nothing are ignored; one that comes twice means two things.
func parsePairs(text string) (map[string]string, error) {
	pairs := make(map[string]string)
	for {
		pair, rest, found := strings.Cut(text, "\x01")
		switch key, value, equals := strings.Cut(pair, "="); {
		case !found:
			return nil, bearerForm("no end")
		case pair == "" && rest == "":
			return pairs, nil
		case !equals || key == "" || strings.ContainsFunc(key, func(r rune) bool { return r > '~' || !letter(byte(r)) }):
			return nil, bearerForm("no pair of key and value")
		case strings.ContainsFunc(value, func(r rune) bool { return r < ' ' && r != '\t' && r != '\r' && r != '\n' || r == 0x7f }):
			return nil, bearerForm("a control octet in a value")
		default:
			key = strings.ToLower(key)
			if _, twice := pairs[key]; twice {
				return nil, bearerForm("a key twice")
			}
			pairs[key] = value
		}
		text = rest
	}
}

// bearer takes the token out of what HTTP's Authorization header would have: RFC 6750 section 2.1, but with any visible
// ASCII in it, since not all providers keep to base64's. An empty one asks what is wanted: RFC 7628 section 4.3.
func bearer(pairs map[string]string) (string, error) {
	value, found := pairs["auth"]
	scheme, token, _ := strings.Cut(value, " ")
	token = strings.Trim(token, " ")
	switch {
	case !found:
		return "", bearerForm("no auth")
	case value != "" && !strings.EqualFold(scheme, "Bearer"):
		return "", bearerForm("a scheme other than Bearer")
	case len(token) > maxToken:
		return "", bearerForm("a token of over 64 KiB")
	case strings.ContainsFunc(token, func(r rune) bool { return r <= ' ' || r > '~' }):
		return "", bearerForm("a token that is not visible ASCII")
	}
	return token, nil
}

// unescape reads a saslname: "=2C" is a comma and "=3D" an equals sign, which come in no other form. RFC 5801 section 4.
func unescape(name string) (string, bool) {
	plain := strings.NewReplacer("=2C", "", "=3D", "").Replace(name)
	return strings.NewReplacer("=2C", ",", "=3D", "=").Replace(name), !strings.Contains(plain, "=")
}
