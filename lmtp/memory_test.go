package lmtp

import (
	"encoding/binary"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"dewey/maildrop"
)

// The memory is bounded, in marks and in time, and forgets the oldest first.
func TestMemory(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var m memory
		k := func(i int) (k mark) { binary.BigEndian.PutUint32(k[:], uint32(i)); return k }
		for i := range memorySize + 10 {
			m.add([]mark{k(i), k(i)})
		}
		if len(m.since) != memorySize || len(m.order) != memorySize || m.take(k(9)) || !m.take(k(10)) || !m.take(k(memorySize+9)) {
			t.Error(len(m.since), len(m.order))
		}
		time.Sleep(memorySpan + time.Second)
		if m.take(k(10)) {
			t.Error("not forgotten")
		}
		m.add([]mark{k(1)})
		if len(m.since) != 1 || len(m.order) != 1 || !m.take(k(1)) {
			t.Error(len(m.since), len(m.order))
		}
	})
}

// A Message-ID is a field of the header section, however the message is cut, and nothing else. RFC 5322 sections 3.6.4
// and 4.5.4.
func TestIdentity(t *testing.T) {
	long := strings.Repeat("x", 100)
	for text, want := range map[string]bool{
		"Message-ID: <1@x>\r\n\r\n":                    true,
		"Subject: x\r\nmessage-id:<1@x>\r\n\r\n":       true,
		"Subject: x\nMESSAGE-ID: <1@x>\n\n":            true,
		"Message-Id \t: <1@x>\r\n\r\n":                 true,
		"X: " + long + "\r\nMessage-ID: <1@x>\r\n\r\n": true,
		"": false, "Message-ID": false, "\r\n": false,
		"Subject: x\r\n\r\nMessage-ID: <1@x>\r\n\r\n":        false,
		"\r\nMessage-ID: <1@x>\r\n":                          false,
		"Subject: x\r\n Message-ID: <1@x>\r\n\r\n":           false,
		"X-Message-ID: <1@x>\r\nMessage-IDs: <1@x>\r\n\r\n":  false,
		"Resent-Message-ID: <1@x>\r\nMessage-ID <1@x>\r\n\r": false,
		long + "\r\n" + long + "Message-ID: <1@x>\r\n\r\n":   false,
	} {
		for _, size := range []int{1, 2, 3, 7, len(text) + 1} {
			var i identity
			for p := range slices.Chunk([]byte(text), size) {
				i.look(p)
			}
			if i.found != want || cap(i.line) > 64 {
				t.Errorf("%.30q in pieces of %d: %v, want %v", text, size, i.found, want)
			}
		}
	}
}

// Nothing that differs has the same mark.
func TestMarked(t *testing.T) {
	ann, bob := maildrop.Owner{Name: "ann"}, maildrop.Owner{Name: "bob"}
	all := map[mark]bool{
		marked([]byte("x"), "a", "b", ann): true, marked([]byte("x"), "a", "b", bob): true, marked([]byte("y"), "a", "b", ann): true,
		marked([]byte("x"), "ab", "", ann): true, marked([]byte("x"), "", "ab", ann): true, marked([]byte("xa"), "", "b", ann): true,
		marked([]byte("x"), "a", "b", maildrop.Owner{Name: "an", Home: "n"}): true,
	}
	if len(all) != 7 {
		t.Error(len(all))
	}
}

// Who sends message after message and waits for no reply does not fill our memory: the oldest are forgotten first.
func TestUntoldIsBounded(t *testing.T) {
	s := &session{srv: &Server{}, log: slog.New(slog.DiscardHandler), tx: &transaction{identity: identity{found: true}}}
	var k mark
	for i := range 3 * memorySize {
		binary.BigEndian.PutUint32(k[:], uint32(i))
		s.tell(&recipient{copies: []*copyOf{{committed: true, mark: k}}})
	}
	if len(s.untold) != memorySize || cap(s.untold) > 3*memorySize || s.untold[memorySize-1] != k {
		t.Errorf("%d marks, room for %d", len(s.untold), cap(s.untold))
	}
}
