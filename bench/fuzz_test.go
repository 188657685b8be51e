package bench

import (
	"net/netip"
	"testing"
)

// A list of sources is bounded, and in order within a range.
func FuzzSources(f *testing.F) {
	for _, seed := range []string{"", "127.0.0.2", "127.0.0.2-127.0.0.20,::1", "127.0.0.9-127.0.0.1", "0.0.0.0-255.255.255.255", "::-ffff::", "127.0.0.1-::1", ",-,"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		list, err := ParseSources(text)
		if err == nil && len(list) == 0 || err != nil && list != nil || len(list) > 1<<16 {
			t.Fatalf("%q: %d addresses, %v", text, len(list), err)
		}
		for _, a := range list {
			if a == (netip.Addr{}) {
				t.Fatalf("%q: an address that is none", text)
			}
		}
	})
}
