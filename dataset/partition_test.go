package dataset

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/cohort-learning/cohort/rng"
)

// labelled returns a data set of n one-value examples with random labels of the given frequencies (nil: equal).
func labelled(n, classes int, seed uint64, weight []float64) *Examples {
	e := &Examples{Name: "toy", Shape: []int{1}, U8: make([]uint8, n), Labels: make([]int32, n), Classes: make([]string, classes)}
	for c := range e.Classes {
		e.Classes[c] = fmt.Sprint(c)
	}
	if weight == nil {
		weight = slices.Repeat([]float64{1}, classes)
	}
	r := rng.New(seed, 0, "", "test")
	for i := range e.Labels {
		e.Labels[i] = int32(r.Categorical(weight))
	}
	return e
}

// balanced returns a data set whose labels go round.
func balanced(n, classes int) *Examples {
	e := labelled(n, classes, 0, nil)
	for i := range e.Labels {
		e.Labels[i] = int32(i % classes)
	}
	return e
}

// checkPartition asserts what holds for every partition: lists disjoint, ascending, within the data; cover plus dropped
// is everything.
func checkPartition(t interface{ Fatalf(string, ...any) }, p *Partition, n int) {
	seen := make([]bool, n)
	total := 0
	for k := range p.Clients() {
		rows := p.Rows(k)
		if len(rows) != p.Size(k) {
			t.Fatalf("client %d: %d rows, size %d", k, len(rows), p.Size(k))
		}
		for i, r := range rows {
			if r < 0 || int(r) >= n || seen[r] {
				t.Fatalf("client %d holds row %d: outside 0..%d or held twice", k, r, n-1)
			}
			if i > 0 && rows[i-1] >= r {
				t.Fatalf("client %d: rows not ascending: %v", k, rows)
			}
			seen[r] = true
		}
		total += len(rows)
	}
	if p.Samples != n || total+p.Dropped() != n {
		t.Fatalf("%d rows dealt and %d dropped of %d (recorded %d)", total, p.Dropped(), n, p.Samples)
	}
}

func lists(p *Partition) [][]int32 {
	out := make([][]int32, p.Clients())
	for k := range out {
		out[k] = p.Rows(k)
	}
	return out
}

// TestConservation: for any data and any scheme, lists are disjoint and cover everything but what is reported dropped,
// the same seed gives the same lists, no training list is empty, and nobody is tested on a class he does not train on.
func TestConservation(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		classes := rapid.IntRange(2, 12).Draw(t, "classes")
		clients := rapid.IntRange(1, 30).Draw(t, "clients")
		n := clients*classes*rapid.IntRange(4, 20).Draw(t, "per") + rapid.IntRange(0, 17).Draw(t, "odd")
		seed := rapid.Uint64().Draw(t, "seed")
		train, test := labelled(n, classes, seed, nil), labelled(n/5+1, classes, seed+1, nil)
		train.Keys, test.Keys = make([]string, n), nil
		for i := range train.Keys {
			train.Keys[i] = fmt.Sprint("writer ", i%(clients+3))
		}
		c := min(classes, rapid.IntRange(1, 3).Draw(t, "c"))
		for _, s := range []Scheme{
			{Name: "iid", Clients: clients},
			{Name: "classes", Clients: clients * classes, PerClient: 1},
			{Name: "classes", Clients: clients, PerClient: classes, KeepDuplicates: true},
			{Name: "shards", Clients: clients, PerClient: c},
			{Name: "shards", Clients: clients, PerClient: c, Remainder: "spread"},
			{Name: "dirichlet", Clients: clients, Alpha: 3, MinSize: 1},
			{Name: "dirichlet", Clients: clients, Alpha: 3, MinSize: 1, Balance: true},
			{Name: "dirichlet-client", Clients: clients, Alpha: 0.05},
			{Name: "pathological", Clients: clients, PerClient: c},
			{Name: "pathological", Clients: clients, PerClient: c, RandomSizes: true},
			{Name: "quantity", Clients: clients, Alpha: 0.3},
			{Name: "quantity", Clients: clients, Law: "lognormal", Sigma: 2, MinSize: 2},
			{Name: "quantity", Clients: clients, Law: "power", Alpha: 1.5},
			{Name: "noise", Clients: clients, Sigma: 0.1},
			{Name: "rotation", Clients: clients},
			{Name: "natural"},
			{Name: "natural", Clients: clients},
		} {
			d, err := s.Deal(train, test, seed)
			if err != nil {
				// Random labels may leave a class too small; that must be said, and is the only excuse.
				if !strings.Contains(err.Error(), "class ") && !strings.Contains(err.Error(), "no draw gave") {
					t.Fatalf("%+v: %v", s, err)
				}
				continue
			}
			checkPartition(t, d.Train, n)
			checkPartition(t, d.Test, test.Len())
			again, err := s.Deal(train, test, seed)
			if err != nil {
				t.Fatalf("%+v again: %v", s, err)
			}
			if diff := cmp.Diff(lists(d.Train), lists(again.Train)) + cmp.Diff(lists(d.Test), lists(again.Test)); diff != "" {
				t.Fatalf("%+v: the same seed gave other lists: %s", s, diff)
			}
			iid := slices.Contains([]string{"iid", "noise", "rotation"}, s.Name)
			for k := range d.Train.Clients() {
				if d.Train.Size(k) == 0 {
					t.Fatalf("%+v: client %d is empty", s, k)
				}
				if iid {
					if d.Train.Size(k) != n/clients {
						t.Fatalf("%+v: client %d holds %d of %d", s, k, d.Train.Size(k), n)
					}
					continue
				}
				have := d.Train.LabelSet(train, k)
				for _, l := range d.Test.LabelSet(test, k) {
					if !slices.Contains(have, l) {
						t.Fatalf("%+v: client %d is tested on class %d, trains on %v", s, k, l, have)
					}
				}
			}
			if dropsNothing := s.Remainder == "spread" || slices.Contains([]string{"dirichlet", "quantity", "natural"}, s.Name); dropsNothing && d.Train.Dropped() != 0 {
				t.Fatalf("%+v drops %d", s, d.Train.Dropped())
			}
		}
	})
}

// TestClassesSplit is identity I13 of the HeteroFL method with the paper's numbers: 100 clients, K = 2, 10 classes.
func TestClassesSplit(t *testing.T) {
	train, test := balanced(60_000, 10), balanced(10_000, 10)
	single, pairs := 0, 0
	for seed := range uint64(40) {
		s := Scheme{Name: "classes", Clients: 100, PerClient: 2}
		d, err := s.Deal(train, test, seed)
		if err != nil {
			t.Fatal(err)
		}
		checkPartition(t, d.Train, 60_000)
		for k := range 100 {
			have := d.Train.LabelSet(train, k)
			if len(have) == 0 || len(have) > 2 {
				t.Fatalf("client %d holds classes %v", k, have)
			}
			if !slices.Equal(have, d.Test.LabelSet(test, k)) {
				t.Fatalf("client %d trains on %v and is tested on %v", k, have, d.Test.LabelSet(test, k))
			}
			if d.Train.Size(k) != 300*len(have) || d.Test.Size(k) != 50*len(have) {
				t.Fatalf("client %d: %d training and %d test samples of %d classes", k, d.Train.Size(k), d.Test.Size(k), len(have))
			}
			pairs++
			if len(have) == 1 {
				single++
			}
		}
		s.KeepDuplicates = true
		kept, err := s.Deal(train, test, seed)
		if err != nil {
			t.Fatal(err)
		}
		if kept.Train.Dropped() != 0 || kept.Test.Dropped() != 0 {
			t.Fatalf("keeping duplicates drops %d and %d samples", kept.Train.Dropped(), kept.Test.Dropped())
		}
	}
	// A client draws its class twice with probability 19/199; 4,000 draws have a standard deviation of 0.46 %.
	if got, want := float64(single)/float64(pairs), 19.0/199; math.Abs(got-want) > 0.02 {
		t.Errorf("%.3f of the clients have a single class, expected %.3f", got, want)
	}
}

// TestShardLeftovers: class sizes 7 and 5 in 3 shards are 3+2+2 and 2+2+1, in row order, left-overs to the first shards.
func TestShardLeftovers(t *testing.T) {
	e := labelled(12, 2, 0, nil)
	copy(e.Labels, []int32{0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1})
	d, err := Scheme{Name: "classes", Clients: 3, PerClient: 2, KeepDuplicates: true}.Deal(e, nil, 3)
	if err != nil {
		t.Fatal(err)
	}
	var zero, one [][]int32
	for k := range 3 {
		var a, b []int32
		for _, r := range d.Train.Rows(k) {
			if r < 7 {
				a = append(a, r)
			} else {
				b = append(b, r)
			}
		}
		if len(d.Train.LabelSet(e, k)) == 2 {
			zero, one = append(zero, a), append(one, b)
		}
	}
	for _, list := range zero {
		if !slices.ContainsFunc([][]int32{{0, 1, 6}, {2, 3}, {4, 5}}, func(w []int32) bool { return slices.Equal(w, list) }) {
			t.Errorf("class 0 was cut as %v", list)
		}
	}
	for _, list := range one {
		if !slices.ContainsFunc([][]int32{{7, 10}, {8, 11}, {9}}, func(w []int32) bool { return slices.Equal(w, list) }) {
			t.Errorf("class 1 was cut as %v", list)
		}
	}
	if d.Train.Dropped() != 0 {
		t.Errorf("%d dropped", d.Train.Dropped())
	}
}

// TestDirichletLimit: as α grows, histograms approach the global one. At α = 1e4 with N = 60,000 and K = 10 a client's
// part of a class has the relative standard deviation √((K−1)/(Kα+1)) = 0.95 %, so the largest of 100 deviations stays
// below 3 % in most draws (as it does for these seeds) and the share of a class in a client's mix always does.
func TestDirichletLimit(t *testing.T) {
	e := labelled(60_000, 10, 1, nil)
	overall := histogram(e, identity(60_000))
	for seed := range uint64(2) {
		d, err := Scheme{Name: "dirichlet", Clients: 10, Alpha: 1e4}.Deal(e, nil, seed)
		if err != nil {
			t.Fatal(err)
		}
		var worst, worstShare, square float64
		for k := range 10 {
			for c, n := range d.Train.Histogram(e, k) {
				relative := float64(n)*10/float64(overall[c]) - 1
				worst = max(worst, math.Abs(relative))
				square += relative * relative / 100
				worstShare = max(worstShare, math.Abs(float64(n)/float64(d.Train.Size(k))-float64(overall[c])/60_000))
			}
		}
		if worst >= 0.03 || worstShare >= 0.003 {
			t.Errorf("seed %d: a class deviates by %.2f %%, a share by %.2f points", seed, 100*worst, 100*worstShare)
		}
		if rms := math.Sqrt(square); rms < 0.0075 || rms > 0.0115 {
			t.Errorf("seed %d: deviations of %.2f %% on average, expected 0.95 %%", seed, 100*rms)
		}
	}
}

// TestSkewOrder: a smaller α is a stronger skew, and the clients of dirichlet-client all have the same size.
func TestSkewOrder(t *testing.T) {
	e := labelled(6000, 10, 2, nil)
	for _, name := range []string{"dirichlet", "dirichlet-client"} {
		last := -1.0
		for _, alpha := range []float64{1000, 10, 1, 0.1} {
			s := Scheme{Name: name, Clients: 20, Alpha: alpha}
			if name == "dirichlet" {
				s.MinSize = 1
			}
			d, err := s.Deal(e, nil, 5)
			if err != nil {
				t.Fatal(err)
			}
			mean := d.Train.MeanEMD(e)
			if mean <= last {
				t.Errorf("%s: EMD %.3f at α = %v is not above %.3f", name, mean, alpha, last)
			}
			last = mean
			for k := range 20 {
				if name == "dirichlet-client" && d.Train.Size(k) != 300 {
					t.Errorf("client %d holds %d samples, not 300", k, d.Train.Size(k))
				}
			}
		}
		if last < 1 {
			t.Errorf("%s: EMD %.3f at α = 0.1 is no skew", name, last)
		}
	}
}

func TestDirichletBalance(t *testing.T) {
	e := labelled(10_000, 10, 4, nil)
	largest := func(balance bool) int {
		d, err := Scheme{Name: "dirichlet", Clients: 10, Alpha: 0.5, Balance: balance}.Deal(e, nil, 9)
		if err != nil {
			t.Fatal(err)
		}
		most := 0
		for k := range 10 {
			most = max(most, d.Train.Size(k))
		}
		return most
	}
	if with, without := largest(true), largest(false); with >= without {
		t.Errorf("largest client: %d balanced, %d not", with, without)
	}
}

func TestLeaveOutFull(t *testing.T) {
	p := []float64{0.5, 0.3, 0.2}
	leaveOutFull(p, []int{4, 3, 1}, 9) // an equal part is 3
	if !slices.Equal(p, []float64{0, 0, 1}) {
		t.Errorf("two full clients: %v", p)
	}
	p = []float64{1, 0, 0}
	leaveOutFull(p, []int{4, 3, 1}, 9) // what is left has no weight: unbalanced
	if !slices.Equal(p, []float64{1, 0, 0}) {
		t.Errorf("nothing left: %v", p)
	}
}

// TestPathological: client k holds class k mod C and c classes in all, each class evenly divided among its owners.
func TestPathological(t *testing.T) {
	e := balanced(6000, 10)
	d, err := Scheme{Name: "pathological", Clients: 20, PerClient: 3}.Deal(e, nil, 1)
	if err != nil {
		t.Fatal(err)
	}
	smallest, largest := make([]int, 10), make([]int, 10)
	for k := range 20 {
		have := d.Train.LabelSet(e, k)
		if len(have) != 3 || !slices.Contains(have, int32(k%10)) {
			t.Errorf("client %d holds %v", k, have)
		}
		for c, n := range d.Train.Histogram(e, k) {
			if n > 0 && (smallest[c] == 0 || n < smallest[c]) {
				smallest[c] = n
			}
			largest[c] = max(largest[c], n)
		}
	}
	for c := range 10 {
		if largest[c]-smallest[c] > 1 {
			t.Errorf("class %d: parts of %d to %d samples", c, smallest[c], largest[c])
		}
	}
	if d.Train.Dropped() != 0 {
		t.Errorf("%d dropped", d.Train.Dropped())
	}
}

func TestShards(t *testing.T) {
	e := balanced(60_000, 10)
	d, err := Scheme{Name: "shards", Clients: 100}.Deal(e, nil, 1)
	if err != nil {
		t.Fatal(err)
	}
	for k := range 100 {
		if d.Train.Size(k) != 600 || len(d.Train.LabelSet(e, k)) > 2 {
			t.Errorf("client %d: %d samples of classes %v", k, d.Train.Size(k), d.Train.LabelSet(e, k))
		}
	}
	odd := balanced(1007, 10)
	for remainder, want := range map[string]int{"drop": 7, "spread": 0} {
		d, err := Scheme{Name: "shards", Clients: 10, Remainder: remainder}.Deal(odd, nil, 1)
		if err != nil {
			t.Fatal(err)
		}
		if d.Train.Dropped() != want {
			t.Errorf("%s drops %d, not %d", remainder, d.Train.Dropped(), want)
		}
	}
}

func TestQuantity(t *testing.T) {
	e := labelled(10_000, 10, 1, nil)
	for _, s := range []Scheme{
		{Name: "quantity", Clients: 50, Alpha: 0.5, MinSize: 20},
		{Name: "quantity", Clients: 50, Law: "lognormal", Sigma: 1, MinSize: 20},
		{Name: "quantity", Clients: 50, Law: "power", Alpha: 1, MinSize: 20},
	} {
		d, err := s.Deal(e, nil, 1)
		if err != nil {
			t.Fatal(err)
		}
		smallest, largest := 10_000, 0
		for k := range 50 {
			smallest, largest = min(smallest, d.Train.Size(k)), max(largest, d.Train.Size(k))
		}
		if smallest < 20 || largest < 3*200 || d.Train.Dropped() != 0 {
			t.Errorf("%+v: sizes %d to %d, %d dropped", s, smallest, largest, d.Train.Dropped())
		}
		if s.Law == "power" { // harmonic number H_50 = 4.4992: the first of 9,000 free samples gets 2000.4
			if largest != 2020 {
				t.Errorf("power law: largest client has %d samples, not 2020", largest)
			}
		}
	}
}

func TestNatural(t *testing.T) {
	e := labelled(6, 2, 1, nil)
	e.Keys = []string{"b", "a", "b", "c", "a", "b"}
	test := labelled(3, 2, 1, nil)
	test.Keys = []string{"b", "x", "a"}
	d, err := Scheme{Name: "natural", MinSize: 2}.Deal(e, test, 1)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([][]int32{{1, 4}, {0, 2, 5}}, lists(d.Train)); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff([][]int32{{2}, {0}}, lists(d.Test)); diff != "" {
		t.Error(diff)
	}
	if d.Train.Name(0) != "a" || d.Train.Name(1) != "b" || d.Train.Dropped() != 1 {
		t.Errorf("names %s, %s, dropped %d", d.Train.Name(0), d.Train.Name(1), d.Train.Dropped())
	}
}

// TestDealErrors: bad input is refused with both numbers in the message.
func TestDealErrors(t *testing.T) {
	e := balanced(100, 10)
	table := *e
	table.Labels, table.Targets = nil, make([]float32, 100)
	for _, c := range []struct {
		s    Scheme
		e    *Examples
		want string
	}{
		{Scheme{Name: "dirichelt", Clients: 2}, e, `did you mean "dirichlet"?`},
		{Scheme{Name: "iid"}, e, "0 clients"},
		{Scheme{Name: "iid", Clients: 101}, e, "101 clients for 100 samples"},
		{Scheme{Name: "iid", Clients: 2, Alpha: 1}, e, "alpha has no meaning here"},
		{Scheme{Name: "classes", Clients: 7}, e, "2 classes a client × 7 clients = 14 is not divisible by 10 classes"},
		{Scheme{Name: "classes", Clients: 10, PerClient: 11}, e, "per_client is 11, the data has 10 classes"},
		{Scheme{Name: "classes", Clients: 60}, e, "10 samples for 12 shards"},
		{Scheme{Name: "classes", Clients: 10}, &table, "no class labels"},
		{Scheme{Name: "shards", Clients: 60}, e, "120 shards for 100 samples"},
		{Scheme{Name: "shards", Clients: 6, Remainder: "keep"}, e, "expected drop or spread"},
		{Scheme{Name: "dirichlet", Clients: 6}, e, "alpha is 0"},
		{Scheme{Name: "dirichlet", Clients: 6, Alpha: -1}, e, "alpha is -1"},
		{Scheme{Name: "dirichlet", Clients: 10, Alpha: 0.001, MinSize: 10}, e, "take a larger alpha than 0.001"},
		{Scheme{Name: "dirichlet", Clients: 20, Alpha: 1}, e, "min_size 10 × 20 clients is more than 100 samples"},
		{Scheme{Name: "dirichlet-client", Clients: 20, Alpha: 1, Size: 6}, e, "size 6 × 20 clients"},
		{Scheme{Name: "pathological", Clients: 20, PerClient: 11}, e, "per_client is 11"},
		{Scheme{Name: "quantity", Clients: 20, Law: "zipf"}, e, "expected dirichlet, lognormal or power"},
		{Scheme{Name: "quantity", Clients: 20, Law: "lognormal"}, e, "sigma is 0"},
		{Scheme{Name: "quantity", Clients: 20, Alpha: 1, MinSize: 6}, e, "min_size 6 × 20 clients"},
		{Scheme{Name: "noise", Clients: 20}, e, "sigma is 0"},
		{Scheme{Name: "natural"}, e, "no key column"},
	} {
		_, err := c.s.Deal(c.e, nil, 1)
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%+v: error %v, expected %q", c.s, err, c.want)
		}
	}
}

// TestPartitionMemory: a hundred thousand clients on 400,000 samples hold at most 8 bytes a sample and 128 a client.
func TestPartitionMemory(t *testing.T) {
	e := balanced(400_000, 10)
	d, err := Scheme{Name: "classes", Clients: 100_000}.Deal(e, nil, 1)
	if err != nil {
		t.Fatal(err)
	}
	bytes := 4 * (cap(d.Train.rows) + cap(d.Train.offsets))
	if limit := 8*400_000 + 128*100_000; bytes > limit {
		t.Errorf("the partition holds %d bytes, more than %d", bytes, limit)
	}
	checkPartition(t, d.Train, 400_000)
}

func TestNewPartition(t *testing.T) {
	p, err := NewPartition([][]int32{{3, 1}, {}, {0}}, 5, nil)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([][]int32{{1, 3}, {}, {0}}, lists(p)); diff != "" || p.Dropped() != 2 {
		t.Error(diff, p.Dropped())
	}
	for want, l := range map[string][][]int32{
		"row 5, outside 0..4":              {{5}},
		"row 2 belongs to clients 0 and 1": {{2}, {2}},
	} {
		if _, err := NewPartition(l, 5, nil); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v: %v", l, err)
		}
	}
}

// TestServerRows checks that the server's examples are equally many of each class, that no client holds one, that clients hold
// what they would of the rest, and that the choice needs nothing but labels and seed.
func TestServerRows(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		classes, each := rapid.IntRange(2, 5).Draw(t, "classes"), rapid.IntRange(1, 4).Draw(t, "each")
		e := &Examples{Name: "toy", Shape: []int{1}, Classes: make([]string, classes)}
		n := classes * rapid.IntRange(20, 40).Draw(t, "rows")
		for i := range n {
			e.U8, e.Labels = append(e.U8, uint8(i)), append(e.Labels, int32(i%classes))
		}
		s := rapid.SampledFrom([]Scheme{
			{Name: "iid", Clients: 4}, {Name: "classes", Clients: 2 * classes, PerClient: 2, KeepDuplicates: true},
			{Name: "dirichlet", Clients: 3, Alpha: 1, MinSize: 1}, {Name: "dirichlet", Clients: 3, Alpha: 0.5, MinSize: 2, Balance: true},
		}).Draw(t, "scheme")
		s.Server = each * classes
		seed := rapid.Uint64().Draw(t, "seed")
		d, err := s.Deal(e, nil, seed)
		if err != nil {
			t.Fatal(err)
		}
		owner := make([]int, n)
		for _, row := range d.Server {
			owner[row]++
		}
		for c, k := range histogram(e, d.Server) {
			if k != each {
				t.Fatalf("%d examples of class %d at the server, want %d", k, c, each)
			}
		}
		held := len(d.Server)
		for k := range d.Train.Clients() {
			held += d.Train.Size(k)
			for _, row := range d.Train.Rows(k) {
				owner[row]++
			}
			if s.Name == "classes" && len(d.Train.LabelSet(e, k)) > 2 {
				t.Fatalf("client %d holds classes %v", k, d.Train.LabelSet(e, k))
			}
		}
		for row, k := range owner {
			if k > 1 || k == 0 && s.Name != "iid" {
				t.Fatalf("%s: row %d is held %d times", s, row, k)
			}
		}
		if held+d.Train.Dropped() != n {
			t.Fatalf("%d held and %d dropped of %d", held, d.Train.Dropped(), n)
		}
		again, err := s.ServerRows(&Examples{Name: "toy", Shape: []int{2}, U8: make([]uint8, 2*n), Labels: e.Labels, Classes: e.Classes}, seed)
		if err != nil || !slices.Equal(again, d.Server) {
			t.Fatalf("the same labels and seed choose %v (%v), before %v", again, err, d.Server)
		}
	})
}

func TestServerRowsWrong(t *testing.T) {
	e := &Examples{Name: "toy", Shape: []int{1}, U8: make([]uint8, 9), Labels: []int32{0, 0, 0, 0, 0, 0, 0, 1, 1}, Classes: []string{"a", "b"}}
	for server, want := range map[int]string{3: "not divisible by the 2 classes", 6: "class 1 (b) has 2 examples", 10: "leaves none", -2: "must not be negative"} {
		s := Scheme{Name: "iid", Clients: 2, Server: server}
		if _, err := s.Deal(e, nil, 1); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("server %d: error %v, want one with %q", server, err, want)
		}
	}
	bare := &Examples{Name: "toy", Shape: []int{1}, U8: make([]uint8, 9)}
	if _, err := (Scheme{Name: "iid", Clients: 2, Server: 2}).Deal(bare, nil, 1); err == nil || !strings.Contains(err.Error(), "no class labels") {
		t.Errorf("without labels: error %v", err)
	}
}
