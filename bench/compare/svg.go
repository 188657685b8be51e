package main

import (
	"fmt"
	"html"
	"math"
	"strings"
)

// A drawing is an SVG of 720 by height.
type drawing struct {
	strings.Builder
	height int
}

const width = 720

func newDrawing(title string, height int) *drawing {
	d := &drawing{height: height}
	fmt.Fprintf(d, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" font-family="sans-serif" font-size="12">`+"\n", width, height)
	fmt.Fprintf(d, `<rect width="%d" height="%d" fill="#fff"/>`+"\n", width, height)
	d.text(width/2, 20, "middle", "#000", title)
	return d
}

func (d *drawing) text(x, y float64, anchor, color, text string) {
	fmt.Fprintf(d, `<text x="%.1f" y="%.1f" text-anchor="%s" fill="%s">%s</text>`+"\n", x, y, anchor, color, html.EscapeString(text))
}

func (d *drawing) line(x1, y1, x2, y2 float64, style string) {
	fmt.Fprintf(d, `<line x1="%.1f" y1="%.1f" x2="%.1f" y2="%.1f" %s/>`+"\n", x1, y1, x2, y2, style)
}

func (d *drawing) done() string {
	d.WriteString("</svg>\n")
	return d.String()
}

var colors = map[string]string{"dovecot": "#b35806", "courier": "#7f7f7f", "dewey": "#1f5fa8"}

const grid = `stroke="#ddd"`

// ratioPlot has a bar for each row: dewey's part of what Dovecot takes. Where more is better it is turned round.
func (r *record) ratioPlot() string {
	rows := r.rows()
	const left, right, top, step = 330, 60, 40, 24
	d := newDrawing("dewey's part of what Dovecot takes; the mark is the goal", top+step*len(rows)+30)
	at := func(v float64) float64 { return left + min(v, 1)*(width-left-right) }
	bottom := float64(top + step*len(rows))
	for _, v := range []float64{0, 0.25, 0.5, 0.75, 1} {
		d.line(at(v), top-8, at(v), bottom, grid)
		d.text(at(v), bottom+16, "middle", "#444", figure(v, ""))
	}
	for i, w := range rows {
		y := float64(top + step*i)
		label := []rune(w.work)
		if len(label) > 54 {
			label = append(label[:53], '…')
		}
		d.text(left-8, y+13, "end", "#000", string(label))
		ratio, _, _ := r.ratio(w)
		goal := w.goal
		if w.least {
			ratio, goal = 1/ratio, 1/goal
		}
		if math.IsNaN(ratio) || math.IsInf(ratio, 0) {
			d.text(left+4, y+13, "start", "#444", "–")
			continue
		}
		fmt.Fprintf(d, `<rect x="%d" y="%.1f" width="%.1f" height="14" fill="%s"/>`+"\n", left, y+2, at(ratio)-left, colors["dewey"])
		if !w.absolute {
			d.line(at(goal), y, at(goal), y+18, `stroke="#c00" stroke-width="2"`)
		}
		d.text(at(max(ratio, goal*min(1, float64(boolean(!w.absolute)))))+6, y+13, "start", "#000", figure(ratio, ""))
	}
	return d.done()
}

func boolean(b bool) int {
	if b {
		return 1
	}
	return 0
}

// A curve is how a figure grows. Its x axis has places, not a scale, so that there may be a nought; the other axis is
// logarithmic.
type curve struct {
	file, title, x string
	places         []string
	lines          []plotted
}

type plotted struct {
	name, color string
	dashed      bool
	values      []float64 // NaN: none
}

// curves are the plots of growth.
func (r *record) curves() []curve {
	c := r.Scale
	large, middle := thousands(c.Large), thousands(c.Middle)
	make := func(file, title, x string, places, jobs []string, m metric) curve {
		k := curve{file: file, title: title, x: x, places: places}
		k.add(r, jobs, m, "", false)
		return k
	}
	var sizes, memory, at, plain, secure []string
	for _, m := range c.memorySizes() {
		sizes, memory = append(sizes, octets(m.size)), append(memory, "memory-"+m.key)
	}
	for _, n := range c.Idle {
		at = append(at, thousands(n))
		plain, secure = append(plain, fmt.Sprintf("idle-%d-plain", n)), append(secure, fmt.Sprintf("idle-%d-tls", n))
	}
	idle := make("idle.svg", "MiB of memory (PSS) with idle sessions", "sessions, logged in", at, plain, after)
	idle.add(r, secure, after, ", TLS", true)
	return []curve{
		make("poll.svg", "ms of CPU for a session that finds nothing new", "messages in the maildrop", []string{"1", "10", middle, large},
			[]string{"poll-1", "poll-10", "poll-1000", "large-warm"}, cpuOf("sessions")),
		idle,
		make("retr-memory.svg", "MiB resident at most while 4 sessions fetch", "size of a message", sizes, memory, peak),
		make("deliver.svg", "ms of CPU for a delivery of 10 kB", "messages in the maildrop", []string{"0", middle, large},
			[]string{"deliver-0", "deliver-1000", "deliver-100000"}, cpuOf("deliveries")),
	}
}

func (c *curve) add(r *record, jobs []string, m metric, suffix string, dashed bool) {
	for _, server := range []string{"dovecot", "courier", "dewey"} {
		p := plotted{name: server + suffix, color: colors[server], dashed: dashed}
		some := false
		for _, job := range jobs {
			v := median(r.values(job, server, m))
			some = some || v >= 0 // not of NaN: nothing was measured
			p.values = append(p.values, v)
		}
		if some {
			c.lines = append(c.lines, p)
		}
	}
}

func (c *curve) svg() string {
	const left, right, top, bottom, height = 70, 130, 40, 310, 360
	d := newDrawing(c.title, height)
	low, high := math.Inf(1), math.Inf(-1)
	for _, l := range c.lines {
		for _, v := range l.values {
			if v > 0 {
				low, high = min(low, v), max(high, v)
			}
		}
	}
	if math.IsInf(low, 0) {
		d.text(width/2, height/2, "middle", "#444", "not measured")
		return d.done()
	}
	from, to := math.Floor(math.Log10(low)), math.Ceil(math.Log10(high))
	if from == to {
		to++
	}
	y := func(v float64) float64 { return bottom - (math.Log10(v)-from)/(to-from)*(bottom-top) }
	x := func(i int) float64 {
		return left + 30 + float64(i)*(width-left-right-60)/float64(max(len(c.places)-1, 1))
	}
	for e := from; e <= to; e++ {
		v := math.Pow(10, e)
		d.line(left, y(v), width-right, y(v), grid)
		d.text(left-8, y(v)+4, "end", "#444", fmt.Sprintf("%g", v))
	}
	for i, place := range c.places {
		d.line(x(i), top, x(i), bottom, grid)
		d.text(x(i), bottom+18, "middle", "#444", place)
	}
	d.text((left+width-right)/2, bottom+38, "middle", "#000", c.x)
	for n, l := range c.lines {
		style := fmt.Sprintf(`stroke="%s" stroke-width="2"`, l.color)
		if l.dashed {
			style += ` stroke-dasharray="6 4"`
		}
		last := -1
		for i, v := range l.values {
			if !(v > 0) { // NaN too
				continue
			}
			if last >= 0 {
				d.line(x(last), y(l.values[last]), x(i), y(v), style)
			}
			fmt.Fprintf(d, `<circle cx="%.1f" cy="%.1f" r="3.5" fill="%s"><title>%s: %s</title></circle>`+"\n", x(i), y(v), l.color, html.EscapeString(l.name), significant(v))
			d.text(x(i)+6, y(v)-6, "start", l.color, significant(v))
			last = i
		}
		d.line(width-right+12, float64(top+20*n)+6, width-right+34, float64(top+20*n)+6, style)
		d.text(width-right+40, float64(top+20*n)+10, "start", "#000", l.name)
	}
	return d.done()
}
