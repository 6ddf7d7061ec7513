// Package transport carries messages between the coordinator of a federation and its members, and says what they are.
//
//   - [Envelope]: one message, signed by its sender over its exact bytes ([Seal], [Open]); at most [MaxMessage] bytes. What is
//     bigger is a blob, named by a [Ref].
//   - Bodies: what each [Kind] of message says, [Hello] to [Failure]. They are data only; package node gives them their meaning.
//   - [Hub] and [Link]: the coordinator's and a member's end of a transport. [NewMemory] is the twin in one process; package
//     natsbus is the real one. Package transporttest is the contract of both.
//
// Delivery is a hint: any message may be lost, repeated, or come in another order, and nothing but time is lost by it. What has
// to last stands in the coordinator's journal, and a member that comes back asks for it ([Sync]). docs/wire.md describes the
// bytes for those who write a member in another language.
package transport
