// Package config turns dewey's TOML file and the --set options of a command line into plain structs.
//
// All errors of a file and of the command line are found in one pass and returned together, each
// with its line, what is wrong and what would be right. One table (keys.go) defines every key: the
// file, --set, Print and the reference that `dewey help config` shows are all driven by it. Every
// value remembers where it came from.
package config
