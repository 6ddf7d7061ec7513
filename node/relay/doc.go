// Package relay stands between a coordinator and members that share one line to it: a hospital, a region.
//
//   - [Relay]: a process with a public port of its own, at which its leaves join, and one connection out to the coordinator.
//   - a leaf: a member behind a relay. It keeps its name and its key, agrees to terms and is selected like everybody, and what
//     it and the coordinator say to one another is signed end to end: the relay passes it on as it is.
//   - the delegation: the coordinator's signed list of a relay's leaves.
//   - the ledger: the relay's journal of tasks that were passed on, results that it keeps and sums that it has handed in.
//
// A model comes down the long line once, for blobs are kept by their hash, and one sum goes up in place of the results. A result
// is checked, made durable, and answered with a receipt. When all leaves of a phase have answered, or after a short time, the
// results are added exactly, as the coordinator would, and handed in as one partial sum together with the messages that the
// leaves have signed, which the coordinator checks one by one. The results stay here until the coordinator has the sum: if it
// does not want some of them, because they came another way or too late, the others are added anew.
//
// Sums are exact, so nothing depends on the grouping: a relay that is killed goes on from its ledger to the same bits, and a
// leaf whose relay is gone for good takes its kept result to the coordinator, where it counts once.
package relay
