package passwdfile

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"dewey/auth"
)

var errNoFile = errors.New("there is no users file; an empty one would be right, if there are no users")

// Recipient implements auth.Recipients. It looks a name up as CheckPassword does. Who may not log in, or not
// from everywhere, gets mail: nologin, allow_nets and the password do not count.
//
// What it says of an unknown user bounces mail, so it says it only of a file that could be read. While there is
// none, while it can't be read, and while there is a line with an error that may be his, a name that is not found
// is a fault, and the mail comes again.
func (f *File) Recipient(ctx context.Context, user string) (auth.Identity, error) {
	st, err := f.current(ctx)
	if err != nil {
		return auth.Identity{}, fmt.Errorf("passwdfile: %w", err)
	}
	e, known, err := st.table.login(user)
	switch {
	case err != nil:
		return auth.Identity{}, fmt.Errorf("passwdfile: %w", err)
	case known:
		return e.identity(), nil
	case !st.read && f.others && isFolder(filepath.Dir(f.path)):
	case !st.read:
		return auth.Identity{}, fmt.Errorf("passwdfile: %s: %w", f.path, errNoFile)
	case failed(st.err):
		return auth.Identity{}, fmt.Errorf("passwdfile: it could not be read, and in its last version there is no such user: %w", st.err)
	case st.err != nil && st.table.stray(user):
		return auth.Identity{}, fmt.Errorf("passwdfile: %w", errFaulty)
	}
	return auth.Identity{}, errUnknown
}

// isFolder says that there is such a folder: else the file may be on a file system that is not mounted.
func isFolder(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.IsDir()
}

// stray says whether a line whose user can't be told begins with this name.
func (t *table) stray(name string) bool {
	for offset := 0; offset < len(t.text); {
		line, next := lineAt(t.text, offset)
		offset = next
		own, _, found := strings.Cut(line, ":")
		if skipped(line) || found && badName(own) == "" {
			continue
		}
		if begin := auth.Lower(strings.TrimLeft(line, " \t")); name != "" && strings.HasPrefix(begin, auth.Lower(name)) {
			return true
		}
	}
	return false
}
