package maildir

// A Kind tells problems apart.
type Kind string

// Kinds of problems.
const (
	KindInUse   Kind = "in-use"         // not checked
	KindFolder  Kind = "folder"         // new/, cur/ or tmp/ is not there, or is no folder
	KindOwner   Kind = "owner"          // a file or folder is somebody else's than the Maildir
	KindMode    Kind = "mode"           // the owner can't read it, or anybody can write to it
	KindNoFile  Kind = "not-a-file"     // in new/ or cur/: what is no regular file
	KindBadName Kind = "bad-name"       // in new/ or cur/: a name that can't be served
	KindSame    Kind = "same-base-name" // two messages with one base name: the younger one would get its unique-id
	KindTwo     Kind = "two-names"      // one message with two names of one base: a mover died
	KindLinked  Kind = "linked"         // one file under two base names: two messages
	KindRead    Kind = "unreadable"     // a message

	KindList      Kind = "list"       // no list that can be used
	KindListLine  Kind = "list-line"  // a line, or a key of it, that can't be read
	KindListOrder Kind = "list-order" // uids must rise
	KindListTwice Kind = "list-twice" // a line that is there twice
	KindUIDTwice  Kind = "uid-twice"  // two records with one uid
	KindBaseTwice Kind = "base-twice" // two records of one message
	KindListTorn  Kind = "list-torn"  // the last line has no end
	KindListNext  Kind = "list-next"  // the next uid is not above all
	KindListOld   Kind = "list-old"   // version 1, or no GUID
	KindListLost  Kind = "list-lost"  // there was one
	KindValidity  Kind = "validity"   // another UIDVALIDITY than was served
	KindWitness   Kind = "witness"    // dewey-uidvalidity is no number
	KindBadID     Kind = "unique-id"  // RFC 1939 section 7 does not allow it
	KindIDTwice   Kind = "unique-id-twice"
	KindMissing   Kind = "missing"   // records without a file
	KindSize      Kind = "size"      // a recorded size is wrong
	KindNameSize  Kind = "name-size" // a file's name claims a wrong size
	KindKept      Kind = "kept"      // the time at which a message was removed and kept is none
	KindGone      Kind = "gone"      // messages that are removed, and yet to be unlinked
	KindCourier   Kind = "courier"   // one of Courier's lists

	KindSharedValidity Kind = "shared-validity" // two Maildirs of an owner have one UIDVALIDITY
	KindQuota          Kind = "over-quota"

	KindTrash        Kind = "removed"           // dewey-removed/ or its list can't be used
	KindTrashLine    Kind = "removed-line"      // a line that can't be read
	KindTrashTwice   Kind = "removed-twice"     // two lines for one file
	KindTrashMissing Kind = "removed-missing"   // lines without a file
	KindTrashStray   Kind = "removed-stray"     // files without a line
	KindTrashID      Kind = "removed-unique-id" // another message has its unique-id

	KindLock      Kind = "lock"      // dewey.lock is no lock
	KindListLock  Kind = "list-lock" // dovecot-uidlist.lock, whose process has died
	KindTemporary Kind = "temporary" // a file that was to replace another
	KindTmp       Kind = "tmp"       // deliveries that died
)
