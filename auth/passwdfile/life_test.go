package passwdfile

import (
	"context"
	"errors"
	"net/netip"
	"os"
	"reflect"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"dewey/auth"
	"dewey/auth/scheme"
)

var _ auth.Lives = (*File)(nil)

func TestLifeOfALine(t *testing.T) {
	const days = 24 * time.Hour
	var hundred []string
	for i := range 100 {
		hundred = append(hundred, "f"+itoa(i))
	}
	for field, want := range map[string]auth.Life{
		"":                                {},
		"retention=90d":                   {Retention: 90 * days},
		"retention=1d":                    {Retention: days},
		"retention=36500d":                {Retention: 36500 * days},
		"retention=48h":                   {Retention: 2 * days},
		"retention=0":                     {Retention: -1},
		"retention=0d":                    {Retention: -1},
		"retention=never":                 {Retention: -1},
		"undelete=7d":                     {Undelete: 7 * days},
		"undelete=1h":                     {Undelete: time.Hour},
		"undelete=3650d":                  {Undelete: 3650 * days},
		"undelete=87600h":                 {Undelete: 3650 * days},
		"undelete=0h":                     {Undelete: -1},
		"undelete=never":                  {Undelete: -1},
		"deletion=remove":                 {Deletion: "remove"},
		"deletion=keep":                   {Deletion: "keep"},
		"deletion=retrieved":              {Deletion: "retrieved"},
		"window=30d":                      {Window: 30 * days},
		"window=36500d":                   {Window: 36500 * days},
		"window=12h":                      {Window: 12 * time.Hour},
		"window=0":                        {Window: -1},
		"window=never":                    {Window: -1},
		"window_messages=1000":            {WindowMessages: 1000},
		"window_messages=0":               {WindowMessages: -1},
		"window_messages=never":           {WindowMessages: -1},
		"folders=":                        {Folders: []string{}},
		"folders=Spam":                    {Folders: []string{"Spam"}},
		"folders=Spam,Lists/dewey":        {Folders: []string{"Spam", "Lists/dewey"}},
		"folders=Entwürfe,Папка/нов":      {Folders: []string{"Entwürfe", "Папка/нов"}},
		"folders=É,é":                     {Folders: []string{"É", "é"}}, // no double: ASCII case alone is ignored
		"folders=Inbox/Old,a:b,x=y":       {Folders: []string{"Inbox/Old", "a:b", "x=y"}},
		"folders=Spam folders=":           {Folders: []string{}},
		"retention=9d retention=never":    {Retention: -1},
		"retention=never retention=9d":    {Retention: 9 * days},
		"deletion=keep deletion=remove":   {Deletion: "remove"},
		"window_messages=7 window=1d x=y": {Window: days, WindowMessages: 7},

		"folders=" + strings.Repeat("f", 200):    {Folders: []string{strings.Repeat("f", 200)}},
		"folders=" + strings.Join(hundred, ","):  {Folders: hundred},
		"userdb_retention=9d userdb_folders=a.b": {}, // not Dovecot's, so there is no such form
		"Retention=9d":                           {},

		"quota=1 retention=2d undelete=3h deletion=keep window=4d window_messages=5 folders=a,b allow_nets=::1": {
			Retention: 2 * days, Undelete: 3 * time.Hour, Deletion: "keep", Window: 4 * days, WindowMessages: 5, Folders: []string{"a", "b"},
		},
	} {
		e, err := parseLine("mrose:{PLAIN}x::::/home/mrose::" + field)
		if diff := cmp.Diff(want, e.identity().Life); err != nil || diff != "" { // nil folders are not empty ones
			t.Errorf("%q: %v %s", field, err, diff)
		}
	}
}

func TestLifeOfALineThatIsNone(t *testing.T) {
	wrong := map[error][]string{
		errRetention: {
			"retention", "retention=", "retention=d", "retention=90", "retention=-1d", "retention=+1d", "retention=1.5d", "retention=1h",
			"retention=36h", "retention=36501d", "retention=99999999999999999999d", "retention=90D", "retention=90m", "retention=1d12h",
			"retention=none", "retention=Never", "retention=0x1d", "retention=1_0d", "retention=00",
		},
		errUndelete: {
			"undelete", "undelete=", "undelete=7", "undelete=3651d", "undelete=87601h", "undelete=h", "undelete=7w", "undelete=1h1d",
			"undelete=213503982334602d", // which is 2^64 ns and some: it must not wrap around
		},
		errDeletion: {"deletion", "deletion=", "deletion=Keep", "deletion=keep,remove", "deletion=0", "deletion=never"},
		errWindow:   {"window", "window=", "window=30", "window=36501d", "window=30s", "window=-30d"},
		errWindowMessages: {
			"window_messages", "window_messages=", "window_messages=1K", "window_messages=-1", "window_messages=9999999999999", "window_messages=7d",
		},
		errFolders: {
			"folders", "folders=,", "folders=Spam,", "folders=,Spam", "folders=/Spam", "folders=Spam/", "folders=a//b", "folders=/",
			"folders=.", "folders=..", "folders=a/..", "folders=../a", "folders=.Spam", "folders=Lists.dewey", "folders=inBox", "folders=Spam,INBOX",
			"folders=" + strings.Repeat("f", 201), "folders=\xff", "folders=a\u0085b", "folders=Sp\xc3",
		},
		errFoldersTwice: {"folders=Spam,Spam", "folders=Spam,x,sPAM", "folders=É,x,É"},
		errFoldersMany:  {"folders=" + strings.Repeat("f,", 100) + "g"},
	}
	var text strings.Builder
	n := 0
	for want, fields := range wrong {
		for _, field := range fields {
			line := "mrose:{PLAIN}tanstaaf::::::" + field
			if _, err := parseLine(line); !errors.Is(err, want) || !strings.Contains(err.Error(), "would be right") {
				t.Errorf("%q: %v, want %v", field, err, want)
			}
			n++
			text.WriteString("good" + itoa(n) + ":{PLAIN}tanstaaf::::::retention=9d\n" + line + "\n")
		}
	}
	// All at once, with their lines, and the lines between them count.
	table, err := parse("users", text.String(), scheme.Strong)
	if err == nil {
		t.Fatal("no errors")
	}
	messages := strings.Split(err.Error(), "\n")
	if len(messages) != n || len(table.index) != n {
		t.Fatalf("%d errors and %d users, not %d", len(messages), len(table.index), n)
	}
	for i, message := range messages {
		if prefix := "users:" + itoa(2*i+2) + ": "; !strings.HasPrefix(message, prefix) || strings.Contains(message, "tanstaaf") {
			t.Errorf("%q, not %s…", message, prefix)
		}
	}
}

// However a user is proven, found or meant by mail, he has his Life with him.
func TestLifeOfAnIdentity(t *testing.T) {
	ctx := context.Background()
	file := open(t, users(t, "mrose:{PLAIN}x::::::retention=9d folders=Spam login_as=bob\nbob:{PLAIN}y::::::window_messages=7\n"), nil)
	mrose := auth.Life{Retention: 9 * 24 * time.Hour, Folders: []string{"Spam"}}
	at := netip.MustParseAddr("192.0.2.1")
	for what, f := range map[string]func() (auth.Identity, error){
		"CheckPassword": func() (auth.Identity, error) {
			return file.CheckPassword(ctx, auth.Attempt{User: "mrose", Password: "x"})
		},
		"Secret": func() (auth.Identity, error) {
			s, err := file.Secret(ctx, "mrose", auth.APOP, at)
			return s.Identity, err
		},
		"Find":      func() (auth.Identity, error) { return file.Find(ctx, "mrose", at) },
		"Recipient": func() (auth.Identity, error) { return file.Recipient(ctx, "MRose") },
	} {
		if id, err := f(); err != nil || !reflect.DeepEqual(id.Life, mrose) {
			t.Errorf("%s: %+v, %v", what, id, err)
		}
	}
	id, err := file.Authorize(ctx, auth.Identity{User: "mrose"}, "bob")
	if err != nil || !reflect.DeepEqual(id.Life, auth.Life{WindowMessages: 7}) {
		t.Errorf("Authorize: %+v, %v", id, err)
	}
	// Nobody can change what the next one gets.
	first, _ := file.Find(ctx, "mrose", at)
	first.Life.Folders[0] = "Ham"
	if again, err := file.Find(ctx, "mrose", at); err != nil || !reflect.DeepEqual(again.Life, mrose) {
		t.Errorf("%+v, %v", again, err)
	}
}

func TestLives(t *testing.T) {
	const days = 24 * time.Hour
	for text, want := range map[string][]auth.Life{
		"":                 nil,
		"# nobody\n":       nil,
		"mrose:{PLAIN}x\n": {{}},
		"mrose:{PLAIN}x::::::retention=9d window=1d folders=Spam\nbob:{PLAIN}x::::::retention=9d undelete=1d\n": {{Retention: 9 * days}},
		"mrose:{PLAIN}x::::::retention=9d\nbob:{PLAIN}x::::::quota=1\nann:{PLAIN}x\n":                           {{Retention: 9 * days}, {}},
		"mrose:{PLAIN}x::::::deletion=keep\nbob:{PLAIN}x::::::deletion=remove\nann:{PLAIN}x::::::deletion=keep retention=never\n": {
			{Deletion: "keep"}, {Deletion: "remove"}, {Deletion: "keep", Retention: -1},
		},
		"mrose:{PLAIN}x::::::retention=9d nologin\nbob:{PLAIN}x::::::retention=3d\n":                  {{Retention: 3 * days}},
		"mrose:{PLAIN}x::::::retention=9d nologin\n":                                                  nil,
		"mrose:!{PLAIN}x::::::retention=9d\nbob:{PLAIN}x::::::retention=3d allow_nets=192.0.2.0/24\n": {{Retention: 9 * days}, {Retention: 3 * days}}, // by a certificate
	} {
		file := open(t, users(t, text), nil)
		got := file.Lives()
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%q: %s", text, diff)
		}
		if again := file.Lives(); len(got) > 0 && &again[0] != &got[0] {
			t.Errorf("%q: computed with each call", text)
		}
	}
	// Many users are told of by the few that differ.
	var many strings.Builder
	for i := range 3000 {
		many.WriteString("u" + itoa(i) + ":{PLAIN}x::::::retention=" + itoa(1+i%3) + "d\n")
	}
	if got := open(t, users(t, many.String()), nil).Lives(); len(got) != 3 {
		t.Errorf("%d, not 3", len(got))
	}
}

// What holds is what the file says now; when it has errors, what the lines that are right say; when it is gone, what it said.
func TestLivesFollowTheFile(t *testing.T) {
	path := users(t, "mrose:{PLAIN}x::::::retention=9d\n")
	file := open(t, path, nil)
	check := func(what string, want ...auth.Life) {
		t.Helper()
		aged(file)
		if diff := cmp.Diff(want, file.Lives()); diff != "" {
			t.Errorf("%s: %s", what, diff)
		}
	}
	check("at first", auth.Life{Retention: 9 * 24 * time.Hour})
	write(t, path, "mrose:{PLAIN}x::::::retention=10d\nbob:{PLAIN}x::::::deletion=retrieved\n")
	check("changed", auth.Life{Retention: 10 * 24 * time.Hour}, auth.Life{Deletion: "retrieved"})
	id, err := file.CheckPassword(context.Background(), auth.Attempt{User: "mrose", Password: "x"})
	if err != nil || id.Life.Retention != 10*24*time.Hour {
		t.Errorf("%+v, %v", id, err)
	}
	write(t, path, "mrose:{PLAIN}x::::::retention=ten\nbob:{PLAIN}x::::::deletion=retrieved\n")
	check("with an error", auth.Life{Deletion: "retrieved"})
	if _, err := file.Find(context.Background(), "mrose", netip.Addr{}); !errors.Is(err, errFaulty) {
		t.Errorf("a user whose line has an error: %v", err)
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	check("gone", auth.Life{Deletion: "retrieved"})
}

// A new password leaves the fields as they are, octet for octet; List tells them.
func TestEditKeepsTheLife(t *testing.T) {
	const fields = "::::/home/mrose::retention=90d undelete=12h  deletion=keep window=30d window_messages=1000 folders=Spam,Größe/x other=1\r\n"
	path := users(t, "bob:{PLAIN}x\nmrose:{PLAIN}old"+fields)
	if err := SetPassword(path, "mrose", "new password", "PLAIN", Options{}); err != nil {
		t.Fatal(err)
	}
	if err := Add(path, "ann", "new password", "PLAIN", Options{}); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(path)
	if want := "bob:{PLAIN}x\nmrose:{PLAIN}new password" + fields + "ann:{PLAIN}new password::::::\r\n"; err != nil || string(text) != want {
		t.Errorf("%q, %v; want %q", text, err, want)
	}
	list, err := List(path, Options{})
	want := []User{{Name: "bob", Scheme: "PLAIN"}, {Name: "mrose", Scheme: "PLAIN", Home: "/home/mrose", Life: auth.Life{
		Retention: 90 * 24 * time.Hour, Undelete: 12 * time.Hour, Deletion: "keep",
		Window: 30 * 24 * time.Hour, WindowMessages: 1000, Folders: []string{"Spam", "Größe/x"},
	}}, {Name: "ann", Scheme: "PLAIN"}}
	if diff := cmp.Diff(want, list); err != nil || diff != "" {
		t.Errorf("%v %s", err, diff)
	}
}

// The extra fields in the examples of the document are read as such.
func TestDocumentationExamples(t *testing.T) {
	data, err := os.ReadFile("../../docs/CONFIGURATION.md")
	if err != nil {
		t.Fatal(err)
	}
	examples := regexp.MustCompile(`(?m)^    (\w+:\{[A-Z0-9-]+\}…::::::.*)$`).FindAllStringSubmatch(string(data), -1)
	if len(examples) < 7 {
		t.Errorf("found only %d examples", len(examples))
	}
	for _, e := range examples {
		got, err := parseLine(e[1])
		if err != nil || reflect.DeepEqual(got.extra, extra{}) {
			t.Errorf("%s: %v", e[1], err)
		}
	}
}
