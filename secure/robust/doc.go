// Package robust combines what members send when some of them may lie: a few wrong updates, however wrong, move the result
// only so far.
//
// A mean follows a single liar anywhere. The rules here do not, each under its own assumption about how many of the n
// updates x_i ∈ R^d are wrong:
//
//   - [Median], [TrimmedMean]: per coordinate (Yin et al., arXiv 1803.01498).
//   - [Krum], its average over several members, and [Bulyan]: whole updates that lie close to many others (Blanchard et al.,
//     NeurIPS 2017; El Mhamdi et al., arXiv 1802.07927).
//   - [GeometricMedian]: the point with the smallest sum of distances, known as RFA (Pillutla et al., arXiv 1912.13445).
//   - [NormClip], [CentredClip]: nobody moves the result further than a bound (Karimireddy et al., arXiv 2012.10333).
//
// A [Rule] is one of them, with or without bucketing before it (arXiv 2006.09365). It reads a [Spool], a file to which results
// are appended as they come, block by block, so that memory does not grow with members times parameters:
//
//	spool, err := robust.NewSpool(like, "")
//	err = spool.Append(member, order, update, nil, nil, 1)
//	c, err := robust.Rule{Method: robust.Median{}}.Combine(ctx, spool, robust.Memory{}, stream)
//
// # Holders
//
// Where members train parts of a model (HeteroFL), rules that work per coordinate, and clipping, count at each coordinate those
// who hold it; the others need whole updates and refuse parts, naming the member that sent one.
//
// # Same bits
//
// Rows are float32 and computed with in float64, in the order of the members, in blocks that depend on the number of rows
// alone. So the result depends neither on the order of arrival nor on the number of threads.
//
// # What it does not do
//
// Robust rules look at single updates: nothing of a member is hidden from the coordinator, and secure sums are out of reach.
// When honest members differ much from one another, as with unlike data, a rule takes some of them for liars: its result is
// biased, and bucketing helps. Weights are what members claim, so every rule weighs members alike unless told otherwise.
package robust
