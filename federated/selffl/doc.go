// Package selffl is Self-FL: personal federated learning in which measured uncertainty decides how much every client leans on
// the others (Chen, Ding, Tramel, Wu, Sahu, Avestimehr, Zhang, "Self-Aware Personalized Federated Learning", NeurIPS 2022,
// arXiv 2204.08069).
//
// Clients' true parameters θ_m lie around a common θ_0 with variance σ_0² a coordinate, and a client's own estimate lies around
// its θ_m with variance v_m. Then the best guess of θ_m lies between the client's own estimate and that of the others,
//
//	E[θ_m] = (1 − β_m) θ_m^L + β_m G_{−m}     β_m = v_m/(v_m + σ_0² + v_{G−m})
//
// and gradient descent reaches it from G_{−m} in a number of steps that follows from β_m: few where a client is uncertain or
// clients are alike, many where it is certain or they differ. A round is
//
//	server  sends G, σ_0² and what is needed to take oneself out of G
//	client  starts from the others' model, trains ℓ_m steps of rate η_m, measures v_m and the curvature h_m, sends all
//	server  estimates σ_0² anew, weighs clients by 1/(σ_0² + v_m), and averages
//
// and every client keeps what it trained as its personal model. Two-level formulas are in posterior.go, the estimators of σ_0²
// in between.go and those of v_m in within.go.
//
// # Two ways of adding
//
// With [Keep] the server keeps every client's last upload, as published, so that absent clients still count and every estimator
// of σ_0² can be had; it costs the server clients × model. With [Drop] a round's model is that of its participants alone and
// the server only ever sees sums, which secure aggregation can hide members in: clients weigh themselves with σ_0² of the round
// before, and σ_0² comes from the sums of θ̃_m, ‖θ̃_m‖², v_m and weights ([Spread]). That takes a second vector as long as the
// model while un-shrinking is on.
//
// # Where this differs from the paper
//
// The paper's body could not be read when this was written; what is published in its abstract and in the authors' article is
// followed, the rest is derived from the model: the exact leave-one-out posterior ([Exact]; the form that treats others as
// independent is [Pairwise]), step counts that land on it, calibration of the trajectory's variance, the secant curvature, the
// un-shrink correction, and the warm start. [Published] is the setting that takes the publications literally. Warm starts mix
// the client's last model into the start, (1 − ρ)θ_m + ρG_{−m}, and ask for the contraction b = β/(β + ρ(1 − β)), whose fixed
// point is the same posterior.
//
// Steps of momentum μ count as plain steps of rate η/(1 − μ). Running statistics of batch norm are averaged like weights, but
// start from the global model, and are in no variance.
package selffl
