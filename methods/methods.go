// Package methods is the registry: the one place that names every way of learning together. A new method adds a folder
// under federated and one entry here.
package methods

import (
	"fmt"
	"strings"

	"github.com/cohort-learning/cohort/federated"
	"github.com/cohort-learning/cohort/federated/baselines"
	"github.com/cohort-learning/cohort/federated/fedavg"
	"github.com/cohort-learning/cohort/federated/heterofl"
	"github.com/cohort-learning/cohort/federated/personal"
	"github.com/cohort-learning/cohort/federated/personalfr"
	"github.com/cohort-learning/cohort/federated/recommenders"
	"github.com/cohort-learning/cohort/federated/scaffold"
	"github.com/cohort-learning/cohort/federated/selffl"
	"github.com/cohort-learning/cohort/federated/semifl"
)

// Options are a method's own part of a recipe: a struct whose fields have yaml names and doc texts.
type Options interface {
	// New returns the method on a problem, or an error that names the option that cannot be.
	New(*federated.Problem) (federated.Algorithm, error)
}

// Method is one entry of the registry.
type Method struct {
	Name    string // as a recipe calls it
	Title   string
	Summary string         // one line: when to use it
	Paper   string         // where it is published
	Options func() Options // its options at their defaults
}

// Ratings reports whether a method learns from ratings of users and items, and from nothing else; the others do not.
func (m Method) Ratings() bool {
	_, ok := m.Options().(interface{ Ratings() })
	return ok
}

// All lists the methods: the main ones first, then baselines.
func All() []Method {
	return []Method{
		{"heterofl", "HeteroFL", "clients of unequal strength train nested slices of one model", "Diao et al., arXiv 2010.01264",
			func() Options { return heterofl.Defaults(heterofl.Leading) }},
		{"fedrolex", "FedRolex", "like heterofl, with a window of channels that rolls on every round", "Alam et al., arXiv 2212.01548",
			func() Options { return heterofl.Defaults(heterofl.Rolling) }},
		{"feddropout", "Federated dropout", "like heterofl, with random channels for each client and round", "Caldas et al., arXiv 1812.07210",
			func() Options { return heterofl.Defaults(heterofl.Random) }},
		{"fjord", "FjORD", "like heterofl, with a width redrawn at every local step", "Horváth et al., arXiv 2102.13451",
			func() Options { return heterofl.Defaults(heterofl.Ordered) }},
		{"fedavg", "FedAvg", "clients train the same model, the server averages", "McMahan et al., arXiv 1602.05629",
			func() Options { return fedavg.Defaults() }},
		{"fedprox", "FedProx", "fedavg with a pull towards the received model, for drifting or straggling clients", "Li et al., arXiv 1812.06127",
			func() Options { return fedavg.ProxDefaults() }},
		{"fedavgm", "FedAvgM", "fedavg with momentum at the server", "Hsu et al., arXiv 1909.06335",
			func() Options { return fedavg.MomentumDefaults() }},
		{"fedadam", "FedAdam", "fedavg with Adam at the server", "Reddi et al., arXiv 2003.00295",
			func() Options { return fedavg.AdaptiveDefaults(fedavg.Adam) }},
		{"fedyogi", "FedYogi", "fedavg with Yogi at the server", "Reddi et al., arXiv 2003.00295",
			func() Options { return fedavg.AdaptiveDefaults(fedavg.Yogi) }},
		{"fedadagrad", "FedAdagrad", "fedavg with Adagrad at the server", "Reddi et al., arXiv 2003.00295",
			func() Options { return fedavg.AdaptiveDefaults(fedavg.Adagrad) }},
		{"scaffold", "SCAFFOLD", "control variates against client drift; clients keep state", "Karimireddy et al., arXiv 1910.06378",
			func() Options { return scaffold.Defaults() }},
		{"ditto", "Ditto", "every client keeps a model of its own near the global one", "Li et al., arXiv 2012.04221",
			func() Options { return personal.DittoDefaults() }},
		{"per-fedavg", "Per-FedAvg", "a global model that one step on own data makes personal", "Fallah et al., arXiv 2002.07948",
			func() Options { return personal.PerFedAvgDefaults() }},
		{"pfedme", "pFedMe", "clients' own models near the global one, which moves towards them", "Dinh et al., arXiv 2006.08848",
			func() Options { return personal.PFedMeDefaults() }},
		{"apfl", "APFL", "clients mix a model of their own with the global one", "Deng et al., arXiv 2003.13461",
			func() Options { return personal.APFLDefaults() }},
		{"fedrep", "FedRep", "a shared body, trained in turn with every client's own last layer", "Collins et al., arXiv 2102.07078",
			func() Options { return personal.FedRepDefaults() }},
		{"fedper", "FedPer", "a shared body, trained together with every client's own last layer", "Arivazhagan et al., arXiv 1912.00818",
			func() Options { return personal.FedPerDefaults() }},
		{"finetune", "Fine-tuning", "fedavg whose clients train the model on for themselves: the yardstick of personal models", "",
			func() Options { return personal.FineTuneDefaults() }},
		{"semifl", "SemiFL", "a few labels at the server, none at the clients", "Diao et al., arXiv 2106.01432",
			func() Options { return semifl.DefaultOptions() }},
		{"fedavg-fixmatch", "FedAvg with FixMatch", "the naive rival of semifl: clients relabel every batch, the server trains at the same time", "Sohn et al., arXiv 2001.07685",
			func() Options { return semifl.FixMatchOptions() }},
		{"fedsgd-fixmatch", "FedSGD with FixMatch", "fedavg-fixmatch with one step a round", "Sohn et al., arXiv 2001.07685",
			func() Options { return semifl.FedSGDOptions() }},
		{"fedrgd", "FedRGD", "fedavg-fixmatch that averages within two groups of clients first", "Zhang et al., arXiv 2008.11364",
			func() Options { return semifl.RGDOptions() }},
		{"fedmatch", "FedMatch, simplified", "fedavg-fixmatch whose server and clients train parts of each convolution", "Jeong et al., arXiv 2006.12097",
			func() Options { return semifl.MatchOptions() }},
		{"selffl", "Self-FL", "personal models; measured uncertainty decides how much every client leans on the others", "Chen et al., arXiv 2204.08069",
			func() Options { return selffl.Defaults() }},
		{"personalfr", "PersonalFR", "recommenders whose encoders stay with their users; only rows of own items travel", "Le et al., arXiv 2212.08779",
			func() Options { return personalfr.Defaults() }},
		{"joint-ars", "Joint ARS", "personalfr's model trained on the ratings of all users at one place: the yardstick", "Le et al., arXiv 2212.08779",
			func() Options { return personalfr.JointDefaults() }},
		{"fcf", "FCF", "matrix factorisation: factors of items at the server, those of users nowhere but at the users", "Ammad-ud-din et al., arXiv 1901.09888",
			func() Options { return recommenders.Defaults() }},
		{"joint-als", "Joint ALS", "fcf's model by alternating least squares on the ratings of all users at one place: the yardstick", "Hu et al., ICDM 2008",
			func() Options { return recommenders.JointDefaults() }},
		{"item-mean", "Item means", "the mean rating of every item, the same for all users: what a recommender must beat", "",
			func() Options { return recommenders.MeansDefaults() }},
		{"popularity", "Popularity", "how many users like an item, the same for all users: what a recommender must beat", "",
			func() Options { return recommenders.PopularityDefaults() }},
		{"fedbn", "FedBN", "clients keep their own batch norm layers, for unlike features", "Li et al., arXiv 2102.07623",
			func() Options { return baselines.PartialDefaults("uniform", baselines.AllButBatchNorm) }},
		{"lg-fedavg", "LG-FedAvg", "clients keep their representation and share the last layer", "Liang et al., arXiv 2001.01523",
			func() Options { return baselines.PartialDefaults("examples", baselines.LastLayer) }},
		{"local", "Local only", "every client for itself: the lower bound", "",
			func() Options { return baselines.PartialDefaults("examples", baselines.Nothing) }},
		{"centralised", "Centralised", "one learner with all the data: the upper bound", "",
			func() Options { return &baselines.CentralisedOptions{} }},
	}
}

// Names returns the names of all methods, in the order of All.
func Names() []string {
	var names []string
	for _, m := range All() {
		names = append(names, m.Name)
	}
	return names
}

// Find returns the method of that name; the error lists those that exist.
func Find(name string) (Method, error) {
	for _, m := range All() {
		if m.Name == name {
			return m, nil
		}
	}
	return Method{}, fmt.Errorf("there is no method %q; the methods are %s", name, strings.Join(Names(), ", "))
}
