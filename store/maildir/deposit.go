package maildir

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"dewey/maildrop"
	"dewey/maildrop/message"
)

// mostNames is how many names are tried, each of which should be free.
const mostNames = 10

// errOver says that a deposit was committed or discarded before.
var errOver = errors.New("the deposit is over")

// A deposit is a message on its way in: a maildrop.Deposit. It is written to tmp/, and moved to new/ when it
// is whole and durable, under a name with its sizes. Maildir: "How is a message delivered?".
type deposit struct {
	*box
	quota maildrop.Quota
	whose *unix.Stat_t
	begun string // the name it is to have: names rise in the order of Deposit

	name  string   // of the file in tmp/; empty: there is none
	out   *os.File // nil until there is something to write: who waits for DATA holds no descriptor
	in    *message.Writer
	id    fileID    // of the file
	at    time.Time // of an earlier delivery; zero: now
	final string    // its name in new/, once it is there
	over  bool
}

// Deposit implements maildrop.Depositor. Line ends are kept as LF. It returns maildrop.ErrDamaged if new/,
// cur/ or tmp/ is no folder.
func (s *Store) Deposit(ctx context.Context, owner maildrop.Owner) (maildrop.Deposit, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	box, whose, err := s.locate(owner)
	if err != nil {
		return nil, err
	}
	quota := s.quotaOf(owner)
	if err := box.full(ctx, quota); err != nil {
		return nil, err
	}
	if err := box.tidy(); err != nil {
		return nil, err
	}
	tmp, err := box.openTmp(whose)
	if err != nil {
		return nil, err
	}
	// Whether the file could be made is asked now: a sender of one message to many is to know before he sends it.
	err = unix.Faccessat(tmp, ".", unix.W_OK|unix.X_OK, unix.AT_EACCESS)
	_ = unix.Close(tmp)
	if err != nil {
		return nil, &os.PathError{Op: "access", Path: box.file("tmp"), Err: err}
	}
	d := &deposit{box: box, quota: quota, whose: whose, begun: newName()}
	d.in = message.NewWriter(sink{d})
	return d, nil
}

// openTmp opens tmp/, and makes it if it is missing: no message can be lost with it.
func (b *box) openTmp(whose *unix.Stat_t) (int, error) {
	fd, _, err := b.openFolder(inTmp)
	if !errors.Is(err, unix.ENOENT) {
		return fd, err
	}
	if err = b.makeFolder(inTmp.String(), whose); err != nil && !errors.Is(err, os.ErrExist) {
		return -1, fmt.Errorf("making a Maildir: %w", err)
	}
	fd, _, err = b.openFolder(inTmp)
	return fd, err
}

// create makes the file in tmp/.
func (d *deposit) create() error {
	tmp, err := d.openTmp(d.whose)
	if err != nil {
		return err
	}
	defer unix.Close(tmp)
	name := d.begun
	for range mostNames {
		path := d.file("tmp/" + name)
		fd, err := -1, d.failing("create", path)
		if err == nil {
			err = again(func() (err error) {
				fd, err = unix.Openat(tmp, name, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
				return err
			})
		}
		if errors.Is(err, unix.EEXIST) {
			name = newName()
			continue
		}
		if err != nil {
			return &os.PathError{Op: "create", Path: path, Err: err}
		}
		d.name, d.out = name, os.NewFile(uintptr(fd), path)
		return adoptFile(d.out, d.whose)
	}
	return &os.PathError{Op: "create", Path: d.file("tmp"), Err: unix.EEXIST}
}

// again calls f until no signal interrupts it.
func again(f func() error) error {
	for {
		if err := f(); !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}

// A sink is where the octets go that are kept.
type sink struct{ *deposit }

func (s sink) Write(p []byte) (int, error) {
	if err := s.failing("write", s.out.Name()); err != nil {
		return 0, err
	}
	return s.out.Write(p)
}

// Write implements maildrop.Deposit.
func (d *deposit) Write(p []byte) (int, error) {
	if d.over {
		return 0, errOver
	}
	if d.out == nil {
		if err := d.create(); err != nil {
			d.Discard()
			return 0, err
		}
	}
	return d.in.Write(p)
}

// Commit implements maildrop.Deposit.
func (d *deposit) Commit(ctx context.Context) error {
	if d.over {
		return errOver
	}
	defer d.Discard() // what is left of it
	if err := ctx.Err(); err != nil {
		return err
	}
	sizes, err := d.finish()
	if err != nil {
		return fmt.Errorf("message not taken in: %w", err)
	}
	into, path, err := d.openFolder(inNew)
	if err != nil {
		return err
	}
	defer unix.Close(into)
	if err := d.publish(into, sizes); err != nil {
		return fmt.Errorf("message not taken in: %w", err)
	}
	if err := d.settle(into, path); err != nil {
		_, err = withdraw([]*deposit{d}, into, path, err)
		return err
	}
	return nil
}

// finish makes the file whole and durable.
func (d *deposit) finish() (message.Sizes, error) {
	if d.out == nil { // a message of no octets
		if err := d.create(); err != nil {
			return message.Sizes{}, err
		}
	}
	sizes, err := d.in.Close()
	if err != nil {
		return sizes, err
	}
	var st unix.Stat_t
	if err := unix.Fstat(int(d.out.Fd()), &st); err != nil {
		return sizes, &os.PathError{Op: "fstat", Path: d.out.Name(), Err: err}
	}
	if st.Size != sizes.Stored {
		return sizes, fmt.Errorf("%s has %d octets, %d were written", d.out.Name(), st.Size, sizes.Stored)
	}
	d.id = fileID{uint64(st.Dev), st.Ino}
	if err := d.date(); err != nil {
		return sizes, err
	}
	if err := d.failing("sync", d.out.Name()); err != nil {
		return sizes, err
	}
	return sizes, errors.Join(d.out.Sync(), d.out.Close())
}

// publish moves the file to new/, if the quota has room for it.
func (d *deposit) publish(into int, sizes message.Sizes) error {
	return d.admit(into, d.quota, sizes.Stored, func() error { return d.toNew(into, sizes) })
}

// toNew moves the file to new/, and never over another one.
func (d *deposit) toNew(into int, sizes message.Sizes) error {
	name := d.name
	for range mostNames {
		// S and W are what Dovecot's names have: octets as stored, and with CRLF line ends.
		final := fmt.Sprintf("%s,S=%d,W=%d", name, sizes.Stored, sizes.CRLF)
		err := d.move(into, final)
		if err == nil || d.arrived(into, final) {
			d.final = final
			d.store.mail.note(d.root, true)
			return nil
		}
		if !errors.Is(err, unix.EEXIST) {
			return &os.PathError{Op: "rename", Path: d.file("new/" + final), Err: err}
		}
		name = newName()
	}
	return &os.PathError{Op: "rename", Path: d.file("new/" + name), Err: unix.EEXIST}
}

func (d *deposit) move(into int, final string) error {
	err := d.failing("rename", d.file("new/"+final))
	if err == nil {
		err = unix.Renameat2(unix.AT_FDCWD, d.inTmp(), into, final, unix.RENAME_NOREPLACE)
	}
	switch {
	case err == nil:
		d.name = ""
		return nil
	case !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOSYS) && !errors.Is(err, unix.ENOTSUP):
		return err
	}
	// The file system can't do that, NFS for one. Maildir: link, then unlink.
	if err := d.failing("link", d.file("new/"+final)); err != nil {
		return err
	}
	if err := unix.Linkat(unix.AT_FDCWD, d.inTmp(), into, final, 0); err != nil {
		return err
	}
	if unix.Unlink(d.inTmp()) == nil {
		d.name = ""
	}
	return nil
}

// inTmp is the path of the file in tmp/. It is no descriptor's, of which there may be none left when it must go.
func (d *deposit) inTmp() string { return d.file("tmp/" + d.name) }

// arrived says that the file is in new/ although the call that moved it failed: a file server may have
// done it and its answer was lost, so that the call was made again.
func (d *deposit) arrived(into int, final string) bool {
	var st unix.Stat_t
	err := unix.Fstatat(into, final, &st, unix.AT_SYMLINK_NOFOLLOW)
	return err == nil && d.id == fileID{uint64(st.Dev), st.Ino}
}

// settle makes the move durable, together with those that others make at this time.
func (d *deposit) settle(into int, path string) error {
	var st unix.Stat_t
	if err := unix.Fstat(into, &st); err != nil {
		return &os.PathError{Op: "fstat", Path: path, Err: err}
	}
	return d.store.syncs.cover(fileID{uint64(st.Dev), st.Ino}, func() error {
		d.tell("sync", path)
		err := d.failing("sync", path)
		if err == nil {
			err = again(func() error { return unix.Fsync(into) })
		}
		if err != nil {
			return &os.PathError{Op: "fsync", Path: path, Err: err}
		}
		return nil
	})
}

// Discard implements maildrop.Deposit.
func (d *deposit) Discard() {
	if d.over {
		return
	}
	d.over = true
	d.in.Discard()
	if d.out != nil {
		_ = d.out.Close()
	}
	if d.name != "" {
		_ = unix.Unlink(d.inTmp()) // or somebody tidies up later
	}
}
