// Package attacks holds a catalogue of attacks against the real program: each is refused, bounded in memory and time,
// logged in lines that can be read, and not noticed by others. docs/RELIABILITY.md has the table.
package attacks
