// Package private wraps a method so that nobody sees what a single member computed: with [Secure] the server learns sums only,
// with [Guard] (differential privacy) the sums say little about any one member. The method does not know: it gets its tasks
// answered and its sums, and its [federated.State] is the same but for rounding and noise. Both may be used together.
//
// # Secure sums
//
// Every phase in which members answer becomes a session of package secagg, six phases of the driver:
//
//	session   the server fixes the terms: how many take part, the threshold, who holds which part of the model
//	keys      members send keys for this session alone, signed
//	shares    they see all keys and send shares of their secrets to one another, sealed
//	masked    they do the method's own task and send its result, rounded to integers and masked
//	confirm   they sign the list of those whose vectors are in the sum
//	unmask    they give up the shares that remove what is left of the masks
//
// The driver selects, waits, journals and resumes as in any phase; members that do not answer one are not asked in the next.
// A vector is in one session only: what a member has answered to a step is kept in its [federated.Vault] before it leaves, and
// a second, different request for the same step is refused. If a session fails, the model stays as it is.
//
// The keys are signed for all the terms, and the terms say by digests what everybody in the session will be asked for: model,
// parameters, rows that are left out. A server cannot give one member a task of its own, so that the others' come to nothing and
// the sum is that member's update. Which rows enough members have it could still lie about: to all alike.
//
// What stands in the vector: the addends in float32, clipped to [−c, c] and rounded at random to Q levels, times an integer
// weight; and, in 64-bit words of their own, the weights, the scalars of [federated.Measured] and addends in float64 in
// multiples of 2⁻²⁴. So a secure run has the curves of an open one, but for what needs a single member's numbers, such as the
// worst tenth of the members.
package private
