// Package tracer runs a program and stops it at each system call that changes something: to kill it there, or to write
// down what it does, in order. It is strace's trade; strace counts the calls of each thread and of each kind for itself
// (inject=…:when=N), so that "the 17th call of the server" can't be said to it. Linux alone.
package tracer
