package linkage

import (
	"fmt"
	"math"
	"strings"
	"testing"

	"github.com/cohort-learning/cohort/rng"
	"pgregory.net/rapid"
)

func close(t *testing.T, what string, got, want, within float64) {
	t.Helper()
	if !(math.Abs(got-want) <= within) {
		t.Errorf("%s is %v, should be %v ± %v", what, got, want, within)
	}
}

// TestJaroWinkler has the examples of Winkler (1990) and of the literature after it.
func TestJaroWinkler(t *testing.T) {
	for _, c := range []struct {
		a, b string
		want float64
	}{
		{"martha", "marhta", .961}, {"dwayne", "duane", .84}, {"dixon", "dicksonx", .813}, {"abcvwxyz", "cabvwxyz", .958},
		{"jones", "johnson", .832}, {"shackleford", "shackelford", .982}, {"", "", 1}, {"a", "", 0}, {"ab", "cd", 0}, {"müller", "muller", .9},
	} {
		close(t, c.a+" and "+c.b, JaroWinkler(c.a, c.b), c.want, .0006)
	}
}

func TestAgree(t *testing.T) {
	for _, c := range []struct {
		a, b string
		want Level
	}{
		{" Anna  Maria", "anna maria", Exact}, {"Anna", "", Missing}, {"", "", Missing}, {"catherine", "katherine", Close}, {"martha", "marhta", Close},
		{"smith", "jones", Different}, {"1980-03-12", "1980-03-21", Close}, {"1980-03-12", "1980-03-13", Close}, {"1980-03-12", "1981-04-12", Different},
		{"12", "2", Close}, {"12", "21", Close}, {"123", "321", Different}, {"12", "1234", Different}, {"12b", "12", Close}, {"1980-03-12", "1908-03-12", Close},
	} {
		if a, b := Normal(c.a), Normal(c.b); Agree(a, b) != c.want || Agree(b, a) != c.want {
			t.Errorf("%q and %q agree to level %d and, the other way, %d; should be %d", c.a, c.b, Agree(a, b), Agree(b, a), c.want)
		}
	}
}

// TestOneMistake compares with what a mistake is: every string that lies one away, and some that lie two.
func TestOneMistake(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a := []rune(rapid.StringMatching(`[0-9]{1,8}`).Draw(t, "a"))
		damage := func(s []rune) []rune {
			at, c := rapid.IntRange(0, len(s)-1).Draw(t, "at"), rune('0'+rapid.IntRange(0, 9).Draw(t, "digit"))
			out := append([]rune{}, s...)
			switch rapid.IntRange(0, 3).Draw(t, "kind") {
			case 0:
				out[at] = c
			case 1:
				out = append(out[:at], append([]rune{c}, out[at:]...)...)
			case 2:
				out = append(out[:at], out[at+1:]...)
			case 3:
				if at > 0 {
					out[at-1], out[at] = out[at], out[at-1]
				}
			}
			return out
		}
		if b := damage(a); string(a) != string(b) && (!oneMistake(a, b) || !oneMistake(b, a)) {
			t.Fatalf("%s and %s are one mistake apart", string(a), string(b))
		}
		if b := append(damage(a), 'x', 'y'); oneMistake(a, b) {
			t.Fatalf("%s and %s are more than one mistake apart", string(a), string(b))
		}
	})
}

func FuzzAgree(f *testing.F) {
	f.Add("martha", "marhta")
	f.Add("1980-03-12", "12.3.80")
	f.Add("\xff", "")
	f.Fuzz(func(t *testing.T, a, b string) {
		a, b = Normal(a), Normal(b)
		if s := JaroWinkler(a, b); !(s >= 0 && s <= 1+1e-12) {
			t.Errorf("the similarity of %q and %q is %v", a, b, s)
		}
		if l := Agree(a, a); a != "" && l != Exact {
			t.Errorf("%q agrees with itself to level %d", a, l)
		}
		if l := Agree(a, b); (l == Missing) != (a == "" || b == "") || (l == Exact) != (a != "" && a == b) {
			t.Errorf("%q and %q agree to level %d", a, b, l)
		}
	})
}

// truth is a model to draw pairs from.
func truth() *Model {
	return &Model{Share: .01,
		M: [][levels]float64{{1, .02, .08, .9}, {1, .05, .1, .85}, {1, .1, 0, .9}, {1, .03, .02, .95}},
		U: [][levels]float64{{1, .985, .01, .005}, {1, .93, .05, .02}, {1, .5, 0, .5}, {1, .9, .09, .01}}}
}

// TestEstimateRecovers: m, u and λ of drawn pairs are found again, also where one value in ten is missing.
func TestEstimateRecovers(t *testing.T) {
	r, of, counts := rng.New(1, 0, "", "pairs"), truth(), map[Pattern]float64{}
	const n = 300_000
	for i := range n {
		p, from := Pattern(0), of.U
		if i < n/100 {
			from = of.M
		}
		for f := range from {
			v := r.Float64()
			l := Different
			for ; l < Exact && v >= from[f][l]; l++ {
				v -= from[f][l]
			}
			if r.Float64() > .1 {
				p = p.With(f, l)
			}
		}
		counts[p]++
	}
	m := Estimate(counts, 4, .012)
	close(t, "λ", m.Share, .01, .0005)
	for f := range of.M {
		for l := Different; l < levels; l++ {
			close(t, fmt.Sprintf("m of field %d, level %d", f, l), m.M[f][l], of.M[f][l], .025)
			close(t, fmt.Sprintf("u of field %d, level %d", f, l), m.U[f][l], of.U[f][l], .003)
		}
	}
	likelihood := func(m *Model) (sum float64) {
		for p, n := range counts {
			together, other := m.Share, 1-m.Share
			for f := range m.M {
				together *= m.M[f][p.Level(f)]
				other *= m.U[f][p.Level(f)]
			}
			if together+other > 0 {
				sum += n * math.Log(together+other)
			}
		}
		return sum
	}
	if a, b := likelihood(m), likelihood(of); a < b-1 {
		t.Errorf("log likelihood %v, of the truth %v", a, b)
	}
	if m := Estimate(counts, 4, .005); m.Share != .005 {
		t.Errorf("with at most .005 of the pairs together λ is %v", m.Share)
	}
}

func TestLogOdds(t *testing.T) {
	m := truth()
	p := Pattern(0).With(0, Exact).With(1, Different)
	close(t, "log-odds with two fields missing", m.LogOdds(p), math.Log(.9/.005)+math.Log(.05/.93), 1e-12)
	close(t, "the probability", m.Probability(p), 1/(1+99/(180*.05/.93)), 1e-12)
}

// TestBlocks: rows are compared within their block only.
func TestBlocks(t *testing.T) {
	pairs, err := Compare(Table{[][]string{{"a"}, {"b"}, {"c"}}, []int{0, 0, 5}}, Table{[][]string{{"b"}, {"a"}, {"z"}}, []int{0, 0, 1}})
	if err != nil {
		t.Fatal(err)
	}
	if p, ok := pairs.Pattern(0, 1); !ok || p.Level(0) != Exact {
		t.Errorf("row 0 and label 1 agree as %v, %v", p, ok)
	}
	if _, ok := pairs.Pattern(0, 2); ok {
		t.Error("a row was compared with a label of another block")
	}
	e := pairs.Evidence(pairs.Estimate(), []int{0, 1, -1})
	if len(e.Clues[2]) > 0 || len(e.Clues[0]) != 2 || e.Of(0, 1) <= 0 || e.Of(0, 0) >= 0 {
		t.Errorf("the evidence is %+v", e)
	}
}

func TestTablesThatCannotBe(t *testing.T) {
	one := Table{Records: [][]string{{"a", "b"}}}
	many := Table{Records: make([][]string, 8000)}
	for i := range many.Records {
		many.Records[i] = []string{"a", "b"}
	}
	wide := Table{Records: [][]string{make([]string, MostFields+1)}}
	for what, c := range map[string][2]Table{
		"no records":           {one, {}},
		"0 fields":             {{Records: [][]string{{}}}, one},
		"9 fields":             {one, wide},
		"record 1 has 1":       {one, {Records: [][]string{{"a", "b"}, {"a"}}}},
		"2 blocks for 1":       {{one.Records, []int{1, 2}}, one},
		"share a block":        {{one.Records, []int{1}}, {one.Records, []int{2}}},
		"64000000 pairs of ro": {many, many},
	} {
		if _, err := Compare(c[0], c[1]); err == nil || !strings.Contains(err.Error(), what) {
			t.Errorf("the error about %q is %v", what, err)
		}
	}
}
