package sasl

import (
	"slices"
	"strings"

	"dewey/auth"
)

// mechanisms is what there is, the strongest first.
var mechanisms = []Mechanism{
	{Name: "SCRAM-SHA-256-PLUS", Plus: true, Secret: auth.SCRAMSHA256, start: sha256Form.plus},
	{Name: "SCRAM-SHA-1-PLUS", Plus: true, Secret: auth.SCRAMSHA1, start: sha1Form.plus},
	{Name: "SCRAM-SHA-256", Secret: auth.SCRAMSHA256, start: sha256Form.base},
	{Name: "SCRAM-SHA-1", Secret: auth.SCRAMSHA1, start: sha1Form.base},
	{Name: "CRAM-MD5", ServerFirst: true, Secret: auth.CRAMMD5, start: newCRAMMD5},
	{Name: "EXTERNAL", External: true, start: newExternal},
	{Name: "OAUTHBEARER", Plaintext: true, Token: true, start: newOAuthBearer},
	{Name: "XOAUTH2", Plaintext: true, Token: true, start: newXOAuth2},
	{Name: "PLAIN", Plaintext: true, start: newPlain},
	{Name: "LOGIN", Plaintext: true, start: newLogin},
}

// All returns all mechanisms, the strongest first.
func All() []Mechanism { return slices.Clone(mechanisms) }

// Names returns the names of all mechanisms, the strongest first.
func Names() []string {
	names := make([]string, len(mechanisms))
	for i, m := range mechanisms {
		names[i] = m.Name
	}
	return names
}

// Find returns the mechanism of that name, whose letters may be small or capital (RFC 5034 section 5). Those
// outside ASCII that fold to one of them take more octets, so the length keeps them out.
func Find(name string) (Mechanism, bool) {
	i := slices.IndexFunc(mechanisms, func(m Mechanism) bool {
		return len(name) == len(m.Name) && strings.EqualFold(name, m.Name)
	})
	if i < 0 {
		return Mechanism{}, false
	}
	return mechanisms[i], true
}
