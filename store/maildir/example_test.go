package maildir_test

import (
	"context"
	"fmt"
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
