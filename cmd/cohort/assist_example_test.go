package main

import (
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/cohort-learning/cohort/rng"
	"github.com/rogpeppe/go-internal/testscript"
)

// TestLoans checks that the tables of examples/assist are those that are drawn here: a bank's customers, most of whom a registry
// and a payroll office know, too, among others. UPDATE_SCRIPTS writes them anew.
func TestLoans(t *testing.T) { checkDrawn(t, loans()) }

// checkDrawn compares tables of examples/assist with what is drawn.
func checkDrawn(t *testing.T, tables map[string]string) {
	t.Helper()
	checkExamples(t, "assist", tables)
}

// checkExamples compares tables of a folder of examples with what is drawn.
func checkExamples(t *testing.T, folder string, tables map[string]string) {
	t.Helper()
	for name, text := range tables {
		path := filepath.Join("..", "..", "examples", folder, name)
		if os.Getenv("UPDATE_SCRIPTS") != "" {
			if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		if got, err := os.ReadFile(path); err != nil || string(got) != text {
			t.Errorf("%s is not what is drawn (%v); UPDATE_SCRIPTS=1 writes it anew", path, err)
		}
	}
}

// loans draws the tables. Whether a loan is repaid depends on things that only the three together know.
func loans() map[string]string {
	r := rng.New(5, 0, "", "loans")
	pick := func(words ...string) string { return words[r.IntN(len(words))] }
	day := func(from, to int) string {
		return time.Date(from, 1, 1, 0, 0, 0, 0, time.UTC).AddDate(0, 0, r.IntN((to-from)*365)).Format(time.DateOnly)
	}
	var bank strings.Builder
	bank.WriteString("customer,amount,months,purpose,since,repaid\n")
	registry := []string{}
	payroll := []string{}
	const people = 800
	for i := range people {
		id := fmt.Sprintf("P%05d", 10000+i*37%people*101)
		amount, months, purpose := 500+100*r.IntN(140), 6*(1+r.IntN(10)), pick("car", "furniture", "kitchen", "travel", "other")
		age, owns, moved := 19+r.IntN(60), r.Float64() < 0.4, day(1990, 2024)
		salary, contract := 900+int(50*math.Floor(20*math.Exp(0.5*r.NormFloat64()))), pick("permanent", "permanent", "permanent", "temporary")
		burden := float64(amount) / float64(months) / float64(salary) // what is to be paid back of each month's salary
		z := 3 - 9*burden + 0.1*float64(min(age, 55)-38)
		if owns {
			z += 2.5
		}
		if contract == "temporary" {
			z -= 3
		}
		if purpose == "travel" {
			z -= 2
		}
		repaid := "no"
		if r.Float64() < 1/(1+math.Exp(-z)) {
			repaid = "yes"
		}
		fmt.Fprintf(&bank, "%s,%d,%d,%s,%s,%s\n", id, amount, months, purpose, day(2005, 2024), repaid)
		if r.Float64() < 0.97 {
			registry = append(registry, fmt.Sprintf("%s;%d;%s;%s;%s\n", id, age, map[bool]string{true: "own", false: "rent"}[owns], pick("north", "east", "south", "west"), moved))
		}
		if r.Float64() < 0.9 {
			shown := fmt.Sprint(salary)
			if r.Float64() < 0.05 {
				shown = "NA"
			}
			payroll = append(payroll, fmt.Sprintf("%s\t%s\t%s\t%s\n", id, shown, contract, day(2000, 2024)))
		}
	}
	for i := range 60 { // whom the bank does not know
		registry = append(registry, fmt.Sprintf("Q%05d;%d;rent;%s;%s\n", 10000+i, 19+r.IntN(60), pick("north", "east", "south", "west"), day(1990, 2024)))
	}
	for _, rows := range [][]string{registry, payroll} { // each has them in its own order
		r.Shuffle(len(rows), func(i, j int) { rows[i], rows[j] = rows[j], rows[i] })
	}
	return map[string]string{
		"bank.csv":     bank.String(),
		"registry.csv": "person;age;home;district;moved\n" + strings.Join(registry, ""),
		"payroll.tsv":  "employee\tsalary\tcontract\tstarted\n" + strings.Join(payroll, ""),
	}
}

// assistScript runs a script in a folder that has the files of examples/assist where a clone has them.
func assistScript(t *testing.T, script string, setup func(e *testscript.Env, dir string) error) {
	t.Helper()
	exampleScript(t, "assist", script, setup)
}

// exampleScript runs a script in a folder that has a folder of examples where a clone has it.
func exampleScript(t *testing.T, folder, script string, setup func(e *testscript.Env, dir string) error) {
	t.Helper()
	file := filepath.Join(t.TempDir(), folder+".txt")
	if err := os.WriteFile(file, []byte(script), 0o644); err != nil {
		t.Fatal(err)
	}
	examples, err := filepath.Abs(filepath.Join("..", "..", "examples", folder))
	if err != nil {
		t.Fatal(err)
	}
	testscript.Run(t, testscript.Params{Files: []string{file}, Cmds: scriptCommands, Setup: func(e *testscript.Env) error {
		if err := prepareScript(e); err != nil {
			return err
		}
		dir := filepath.Join(e.WorkDir, "examples", folder)
		if err := os.CopyFS(dir, os.DirFS(examples)); err != nil {
			return err
		}
		if setup == nil {
			return nil
		}
		return setup(e, dir)
	}})
}

// commandsOf are the commands of some sections of a page, at least so many, as a script.
func commandsOf(t *testing.T, page string, least int, of func(section string) bool) string {
	t.Helper()
	var script strings.Builder
	commands := 0
	for _, b := range blocksOf(t, filepath.Join("..", "..", "docs", page)) {
		if b.language != "sh" || !of(b.section) {
			continue
		}
		for line := range strings.Lines(b.text) {
			line, _, _ = strings.Cut(line, "#")
			fmt.Fprintf(&script, "exec %s\n", strings.TrimSpace(line))
			commands++
		}
	}
	if commands < least {
		t.Fatalf("%s has %d commands", page, commands)
	}
	return script.String()
}

// TestAssistPage does what docs/assist.md says, in a clone.
func TestAssistPage(t *testing.T) {
	script := commandsOf(t, "assist.md", 3, func(section string) bool { return section != realSection })
	script += `exists runs/loans/report.html
exec cohort assist examples/assist/loans.yaml --name again --json
json stdout bounds/alone/auroc < 0.77
json stdout metrics/auroc > 0.82
json stdout bounds/joint/auroc > 0.82
json stdout organisations/registry/rows = 774
json stdout organisations/payroll/shapley > 0.02

# Rows that are asked about in the order of the sponsor's file, of whom the others know some.
exec cohort predict loans --input bank=few.csv --json
json stdout predictions/0/input = new
json stdout predictions/1/input = P10000
json stdout predictions/1/class = yes
json stdout degraded/payroll = 1
json stdout degraded/registry = 1
cp stdout asked
exec cohort predict loans --input bank=few.csv --input registry=one.csv --csv
stdout '^P10000,(yes|no),0\.'
stderr 'degraded: payroll gives no value for 1 of 2 entities: its mean stands for it there; on rows set apart in training the loss rose by 0\.0'
! stderr registry
exits 2 cohort predict loans --input few.csv
stderr 'expected NAME=FILE'
exits 1 cohort predict loans --input bank=few.csv --input shop=few.csv
stderr 'there is no organisation "shop" in the run; it has bank, payroll, registry'
exits 1 cohort predict loans --input registry=one.csv
stderr 'which rows\? give those of the sponsor: bank=FILE'
exits 1 cohort predict loans --input bank=one.csv
stderr 'column "amount" is missing'

-- few.csv --
customer,amount,months,purpose,since
new,3000,24,car,2020-05-01
P10000,6200,6,boat,2009-01-12
-- one.csv --
person,age,home,district,moved
new,44,own,north,2001-01-01
P10000,30,rent,west,2015-06-07
`
	assistScript(t, script, nil)
}

const realSection = "A table as it is"

// TestAssistRealTable takes a table that nobody here prepared from its file to the report, as docs/assist.md says.
func TestAssistRealTable(t *testing.T) {
	dir := os.Getenv("COHORT_DATA")
	if dir == "" {
		if os.Getenv("CI") == "true" {
			t.Fatal("COHORT_DATA names no folder of real data sets")
		}
		t.Skip("COHORT_DATA names no folder of real data sets")
	}
	assistScript(t, `exec cohort assist examples/assist/german.yaml --dry-run
stderr 'bank predicts "column 21" \(cross-entropy\) from 1000 rows of 5 numbers, 1 category'
stderr 'classes: 1 700, 2 300'
stderr 'giro \(ridge\) has 1000 rows of 3 categories: 14 features; it knows 1000 of the sponsor.s 1000 entities'
exec cohort assist examples/assist/german.yaml --name german --json
json stdout state = finished
json stdout bounds/alone/auroc < 0.7
json stdout metrics/auroc > 0.75
json stdout bounds/joint/auroc > 0.75
json stdout organisations/giro/shapley > 0.03
exists runs/german/report.html
grep 'Weight of each organisation' runs/german/report.html
`, func(e *testscript.Env, examples string) error {
		table, err := os.ReadFile(filepath.Join(dir, "uci-tables", "german.csv"))
		if err != nil {
			return err
		}
		return os.WriteFile(filepath.Join(examples, "german.csv"), table, 0o644)
	})
}
