// Package mismatch learns from rows whose labels may belong to other rows: features from one source, labels from another,
// joined by a key that is wrong for some, or that only names a block (a postcode, a day).
//
// It is mismatched supervised learning after Xian, Hong, Ding (ICASSP 2022); the formulation is reconstructed from the
// paper's abstract and its neighbours, see below. With a model f_θ, a loss ℓ and a doubly stochastic plan P,
//
//	J(θ, P) = Σ_ij P_ij [ℓ(f_θ(x_i), y_j) + λ·1{i≠j}] + τ Σ_ij P_ij (log P_ij − 1)
//
// replaces the search over permutations. For τ > 0 the minimum over P is smooth in θ, and its gradient is that of ordinary
// learning on soft labels ȳ = P*y (squares) or soft classes (cross-entropy). For τ → 0 and λ = 0 it is the combinatorial problem.
//
// Nothing needs tuning: reading J as a likelihood with noise σ² and a share α of wrong links gives τ = 2σ² and
// λ = 2σ² log((1−α)(n−1)/α), and both are estimated as the fit goes on.
//
// Three nouns:
//   - [Problem]: labels, which row each came with, blocks, certain rows, evidence.
//   - [Model]: f_θ on the rows of one table: [Linear], [Neural], [Learned], and [CrossFit] around flexible ones.
//   - [Result]: soft labels, the probability of every link, α̂, σ̂² and what to be careful about.
//
// The plan departs from entropic transport where that is known to err: its entropy counts too many ways to move rows, so that α̂ would be
// about 0.1 too high. Of small blocks all permutations are counted, of others own links are counted by Bethe's entropy; [Options].Sinkhorn
// brings the plan of J back. What else is known of links, names that agree for instance, comes in as [linkage.Evidence].
//
// [Fit] runs the three stages: a robust start, a mixture of right and wrong links, and the transport, n×n for blocks of up to
// some thousand rows (MSL-full) and n×bins beyond (MSL-bin). [Align] does it for an assistor's rows and a
// sponsor's residuals. The files baselines.go, sort.go, robot.go and classes.go have what it is compared with.
//
// # Unequal sizes
//
// A block may have more rows than labels or the reverse. What is left over goes to a dustbin, a further column or row of the
// plan of exactly the surplus, and [Options].Unmatched makes it wider; a row counts in the fit by the mass that it has outside.
//
// # Caveats
//
// A hard pairing overstates what is known: keep the probabilities, and let standard errors see the plan. A flexible network
// learns its own wrong labels by heart, after which every link looks right: wrap it in [CrossFit]. Beyond α ≈ 0.8, or with a
// target that the features hardly explain, links cannot be told; the result warns.
//
// # Sources
//
// Xian, Hong, Ding, Mismatched Supervised Learning, ICASSP 2022. Slawski and Ben-David (two stages), Slawski, Diao and
// Ben-David (mixture), Xie et al., arXiv 2012.00123 (ROBOT), Mazumder and Wang, arXiv 2106.02175 (local search), Abid and Zou,
// arXiv 1804.00681 (stochastic EM). Transport is scaled as Sinkhorn and Knopp do; assignments are found by the shortest
// augmenting paths of Jonker and Volgenant (1987). Vontobel, The Bethe permanent of a nonnegative matrix, IEEE T-IT 2013.
package mismatch
