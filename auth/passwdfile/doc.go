// Package passwdfile knows users from a file in Dovecot's passwd-file format, one user a line:
//
//	user:{SCHEME}hash:uid:gid:gecos:home:shell:extra
//
// Fields may be missing from the end. Lines that are blank or start with # are skipped; CRLF line
// ends are taken. Without {SCHEME} the hash is one of crypt(3). Of the home only an absolute one counts;
// uid, gid, gecos and shell do not. Of the extra fields, which spaces part, these count:
//
//	nologin               the user does not come in, by no means, nor anybody in his name
//	allow_nets=NET,...    he comes from these addresses and networks alone
//	login_as=USER,...     he may log in as these users (RFC 4422 section 3.4.1): names as they stand in
//	                      the file, * for everybody, *@example.org for all names that end so
//	quota=2G              how many octets of mail he may keep: a number, and B, K, M, G or T; 0: no limit
//	quota_messages=1000   how many messages; 0: no limit
//	userdb_quota_rule=*:storage=2G:messages=1000
//	                      the same in Dovecot's words; storage without a unit counts K, bytes=N octets.
//	                      Rules for single folders (userdb_quota_rule2=Trash:…) do not count
//	retention=90d         how long his mail stays, in whole days (or hours that make some)
//	undelete=7d           how long what was removed can be brought back: days (d) or hours (h)
//	deletion=keep         what QUIT does with messages marked as deleted: remove, keep or retrieved
//	window=30d            he sees only what was delivered in so long a time: days or hours
//	window_messages=1000  he sees only the newest so many messages
//	folders=Spam,Lists/dewey
//	                      Maildir++ folders that he sees too, in UTF-8 without spaces; empty: none
//
// The first two are Dovecot's, and to ignore them would let in whom Dovecot keeps out. Of several quotas the last
// counts, and so it is with each field below them; what none says is not set. 0 or never in the times and in
// window_messages is no limit for this user, though others have one ([auth.Life] has -1 then).
//
// A [File] answers logins, hands out secrets to mechanisms that do not send the password, finds users by
// their names, and sees by itself that its file has changed. [Add], [SetPassword],
// [Remove] and [List] serve an administrator.
//
// Source: https://doc.dovecot.org/2.3/configuration_manual/authentication/passwd_file/
package passwdfile
