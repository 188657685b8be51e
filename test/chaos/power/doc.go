// Package power has no code: its tests take the power away, as far as that can be shown without pulling a plug. A trace
// of what dewey writes and syncs is replayed into a model of a file system, and each state that one may leave at each
// moment is made and looked at.
package power
