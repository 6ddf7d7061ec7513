package main

import (
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/cohort-learning/cohort/node/member"
	"github.com/cohort-learning/cohort/recipe"
	"github.com/rogpeppe/go-internal/testscript"
	"github.com/spf13/cobra"
)

// block is a fenced block of a page.
type block struct{ section, language, text string }

func blocksOf(t *testing.T, page string) []block {
	t.Helper()
	text, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	var out []block
	in, section := false, ""
	for line := range strings.Lines(string(text)) {
		language, fence := strings.CutPrefix(strings.TrimRight(line, "\n"), "```")
		switch {
		case fence && in:
			in = false
		case fence:
			in = true
			out = append(out, block{section: section, language: language})
		case in:
			out[len(out)-1].text += line
		case strings.HasPrefix(line, "## "):
			section = strings.TrimSpace(line[3:])
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

// TestNetworkPage does what docs/network.md tells a newcomer: at most four commands from nothing to a run of two sites, in which
// only the port and the tokens are put in; and then it computes the run again.
func TestNetworkPage(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("no shell")
	}
	var script, files strings.Builder
	commands, joins := 0, []string{"north", "south"}
	for _, b := range blocksOf(t, filepath.Join("..", "..", "docs", "network.md")) {
		if name, ok := strings.CutPrefix(b.text, "# "); ok && b.language == "yaml" {
			name, _, _ = strings.Cut(name, "\n")
			fmt.Fprintf(&files, "-- %s --\n%s", name, b.text)
		}
		if b.language != "sh" || b.section == relaysSection || b.section == secureSection {
			continue
		}
		for line := range strings.Lines(b.text) {
			line = strings.TrimSpace(line)
			switch before, after, _ := strings.Cut(line, " cohort1_"); {
			case strings.HasPrefix(line, "cohort serve "):
				line = strings.ReplaceAll(line, "8443", "$PORT")
				fmt.Fprintf(&script, "exec sh -c 'exec %s --listen 127.0.0.1:$PORT 2>serve.log' &serve&\n", line)
			case after != "":
				_, rest, _ := strings.Cut(after, " ")
				fmt.Fprintf(&script, "printed serve.log %s\nexec %s $TOKEN %s &%[1]s&\n", joins[0], before, rest)
				joins = joins[1:]
			case len(joins) == 0: // what comes after the run
				fmt.Fprintf(&script, "wait\nexec %s\n", line)
				continue
			default:
				fmt.Fprintf(&script, "exec %s\n", line)
			}
			commands++
		}
	}
	if commands > 4 || len(joins) > 0 {
		t.Fatalf("%d commands to a run, without those of %q", commands, joins)
	}
	script.WriteString("stdout 'all 10 rounds come out to the same bits'\nexists cohort-server/runs/fedavg/report.html cohort-member/north/policy.yaml\n")
	file := filepath.Join(t.TempDir(), "network.txt")
	if err := os.WriteFile(file, []byte(script.String()+files.String()), 0o644); err != nil {
		t.Fatal(err)
	}
	cmds := networkCommands()
	cmds["printed"] = cmdPrinted
	testscript.Run(t, testscript.Params{Files: []string{file}, Setup: prepareNetwork, Cmds: cmds})
}

// Chapters of docs/network.md that have tests of their own.
const (
	relaysSection = "Relays"
	secureSection = "Secure sums and privacy"
)

// TestSecureChapter does what the chapter on secure sums tells, at four sites whose commands are those of the first one.
func TestSecureChapter(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("no shell")
	}
	var script, files strings.Builder
	sites := []string{"north", "south", "east", "west"}
	everywhere := func(commands string) {
		for i, name := range sites {
			own := strings.NewReplacer("north", name, "NORTH", strings.ToUpper(name), "member-000", fmt.Sprintf("member-%03d", i))
			script.WriteString(own.Replace(commands) + "\n")
		}
	}
	commands := 0
	for _, b := range blocksOf(t, filepath.Join("..", "..", "docs", "network.md")) {
		if b.section != secureSection {
			continue
		}
		if name, ok := strings.CutPrefix(b.text, "# "); ok && b.language == "yaml" {
			name, _, _ = strings.Cut(name, "\n")
			fmt.Fprintf(&files, "-- %s --\n%s", name, b.text)
		}
		line := strings.TrimSpace(b.text)
		if b.language != "sh" {
			continue
		}
		commands++
		switch {
		case strings.HasPrefix(line, "cohort serve "):
			fmt.Fprintf(&script, "exec sh -c 'exec %s --listen 127.0.0.1:$PORT 2>serve.log' &serve&\n", strings.ReplaceAll(line, "8443", "$PORT"))
		case strings.HasSuffix(line, "--enrol"):
			everywhere("printed serve.log north\nexec " + strings.Replace(line, "cohort1_NORTH", "$TOKEN", 1))
		case strings.HasSuffix(line, "--show-key"):
			everywhere("exec sh -c '" + line + " >>peers.txt'")
		case strings.HasSuffix(line, "--dry-run"):
			fmt.Fprintf(&script, "exec %s\nstdout 'masked integers'\n! stdout float32\n", line)
		case strings.Contains(line, "--peers"):
			everywhere("exec " + line + " &north&")
			script.WriteString("wait\n")
		case strings.HasPrefix(line, "cohort privacy ledger"):
			fmt.Fprintf(&script, "exec %s\nstdout distributed-skellam\n", line)
		case strings.HasPrefix(line, "cohort verify"):
			fmt.Fprintf(&script, "exec %s\nstdout 'the records of all 3 rounds are whole'\nstdout noise\n", line)
		default:
			fmt.Fprintf(&script, "exec %s\n", line)
		}
	}
	if commands < 8 {
		t.Fatalf("the chapter has %d commands", commands)
	}
	file := filepath.Join(t.TempDir(), "secure.txt")
	if err := os.WriteFile(file, []byte(script.String()+files.String()), 0o644); err != nil {
		t.Fatal(err)
	}
	cmds := networkCommands()
	cmds["printed"] = cmdPrinted
	testscript.Run(t, testscript.Params{Files: []string{file}, Setup: prepareNetwork, Cmds: cmds})
}

// TestRelaysChapter does what the chapter on relays tells, with the recipe and the data of the first section and the ports and tokens
// put in, and then computes the run again.
func TestRelaysChapter(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("no shell")
	}
	var script, files strings.Builder
	tokens := []string{"serve.log region", "invite.log north", "invite.log south"}
	for _, b := range blocksOf(t, filepath.Join("..", "..", "docs", "network.md")) {
		if name, ok := strings.CutPrefix(b.text, "# "); ok && b.language == "yaml" {
			name, _, _ = strings.Cut(name, "\n")
			fmt.Fprintf(&files, "-- %s --\n%s", name, b.text)
		}
		line := strings.TrimSpace(b.text)
		switch {
		case b.language != "sh":
		case strings.HasPrefix(line, "cohort partition "):
			fmt.Fprintf(&script, "exec %s\n", line)
		case b.section != relaysSection:
		case strings.HasPrefix(line, "cohort serve "):
			line = strings.ReplaceAll(line, "8443", "$PORT")
			fmt.Fprintf(&script, "exec sh -c 'exec %s --listen 127.0.0.1:$PORT 2>serve.log' &serve&\n", line)
		case strings.HasPrefix(line, "cohort invite "): // the relay may not have connected yet
			fmt.Fprintf(&script, "exec sh -c 'until %s >invite.log 2>&1; do sleep 0.1; done'\n", line)
		default:
			name, background, _ := strings.Cut(tokens[0], " ")
			before, after, _ := strings.Cut(line, " cohort1_")
			_, rest, _ := strings.Cut(after, " ")
			rest = strings.ReplaceAll(strings.ReplaceAll(rest, "--listen :8444", "--listen 127.0.0.1:$OTHER"), "8444", "$OTHER")
			fmt.Fprintf(&script, "printed %s %s\nexec %s $TOKEN %s &%[2]s&\n", name, background, before, rest)
			tokens = tokens[1:]
		}
	}
	if len(tokens) > 0 {
		t.Fatalf("the chapter does not use the tokens %q", tokens)
	}
	script.WriteString("wait north\nwait south\nwait serve\nkill -INT region\nwait region\n" +
		"mv shares/member-000 shares/north\nmv shares/member-001 shares/south\nexec cohort verify cohort-server/runs/fedavg --data shares\n" +
		"stdout 'all 10 rounds come out to the same bits'\ngrep partial.received cohort-server/runs/fedavg/journal.jsonl\n" +
		"! grep result.received cohort-server/runs/fedavg/journal.jsonl\nexec cohort members\nstdout 'behind region'\nstdout 'relay of 2'\n")
	file := filepath.Join(t.TempDir(), "relays.txt")
	if err := os.WriteFile(file, []byte(script.String()+files.String()), 0o644); err != nil {
		t.Fatal(err)
	}
	cmds := networkCommands()
	cmds["printed"] = cmdPrinted
	testscript.Run(t, testscript.Params{Files: []string{file}, Setup: prepareNetwork, Cmds: cmds})
}

// cmdPrinted waits until a coordinator has printed the token of a member, and puts it into $TOKEN: printed FILE NAME.
func cmdPrinted(ts *testscript.TestScript, _ bool, args []string) {
	pattern := regexp.MustCompile(`(?m)^` + args[1] + ` joins (?:until .*)?with:\n  cohort join (\S+) --data PATH\n`)
	for range 20_000 {
		text, err := os.ReadFile(ts.MkAbs(args[0]))
		if m := pattern.FindSubmatch(text); err == nil && m != nil {
			ts.Setenv("TOKEN", string(m[1]))
			return
		}
		time.Sleep(3 * time.Millisecond)
	}
	ts.Fatalf("%s never held the token of %s", args[0], args[1])
}

// TestPrivacyPage holds docs/privacy.md to the program: every field of a recipe that it names exists, its recipes and its policy
// are read, and so are the flags of its commands.
func TestPrivacyPage(t *testing.T) {
	page := filepath.Join("..", "..", "docs", "privacy.md")
	text, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	fields := 0
	for _, m := range regexp.MustCompile("`(train|round|evaluate|secure|privacy|robust)\\.([a-z_]+)").FindAllStringSubmatch(string(text), -1) {
		fields++
		if !recipeHas(m[1], m[2]) {
			t.Errorf("no recipe has a field %s.%s", m[1], m[2])
		}
	}
	settings := regexp.MustCompile("`([a-z]+: \\{[^}]*\\})").FindAllStringSubmatch(string(text), -1)
	for _, m := range settings {
		setting := strings.NewReplacer("noise: …", "noise: 2", "clip: …", "clip: 1").Replace(m[1])
		if !strings.HasPrefix(setting, "evaluate") {
			setting += "\nevaluate: {clients: false}"
		}
		if _, err := recipe.Parse("page", []byte("method: fedavg\n"+setting)); err != nil {
			t.Errorf("%s: %v", m[1], err)
		}
	}
	if fields < 15 || len(settings) < 2 {
		t.Errorf("only %d fields and %d settings were looked for", fields, len(settings))
	}
	commands, files := 0, 0
	for _, b := range blocksOf(t, page) {
		name, _, _ := strings.Cut(strings.TrimPrefix(b.text, "# "), "\n")
		switch {
		case b.language == "yaml" && name == member.PolicyName:
			files++
			if _, err := member.ParsePolicy(name, []byte(b.text)); err != nil {
				t.Error(err)
			}
		case b.language == "yaml":
			files++
			r, err := recipe.Parse(name, []byte(b.text))
			if err != nil {
				t.Error(err)
			} else if !r.Hidden() || !r.Privacy.Distributed {
				t.Errorf("%s hides less than it says", name)
			}
		}
	}
	if files != 2 {
		t.Errorf("%d files on the page, expected a policy and a recipe", files)
	}
	for _, m := range regexp.MustCompile("(?m)(?:^|`)cohort ([a-z][^`\n]*)").FindAllStringSubmatch(string(text), -1) {
		commands++
		checkFlags(t, strings.Fields(m[1]))
	}
	if commands < 12 {
		t.Errorf("only %d commands were looked for", commands)
	}
	for _, m := range regexp.MustCompile("`(--[a-z-]+)").FindAllStringSubmatch(string(text), -1) { // of which command, the text says
		found := false
		for _, c := range every(newRoot(streams{}, nil)) {
			found = found || c.Flags().Lookup(m[1][2:]) != nil
		}
		if !found {
			t.Errorf("no command has %s", m[1])
		}
	}
}

// recipeHas reports whether recipes have a field in a section.
func recipeHas(section, field string) bool {
	tag := func(t reflect.Type, name string) (reflect.Type, bool) {
		for f := range t.Fields() {
			if tagged, _, _ := strings.Cut(f.Tag.Get("yaml"), ","); tagged == name {
				return f.Type, true
			}
		}
		return nil, false
	}
	t, ok := tag(reflect.TypeFor[recipe.Recipe](), section)
	if ok {
		_, ok = tag(t, field)
	}
	return ok
}

// checkFlags checks that a command and its flags exist.
func checkFlags(t *testing.T, words []string) {
	t.Helper()
	c, rest, err := newRoot(streams{}, nil).Find(words)
	if err != nil || c.HasSubCommands() {
		t.Errorf("cohort %s: no such command: %v", strings.Join(words, " "), err)
		return
	}
	for _, w := range rest {
		if flag, ok := strings.CutPrefix(w, "--"); ok && c.Flags().Lookup(flag) == nil {
			t.Errorf("cohort %s has no --%s", c.Name(), flag)
		}
	}
}

// every returns a command and all below it.
func every(c *cobra.Command) []*cobra.Command {
	all := []*cobra.Command{c}
	for _, sub := range c.Commands() {
		all = append(all, every(sub)...)
	}
	return all
}
