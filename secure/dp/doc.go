// Package dp hides single members in what a federation publishes: differential privacy (DP) at the level of a client.
//
// A run is (ε, δ)-private if, for any member and any set O of things that could be published,
//
//	P(O with the member) ≤ e^ε · P(O without) + δ, and the same the other way round.
//
// Three steps make a sum of updates private, and each has its place here:
//
//   - [Clip] bounds what one member can change: no update is longer than the clip bound S. [Adaptive] learns S.
//   - [Central] adds Gaussian noise of standard deviation z·S to the sum and divides by the fixed number q·K, where q is the
//     probability with which each of K enrolled members takes part. z is the noise multiplier. [Skellam] is the same with
//     integers and with noise that members add in shares, for sums that nobody sees in the clear.
//   - An accountant says what many rounds cost together: [RDP] with Rényi divergences, fast and for any number of rounds;
//     [PLD] with the distribution of the privacy loss itself, tighter, the default. [Plan] turns the question round: how much
//     noise for this ε?
//
// The two halves meet in a [Release], "so many rounds with this q and this z":
//
//	eps, err := dp.PLD.Epsilon(1e-5, dp.Release{Fraction: 0.1, Noise: 1, Rounds: 100})
//
// # What is assumed
//
// Neighbours differ by one member added or removed. Every enrolled member takes part with probability q by a coin of its own
// that nobody else sees; the divisor q·K does not depend on who came; all updates are clipped before they are added. The
// accountants count what is published, the noisy sums: whoever adds the noise sees more and is trusted with it.
// A cohort of fixed size is not Poisson sampling, and no number printed here holds for it.
//
// # Randomness
//
// Noise is drawn from an [io.Reader], which outside of tests is crypto/rand.Reader; streams of package rng can be predicted by
// whoever knows the run's seed. Sampling a Gaussian in floating point leaks through the last bits of the result (Mironov, CCS
// 2012: which doubles can come out depends on the secret). [Central] is safe against that: the sum is an integer multiple of a
// grid, the noise is ⌊σN⌋ for an exact normal N (see [Noise.Normal]), and integers are added. As ⌊x + σN⌋ = x + ⌊σN⌋ for an
// integer x, what is published is a function of the ideal Gaussian mechanism's output, so that its guarantee holds unchanged.
// [Skellam] adds integers too, but its sampler is exact only to float64: see there. Neither runs in constant time; an
// attacker who times single draws is outside of what is defended.
package dp
