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
func TestWards(t *testing.T) { checkDrawn(t, wards()) }

// wards draws a hospital's and a laboratory's tables: 300 patients in wards of twelve, of the first 216 of whom the laboratory has 30 % under
// the key of another of the same ward.
func wards() map[string]string {
	r := rng.New(11, 0, "", "wards")
	const patients, ward, before = 300, 12, 216
	hospital, laboratory := strings.Builder{}, make([]string, patients)
	hospital.WriteString("patient,ward,age,nights,wristband,cost\n")
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
		fmt.Fprintf(&hospital, "%s,%c%d,%d,%d,%s,%.0f\n", key(i), 'A'+rune(i/ward/5), 1+i/ward%5, age, nights, wristband, cost)
		laboratory[i] = fmt.Sprintf("%s,%c%d,%.1f,%.2f\n", key(linked), 'A'+rune(i/ward/5), 1+i/ward%5, protein, lactate)
	}
	r.Shuffle(patients, func(i, j int) { laboratory[i], laboratory[j] = laboratory[j], laboratory[i] })
	return map[string]string{"hospital.csv": hospital.String(), "laboratory.csv": "patient,unit,protein,lactate\n" + strings.Join(laboratory, "")}
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
		for name, text := range map[string]string{
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
