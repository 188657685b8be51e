// Package certificate says where the server's TLS certificates come from: files that an administrator
// (or certbot) keeps, an ACME server, or one that the server made for itself at its first start.
//
// A [Keeper] holds what is served now, hands out one [tls.Config] for the life of the process, and looks
// after the sources while Run runs. What was once served well goes on being served until something
// better has been read whole: a renewal that is caught halfway, a file that went away and an ACME server
// that does not answer are told in the log and change nothing.
//
// # Tickets and tls-server-end-point
//
// The channel binding tls-server-end-point is a hash of the server's certificate (RFC 5929), and a
// resumed session has none of its own: the client takes the one it saw when the ticket was made. So a
// ticket resumes only where the same certificate would be served again. Each certificate has its own
// ticket keys, which crypto/tls rotates daily, and they go when the certificate does. This stands on:
//
//   - GetConfigForClient chooses the certificate by the client's hello and returns a config that serves
//     that certificate alone, whose WrapSession and UnwrapSession have that certificate's keys.
//   - The config that TLS returns has no tickets of its own: one who removes its GetConfigForClient still
//     gets the right certificate, but no resumption.
//
// Who wraps GetConfigForClient must hand its result on, as it is or cloned, and learns from it what the
// client sees, resumed or not: call GetCertificate of that result with the same hello. [Keeper.Leaf]
// answers for a name alone, which is exact where a name has one certificate.
package certificate
