// Package bench puts load on a POP3 or LMTP server, of any make, and measures it: rates, latencies, and what its
// processes cost if they run on this machine. `dewey bench` is its command.
//
// Run does one workload. What a server answers is checked and not only counted: the listings agree with STAT, the
// octets of RETR with LIST, each multi-line response has its end. A server that answers otherwise ends the run, or
// is counted (Options.KeepGoing).
//
// How the code is laid out: conn.go dials and reads lines; pop3.go and lmtp.go speak the protocols; poll.go, idle.go
// and deliver.go have the workloads; run.go starts, paces and ends them; histogram.go and process.go measure;
// result.go says what came out.
package bench
