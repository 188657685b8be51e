package mailfile

// Others is how many octets of what was read are no message's: of From lines, empty lines before them, and quotes.
func (m *Mbox) Others() int64 { return m.from + m.blank + m.quotes }

// Date parses a From line.
var Date = separates
