// Package confine takes from a running process what it no longer needs: root (Become), the gain of new
// rights (Seal), and the reach of its files and of other machines (Restrict, by Landlock).
//
// What it takes is taken for all threads and for good. That needs a program without cgo, as dewey is
// built: threads that C made are out of the Go runtime's reach. In others Seal and Restrict return
// ErrCgo.
package confine
