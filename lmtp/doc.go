// Package lmtp takes mail in from a mail transfer agent by LMTP, RFC 2033, and puts it into maildrops: it has
// no queue, and says of each recipient whether the message is there for good.
//
// The octets of a message are kept as they came, behind three lines of trace: Return-Path, Delivered-To and
// Received. Only byte-stuffing is undone, and only CRLF.CRLF ends a message: LF alone, CR alone, NUL, 8-bit
// octets and lines of any length are content.
//
// # Who gets what, and what the sender is told
//
// Each RCPT is a delivery of its own, with a reply of its own. An owner who is meant by two addresses of one
// transaction gets two messages, as from Postfix, since whoever collects the mail of a whole domain from one
// maildrop tells them apart by Delivered-To. The same address given twice is one delivery and two replies.
//
// An address that means several owners has one reply, and RFC 2033 does not say which if some could not be
// served. Nobody gets anything unless all the copies could be written; then they are committed one after the
// other, and the first that fails ends it with its own refusal. A mail that some lack is never said to be
// delivered: it would be lost. When the sender tries again, those who have it do not get it once more, if it
// is within a day, has a Message-ID, comes with the same octets, sender and address, and we were not restarted. The
// same is done where the connection broke before the replies had gone out (the problem of RFC 1047). That holds for
// one retry, and for the next if that fails in turn: after it the same octets are another message.
package lmtp
