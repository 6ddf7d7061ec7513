// Package coordinator is the server of a federation: it admits members, tells them what to do, and adds what they send.
//
//   - [Server]: the federation. It answers what members ask over a [transport.Hub] and has the runs.
//   - [Run]: one run. federated.Run drives it, as it drives a simulation; the run is its [federated.Members] and its
//     [federated.Log].
//   - the desk of a run: its orders on their way. An order is open, then accepted once its result is durable, then folded.
//
// The journal of a run is the truth. A result counts from the moment its record is durable; a phase has closed once a snapshot of
// the state after it, and then the record that names the snapshot, are. After a crash the run goes on within the phase that was
// under way: with its recorded selection, with what had been folded by the newest checkpoint of its sums, with the results that
// had been accepted since, in their recorded order, and with whatever members send again. Messages are hints; see package
// transport.
package coordinator
