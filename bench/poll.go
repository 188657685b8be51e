package bench

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"time"
)

// A visit is a logged-in session.
type visit struct {
	*conn
	slot   *slot
	capa   []string
	asked  time.Time // when the login began
	update time.Time // when DELE began; zero: it did not
	marked int64     // messages that QUIT is to remove
	short  bool      // the time was over before the session was: it does not count
}

// sessions makes a workload of what is done between login and QUIT. Every session says CAPA first, as clients do.
func sessions(middle func(*run, *visit) error) func(*run, context.Context, *slot) {
	return func(r *run, ctx context.Context, s *slot) {
		for {
			due, ok := r.next()
			if !ok {
				return
			}
			user, ok := r.user()
			if !ok {
				return
			}
			if err := r.session(ctx, s, r.o.Users[user], due, middle); err != nil {
				r.fault(ctx, err)
			}
			if !r.w.once {
				r.free <- user // he waited as long as any
			}
		}
	}
}

func (r *run) user() (int, bool) {
	select {
	case user := <-r.free:
		return user, true
	default:
		return 0, false // once: all have had their session. Else there are as many as connections.
	}
}

func (r *run) session(ctx context.Context, s *slot, u User, due time.Time, middle func(*run, *visit) error) error {
	begun := time.Now()
	c, err := s.greet(ctx, r, r.dials.Add(1))
	if err != nil {
		return err
	}
	defer func() {
		s.out = c.out
		c.close()
	}()
	r.hist["connect"].Add(time.Since(begun))
	v := &visit{conn: c, slot: s}
	if v.capa, err = c.capa(); err != nil {
		return err
	}
	v.asked = time.Now()
	if err := c.login(r.o.Auth, u); err != nil {
		return err
	}
	r.hist["login"].Add(time.Since(v.asked))
	if err := middle(r, v); err != nil {
		return err
	}
	if err := c.quit(); err != nil {
		return err
	}
	if !v.short {
		r.hist["session"].Add(time.Since(due))
		r.sessions.Add(1)
		if r.w.unit == "sessions" {
			r.units.Add(1)
		}
	}
	if v.marked > 0 {
		r.hist["update"].Add(time.Since(v.update))
		r.units.Add(v.marked)
		r.messages.Add(v.marked)
	}
	return c.ended()
}

// poll is what clients do that leave mail on the server, when there is nothing new.
func (r *run) poll(v *visit) error {
	count, _, err := v.stat()
	if err != nil {
		return err
	}
	asked := time.Now()
	if err := v.uidl(count); err != nil {
		return err
	}
	r.hist["uidl"].Add(time.Since(asked))
	r.messages.Add(int64(count))
	return nil
}

// open is a poll of a maildrop that is large: what counts is from login to the end of UIDL.
func (r *run) open(v *visit) error {
	if err := r.poll(v); err != nil {
		return err
	}
	r.hist["open"].Add(time.Since(v.asked))
	return nil
}

// some returns how many messages of a maildrop are asked for.
func (r *run) some(all int) int {
	if r.o.Messages > 0 {
		return min(all, r.o.Messages)
	}
	return all
}

// fetch takes the messages, one after the other.
func (r *run) fetch(v *visit) (err error) {
	sizes, err := v.list(v.slot.sizes)
	v.slot.sizes = sizes
	if err != nil {
		return err
	}
	for i, size := range sizes[:r.some(len(sizes))] {
		if r.stopped() {
			v.short = true
			return nil
		}
		asked := time.Now()
		if _, err := v.command("RETR " + strconv.Itoa(i+1)); err != nil {
			return err
		}
		if err := v.message(i+1, size); err != nil {
			return err
		}
		r.hist["retr"].Add(time.Since(asked))
		r.messages.Add(1)
		r.units.Add(1)
		r.octets.Add(size)
	}
	return nil
}

// pipeline sends commands without waiting for the replies to those before. RFC 2449 section 6.6.
func (r *run) pipeline(v *visit) (err error) {
	if !slices.Contains(v.capa, "PIPELINING") {
		return v.told("CAPA", errors.New("the server does not announce PIPELINING"))
	}
	sizes, err := v.list(v.slot.sizes)
	v.slot.sizes = sizes
	if err != nil {
		return err
	}
	type sent struct {
		command string
		n       int
	}
	batch := make([]sent, 0, r.o.Depth)
	settle := func() error {
		if len(batch) == 0 {
			return nil
		}
		asked := time.Now()
		if err := v.flush(); err != nil {
			return v.told("a batch", err)
		}
		for _, c := range batch {
			if err := r.answer(v, c.command, c.n, sizes[c.n-1]); err != nil {
				return err
			}
		}
		r.hist["batch"].Add(time.Since(asked))
		r.units.Add(int64(len(batch)))
		batch = batch[:0]
		return nil
	}
	for n := 1; n <= r.some(len(sizes)); n++ {
		for _, command := range r.o.Commands {
			v.out = append(v.out, command...)
			if command != "NOOP" {
				v.out = strconv.AppendInt(append(v.out, ' '), int64(n), 10)
			}
			if command == "TOP" {
				v.out = append(v.out, " 0"...)
			}
			v.out = append(v.out, '\r', '\n')
			if batch = append(batch, sent{command, n}); len(batch) == cap(batch) {
				if err := settle(); err != nil {
					return err
				}
				if r.stopped() {
					v.short = true
					return nil
				}
			}
		}
	}
	return settle()
}

// answer reads the response to one command of a batch.
func (r *run) answer(v *visit, command string, n int, size int64) error {
	name := command + " " + strconv.Itoa(n)
	text, err := v.ok(name)
	if err != nil {
		return err
	}
	m, rest := number([]byte(text))
	switch command {
	case "RETR":
		r.messages.Add(1)
		r.octets.Add(size)
		return v.message(n, size)
	case "TOP":
		_, err := v.body()
		return v.told(name, err)
	case "LIST":
		rest, _, _ = bytes.Cut(rest, []byte(" "))
		if m != n || string(rest) != strconv.FormatInt(size, 10) {
			return v.told(name, fmt.Errorf("the server said %q, and %d octets in the listing", text, size))
		}
	case "UIDL":
		if m != n || !isUID(rest) {
			return v.told(name, fmt.Errorf("the server said %q", text))
		}
	}
	return nil
}

// update removes all there is. The time is from the first DELE to QUIT's reply, by which it is to be durable.
func (r *run) update(v *visit) error {
	count, octets, err := v.stat()
	if err != nil {
		return err
	}
	v.update = time.Now()
	for first := 1; first <= count; first += r.o.Depth {
		last := min(first+r.o.Depth-1, count)
		for n := first; n <= last; n++ {
			v.put("DELE ", strconv.Itoa(n))
		}
		if err := v.flush(); err != nil {
			return v.told("DELE", err)
		}
		for n := first; n <= last; n++ {
			if _, err := v.ok("DELE " + strconv.Itoa(n)); err != nil {
				return err
			}
		}
	}
	v.marked = int64(count)
	r.octets.Add(octets)
	return nil
}
