// Package worker lends machines to a simulation: the clients of a round are spread over them, and the run comes out to the
// same bits as on one machine, only sooner.
//
//   - [Host]: the simulation's side. It listens, tells who may come ([Address]), and is an executor of the run's pool for
//     every worker that is there ([Host.Lend]).
//   - [Work]: a lent machine's side. It connects, computes what it is sent, and goes when the run is over.
//   - [Run]: what a worker has to know of the run to make the same clients.
//
// A simulation holds all data, and a worker gets what its clients need: their examples, the model, what they keep. So a worker
// is a machine of the one who runs the simulation, not a party with data of its own. Nothing is written to its disk.
//
// Both sides know each other: the worker compares the fingerprint of the host's certificate, the host sees a proof that the
// worker holds the secret of the address, which is made from the very connection (TLS 1.3, RFC 9266's channel binding).
//
// Every content is named by its SHA-256 and asked for by the worker that lacks it, so that a model or a client's examples go
// to a worker once as long as its memory holds them. Answers are checked like a stranger's: names and shapes here, values by
// the driver. A worker that is lost in the middle of a task takes nothing with it: another computes the same.
package worker
