package harness_test

import (
	"strings"
	"testing"

	"dewey/test/chaos/harness"
)

func TestMain(m *testing.M) { harness.Main(m) }

// What is delivered comes, and a Model sees each kind of fault.
func TestModel(t *testing.T) {
	data := harness.Dir(t)
	harness.AddUsers(t, data, "mrose", "ann")
	s := harness.Start(t, harness.Options{Data: data})
	models := map[string]*harness.Model{"mrose": harness.NewModel(), "ann": harness.NewModel()}
	c, err := harness.DialLMTP(s.LMTP)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for key, octets := range map[string]int{"plain": 0, "chunks": 100_000} {
		text := harness.Text(key, octets)
		models["mrose"].Sent(key, text)
		models["ann"].Sent(key, text)
		deliver := func() ([]error, error) { return c.Deliver(text, "mrose", "ann") }
		if key == "chunks" {
			deliver = func() ([]error, error) { return c.Chunks(text, 30_000, "mrose", "ann") }
		}
		results, err := deliver()
		if err != nil || results[0] != nil || results[1] != nil {
			t.Fatal(results, err)
		}
		models["mrose"].Took(key, results[0])
		models["ann"].Took(key, results[1])
	}
	for user, m := range models {
		for _, fault := range m.Verify(s, user) {
			t.Error(user, fault)
		}
	}
	seen, err := harness.Fetch(s.POP3, "mrose")
	if err != nil || len(seen) != 3 {
		t.Fatal(len(seen), err)
	}
	for want, break_ := range map[string]func(m *harness.Model, seen []harness.Seen) []harness.Seen{
		"not there":          func(_ *harness.Model, seen []harness.Seen) []harness.Seen { return seen[1:] },
		"there twice":        func(_ *harness.Model, seen []harness.Seen) []harness.Seen { return append(seen, seen[0]) },
		"its unique-id was":  func(_ *harness.Model, seen []harness.Seen) []harness.Seen { seen[0].UID = "x"; return seen },
		"which was that of":  func(_ *harness.Model, seen []harness.Seen) []harness.Seen { seen[0].UID = seen[1].UID; return seen },
		"not as it was sent": func(_ *harness.Model, seen []harness.Seen) []harness.Seen { seen[0].Text += "x"; return seen },
		"nobody has sent it": func(_ *harness.Model, seen []harness.Seen) []harness.Seen { seen[0].Text = ""; return seen },
		"back, after it was gone": func(m *harness.Model, seen []harness.Seen) []harness.Seen {
			m.Is(harness.Key(seen[0].Text), harness.Gone)
			return seen
		},
	} {
		m := models["mrose"].Clone()
		faults := m.Hold(break_(m, append([]harness.Seen{}, seen...)))
		if !strings.Contains(strings.Join(faults, "\n"), want) {
			t.Errorf("want %q, have %q", want, faults)
		}
	}
	s.Stop()
	if problems, _ := harness.Check(t, data, "--sizes"); len(problems) > 0 {
		t.Error(problems)
	}
}
