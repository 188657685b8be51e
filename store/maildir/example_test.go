package maildir_test

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"dewey/maildrop"
	"dewey/store/maildir"
)

func Example() {
	home, err := os.MkdirTemp("", "home")
	if err != nil {
		panic(err)
	}
	defer os.RemoveAll(home)

	store := maildir.New(maildir.Options{
		Path: func(o maildrop.Owner) (string, error) { return filepath.Join(o.Home, "Maildir"), nil },
	})
	drop, err := store.Open(context.Background(), maildrop.Owner{Name: "mrose", Home: home})
	if err != nil {
		panic(err)
	}
	fmt.Println(len(drop.Messages()), "messages")
	if err := drop.Close(); err != nil {
		panic(err)
	}
	// Output: 0 messages
}

func ExampleStore_Deposit() {
	home, err := os.MkdirTemp("", "home")
	if err != nil {
		panic(err)
	}
	defer os.RemoveAll(home)

	store := maildir.New(maildir.Options{
		Path: func(o maildrop.Owner) (string, error) { return filepath.Join(o.Home, "Maildir"), nil },
	})
	ctx, mrose := context.Background(), maildrop.Owner{Name: "mrose", Home: home}
	deposit, err := store.Deposit(ctx, mrose)
	if err != nil {
		panic(err)
	}
	defer deposit.Discard() // does nothing after Commit
	if _, err := io.WriteString(deposit, "Subject: hello\r\n\r\nHello.\r\n"); err != nil {
		panic(err)
	}
	if err := deposit.Commit(ctx); err != nil {
		panic(err)
	}

	drop, err := store.Open(ctx, mrose)
	if err != nil {
		panic(err)
	}
	defer drop.Close()
	fmt.Println(drop.Messages()[0].Octets, "octets")
	// Output: 26 octets
}
