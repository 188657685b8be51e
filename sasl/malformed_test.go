package sasl

import (
	"errors"
	"strings"
	"testing"

	"dewey/auth"
)

// Each is refused as malformed at its last response, and the host is not asked for a proof by it.
func TestMalformed(t *testing.T) {
	many := strings.Repeat("a", 1025)
	proof1 := strings.Repeat("A", 27) + "="
	proof256 := strings.Repeat("A", 43) + "="
	digest := strings.Repeat("0", 32)
	for mechanism, cases := range map[string][][][]byte{
		"PLAIN": {
			octets(""), octets("tim"), octets("\x00"), octets("tim\x00secret"), octets("\x00tim\x00secret\x00"),
			octets("\x00\x00tim\x00secret"), octets("\x00\x00\x00"),
			octets("\x00\x00"), octets("\x00\x00secret"), octets("\x00tim\x00"), octets("tim\x00\x00secret"),
			octets("\x00" + many + "\x00secret"), octets("\x00tim\x00" + many), octets(many + "\x00tim\x00secret"),
			octets(strings.Repeat("\x00", 65536)), octets("\x00\x1btim\x00secret"),
			{nil, nil},
			{nil, {}},
		},
		"LOGIN": {
			octets(""), octets("tim", ""),
			{nil, nil},
			{nil, []byte("tim"), nil},
			{nil, {}},
			octets(many), octets("tim", many), octets("t\x7fm"), octets("tim", strings.Repeat("x", 65536)),
		},
		"CRAM-MD5": {
			octets(""), octets("tim " + digest), // an initial response
			{nil, nil},
			{nil, {}},
			{nil, []byte("tim")},
			{nil, []byte(digest)},
			{nil, []byte(" " + digest)},
			{nil, []byte("tim " + digest[1:])},
			{nil, []byte("tim " + digest + "0")},
			{nil, []byte("tim  ")},
			{nil, []byte("tim " + strings.Repeat("A", 32))}, // RFC 2195 section 2: lower-case
			{nil, []byte("tim " + strings.Repeat("g", 32))},
			{nil, []byte("tim " + digest + " ")},
			{nil, []byte("tim\x00" + digest)},
			{nil, []byte(many + " " + digest)},
			{nil, []byte("t\x00im " + digest)},
		},
		"EXTERNAL": {octets("\x00"), octets("tim\x00"), octets(many), octets("t\tim")},
		"SCRAM-SHA-1": {
			// client-first-message
			octets(""), octets("n"), octets(",,,"), octets("n,,n=tim"), octets("n,,,r=nonce"), octets("n,n=tim,r=nonce"),
			octets("x,,n=tim,r=nonce"), octets("N,,n=tim,r=nonce"), octets("n=,,n=tim,r=nonce"), octets("y=1,,n=tim,r=nonce"),
			octets("nn,,n=tim,r=nonce"), octets("F,n,,n=tim,r=nonce"), octets("p,,n=tim,r=nonce"), octets("p=,,n=tim,r=nonce"),
			octets("p=tls_exporter,,n=tim,r=nonce"), octets("p=" + many + ",,n=tim,r=nonce"), octets(" n,,n=tim,r=nonce"),
			octets("n,a=,n=tim,r=nonce"), octets("n,tim,n=tim,r=nonce"), octets("n,n=tim,n=tim,r=nonce"), octets("n,a,n=tim,r=nonce"),
			octets("n,,n=,r=nonce"), octets("n,,tim,r=nonce"), octets("n,,N=tim,r=nonce"), octets("n,,r=nonce,n=tim"),
			octets("n,,m=1,n=tim,r=nonce"), octets("n,,n=tim,m=1,r=nonce"), octets("n,,n=tim,r=nonce,m=1"), octets("n,,n=tim,r=nonce,x=1,m=1"),
			octets("n,,n=tim,r="), octets("n,,n=tim,r=no nce"), octets("n,,n=tim,r=nonc\xc3\xa9"), octets("n,,n=tim,r=a\x7f"),
			octets("n,,n=tim,r=" + strings.Repeat("x", 60<<10)), octets("n,,n=tim,r=" + strings.Repeat("x", 3<<10)),
			octets("n,,n=tim,r=nonce,"), octets("n,,n=tim,r=nonce,x"), octets("n,,n=tim,r=nonce,x="), octets("n,,n=tim,r=nonce,1=1"),
			octets("n,,n=tim,r=nonce,r=nonce"), octets("n,,n=tim,r=nonce,xx=1"),
			octets("n,,n=\xff,r=nonce"), octets("n,,n=t\x00im,r=nonce"), octets("n,a=\xff,n=tim,r=nonce"),
			octets("n,,n=" + many + ",r=nonce"), octets("n,a=" + many + ",n=tim,r=nonce"),
			// RFC 5802 section 5.1: "=" without 2C or 3D after it
			octets("n,,n==,r=nonce"), octets("n,,n=a=,r=nonce"), octets("n,,n=a=2,r=nonce"), octets("n,,n=a=2c,r=nonce"),
			octets("n,,n=a=3d,r=nonce"), octets("n,,n=a=2Db,r=nonce"), octets("n,,n=a=20b,r=nonce"), octets("n,,n=a==2Cb,r=nonce"),
			octets("n,,n=a=3D=b,r=nonce"), octets("n,a=a=b,n=tim,r=nonce"), octets("n,a==,n=tim,r=nonce"),
			octets(strings.Repeat(",", 65536)),
			octets("n,,n=tim,r=nonce" + strings.Repeat(",x=1", 4096)),
			{nil, nil},
			// client-final-message
			octets("n,,n=tim,r=nonce", ""), octets("n,,n=tim,r=nonce", "c=biws,r=nonce"), octets("n,,n=tim,r=nonce", "c=biws,p="+proof1),
			octets("n,,n=tim,r=nonce", "c=,r=nonce,p="+proof1), octets("n,,n=tim,r=nonce", "c=biw,r=nonce,p="+proof1),
			octets("n,,n=tim,r=nonce", "c=bi\nws,r=nonce,p="+proof1), octets("n,,n=tim,r=nonce", "c=biws,r=,p="+proof1),
			octets("n,,n=tim,r=nonce", "r=nonce,c=biws,p="+proof1), octets("n,,n=tim,r=nonce", "c=biws,r=nonce,p="),
			octets("n,,n=tim,r=nonce", "c=biws,r=nonce,p=AAAA"), octets("n,,n=tim,r=nonce", "c=biws,r=nonce,p="+proof256),
			octets("n,,n=tim,r=nonce", "c=biws,r=nonce,p="+proof1+"\r\n"), octets("n,,n=tim,r=nonce", "c=biws,r=nonce,p="+proof1+",x=1"),
			octets("n,,n=tim,r=nonce", "c=biws,r=nonce,p="+strings.Repeat("A", 26)+"B="), // bits left over
			octets("n,,n=tim,r=nonce", "c=biws,r=nonce,m=1,p="+proof1), octets("n,,n=tim,r=nonce", "m=1,c=biws,r=nonce,p="+proof1),
			octets("n,,n=tim,r=nonce", "c=biws,r=nonce,p="+proof1+",p="+proof1), octets("n,,n=tim,r=nonce", "c=biws,r=nonce,,p="+proof1),
			octets("n,,n=tim,r=nonce", "c=biws,r=nonce,x=\xff,p="+proof1), octets("n,,n=tim,r=nonce", "c=biws,r=nonce,x=\x00,p="+proof1),
			octets("n,,n=tim,r=nonce", "c=biws,r="+strings.Repeat("x", 60<<10)+",p="+proof1), octets("n,,n=tim,r=nonce", strings.Repeat("c=biws,", 9000)),
			{[]byte("n,,n=tim,r=nonce"), nil},
		},
		"SCRAM-SHA-256": {octets("n,,n=tim,r=nonce", "c=biws,r=nonce,p="+proof1)},
	} {
		for _, responses := range cases {
			h := newHost()
			s := start(t, mechanism, h, Channel{})
			if n := len(responses) - 1; n > 0 {
				if _, done, err := play(t, s, responses[:n]...); done || err != nil {
					t.Errorf("%s: %.80q: %v, %v too early", mechanism, responses, done, err)
					continue
				}
			}
			_, done, err := play(t, s, responses[len(responses)-1])
			if done || !errors.Is(err, ErrForm) || errors.Is(err, auth.ErrRejected) {
				t.Errorf("%s: %.80q: %v, %v", mechanism, responses, done, err)
				continue
			}
			if text := err.Error(); len(text) > 100 || strings.Contains(text, "tim") || strings.Contains(text, "secret") || strings.Contains(text, "nonce=") {
				t.Errorf("%s: the error repeats what came: %s", mechanism, text)
			}
			for _, call := range h.calls {
				if !strings.HasPrefix(mechanism, "SCRAM") || call != "Secret tim "+mechanism {
					t.Errorf("%s: %.80q: asked %q", mechanism, responses, call)
				}
			}
		}
	}
}
