// Package al is assisted learning (Xian, Wang, Ding and Ghanadan, "Assisted Learning: A Framework for Multi-Organization
// Learning", NeurIPS 2020, arXiv 2004.00566).
//
// The residual of the sponsor's labels passes from one organisation to the next; each fits a model of its own kind to what it
// gets and takes its fitted values off (Procedure 1):
//
//	e ← y
//	for k = 1, 2, …: for every organisation j, the sponsor's first: fit f_{j,k} on (X_j, e);  e ← e − f_{j,k}(X_j)
//	F(x) = Σ_j Σ_k f_{j,k}(x_j)
//
// With least squares everywhere e tends to what is left by least squares on all columns, at a rate set by the angles between
// the organisations' columns (theorem 1). Other learners overfit after some rounds: the loss on held-out rows says when to stop.
//
// The printed procedure for more than two organisations keeps a stream of residuals for each assistor and adds up all
// predictions, which predicts about m times the labels; here the residual goes through all organisations (order chain, which for
// two is the printed procedure), and the streams can be had divided by m (order star-average). Messages go by the sponsor, who
// sees every residual and so can stop alone. Unlike gradient assisted learning (package gal) organisations wait for one
// another, the step is 1, and there are no weights.
package al
