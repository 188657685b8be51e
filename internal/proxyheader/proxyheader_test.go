package proxyheader

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

var (
	proxy   = netip.MustParseAddrPort("192.0.2.100:40000")
	here    = netip.MustParseAddrPort("192.0.2.1:110")
	proxies = Proxies{netip.MustParsePrefix("192.0.2.96/27"), netip.MustParsePrefix("2001:db8::/32"), netip.MustParsePrefix("fe80::/10")}
)

// A pipe is an end of a net.Pipe that has addresses.
type pipe struct {
	net.Conn
	remote netip.AddrPort
}

func (p pipe) RemoteAddr() net.Addr { return net.TCPAddrFromAddrPort(p.remote) }
func (p pipe) LocalAddr() net.Addr  { return net.TCPAddrFromAddrPort(here) }

// connect returns both ends of a connection. They are closed with the test.
func connect(t testing.TB, remote netip.AddrPort) (client, server net.Conn) {
	client, c := net.Pipe()
	t.Cleanup(func() { _, _ = client.Close(), c.Close() })
	return client, pipe{c, remote}
}

// Each header as a whole and in pieces; what follows comes through as it is, and with none of it there
// Wrap does not wait for it.
func TestHeaders(t *testing.T) {
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			if v := judge([]byte(test.header + behind)); v.ok != (test.why == "") {
				t.Errorf("the test's own parser thinks otherwise: %+v", v)
			}
			synctest.Test(t, func(t *testing.T) { test.play(t, test.header+behind) })
			for _, size := range []int{1 << 20, 3, 1} {
				var pieces []string
				for rest := test.header; rest != ""; {
					n := min(size, len(rest))
					pieces, rest = append(pieces, rest[:n]), rest[n:]
				}
				synctest.Test(t, func(t *testing.T) { test.play(t, append(pieces, "", behind)...) })
			}
		})
	}
}

const behind = "CAPA\r\n\x00\xff\r\n"

// play sends pieces. An empty one is sent once Wrap has returned.
func (test headerTest) play(t *testing.T, pieces ...string) {
	client, c := connect(t, proxy)
	wrapped := make(chan struct{})
	go func() {
		for _, piece := range pieces {
			if piece == "" {
				<-wrapped
			}
			if _, err := io.WriteString(client, piece); err != nil {
				return
			}
		}
	}()
	began := time.Now()
	got, err := proxies.Wrap(t.Context(), c)
	if waited := time.Since(began); waited != 0 {
		t.Errorf("waited %v", waited)
	}
	close(wrapped)
	if test.why != "" {
		_ = c.Close()
		if !errors.Is(err, ErrHeader) && !errors.Is(err, ErrNoHeader) || !strings.Contains(err.Error(), test.why) {
			t.Errorf("error %v, want one that says %q", err, test.why)
		}
		if err != nil && strings.ContainsFunc(err.Error(), func(r rune) bool { return r < ' ' || r > '~' }) {
			t.Errorf("the error holds what was received: %q", err)
		}
		return
	}
	if err != nil {
		t.Fatal(err)
	}
	remote, local := proxy.String(), here.String()
	if test.remote != "" {
		remote, local = test.remote, test.local
	}
	if got.RemoteAddr().String() != remote || got.LocalAddr().String() != local {
		t.Errorf("addresses %v, %v; want %s, %s", got.RemoteAddr(), got.LocalAddr(), remote, local)
	}
	wrap, ok := got.(*Conn)
	if ok != (test.remote != "") || ok && (wrap.Secured() != test.secured || wrap.Proxy().String() != proxy.String()) {
		t.Errorf("%T, %+v", got, got)
	}
	rest := make([]byte, len(behind))
	if _, err := io.ReadFull(got, rest); err != nil || string(rest) != behind {
		t.Errorf("behind the header: %q, %v", rest, err)
	}
	// No deadline is left: this read ends with the connection.
	time.AfterFunc(time.Hour, func() { _ = client.Close() })
	if n, err := got.Read(rest); n != 0 || err != io.EOF {
		t.Errorf("after an hour: %d, %v", n, err)
	}
}

// An error's text tells the kind of fault and quotes nothing.
func TestErrorsQuoteNothing(t *testing.T) {
	for _, header := range []string{
		"PROXY TCP4 SECRET 192.0.2.1 54321 110\r\n",
		"PROXY TCP4 203.0.113.7 192.0.2.1 SECRET 110\r\n",
		"PROXY SECRET 203.0.113.7 192.0.2.1 54321 110\r\n",
		"SECRET\r\n",
	} {
		_, c := script(header)
		if _, err := proxies.Wrap(t.Context(), c); err == nil || strings.Contains(err.Error(), "SECRET") {
			t.Errorf("%q: %v", header, err)
		}
	}
}

// A header is believed of the named networks alone. From elsewhere it is what the client said, and
// Wrap waits for nothing.
func TestTrap51HeadersFromNamedNetworksOnly(t *testing.T) {
	const header = "PROXY TCP4 203.0.113.7 192.0.2.1 54321 110\r\n"
	for remote, named := range map[string]bool{
		"192.0.2.96:1":            true,
		"192.0.2.127:1":           true,
		"[::ffff:192.0.2.100]:1":  true, // a listener for both families
		"[2001:db8::1]:1":         true,
		"[fe80::1%eth0]:1":        true,
		"192.0.2.95:1":            false,
		"192.0.2.128:1":           false,
		"127.0.0.1:1":             false,
		"[2001:db9::1]:1":         false,
		"[::192.0.2.100]:1":       false,
		"[::ffff:198.51.100.1]:1": false,
	} {
		_, c := script(header)
		c.remote = net.TCPAddrFromAddrPort(netip.MustParseAddrPort(remote))
		got, err := proxies.Wrap(t.Context(), c)
		if err != nil {
			t.Errorf("%s: %v", remote, err)
			continue
		}
		if _, ok := got.(*Conn); ok != named {
			t.Errorf("%s: %T", remote, got)
		}
		if !named && (got != net.Conn(c) || c.reads+c.deadlines > 0) {
			t.Errorf("%s: touched", remote)
		}
	}
	client, server := net.Pipe()
	defer client.Close()
	if got, err := proxies.Wrap(t.Context(), server); got != server || err != nil {
		t.Errorf("no TCP: %v, %v", got, err)
	}
	if got, err := Proxies(nil).Wrap(t.Context(), server); got != server || err != nil {
		t.Errorf("no networks: %v, %v", got, err)
	}
}

// A header that is not whole in time, or never will be.
func TestCut(t *testing.T) {
	for _, whole := range []string{"PROXY TCP4 203.0.113.7 192.0.2.1 54321 110\r\n", octets(sig2, "21 11 000f", v4, "040000")} {
		for n := range len(whole) {
			kind := ErrHeader
			if n == 0 {
				kind = ErrNoHeader
			}
			synctest.Test(t, func(t *testing.T) {
				client, c := connect(t, proxy)
				go func() { _, _ = io.WriteString(client, whole[:n]) }()
				began := time.Now()
				got, err := proxies.Wrap(t.Context(), c)
				if got != nil || !errors.Is(err, kind) || !errors.Is(err, os.ErrDeadlineExceeded) {
					t.Errorf("%d octets, then silence: %v, %v", n, got, err)
				}
				if waited := time.Since(began); waited != timeout {
					t.Errorf("waited %v", waited)
				}
			})
			_, c := script(whole[:n])
			_, err := proxies.Wrap(t.Context(), c)
			if !errors.Is(err, kind) || !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
				t.Errorf("%d octets, then the end: %v", n, err)
			}
		}
	}
}

// Octets that come one by one do not prolong the time.
func TestSlow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client, c := connect(t, proxy)
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			for _, octet := range []byte("PROXY TCP4 203.0.113.7 192.0.2.1 54321 110\r\n") {
				time.Sleep(time.Second)
				if _, err := client.Write([]byte{octet}); err != nil {
					return
				}
			}
		}()
		began := time.Now()
		_, err := proxies.Wrap(t.Context(), c)
		if waited := time.Since(began); !errors.Is(err, ErrHeader) || waited != timeout {
			t.Errorf("%v after %v", err, waited)
		}
		_ = c.Close()
		<-ended
	})
}

// The end of the context ends the wait.
func TestContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client, c := connect(t, proxy)
		go func() { _, _ = io.WriteString(client, "PROXY") }()
		why := errors.New("closing")
		ctx, cancel := context.WithCancelCause(t.Context())
		time.AfterFunc(time.Second, func() { cancel(why) })
		began := time.Now()
		got, err := proxies.Wrap(ctx, c)
		if waited := time.Since(began); got != nil || !errors.Is(err, why) || waited != time.Second {
			t.Errorf("%v, %v after %v", got, err, waited)
		}
		if got, err := proxies.Wrap(ctx, c); got != nil || !errors.Is(err, why) {
			t.Errorf("with a context that has ended: %v, %v", got, err)
		}
	})
}

// What a header claims costs no memory before it has come.
func TestMemory(t *testing.T) {
	short := octets(sig2, "21 11 0ff0", v4)
	const runs = 200
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	for range runs {
		_, c := script(short)
		if _, err := proxies.Wrap(t.Context(), c); err == nil {
			t.Fatal("no error")
		}
	}
	runtime.ReadMemStats(&after)
	if n := (after.TotalAlloc - before.TotalAlloc) / runs; n > 3<<10 {
		t.Errorf("%d octets", n)
	} else {
		t.Logf("%d octets", n)
	}
}

// The connection's own abilities stay: those of TCP, and none where there are none.
func TestAbilities(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	client, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	c, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_ = client.SetDeadline(time.Now().Add(10 * time.Second))
	if _, err := io.WriteString(client, octets(sig2, "21 11 000c", v4)); err != nil {
		t.Fatal(err)
	}
	got, err := Proxies{netip.MustParsePrefix("127.0.0.0/8")}.Wrap(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := got.(syscall.Conn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	if err := raw.Control(func(fd uintptr) {
		if _, err := syscall.GetsockoptInt(int(fd), syscall.IPPROTO_TCP, syscall.TCP_NODELAY); err != nil {
			t.Error(err)
		}
	}); err != nil {
		t.Error(err)
	}
	if err := got.SetReadDeadline(time.Now().Add(-time.Second)); err != nil {
		t.Error(err)
	}
	if _, err := got.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("after the deadline: %v", err)
	}
	if _, err := io.WriteString(got, "+OK\r\n"); err != nil {
		t.Error(err)
	}
	if err := got.(interface{ CloseWrite() error }).CloseWrite(); err != nil {
		t.Error(err)
	}
	if all, err := io.ReadAll(client); err != nil || string(all) != "+OK\r\n" {
		t.Errorf("%q, %v", all, err)
	}

	none := &Conn{Conn: pipe{}}
	if err := none.CloseWrite(); !errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("CloseWrite: %v", err)
	}
	if _, err := none.SyscallConn(); !errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("SyscallConn: %v", err)
	}
}

// A scripted connection gives what it has in pieces and counts what is done to it.
type scripted struct {
	net.Conn
	remote           net.Addr
	in               *bytes.Reader
	sizes            []byte // of the pieces, again and again; 0 is 256
	reads, deadlines int
	ended            bool // somebody has read at the end
}

func script(octets string, sizes ...byte) (*bytes.Reader, *scripted) {
	in := bytes.NewReader([]byte(octets))
	return in, &scripted{Conn: pipe{nil, proxy}, remote: net.TCPAddrFromAddrPort(proxy), in: in, sizes: sizes}
}

func (c *scripted) RemoteAddr() net.Addr { return c.remote }

func (c *scripted) SetReadDeadline(time.Time) error {
	c.deadlines++
	return nil
}

func (c *scripted) Read(p []byte) (int, error) {
	if len(c.sizes) > 0 {
		p = p[:min(len(p), int(c.sizes[c.reads%len(c.sizes)]-1)+1)]
	}
	c.reads++
	n, err := c.in.Read(p)
	c.ended = c.ended || err != nil
	return n, err
}
