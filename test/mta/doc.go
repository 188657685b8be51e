// Package mta holds no code of its own. Its tests run the mail servers Postfix and Exim, as Debian 12 ships
// them, with the configurations of docs/POSTFIX.md and docs/EXIM.md, and a real dewey beside them: mail that is
// given to sendmail must come out of dewey's POP3 as it went in, mail for nobody must bounce, and mail must
// wait while dewey is stopped.
//
// The two servers can't be installed on one machine: the test fetches their packages by apt-get download and
// unpacks each into a folder that it runs in as its root (chroot), with an /etc/passwd of its own. There the pages'
// files lie where the pages say, as they stand; nothing of the machine's own mail system is touched. That
// takes root, which the servers need anyway. What they need of libraries is in test/packages.txt.
//
// dewey itself runs outside, since it needs /proc: in its file the folders begin with the root's path then, and
// users and groups are numbers. Other than that, ports are replaced: 2424 of LMTP, and those of POP3 and SMTP.
// `dewey user`, and `dewey deliver` when a server starts it, run inside.
package mta
