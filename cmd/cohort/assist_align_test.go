package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/cohort-learning/cohort/assisted/mismatch"
	"github.com/cohort-learning/cohort/rng"
	"github.com/rogpeppe/go-internal/testscript"
)

// TestWards checks that the tables of examples/assist/wards.yaml are those that are drawn here. UPDATE_SCRIPTS writes them anew.
func TestWards(t *testing.T) { checkDrawn(t, wards(false)) }

// wards draws a hospital's and a laboratory's tables: 300 patients in wards of twelve, of the first 216 of whom the laboratory has 30 % under
// the key of another of the same ward. With names both tables have them, one in five mistyped at the laboratory.
func wards(names bool) map[string]string {
	r := rng.New(11, 0, "", "wards")
	const patients, ward, before = 300, 12, 216
	hospital, laboratory := strings.Builder{}, make([]string, patients)
	typed := rng.New(11, 0, "", "names")
	column := func(name string) string {
		if names {
			return "," + name
		}
		return ""
	}
	hospital.WriteString("patient,ward,age,nights,wristband,cost" + column("name") + "\n")
	key := func(i int) string { return fmt.Sprintf("H%04d", 1000+i*7%patients) }
	var links []int
	for from := 0; from < before; from += ward {
		for _, j := range mismatch.Shuffle(ward, .3, r) {
			links = append(links, from+j)
		}
	}
	for i := range patients {
		age, nights, protein, lactate := 20+r.IntN(65), 1+r.IntN(12), 40+25*r.NormFloat64(), 2+.7*r.NormFloat64()
		wristband, linked := "yes", i
		if i < before {
			wristband, linked = "no", links[i]
		}
		cost := 500 + 10*float64(age) + 420*float64(nights) + 40*protein + 1100*lactate + 150*r.NormFloat64()
		name := fullName(typed)
		fmt.Fprintf(&hospital, "%s,%c%d,%d,%d,%s,%.0f%s\n", key(i), 'A'+rune(i/ward/5), 1+i/ward%5, age, nights, wristband, cost, column(name))
		laboratory[i] = fmt.Sprintf("%s,%c%d,%.1f,%.2f%s\n", key(linked), 'A'+rune(i/ward/5), 1+i/ward%5, protein, lactate, column(mistyped(name, typed)))
	}
	r.Shuffle(patients, func(i, j int) { laboratory[i], laboratory[j] = laboratory[j], laboratory[i] })
	return map[string]string{"hospital.csv": hospital.String(), "laboratory.csv": "patient,unit,protein,lactate" + column("name") + "\n" + strings.Join(laboratory, "")}
}

// TestAlignScript runs the example with and without alignment, and says what is wrong in recipes that align.
func TestAlignScript(t *testing.T) {
	assistScript(t, `
exec cohort assist examples/assist/wards.yaml --name aligned --json
json stdout organisations/laboratory/links.wrong > 0.2
json stdout organisations/laboratory/links.wrong < 0.4
json stdout organisations/laboratory/links.explained > 0.9
json stdout metrics/rmse < 250
exec cohort assist examples/assist/wards.yaml --name again -q
stdout 'laboratory aligned its rows: \d+.\d % of its links seem wrong'
grep 'aligned its rows' runs/aligned/report.html

exec cohort assist trusting.yaml --json
json stdout metrics/rmse > 300

# Nothing but the ward is known.
exec cohort assist nokey.yaml --json
json stdout organisations/laboratory/links.wrong = 1

# No ward is known, but names: they help to tell whose rows are whose.
exec cohort assist names.yaml --json
json stdout organisations/laboratory/links.wrong > 0.2
json stdout organisations/laboratory/links.wrong < 0.4
json stdout metrics/rmse < 250
exits 2 cohort assist oneside.yaml
stderr 'its table compares 1 columns and the sponsor.s 0'
exits 2 cohort assist noalign.yaml
stderr 'table.compare is for rows whose key is in doubt'

exits 2 cohort assist examples/assist/wards.yaml --set options.lead=false
stderr 'laboratory aligns its rows by what is left to explain'
exits 2 cohort assist noblocks.yaml
stderr 'its table names blocks and the sponsor.s does not'
exits 2 cohort assist unaligned.yaml
stderr 'say with align'
exits 2 cohort assist oracle.yaml
stderr 'align: unknown learner "oracle"'
`, func(e *testscript.Env, dir string) error {
		text, err := os.ReadFile(filepath.Join(dir, "wards.yaml"))
		if err != nil {
			return err
		}
		at := strings.NewReplacer("path: ", "path: examples/assist/").Replace(string(text))
		change := func(old, new string) string {
			if !strings.Contains(at, old) {
				t.Fatalf("wards.yaml has no %q", old)
			}
			return strings.Replace(at, old, new, 1)
		}
		for name, text := range wards(true) {
			if err := os.WriteFile(filepath.Join(e.WorkDir, "named-"+name), []byte(text), 0o644); err != nil {
				return err
			}
		}
		named := strings.NewReplacer("examples/assist/", "named-", "blocks: [ward]", "compare: [name], drop: [ward]", "blocks: [unit]", "compare: [name], drop: [unit]").Replace(at)
		for name, text := range map[string]string{
			"names.yaml":     named,
			"oneside.yaml":   strings.Replace(named, "compare: [name], drop: [ward]", "drop: [ward, name]", 1),
			"noalign.yaml":   strings.Replace(named, "    align: linear", "    #", 1),
			"trusting.yaml":  strings.Replace(change("    align: linear", "    #"), "blocks: [unit]", "drop: [unit]", 1),
			"nokey.yaml":     change("laboratory.csv, key: patient", "laboratory.csv, drop: [patient]"),
			"noblocks.yaml":  change(", blocks: [ward]", ""),
			"unaligned.yaml": change("    align: linear", "    #"),
			"oracle.yaml":    change("align: linear", "align: oracle"),
		} {
			if err := os.WriteFile(filepath.Join(e.WorkDir, name), []byte(text), 0o644); err != nil {
				return err
			}
		}
		return nil
	})
}
