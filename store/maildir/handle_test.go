package maildir

import (
	"io"
	"os"
	"runtime"
	"testing"

	"golang.org/x/sys/unix"

	"dewey/maildrop"
)

// Messages that belong to somebody else can be read: only their owner may have it that a read is not noted. Nobody is asked
// twice.
func TestReadNotNoted(t *testing.T) {
	runtime.LockOSThread() // for good: the thread goes with this goroutine
	if os.Geteuid() == 0 {
		if _, err := unix.SetfsuidRetUid(65534); err != nil { // and with it goes root's right to others' files
			t.Fatal(err)
		}
	}
	folder, err := unix.Open("/etc", unix.O_PATH|unix.O_DIRECTORY, 0)
	if err != nil {
		t.Fatal(err)
	}
	store := New(Options{Path: func(maildrop.Owner) (string, error) { return "/etc", nil }})
	d := dirs{box: &box{store: store, root: "/etc"}}
	d.fds[inCur] = folder + 1
	defer d.close()
	file, err := d.open(place{"passwd", inCur})
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	if text, err := io.ReadAll(file); len(text) == 0 || err != nil {
		t.Errorf("%d octets, %v", len(text), err)
	}
	if !store.noted.Load() {
		t.Error("the next one is asked for in the same way")
	}
}
