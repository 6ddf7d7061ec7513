package dataset

import (
	"cmp"
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/cohort-learning/cohort/rng"
)

// Ratings says what the rows of a data set of ratings stand for. Such a data set has one row for each rating: its Tok holds
// pairs (user, item) of indices into Users and Items, shape [2], and its Targets the ratings.
//
// Items are what parties agree on. Users are known where their ratings lie and nowhere else.
type Ratings struct {
	Users    []string `json:"users,omitempty"`
	Items    []string `json:"items"`
	Titles   []string `json:"titles,omitempty"`   // of the items, or nil
	Tags     []string `json:"tags,omitempty"`     // of the items, such as "Action|Thriller", or nil
	Profiles []string `json:"profiles,omitempty"` // of the users, such as "24 M technician", or nil
	Low      float32  `json:"low"`                // the least and the greatest rating there can be
	High     float32  `json:"high"`
}

// Title returns what to call an item: its title if it has one, else its name.
func (r *Ratings) Title(item int) string {
	if item < len(r.Titles) && r.Titles[item] != "" {
		return r.Titles[item]
	}
	return r.Items[item]
}

// User returns the index of a user of that name. The error says what names look like.
func (r *Ratings) User(name string) (int, error) {
	if i := slices.Index(r.Users, name); i >= 0 {
		return i, nil
	}
	if len(r.Users) == 0 {
		return 0, fmt.Errorf("there is no user %q: the data name no users", name)
	}
	return 0, fmt.Errorf("there is no user %q among the %d users, who are called such as %q and %q", name, len(r.Users), r.Users[0], r.Users[len(r.Users)-1])
}

// maxRated bounds the items and the users of a data set of ratings.
const maxRated = 1 << 24

// validate reports what cannot be, beside what [Examples.Validate] finds of any data set.
func (r *Ratings) validate(e *Examples) error {
	switch {
	case len(e.Shape) != 1 || e.Shape[0] != 2 || e.U8 != nil || e.F32 != nil:
		return fmt.Errorf("data set %s: a rating is a pair of a user and an item, not of shape %v", e.Name, e.Shape)
	case len(e.Tok) > 0 && len(e.Targets) == 0:
		return fmt.Errorf("data set %s: pairs of users and items without ratings", e.Name)
	case len(r.Items) == 0 || len(r.Items) > maxRated || len(r.Users) > maxRated:
		return fmt.Errorf("data set %s: %d items and %d users; expected at least one item and at most %d of both", e.Name, len(r.Items), len(r.Users), maxRated)
	case r.Titles != nil && len(r.Titles) != len(r.Items), r.Tags != nil && len(r.Tags) != len(r.Items):
		return fmt.Errorf("data set %s: %d titles and %d tags for %d items", e.Name, len(r.Titles), len(r.Tags), len(r.Items))
	case r.Profiles != nil && len(r.Profiles) != len(r.Users):
		return fmt.Errorf("data set %s: %d profiles for %d users", e.Name, len(r.Profiles), len(r.Users))
	case !(r.Low < r.High) || math.IsInf(float64(r.High-r.Low), 0):
		return fmt.Errorf("data set %s: ratings from %v to %v: the first must be below the second", e.Name, r.Low, r.High)
	}
	for i := 0; i+1 < len(e.Tok); i += 2 {
		u, item, v := e.Tok[i], e.Tok[i+1], e.Targets[i/2]
		if u < 0 || int(u) >= len(r.Users) || item < 0 || int(item) >= len(r.Items) {
			return fmt.Errorf("data set %s: rating %d is of user %d and item %d; there are %d users and %d items", e.Name, i/2, u, item, len(r.Users), len(r.Items))
		}
		if !(v >= r.Low && v <= r.High) {
			return fmt.Errorf("data set %s: user %s rates item %s %v, outside the scale from %v to %v", e.Name, r.Users[u], r.Items[item], v, r.Low, r.High)
		}
	}
	return nil
}

// Rated reports whether the data are ratings; then they are neither text nor examples for a model of rows.
func (e *Examples) Rated() bool { return e.Ratings != nil }

// IsText reports whether the data are tokens of a text.
func (e *Examples) IsText() bool { return e.Tok != nil && e.Ratings == nil }

// ratingPart collects the ratings of one part, in the numbers of a [ratingTable].
type ratingPart struct {
	pairs  []int32
	values []float32
	files  []string // it comes from
	from   []int    // first rating of each
	unit   string   // what places in them are counted in: line or row
	lines  []int32
}

// ratingTable collects ratings and numbers users and items as they come.
type ratingTable struct {
	users  map[string]int32
	items  map[string]int32
	named  [2][]string // users and items
	agreed *Ratings    // the items and the scale that there must be, or nil
	scale  []float64   // the recipe's, or nil
	ignore []float64
}

func newRatingTable(s Spec, agreed *Ratings) *ratingTable {
	t := &ratingTable{users: map[string]int32{}, items: map[string]int32{}, agreed: agreed, scale: s.Scale, ignore: s.Ignore}
	if agreed != nil {
		for i, name := range agreed.Items {
			t.items[name] = int32(i)
		}
		t.named[1] = agreed.Items
	}
	return t
}

// begin says that what is added next to p comes from a file.
func (p *ratingPart) begin(file, unit string) {
	p.files, p.from, p.unit = append(p.files, file), append(p.from, len(p.values)), unit
}

// place says where rating k stands.
func (p *ratingPart) place(k int) string {
	i, _ := slices.BinarySearch(p.from, k+1)
	return fmt.Sprintf("%s: %s %d", p.files[i-1], p.unit, p.lines[k])
}

func number32(names *[]string, of map[string]int32, name string) int32 {
	k, ok := of[name]
	if !ok {
		k = int32(len(*names))
		name = strings.Clone(name)
		of[name] = k
		*names = append(*names, name)
	}
	return k
}

// errUnknownItem is the cause of a rating of an item that the parties have not agreed on.
var errUnknownItem = errors.New("it is not among the items that the coordinator knows")

// add adds one rating.
func (t *ratingTable) add(p *ratingPart, line int, user, item string, rating float64) error {
	if slices.Contains(t.ignore, rating) {
		return nil
	}
	switch {
	case user == "":
		return errors.New("the user is missing")
	case item == "":
		return errors.New("the item is missing")
	case math.IsNaN(rating) || math.IsInf(float64(float32(rating)), 0):
		return fmt.Errorf("the rating is %v", rating)
	case len(t.users) >= maxRated || len(t.items) >= maxRated:
		return fmt.Errorf("more than %d users or items", maxRated)
	}
	if t.agreed != nil {
		if _, ok := t.items[item]; !ok {
			return fmt.Errorf("item %.80q: %w (%d items, such as %q)", item, errUnknownItem, len(t.agreed.Items), t.agreed.Items[0])
		}
	}
	if lo, hi, ok := t.bounds(); ok && !(float32(rating) >= lo && float32(rating) <= hi) {
		return fmt.Errorf("a rating of %v is outside the scale from %v to %v; correct it, or set data.scale or data.ignore", rating, lo, hi)
	}
	p.pairs = append(p.pairs, number32(&t.named[0], t.users, user), number32(&t.named[1], t.items, item))
	p.values = append(p.values, float32(rating))
	p.lines = append(p.lines, int32(min(line, math.MaxInt32)))
	return nil
}

// bounds returns the scale, if it is known before the ratings are.
func (t *ratingTable) bounds() (lo, hi float32, ok bool) {
	switch {
	case t.agreed != nil:
		return t.agreed.Low, t.agreed.High, true
	case len(t.scale) == 2:
		return float32(t.scale[0]), float32(t.scale[1]), true
	}
	return 0, 0, false
}

// byID orders names: whole numbers by size and before all others, which are ordered by spelling.
func byID(a, b string) int {
	x, errA := strconv.ParseUint(a, 10, 64)
	y, errB := strconv.ParseUint(b, 10, 64)
	switch {
	case errA == nil && errB == nil:
		return cmp.Or(cmp.Compare(x, y), strings.Compare(a, b))
	case errA == nil:
		return -1
	case errB == nil:
		return 1
	}
	return strings.Compare(a, b)
}

// twice returns an error if a user rates an item more than once in the parts together.
func (t *ratingTable) twice(parts ...*ratingPart) error {
	type at struct {
		part *ratingPart
		k    int
	}
	seen := make(map[int64]at)
	for _, p := range parts {
		if p == nil {
			continue
		}
		for k := range p.values {
			key := int64(p.pairs[2*k])<<32 | int64(p.pairs[2*k+1])
			if first, ok := seen[key]; ok {
				return fmt.Errorf("%s: user %q rates item %q once more, after %s; keep one of the two", p.place(k), t.named[0][p.pairs[2*k]],
					t.named[1][p.pairs[2*k+1]], first.part.place(first.k))
			}
			seen[key] = at{p, k}
		}
	}
	return nil
}

// split makes the data set: users and items in the order of their names, a part held out at random unless there is a test part.
func (t *ratingTable) split(s Spec, train, test *ratingPart) (*Split, error) {
	if err := t.twice(train, test); err != nil {
		return nil, err
	}
	keep := t.chosen(s, train, test)
	r := &Ratings{}
	var number [2][]int32
	for axis := range number {
		number[axis] = make([]int32, len(t.named[axis]))
		order := identity(len(t.named[axis]))
		if axis == 0 || t.agreed == nil {
			slices.SortFunc(order, func(a, b int32) int { return byID(t.named[axis][a], t.named[axis][b]) })
		}
		var names []string
		for _, k := range order {
			number[axis][k] = nobody
			if keep[axis] == nil || keep[axis][k] {
				number[axis][k] = int32(len(names))
				names = append(names, t.named[axis][k])
			}
		}
		if axis == 0 {
			r.Users = names
		} else {
			r.Items = names
		}
	}
	split := &Split{Train: train.examples(s.Name, r, number)}
	if test != nil {
		split.Test = test.examples(s.Name, r, number)
	}
	if len(split.Train.Targets) == 0 {
		return nil, fmt.Errorf("no ratings are left of %d; lower min_ratings", len(train.values))
	}
	if err := t.fit(r, split); err != nil {
		return nil, err
	}
	if test == nil {
		split = s.holdOutRatings(split.Train)
	}
	return split, nil
}

// fit sets scale, titles and tags of the data.
func (t *ratingTable) fit(r *Ratings, split *Split) error {
	if t.agreed != nil {
		r.Titles, r.Tags = t.agreed.Titles, t.agreed.Tags
	}
	var ok bool
	if r.Low, r.High, ok = t.bounds(); ok {
		return nil
	}
	all := split.Train.Targets
	r.Low, r.High = slices.Min(all), slices.Max(all)
	if split.Test != nil && len(split.Test.Targets) > 0 {
		r.Low, r.High = min(r.Low, slices.Min(split.Test.Targets)), max(r.High, slices.Max(split.Test.Targets))
	}
	if r.Low == r.High {
		return fmt.Errorf("all ratings are %v: there is nothing to learn; if others could be given, say so with data.scale", r.Low)
	}
	return nil
}

// chosen says which users and items are kept, by number; nil: all. Both are counted once, before anything is left out; then the
// first users are kept, and the items that these have rated.
func (t *ratingTable) chosen(s Spec, parts ...*ratingPart) (keep [2][]bool) {
	if s.MinRatings <= 1 && s.Users == 0 {
		return keep
	}
	var count [2][]int
	for axis := range count {
		count[axis], keep[axis] = make([]int, len(t.named[axis])), make([]bool, len(t.named[axis]))
	}
	each := func(f func(user, item int32)) {
		for _, p := range parts {
			for k := 0; p != nil && k < len(p.pairs); k += 2 {
				f(p.pairs[k], p.pairs[k+1])
			}
		}
	}
	each(func(user, item int32) { count[0][user]++; count[1][item]++ })
	for axis := range count {
		for k, n := range count[axis] {
			keep[axis][k] = n >= s.MinRatings
		}
	}
	if s.Users > 0 {
		order := slices.DeleteFunc(identity(len(keep[0])), func(k int32) bool { return !keep[0][k] })
		slices.SortFunc(order, func(a, b int32) int { return byID(t.named[0][a], t.named[0][b]) })
		for _, k := range order[min(s.Users, len(order)):] {
			keep[0][k] = false
		}
	}
	var left [2][]bool
	for axis := range left {
		left[axis] = make([]bool, len(keep[axis]))
	}
	each(func(user, item int32) {
		if keep[0][user] && keep[1][item] {
			left[0][user], left[1][item] = true, true
		}
	})
	return left
}

// examples renumbers a part; ratings of what is left out are dropped.
func (p *ratingPart) examples(name string, r *Ratings, number [2][]int32) *Examples {
	e := &Examples{Name: name, Shape: []int{2}, Tok: make([]int32, 0, len(p.pairs)), Targets: make([]float32, 0, len(p.values)), Ratings: r}
	for k, v := range p.values {
		user, item := number[0][p.pairs[2*k]], number[1][p.pairs[2*k+1]]
		if user != nobody && item != nobody {
			e.Tok, e.Targets = append(e.Tok, user, item), append(e.Targets, v)
		}
	}
	return e
}

// holdOutRatings divides ratings, not users: of a random permutation of all n, the first ⌊n − fraction·n + ½⌋ are for training and
// the others for testing. Without a fraction it is a tenth.
func (s Spec) holdOutRatings(e *Examples) *Split {
	fraction := s.TestFraction
	if fraction == 0 {
		fraction = 0.1
	}
	test := int(fraction*float64(e.Len()) + 0.5)
	if fraction < 0 || test == 0 || test == e.Len() {
		return &Split{Train: e}
	}
	rows := shuffled(identity(e.Len()), rng.New(s.Seed, 0, "", "dataset/holdout"))
	rest := rows[e.Len()-test:]
	rows = rows[:e.Len()-test]
	slices.Sort(rows)
	slices.Sort(rest)
	return &Split{Train: e.Subset(rows), Test: e.Subset(rest)}
}

// dealUsers deals users, each with all its ratings: in random order ⌊users/clients⌋ to every client, and one more to each of the
// first while they last. The ratings of a user that are for testing go where the others are. Users without training ratings are
// not dealt. With as many clients as users, or Clients 0, every user is a client, named as it is.
func (s Scheme) dealUsers(train, test *Examples, r *rng.Stream) (*Dealt, error) {
	rating := make([]bool, len(train.Ratings.Users))
	for k := 0; k < len(train.Tok); k += 2 {
		rating[train.Tok[k]] = true
	}
	users := slices.DeleteFunc(identity(len(rating)), func(u int32) bool { return !rating[u] })
	clients := s.Clients
	if clients == 0 {
		clients = len(users)
	}
	if clients > len(users) {
		return nil, s.errf("%d clients, but %d users have ratings to train on; take at most as many clients as users", clients, len(users))
	}
	of := unowned(len(rating))
	var names []string
	if clients == len(users) {
		for k, u := range users {
			of[u], names = int32(k), append(names, train.Ratings.Users[u])
		}
	} else {
		shuffled(users, r)
		each, more := len(users)/clients, len(users)%clients
		at := 0
		for k := range clients {
			n := each
			if k < more {
				n++
			}
			for _, u := range users[at : at+n] {
				of[u] = int32(k)
			}
			at += n
		}
	}
	deal := func(e *Examples) *Partition {
		owner := make([]int32, e.Len())
		for i := range owner {
			owner[i] = of[e.Tok[2*i]]
		}
		p := fromOwners(owner, clients)
		p.names = names
		return p
	}
	d := &Dealt{Train: deal(train)}
	if test != nil {
		d.Test = deal(test)
	}
	return d, nil
}
