package main

import (
	"errors"
	"io"
	"net"
	"os"
	"os/signal"
	"syscall"
)

// work answers one request after the other, until the connection ends. It ends in mid-conversation too: then nobody waits
// for an answer, and a module may hang.
func work(o options) error {
	signal.Ignore(syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP)
	if err := ownProcess(false); err != nil {
		return err
	}
	f := os.NewFile(3, "connection")
	c, err := net.FileConn(f)
	_ = f.Close()
	if err != nil {
		return err
	}
	requests := make(chan frame)
	go func() {
		for {
			r, err := readFrame(c)
			if errors.Is(err, io.EOF) {
				os.Exit(0)
			}
			if err != nil {
				os.Exit(1) // the one who sent nonsense sees that the connection ends
			}
			requests <- r
		}
	}()
	for r := range requests { // on the first thread: PAM's modules need not know of others
		if _, err := c.Write(o.answer(r).bytes()); err != nil {
			return err
		}
	}
	return nil
}

func (o options) answer(r frame) frame {
	var a frame
	switch {
	case r.kind == askPassword && len(r.texts) == 3:
		a = o.password(r.texts[0], r.texts[1], r.texts[2])
	case r.kind == askName && len(r.texts) == 1:
		a = o.name(r.texts[0], true)
	case r.kind == askMail && len(r.texts) == 1:
		a = o.name(r.texts[0], false)
	default:
		a = frame{kind: sayError, texts: []string{"a request that dewey-pam does not know"}}
	}
	a.number = r.number
	return a
}
