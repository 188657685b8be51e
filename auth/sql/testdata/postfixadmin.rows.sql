-- Passwords are "tanstaaf", in the forms that postfixadmin has written over the years.
INSERT INTO domain (domain, backupmx, active) VALUES ('example.org', false, true), ('closed.example', false, false), ('backup.example', true, true);
INSERT INTO mailbox (username, password, maildir, quota, local_part, domain, active) VALUES
 ('sha512@example.org', '{SHA512-CRYPT}$6$rounds=1000$saltsalt$rXjl5uYHGWEqW/rCvZtCboIF4gG9Mm2IgawiKhopbnZ3Wo8X8lHSiLnrN1Z0o3jtyNmfEJVSATxUqKvsHnqia0', 'example.org/sha512/', 1024000000, 'sha512', 'example.org', true),
 ('crypt@example.org', '{CRYPT}$2y$04$abcdefghijklmnopqrstuumJUK7dJmoK7yMfXBMkeTJL1Y.du7qIG', 'example.org/crypt/', 0, 'crypt', 'example.org', true),
 ('bcrypt@example.org', '$2y$04$abcdefghijklmnopqrstuumJUK7dJmoK7yMfXBMkeTJL1Y.du7qIG', 'example.org/bcrypt/', 0, 'bcrypt', 'example.org', true),
 ('blf@example.org', '{BLF-CRYPT}$2y$04$abcdefghijklmnopqrstuumJUK7dJmoK7yMfXBMkeTJL1Y.du7qIG', 'example.org/blf/', -1, 'blf', 'example.org', true),
 ('md5@example.org', '$1$saltsalt$roN2lUfEbZqZad1NpG.Zy1', 'example.org/md5/', 0, 'md5', 'example.org', true),
 ('off@example.org', '{CRYPT}$6$rounds=1000$saltsalt$rXjl5uYHGWEqW/rCvZtCboIF4gG9Mm2IgawiKhopbnZ3Wo8X8lHSiLnrN1Z0o3jtyNmfEJVSATxUqKvsHnqia0', 'example.org/off/', 0, 'off', 'example.org', false),
 ('bob@closed.example', '$2y$04$abcdefghijklmnopqrstuumJUK7dJmoK7yMfXBMkeTJL1Y.du7qIG', 'closed.example/bob/', 0, 'bob', 'closed.example', true);
INSERT INTO alias (address, goto, domain) VALUES ('sha512@example.org', 'sha512@example.org', 'example.org'), ('info@example.org', 'sha512@example.org,bcrypt@example.org', 'example.org');
