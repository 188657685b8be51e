// Package passwdfile knows users from a file in Dovecot's passwd-file format, one user a line:
//
//	user:{SCHEME}hash:uid:gid:gecos:home:shell:extra
//
// Fields may be missing from the end. Lines that are blank or start with # are skipped; CRLF line
// ends are taken. Without {SCHEME} the hash is one of crypt(3). Of the home only an absolute one counts;
// uid, gid, gecos and shell do not. Of the extra fields, which spaces part, six count:
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
//
// The first two are Dovecot's, and to ignore them would let in whom Dovecot keeps out. Of several quotas the last
// counts, and what none says is not set.
//
// A [File] answers logins, hands out secrets to mechanisms that do not send the password, finds users by
// their names, and sees by itself that its file has changed. [Add], [SetPassword],
// [Remove] and [List] serve an administrator.
//
// Source: https://doc.dovecot.org/2.3/configuration_manual/authentication/passwd_file/
package passwdfile
