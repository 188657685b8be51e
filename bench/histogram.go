package bench

import (
	"math"
	"math/bits"
	"sync/atomic"
	"time"
)

// subBits is how many bits of a value a Histogram tells apart: a quantile is at most 1/128 too high.
const subBits = 7

// A Histogram counts durations in buckets whose width grows with the value. It has some 58 KB, however much it counts.
// Several goroutines may use it.
type Histogram struct {
	buckets         [(64 - subBits) << subBits]atomic.Uint64
	count, sum, max atomic.Int64
}

func bucket(v uint64) int {
	shift := max(bits.Len64(v)-subBits-1, 0)
	return shift<<subBits + int(v>>shift)
}

// highest is the largest value of a bucket.
func highest(i int) int64 {
	shift := max(i>>subBits-1, 0)
	return (int64(i-shift<<subBits)+1)<<shift - 1
}

// Add counts one duration. A negative one counts as 0.
func (h *Histogram) Add(d time.Duration) {
	v := max(int64(d), 0)
	h.buckets[bucket(uint64(v))].Add(1)
	h.count.Add(1)
	h.sum.Add(v)
	for {
		old := h.max.Load()
		if v <= old || h.max.CompareAndSwap(old, v) {
			return
		}
	}
}

// Count returns how many durations were counted.
func (h *Histogram) Count() int64 { return h.count.Load() }

// Mean returns their mean, 0 if there are none.
func (h *Histogram) Mean() time.Duration {
	if n := h.Count(); n > 0 {
		return time.Duration(h.sum.Load() / n)
	}
	return 0
}

// Max returns the longest.
func (h *Histogram) Max() time.Duration { return time.Duration(h.max.Load()) }

// Quantile returns the duration that a part q of all, from 0 to 1, does not exceed.
func (h *Histogram) Quantile(q float64) time.Duration {
	rank := uint64(max(math.Ceil(q*float64(h.Count())), 1))
	seen := uint64(0)
	for i := range h.buckets {
		if seen += h.buckets[i].Load(); seen >= rank {
			return min(time.Duration(highest(i)), h.Max())
		}
	}
	return h.Max()
}
