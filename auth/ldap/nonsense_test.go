package ldap_test

import (
	"bytes"
	"crypto/tls"
	"io"
	"net"
	"runtime"
	"strings"
	"testing"
	"time"

	ber "github.com/go-asn1-ber/asn1-ber"

	"dewey/auth/ldap"
)

// packet writes an LDAP message.
func packet(id, op int, children ...*ber.Packet) []byte {
	p := ber.NewSequence("")
	p.AppendChild(ber.NewInteger(ber.ClassUniversal, ber.TypePrimitive, ber.TagInteger, id, ""))
	o := ber.Encode(ber.ClassApplication, ber.TypeConstructed, ber.Tag(op), nil, "")
	for _, c := range children {
		o.AppendChild(c)
	}
	p.AppendChild(o)
	return p.Bytes()
}

func text(s string) *ber.Packet {
	return ber.NewString(ber.ClassUniversal, ber.TypePrimitive, ber.TagOctetString, s, "")
}

func result(code int) []*ber.Packet {
	return []*ber.Packet{ber.NewInteger(ber.ClassUniversal, ber.TypePrimitive, ber.TagEnumerated, code, ""), text(""), text("")}
}

func list(children ...*ber.Packet) *ber.Packet {
	p := ber.NewSequence("")
	for _, c := range children {
		p.AppendChild(c)
	}
	return p
}

// nested is octets that open many elements in each other, of definite length.
func nested(depth int) []byte {
	b := []byte{0x04, 0x00}
	for range depth {
		b = ber.NewSequence("").Bytes()[:1:1]
		b = append(b, 0x80)
	}
	return bytes.Repeat(b, depth)
}

func times(n int, b []byte) []byte { return bytes.Repeat(b, n) }

func concat(parts ...[]byte) []byte { return bytes.Join(parts, nil) }

// What a server may say instead of an answer can't tell, in time and in little memory, and lets nobody in.
func TestNonsense(t *testing.T) {
	yes := packet(1, 1, result(0)...)
	big := func(n int) []byte {
		return packet(1, 4, text("uid=bob"), list(list(text("uid"), list(text(strings.Repeat("x", n))))))
	}
	for what, says := range map[string][]byte{
		"nothing":                           {},
		"HTTP":                              []byte("HTTP/1.1 400 Bad Request\r\n\r\n"),
		"SSH":                               []byte("SSH-2.0-x\r\n"),
		"zeros":                             make([]byte, 1000),
		"0xff":                              times(1000, []byte{0xff}),
		"a length of 2 GiB":                 {0x30, 0x84, 0x7f, 0xff, 0xff, 0xff, 0x02, 0x01, 0x01},
		"a length of 4 GiB":                 {0x30, 0x84, 0xff, 0xff, 0xff, 0xff, 0x02, 0x01, 0x01},
		"a length of 2^56":                  {0x30, 0x87, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff},
		"an unknown length":                 {0x30, 0x80, 0x02, 0x01, 0x01, 0x61, 0x80, 0x0a, 0x01, 0x00, 0x04, 0x00, 0x04, 0x00, 0, 0, 0, 0},
		"an inner length that is too large": {0x30, 0x0c, 0x02, 0x01, 0x01, 0x61, 0x07, 0x0a, 0x01, 0x00, 0x04, 0x7f, 0x04, 0x00},
		"nested without end":                nested(100_000),
		"half of a yes":                     yes[:len(yes)-3],
		"a yes to another request":          packet(77, 1, result(0)...),
		"a yes of a search":                 packet(1, 5, result(0)...),
		"a yes of an extended request":      packet(1, 24, result(0)...),
		"a yes of an add":                   packet(1, 9, result(0)...),
		"a request":                         packet(1, 0, result(0)...),
		"a yes without texts":               packet(1, 1, result(0)[:1]...),
		"a yes without all":                 packet(1, 1),
		"a code that is 65536":              packet(1, 1, result(65536)...),
		"a code that is -1":                 packet(1, 1, result(-1)...),
		"a code that is text":               packet(1, 1, text("0"), text(""), text("")),
		"a message that is empty":           {0x30, 0x00},
		"a message without operation":       {0x30, 0x03, 0x02, 0x01, 0x01},
		"goodbye":                           packet(0, 24, result(52)...),
		"busy":                              packet(1, 1, result(51)...),
		"unavailable":                       packet(1, 1, result(52)...),
		"unwilling":                         packet(1, 1, result(53)...),
		"a referral":                        packet(1, 1, result(10)...),
		"confidentiality required":          packet(1, 1, result(13)...),
		"an entry for an answer":            big(10),
		"entries without end":               times(10_000, packet(1, 4, text("uid=bob"), list())),
		"a large answer":                    big(10 << 20),
		"many elements":                     packet(1, 1, ber.DecodePacket(append([]byte{0x30, 0x82, 0xf0, 0x00}, times(0x7800, []byte{0x04, 0x00})...))),
	} {
		hold := make(chan struct{})
		front := serve(t, func(_ int64, c net.Conn) {
			buffer := make([]byte, 4096)
			if _, err := c.Read(buffer); err != nil {
				return
			}
			go func() { _, _ = io.Copy(io.Discard, c) }()
			_, _ = c.Write(says)
			<-hold
		})
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		b := open(t, ldap.Config{URLs: []string{front.url()}, DN: "uid={user}," + people, Timeout: 300 * time.Millisecond})
		err := bounded(t, what, time.Second, func() error { _, err := login(b, "bob", "secret"); return err })
		check(t, what, err, unclear)
		runtime.ReadMemStats(&after)
		if made := after.TotalAlloc - before.TotalAlloc; made > 4<<20 {
			t.Errorf("%s: %d octets of memory", what, made)
		}
		close(hold)
		b.Close()
	}
}

// What a search may say: nothing but one whole entry is one.
func TestNonsenseOfSearches(t *testing.T) {
	done := packet(1, 5, result(0)...)
	uid := func(values ...*ber.Packet) *ber.Packet { return list(text("uid"), list(values...)) }
	entry := func(dn string, attributes ...*ber.Packet) []byte { return packet(1, 4, text(dn), list(attributes...)) }
	bob := entry("uid=bob", uid(text("bob")))
	number := ber.NewInteger(ber.ClassUniversal, ber.TypePrimitive, ber.TagInteger, 5, "")
	control := concat([]byte{0x30, byte(len(done) - 2 + 4)}, done[2:], []byte{0xa0, 0x02, 0x30, 0x00}) // an empty one
	for what, try := range map[string]struct {
		says []byte
		want string
	}{
		"one":                             {concat(bob, done), fine},
		"one, and a control":              {concat(bob, control), fine},
		"none":                            {done, stranger},
		"one, and a referral":             {concat(bob, packet(1, 19, text("ldap://x")), done), fine},
		"a referral alone":                {concat(packet(1, 19, text("ldap://x")), done), unclear},
		"a result that is a referral":     {packet(1, 5, result(10)...), unclear},
		"one, and no end":                 {bob, unclear},
		"one, and a failure":              {concat(bob, packet(1, 5, result(80)...)), unclear},
		"one, and the time is over":       {concat(bob, packet(1, 5, result(3)...)), unclear},
		"one, and there are more":         {concat(bob, packet(1, 5, result(4)...)), unclear},
		"two":                             {concat(bob, bob, done), unclear},
		"a thousand":                      {concat(times(1000, bob), done), unclear},
		"ten thousand":                    {times(10_000, bob), unclear},
		"one without a name":              {concat(entry("", uid(text("bob"))), done), unclear},
		"one without attributes":          {concat(packet(1, 4, text("uid=bob")), done), unclear},
		"one with a number":               {concat(entry("uid=bob", uid(number)), done), unclear},
		"one with half an attribute":      {concat(entry("uid=bob", list(text("uid"))), done), unclear},
		"one with a list for a name":      {concat(entry("uid=bob", list(list(), list(text("bob")))), done), unclear},
		"one with an empty name":          {concat(entry("uid=bob", uid(text(""))), done), unclear},
		"one with a long name":            {concat(entry("uid=bob", uid(text(strings.Repeat("x", 256)))), done), unclear},
		"one with a control octet":        {concat(entry("uid=bob", uid(text("b\x00b"))), done), unclear},
		"one with another attribute":      {concat(entry("uid=bob", list(text("cn"), list(text("bob")))), done), unclear},
		"a bind's yes":                    {packet(1, 1, result(0)...), unclear},
		"an end, and then what was asked": {concat(done, bob), stranger},
	} {
		hold := make(chan struct{})
		front := serve(t, func(_ int64, c net.Conn) {
			buffer := make([]byte, 4096)
			if _, err := c.Read(buffer); err != nil {
				return
			}
			_, _ = c.Write(try.says)
			<-hold
		})
		b := open(t, ldap.Config{URLs: []string{front.url()}, Base: people, Filter: "(uid={user})", UserAttribute: "uid", Timeout: 300 * time.Millisecond})
		err := bounded(t, what, time.Second, func() error { _, err := b.Recipient(t.Context(), "bob"); return err })
		check(t, what, err, try.want)
		if what == "ten thousand" && !strings.Contains(err.Error(), "too long") {
			t.Errorf("%s: %v", what, err)
		}
		close(hold)
		b.Close()
	}
}

// One octet at a time, with pauses, is no way to hold a login longer than the timeout.
func TestDrip(t *testing.T) {
	front := serve(t, func(_ int64, c net.Conn) {
		for _, octet := range packet(1, 1, result(0)...) {
			if _, err := c.Write([]byte{octet}); err != nil {
				return
			}
			time.Sleep(50 * time.Millisecond)
		}
	})
	b := open(t, ldap.Config{URLs: []string{front.url()}, DN: "uid={user}," + people, Timeout: 300 * time.Millisecond})
	err := bounded(t, "dripping", 600*time.Millisecond, func() error { _, err := login(b, "bob", "secret"); return err })
	check(t, "dripping", err, unclear)
}

// What comes in clear with the answer to STARTTLS is no part of what TLS protects, and no server sends it.
func TestStartTLSNonsense(t *testing.T) {
	yes := packet(1, 24, result(0)...)
	ca, cert, key := certificates(t, "127.0.0.1")
	pair, err := tls.X509KeyPair(cert, key)
	if err != nil {
		t.Fatal(err)
	}
	for what, says := range map[string][]byte{
		"nothing":           {},
		"no":                packet(1, 24, result(2)...),
		"a bind's yes":      packet(1, 1, result(0)...),
		"more than a yes":   concat(yes, packet(1, 1, result(0)...)),
		"a yes and no TLS":  concat(yes),
		"another yes first": concat(packet(0, 24, result(0)...), yes),
	} {
		front := serve(t, func(_ int64, c net.Conn) {
			buffer := make([]byte, 4096)
			_, _ = c.Read(buffer)
			_, _ = c.Write(says)
			if what == "more than a yes" {
				over := tls.Server(c, &tls.Config{Certificates: []tls.Certificate{pair}})
				_, _ = over.Read(buffer)
				_, _ = over.Write(packet(1, 1, result(0)...))
			}
			_, _ = io.Copy(io.Discard, c)
		})
		b := open(t, ldap.Config{URLs: []string{front.url()}, StartTLS: true, CA: ca, DN: "uid={user}," + people, Timeout: 300 * time.Millisecond})
		err := bounded(t, what, time.Second, func() error { _, err := login(b, "bob", "secret"); return err })
		check(t, what, err, unclear)
		b.Close()
	}
}
