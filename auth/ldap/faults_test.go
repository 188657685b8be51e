package ldap_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"io"
	"net"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	ber "github.com/go-asn1-ber/asn1-ber"

	"dewey/auth"
	"dewey/auth/ldap"
)

// A door stands before a server: it counts connections, and may be told what to do with each.
type door struct {
	net.Listener
	open, most, all atomic.Int64
	wg              sync.WaitGroup
}

// serve listens and runs a handler for each connection, with its number from 1.
func serve(t *testing.T, handle func(n int64, c net.Conn)) *door {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	d := &door{Listener: l}
	conns := make(chan net.Conn, 1000)
	d.wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				close(conns)
				return
			}
			conns <- c
			n := d.all.Add(1)
			now := d.open.Add(1)
			for most := d.most.Load(); now > most && !d.most.CompareAndSwap(most, now); most = d.most.Load() {
			}
			d.wg.Go(func() {
				defer d.open.Add(-1)
				defer c.Close()
				handle(n, c)
			})
		}
	})
	t.Cleanup(func() {
		l.Close()
		for c := range conns {
			c.Close()
		}
		d.wg.Wait()
	})
	return d
}

func (d *door) url() string { return "ldap://" + d.Addr().String() }

// through hands a connection on to a directory; each request is shown first.
func through(to string, c net.Conn, request func(b []byte)) {
	s, err := net.Dial("tcp", strings.TrimPrefix(to, "ldap://"))
	if err != nil {
		return
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		_, _ = io.Copy(c, s)
		c.Close()
	}()
	buffer := make([]byte, 64<<10)
	for {
		n, err := c.Read(buffer)
		if err != nil {
			break
		}
		request(buffer[:n])
		if _, err := s.Write(buffer[:n]); err != nil {
			break
		}
	}
	s.Close()
	<-done
}

// bounded runs a call that has to end in time.
func bounded(t *testing.T, what string, most time.Duration, call func() error) (err error) {
	t.Helper()
	start := time.Now()
	err = call()
	if took := time.Since(start); took > most {
		t.Errorf("%s took %v (%v)", what, took, err)
	}
	return err
}

// slapd is stopped and killed in the middle of a login, when the user's password is on its way.
func TestCutInMidLogin(t *testing.T) {
	for _, s := range []syscall.Signal{syscall.SIGSTOP, syscall.SIGKILL} {
		d := start(t)
		var armed atomic.Bool
		front := serve(t, func(_ int64, c net.Conn) {
			through(d.url(), c, func(b []byte) {
				if bytes.Contains(b, []byte("secret of bob")) && armed.Swap(false) {
					d.signal(s)
				}
			})
		})
		c := d.config()
		c.URLs, c.Timeout = []string{front.url()}, time.Second
		b := open(t, c)
		for range 2 { // then its connections are kept
			_, err := login(b, "bob", "secret of bob")
			check(t, "before", err, fine)
		}
		armed.Store(true)
		err := bounded(t, "a login that is cut", 3*time.Second/2, func() error { _, err := login(b, "bob", "secret of bob"); return err })
		check(t, s.String()+" in mid-login", err, unclear)
		err = bounded(t, "the next one", 200*time.Millisecond, func() error { _, err := login(b, "alice", "secret of alice"); return err })
		check(t, s.String()+", right after", err, unclear)
		_, err = b.Recipient(t.Context(), "bob")
		check(t, s.String()+", mail", err, unclear)

		if s == syscall.SIGSTOP {
			d.signal(syscall.SIGCONT)
		} else {
			d.kill()
			d.run()
		}
		until(t, "it works again", func() bool { _, err := login(b, "bob", "secret of bob"); return err == nil })
		_, err = login(b, "bob", "wrong")
		check(t, "wrong, afterwards", err, refused)
	}
}

// A server that was started again meanwhile costs nobody a login.
func TestStaleConnections(t *testing.T) {
	d := start(t)
	b := open(t, d.config())
	for range 3 {
		_, err := login(b, "bob", "secret of bob")
		check(t, "login", err, fine)
		d.kill()
		d.run()
	}
	_, err := login(b, "bob", "wrong")
	check(t, "wrong", err, refused)
}

func TestFailover(t *testing.T) {
	d := start(t)
	var silent, armed, closed atomic.Bool
	first := serve(t, func(_ int64, c net.Conn) {
		if closed.Load() {
			return
		}
		through(d.url(), c, func(b []byte) {
			if armed.Load() && bytes.Contains(b, []byte("secret of bob")) {
				silent.Store(true)
			}
			for silent.Load() {
				time.Sleep(time.Millisecond)
			}
		})
	})
	second := serve(t, func(_ int64, c net.Conn) { through(d.url(), c, func([]byte) {}) })
	c := d.config()
	c.URLs, c.Timeout = []string{first.url(), second.url()}, 2*time.Second
	b := open(t, c)
	expect := func(what string, most time.Duration) {
		t.Helper()
		err := bounded(t, what, most, func() error { _, err := login(b, "bob", "secret of bob"); return err })
		check(t, what, err, fine)
	}
	expect("the first works", time.Second)
	if second.all.Load() != 0 {
		t.Error("the second one was asked")
	}
	silent.Store(true)
	expect("the first is slow", 2*time.Second)
	before := first.all.Load()
	expect("and is not asked again at once", time.Second)
	if first.all.Load() != before {
		t.Error("the first one was asked again")
	}
	silent.Store(false)
	ldap.Later(b)
	before = second.all.Load()
	expect("the first is back", time.Second)
	expect("the first is back", time.Second)
	if first.all.Load() == 0 || second.all.Load() != before {
		t.Error("the first one is not asked again")
	}
	armed.Store(true)
	expect("the first falls silent in mid-login", 2*time.Second)
	armed.Store(false)
	silent.Store(false)
	closed.Store(true)
	b2 := open(t, c)
	err := bounded(t, "the first one hangs up", time.Second, func() error { _, err := login(b2, "bob", "wrong"); return err })
	check(t, "wrong at the second", err, refused)
}

// No more connections than allowed are open, busy and idle ones together, and all logins come to an answer.
func TestPoolBound(t *testing.T) {
	d := start(t)
	front := serve(t, func(_ int64, c net.Conn) { through(d.url(), c, func([]byte) {}) })
	for _, most := range []int{1, 3} {
		front.most.Store(0)
		c := d.config()
		c.URLs, c.Connections, c.Timeout = []string{front.url()}, most, 30*time.Second
		b := open(t, c)
		var wg sync.WaitGroup
		for i := range 60 {
			wg.Go(func() {
				user, password, want := "bob", "secret of bob", fine
				switch i % 3 {
				case 1:
					user, want = "mallory", refused
				case 2:
					user, want = "nobody", stranger
				}
				_, err := login(b, user, password)
				check(t, user, err, want)
			})
		}
		wg.Wait()
		until(t, "as many are left as are allowed", func() bool { return front.open.Load() <= int64(most) })
		b.Close()
		until(t, "all are closed", func() bool { return front.open.Load() == 0 })
		// The other side sees a connection close a moment after it is replaced.
		if got := front.most.Load(); got > int64(most)*2 || most > 1 && got < 2 {
			t.Errorf("%d connections at once; %d are allowed", got, most)
		}
	}
}

// Who waits for a connection waits no longer than the timeout, nor than he wants; Close ends what is under way.
func TestWaiting(t *testing.T) {
	held := make(chan struct{})
	front := serve(t, func(_ int64, c net.Conn) { <-held })
	defer close(held)
	c := ldap.Config{URLs: []string{front.url()}, DN: "uid={user}," + people, Connections: 1, Timeout: 300 * time.Millisecond}
	b := open(t, c)
	var wg sync.WaitGroup
	for range 5 {
		wg.Go(func() {
			err := bounded(t, "a login", 600*time.Millisecond, func() error { _, err := login(b, "bob", "secret"); return err })
			check(t, "waiting", err, unclear)
		})
	}
	wg.Wait()

	c.URLs = []string{strings.Replace(front.url(), "ldap:", "ldaps:", 1)}
	err := bounded(t, "a login by TLS", 600*time.Millisecond, func() error { _, err := login(open(t, c), "bob", "secret"); return err })
	check(t, "no handshake", err, unclear)

	c.URLs, c.Timeout = []string{front.url()}, time.Minute
	b = open(t, c)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	err = bounded(t, "a login of one who has gone", time.Second, func() error {
		_, err := b.CheckPassword(ctx, auth.Attempt{User: "bob", Password: "secret"})
		return err
	})
	check(t, "gone", err, unclear)
	result := make(chan error)
	go func() { _, err := login(b, "bob", "secret"); result <- err }()
	before := front.all.Load()
	until(t, "it has connected", func() bool { return front.all.Load() > before || front.open.Load() > 0 })
	b.Close()
	check(t, "closed", <-result, unclear)
	_, err = login(b, "bob", "secret")
	check(t, "after Close", err, unclear)
}

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

// A server that hangs up on a connection that was kept, just as it is asked, costs nobody a login.
func TestHangsUpWhenAsked(t *testing.T) {
	d := start(t)
	var armed atomic.Bool
	front := serve(t, func(_ int64, c net.Conn) {
		through(d.url(), c, func([]byte) {
			if armed.Swap(false) {
				c.Close()
			}
		})
	})
	c := d.config()
	c.URLs = []string{front.url()}
	b := open(t, c)
	for range 3 {
		_, err := login(b, "bob", "secret of bob")
		check(t, "login", err, fine)
		armed.Store(true)
	}
}
