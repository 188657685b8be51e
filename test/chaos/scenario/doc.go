// Package scenario has what is cut short in test/chaos/kill and test/chaos/power: the things that dewey does to mail, each
// with what was there before, what a client or an administrator does, and what was promised to him when.
package scenario
