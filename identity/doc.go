// Package identity answers who is who in a federation: keys, the certificates
// that carry them, the tokens by which members are invited, and the roster that
// says who belongs.
//
// Five nouns:
//
//   - A [Key] is one Ed25519 key, made where it is used and never sent. It is at
//     once the NKey by which NATS knows its holder, the key of the TLS client
//     certificate, and the signer of results. [Public] is the half that others see.
//   - The coordinator's key names the federation: whoever knows that [Public] can
//     check everything below.
//   - An [Authority] is the federation's own certificate authority, for the one
//     certificate that its public port shows. Members know it by [Fingerprint].
//     It uses ECDSA P-256, because browsers accept that.
//   - A [Token] invites one name, once, until a date. It carries everything that a
//     member must know to find the right server and to recognise it.
//   - A [Roster] is the signed list of who was invited, admitted, has left or was
//     revoked: a journal in a folder of its own, each record signed by the
//     federation's key over its exact bytes, its number and the hash before it.
//
// Setting up and joining, without the network between:
//
//	coordinator, _ := identity.NewKey()
//	roster, _ := identity.Found(dir, coordinator, "clinics", journal.Options{})
//	authority, _ := identity.NewAuthority("clinics", time.Now())
//	tokens, _ := roster.Tokens("https://fl.example.org", authority.Fingerprint(), expires, "north")
//
//	member, _ := identity.NewKey()                                  // on the member's machine
//	token, _ := identity.ParseToken(text)
//	conf := identity.ClientTLS(member, "fl.example.org", token.CA)  // recognises the server
//	_, _ = roster.Admit(token.Name, token.Secret, member.Public())  // what the server does with it
//
// # What a signature covers
//
// Every message that is signed here begins with a text that names its purpose
// and its version, such as cohort/roster/1, and each variable part is preceded
// by its length. So a signature made for one purpose says nothing in another.
//
// # What this does not do
//
// The federation's key itself cannot be replaced: it is what everything hangs
// on. Members see each other's names and keys in the roster. The hash chain
// proves nothing against the coordinator, who can write another one; members
// therefore remember the newest head that they saw, and [VerifyRoster] refuses a
// roster that does not extend it ([RollbackError]).
package identity
