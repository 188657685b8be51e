package auth

import (
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

func TestVerified(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v := NewVerified(3, time.Minute)
		expect := func(user, secret, password string, want bool) {
			t.Helper()
			if v.Has(user, secret, password) != want {
				t.Errorf("%q, %q, %q: %v", user, secret, password, !want)
			}
		}
		expect("", "", "", false)
		v.Remember("mrose", "hash", "tanstaaf")
		expect("mrose", "hash", "tanstaaf", true)
		for _, other := range [][3]string{
			{"mrose", "hash", "Tanstaaf"},
			{"mrose", "hash", ""},
			{"mrose", "other", "tanstaaf"},
			{"Mrose", "hash", "tanstaaf"},
			{"mrose", "hasht", "anstaaf"},
			{"mroseh", "ash", "tanstaaf"},
			{"mrose", "hashtanstaaf", ""},
			{"mros", "ehash", "tanstaaf"},
		} {
			expect(other[0], other[1], other[2], false)
		}
		v.Remember("mrose", "hash", "another") // one entry a user
		expect("mrose", "hash", "tanstaaf", false)
		expect("mrose", "hash", "another", true)

		time.Sleep(time.Minute - time.Nanosecond)
		expect("mrose", "hash", "another", true) // which does not extend it
		time.Sleep(time.Nanosecond)
		expect("mrose", "hash", "another", false)

		for _, user := range []string{"a", "b", "c"} {
			v.Remember(user, "s", "p")
		}
		expect("a", "s", "p", true)
		v.Remember("d", "s", "p")
		expect("b", "s", "p", false) // used longest ago
		expect("a", "s", "p", true)
		expect("c", "s", "p", true)
		v.Forget("a")
		v.Forget("nobody")
		expect("a", "s", "p", false)
		expect("d", "s", "p", true)
		v.Clear()
		expect("d", "s", "p", false)
		for i := range 1000 {
			v.Remember(fmt.Sprint(i), "s", "p")
		}
		if n := len(v.entries.byKey); n != 3 {
			t.Errorf("%d entries", n)
		}
	})
}

func TestVerifiedOff(t *testing.T) {
	for _, v := range []*Verified{nil, NewVerified(10, 0), NewVerified(0, time.Hour)} {
		v.Remember("mrose", "hash", "tanstaaf")
		if v.Has("mrose", "hash", "tanstaaf") {
			t.Error("remembered")
		}
		v.Forget("mrose")
		v.Clear()
	}
}

func TestVerifiedAtOnce(t *testing.T) {
	v := NewVerified(4, time.Hour)
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			user := fmt.Sprint(i)
			for range 200 {
				v.Remember(user, "s", "p")
				v.Has(user, "s", "p")
				v.Forget(user)
				if i == 0 {
					v.Clear()
				}
			}
		})
	}
	wg.Wait()
}
