package dataset

import (
	"fmt"
	"math"
	"slices"
	"strings"

	"github.com/cohort-learning/cohort/rng"
)

// Scheme says how a data set is dealt to clients. Name chooses the rule (see [Schemes]); the other fields are its
// parameters, and a field that the rule does not use must stay zero. Deal is a pure function of the labels (or keys), the
// scheme and the seed.
type Scheme struct {
	Name    string `json:"name" yaml:"name"`
	Clients int    `json:"clients,omitempty" yaml:"clients,omitempty"` // natural: 0 means one per key; users: one per user
	// Server is how many examples, equally many of each class, the server holds and no client does.
	Server int `json:"server,omitempty" yaml:"server,omitempty"`

	PerClient      int     `json:"per_client,omitempty" yaml:"per_client,omitempty"`           // classes, pathological: classes a client; shards: shards a client. Default 2
	KeepDuplicates bool    `json:"keep_duplicates,omitempty" yaml:"keep_duplicates,omitempty"` // classes: a class drawn twice gives two shards instead of one
	Remainder      string  `json:"remainder,omitempty" yaml:"remainder,omitempty"`             // shards: "drop" (default) or "spread"
	RandomSizes    bool    `json:"random_sizes,omitempty" yaml:"random_sizes,omitempty"`       // pathological: random instead of even parts of a class
	Alpha          float64 `json:"alpha,omitempty" yaml:"alpha,omitempty"`                     // dirichlet, dirichlet-client: concentration; quantity: β of dirichlet, exponent of power
	Balance        bool    `json:"balance,omitempty" yaml:"balance,omitempty"`                 // dirichlet: full clients get nothing more
	MinSize        int     `json:"min_size,omitempty" yaml:"min_size,omitempty"`               // dirichlet (default 10), quantity (default 1), natural (default 1): fewest samples a client
	Size           int     `json:"size,omitempty" yaml:"size,omitempty"`                       // dirichlet-client: samples a client; default all, evenly
	Law            string  `json:"law,omitempty" yaml:"law,omitempty"`                         // quantity: "dirichlet" (default), "lognormal" or "power"
	Sigma          float64 `json:"sigma,omitempty" yaml:"sigma,omitempty"`                     // quantity lognormal: σ; noise: variance at the last client
}

// SchemeInfo describes a partition scheme.
type SchemeInfo struct {
	Name, Summary string
	Fields        []string // of Scheme, beside Clients
	Source        string
}

// Schemes lists the partition schemes.
func Schemes() []SchemeInfo {
	return []SchemeInfo{
		{"iid", "equal random parts", nil, "McMahan et al., arXiv 1602.05629"},
		{"classes", "balanced non-IID: K classes a client, each class in equal shards", []string{"per_client", "keep_duplicates"}, "Diao et al., arXiv 2010.01264"},
		{"shards", "sort by label, cut into equal shards, deal s each", []string{"per_client", "remainder"}, "McMahan et al., arXiv 1602.05629"},
		{"dirichlet", "each class is divided among the clients by Dir(α)", []string{"alpha", "balance", "min_size"}, "Yurochkin et al., arXiv 1905.12022"},
		{"dirichlet-client", "each client draws its class mix from Dir(α·prior); equal sizes", []string{"alpha", "size"}, "Hsu et al., arXiv 1909.06335"},
		{"pathological", "class k mod C and c−1 random others for client k", []string{"per_client", "random_sizes"}, "Li et al., arXiv 2102.02079"},
		{"quantity", "unequal sizes, labels IID", []string{"law", "alpha", "sigma", "min_size"}, "Li et al., arXiv 2102.02079"},
		{"noise", "equal random parts, Gaussian noise growing with the client number", []string{"sigma"}, "Li et al., arXiv 2102.02079"},
		{"rotation", "equal random parts, images turned by k mod 4 quarters", nil, "Ghosh et al., arXiv 2006.04088"},
		{"natural", "by the key of each row: writer, user, hospital, text row", []string{"min_size"}, "Caldas et al., arXiv 1812.01097"},
		{"users", "of ratings: whole users, equally many a client; without clients one user each", nil, "Le et al., arXiv 2212.08779"},
	}
}

// defaults fills in what was left zero.
func (s Scheme) defaults() Scheme {
	switch s.Name {
	case "classes", "shards", "pathological":
		if s.PerClient == 0 {
			s.PerClient = 2
		}
	case "dirichlet":
		if s.MinSize == 0 {
			s.MinSize = 10
		}
	case "quantity":
		if s.Law == "" {
			s.Law = "dirichlet"
		}
		if s.MinSize == 0 {
			s.MinSize = 1
		}
	case "natural":
		if s.MinSize == 0 {
			s.MinSize = 1
		}
	}
	if s.Name == "shards" && s.Remainder == "" {
		s.Remainder = "drop"
	}
	return s
}

// Validate reports the first field that is wrong whatever the data.
func (s Scheme) Validate() error {
	infos := Schemes()
	at := slices.IndexFunc(infos, func(i SchemeInfo) bool { return i.Name == s.Name })
	if at < 0 {
		names := make([]string, len(infos))
		for i, info := range infos {
			names[i] = info.Name
		}
		return unknown("partition scheme", s.Name, names)
	}
	for _, f := range s.fields() {
		if f.set && !slices.Contains(infos[at].Fields, f.name) {
			return s.errf("%s has no meaning here; it knows clients%s", f.name, strings.Join(append([]string{""}, infos[at].Fields...), ", "))
		}
	}
	s = s.defaults()
	positive := func(name string, v float64) error {
		if !(v > 0) || math.IsInf(v, 0) {
			return s.errf("%s is %v, it must be above 0", name, v)
		}
		return nil
	}
	switch {
	case s.Clients < 0 || s.Clients == 0 && s.Name != "natural" && s.Name != "users":
		return s.errf("%d clients, at least 1 is needed", s.Clients)
	case s.Server < 0:
		return s.errf("server is %d, it must not be negative", s.Server)
	case s.PerClient < 0:
		return s.errf("per_client is %d, it must be at least 1", s.PerClient)
	case s.MinSize < 0:
		return s.errf("min_size is %d, it must not be negative", s.MinSize)
	case s.Size < 0:
		return s.errf("size is %d, it must not be negative", s.Size)
	}
	switch s.Name {
	case "shards":
		if s.Remainder != "drop" && s.Remainder != "spread" {
			return s.errf("remainder is %q, expected drop or spread", s.Remainder)
		}
	case "dirichlet", "dirichlet-client":
		return positive("alpha", s.Alpha)
	case "noise":
		return positive("sigma", s.Sigma)
	case "quantity":
		switch s.Law {
		case "dirichlet", "power":
			return positive("alpha", s.Alpha)
		case "lognormal":
			return positive("sigma", s.Sigma)
		}
		return s.errf("law is %q, expected dirichlet, lognormal or power", s.Law)
	}
	return nil
}

// schemeField is a parameter of a scheme by its name in a recipe.
type schemeField struct {
	name  string
	set   bool // not zero
	value any
}

func (s Scheme) fields() []schemeField {
	return []schemeField{
		{"per_client", s.PerClient != 0, s.PerClient},
		{"keep_duplicates", s.KeepDuplicates, s.KeepDuplicates},
		{"remainder", s.Remainder != "", s.Remainder},
		{"random_sizes", s.RandomSizes, s.RandomSizes},
		{"law", s.Law != "", s.Law},
		{"alpha", s.Alpha != 0, s.Alpha},
		{"sigma", s.Sigma != 0, s.Sigma},
		{"balance", s.Balance, s.Balance},
		{"size", s.Size != 0, s.Size},
		{"min_size", s.MinSize != 0, s.MinSize},
	}
}

func (s Scheme) errf(format string, args ...any) error {
	return fmt.Errorf("partition %s: %w", s.Name, fmt.Errorf(format, args...))
}

// dealRest sets the server's examples apart and deals the others.
func (s Scheme) dealRest(train, test *Examples, seed uint64) (*Dealt, error) {
	mine, err := s.ServerRows(train, seed)
	if err != nil {
		return nil, err
	}
	rest := make([]int32, 0, train.Len()-len(mine))
	for row := range int32(train.Len()) {
		if _, found := slices.BinarySearch(mine, row); !found {
			rest = append(rest, row)
		}
	}
	light := *train // what dealing looks at
	light.Shape, light.U8, light.F32, light.Tok = []int{1}, make([]uint8, train.Len()), nil, nil
	light.Mean, light.Std = nil, nil
	alone := s
	alone.Server = 0
	d, err := alone.Deal(light.Subset(rest), test, seed)
	if err != nil {
		return nil, err
	}
	p := d.Train
	for i, row := range p.rows {
		p.rows[i] = rest[row]
	}
	p.Samples, p.Scheme.Server, d.Server = train.Len(), s.Server, mine
	return d, nil
}

// ServerRows returns the rows of the server's examples, ascending: Server/classes of each class, drawn at random by seed. They are
// the same wherever they are asked for.
func (s Scheme) ServerRows(train *Examples, seed uint64) ([]int32, error) {
	classes := train.NumClasses()
	switch {
	case train.Labels == nil:
		return nil, s.errf("server is %d, and data set %s has no class labels", s.Server, train.Name)
	case s.Server%classes != 0:
		return nil, s.errf("server is %d, which is not divisible by the %d classes of %s, of which it holds equally many examples", s.Server, classes, train.Name)
	case s.Server >= train.Len():
		return nil, s.errf("server is %d, of %d examples, which leaves none to clients", s.Server, train.Len())
	}
	each := s.Server / classes
	rows, start := byClass(train.Labels, classes)
	r := rng.New(seed, 0, "", "partition/server")
	out := make([]int32, 0, s.Server)
	for c := range classes {
		mine := rows[start[c]:start[c+1]]
		if len(mine) < each {
			return nil, s.errf("server is %d, so %d of each class, and class %d (%s) has %d examples", s.Server, each, c, train.Classes[c], len(mine))
		}
		for _, i := range r.Sample(len(mine), each) {
			out = append(out, mine[i])
		}
	}
	slices.Sort(out)
	return out, nil
}

// Deal divides the training set, and the test set along with it (nil: none).
//
// IID schemes deal the test set the same way; "classes" gives every client test shards of just the classes it holds;
// "natural" follows the keys of the test rows if they have any; all others divide each class of the test set in
// proportion to what the clients hold of it for training, so that a client's test mix is its training mix. Test lists
// may be empty when there are fewer test samples than clients; training lists never are.
func (s Scheme) Deal(train, test *Examples, seed uint64) (*Dealt, error) {
	if err := s.Validate(); err != nil {
		return nil, err
	}
	s = s.defaults()
	if s.Server > 0 {
		return s.dealRest(train, test, seed)
	}
	n := train.Len()
	if s.Clients > n {
		return nil, s.errf("%d clients for %d samples; every client needs at least one", s.Clients, n)
	}
	if train.Labels == nil && slices.Contains([]string{"classes", "shards", "dirichlet", "dirichlet-client", "pathological"}, s.Name) {
		return nil, s.errf("data set %s has no class labels; use iid, quantity or natural", train.Name)
	}
	if train.Rated() != (s.Name == "users") {
		if train.Rated() {
			return nil, s.errf("the data set %s is ratings, which are dealt by whole users; use the scheme users", train.Name)
		}
		return nil, s.errf("the data set %s has no users; the scheme is for ratings", train.Name)
	}
	r := rng.New(seed, 0, "", "partition/"+s.Name)
	d := new(Dealt)
	var err error
	switch s.Name {
	case "iid", "noise", "rotation":
		d.Train = dealIID(n, s.Clients, r)
		if test != nil {
			d.Test = dealIID(test.Len(), s.Clients, r)
		}
	case "classes":
		d, err = s.dealClasses(train, test, r)
	case "shards":
		d.Train, err = s.dealShards(train, r)
	case "dirichlet":
		d.Train, err = s.dealDirichlet(train, r)
	case "dirichlet-client":
		d.Train, err = s.dealDirichletClient(train, r)
	case "pathological":
		d.Train, err = s.dealPathological(train, r)
	case "quantity":
		d.Train, err = s.dealQuantity(n, r)
	case "natural":
		d, err = s.dealNatural(train, test, r)
	case "users":
		d, err = s.dealUsers(train, test, r)
	}
	if err != nil {
		return nil, err
	}
	if test != nil && d.Test == nil {
		d.Test = dealLike(d.Train, train, test, r)
	}
	s.Clients = d.Train.Clients()
	for _, p := range []*Partition{d.Train, d.Test} {
		if p != nil {
			p.Scheme, p.Seed = s, seed
		}
	}
	for k := range s.Clients {
		if d.Train.Size(k) == 0 {
			return nil, s.errf("client %d holds no sample; take fewer clients or a milder skew", k)
		}
	}
	return d, nil
}

// skew returns the feature skew of client k of n: for "noise" the variance σ·(k+1)/n, for "rotation" k mod 4 quarters.
func (s Scheme) skew(k, n int, seed uint64) Skew {
	switch s.Name {
	case "noise":
		return Skew{Variance: s.Sigma * float64(k+1) / float64(n), Seed: seed}
	case "rotation":
		return Skew{Quarter: k % 4}
	}
	return Skew{}
}

// dealIID gives each client ⌊n/clients⌋ distinct samples (HeteroFL's rule); the rest are dropped.
func dealIID(n, clients int, r *rng.Stream) *Partition {
	perm := shuffled(identity(n), r)
	each := n / clients
	owner := unowned(n)
	for i, row := range perm[:each*clients] {
		owner[row] = int32(i / each)
	}
	return fromOwners(owner, clients)
}

// dealLike divides each class of the test set in proportion to what the clients hold of it for training: with m_k of m
// training samples, client k gets the shuffled test samples ⌊n·M_{k−1}/m⌋ to ⌊n·M_k/m⌋, M the running sum. Test samples
// of a class that nobody trains on are dropped. Without labels all samples count as one class.
func dealLike(p *Partition, train, test *Examples, r *rng.Stream) *Partition {
	classes := max(train.NumClasses(), test.NumClasses())
	trainLabels, testLabels := train.Labels, test.Labels
	if trainLabels == nil || testLabels == nil {
		classes, trainLabels, testLabels = 1, make([]int32, train.Len()), make([]int32, test.Len())
	}
	rows, start := byClass(testLabels, classes)
	owner := unowned(test.Len())
	held := make([]int32, p.Clients()) // of one class at a time: memory stays O(clients)
	for c := range classes {
		mine := shuffled(rows[start[c]:start[c+1]], r)
		var m int64
		for k := range held {
			held[k] = 0
			for _, row := range p.Rows(k) {
				if trainLabels[row] == int32(c) {
					held[k]++
				}
			}
			m += int64(held[k])
		}
		if m == 0 {
			continue
		}
		var sum int64
		for k, h := range held {
			from := int64(len(mine)) * sum / m
			sum += int64(h)
			for _, row := range mine[from : int64(len(mine))*sum/m] {
				owner[row] = int32(k)
			}
		}
	}
	t := fromOwners(owner, p.Clients())
	t.names = p.names
	return t
}

// shuffled shuffles rows in place and returns them.
func shuffled(rows []int32, r *rng.Stream) []int32 {
	r.Shuffle(len(rows), func(i, j int) { rows[i], rows[j] = rows[j], rows[i] })
	return rows
}
