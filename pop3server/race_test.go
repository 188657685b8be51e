//go:build race

package pop3server_test

const slack = 4
