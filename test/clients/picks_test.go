package clients

import (
	"fmt"
	"strings"
	"testing"
)

// itself, in place of a mechanism, lets the client choose.
const itself = "itself"

// picks is what clients use that may choose, by how the user's password is kept, and so by what dewey
// offers. Each is the strongest that this client can do, or thinks so.
var picks = []struct {
	scheme   string
	settings []string
	plain    map[string]string
	stls     map[string]string
}{
	{
		scheme: "plain",
		plain: map[string]string{
			"curl": "CRAM-MD5", "fetchmail": "CRAM-MD5", "perl": "CRAM-MD5", "fdm": "APOP",
			"mpop": "SCRAM-SHA-256", "mutt": "SCRAM-SHA-256", "neomutt": "SCRAM-SHA-256",
		},
		// Not mutt and neomutt: they pick SCRAM-SHA-256-PLUS, find that they can't do channel binding, cancel, and
		// don't read the answer to that, so that all that they try next fails too. (Mutt 2.2.12, NeoMutt 20220429.)
		stls: map[string]string{
			"curl": "CRAM-MD5", "fetchmail": "CRAM-MD5", "perl": "CRAM-MD5", "fdm": "PASS", "mpop": "PLAIN",
		},
	},
	{
		scheme: "scram-sha-256",
		plain: map[string]string{
			"curl": "PLAIN", "fetchmail": "PASS", "perl": "PLAIN", "fdm": "PASS",
			"mpop": "SCRAM-SHA-256", "mutt": "SCRAM-SHA-256", "neomutt": "SCRAM-SHA-256",
		},
		stls: map[string]string{"curl": "PLAIN", "fetchmail": "PASS", "perl": "PLAIN", "fdm": "PASS", "mpop": "PLAIN"},
	},
	{
		scheme: "argon2id",
		// Not mpop: it sends no password in plain unless it is told to.
		plain: map[string]string{
			"curl": "PLAIN", "fetchmail": "PASS", "perl": "PLAIN", "fdm": "PASS", "mutt": "PLAIN", "neomutt": "PLAIN",
		},
		stls: map[string]string{
			"curl": "PLAIN", "fetchmail": "PASS", "perl": "PLAIN", "fdm": "PASS", "mutt": "PLAIN", "neomutt": "PLAIN",
			"mpop": "PLAIN",
		},
	},
	{
		// Where no mechanism is offered that they know, USER and PASS remain. (curl takes them only then.)
		scheme:   "scram-sha-256",
		settings: []string{"login.mechanisms=SCRAM-SHA-256"},
		plain:    map[string]string{"curl": "PASS", "fetchmail": "PASS"},
		stls:     map[string]string{"curl": "PASS", "fetchmail": "PASS"},
	},
}

// TestPicks lets clients choose how to log in, with all that dewey offers by itself.
func TestPicks(t *testing.T) {
	if testing.Short() {
		t.Skip("starts programs; -short")
	}
	for _, pick := range picks {
		t.Run(strings.Join(append([]string{pick.scheme}, pick.settings...), " "), func(t *testing.T) {
			t.Parallel()
			s := deweyWith(t, pick.scheme, append(pick.settings, servedBy(t, nil)...)...)
			for tls, wanted := range map[transport]map[string]string{plain: pick.plain, stls: pick.stls} {
				for name, mechanism := range wanted {
					t.Run(fmt.Sprintf("%s/%s", tls, name), func(t *testing.T) {
						p := programNamed(name)
						p.mustExist(t)
						s.empty(t)
						messages := []message{mail("one", "One.\n")}
						s.deliver(t, 0, messages)
						mark := s.mark()
						a := s.as(t, way{tls: tls, mechanism: itself}, true)
						p.mustSucceed(t, a, 0)
						p.compare(t, p.received(t, a), messages)
						mark.mustShow(t, "logged in", way{tls: tls, mechanism: mechanism})
					})
				}
			}
		})
	}
}
