package sasl

import (
	"encoding/binary"
	"math"
	"math/bits"
)

// compress is the state of MD5 after one block: RFC 1321.
func compress(block [64]byte) [4]uint32 {
	a, b, c, d := uint32(0x67452301), uint32(0xefcdab89), uint32(0x98badcfe), uint32(0x10325476)
	start := [4]uint32{a, b, c, d}
	turns := [4][4]int{{7, 12, 17, 22}, {5, 9, 14, 20}, {4, 11, 16, 23}, {6, 10, 15, 21}}
	for i := range 64 {
		var f uint32
		var k int
		switch i / 16 {
		case 0:
			f, k = b&c|^b&d, i
		case 1:
			f, k = b&d|c&^d, (5*i+1)%16
		case 2:
			f, k = b^c^d, (3*i+5)%16
		case 3:
			f, k = c^(b|^d), 7*i%16
		}
		x := binary.LittleEndian.Uint32(block[4*k:])
		sine := uint32(uint64(math.Abs(math.Sin(float64(i+1))) * (1 << 32)))
		a, b, c, d = d, b+bits.RotateLeft32(a+f+x+sine, turns[i/16][i%4]), b, c
	}
	return [4]uint32{start[0] + a, start[1] + b, start[2] + c, start[3] + d}
}
