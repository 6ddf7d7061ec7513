package cohort_test

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestThreatModel checks that every test which the threat model and the page on privacy name exists in the package that they name.
func TestThreatModel(t *testing.T) {
	for page, least := range map[string]int{"docs/threat-model.md": 40, "docs/privacy.md": 15} {
		namesTests(t, page, least)
	}
}

func namesTests(t *testing.T, page string, least int) {
	text, err := os.ReadFile(page)
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
			t.Errorf("%s names %s of %s, which does not exist", page, m[2], pkg)
		}
	}
	if found < least {
		t.Errorf("%s: only %d tests were looked for", page, found)
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
