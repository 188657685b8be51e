// Package harness is what the tests under test/chaos share: the real program, built once and started as it is shipped;
// strict clients; a Model of what was acknowledged; and Check and Hold, which hold a maildrop against it. It is for tests.
package harness
