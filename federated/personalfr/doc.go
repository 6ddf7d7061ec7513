// Package personalfr is PersonalFR: recommenders that learn together and keep to themselves what they know of their users (Le,
// Diao, Wang, Anwar, Tarokh, Ding, Asilomar 2022, arXiv 2212.08779).
//
// A member holds the ratings of one user or of some. Three ideas make the method:
//
//   - ARS, the model: an auto-encoder over a user's ratings, architecture "ars" of package nn. The input x has the user's training
//     ratings and 0 elsewhere; the loss is over rated items alone: squared errors of explicit feedback, binary cross-entropy of
//     implicit.
//   - PFL, partially federated learning: the encoder stays at the member; the server averages decoders, each member alike:
//     dec ← dec + (1/|A|)·Σ_{m∈A} Δ_m.
//   - PC, partial compression: with I_m the items that the member's users have rated, only the columns I_m of the first layer and
//     the rows I_m of the last one ever have a gradient. The others are neither computed nor sent, and a row that a member does not
//     send counts as unchanged: new_i = old_i + (1/|A|)·Σ_{m∈A: i∈I_m} Δ_m,i.
//
// A member keeps its encoder and the momentum of its optimiser between its visits; the learning rate is the run's. [Options]
// choose what is shared: the decoder, all (FedAvg on the same model), the encoder (the mirror image) or nothing (every member for
// itself). [NewJoint] trains one model on all ratings. [Cost] counts words and operations exactly.
//
// # What the server sees
//
// With compression "active" members tell which items they have, before the first round. With every row sent it is no secret either:
// rows that were not touched come back unchanged. Only secure sums hide items, or noise over all rows; see docs/ratings.md.
//
// # Where this differs from the authors' code
//
// Weight decay acts on a member's own items alone; [Options.ReferenceDecay] lets it act on all, as their code does, which then has
// to send all rows. Users without training ratings are left out of batches. Sums are exact. RMSE is that of all errors together;
// theirs, a mean over batches, is reported beside it.
package personalfr
