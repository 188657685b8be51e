package history

import (
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"dewey/pop3server"
)

// A newer dewey was at work today: its file is neither read nor added to, the log says so once, and tomorrow's is our own.
func TestNewerFileIsLeftAlone(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		log := &logBook{}
		r := New(Options{Dir: dir, Keep: month, Logger: slog.New(slog.NewTextHandler(log, nil))})
		name := filepath.Join(dir, time.Now().UTC().Format(time.DateOnly)+suffix)
		const text = `{"dewey_history":2,"more":"x"}` + "\n" + `{"user":"mrose","something":"new"}` + "\n"
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		stop := run(r)
		h := r.Hooks(pop3server.Hooks{})
		for i := range 3 {
			one(h, uint64(i), "uid")
			synctest.Wait()
		}
		if got, err := os.ReadFile(name); err != nil || string(got) != text {
			t.Errorf("%q, %v", got, err)
		}
		if log.count("written by a newer dewey: version 2, this one knows 1") != 1 || !strings.Contains(log.text.String(), name) {
			t.Error(log.text.String())
		}
		time.Sleep(24 * time.Hour)
		one(h, 3, "uid")
		stop()
		var errs, sessions int
		for s, err := range (Query{User: "mrose"}).Sessions(dir) {
			if err != nil {
				errs++
			} else if sessions++; s.Session != 3 {
				t.Errorf("%+v", s)
			}
		}
		if errs != 1 || sessions != 1 {
			t.Errorf("%d errors, %d sessions", errs, sessions)
		}
	})
}
