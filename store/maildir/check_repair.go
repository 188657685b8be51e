package maildir

import (
	"context"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sys/unix"
)

// repair mends what look has found, as far as it is sound. The Maildir is locked.
func (c *checker) repair(ctx context.Context) error {
	found := map[Kind]bool{}
	for _, p := range c.problems {
		found[p.Kind] = found[p.Kind] || p.Mends
	}
	var errs []error
	step := func(do func() error, kinds ...Kind) {
		for _, k := range kinds {
			if found[k] && ctx.Err() == nil {
				errs = append(errs, do())
				return
			}
		}
	}
	step(c.makeFolders, KindFolder)
	step(func() error { return c.unlinkGone(ctx) }, KindGone)
	step(c.oneName, KindTwo)
	step(c.ownNames, KindSame)
	step(func() error { return c.tidyTmp(c.opts.Now) }, KindTmp)
	step(func() error { return c.mendList(ctx) }, KindListLine, KindListOrder, KindListTwice, KindUIDTwice, KindBaseTwice, KindListTorn,
		KindListOld, KindIDTwice, KindMissing, KindSize, KindKept, KindListLock, KindTemporary)
	step(c.mendWitness, KindWitness)
	step(c.mendTrash, KindTrashLine, KindTrashTwice, KindTrashMissing)
	return errors.Join(append(errs, ctx.Err())...)
}

// makeFolders makes those that are not there.
func (c *checker) makeFolders() error {
	for _, f := range []folder{inTmp, inNew, inCur} {
		if _, there := c.present(f.String()); there || f != inTmp && c.listsMail() {
			continue
		}
		if err := c.mkdirAt(f.String(), c.whose.Mode&0o777|0o700); err != nil {
			return fmt.Errorf("making %s: %w", c.file(f.String()), err)
		}
		fd, _, err := c.openFolder(f)
		if err != nil {
			return err
		}
		if unix.Geteuid() == 0 && c.whose.Uid != 0 {
			err = unix.Fchown(fd, int(c.whose.Uid), int(c.whose.Gid))
		}
		if err := errors.Join(err, unix.Close(fd)); err != nil {
			return fmt.Errorf("making %s: %w", c.file(f.String()), err)
		}
	}
	return c.syncRoot()
}

// oneName removes second names of messages.
func (c *checker) oneName() error {
	for _, d := range c.doubles {
		if err := c.removeName(d); err != nil {
			return fmt.Errorf("removing the name %s: %w", c.file(d.goes.path()), err)
		}
	}
	return nil
}

// removeName puts a name aside first: if somebody has moved the message meanwhile, that is its only one, and comes back.
func (c *checker) removeName(d double) (err error) {
	from, _, err := c.openFolder(d.goes.in)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, unix.Close(from)) }()
	tmp, err := c.openTmp(&c.whose)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, unix.Close(tmp)) }()
	aside := newName()
	err = moveFile(from, d.goes.name, tmp, aside, d.goes.id())
	if errors.Is(err, unix.ENOENT) {
		return nil
	}
	if err != nil {
		return err
	}
	var stays, goes unix.Stat_t
	err1 := c.statAt(d.stays.path(), &stays, unix.AT_SYMLINK_NOFOLLOW)
	err2 := unix.Fstatat(tmp, aside, &goes, unix.AT_SYMLINK_NOFOLLOW)
	if err1 != nil || err2 != nil || stays.Dev != goes.Dev || stays.Ino != goes.Ino {
		return errors.Join(moveFile(tmp, aside, from, d.goes.name, d.goes.id()), unix.Fsync(from))
	}
	return errors.Join(unix.Unlinkat(tmp, aside, 0), unix.Fsync(from))
}

// ownNames gives names of their own to messages with those of others, as a session does.
func (c *checker) ownNames() error {
	names := [2][]string{{}, {}}
	for _, f := range []folder{inNew, inCur} {
		l, err := c.scan(context.Background(), f)
		if err != nil {
			return err
		}
		names[f] = append(names[f], l.names...)
	}
	return (&loader{box: c.box}).index(names[inNew], names[inCur])
}

// mendList writes the list anew, under the lock on it, if it is not as it should be. What is left out of it stays in a
// file beside it.
func (c *checker) mendList(ctx context.Context) (err error) {
	lock, err := c.lockList(ctx, max(c.opts.Wait, closeWait))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, lock.release()) }()
	again := checker{box: c.box, opts: c.opts, owner: c.owner, known: c.known, fixing: true}
	again.whose = c.whose
	for _, look := range []func(context.Context) error{again.lookFolders, again.lookFiles, again.lookList} {
		if err := look(ctx); err != nil {
			return err
		}
	}
	c.known = again.known
	for _, name := range temporary { // nobody writes one now
		if err := c.unlinkAt(name); err != nil && !errors.Is(err, unix.ENOENT) && !errors.Is(err, unix.ENOTDIR) {
			return fmt.Errorf("removing %s: %w", c.file(name), err)
		}
	}
	list := again.list
	if list.List == nil || !list.onDisk || !list.change {
		return nil
	}
	if prev := c.store.cache.get(c.id); prev != nil && prev.validity == list.Validity {
		list.Next = max(list.Next, prev.next) // trap 24
	}
	if list.lossy {
		if err := c.keepOld(); err != nil {
			return err
		}
	}
	return c.writeList(&listFile{List: list.List, onDisk: true, stat: list.stat}, lock)
}

// keepOld gives the list that is about to be replaced a second name.
func (c *checker) keepOld() error {
	dir, from, err := c.at(listName)
	if err != nil {
		return err
	}
	_, to, err := c.at(fmt.Sprintf("dewey-uidlist.%d", time.Now().UnixNano()))
	if err != nil {
		return err
	}
	if err := unix.Linkat(dir, from, dir, to, 0); err != nil {
		return fmt.Errorf("keeping %s as %s: %w", c.file(listName), to, err)
	}
	return nil
}

// mendWitness writes the validity of the list, as a session does.
func (c *checker) mendWitness() error {
	if known, there, err := c.witness(); err != nil || !there || known != 0 {
		return err
	}
	validity, err := c.validity()
	if err != nil || validity == 0 {
		return err
	}
	c.attest(validity)
	return nil
}

// mendTrash writes the list of what can be brought back anew, unless something in it is for a person to see.
func (c *checker) mendTrash() error {
	now := checker{box: c.box, opts: c.opts, whose: c.whose, byBase: c.byBase, files: c.files}
	if err := now.lookTrash(context.Background()); err != nil || !now.trash.change || now.trash.kept {
		return err
	}
	t, err := c.openTrash()
	if t == nil || err != nil {
		return err
	}
	defer t.close()
	return t.replace(now.trash.lines)
}
