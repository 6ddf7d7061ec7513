// Package ledger keeps what the privacy of a data set has been spent on, across runs, members and coordinators.
//
// Differential privacy protects people in data, and every noisy sum that their data enter takes a part of that protection, whoever
// asked for it. So the account belongs to the data: two members of two federations that train on the same file share one ledger,
// in a folder that all members on the machine use.
//
// Three nouns:
//
//   - [Entry]: one round of one run, with the [dp.Terms] that it was charged by. An entry is never taken back.
//   - [Ledger]: the entries of one data set. [Ledger.ChargeWithin] makes entries durable and returns, or refuses with a
//     [*SpentError] and changes nothing. Only after it has returned may anything that was computed leave.
//   - [Budget]: an (ε, δ) that all entries together must stay within. It is part of the ledger, and so is every change of it.
//
// What entries cost together is composed by the accountants of package dp: by Rényi divergences, and where only Gaussian noise of
// few kinds is in play, by the distribution of the privacy loss, which is tighter.
//
// # Files
//
//	DIR/DIGEST/journal.jsonl   the entries of the data with that digest: a hash chain, see package journal
//	DIR/lock                   held while something is charged
//
// Kinds of records are data.named, budget.set and privacy.charged. A kind that is unknown is an error, not skipped: what it spends
// could not be counted.
//
// # Who is kept from what
//
// A ledger guards its owner against mistakes: a crash, two members at once, a coordinator that restarts, asks again, or changes
// its name. A record that is changed, reordered or cut out breaks the chain and is named by file and line. An owner who deletes the
// folder deletes the account; members keep the newest head that they saw in their own journals and stop when it is gone.
//
// Data that have changed have another digest, and rows that stayed have spent their part. So ledgers under one label, usually the
// path of the data, count together, and the newest budget of any holds for all. Data that are copied elsewhere and changed there are
// new data to a ledger; nothing can tell.
package ledger
