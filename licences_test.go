package cohort_test

import (
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

// TestLicences checks that THIRD_PARTY_LICENCES.md names every module that the binary contains, at its version.
func TestLicences(t *testing.T) {
	text, err := os.ReadFile("THIRD_PARTY_LICENCES.md")
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(string(text), "\n")
	for _, target := range []string{"linux", "darwin", "windows"} {
		cmd := exec.Command("go", "list", "-deps", "-f", "{{with .Module}}{{if not .Main}}{{.Path}} | {{.Version}}{{end}}{{end}}", "./cmd/cohort")
		cmd.Env = append(os.Environ(), "GOOS="+target, "GOARCH=amd64", "CGO_ENABLED=0")
		out, err := cmd.Output()
		if err != nil {
			t.Fatalf("go list for %s: %v", target, err)
		}
		for module := range strings.SplitSeq(strings.TrimSpace(string(out)), "\n") {
			if module == "" {
				continue
			}
			if !slices.ContainsFunc(lines, func(l string) bool { return strings.HasPrefix(l, "| "+module+" | ") }) {
				t.Errorf("%s is part of the binary but not listed", module)
			}
		}
	}
}
