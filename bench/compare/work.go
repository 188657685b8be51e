package main

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"
)

// A scale says how much is done. The names are those of the record's JSON.
type scale struct {
	Name                   string
	Middle, Large, Removed int // messages
	Big, Huge              int // octets of a message; no Huge: it is left out
	Polls, Opens           int // sessions
	Fetched                int // messages of 2 kB; larger ones are fewer
	Delivered              int // messages
	Idle                   []int
	IdleRow                int // the number of idle sessions of the table
	Slow                   int // Courier does one of so many sessions
	Hold                   time.Duration
	// Pause is between the first sight of data and the load: times of files prove nothing while they are young.
	Pause time.Duration
}

var (
	full = scale{
		Name: "full", Middle: 1000, Large: 100_000, Removed: 10_000, Big: 5_000_000, Huge: 50_000_000, Polls: 3000, Opens: 20, Fetched: 60_000,
		Delivered: 4000, Idle: []int{100, 1000, 3000, 9000}, IdleRow: 1000, Slow: 20, Hold: 2 * time.Second, Pause: 2500 * time.Millisecond,
	}
	small = scale{
		Name: "quick", Middle: 200, Large: 3000, Removed: 1000, Big: 5_000_000, Polls: 200, Opens: 4, Fetched: 4000, Delivered: 200,
		Idle: []int{50, 200}, IdleRow: 200, Slow: 4, Hold: 300 * time.Millisecond, Pause: 2500 * time.Millisecond,
	}
	tiny = scale{
		Name: "tiny", Middle: 20, Large: 100, Removed: 50, Big: 100_000, Polls: 20, Opens: 2, Fetched: 40, Delivered: 16,
		Idle: []int{10}, IdleRow: 10, Slow: 1, Hold: 50 * time.Millisecond,
	}
)

// The maildrops of a workload: so many users, by a pattern.
const (
	onePattern, ones       = "one%d", 8
	pollPattern, polls     = "poll%d", 20
	middlePattern, middles = "middle%d", 8
	bigPattern, bigs       = "big%d", 4
	twentyPattern, twentys = "twenty%d", 4
	twoPattern, twos       = "two%d", 4
	hugePattern, huges     = "huge%d", 4
	idlePattern            = "idle%d"
	inbound                = 16 // connections of LMTP
)

// userNames are all that anything asks for.
func userNames(s scale, pairs int) (list []string) {
	add := func(pattern string, users int) {
		for n := 1; n <= users; n++ {
			list = append(list, numbered(pattern, n))
		}
	}
	add(onePattern, ones)
	add(pollPattern, polls)
	add(middlePattern, middles)
	add(bigPattern, bigs)
	add(twentyPattern, twentys)
	add(twoPattern, twos)
	add(hugePattern, huges)
	add(idlePattern, slices.Max(append(s.Idle, s.IdleRow)))
	list = append(list, "warm", "full")
	for _, pattern := range []string{"names%d", "sizes%d", "remove%d", "empty%d", "some%d"} {
		add(pattern, pairs)
	}
	for round := 1; round <= pairs; round++ {
		add(fmt.Sprintf("in%dx", round)+"%d", inbound)
	}
	return list
}

// A job is one kind of load, on each server in turns.
type job struct {
	key, group string
	curve      bool // of a plot alone: it has 3 turns at most
	restart    bool // the server is started anew, for its memory is looked at
	anew       bool // each round has data of its own
	lmtp       bool
	prepare    func(s *server, round int) error    // untimed
	prime      func(s *server, round int) []string // a load that is not measured, each time
	load       func(s *server, round int) []string // what is measured
	after      func(s *server, round int) error    // removes what the round had
	connected  int
}

// jobs are in the order in which they run.
func (e *environment) jobs() []job {
	c := e.scale
	n := func(i int) string { return fmt.Sprint(max(i, 1)) }
	warm := []string{"--warmup", max(c.Hold/2, 50*time.Millisecond).String()}
	pop := func(s *server, workload, pattern string, users, connections int, more ...string) []string {
		return join([]string{workload, "--address", s.pop3, "--user", pattern, "--users", n(users), "-c", n(connections), "--timeout", "10m"}, more)
	}
	secure := func(s *server, args []string) []string {
		args[slices.Index(args, s.pop3)] = s.pop3s
		return append(args, "--tls", "tls", "--ca", e.certificate, "--curve", "x25519", "--tls-version", "1.3")
	}
	fetch := func(key, pattern string, users, messages, size, sessions int) []job {
		plain := job{
			key: key + "-plain", group: "fetch",
			prepare: func(s *server, _ int) error { return e.makeUsers(s, pattern, users, messages, size, mixed) },
			prime:   func(s *server, _ int) []string { return pop(s, "fetch", pattern, users, users, "-n", n(2*users)) },
			load: func(s *server, _ int) []string {
				return pop(s, "fetch", pattern, users, users, "-n", n(sessions/s.part))
			},
		}
		ciphered := plain
		ciphered.key = key + "-tls"
		ciphered.load = func(s *server, round int) []string { return secure(s, plain.load(s, round)) }
		return []job{plain, ciphered}
	}
	poll := func(key, pattern string, users, messages, sessions int, curve bool) job {
		return job{
			key: key, group: "poll", curve: curve,
			prepare: func(s *server, _ int) error { return e.makeUsers(s, pattern, users, messages, 2000, mixed) },
			prime:   func(s *server, _ int) []string { return pop(s, "poll", pattern, users, 1, "-n", n(2*users)) },
			load: func(s *server, _ int) []string {
				return pop(s, "poll", pattern, users, 4, join(warm, []string{"-n", n(sessions / s.part)})...)
			},
		}
	}
	// A large maildrop that is new each time.
	firstSight := func(key, pattern string, naming int) job {
		user := func(round int) string { return numbered(pattern, round) }
		return job{
			key: key, group: "large", anew: true,
			prepare: func(s *server, round int) error { return e.linkLarge(s, user(round), naming) },
			load:    func(s *server, round int) []string { return pop(s, "open", user(round), 1, 1, "-n", "1") },
			after:   func(s *server, round int) error { return os.RemoveAll(filepath.Join(s.mail, user(round))) },
		}
	}
	deliver := func(s *server, pattern string, users, connections, messages, size int) []string {
		return []string{"deliver", "--address", s.lmtp, "--recipient", pattern + "@example.org", "--users", n(users), "-c", n(connections), "-n", n(messages), "--size", n(size), "--timeout", "10m"}
	}
	// Deliveries to one maildrop that has so many messages, which were seen.
	present := func(key, pattern string, messages, delivered int) job {
		user := func(round int) string { return numbered(pattern, round) }
		return job{
			key: key, group: "deliver", curve: true, lmtp: true, anew: true,
			prepare: func(s *server, round int) error {
				if messages == c.Large {
					return e.linkLarge(s, user(round), named)
				}
				return e.makeUsers(s, user(round), 1, messages, 2000, named)
			},
			prime: func(s *server, round int) []string { return pop(s, "poll", user(round), 1, 1, "-n", "2") },
			load:  func(s *server, round int) []string { return deliver(s, user(round), 1, 1, delivered, 10_000) },
		}
	}
	list := []job{poll("poll-10", pollPattern, polls, 10, c.Polls, false)}
	ciphered := list[0]
	ciphered.key = "poll-10-tls"
	ciphered.load = func(s *server, round int) []string { return secure(s, list[0].load(s, round)) }
	list = append(list, ciphered, poll("poll-1000", middlePattern, middles, c.Middle, c.Polls, false), poll("poll-1", onePattern, ones, 1, c.Polls, true))

	list = append(list, fetch("retr-5M", bigPattern, bigs, 2, c.Big, c.Fetched/600)...)
	list = append(list, fetch("retr-20k", twentyPattern, twentys, c.Middle/5, 20_000, c.Fetched/3/(c.Middle/5))...)
	list = append(list, job{
		key: "retr-2k-pipelined", group: "fetch",
		prepare: func(s *server, _ int) error { return e.makeUsers(s, twoPattern, twos, c.Middle/2, 2000, mixed) },
		prime:   func(s *server, _ int) []string { return pop(s, "fetch", twoPattern, twos, twos, "-n", n(2*twos)) },
		load: func(s *server, _ int) []string {
			return pop(s, "pipeline", twoPattern, twos, twos, "--commands", "RETR", "--depth", "16", "-n", n(c.Fetched/(c.Middle/2)/s.part))
		},
	})

	// Before anything is removed: an ext4 without a journal looks for inodes that were not in use of late, for minutes.
	list = append(list, job{
		key: "deliver", group: "deliver", lmtp: true, anew: true,
		prepare: func(s *server, round int) error {
			return e.makeUsers(s, fmt.Sprintf("in%dx", round)+"%d", inbound, 0, 0, bare)
		},
		load: func(s *server, round int) []string {
			return deliver(s, fmt.Sprintf("in%dx", round)+"%d", inbound, inbound, c.Delivered, 10_000)
		},
	}, present("deliver-0", "empty%d", 0, c.Delivered/3), present("deliver-1000", "some%d", c.Middle, c.Delivered/3), present("deliver-100000", "full", c.Large, c.Delivered/20))

	list = append(list, job{
		key: "large-warm", group: "large",
		prepare: func(s *server, _ int) error { return e.linkLarge(s, "warm", named) },
		prime:   func(s *server, _ int) []string { return pop(s, "open", "warm", 1, 1, "-n", "2") },
		load: func(s *server, _ int) []string {
			return pop(s, "open", "warm", 1, 1, "--warmup", "1ms", "-n", n(c.Opens/s.part))
		},
	}, firstSight("large-names", "names%d", named), firstSight("large-sizes", "sizes%d", bare), job{
		key: "remove", group: "remove", anew: true,
		prepare: func(s *server, round int) error {
			return e.makeUsers(s, numbered("remove%d", round), 1, c.Removed, 2000, mixed)
		},
		prime: func(s *server, round int) []string {
			return pop(s, "poll", numbered("remove%d", round), 1, 1, "-n", "2")
		},
		load: func(s *server, round int) []string {
			return pop(s, "update", numbered("remove%d", round), 1, 1, "--depth", "100", "--yes")
		},
		after: func(s *server, round int) error {
			return discard(filepath.Join(s.mail, numbered("remove%d", round)))
		},
	})

	for _, at := range c.Idle {
		for _, mode := range []string{"plain", "tls"} {
			idle := func(s *server, connections int) []string {
				args := pop(s, "idle", idlePattern, connections, connections, "-d", c.Hold.String())
				if mode == "tls" {
					return secure(s, args)
				}
				return args
			}
			list = append(list, job{
				key: fmt.Sprintf("idle-%d-%s", at, mode), group: "memory", restart: true, curve: at != c.IdleRow, connected: at,
				prepare: func(s *server, _ int) error { return e.makeUsers(s, idlePattern, at, 0, 0, bare) },
				prime:   func(s *server, _ int) []string { return idle(s, min(at, 50)) },
				load:    func(s *server, _ int) []string { return idle(s, at) },
			})
		}
	}
	for _, m := range e.scale.memorySizes() {
		list = append(list, job{
			key: "memory-" + m.key, group: "memory", restart: true, curve: true,
			prepare: func(s *server, _ int) error { return e.makeUsers(s, m.pattern, 4, m.messages, m.size, mixed) },
			load: func(s *server, _ int) []string {
				return pop(s, "fetch", m.pattern, 4, 4, "-d", max(c.Hold*2, time.Second).String())
			},
		})
	}
	return list
}

// A memorySize is of messages that are fetched while the server's memory is looked at.
type memorySize struct {
	key, pattern   string
	messages, size int
}

func (c scale) memorySizes() []memorySize {
	list := []memorySize{{"2k", twoPattern, c.Middle / 2, 2000}, {"20k", twentyPattern, c.Middle / 5, 20_000}, {"5M", bigPattern, 2, c.Big}}
	if c.Huge > 0 {
		list = append(list, memorySize{"50M", hugePattern, 1, c.Huge})
	}
	return list
}

// groups are what --rows may name.
func groups() []string { return []string{"poll", "fetch", "deliver", "large", "remove", "memory"} }

// discard removes a Maildir that was emptied, when its server has done what it does after its answer: it is not to be at
// work in the next one's turn.
func discard(maildir string) error {
	for range 600 {
		left, err := filepath.Glob(filepath.Join(maildir, "cur", "*"))
		if err == nil && len(left) == 0 && os.RemoveAll(maildir) == nil {
			return nil
		}
		time.Sleep(100 * time.Millisecond)
	}
	return fmt.Errorf("%s is not empty a minute after it was emptied", maildir)
}
