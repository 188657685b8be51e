// Package recipients finds the owners of the maildrops that an address stands for: by the users' names, by
// rules for what of an address is a user's name, and by a file of aliases.
//
// An address may be one of SMTP's (RFC 5321 section 4.1.2), in any of its spellings, or a name without a
// domain: postmaster by section 4.5.1, others from programs of this machine. It is looked for in this order:
//
//  1. an alias of exactly that address;
//  2. the rules, in the order that [Rules] give; the rule "local" sees the alias of a name before the user;
//  3. the catch-all of its domain, then that of all.
//
// The local part is compared as it is and then in ASCII lower case, as users are found at login; aliases
// are compared in lower case alone. Domains are compared in ASCII lower case, and octet by octet beyond:
// what RFC 5890 calls the A-label and the U-label of one name are two domains here, so that who has both in use
// lists both.
//
// # The file of aliases
//
//	# comment
//	postmaster:          mrose
//	info@example.org:    mrose, bob@example.org,
//	                     "Ann Lee"@example.org
//	mrose:               mrose, archive
//	@example.org:        mrose
//	*:                   \bob
//
// A line that begins with a blank continues the one before. Left of the colon is an address, a name, which counts
// in all our domains, @ and a domain for all of its addresses that nobody else has, or * for those of all
// domains. Right of it are users, found by the same rules, and aliases as they are written in this file. A target
// that is the alias's own address, or that begins with a backslash, is a user. Commands, files and
// :include: are errors: dewey runs nothing and writes nowhere but into maildrops.
//
// A target that is neither an alias nor a user makes the whole address a fault, which is logged: mail for it is to
// be sent again later. To refuse it would bounce mail for an address that somebody set up, and to deliver to the
// other targets alone would lose a copy in silence.
package recipients
