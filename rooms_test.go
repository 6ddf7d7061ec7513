package cohort_test

import (
	"go/parser"
	"go/token"
	"io/fs"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const module = "github.com/cohort-learning/cohort/"

// rooms are the packages from the ground up; docs/architecture.md draws them. A package imports only what stands on a line
// above its own, and besides what its own line allows. Sub-packages belong to the line of the longest prefix.
var rooms = [][]string{
	{"parallel", "rng"},
	{"weights"},
	{"backend/cpu/kernel"},
	{"backend/cpu/loops", "backend/cpu/workers"},
	{"backend/cpu"},
	{"backend"},
	{"dataset"},
	{"nn"},
	{"train", "recommend"},
	{"assisted/learner"},
	{"journal"},
	{"record"},
	{"dashboard"},
	{"identity"},
	{"transport", "blob"},
	{"secure"},
	{"federated"},
	{"federated/fedtest"},
	{"federated/private"},
	{"federated/baselines", "federated/fedavg", "federated/heterofl", "federated/personalfr", "federated/scaffold"},
	{"federated/personal", "federated/recommenders", "federated/selffl", "federated/semifl"},
	{"assisted"},
	{"assisted/assisttest"},
	{"assisted/aeal", "assisted/al", "assisted/alnet", "assisted/ascii", "assisted/bounds", "assisted/gal", "assisted/mismatch"},
	{"methods"},
	{"simulation"},
	{"recipe"},
	{"node/parcel", "node/program", "node/gate"},
	{"node/coordinator", "node/member"},
	{"node/relay"},
	{"node"},
	{"reproduce"},
	{"cmd", "bench"},
}

// forbidden are imports that a line would allow but the design does not.
var forbidden = map[string][]string{
	// Methods and their driver know nothing of how runs are kept, nor of a network.
	"federated":  {"journal", "record", "identity", "transport", "blob", "dashboard"},
	"assisted":   {"journal", "record", "identity", "transport", "blob", "dashboard"},
	"nn":         {"backend", "dataset"},
	"train":      {"backend"}, // no room but backend knows which engine runs
	"dataset":    {"backend"},
	"simulation": {"methods"},
	"blob":       {"identity", "transport"},
}

func room(pkg string) (name string, level int) {
	for i, line := range rooms {
		for _, r := range line {
			if (pkg == r || strings.HasPrefix(pkg, r+"/")) && len(r) > len(name) {
				name, level = r, i
			}
		}
	}
	return name, level
}

// sisters reports whether both packages are the driver, a method, or the contract that they are tested by: their tests
// compare them with one another.
func sisters(a, b string) bool {
	for _, kin := range []string{"federated", "assisted"} {
		if strings.HasPrefix(a, kin) && strings.HasPrefix(b, kin) {
			return true
		}
	}
	return false
}

// TestRooms checks every import of the module, in tests as well as in the program, against the plan of the house.
func TestRooms(t *testing.T) {
	imports := 0
	err := filepath.WalkDir(".", func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && (strings.HasPrefix(d.Name(), ".") && path != "." || d.Name() == "testdata") {
			return filepath.SkipDir
		}
		if !strings.HasSuffix(path, ".go") || filepath.Dir(path) == "." {
			return nil
		}
		pkg := filepath.ToSlash(filepath.Dir(path))
		from, level := room(pkg)
		if from == "" {
			t.Errorf("%s stands in no room: add it to the plan in rooms_test.go and docs/architecture.md", pkg)
			return nil
		}
		f, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.ImportsOnly)
		if err != nil {
			return err
		}
		for _, im := range f.Imports {
			target, err := strconv.Unquote(im.Path.Value)
			if err != nil {
				return err
			}
			imported, ours := strings.CutPrefix(target, module)
			if !ours {
				continue
			}
			imports++
			to, below := room(imported)
			test := strings.HasSuffix(path, "_test.go")
			switch {
			case to == from:
			case to == "":
				t.Errorf("%s imports %s, which stands in no room", path, imported)
			case below >= level && !(test && sisters(from, to)):
				t.Errorf("%s imports %s, which stands above it", path, imported)
			case !test && slices.Contains(forbidden[strings.SplitN(from, "/", 2)[0]], to):
				t.Errorf("%s imports %s, which %s must not know", path, imported, from)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if imports < 50 {
		t.Errorf("only %d imports were looked at", imports)
	}
}
