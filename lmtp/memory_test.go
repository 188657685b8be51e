package lmtp

import (
	"encoding/binary"
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
