// Package kill has no code: its tests kill dewey at every step of what it does to mail, and look at what is left.
package kill
