// Package assisted is learning together with different features of the same entities: what its methods share.
//
// Organisations hold different columns about the same people. One of them, the sponsor, has labels and an objective; it sends
// a vector of residuals, and each organisation fits a model of its own kind to them and answers with fitted values. No
// features, models or labels travel.
//
// A method is a [federated.Algorithm], driven by [federated.Run] as every other: it runs in a simulation and over a network
// with the same selection, deadlines, recovery and record. Its members are the organisations, the sponsor's own desk among
// them. These are the pieces:
//
//   - [Sponsor]: the labels, the objective ([Objective]) and which rows are for what. It is the coordinator's, and never leaves it.
//   - [Desk]: an organisation's side, a [federated.Client] with a table, a learner and a store of the models it has fitted.
//   - [Table]: phases, tasks and checks of answers that all methods of this kind have in common.
//   - [Ensemble]: what a run has come to, F(x) = F⁰ + Σ_m Σ_t c_{m,t} f_{m,t}(x_m), where f_{m,t} stays at organisation m;
//     [Prediction] asks the organisations for their parts of it.
//
// Matrices have a row an entity, in float64, and travel so.
package assisted
