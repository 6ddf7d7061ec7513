// Package ascii is assisted classification by an interchange of ignorance (Zhou, Xian, Li and Ding, "ASCII: ASsisted
// Classification with Ignorance Interchange", arXiv 2010.10747): assisted learning where the target is classes.
//
// All organisations hold the labels of the rows to fit; what passes from one to the next are ignorance scores w, one a row: how little
// those before have understood of it. Each fits a classifier g of its own kind to the labels under these weights, is given a weight α
// by what it got right, and scores of rows that it got wrong rise:
//
//	w ← 1
//	for t = 1, 2, …: for every organisation m, the sponsor's first:
//	    fit g_{t,m} on (X_m, y) under w;   α_{t,m} from w, r_{t,m} and those before it in the round;   w_i ← w_i exp((1 − r_i) α) / Σ
//	class of x = argmax_k Σ_t Σ_m α_{t,m} g_{t,m}(x_m)_k
//
// with r_i = 1 where row i was right, else 0, and g coded as 1 at the class and −1/(K−1) elsewhere. With one organisation this is SAMME
// (Zhu, Zou, Rosset and Hastie 2009), which for two classes is AdaBoost. The sponsor relays: it alone computes α and w, and no
// organisation learns how others have voted but through w.
//
// Labels are told, so it is for organisations that may know them: over a network a run begins only with disclose: labels, or where
// label_epsilon or max_label_recovery say how much of them may be told. Where they may not, take package gal.
package ascii
