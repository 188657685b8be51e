package bench_test

import (
	"strings"
	"testing"
	"time"

	"dewey/bench"
)

// A server that answers wrongly is found out, by the first wrong reply, and by what it said; the password is in no
// error.
func TestLiars(t *testing.T) {
	for _, c := range []struct {
		workload string
		lies     liar
		want     string // in the error; empty: there is none
	}{
		{"poll", liar{}, ""},
		{"open", liar{}, ""},
		{"fetch", liar{}, ""},
		{"pipeline", liar{}, ""},
		{"update", liar{}, ""},
		{"fetch", liar{"LIST": "+OK\r\n2 8 more\r\n1 12\r\n.\r\n"}, ""}, // RFC 1939 section 5 allows both
		{"fetch", liar{"RETR 1": "+OK\r\na: b\r\n\r\n.x\r\n.\r\n"}, "u1: RETR 1: LIST says 12 octets, and 11 came"},
		{"fetch", liar{"RETR 1": "+OK\r\na: b\r\n\r\n..x\r\n\r\n.\r\n"}, "u1: RETR 1: LIST says 12 octets, and 14 came"},
		{"fetch", liar{"RETR 2": "+OK\r\n.\r\n"}, "u1: RETR 2: LIST says 8 octets, and 0 came"},
		{"fetch", liar{"RETR 1": "+OK\r\na: b\r\n\r\n..x\r\n" + hangup}, "u1: RETR 1: the server closed the connection"},
		{"fetch", liar{"RETR 1": "+OK\r\na: b\r\n\r\n..x\r\n."}, "u1: RETR 1: no reply within 200ms"},
		{"fetch", liar{"RETR 2": "+OK\r\n" + hangup}, "u1: RETR 2: the server closed the connection"},
		{"fetch", liar{"RETR 2": "-ERR [SYS/TEMP] it is gone\r\n"}, `u1: RETR 2: the server said "-ERR [SYS/TEMP] it is gone"`},
		{"fetch", liar{"RETR 2": silence}, "u1: RETR 2: no reply within 200ms"},
		{"fetch", liar{"RETR 2": hangup}, "u1: RETR 2: the server closed the connection"},
		{"fetch", liar{"STAT": "+OK 2 19\r\n"}, "u1: LIST: the sizes are -1 octets less than STAT says"},
		{"fetch", liar{"STAT": "+OK 3 20\r\n"}, "LIST: the response has 2 lines, and STAT says 3 messages"},
		{"fetch", liar{"STAT": "+OK 1 20\r\n"}, `LIST: the line "2 8" does not go with STAT`},
		{"fetch", liar{"STAT": "+OK two\r\n"}, `STAT: "two" is no drop listing`},
		{"fetch", liar{"STAT": "+OK 2000000000 1\r\n"}, `is no drop listing`},
		{"fetch", liar{"LIST": "+OK\r\n1 12\r\n1 8\r\n.\r\n"}, `LIST: the line "1 8"`},
		{"fetch", liar{"LIST": "+OK\r\n1 12\r\n2 -8\r\n.\r\n"}, `LIST: the line "2 -8"`},
		{"fetch", liar{"LIST": "+OK\r\n1 12\r\n99999999999999999999 8\r\n.\r\n"}, `LIST: the line "999`},
		{"poll", liar{"UIDL": "+OK\r\n1 a\r\n2 b c\r\n.\r\n"}, `UIDL: the line "2 b c"`},
		{"poll", liar{"UIDL": "+OK\r\n1 a\r\n2 " + strings.Repeat("b", 71) + "\r\n.\r\n"}, "UIDL: the line"},
		{"poll", liar{"UIDL": "+OK\r\n1 a\r\n.\r\n"}, "UIDL: the response has 1 lines, and STAT says 2"},
		{"poll", liar{"UIDL": "+OK\r\n1 a\r\n" + hangup}, "UIDL: the server closed the connection"},
		{"poll", liar{"UIDL": "+OK\r\n1 a" + hangup}, "UIDL: the connection ended inside a line"},
		{"poll", liar{"": "-ERR busy\r\n"}, `greeting: the server said "-ERR busy"`},
		{"poll", liar{"": "220 here is mail\r\n"}, `greeting: the server said "220 here is mail"`},
		{"poll", liar{"": "+OKAY\r\n"}, `greeting: the server said "+OKAY"`},
		{"poll", liar{"": "+OK\n"}, "ends in LF alone"},
		{"poll", liar{"": hangup}, "greeting: the server closed the connection"},
		{"poll", liar{"": silence}, "greeting: no reply within 200ms"},
		{"poll", liar{"CAPA": "-ERR what?\r\n"}, `CAPA: the server said "-ERR what?"`},
		{"poll", liar{"CAPA": "+OK\r\n" + strings.Repeat("X\r\n", 1001)}, "CAPA: the response has more than 1000 lines"},
		{"poll", liar{"CAPA": "+OK\r\n" + strings.Repeat("X", 1<<20)}, "CAPA: a line is longer than"},
		{"poll", liar{"PASS": "-ERR [AUTH] not a secret\r\n"}, `u1: PASS ****: the server said "-ERR [AUTH] not ****"`},
		{"poll", liar{"PASS": "+OK\n"}, "PASS ****: the line"},
		{"poll", liar{"QUIT": "-ERR not removed\r\n" + hangup}, `QUIT: the server said "-ERR not removed"`},
		{"poll", liar{"QUIT": "+OK\r\n"}, "QUIT: the connection was not closed within 200ms"},
		{"poll", liar{"QUIT": "+OK\r\n+OK\r\n" + hangup}, "QUIT: the server went on with '+'"},
		{"pipeline", liar{"CAPA": "+OK\r\nUSER\r\n.\r\n"}, "CAPA: the server does not announce PIPELINING"},
		{"pipeline", liar{"UIDL 2": "+OK 1 a\r\n"}, `UIDL 2: the server said "1 a"`},
		{"pipeline", liar{"LIST 2": "+OK 2 9\r\n"}, "LIST 2: the server said"},
		{"pipeline", liar{"RETR 2": "+OK\r\n.\r\n"}, "RETR 2: LIST says 8 octets, and 0 came"},
		{"pipeline", liar{"NOOP": "-ERR [SYS/TEMP]\r\n"}, `NOOP 1: the server said "-ERR [SYS/TEMP]"`},
		{"update", liar{"DELE 2": "-ERR no\r\n"}, `DELE 2: the server said "-ERR no"`},
		{"update", liar{"QUIT": "-ERR some were not removed\r\n"}, "QUIT: the server said"},
		{"update", liar{"STAT": "+OK 0 0\r\n"}, "nothing was measured: no messages"},
		{"idle", liar{"NOOP": hangup}, "a connection that was held: u1: NOOP: the server closed the connection"},
	} {
		t.Run(c.workload+" "+c.want, func(t *testing.T) {
			t.Parallel()
			o := options(c.lies.start(t))
			o.Connections, o.Users, o.Count = 1, o.Users[:1], 2
			if strings.Contains(c.want, "within") {
				o.Timeout = 200 * time.Millisecond
			}
			if c.workload == "idle" {
				o.Duration = time.Millisecond
			}
			r, err := bench.Run(t.Context(), c.workload, o)
			switch {
			case r == nil:
				t.Fatal(err)
			case c.want == "" && (err != nil || r.Errors != 0):
				t.Error(err)
			case c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), password)):
				t.Errorf("%v", err)
			case c.want != "" && !strings.Contains(c.want, "nothing") && r.Errors != 1:
				t.Errorf("%d errors", r.Errors)
			}
		})
	}
}

// The same of LMTP: only a 250 behind the message is a delivery.
func TestLMTPLiars(t *testing.T) {
	for _, c := range []struct {
		lies liar
		want string
		done int64
	}{
		{liar{}, "", 4},
		{liar{".": "250-it\r\n250 is there\r\n"}, "", 4},
		{liar{"": "+OK\r\n"}, `greeting: the server said "+OK"`, 0},
		{liar{"": "554 no\r\n"}, `greeting: the server said "554 no"`, 0},
		{liar{"LHLO": "500 what?\r\n"}, `LHLO: the server said "500 what?"`, 0},
		{liar{"MAIL": "451 later\r\n"}, `u1: MAIL: the server said "451 later"`, 0},
		{liar{"RCPT TO:<u2>": "550 5.1.1 no\r\n"}, `u1: RCPT TO:<u2>: the server said "550 5.1.1 no"`, 0},
		{liar{"DATA": "250 fine\r\n"}, "DATA: the server said", 0},
		{liar{".": "452 4.2.2 full\r\n"}, `the message to u1: the server said "452 4.2.2 full"`, 0},
		{liar{".": "25x\r\n"}, "", 4}, // only its first digit says something
		{liar{".": hangup}, "the message to u1: the server closed the connection", 0},
		{liar{".": silence}, "the message to u1: no reply within 200ms", 0},
		{liar{"QUIT": "421 no\r\n"}, `QUIT: the server said "421 no"`, 4},
	} {
		t.Run(c.want, func(t *testing.T) {
			t.Parallel()
			lies := liar{"": "220 here\r\n", "QUIT": "221 bye\r\n" + hangup, ".": "250 it is there\r\n"}
			for k, v := range c.lies {
				lies[k] = v
			}
			if c.done > 0 { // a reply for each of the two recipients
				lies["."] += lies["."]
			}
			o := options(lies.start(t))
			o.Connections, o.Users, o.Count, o.PerMessage = 1, o.Users[:2], 2, 2
			if strings.Contains(c.want, "within") {
				o.Timeout = 200 * time.Millisecond
			}
			r, err := bench.Run(t.Context(), "deliver", o)
			if got := count(r, "deliveries"); got != c.done {
				t.Errorf("%d deliveries, want %d", got, c.done)
			}
			if (c.want == "") != (err == nil) || err != nil && !strings.Contains(err.Error(), c.want) {
				t.Error(err)
			}
		})
	}
}

// Errors can be counted: what else there is goes on, and the texts are bounded.
func TestKeepGoing(t *testing.T) {
	o := options(liar{"RETR 2": "-ERR no\r\n"}.start(t))
	o.Connections, o.Count, o.KeepGoing = 4, 8, true
	r, err := bench.Run(t.Context(), "fetch", o)
	if err != nil || r.Errors != 8 || count(r, "messages") != 8 || count(r, "sessions") != -1 {
		t.Errorf("%+v, %v", r, err)
	}
	if len(r.Kinds) != 1 || r.Kinds[0] != (bench.Fault{Text: `RETR 2: the server said "-ERR no"`, Count: 8}) {
		t.Errorf("%+v", r.Kinds)
	}
	o.Address = liar{"": "-ERR no\r\n"}.start(t)
	if r, err := bench.Run(t.Context(), "poll", o); err == nil || r.Errors != 8 {
		t.Errorf("nothing was measured, and there is no error: %+v", r)
	}
}

// TLS that can't be had ends the run too.
func TestTLSLiars(t *testing.T) {
	s := startServer(t)
	for want, lies := range map[string]liar{
		"STLS: the server sent octets in plain": {"STLS": "+OK\r\n+OK injected\r\n"},
		`STLS: the server said "-ERR no"`:       {"STLS": "-ERR no\r\n"},
		"TLS handshake: ":                       {"STLS": "+OK\r\n" + hangup},
	} {
		o := s.options(bench.STLS)
		o.Address = lies.start(t)
		if _, err := bench.Run(t.Context(), "poll", o); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
	o := s.options(bench.Implicit)
	o.TLSConfig.ServerName = "mail.example.net"
	if _, err := bench.Run(t.Context(), "poll", o); err == nil || !strings.Contains(err.Error(), "TLS handshake: tls: failed to verify certificate") {
		t.Errorf("%v", err)
	}
	o = options(liar{"AUTH": "-ERR not AHUxAGEgc2VjcmV0\r\n"}.start(t)) // u1's initial response, in base64
	o.Auth, o.Connections = bench.AuthPlain, 1
	if _, err := bench.Run(t.Context(), "poll", o); err == nil || !strings.Contains(err.Error(), `AUTH PLAIN ****: the server said "-ERR not ****"`) {
		t.Errorf("%v", err)
	}
	o = options(s.plain)
	o.Auth, o.Address = bench.AuthAPOP, liar{"": "+OK hello\r\n"}.start(t)
	if _, err := bench.Run(t.Context(), "poll", o); err == nil || !strings.Contains(err.Error(), "no timestamp") {
		t.Errorf("%v", err)
	}
}
