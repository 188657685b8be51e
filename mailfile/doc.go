// Package mailfile reads files in which mail is kept elsewhere, to be taken over: an mbox, a single message, a
// Maildir; and it writes an mbox. It changes nothing that it reads, keeps a bounded part of it in memory, and passes
// on all octets of a message but what an mbox has added to it.
package mailfile
