package main

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/cohort-learning/cohort/assisted/mismatch"
	"github.com/cohort-learning/cohort/rng"
)

// TestClinic checks that the tables of examples/match are those that are drawn here. UPDATE_SCRIPTS writes them anew.
func TestClinic(t *testing.T) { checkExamples(t, "match", clinic()) }

// clinic draws the patients of a clinic and the bills of a pharmacy. Three cards in ten were mixed up; names and dates of birth were
// typed in twice, by people who mistype. What is prescribed explains six tenths of what it costs.
func clinic() map[string]string {
	r := rng.New(17, 0, "", "clinic")
	const people = 240
	var patients strings.Builder
	patients.WriteString("card,name,born,dose,weeks,severity\n")
	card := func(i int) string { return fmt.Sprintf("C%04d", 2000+i*11%people) }
	own, bills := mismatch.Shuffle(people, .3, r), make([]string, people)
	for i := range people {
		name := fullName(r)
		born := time.Date(1930, 1, 1, 0, 0, 0, 0, time.UTC).AddDate(0, 0, r.IntN(75*365)).Format(time.DateOnly)
		dose, weeks, severity := 5*(1+r.IntN(20)), 1+r.IntN(12), 1+r.IntN(5)
		fmt.Fprintf(&patients, "%s,%s,%s,%d,%d,%d\n", card(i), name, born, dose, weeks, severity)
		cost := 40 + 1.5*float64(dose) + 14*float64(weeks) + 25*float64(severity) + 60*r.NormFloat64()
		bills[i] = fmt.Sprintf("%s,%s,%s,%.2f\n", card(own[i]), mistyped(name, r), mistyped(born, r), max(5, cost))
	}
	r.Shuffle(people, func(i, j int) { bills[i], bills[j] = bills[j], bills[i] })
	return map[string]string{"patients.csv": patients.String(), "bills.csv": "card,name,born,cost\n" + strings.Join(bills, "")}
}

// fullName draws a name.
func fullName(r *rng.Stream) string {
	pick := func(words string) string {
		all := strings.Fields(words)
		return all[r.IntN(len(all))]
	}
	return pick("Ada Ali Anna Ben Carla Chen Dora Emil Eva Felix Hana Ines Ivan Jana Jonas Karin Lena Leo Maja Mia Nico Olga Paul Rosa Sami Tara Till Vera") + " " +
		pick("Ba Be Da Ga Ha Ka La Ma Na Pe Ro Sa Ti Vo Wa") + pick("ck ll nn rt st zz bb lm nk") + pick("e er a mann ens i o ow in")
}

// mistyped returns what became of a value that was typed in: one in five has two signs exchanged or one lost, or is not there.
func mistyped(s string, r *rng.Stream) string {
	at := r.IntN(len(s) - 1)
	switch v := r.Float64(); {
	case v < .8:
		return s
	case v < .9:
		return s[:at] + s[at+1:at+2] + s[at:at+1] + s[at+2:]
	case v < .97:
		return s[:at] + s[at+1:]
	}
	return ""
}

// TestMatchPage does what docs/matching.md says of names and dates, in a clone, and looks at what comes out.
func TestMatchPage(t *testing.T) {
	script := commandsOf(t, "matching.md", 2, func(section string) bool { return section == "Names and dates" })
	script += `grep '^line,key,block,given,link_probability,expected,paired,paired_line,matched_probability,given_bits$' matched.csv
exec cohort match examples/match/patients.csv examples/match/bills.csv --target cost --key card --compare name,born --json
json stdout alpha > 0.26
json stdout alpha < 0.34
json stdout compared/0/column = name
json stdout compared/0/levels/0/level = exact
json stdout compared/0/levels/0/m > 0.6
json stdout compared/1/levels/0/u < 0.02
json stdout compared/1/levels/0/bits > 4
json stdout compared/1/levels/2/bits < -2

# Without a key names and dates are enough; with one file there is nothing to compare.
exec cohort match examples/match/patients.csv examples/match/bills.csv --target cost --drop card --compare name,born --json --out nokey.csv
json stdout entropy < 0.5
exits 2 cohort match examples/match/patients.csv --target severity --compare name
stderr 'in one file a row agrees with itself'
exits 2 cohort match examples/match/patients.csv examples/match/bills.csv --target cost --compare cost
stderr 'is the target'
exits 1 cohort match examples/match/patients.csv examples/match/bills.csv --target cost --compare name,dose
stderr 'bills.csv.*"dose"'
`
	exampleScript(t, "match", script, nil)
}
