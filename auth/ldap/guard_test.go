package ldap

import (
	"bytes"
	"io"
	"net"
	"testing"
	"time"

	ber "github.com/go-asn1-ber/asn1-ber"
	goldap "github.com/go-ldap/ldap/v3"
)

// A reader is a connection on which something comes in.
type reader struct {
	net.Conn
	io.Reader
}

func (r reader) Read(b []byte) (int, error) { return r.Reader.Read(b) }

// Whatever comes in: what the guard lets through is a message that was awaited, within bounds, and the library reads it.
func FuzzGuard(f *testing.F) {
	yes := []byte{0x30, 0x0c, 0x02, 0x01, 0x01, 0x61, 0x07, 0x0a, 0x01, 0x00, 0x04, 0x00, 0x04, 0x00}
	f.Add(yes)
	f.Add(append(bytes.Clone(yes), yes...))
	f.Add(append([]byte{0x30, 0x84, 0, 0, 0, 0x0c}, yes[2:]...))
	f.Add([]byte{0x30, 0x12, 0x02, 0x01, 0x01, 0x64, 0x0d, 0x04, 0x01, 'a', 0x30, 0x08, 0x30, 0x06, 0x04, 0x01, 'b', 0x31, 0x01, 0x04})
	f.Add([]byte{0x30, 0x80, 0, 0})
	f.Add([]byte{0x30, 0x84, 0xff, 0xff, 0xff, 0xff})
	f.Add(bytes.Repeat([]byte{0x30, 0x7f}, 200))
	f.Fuzz(func(t *testing.T, in []byte) {
		g := newGuard(reader{Reader: bytes.NewReader(in)})
		g.await(opDone, opEntry, opReference)
		total := 0
		for {
			message, err := g.next()
			if err != nil {
				return
			}
			if total += len(message); total > 2*maxAnswer {
				t.Fatalf("%d octets of an answer", total)
			}
			p, err := ber.DecodePacketErr(message)
			if err != nil {
				continue // a value that the library does not like, such as a bad string
			}
			if len(p.Children) != 2 || p.Children[1].ClassType != ber.ClassApplication {
				t.Fatalf("%x has %d parts", message, len(p.Children))
			}
			switch p.Children[1].Tag {
			case opEntry, opReference:
			case opDone:
				_ = goldap.GetLDAPError(p)
				if _, err := g.next(); err == nil {
					t.Fatal("something comes after the end")
				}
				return
			default:
				t.Fatalf("operation %d was not awaited", p.Children[1].Tag)
			}
		}
	})
}

// FuzzTemplates checks that no name becomes more than a value, in filters and in names of entries.
func FuzzTemplates(f *testing.F) {
	for _, name := range []string{"bob", "*", ")(uid=*", `\`, "\x00", "a,b", "a+b=c", " x ", "#x", `"<>;=`, "{user}", "\u00e9", "x\\2c", "\r\n"} {
		f.Add(name)
	}
	b, err := New(Config{
		URLs: []string{"ldap://localhost"}, Base: "dc=x", Filter: "(&(a={user})(b=c))", DN: "uid={user},ou=a,dc=x",
		UserAttribute: "uid", Timeout: time.Second,
	})
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, name string) {
		if !b.sane(name) {
			return
		}
		v := valuesOf(name)
		text, ok := b.plan.filter.fill(v)
		p, err := goldap.CompileFilter(text)
		if !ok || err != nil || len(p.Children) != 2 || p.Children[0].Tag != goldap.FilterEqualityMatch || p.Children[0].Children[1].Value != name {
			t.Fatalf("%q: %q, %v", name, text, err)
		}
		text, ok = b.plan.dn.fill(v)
		dn, err := goldap.ParseDN(text)
		if !ok || err != nil || len(dn.RDNs) != 3 || len(dn.RDNs[0].Attributes) != 1 || dn.RDNs[0].Attributes[0].Value != name {
			t.Fatalf("%q: %q, %v", name, text, err)
		}
	})
}
