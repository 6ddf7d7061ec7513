// Package secagg lets a coordinator learn the sum of its members' vectors and nothing else about them: the protocol of
// Bonawitz et al. (CCS 2017, eprint 2017/281) with double masks, recovery of drop-outs and signed lists, and its sparse form
// by Bell et al. (CCS 2020, eprint 2020/704). It is the protocol alone: messages go in, messages come out, and who carries
// them is another's business.
//
// A session has five steps. U1 ⊇ U2 ⊇ … are those who answered each.
//
//	          Member                                              Server
//	keys      NewMember → Advert: two X25519 keys, signed  ─────▶ Advert;  Adverts closes U1, all see them
//	shares    Share → Boxes: t-of-m Shamir shares of s_u, b_u ──▶ Boxes;   Inbox closes U2, routes what it cannot read
//	masked    Mask → y_u                                   ─────▶ Masked adds at once; Survivors closes U3
//	confirm   Confirm → signature of the list U3           ─────▶ Confirm; Confirmations closes U4
//	unmask    Unmask → one share of each peer's secret     ─────▶ Reveal;  Recover gives Σ_{u∈U3} x_u
//
// with every x_u in Z_{2^b}^d and
//
//	y_u = x_u + PRG(b_u) + Σ_{v∈U2, v>u} PRG(s_uv) − Σ_{v∈U2, v<u} PRG(s_uv)   mod 2^b,   s_uv = X25519(s_u, s_v).
//
// Pair masks cancel in the sum; the coordinator removes the rest with b_u of those who came through and s_v of those who were
// lost after the second step. A member gives out a share of one or the other of a peer's secrets, for one list of survivors
// that enough others have signed, never both. What it has agreed to is part of its state ([Member.MarshalBinary]), which the
// caller makes durable before each message leaves; a step that is repeated gives the same message again, and a step that
// contradicts an earlier one is refused.
//
// Vectors. [Encode] turns reals into words: clipped, rounded to Q levels by chance, times an integer weight. A [Vector] has a
// body (a model, 32 or 64 bits a word) and some extra words of 64 bits (weights, counts). A member may hold a part of the
// body only ([Ranges]): its pair masks cover what both hold, and what too few hold is not sent at all.
//
// What it protects. Against a curious coordinator together with fewer than t members of any neighbourhood, a single vector
// stays hidden among those of the honest survivors. Against one that departs from the protocol the same holds in the model
// [Malicious], if members know each other's signing keys: it can make the session fail, but not learn more. On a sparse graph
// this has a limit: the ring of neighbours is a hash of all adverts, so a coordinator with members of its own can try rings;
// 2^g tries turn the odds of 2⁻⁴⁰ that [Choose] allows into 2^(g−40). Not prevented: members that lie about their own vector,
// and what the sum itself tells.
package secagg
