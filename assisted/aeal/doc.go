// Package aeal is additive-effect assisted learning (Zhang, Yang and Ding): a generalised linear model whose linear predictor is a sum of the
// organisations' parts,
//
//	η = β₀ + Σ_m x_mᵀ β_m
//
// fitted by maximum likelihood without any organisation seeing another's columns or coefficients. Each in turn fits its own part, with an
// intercept of its own, beside the sum of all parts so far as an offset, and tells its part of the linear predictor:
//
//	η ← β₀, what the labels alone say
//	for k = 1, 2, …: for every organisation m, the sponsor's first:
//	    b, δ = argmin Σ_i d(y_i, η_i + b + x_{m,i}ᵀ δ)   (iteratively reweighted least squares);   η ← η + b + X_m δ
//
// d is the deviance: squared errors, log cosh of errors, of two classes (logistic regression) or of counts (Poisson regression). The authors fit
// β_m anew beside the parts of all others. Here the organisation's own part is in the offset, too, and what it fits is added to it: the optimum of
// each turn is the same, and every round is a sum of terms as in package al, so that held-out rows can pick one. For least squares the
// method is Procedure 1 of assisted learning with ordinary least squares. Coordinates descend block by block on a convex
// function, so that the limit is the maximum likelihood on all columns; it comes the faster the less the organisations' columns are correlated. With
// a penalty (learner ridge) it is on what a turn adds and not on the whole, and slows the way to the same limit down.
//
// Labels are told, with η, which says what all have found so far: it is for organisations that may know them, as package ascii. Over a
// network a run begins only with disclose: labels, or where label_epsilon or max_label_recovery say how much of them may be told.
package aeal
