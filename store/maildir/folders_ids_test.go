package maildir_test

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// A folder has its unique-ids by inclusion, alone, and whatever else is seen; in all orders of mail that comes and goes.
func TestFoldersUniqueIDsStay(t *testing.T) {
	for seed := range uint64(5) {
		r := rand.New(rand.NewPCG(seed, 1))
		f := newFixture(t)
		disks, names := []string{"", ".A", ".B", ".C"}, []string{"INBOX", "A", "B", "C"}
		ids := map[string]string{}
		f.into(".B", "first")
		for step := range 60 {
			disk := r.IntN(len(disks))
			f.into(disks[disk], fmt.Sprintf("message %d", step))
			owner := including([][]string{{"A", "B", "C"}, {"C", "A"}, {"B"}, {}}[r.IntN(4)]...)
			if r.IntN(3) == 0 && exists(filepath.Join(f.root, disks[disk])) {
				owner = viewing(names[disk], [][]string{{"A", "B", "C"}, {}}[r.IntN(2)]...)
			}
			now, contents := f.seen(owner)
			for content, id := range now {
				if before, known := ids[content]; known && before != id {
					t.Fatalf("seed %d, step %d: %q had %q, has %q", seed, step, content, before, id)
				}
				if strings.Contains(id, ".") {
					t.Errorf("seed %d, step %d: lists were made with one validity: %q", seed, step, id)
				}
				ids[content] = id
			}
			if len(contents) > 0 && r.IntN(3) == 0 {
				d, err := f.store.Open(t.Context(), owner)
				f.check(err)
				f.check(d.Remove(t.Context(), []int{1 + r.IntN(len(contents))}))
				f.close(d)
			}
			if r.IntN(5) == 0 {
				f.restart()
			}
		}
	}
}

// copyFolder copies a folder as cp -a does, with its list.
func (f *fixture) copyFolder(from, to string) {
	f.t.Helper()
	f.check(os.CopyFS(filepath.Join(f.root, to), os.DirFS(filepath.Join(f.root, from))))
}

// A folder that was copied has the validity of the first: its unique-ids have a suffix, always the same, alone too.
func TestFolderIsACopy(t *testing.T) {
	f := newFixture(t)
	f.into("", "own")
	f.into(".A", "one")
	f.into(".A", "two")
	f.want(including("A"), "own", "one", "two")
	f.put(".A/dovecot-uidlist", strings.Replace(f.get(".A/dovecot-uidlist"), "\n2 ", "\n2 P"+strings.Repeat("p", 69)+" ", 1))
	f.restart()
	a, _ := f.seen(viewing("A"))
	f.copyFolder(".A", ".B")
	f.copyFolder(".A", ".C")
	for _, disk := range []string{".B", ".C"} {
		for _, dir := range []string{"new", "cur"} {
			entries, err := os.ReadDir(filepath.Join(f.root, disk, dir))
			f.check(err)
			for _, e := range entries {
				path := disk + "/" + dir + "/" + e.Name()
				f.put(path, strings.TrimSpace(f.get(path))+disk)
			}
		}
	}
	owner := including("A", "B", "C")
	ids := map[string]string{}
	for step := range 6 {
		now, contents := f.seen(owner)
		if want := 1 + 3*(2+step) - max(0, step-2); len(contents) != want {
			t.Fatalf("step %d: %d messages, want %d: %q", step, len(contents), want, contents)
		}
		for content, id := range ids {
			if got, here := now[content]; here && got != id {
				t.Errorf("step %d: %q had %q, has %q", step, content, id, got)
			}
		}
		ids = now
		for _, folder := range []string{"A", "B", "C"} {
			alone, contents := f.seen(viewing(folder, "A", "B", "C"))
			for _, content := range contents {
				if alone[content] != now[content] {
					t.Errorf("step %d: %q has %q alone, %q among others", step, content, alone[content], now[content])
				}
			}
			f.into("."+folder, fmt.Sprintf("%s, step %d", folder, step))
		}
		if step >= 2 {
			d, err := f.store.Open(t.Context(), owner)
			f.check(err)
			f.check(d.Remove(t.Context(), []int{2})) // of A's, which B and C have the same of
			f.close(d)
		}
	}
	if ids["A, step 3"] == "" || ids["B, step 3"] == "" || strings.Contains(ids["A, step 3"], ".") ||
		!regexp.MustCompile(`^[0-9a-f]{16}\.[0-9a-f]{8}$`).MatchString(ids["B, step 3"]) {
		t.Errorf("unique-ids %q", ids)
	}
	if a["two"] != strings.Repeat("p", 69) {
		t.Errorf("unique-ids %q", a)
	}
}

// Two messages with one unique-id that lists name are copies of one: the second is left out, and the log says which.
func TestFolderHasTheSameUniqueID(t *testing.T) {
	f := newFixture(t)
	f.into("", "own")
	f.into(".A", "one")
	f.into(".A", "two")
	f.want(including("A"), "own", "one", "two")
	own := f.list()
	f.put("dovecot-uidlist", strings.Replace(f.get("dovecot-uidlist"), "\n1 ", "\n1 Psame ", 1))
	f.put(".A/dovecot-uidlist", strings.Replace(f.get(".A/dovecot-uidlist"), "\n2 ", "\n2 Psame ", 1))
	f.restart()
	f.want(including("A"), "own", "one")
	f.wantLog("unique_id=same")
	f.want(viewing("A", "A"), "one", "two")
	// One that looks as if it were made of uid and validity.
	f.put("dovecot-uidlist", strings.Replace(f.get("dovecot-uidlist"), " Psame ", " ", 1))
	f.put(".A/dovecot-uidlist", strings.Replace(f.get(".A/dovecot-uidlist"), " Psame ", fmt.Sprintf(" P00000001%08x ", own.Validity), 1))
	f.restart()
	f.want(including("A"), "own", "one")
}
