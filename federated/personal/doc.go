// Package personal holds methods that give every client a model of its own, for clients whose data are unlike:
//
//	Ditto        a second model beside FedAvg's, pulled towards it             (Li et al., arXiv 2012.04221)
//	Per-FedAvg   a global model that one step on own data makes personal       (Fallah et al., arXiv 2002.07948)
//	pFedMe       the minimum of the own loss near the global model             (Dinh et al., arXiv 2006.08848)
//	APFL         a mixture of an own model and the global one                  (Deng et al., arXiv 2003.13461)
//	FedRep       a shared body under an own head, trained in turn              (Collins et al., arXiv 2102.07078)
//	FedPer       the same, trained together                                    (Arivazhagan et al., arXiv 1912.00818)
//	fine-tuning  FedAvg's model, trained on by each client at the end
//
// What is sent is what federated averaging sends, the whole model or its body, so that everything goes with these methods that
// goes with FedAvg: secure sums, differential privacy, robust rules, rounds that overlap. The own models never leave. They are
// the members' memory: replaced if and only if the member's result is folded, and there again after a restart. A member
// without memory, at its first visit or because it was lost, starts from the model that it is sent (of FedRep and FedPer: with
// the common initial head); how many did in a round is the metric "personal.begun".
//
// Members test the global model and their own: "accuracy.local" is that of the global model on the members' test data,
// "accuracy.personal" that of their own.
//
// In the formulas w is the model that a member receives, F_k its loss, g(w; b) the gradient of the loss of a batch b.
package personal
