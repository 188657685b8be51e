// Package soak loads the real program with sessions while mail arrives, for long and beyond what the machine can do, and
// holds what is left against a model: no mail, descriptor, goroutine, lock or memory may have gone astray.
package soak
