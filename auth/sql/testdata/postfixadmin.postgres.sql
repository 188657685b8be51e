-- What postfixadmin 3.3 keeps of domains, mailboxes and aliases, as far as mail servers ask for it.
CREATE TABLE domain (
  domain varchar(255) PRIMARY KEY, description varchar(255) NOT NULL DEFAULT '', aliases integer NOT NULL DEFAULT 0,
  mailboxes integer NOT NULL DEFAULT 0, maxquota bigint NOT NULL DEFAULT 0, quota bigint NOT NULL DEFAULT 0,
  transport varchar(255), backupmx boolean NOT NULL DEFAULT false, active boolean NOT NULL DEFAULT true);
CREATE TABLE mailbox (
  username varchar(255) PRIMARY KEY, password varchar(255) NOT NULL DEFAULT '', name varchar(255) NOT NULL DEFAULT '',
  maildir varchar(255) NOT NULL DEFAULT '', quota bigint NOT NULL DEFAULT 0, local_part varchar(255) NOT NULL,
  domain varchar(255) REFERENCES domain (domain), active boolean NOT NULL DEFAULT true);
CREATE TABLE alias (
  address varchar(255) PRIMARY KEY, goto text NOT NULL, domain varchar(255) NOT NULL REFERENCES domain (domain), active boolean NOT NULL DEFAULT true);
