package heterofl

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/cohort-learning/cohort/federated"
	"github.com/cohort-learning/cohort/rng"
)

// Level is one capability: a letter and the part of the hidden width that it can carry.
type Level struct {
	Name  string  // one letter, "a" is the widest
	Rate  float64 // part of the hidden width, in (0, 1]
	Share int     // parts of the fleet
}

// Mode is a fleet's mixture of levels, e.g. "a1-b1-c1-d1-e1": letters with integer shares. The first letter is the level of
// the global model, so that no other may be wider.
type Mode []Level

// maxShare bounds a share, so that sums of shares are numbers.
const maxShare = 1_000_000

// ParseMode reads a mode string. Letters stand for rates 1, 1/2, 1/4, 1/8 and 1/16 (a to e; section 4 of the paper), or
// for those in rates if it is not nil.
func ParseMode(s string, rates map[string]float64) (Mode, error) {
	if rates == nil {
		rates = DefaultRates()
	}
	var m Mode
	for part := range strings.SplitSeq(s, "-") {
		if len(part) < 2 {
			return nil, fmt.Errorf("mode %q: %q is not a letter and a share, such as a1", s, part)
		}
		name := part[:1]
		rate, ok := rates[name]
		if !ok {
			known := make([]string, 0, len(rates))
			for k := range rates {
				known = append(known, k)
			}
			slices.Sort(known)
			return nil, fmt.Errorf("mode %q: there is no level %q; the levels are %s", s, name, strings.Join(known, ", "))
		}
		if !(rate > 0 && rate <= 1) {
			return nil, fmt.Errorf("level %q: rate %g is outside (0, 1]", name, rate)
		}
		share, err := strconv.ParseUint(part[1:], 10, 63)
		switch {
		case err != nil:
			return nil, fmt.Errorf("mode %q: the share in %q is not a whole number", s, part)
		case share < 1:
			return nil, fmt.Errorf("mode %q: the share in %q must be at least 1", s, part)
		case share > maxShare:
			return nil, fmt.Errorf("mode %q: the share in %q must be at most %d", s, part, maxShare)
		}
		if len(m) > 0 && rate > m[0].Rate {
			return nil, fmt.Errorf("mode %q: level %s (rate %g) is wider than the global model, level %s (rate %g), which is named first",
				s, name, rate, m[0].Name, m[0].Rate)
		}
		if slices.ContainsFunc(m, func(l Level) bool { return l.Name == name }) {
			return nil, fmt.Errorf("mode %q: level %s is named twice", s, name)
		}
		m = append(m, Level{name, rate, int(share)})
	}
	return m, nil
}

// DefaultRates returns the paper's levels: shrinkage ratio 1/2 from a = 1 to e = 1/16.
func DefaultRates() map[string]float64 {
	rates := make(map[string]float64, 5)
	for i, name := range []string{"a", "b", "c", "d", "e"} {
		rates[name] = math.Ldexp(1, -i)
	}
	return rates
}

// String returns the mode string.
func (m Mode) String() string {
	parts := make([]string, len(m))
	for i, l := range m {
		parts[i] = l.Name + strconv.Itoa(l.Share)
	}
	return strings.Join(parts, "-")
}

// Global returns the level of the global model.
func (m Mode) Global() Level { return m[0] }

func (m Mode) shares() int {
	n := 0
	for _, l := range m {
		n += l.Share
	}
	return n
}

// Fixed returns the level, as a position in m, that member i of n has for ever: with unit = ⌊n/Σshares⌋ the first unit·share
// members have the first level, the next ones the second, and so on; members left over have the last level named.
func (m Mode) Fixed(i, n int) int {
	unit := n / m.shares()
	upto := 0
	for k, l := range m {
		upto += unit * l.Share
		if i < upto {
			return k
		}
	}
	return len(m) - 1
}

// Dynamic returns the level, as a position in m, that a member has in one round: an independent draw with the shares as
// weights, from the member's own stream.
func (m Mode) Dynamic(seed uint64, round int, member federated.Member) int {
	w := make([]float64, len(m))
	for k, l := range m {
		w[k] = float64(l.Share)
	}
	return rng.New(seed, round, member.Name, "level").Categorical(w)
}
