package maildir

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"runtime"
	"sync"
	"sync/atomic"

	"dewey/maildrop/message"
)

// What a login measures although it need not yet, since a size is known: as much as costs little.
const (
	cheapMessages = 1000
	cheapOctets   = 16 << 20
)

// measure measures the files whose sizes are not known, and some of those whose sizes are only
// claimed. It returns how many
// were not where the scan had seen them, and an error only if the context is over.
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
			if cheap < cheapMessages && octets+size <= cheapOctets {
				cheap++
				octets += size
				todo = append(todo, i)
			}
		}
	}
	var (
		next atomic.Int64
		wg   sync.WaitGroup
	)
	for range min(len(todo), max(2, min(4, runtime.GOMAXPROCS(0)))) {
		wg.Go(func() {
			for {
				n := int(next.Add(1)) - 1
				if n >= len(todo) || ctx.Err() != nil {
					return
				}
				l.measureFile(ctx, &l.files[todo[n]])
			}
		})
	}
	wg.Wait()
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

// measureFile measures one file. One that cannot be read keeps nobody out: it is listed with the best
// size there is, and Retrieve says what is wrong.
func (l *loader) measureFile(ctx context.Context, f *file) {
	open, size, err := l.openFile(f.place)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		f.state = moved
		return
	case err == nil:
		var sizes message.Sizes
		sizes, err = measure(ctx, open, size)
		err = errors.Join(err, open.Close())
		if err == nil {
			f.sizes, f.state = sizes, justNow
			return
		}
		if ctx.Err() != nil {
			return
		}
		f.sizes.Stored = size
	}
	l.log.Warn("a message cannot be read", "file", f.in.String()+"/"+f.name, "error", err)
	if f.state == claimed {
		return
	}
	if f.sizes.Stored < 0 {
		if s, err := stampAt(l.file(f.in.String() + "/" + f.name)); err == nil {
			f.sizes.Stored = s.size
		}
	}
	f.state = unreadable
}

// measure reads the first size octets of a file.
func measure(ctx context.Context, f *os.File, size int64) (message.Sizes, error) {
	sizes, err := message.Measure(&whole{ctx: ctx, r: f, left: size})
	if err != nil {
		return message.Sizes{}, fmt.Errorf("reading %s: %w", f.Name(), err)
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
