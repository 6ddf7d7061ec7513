package transport_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"reflect"
	"strconv"
	"strings"
	"testing"

	"github.com/cohort-learning/cohort/transport"
)

// TestWireDocument holds docs/wire.md to the code: every kind has its section there, every member of a body stands in that of its
// kind, and every code in the table.
func TestWireDocument(t *testing.T) {
	b, err := os.ReadFile("../docs/wire.md")
	if err != nil {
		t.Fatal(err)
	}
	text := string(b)
	section := func(title string) string {
		_, after, ok := strings.Cut(text, "\n"+title+"\n")
		if !ok {
			t.Errorf("there is no section %q", title)
		}
		level, _, _ := strings.Cut(title, " ")
		end := len(after)
		for n := 1; n <= len(level); n++ {
			if i := strings.Index(after, "\n"+strings.Repeat("#", n)+" "); i >= 0 {
				end = min(end, i)
			}
		}
		return after[:end]
	}
	named := func(in, where, name string) {
		if !strings.Contains(in, "`"+name+"`") {
			t.Errorf("%s does not name `%s`", where, name)
		}
	}
	var members func(s string, where string, of reflect.Type)
	members = func(s, where string, of reflect.Type) {
		for of.Kind() == reflect.Pointer || of.Kind() == reflect.Slice || of.Kind() == reflect.Map {
			of = of.Elem()
		}
		if of.Kind() != reflect.Struct || of.PkgPath() != reflect.TypeFor[transport.Ref]().PkgPath() {
			return
		}
		for i := range of.NumField() {
			name, _, _ := strings.Cut(of.Field(i).Tag.Get("json"), ",")
			switch of {
			case reflect.TypeFor[transport.Ref](), reflect.TypeFor[transport.Head](), reflect.TypeFor[transport.Tensors]():
				named(text, "the document", name)
			case reflect.TypeFor[transport.Task](): // of one, and of many
				named(section("### task"), "### task", name)
			default:
				named(s, where, name)
			}
			members(s, where, of.Field(i).Type)
		}
	}
	for _, x := range examples {
		title := "### " + string(x.body.Kind())
		members(section(title), title, reflect.TypeOf(x.body))
	}
	if n := strings.Count(section("## Kinds"), "\n### "); n != len(transport.Kinds()) {
		t.Errorf("%d kinds are described, there are %d", n, len(transport.Kinds()))
	}
	members(section("## Messages"), "## Messages", reflect.TypeFor[transport.Envelope]())
	named(section("## Messages"), "## Messages", "sig")

	codes := section("## Codes")
	rows := 0
	for _, code := range constants(t, "code.go", "Code") {
		named(codes, "## Codes", code)
		rows++
	}
	if n := strings.Count(codes, "\n| `"); n != rows {
		t.Errorf("%d codes are described, there are %d", n, rows)
	}
	for _, outcome := range constants(t, "bodies.go", "Outcome") {
		named(section("### verdict"), "### verdict", outcome)
	}
	if !strings.Contains(text, "# The wire, version "+strconv.Itoa(transport.Version)) || !strings.Contains(text, "65,536") || transport.MaxMessage != 65536 {
		t.Error("the version or the size of messages")
	}
}

// constants returns the values of a file's constants of a type, or of those after one in its group.
func constants(t *testing.T, file, of string) (values []string) {
	t.Helper()
	f, err := parser.ParseFile(token.NewFileSet(), file, nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	ast.Inspect(f, func(n ast.Node) bool {
		v, ok := n.(*ast.ValueSpec)
		if !ok || len(v.Values) != 1 {
			return true
		}
		if id, ok := v.Type.(*ast.Ident); ok && id.Name == of {
			if lit, ok := v.Values[0].(*ast.BasicLit); ok {
				s, err := strconv.Unquote(lit.Value)
				if err != nil {
					t.Fatal(err)
				}
				values = append(values, s)
			}
		}
		return true
	})
	if len(values) == 0 {
		t.Fatalf("no constants of type %s in %s", of, file)
	}
	return values
}
