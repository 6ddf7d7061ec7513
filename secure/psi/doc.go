// Package psi finds out which entities two parties both know, without either seeing the other's list: private set intersection
// by Diffie and Hellman on the group ristretto255 (RFC 9496), in the form of Meadows (IEEE S&P 1986) and Huberman, Franklin and
// Hogg (EC 1999). It is the protocol alone: messages go in, messages come out, and who carries them is another's business.
//
// With H a hash onto the group, a secret exponent a of the [Initiator] and b of the [Responder]:
//
//	Initiator, identifiers x                            Responder, identifiers y
//	First   {H(x)^a}, shuffled                    ────▶ Answer
//	Finish                                        ◀──── {H(x)^ab} in the order received, and {H(y)^b}, shuffled
//	        (H(y)^b)^a = H(x)^ab: both know it;
//	        its token is (H(x)^ab)^(1/a) = H(x)^b
//	tokens of the rows to work on                 ────▶ Rows finds them among its own H(y)^b
//
// The initiator learns which of its identifiers the responder has, and the size of the other list. The responder learns the size
// of the initiator's list, and from the tokens which of its own rows are worked on. For rows that the responder does not have
// the initiator sends random points, which tell nothing: [Match.Tokens] has them already.
//
// A party derives all its secrets from 32 bytes that it keeps, so that one that starts again sends the same messages again.
//
// What it does not protect from. The protocol is for parties that follow it and are curious (semi-honest): one that departs from
// it can put in identifiers that it does not have, and learn whether the other has them. Sizes of lists show. Whoever may ask for
// tokens of every identifier there is (telephone numbers, dates of birth) learns the other's list that way; that the number of
// messages a session takes is one, and that lists are bounded, makes this slow, not impossible.
//
// [Hash] is the plain alternative: identifiers hashed with a secret that the parties share and whoever carries the messages does
// not know. It is fast, and any number of parties can be aligned with it; but each of them can try all identifiers it can think of
// on the others' lists.
package psi
