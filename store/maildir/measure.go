package maildir

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"runtime"
	"runtime/debug"
	"sync/atomic"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"dewey/maildrop/message"
)

// What a login measures although it need not yet, since a size is known: as much as costs little.
const (
	cheapMessages = 1000
	cheapOctets   = 16 << 20
)

// cheapLooks is how many files a maildrop may have for each of them to be looked at when a folder has
// changed.
const cheapLooks = 200

// holds says that a file has the size that was recorded when it was measured. In a maildrop of many it
// is believed, and Retrieve finds out.
func (l *loader) holds(p place, stored int64) bool {
	if len(l.files) > cheapLooks {
		return true
	}
	s, err := l.stampAt(p.in.String() + "/" + p.name)
	return err != nil || s == (stamp{}) || s.size == stored
}

// prove has those files measured again that are not of the size that was recorded: a name that was used
// for another message, or a file that somebody has mended (trap 11).
func (l *loader) prove() {
	for i := range l.files {
		if f := &l.files[i]; f.state == measured && !l.holds(f.place, f.sizes.Stored) {
			l.log.Warn("a message is not of its recorded size, it is measured again (trap 11)",
				"file", f.in.String()+"/"+f.name, "recorded", f.sizes.Stored)
			f.state = unknown
		}
	}
}

// measure measures the files whose sizes are not known, and some of those whose sizes are only
// claimed. It returns how many were not where the scan had seen them, and an error if the context is
// over or the machine is short of something.
func (l *loader) measure(ctx context.Context) (away int, err error) {
	var todo []int
	cheap, octets := 0, int64(0)
	for i := range l.files {
		f := &l.files[i]
		if f.record < 0 && f.state == unknown {
			f.named()
		}
		if f.state == unknown || f.state == claimed {
			if sizes, ok := l.known[f.base()]; ok {
				f.sizes, f.state = sizes, justNow
			}
		}
		switch f.state {
		case unknown:
			todo = append(todo, i)
		case claimed:
			size := max(f.sizes.Stored, f.sizes.CRLF)
			if cheap < cheapMessages && octets+size <= cheapOctets && !l.seen(f) {
				cheap++
				octets += size
				todo = append(todo, i)
			}
		}
	}
	var next atomic.Int64
	group, groupCtx := errgroup.WithContext(ctx)
	for range min(len(todo), max(2, min(4, runtime.GOMAXPROCS(0)))) {
		group.Go(func() error {
			dirs := dirs{box: l.box}
			defer dirs.close()
			for {
				n := int(next.Add(1)) - 1
				if n >= len(todo) || groupCtx.Err() != nil {
					return nil
				}
				if err := l.measureFile(ctx, &dirs, &l.files[todo[n]]); err != nil {
					return err
				}
			}
		})
	}
	if err := group.Wait(); err != nil {
		return 0, err
	}
	for _, i := range todo {
		switch f := &l.files[i]; f.state {
		case justNow:
			l.known[f.base()] = f.sizes
		case moved:
			away++
		}
	}
	return away, ctx.Err()
}

// seen says that a claimed size was there at the last login too. Where there are many of those, to measure some each
// time would have the list written each time, and no login be a warm one.
func (l *loader) seen(f *file) bool {
	return l.prev != nil && f.record >= 0 && len(l.prev.items) > cheapMessages && l.list.Validity == l.prev.validity &&
		l.list.Records[f.record].UID < l.prev.next
}

// measureFile measures one file. One that cannot be read keeps nobody out: it is listed with the best
// size there is, and Retrieve says what is wrong.
//
// A fault of the machine, not of the message, is one of the login: a size that is guessed for want of
// file descriptors would stay wrong.
func (l *loader) measureFile(ctx context.Context, dirs *dirs, f *file) (err error) {
	name := f.in.String() + "/" + f.name
	defer func() { // this is not the session's goroutine: nobody else would catch it
		if p := recover(); p != nil {
			l.log.Error("panic while a message was measured", "file", name, "panic", p, "stack", string(debug.Stack()))
			f.state, err = unreadable, nil
		}
	}()
	open, err := dirs.open(f.place)
	switch {
	case errors.Is(err, unix.EMFILE) || errors.Is(err, unix.ENFILE) || errors.Is(err, unix.ENOMEM):
		return err
	case errors.Is(err, fs.ErrNotExist):
		f.state = moved
		return nil
	case err == nil:
		var sizes message.Sizes
		sizes, err = measure(ctx, open)
		err = errors.Join(err, open.Close())
		if err == nil {
			f.sizes, f.state = sizes, justNow
			return nil
		}
		if ctx.Err() != nil {
			return nil
		}
		f.sizes.Stored = open.size
	}
	l.log.Warn("a message cannot be read", "file", name, "error", err)
	if f.state == claimed {
		return nil
	}
	if f.sizes.Stored < 0 {
		if s, err := l.stampAt(name); err == nil {
			f.sizes.Stored = s.size
		}
	}
	f.state = unreadable
	return nil
}

// measure reads as much of a file as there was when it was opened.
func measure(ctx context.Context, f *handle) (message.Sizes, error) {
	sizes, err := message.Measure(&whole{ctx: ctx, r: f, left: f.size})
	if err != nil {
		return message.Sizes{}, fmt.Errorf("reading %s: %w", f.name(), err)
	}
	return sizes, nil
}

// A whole reads exactly as many octets as there were when the file was opened. If it ends before,
// that is an error (trap 2); what is added meanwhile is left alone.
type whole struct {
	ctx  context.Context
	r    io.Reader
	left int64
}

func (w *whole) Read(p []byte) (int, error) {
	if err := w.ctx.Err(); err != nil {
		return 0, err
	}
	if w.left == 0 {
		return 0, io.EOF
	}
	n, err := w.r.Read(p[:min(int64(len(p)), w.left)])
	w.left -= int64(n)
	if err == io.EOF && w.left > 0 {
		err = io.ErrUnexpectedEOF
	} else if err == io.EOF {
		err = nil
	}
	return n, err
}
