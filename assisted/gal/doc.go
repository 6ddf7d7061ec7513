// Package gal is gradient assisted learning (Diao, Ding and Tarokh, "GAL: Gradient Assisted Learning for Decentralized
// Multi-Organization Collaborations", NeurIPS 2022, arXiv 2106.01425) and what it is compared with.
//
// In each round the sponsor sends all organisations the same matrix r of pseudo-residuals, the negative gradient of its own loss L1 by
// the predictions F; in parallel each fits a model of its own kind to it and answers with fitted values g_m. Then
//
//	ŵ = argmin_w (1/NK) Σ |r − Σ_m w_m g_m|^q     w on the probability simplex
//	η̂ = argmin_η (1/N) Σ L1(y, F + ηG)            G = Σ_m ŵ_m g_m
//	F ← F + η̂ G
//
// starting with F⁰, the mean of the labels or the logarithm of the classes' shares. Residuals are of the loss summed over
// rows, so that their scale does not depend on how many there are; the rate makes up for it.
//
// Beyond the paper, weights may be solved for each output by itself (per-class), or without the bound on their sum (nnls: G is then the
// projection of r on the cone of the g_m, and for the squared loss the rate is exactly ½), and rounds may be fitted to rows
// that are drawn (subsample).
//
// What is done differently from the authors' released code, and can be had as there ([Options]): weights are solved exactly
// instead of by a hundred steps of Adam; the rate is exact instead of that of L-BFGS; an organisation that does not answer has
// weight 0 in that round; where one is missing at prediction, its training mean stands for it; with deep model sharing weights and
// rates are solved again with the models of the last round.
package gal
