package cohort_test

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestThreatModel checks that every test which the threat model names exists in the package that it names.
func TestThreatModel(t *testing.T) {
	text, err := os.ReadFile("docs/threat-model.md")
	if err != nil {
		t.Fatal(err)
	}
	named := regexp.MustCompile("`([a-z/]+)` |\\b((?:Test|Fuzz)[A-Z][A-Za-z0-9]*)")
	pkg, found := "", 0
	for _, m := range named.FindAllStringSubmatch(strings.ReplaceAll(string(text), "\n", " "), -1) {
		if m[1] != "" {
			pkg = m[1]
			continue
		}
		found++
		if !declares(t, pkg, m[2]) {
			t.Errorf("docs/threat-model.md names %s of %s, which does not exist", m[2], pkg)
		}
	}
	if found < 40 {
		t.Errorf("only %d tests were looked for", found)
	}
}

// declares reports whether a test stands in the files of a package.
func declares(t *testing.T, pkg, test string) bool {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(pkg, "*_test.go"))
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		text, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(string(text), "\nfunc "+test+"(") {
			return true
		}
	}
	return false
}
