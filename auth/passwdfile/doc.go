// Package passwdfile knows users from a file in Dovecot's passwd-file format, one user a line:
//
//	user:{SCHEME}hash:uid:gid:gecos:home:shell:extra
//
// Fields may be missing from the end. Lines that are blank or start with # are skipped; CRLF line
// ends are taken. Without {SCHEME} the hash is one of crypt(3). Of the extra fields two are honoured,
// since to ignore them would let in whom Dovecot keeps out: nologin, and allow_nets, a list of
// addresses and networks. Of the home only an absolute one counts; uid, gid, gecos and shell do not.
//
// A [File] answers logins and sees by itself that its file has changed. [Add], [SetPassword],
// [Remove] and [List] serve an administrator.
//
// Source: https://doc.dovecot.org/2.3/configuration_manual/authentication/passwd_file/
package passwdfile
