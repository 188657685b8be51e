package soak

import (
	"bytes"
	"fmt"
	"time"
)

// plot draws the memory over time.
func (l *load) plot(length time.Duration) []byte {
	const width, height, left, bottom = 720, 300, 60, 40
	last, most := l.samples[len(l.samples)-1].at.Seconds(), 1
	for _, s := range l.samples {
		most = max(most, s.rss)
	}
	step := 16 // MiB between two lines
	for most>>10/step > 6 {
		step *= 2
	}
	top := (most>>10/step + 1) * step
	x := func(seconds float64) float64 { return left + seconds/last*(width-left-20) }
	y := func(mebibytes float64) float64 { return height - bottom - mebibytes/float64(top)*(height-bottom-30) }
	var b bytes.Buffer
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" font-family="sans-serif" font-size="12">`+"\n", width, height)
	fmt.Fprintf(&b, `<rect width="%d" height="%d" fill="white"/>`+"\n", width, height)
	fmt.Fprintf(&b, `<text x="%d" y="18">Resident memory of dewey, MiB: %d clients for %v, then none</text>`+"\n", left, len(l.users), length)
	for m := 0; m <= top; m += step {
		fmt.Fprintf(&b, `<path d="M%d %.1fH%d" stroke="#ddd"/><text x="%d" y="%.1f" text-anchor="end">%d</text>`+"\n", left, y(float64(m)), width-20, left-8, y(float64(m))+4, m)
	}
	for i := range 7 {
		at := last / 6 * float64(i)
		fmt.Fprintf(&b, `<text x="%.1f" y="%d" text-anchor="middle">%.0f s</text>`+"\n", x(at), height-bottom+18, at)
	}
	fmt.Fprintf(&b, `<path d="M%.1f 30V%d" stroke="#999" stroke-dasharray="4 3"/>`+"\n", x(min(length.Seconds(), last)), height-bottom)
	b.WriteString(`<polyline fill="none" stroke="#06c" stroke-width="1.5" points="`)
	for _, s := range l.samples {
		fmt.Fprintf(&b, "%.1f,%.1f ", x(s.at.Seconds()), y(float64(s.rss)/1024))
	}
	b.WriteString(`"/>` + "\n</svg>\n")
	return b.Bytes()
}
