// Compare puts the same load on dewey and on other POP3 servers of the same machine, in turns, and writes
// docs/BENCHMARKS.md of what came out. It drives `dewey bench`; docs/BENCH.md says how that measures.
package main
