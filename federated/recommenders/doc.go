// Package recommenders has the recommenders that people expect beside PersonalFR: what a federation's model must beat, and the
// classic that many start from.
//
//   - [MeansOptions]: the mean rating of every item, or how popular it is, from sums that members add once;
//   - [Options]: FCF, federated collaborative filtering (Ammad-ud-din, Ivannikova, Khan, Oyomno, Fu, Tan, Flanagan, arXiv 1901.09888):
//     matrix factorisation whose item factors are at the server and whose user factors never leave a member;
//   - [JointOptions]: the same factorisation by alternating least squares on the ratings of all users at one place.
//
// # The factorisation
//
// Item i has a vector y_i of so many factors and, for explicit feedback, a level β_i; a user u has x_u and, for explicit feedback, a
// level b_u. Predictions and what is minimised are, for explicit feedback (Zhou, Wilkinson, Schreiber, Pan, AAIM 2008, with levels
// besides: a user or an item with more ratings is held the tighter),
//
//	r̂_ui = β_i + b_u + x_u·y_i
//	J = ½·Σ_{rated u,i} (r̂_ui − r_ui)² + ½λ·Σ_u n_u(‖x_u‖² + b_u²) + ½λ·Σ_i n_i(‖y_i‖² + (β_i − μ)²)
//
// with n the numbers of ratings and μ the mean of all, and for implicit feedback (Hu, Koren, Volinsky, ICDM 2008) over all pairs
//
//	ŝ_ui = x_u·y_i
//	J = ½·Σ_{u,i} c_ui(ŝ_ui − p_ui)² + ½λ·(Σ_u ‖x_u‖² + Σ_i ‖y_i‖²),   c_ui = 1 + α if u has rated i, else 1
//
// where p_ui is 1 if u likes i and else 0: a low rating is an answer that is sure, none is one that is not.
//
// # Who computes what
//
// Given the items, a user's best x_u is a ridge regression on its own ratings, made anew whenever it is needed: members keep
// nothing, and a user who comes later is served like any other. At that x_u the gradient of J with respect to items is a sum over
// users, of which each member sends its own:
//
//	∂J/∂y_i = Σ_u (r̂_ui − r_ui)·x_u + λ·y_i   over the users who rated i
//	∂J/∂y_i = Σ_u c_ui(ŝ_ui − p_ui)·x_u + λ·y_i   over all users
//
// The server scales the mean of a round's members to all of them, and takes a step of Adam.
//
// # What the server sees
//
// In the open, the gradients of a member of one user tell its ratings nearly as they are (Chai, Wang, Chen, Yang, arXiv 1906.05108);
// sums of items tell them outright. Secure sums hide both.
//
// # Where this differs from the paper
//
// FCF is published for implicit feedback with c = 1 + α·r; explicit feedback, levels, and the two kinds of low answers are as above.
// Adam has no bias correction ([fedavg.Adaptive]).
package recommenders
