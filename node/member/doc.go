// Package member is a participant of a federation: the daemon behind "cohort join".
//
// It dials out and never listens. A member says hello, reads the signed terms of each run, holds them against the policy of
// its own ([Policy]) and agrees or declines. From then on the coordinator sends tasks; the member computes them on its own
// data with the same federated.Client as a simulation, and sends what comes out until it has a verdict.
//
// Five nouns:
//
//   - [Folder]: who the member is and where it keeps what it must not lose. See the files below.
//   - [Policy]: what the owner of the data allows, in a file that only the owner writes.
//   - [Member]: the daemon. [Member.Run] takes part until the runs are over; everything that it needs (connection, carrier of
//     blobs, engine, clock) is in its [Options].
//   - [Budget]: the account that rounds of a private run are paid from before anything leaves for them; [Account] is the privacy
//     ledger of the data, which all members on a machine share.
//   - [Event]: one thing that happened, for people or programs to read.
//
// # What it keeps
//
//	DIR/member.json     name, address, fingerprint and key of the federation
//	DIR/key             the member's private key
//	DIR/policy.yaml     what the owner allows
//	DIR/journal.jsonl   what was agreed to, received, answered and counted; see package journal
//	DIR/store/          blobs: the tensors of tasks and results under way
//	DIR/state/RUN/      memory of methods that have one, a file for every result that carries one
//	DIR/models/         final models
//
// # What a crash costs
//
// Nothing but time. A task is in the journal before it is begun, a result before any of it is sent, so that after a crash at
// any instant the member computes a task again from the same bytes, or sends the same bytes again. Its memory changes if and
// only if the coordinator's close says that the result was counted. The messages themselves may be lost, repeated or come
// in another order: after every connection, and every half minute, the member says what it holds and is told what it missed.
//
// # Whom it trusts
//
// Nobody who does not sign with the federation's key, and the coordinator only so far: a task must be for this member and
// for terms that it agreed to, tensors must be finite and fit, only scalars that the terms name leave, and the coordinator's
// journal must continue the one that the member has seen ([RollbackError]). docs/threat-model.md says what that does not
// protect from.
package member
