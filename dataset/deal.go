package dataset

import (
	"math"
	"slices"
	"sort"

	"github.com/cohort-learning/cohort/rng"
)

// dealClasses is HeteroFL's balanced non-IID split (Diao et al., arXiv 2010.01264): every class is cut into
// K·M/C shards; the list of classes, repeated that often and shuffled, is dealt K to a client; a client takes one random
// shard for each class it was dealt. Drawing a class twice gives one shard only, unless duplicates are kept, and the
// other stays unused. The test set is cut and dealt by the same class lists.
func (s Scheme) dealClasses(train, test *Examples, r *rng.Stream) (*Dealt, error) {
	classes := train.NumClasses()
	slots := s.PerClient * s.Clients
	if s.PerClient > classes {
		return nil, s.errf("per_client is %d, the data has %d classes", s.PerClient, classes)
	}
	if slots%classes != 0 {
		return nil, s.errf("%d classes a client × %d clients = %d is not divisible by %d classes; change clients or per_client",
			s.PerClient, s.Clients, slots, classes)
	}
	shards := slots / classes
	dealt := make([]int32, slots)
	for i := range dealt {
		dealt[i] = int32(i % classes)
	}
	shuffled(dealt, r)
	lists := make([][]int32, s.Clients)
	for k := range lists {
		lists[k] = dealt[k*s.PerClient : (k+1)*s.PerClient]
		slices.Sort(lists[k])
		if !s.KeepDuplicates {
			lists[k] = slices.Compact(lists[k])
		}
	}
	rows, start := byClass(train.Labels, classes)
	for c := range classes {
		if n := int(start[c+1] - start[c]); n < shards {
			return nil, s.errf("class %d has %d samples for %d shards, so a shard would be empty; take fewer clients", c, n, shards)
		}
	}
	d := &Dealt{Train: dealLists(lists, rows, start, shards, train.Len(), r)}
	if test != nil && test.Labels != nil {
		rows, start := byClass(test.Labels, max(classes, test.NumClasses()))
		d.Test = dealLists(lists, rows, start, shards, test.Len(), r)
	}
	return d, nil
}

// dealLists cuts each class into shards of equal size, in row order, the left-over samples one each to the first shards,
// and gives every client a random unused shard of each class on its list.
func dealLists(lists [][]int32, rows, start []int32, shards, n int, r *rng.Stream) *Partition {
	unused := make([][]int32, len(start)-1)
	for c := range unused {
		unused[c] = identity(shards)
	}
	owner := unowned(n)
	for k, list := range lists {
		for _, c := range list {
			left := unused[c]
			at := r.IntN(len(left))
			shard := int(left[at])
			left[at] = left[len(left)-1]
			unused[c] = left[:len(left)-1]

			mine := rows[start[c]:start[c+1]]
			size := len(mine) / shards
			for _, row := range mine[shard*size : (shard+1)*size] {
				owner[row] = int32(k)
			}
			if over := shards*size + shard; over < len(mine) {
				owner[mine[over]] = int32(k)
			}
		}
	}
	return fromOwners(owner, len(lists))
}

// dealShards sorts the samples by label, cuts them into clients·s equal shards and deals a random s to each client
// (McMahan et al., arXiv 1602.05629). Samples left over are dropped, or spread one each over the first clients.
func (s Scheme) dealShards(train *Examples, r *rng.Stream) (*Partition, error) {
	n, shards := train.Len(), s.Clients*s.PerClient
	size := n / shards
	if size == 0 {
		return nil, s.errf("%d clients × %d shards = %d shards for %d samples, so a shard would be empty", s.Clients, s.PerClient, shards, n)
	}
	rows, _ := byClass(train.Labels, train.NumClasses())
	owner := unowned(n)
	for i, shard := range shuffled(identity(shards), r) {
		for _, row := range rows[int(shard)*size : (int(shard)+1)*size] {
			owner[row] = int32(i / s.PerClient)
		}
	}
	if s.Remainder == "spread" {
		for i, row := range rows[shards*size:] {
			owner[row] = int32(i % s.Clients)
		}
	}
	return fromOwners(owner, s.Clients), nil
}

// A random split is drawn anew to reach its smallest client size at most dealRetries times, and no more than
// dealHopeless times if it stays far from it.
const (
	dealRetries  = 1000
	dealHopeless = 50
)

// dealDirichlet divides every class among the clients by p ~ Dir(α·1) (Yurochkin et al., arXiv 1905.12022): the class's
// shuffled samples are cut at ⌊Σp·n_c⌋. With Balance, a client that holds N/K samples or more is left out of the
// further classes. The whole is redrawn until every client has MinSize samples; when more than ten clients fall short
// in each of the first draws, it is given up, since the chance of none is then below 1e-7 a draw.
func (s Scheme) dealDirichlet(train *Examples, r *rng.Stream) (*Partition, error) {
	n, classes := train.Len(), train.NumClasses()
	if s.MinSize > n/s.Clients {
		return nil, s.errf("min_size %d × %d clients is more than %d samples", s.MinSize, s.Clients, n)
	}
	rows, start := byClass(train.Labels, classes)
	owner := unowned(n)
	alpha := slices.Repeat([]float64{s.Alpha}, s.Clients)
	held := make([]int, s.Clients)
	fewest := s.Clients
	for try := range dealRetries {
		if try == dealHopeless && fewest > 10 {
			break
		}
		clear(held)
		for c := range classes {
			mine := shuffled(rows[start[c]:start[c+1]], r)
			p := r.Dirichlet(alpha)
			if s.Balance {
				leaveOutFull(p, held, n)
			}
			cut(len(mine), p, func(i, k int) {
				owner[mine[i]] = int32(k)
				held[k]++
			})
		}
		short := 0
		for _, h := range held {
			if h < s.MinSize {
				short++
			}
		}
		if short == 0 {
			return fromOwners(owner, s.Clients), nil
		}
		fewest = min(fewest, short)
	}
	return nil, s.errf("no draw gave every one of %d clients %d samples, at best %d fell short; take a larger alpha than %v or a smaller min_size",
		s.Clients, s.MinSize, fewest, s.Alpha)
}

// leaveOutFull sets p to 0 for clients that already hold an equal part, and scales the rest to sum 1; if nothing is left,
// p stays as it is.
func leaveOutFull(p []float64, held []int, n int) {
	var left float64
	for k := range p {
		if held[k]*len(p) < n {
			left += p[k]
		}
	}
	if left <= 0 {
		return
	}
	for k := range p {
		if held[k]*len(p) < n {
			p[k] /= left
		} else {
			p[k] = 0
		}
	}
}

// cut divides n things in the proportions p: part k is ⌊P_{k−1}·n⌋ to ⌊P_k·n⌋, P the running sum. The last part with
// p > 0 ends at n.
func cut(n int, p []float64, give func(i, k int)) {
	last := len(p) - 1
	for last > 0 && p[last] == 0 {
		last--
	}
	var sum float64
	i := 0
	for k := range last + 1 {
		sum += p[k]
		to := min(int(sum*float64(n)), n)
		if k == last {
			to = n
		}
		for ; i < to; i++ {
			give(i, k)
		}
	}
}

// dealDirichletClient lets every client draw a class mix q ~ Dir(α·prior), prior the class frequencies, and then its
// samples one by one: a class by q, a random sample of that class without replacement (Hsu et al., arXiv 1909.06335).
// Used-up classes are taken out of q. All clients have the same size.
func (s Scheme) dealDirichletClient(train *Examples, r *rng.Stream) (*Partition, error) {
	n, classes := train.Len(), train.NumClasses()
	size := s.Size
	if size == 0 {
		size = n / s.Clients
	}
	if size > n/s.Clients {
		return nil, s.errf("size %d × %d clients is more than %d samples", size, s.Clients, n)
	}
	rows, start := byClass(train.Labels, classes)
	next := slices.Clone(start[:classes])
	var alpha []float64
	var class []int // classes that occur at all
	for c := range classes {
		if m := start[c+1] - start[c]; m > 0 {
			shuffled(rows[start[c]:start[c+1]], r)
			alpha = append(alpha, s.Alpha*float64(m)/float64(n))
			class = append(class, c)
		}
	}
	owner := unowned(n)
	upTo := make([]float64, len(class))
	for k := range s.Clients {
		q := r.Dirichlet(alpha)
		stale := true
		for range size {
			if stale {
				mixOfLeft(upTo, q, class, next, start)
				stale = false
			}
			all := upTo[len(upTo)-1]
			u := r.Float64() * all // all itself if that is too small to be rounded down; the last class may have nothing left
			j := sort.Search(len(upTo)-1, func(i int) bool { return u < upTo[i] || upTo[i] == all })
			c := class[j]
			owner[rows[next[c]]] = int32(k)
			next[c]++
			stale = next[c] == start[c+1]
		}
	}
	return fromOwners(owner, s.Clients), nil
}

// mixOfLeft writes the running sum of q over the classes that still have samples. If q gives them no weight, it is what
// they have left.
func mixOfLeft(upTo, q []float64, class []int, next, start []int32) {
	for _, byLeft := range []bool{false, true} {
		var sum float64
		for i, c := range class {
			switch left := start[c+1] - next[c]; {
			case left > 0 && byLeft:
				sum += float64(left)
			case left > 0:
				sum += q[i]
			}
			upTo[i] = sum
		}
		if sum > 0 {
			return
		}
	}
}

// dealPathological gives client k class k mod C and c−1 other classes at random; the shuffled samples of each class are
// divided evenly, or by random proportions, among its owners (Li et al., arXiv 2102.02079, "#C = c").
func (s Scheme) dealPathological(train *Examples, r *rng.Stream) (*Partition, error) {
	n, classes := train.Len(), train.NumClasses()
	if s.PerClient > classes {
		return nil, s.errf("per_client is %d, the data has %d classes", s.PerClient, classes)
	}
	owners := make([][]int32, classes)
	for k := range s.Clients {
		own := k % classes
		owners[own] = append(owners[own], int32(k))
		for _, c := range r.Sample(classes-1, s.PerClient-1) {
			if c >= own {
				c++
			}
			owners[c] = append(owners[c], int32(k))
		}
	}
	rows, start := byClass(train.Labels, classes)
	owner := unowned(n)
	for c, of := range owners {
		mine := shuffled(rows[start[c]:start[c+1]], r)
		if len(of) == 0 {
			continue // fewer clients than classes: nobody drew this one, its samples are dropped
		}
		if len(mine) < len(of) {
			return nil, s.errf("class %d has %d samples for %d clients; take fewer clients or classes", c, len(mine), len(of))
		}
		p := slices.Repeat([]float64{1 / float64(len(of))}, len(of))
		if s.RandomSizes {
			p = r.Dirichlet(slices.Repeat([]float64{1}, len(of)))
		}
		at := 0
		for i, m := range sizes(len(mine), p, 1) {
			for _, row := range mine[at : at+m] {
				owner[row] = of[i]
			}
			at += m
		}
	}
	return fromOwners(owner, s.Clients), nil
}

// dealQuantity gives the clients unequal numbers of random samples. Of the weights w_k — Dir(β·1), log-normal
// exp(σz), or k^−a in random order — client k gets MinSize + w_k/Σw of what MinSize leaves (Li et al., arXiv 2102.02079;
// Li et al., arXiv 2012.04221 for the log-normal sizes).
func (s Scheme) dealQuantity(n int, r *rng.Stream) (*Partition, error) {
	if s.MinSize > n/s.Clients {
		return nil, s.errf("min_size %d × %d clients is more than %d samples", s.MinSize, s.Clients, n)
	}
	var w []float64
	switch s.Law {
	case "dirichlet":
		w = r.Dirichlet(slices.Repeat([]float64{s.Alpha}, s.Clients))
	case "lognormal":
		w = make([]float64, s.Clients)
		for k := range w {
			w[k] = math.Exp(s.Sigma * r.NormFloat64())
		}
	case "power":
		w = make([]float64, s.Clients)
		for k, rank := range shuffled(identity(s.Clients), r) {
			w[k] = math.Pow(float64(rank+1), -s.Alpha)
		}
	}
	perm := shuffled(identity(n), r)
	owner := unowned(n)
	at := 0
	for k, m := range sizes(n, w, s.MinSize) {
		for _, row := range perm[at : at+m] {
			owner[row] = int32(k)
		}
		at += m
	}
	return fromOwners(owner, s.Clients), nil
}

// sizes divides n into parts of at least least each: the remainder in the proportions w, by cumulative rounding, so that
// the parts sum to n. It needs least·len(w) ≤ n.
func sizes(n int, w []float64, least int) []int {
	var total float64
	for _, v := range w {
		total += v
	}
	rest := float64(n - least*len(w))
	out := make([]int, len(w))
	var sum float64
	given := 0
	for k, v := range w {
		sum += v
		to := int(math.Round(sum / total * rest))
		if k == len(w)-1 {
			to = int(rest)
		}
		out[k] = least + to - given
		given = to
	}
	return out
}

// dealNatural makes one client of each key, in the order of the sorted keys; keys with fewer than MinSize samples are
// dropped. If fewer clients than keys are asked for, the keys are dealt round in random order, several to a client.
func (s Scheme) dealNatural(train, test *Examples, r *rng.Stream) (*Dealt, error) {
	if train.Keys == nil {
		return nil, s.errf("data set %s has no key column; name one when loading (key: COLUMN)", train.Name)
	}
	count := make(map[string]int)
	for _, k := range train.Keys {
		count[k]++
	}
	var keys []string
	for k, n := range count {
		if n >= s.MinSize {
			keys = append(keys, k)
		}
	}
	slices.Sort(keys)
	clients := s.Clients
	if clients == 0 {
		clients = len(keys)
	}
	if clients == 0 || clients > len(keys) {
		return nil, s.errf("%d clients, but %d keys have at least %d samples", clients, len(keys), s.MinSize)
	}
	owns := make(map[string]int32, len(keys))
	names := keys
	if clients == len(keys) {
		for k, key := range keys {
			owns[key] = int32(k)
		}
	} else {
		names = nil
		for i, k := range shuffled(identity(len(keys)), r) {
			owns[keys[k]] = int32(i % clients)
		}
	}
	deal := func(of []string) *Partition {
		owner := make([]int32, len(of))
		for i, key := range of {
			k, ok := owns[key]
			if !ok {
				k = nobody
			}
			owner[i] = k
		}
		p := fromOwners(owner, clients)
		p.names = names
		return p
	}
	d := &Dealt{Train: deal(train.Keys)}
	if test != nil && test.Keys != nil {
		d.Test = deal(test.Keys)
	}
	return d, nil
}
