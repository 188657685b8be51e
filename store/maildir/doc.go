// Package maildir serves Maildirs as maildrops and takes mail in to them: Maildirs that Postfix, Exim,
// procmail, maildrop, getmail or Dovecot may deliver to as well, with unique-ids in Dovecot's own list, so
// that dewey and Dovecot can take turns on one Maildir. Courier's lists are taken over at first sight.
//
// # What is in a Maildir
//
// A message is a regular file in new/ or cur/ whose name does not start with a '.'. Its base name,
// all before the first ':', is what names it: flags and folder may change underneath. Nothing else
// than a regular file is followed or served, and new/ and cur/ must be folders themselves, not links
// to some. dewey never moves a message to cur/ and never changes flags. It adds these files:
//
//	dovecot-uidlist     the unique-ids and sizes, as Dovecot keeps them (package uidlist)
//	dewey.lock          locked (flock) while a session is open; never removed
//	dewey-uidvalidity   the validity that unique-ids were last served under: see below
//	dewey-removed/      messages that were removed and can be brought back, and their list: see below
//
// # Mail that comes in
//
// A deposit is written to tmp/ with LF line ends, made durable, and then moved to new/ by a rename that
// overwrites nothing, under a name by the Maildir convention (https://cr.yp.to/proto/maildir.html) with its
// sizes as Dovecot adds them: S, the octets as stored, and W, the same with CRLF line ends. Then new/ is made
// durable; commits at the same time share that. Nothing but the files tells a session of it: a rename changes
// the times of new/, and times that are too young to show another change prove nothing (below). It gets
// its unique-id at the next login, as mail from others does.
//
// A deposit removes files from tmp/ in which nothing has happened for 36 hours, once an hour at most.
//
// # Mail that is removed
//
// Without Life.Undelete files are unlinked, new/ and cur/ are made durable, and then Remove returns. Of 500 or more the
// records get the keys D and R, which tells the file by its size and its inode or mtime, in one durable rewrite of
// dovecot-uidlist, and then Remove returns. No scan has such files. A job unlinks them, makes the folders durable and
// strikes the records, under the lock on the list alone, so that sessions go on meanwhile; who opens the Maildir and
// finds such records begins one, if none is at work, and so does a delivery for which there is no room. Other programs
// see the files until then. A file under the name of one that is gone, which is not that one, is a new message once the
// record is struck.
//
// With Life.Undelete, lines are first added to dewey-removed/list and made durable: when, the file's new name, where it was, its unique-id and what
// dovecot-uidlist says of it. Then the files are moved to dewey-removed/, and that, new/ and cur/ are made durable. So at
// any crash a message is in the maildrop or can be brought back; a line without a file says nothing. To bring it back
// the record is made durable first, with a new uid and the old unique-id (key P), under the lock on the list, and then
// the file is moved. What is in dewey-removed/ is in no folder of an IMAP server's and counts for no quota.
//
// With maildrop.DeletionKeep files stay, and their records get the key D with the time of removal, which Dovecot keeps;
// IMAP shows them, and they count for quotas.
//
// # Quotas
//
// What new/ and cur/ hold is counted by names (S) and stats, for owners with a quota alone, and remembered with the
// folders' times as a scan is (see below), never on disk: after a crash there is nothing that could be wrong. Our
// own renames and unlinks are added to it under a lock; any other change has the folders read again. A change of somebody
// else's in the same tick of the clock as ours may hide in it. So nobody is refused by such a count before the
// folders are read once more, and it is not believed for longer than ten minutes. Folders of Maildir++ do not count.
//
// # A scan
//
// new/ is read before cur/, so that a message on its way from one to the other is seen twice rather
// than never. Each folder is read again if its times changed meanwhile, since a rename in a folder
// that is being read may hide the file.
//
// A scan is kept in memory after the session, with the device, inode, times and size of both folders
// and of the list. While these are the same there is nothing to read. Times younger than two seconds
// when something was read prove nothing: the clock behind them is coarse. (A file server's clock must
// not be slow by more than that.)
//
// # Unique-ids
//
// A message that has none gets one under the list's lock, and it is on disk before Open returns. If
// that fails the message is hidden for the session: there are no provisional unique-ids. If a list
// was lost or replaced, so that more than a few messages that were served before would come under
// other unique-ids, the login is refused: whoever wants the new list removes dewey-uidvalidity.
//
// # Folders
//
// A folder is one of Maildir++, as Dovecot and Courier lay them out: .Lists.dewey in the owner's Maildir, a Maildir with
// all that is said above, is Lists/dewey. Its name on the disk is in IMAP's modified UTF-7 (RFC 3501 section 5.1.3), or as
// it is, as Dovecot can be told; one that differs in the case of ASCII letters alone is taken if there is no other. A
// session that sees several has them locked all, and is refused if one of them would be; a folder that is not there is
// left out, and none is made.
//
// Each folder has its own unique-ids, the same alone and among others. A list is made with a validity that no other of
// the owner's lists has. If two have one nevertheless (a folder that was copied, lists that two programs made in one
// second), all unique-ids of the one that comes later, in the order in which the owner has his folders, get a suffix made
// of its name. Of two messages in different folders to which lists give one unique-id by name, the second is left out,
// and the log says which.
package maildir
