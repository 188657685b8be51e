package mailfile

import (
	"bytes"
	"slices"
	"strconv"
	"strings"
	"time"
)

const from = "From "

// mostWords is how many words a date has at most: Mon Jan 2 15:04:05 PST DST 2006 -0700.
const mostWords = 8

// separates parses a line of an mbox that begins with "From ": the time in it, and whether it is a line with which a
// message begins. That one ends in a date; a line of text hardly does, and what is before the date, the sender,
// may have any form. There are many forms of dates, so it only asks for what they all have: month, day, time, year.
func separates(line []byte) (at time.Time, ok bool) {
	line, ok = bytes.CutPrefix(line, []byte(from))
	if !ok {
		return time.Time{}, false
	}
	words := strings.Fields(string(line))
	for i := max(0, len(words)-mostWords); i+4 <= len(words); i++ {
		if at, ok := date(words[i:]); ok {
			return at, true
		}
	}
	return time.Time{}, false
}

var (
	months = []string{"Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"}
	days   = []string{"Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"}
)

// date parses a date of which it knows every word. Without an offset the time is UTC, as RFC 4155 has it.
func date(words []string) (time.Time, bool) {
	month, day, year, offset := 0, 0, 0, 0
	var clock time.Time
	told, zones, weekdays := false, 0, 0
	for _, w := range words {
		w = strings.TrimSuffix(w, ",")
		n, err := strconv.Atoi(w)
		digits := err == nil && w[0] >= '0' && w[0] <= '9'
		switch {
		case slices.Contains(days, w):
			weekdays++
		case slices.Contains(months, w) && month == 0:
			month = slices.Index(months, w) + 1
		case digits && len(w) <= 2 && n >= 1 && n <= 31 && day == 0:
			day = n
		case digits && len(w) == 4 && n >= 1900 && year == 0:
			year = n
		case strings.Contains(w, ":") && !told:
			var err error
			if clock, err = time.Parse("15:4:5", w); err != nil {
				clock, err = time.Parse("15:4", w)
			}
			if told = err == nil; !told {
				return time.Time{}, false
			}
		case zone(w):
			zones++
			if w[0] == '+' || w[0] == '-' {
				h, _ := strconv.Atoi(w[1:3])
				m, _ := strconv.Atoi(w[3:])
				if offset = h*3600 + m*60; w[0] == '-' {
					offset = -offset
				}
			}
		default:
			return time.Time{}, false
		}
	}
	if month == 0 || day == 0 || year == 0 || !told || weekdays > 1 || zones > 2 {
		return time.Time{}, false
	}
	at := time.Date(year, time.Month(month), day, clock.Hour(), clock.Minute(), clock.Second(), 0, time.UTC)
	return at.Add(-time.Duration(offset) * time.Second), at.Day() == day
}

// zone knows an offset, and a name of one, which tells nothing reliable.
func zone(w string) bool {
	if len(w) == 5 && (w[0] == '+' || w[0] == '-') {
		return strings.Trim(w[1:], "0123456789") == ""
	}
	return len(w) >= 1 && len(w) <= 5 && strings.Trim(w, "ABCDEFGHIJKLMNOPQRSTUVWXYZ") == ""
}
