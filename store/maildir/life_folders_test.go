package maildir_test

import (
	"errors"
	"slices"
	"testing"
	"time"

	"dewey/maildrop"
)

// Mail of the owner's folders is removed to the folder that it was in, comes back there, and is swept with the rest.
func TestLifeFolders(t *testing.T) {
	f := newFixture(t)
	f.owner.Life = maildrop.Life{Undelete: fortnight, Retention: 30 * day, Folders: []string{"Lists/dewey", "None"}}
	f.put("new/1700000001.M1P1.host", "Subject: own\n")
	f.put(".Lists.dewey/new/1700000002.M2P1.host", "Subject: folder\n")
	f.put(".Lists.dewey/cur/1700000003.M3P1.host:2,S", "Subject: flagged\n")
	f.put("cur/1700000004.M4P1.host:2,", "Subject: stays\n")
	before := f.ids()
	if len(before) != 4 {
		t.Fatalf("%d messages", len(before))
	}
	f.remove(1, 3, 4)
	list := f.trashed()
	if len(list) != 3 || list[0].Folder != "" || list[1].Folder != "Lists/dewey" || list[2].Folder != "Lists/dewey" {
		t.Fatalf("Removed: %+v", list)
	}
	for _, r := range list {
		body, err := f.store.OpenRemoved(t.Context(), f.owner, r)
		f.check(err)
		f.check(body.Close())
	}
	if got := len(f.folder(".Lists.dewey/dewey-removed")); got != 3 {
		t.Errorf("%d files in the folder's dewey-removed/, want 2 and the list", got)
	}
	f.restart()
	f.wantIDs("restored", f.restore(all), removedIDs(list))
	after := f.ids()
	slices.Sort(before)
	slices.Sort(after)
	f.wantIDs("back", after, before)
	if !exists(f.root + "/.Lists.dewey/cur/1700000003.M3P1.host:2,S") {
		t.Error("it is not back in its folder")
	}
	swept := f.sweep(time.Now().Add(31 * day))
	if len(swept.Expired) != 4 {
		t.Errorf("%+v", swept)
	}
	if swept = f.sweep(time.Now().Add(31 * day)); swept.Purged != 4 {
		t.Errorf("%+v", swept)
	}
	f.owner.View.Folder = "Nowhere"
	if _, err := f.store.Removed(t.Context(), f.owner); !errors.Is(err, maildrop.ErrNoFolder) {
		t.Errorf("a folder that is not there: %v", err)
	}
}
