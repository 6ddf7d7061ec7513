// Package alnet is assisted learning of one shared feed-forward network, Procedure 2 of Xian, Wang, Ding and Ghanadan ("Assisted
// Learning: A Framework for Multi-Organization Learning", NeurIPS 2020, arXiv 2004.00566).
//
// The first layer of the network is divided among organisations by columns; its bias b and the layers above, w̃, are the sponsor's:
//
//	z = Σ_j X_j w_j + b,   F = w̃(φ(z))
//
// Organisations take turns, in round k = 1, 2, … number (k − 1) mod (m + 1), the sponsor first. Whose turn it is gets the sum of what the
// others' parts come to, n×h, the labels and w̃, makes some steps down the gradient of the loss with respect to (w_j, w̃), and the sponsor
// with respect to b besides, and answers with X_j w_j and w̃. That is block coordinate descent on the network that one party with all
// columns would train, from the same weights. To predict, activations of all are added up, and the sponsor's layers do the rest.
//
// The paper describes two organisations, says in its text that the sponsor has the even rounds and in its listing the odd ones, and leaves open what an
// update is. Here it is the listing; with more organisations their parts take turns; an update is ten steps of Adam at rate 0.01 with
// all rows. Moments last from turn to turn: those of w_j stay with the organisation, those of w̃ go with it. Parts of assistors begin at 0 instead of
// at random: weights that follow from the seed of the run, which all know, would let the sponsor compute columns from activations.
//
// It tells more than Procedure 1 (package al): labels and w̃ go to every assistor, and n×h activations come back, which are the columns of an
// organisation but for a linear map as soon as h is not below their number. Whoever may not know labels, or must not
// show columns, takes package gal or al.
package alnet
