// Package chain asks several backends, one after another, who a user is.
//
// The first one that knows a name decides about it. One that has no such user (auth.ErrUnknownUser) passes the question
// on; a rejection ends it, and so does a backend that can't tell, since the user might be its own: then the answer is a
// fault and never a rejection, and no user of a backend before it is hit. A chain of one backend answers as that does.
//
// Each call of a backend that is not Local is bounded in time and in number, whatever the backend does: one that hangs
// takes no more than its share.
package chain
