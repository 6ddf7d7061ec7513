package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
)

// block is a fenced block of a page.
type block struct{ language, text string }

func blocksOf(t *testing.T, page string) []block {
	t.Helper()
	text, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	var out []block
	in := false
	for line := range strings.Lines(string(text)) {
		language, fence := strings.CutPrefix(strings.TrimRight(line, "\n"), "```")
		switch {
		case fence && in:
			in = false
		case fence:
			in = true
			out = append(out, block{language: language})
		case in:
			out[len(out)-1].text += line
		}
	}
	return out
}

// TestOwnDataPage does what docs/own-data.md says: its recipes are files under the name in their first line, its commands
// are run in order, and its Go code stands word for word in the example of package recipe.
func TestOwnDataPage(t *testing.T) {
	example, err := os.ReadFile(filepath.Join("..", "..", "recipe", "example_test.go"))
	if err != nil {
		t.Fatal(err)
	}
	var script, files strings.Builder
	script.WriteString("glyphs photos 3 30 cat dog bird\nglyphs new 3 4 cat dog bird\n")
	commands := 0
	for _, b := range blocksOf(t, filepath.Join("..", "..", "docs", "own-data.md")) {
		switch b.language {
		case "yaml":
			name, _, _ := strings.Cut(strings.TrimPrefix(b.text, "# "), "\n")
			fmt.Fprintf(&files, "-- %s --\n%s", name, b.text)
		case "sh":
			for line := range strings.Lines(b.text) {
				script.WriteString("exec " + line)
				commands++
			}
		case "go":
			if !strings.Contains(string(example), b.text) {
				t.Errorf("this is not in recipe/example_test.go:\n%s", b.text)
			}
		}
	}
	if commands < 8 {
		t.Fatalf("the page has %d commands", commands)
	}
	script.WriteString("exists who-has-what.png runs/photos/report.html model.safetensors model.json\n")
	people, err := os.ReadFile(filepath.Join("testdata", "people.csv"))
	if err != nil {
		t.Fatal(err)
	}
	fmt.Fprintf(&files, "-- people.csv --\n%s-- ask.csv --\ncolour,weight,height\nred,12,1.1\nblue,81,1.7\n", people)
	file := filepath.Join(t.TempDir(), "own_data.txt")
	if err := os.WriteFile(file, []byte(script.String()+files.String()), 0o644); err != nil {
		t.Fatal(err)
	}
	testscript.Run(t, testscript.Params{Files: []string{file}, Setup: prepareScript, Cmds: scriptCommands})
}
