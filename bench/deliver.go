package bench

import (
	"context"
	"time"
)

// deliver sends messages, many over one connection. A fault ends the connection, and the next begins a new one.
func (r *run) deliver(ctx context.Context, s *slot) {
	var c *conn
	sent := 0
	end := func() {
		if c != nil {
			s.out = c.out
			c.close()
		}
		c, sent = nil, 0
	}
	defer end()
	to := make([]User, r.o.PerMessage)
	for {
		due, ok := r.next()
		if !ok {
			break
		}
		if c == nil {
			begun := time.Now()
			var err error
			if c, err = s.lhlo(ctx, r.dials.Add(1)); err != nil {
				r.fault(ctx, err)
				continue
			}
			r.hist["connect"].Add(time.Since(begun))
		}
		asked := due
		if r.o.Rate == 0 {
			asked = time.Now() // not the connection
		}
		number := r.mails.Add(1) - 1
		for i := range to {
			to[i] = r.o.Users[(number*uint64(len(to))+uint64(i))%uint64(len(r.o.Users))]
		}
		if err := c.send(r.letter, r.o.Sender, to, sequence(uint64(r.began.UnixNano()), number)); err != nil {
			r.fault(ctx, err)
			end()
			continue
		}
		r.hist["message"].Add(time.Since(asked))
		r.messages.Add(1)
		r.units.Add(int64(len(to)))
		r.octets.Add(int64(len(to) * r.o.Size))
		if sent++; sent == r.o.PerConnection {
			r.bye(ctx, c)
			end()
		}
	}
	if c != nil {
		r.bye(ctx, c)
	}
}

func (r *run) bye(ctx context.Context, c *conn) {
	c.put("QUIT")
	err := c.flush()
	if err == nil {
		err = c.reply("QUIT", '2')
	}
	if err == nil {
		r.sessions.Add(1)
		return
	}
	r.fault(ctx, err)
}
