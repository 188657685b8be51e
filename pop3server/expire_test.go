package pop3server_test

import (
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"dewey/auth"
	"dewey/maildrop"
	"dewey/pop3server"
)

// EXPIRE is the least that holds for any user, and says whether another may hold for one. RFC 2449 section 6.7.
func TestExpireBeforeLogin(t *testing.T) {
	const day = 24 * time.Hour
	retention := func(d time.Duration) auth.Life { return auth.Life{Retention: d} }
	for _, c := range []struct {
		all   maildrop.Life
		lives []auth.Life // nil: the database can't tell
		want  string
	}{
		{want: "NEVER"},
		{all: maildrop.Life{Retention: maildrop.Off}, want: "NEVER"},
		{all: maildrop.Life{Retention: 30 * day}, want: "30"},
		{all: maildrop.Life{Deletion: maildrop.DeletionKeep, Undelete: day, Window: day, WindowMessages: 1}, want: "NEVER"},
		{all: maildrop.Life{Retention: 30 * day, Deletion: maildrop.DeletionRetrieved}, want: "0"},
		{all: maildrop.Life{Retention: 30 * day}, lives: []auth.Life{}, want: "30"},
		{all: maildrop.Life{Retention: 30 * day}, lives: []auth.Life{{}}, want: "30"},
		{all: maildrop.Life{Retention: 30 * day}, lives: []auth.Life{retention(60 * day)}, want: "60"},
		{all: maildrop.Life{Retention: 30 * day}, lives: []auth.Life{retention(60 * day), {}}, want: "30 USER"},
		{all: maildrop.Life{Retention: 30 * day}, lives: []auth.Life{retention(30 * day), {}}, want: "30"},
		{all: maildrop.Life{Retention: 30 * day}, lives: []auth.Life{retention(maildrop.Off)}, want: "NEVER"},
		{all: maildrop.Life{Retention: 30 * day}, lives: []auth.Life{retention(maildrop.Off), {}}, want: "30 USER"},
		{lives: []auth.Life{{}, retention(5 * day), retention(9 * day)}, want: "5 USER"},
		{lives: []auth.Life{{}, {Deletion: maildrop.DeletionRetrieved}}, want: "0 USER"},
		{lives: []auth.Life{{Retention: 9 * day, Deletion: maildrop.DeletionRetrieved}, {Deletion: maildrop.DeletionRetrieved}}, want: "0"},
		{all: maildrop.Life{Deletion: maildrop.DeletionRetrieved}, lives: []auth.Life{{Deletion: maildrop.DeletionRemove}}, want: "NEVER"},
		{lives: []auth.Life{retention(5*day + 23*time.Hour)}, want: "5"}, // no more is promised than holds
		{lives: []auth.Life{retention(106_751 * day)}, want: "106751"},   // the most that there is room for
	} {
		b := newBench(t, newShelf(), func(s *pop3server.Server) {
			s.Settings.Life = c.all
			if c.lives != nil {
				s.Users = mortal{s.Users, c.lives}
			}
		})
		v := b.visit(t, "127.0.0.1")
		_ = v.line(t)
		if got := v.multi(t, "CAPA"); !slices.Contains(got, "EXPIRE "+c.want) {
			t.Errorf("%+v, %+v: %q, want %s", c.all, c.lives, got, c.want)
		}
	}
}

type mortal struct {
	auth.PasswordChecker
	lives []auth.Life
}

func (m mortal) Lives() []auth.Life { return m.lives }

// A list of Lives is looked through once, however many ask and however long it is; another list, or other settings, count
// at once.
func TestExpireOfManyLives(t *testing.T) {
	const day = 24 * time.Hour
	lives := make([]auth.Life, 100_000)
	for i := range lives {
		lives[i].Retention = time.Duration(i+7) * day
	}
	db := &changing{PasswordChecker: users, list: lives}
	b := newBench(t, newShelf(), func(s *pop3server.Server) { s.Users = db })
	says := func(want string) {
		t.Helper()
		v := b.visit(t, "127.0.0.1")
		_ = v.line(t)
		if got := v.multi(t, "CAPA"); !slices.Contains(got, "EXPIRE "+want) {
			t.Errorf("%q, want %s", got, want)
		}
		_ = v.Close()
	}
	says("7 USER")
	lives[50_000].Retention = day // against the contract, and so nobody sees it
	says("7 USER")
	db.list = lives[1:]
	says("1 USER")
	db.list = lives[:1]
	says("7")
	db.list = lives[:9]
	says("7 USER")
	db.list = lives[:1]
	says("7")
	db.list = []auth.Life{{}}
	says("NEVER")
	settings := b.srv.Settings
	settings.Life.Retention = 30 * day
	if err := b.srv.Reconfigure(settings); err != nil {
		t.Fatal(err)
	}
	says("30")
}

// A changing database has other users from time to time; nobody asks it meanwhile.
type changing struct {
	auth.PasswordChecker
	list []auth.Life
}

func (c *changing) Lives() []auth.Life { return c.list }

// What a Life can't be is told all at once; what it can be is taken.
func TestLifeSettings(t *testing.T) {
	srv := &pop3server.Server{Users: users, Maildrops: newShelf()}
	err := srv.Reconfigure(pop3server.Settings{Life: maildrop.Life{Retention: 36 * time.Hour, Undelete: -time.Hour, Deletion: "shred"}})
	for _, want := range []string{"Retention 36h0m0s is not of whole days", "Undelete -1h0m0s", `"shred" is none of "remove", "keep", "retrieved"`} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v lacks %q", err, want)
		}
	}
	for _, life := range []maildrop.Life{{Retention: -24 * time.Hour}, {Window: -2}, {WindowMessages: -2}, {Undelete: -2}, {Retention: 1}, {Deletion: "Keep"}} {
		if err := srv.Reconfigure(pop3server.Settings{Life: life}); err == nil {
			t.Errorf("%+v was taken", life)
		}
	}
	for _, life := range []maildrop.Life{
		{},
		{Retention: maildrop.Off, Undelete: maildrop.Off, Window: maildrop.Off, WindowMessages: maildrop.Off, Deletion: maildrop.DeletionRemove},
		{Retention: 24 * time.Hour, Undelete: 1, Window: 1, WindowMessages: 1, Deletion: maildrop.DeletionRetrieved, Folders: []string{"Spam"}},
	} {
		if err := srv.Reconfigure(pop3server.Settings{Life: life}); err != nil {
			t.Errorf("%+v: %v", life, err)
		}
	}
}

func retrieved(s *pop3server.Server) { s.Settings.Life.Deletion = maildrop.DeletionRetrieved }

// The hook is told of what was retrieved as of what was marked, each once, and so is the end.
func TestRetrievedInHooks(t *testing.T) {
	var told []string
	var ended chan pop3server.End
	mail := newShelf(sized(20), sized(21), sized(22), sized(23))
	b := newBench(t, mail, func(s *pop3server.Server) {
		retrieved(s)
		s.Hooks.Updated = func(_ pop3server.Session, removed []maildrop.Message, err error) {
			for _, m := range removed {
				told = append(told, fmt.Sprint(m.UID, " ", m.Octets, " ", err))
			}
		}
		ended = ends(s)
	})
	_ = b.ask(t, login+"RETR 4\r\nRETR 1\r\nDELE 1\r\nDELE 3\r\nTOP 2 9\r\nQUIT\r\n")
	if want := []string{"uid1 20 <nil>", "uid3 22 <nil>", "uid4 23 <nil>"}; !slices.Equal(told, want) {
		t.Errorf("told of %q", told)
	}
	if e := <-ended; e.Removed != 3 || e.Retrieved != 3 || mail.gone() != "uid1 uid3 uid4" {
		t.Errorf("%+v, removed %s", e, mail.gone())
	}
}

// A retrieved message that could not be removed is told of like a marked one. RFC 1939 section 6; trap 16.
func TestRetrievedNotRemoved(t *testing.T) {
	mail := newShelf(sized(20), sized(21))
	mail.failDele = map[string]error{"uid1": errAway}
	b := newBench(t, mail, retrieved)
	if got := b.ask(t, login+"RETR 1\r\nRETR 2\r\nQUIT\r\n"); !strings.HasSuffix(got, "-ERR [SYS/TEMP] some deleted messages not removed\r\n") {
		t.Errorf("%q", got)
	}
	if mail.gone() != "uid2" {
		t.Errorf("removed %q", mail.gone())
	}
}

// What was pipelined before a QUIT is removed if it was sent, and stays if the client had hung up by then: on a pipe,
// where the write fails, and on TCP, where the kernel takes what nobody will read. A DELE counts all the same there.
func TestRetrievedPipelined(t *testing.T) {
	const commands = login + "RETR 1\r\nRETR 2\r\nDELE 3\r\nQUIT\r\n"
	t.Run("all read", func(t *testing.T) {
		mail := newShelf(sized(120), sized(99_000), sized(20))
		b := newBench(t, mail, retrieved)
		if got := b.ask(t, commands); !strings.HasSuffix(got, ".\r\n+OK message 3 deleted\r\n+OK bye\r\n") {
			t.Errorf("ends %q", got[max(0, len(got)-99):])
		}
		if mail.gone() != "uid1 uid2 uid3" {
			t.Errorf("removed %q", mail.gone())
		}
	})
	t.Run("pipe", func(t *testing.T) {
		mail := newShelf(sized(120))
		b := newBench(t, mail, retrieved)
		v := b.visit(t, "127.0.0.1")
		v.login(t, "+OK 1 message (120 octets)")
		_, _ = io.WriteString(v, "RETR 1\r\nQUIT\r\n")
		_ = v.Close()
		b.settle(t)
		if mail.gone() != "" {
			t.Errorf("removed %q", mail.gone())
		}
	})
	t.Run("TCP", func(t *testing.T) {
		mail := newShelf(sized(120), sized(120), sized(20))
		var ended chan pop3server.End
		b := newBench(t, mail, func(s *pop3server.Server) {
			retrieved(s)
			ended = ends(s)
		})
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		c, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		_, _ = io.WriteString(c, commands)
		_ = c.(*net.TCPConn).CloseWrite()
		go func() { _ = b.srv.Serve(l) }() // only now; it ends with the bench
		out, _ := io.ReadAll(c)
		_ = c.Close()
		if e := <-ended; e.Err != nil || e.Removed != 1 || mail.gone() != "uid3" {
			t.Errorf("removed %q, %+v\n%s", mail.gone(), e, out)
		}
	})
}

// Whatever a client does, what it retrieved whole or marked since the last RSET is removed, if it says QUIT, and
// nothing else; the numbers that it sees in between know of marks alone.
func TestRetrievedAgainstModel(t *testing.T) {
	rnd := rand.New(rand.NewPCG(2449, 67))
	for round := range 300 {
		const n = 6
		mail := newShelf()
		for i := range n {
			mail.add(sized(20 + i))
		}
		mail.readErr = map[string]error{"uid3": errors.New("input/output error")}
		b := newBench(t, mail, retrieved)
		v := b.visit(t, "127.0.0.1")
		v.login(t, fmt.Sprintf("+OK %d messages (135 octets)", n))
		var marked, had [n + 1]bool
		var did []string
		for range rnd.IntN(12) {
			i := 1 + rnd.IntN(n)
			command := []string{"RETR %d", "RETR %d", "RETR %d", "TOP %d 99", "TOP %d 0", "DELE %d", "LIST %d", "RSET", "NOOP"}[rnd.IntN(9)]
			if strings.Contains(command, "%d") {
				command = fmt.Sprintf(command, i)
			}
			did = append(did, command)
			keyword, _, _ := strings.Cut(command, " ")
			got := v.say(t, command)
			reads := keyword == "RETR" || keyword == "TOP"
			wrong := marked[i] && (reads || keyword == "DELE" || keyword == "LIST") || reads && i == 3
			if strings.HasPrefix(got, "+OK") == wrong {
				t.Fatalf("%q: %q", did, got)
			}
			for reads && !wrong && v.line(t) != "." {
			}
			switch {
			case wrong:
			case keyword == "RETR":
				had[i] = true
			case keyword == "DELE":
				marked[i] = true
			case keyword == "RSET":
				marked, had = [n + 1]bool{}, [n + 1]bool{}
			}
			count, octets := 0, 0
			for i := 1; i <= n; i++ {
				if !marked[i] {
					count, octets = count+1, octets+19+i
				}
			}
			v.ask(t, "STAT", fmt.Sprintf("+OK %d %d", count, octets))
		}
		quit := round%4 > 0
		if quit {
			v.ask(t, "QUIT", "+OK bye")
		}
		_ = v.Close()
		b.end()
		var want []string
		for i := 1; i <= n; i++ {
			if quit && (marked[i] || had[i]) {
				want = append(want, fmt.Sprint("uid", i))
			}
		}
		if got := mail.gone(); got != strings.Join(want, " ") {
			t.Fatalf("%q, QUIT %v: removed %q, want %q", did, quit, got, want)
		}
	}
}
