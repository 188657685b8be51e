package pop3server_test

import (
	"context"
	"crypto/subtle"
	"fmt"
	"io"
	"log/slog"
	"net"
	"strings"

	"dewey/auth"
	"dewey/pop3server"
	"dewey/store/mem"
)

// A server over maildrops in memory. The client here is a bare connection.
func Example() {
	store := mem.New()
	store.Deliver("mrose", []byte("Subject: dinner\n\nCome at seven.\n"))
	server := &pop3server.Server{
		Users: auth.PasswordFunc(func(_ context.Context, a auth.Attempt) (auth.Identity, error) {
			if a.User != "mrose" || subtle.ConstantTimeCompare([]byte(a.Password), []byte("tanstaaf")) == 0 {
				return auth.Identity{}, auth.ErrRejected
			}
			return auth.Identity{User: a.User}, nil
		}),
		Maildrops: store,
		Logger:    slog.New(slog.DiscardHandler),
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		panic(err)
	}
	go server.Serve(l)
	defer server.Close()

	client, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		panic(err)
	}
	fmt.Fprint(client, "USER mrose\r\nPASS tanstaaf\r\nRETR 1\r\nQUIT\r\n")
	answer, _ := io.ReadAll(client)
	fmt.Print(strings.ReplaceAll(string(answer), "\r\n", "\n"))
	// Output:
	// +OK dewey ready
	// +OK
	// +OK 1 message (35 octets)
	// +OK 35 octets
	// Subject: dinner
	//
	// Come at seven.
	// .
	// +OK bye
}

// Hooks count what happens; settings change while the server runs.
func ExampleServer_Reconfigure() {
	var seen int
	done := make(chan struct{})
	server := &pop3server.Server{
		Users: auth.PasswordFunc(func(context.Context, auth.Attempt) (auth.Identity, error) {
			return auth.Identity{}, auth.ErrRejected
		}),
		Maildrops: mem.New(),
		Logger:    slog.New(slog.DiscardHandler),
		Hooks: pop3server.Hooks{
			Connected: func(pop3server.Session) { seen++ },
			Closed:    func(pop3server.Session, pop3server.End) { close(done) },
		},
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		panic(err)
	}
	go server.Serve(l)
	defer server.Close()
	if err := server.Reconfigure(pop3server.Settings{Hostname: "mail.example.org", MaxConnections: 100}); err != nil {
		panic(err)
	}

	client, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		panic(err)
	}
	fmt.Fprint(client, "QUIT\r\n")
	answer, _ := io.ReadAll(client)
	<-done
	fmt.Printf("%s%d seen\n", strings.ReplaceAll(string(answer), "\r\n", "\n"), seen)
	// Output:
	// +OK dewey at mail.example.org ready
	// +OK bye
	// 1 seen
}
