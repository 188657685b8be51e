package maildir_test

import (
	"bytes"
	"context"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"dewey/maildrop"
	"dewey/store/maildir"
)

// As a child of TestLifeKilledAtAnyCall this process removes two messages, or restores them, on its first thread.
func init() {
	root, what := os.Getenv("MAILDIR_LIFE"), os.Getenv("MAILDIR_LIFE_WHAT")
	if root == "" {
		return
	}
	ctx := context.Background()
	store := maildir.New(maildir.Options{Path: func(maildrop.Owner) (string, error) { return root, nil }})
	owner := maildrop.Owner{Life: maildrop.Life{Undelete: fortnight}}
	var err error
	if what == "restore" {
		_, err = store.Restore(ctx, owner, all)
	} else {
		if what == "keep" {
			owner.Life.Deletion = maildrop.DeletionKeep
		}
		var d maildrop.Maildrop
		if d, err = store.Open(ctx, owner); err == nil {
			if err = d.Remove(ctx, []int{1, 2}); err == nil {
				fmt.Println("removed")
				err = d.Close()
			}
		}
	}
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	fmt.Println("done")
	os.Exit(0)
}

// The process is killed before each call of a removal, or of a restore, that changes anything: each message is in the
// maildrop or can be brought back, never both, under its unique-id; and where it was said to be if that was said.
func TestLifeKilledAtAnyCall(t *testing.T) {
	strace, err := exec.LookPath("strace")
	if err != nil {
		t.Fatal("no strace: apt-get install strace")
	}
	noRename := []string{"-e", "inject=renameat2:error=EINVAL"} // as NFS does
	for _, way := range []struct {
		name, what string
		inject     []string
		calls      []string
	}{
		{"remove", "remove", nil, []string{"mkdirat", "openat", "write", "fsync", "renameat2", "renameat", "unlinkat"}},
		{"restore", "restore", nil, []string{"openat", "write", "fsync", "renameat2", "renameat", "unlinkat"}},
		{"keep", "keep", nil, []string{"write", "fsync", "renameat"}},
		{"remove by link", "remove", noRename, []string{"linkat", "unlinkat", "fsync"}},
		{"restore by link", "restore", noRename, []string{"linkat", "unlinkat", "fsync"}},
	} {
		t.Run(way.name, func(t *testing.T) {
			t.Parallel()
			places := map[string]int{}
			for _, call := range way.calls {
				for n := 1; ; n++ {
					f := newFixture(t)
					f.owner.Life.Undelete = fortnight
					for i := range 3 {
						f.deliver(fmt.Sprintf("Subject: %d\n", i))
					}
					f.flag(f.files["Subject: 1\n"], "S")
					before := f.contents()
					removed := f.ids()[:2]
					if way.what == "restore" {
						f.remove(1, 2)
					}
					out, done := f.killLife(strace, way.what, call, n, way.inject)
					if done && !strings.HasSuffix(out, "done\n") || n > 200 {
						t.Fatalf("%s %d: %q", call, n, out)
					}
					f.restart()
					if st, err := os.Stat(filepath.Join(f.root, "dovecot-uidlist.lock")); err == nil && st.Size() == 0 {
						t.Errorf("%s %d: the lock on the list names nobody: for two minutes nobody else gets it", call, n)
					}
					where := f.checkLife(fmt.Sprint(call, " ", n), before, removed, way.inject != nil)
					for _, in := range where {
						places[in]++
					}
					want := map[bool]string{true: "maildrop", false: "away"}[way.what == "restore"]
					if out != "" && (where[0] != want || where[1] != want) {
						t.Errorf("%s %d: said %q, they are in %v", call, n, out, where)
					}
					_ = os.RemoveAll(f.root)
					if done {
						break
					}
				}
			}
			t.Log(places)
			if places["maildrop"] < 4 || places["away"] < 4 {
				t.Error("the test tests little")
			}
		})
	}
}

// checkLife looks at what a process that was killed has left, and says where the messages are that it was about.
func (f *fixture) checkLife(what string, before map[string]string, ids []string, links bool) []string {
	t := f.t
	t.Helper()
	shown, away := f.contents(), removedIDs(f.trashed())
	where := make([]string, len(ids))
	for i, id := range ids {
		_, in := shown[id]
		out := slices.Contains(away, id)
		switch {
		case in && (!out || links): // with a second name for a moment, it is one message still
			where[i] = "maildrop"
		case out && !in:
			where[i] = "away"
		default:
			t.Errorf("%s: %s: in the maildrop %v, to be brought back %v", what, id, in, out)
		}
	}
	f.checkUsage()
	f.restore(all)
	for range 2 {
		if got := f.contents(); !maps.Equal(got, before) {
			t.Errorf("%s: all restored, and there are\n%v, want\n%v", what, got, before)
		}
		f.restart()
	}
	if left := removedIDs(f.trashed()); len(left) > 0 {
		t.Errorf("%s: %q can be brought back still", what, left)
	}
	f.remove(1, 2, 3) // and all goes on as ever
	if got := len(f.restore(all)); got != 3 || !maps.Equal(f.contents(), before) {
		t.Errorf("%s: removed and restored again: %d messages", what, got)
	}
	f.fsck()
	return where
}

// killLife runs a child that is killed before its n-th call of a kind, and says what it printed, and whether it came to
// its end.
func (f *fixture) killLife(strace, what, call string, n int, inject []string) (out string, done bool) {
	f.t.Helper()
	args := append([]string{
		"-f", "-qq", "-o", "/dev/null", "-e", "trace=" + call + ",renameat2",
		"-e", fmt.Sprintf("inject=%s:signal=KILL:when=%d", call, n),
	}, inject...)
	cmd := exec.Command(strace, append(args, os.Args[0])...)
	cmd.Env = append(os.Environ(), "MAILDIR_LIFE="+f.root, "MAILDIR_LIFE_WHAT="+what, "GODEBUG=asyncpreemptoff=1")
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	text, err := cmd.Output()
	if stderr.Len() > 0 {
		f.t.Fatalf("%s %d: %v, %s", call, n, err, stderr.String())
	}
	return string(text), err == nil
}

// The disk refuses the move itself: the messages stay, and nothing is unlinked instead.
func TestUndeleteMoveRefused(t *testing.T) {
	for _, fault := range []string{"ENOSPC", "EDQUOT", "EROFS", "EXDEV"} {
		f := newFixture(t)
		f.owner.Life.Undelete = fortnight
		f.deliver("Subject: 1\n")
		f.deliver("Subject: 2\n")
		before := f.contents()
		out, _ := f.killLife("strace", "remove", "linkat", 1, []string{"-e", "inject=renameat2:error=" + fault})
		if !strings.Contains(out, "message 1 not removed") || strings.Contains(out, "removed\n") || strings.Contains(out, "done") {
			t.Errorf("%s: the child said %q", fault, out)
		}
		f.restart()
		if got := f.contents(); !maps.Equal(got, before) || len(f.trashed()) > 0 {
			t.Errorf("%s: %v, want %v", fault, got, before)
		}
	}
}

// A session that died before it struck the records of what it had removed: a restore leaves one record each.
func TestRestoreAfterDeadSession(t *testing.T) {
	f := newFixture(t)
	f.owner.Life.Undelete = fortnight
	base := f.deliver("Subject: 1\n")
	d := f.open()
	before := uids(d)
	f.check(d.Remove(t.Context(), []int{1}))
	maildir.Kill(d)
	f.restart()
	f.wantIDs("restored", f.restore(all), before)
	if n := strings.Count(f.get("dovecot-uidlist"), ":"+base+"\n"); n != 1 {
		t.Errorf("%d records\n%s", n, f.get("dovecot-uidlist"))
	}
	f.wantIDs("back", f.ids(), before)
	f.fsck()
}
