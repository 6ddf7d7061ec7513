package recipe

import (
	"errors"
	"fmt"
	"os"
	"reflect"
	"slices"
	"strings"

	"github.com/cohort-learning/cohort/methods"
	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"
)

// maxSize bounds a recipe file; a real one has a few kilobytes.
const maxSize = 1 << 20

// Error says what is wrong with a recipe and where.
type Error struct {
	File         string
	Line, Column int    // from 1; 0 if the error is about a field that the file does not mention
	Field        string // path from the top, may be empty
	Message      string
}

// Error returns "file:line:column: field: message".
func (e *Error) Error() string {
	var b strings.Builder
	b.WriteString(e.File)
	if e.Line > 0 {
		fmt.Fprintf(&b, ":%d:%d", e.Line, e.Column)
	}
	b.WriteString(": ")
	if e.Field != "" {
		b.WriteString(e.Field + ": ")
	}
	b.WriteString(e.Message)
	return b.String()
}

// Load reads a recipe file. What it leaves out has the value of [Default] for its method.
func Load(path string) (*Recipe, error) {
	st, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if st.IsDir() {
		return nil, fmt.Errorf("%s is a folder; a recipe is a YAML file", path)
	}
	if st.Size() > maxSize {
		return nil, fmt.Errorf("%s has %d bytes; a recipe has at most %d", path, st.Size(), maxSize)
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	return Parse(path, text)
}

// Parse reads a recipe from text; file is its name in errors. Every error is an [*Error].
func Parse(file string, text []byte) (r *Recipe, err error) {
	if len(text) > maxSize {
		return nil, &Error{File: file, Message: fmt.Sprintf("%d bytes; a recipe has at most %d", len(text), maxSize)}
	}
	defer func() {
		if p := recover(); p != nil { // the YAML library panics on some malformed input
			r, err = nil, &Error{File: file, Message: fmt.Sprintf("not valid YAML: %v", p)}
		}
	}()
	parsed, err := parser.ParseBytes(text, 0)
	if err != nil {
		return nil, located(file, "", err)
	}
	root, err := mapping(file, parsed)
	if err != nil {
		return nil, err
	}
	f := &document{file: file, root: root}
	if n := f.child(root, "method"); n == nil {
		return nil, &Error{File: file, Line: 1, Column: 1, Field: "method", Message: "is missing; expected one of " + strings.Join(methods.Names(), ", ")}
	} else if s, ok := n.(*ast.StringNode); !ok {
		return nil, f.at(n, "method", "expected the name of a method")
	} else if r, err = Default(s.Value); err != nil {
		return nil, f.at(n, "method", err.Error())
	}
	if err := f.keys(root, reflect.TypeOf(*r), "", r.Options); err != nil {
		return nil, err
	}
	options := r.Options
	if err := f.decode(root, r, options); err != nil {
		return nil, err
	}
	if err := r.Validate(); err != nil {
		return nil, f.blame(err)
	}
	return r, nil
}

func mapping(file string, parsed *ast.File) (*ast.MappingNode, error) {
	var body ast.Node
	for _, d := range parsed.Docs {
		if d.Body == nil {
			continue
		}
		if body != nil {
			return nil, &Error{File: file, Message: "holds more than one document; a recipe is one"}
		}
		body = d.Body
	}
	switch b := body.(type) {
	case *ast.MappingNode:
		return b, nil
	case *ast.MappingValueNode:
		return ast.Mapping(b.Start, false, b), nil
	case nil:
		return nil, &Error{File: file, Line: 1, Column: 1, Message: "is empty; start from \"cohort init METHOD\""}
	}
	return nil, &Error{File: file, Line: 1, Column: 1, Message: "a recipe is a list of fields such as \"method: fedavg\""}
}

// document is a parsed file that errors can point into.
type document struct {
	file string
	root *ast.MappingNode
}

func (f *document) at(n ast.Node, field, message string) *Error {
	e := &Error{File: f.file, Field: field, Message: message}
	if t := n.GetToken(); t != nil {
		e.Line, e.Column = t.Position.Line, t.Position.Column
	}
	return e
}

func entries(n ast.Node) []*ast.MappingValueNode {
	switch m := n.(type) {
	case *ast.MappingNode:
		return m.Values
	case *ast.MappingValueNode:
		return []*ast.MappingValueNode{m}
	}
	return nil
}

func (f *document) child(n ast.Node, key string) ast.Node {
	for _, v := range entries(n) {
		if v.Key.String() == key {
			return v.Value
		}
	}
	return nil
}

// keys refuses fields that t does not have and fields given twice. Options is the value that the field "options" decodes to.
func (f *document) keys(n ast.Node, t reflect.Type, path string, options any) error {
	known := fieldsOf(t)
	seen := map[string]bool{}
	for _, v := range entries(n) {
		key := v.Key.String()
		full := join(path, key)
		field, ok := known[key]
		if !ok {
			names := make([]string, 0, len(known))
			for k := range known {
				names = append(names, k)
			}
			slices.Sort(names)
			return f.at(v.Key, full, fmt.Sprintf("there is no such field%s; the fields here are %s", didYouMean(key, names), strings.Join(names, ", ")))
		}
		if seen[key] {
			return f.at(v.Key, full, "is given twice")
		}
		seen[key] = true
		ft := field.Type
		if ft.Kind() == reflect.Interface && options != nil {
			ft = reflect.TypeOf(options)
		}
		if ft.Kind() == reflect.Pointer {
			ft = ft.Elem()
		}
		if ft.Kind() != reflect.Struct {
			continue
		}
		if _, null := v.Value.(*ast.NullNode); null {
			continue
		}
		if entries(v.Value) == nil {
			return f.at(v.Value, full, "expected fields, one a line below it")
		}
		if err := f.keys(v.Value, ft, full, nil); err != nil {
			return err
		}
	}
	return nil
}

func join(path, key string) string {
	if path == "" {
		return key
	}
	return path + "." + key
}

// fieldsOf returns the fields of a struct by their YAML names, those of inlined structs included.
func fieldsOf(t reflect.Type) map[string]reflect.StructField {
	out := map[string]reflect.StructField{}
	for _, s := range yamlFields(t) {
		out[s.name] = s.field
	}
	return out
}

type yamlField struct {
	name  string
	omit  bool
	field reflect.StructField
	index []int
}

// yamlFields lists the fields of a struct in order under their YAML names.
func yamlFields(t reflect.Type) []yamlField {
	var out []yamlField
	for i := range t.NumField() {
		sf := t.Field(i)
		name, rest, _ := strings.Cut(sf.Tag.Get("yaml"), ",")
		if strings.Contains(rest, "inline") {
			for _, in := range yamlFields(sf.Type) {
				in.index = append([]int{i}, in.index...)
				out = append(out, in)
			}
			continue
		}
		if name == "-" || name == "" || !sf.IsExported() {
			continue
		}
		out = append(out, yamlField{name, strings.Contains(rest, "omitempty"), sf, []int{i}})
	}
	return out
}

// decode fills r, whose fields hold their defaults, from the file.
func (f *document) decode(root *ast.MappingNode, r *Recipe, options any) error {
	for _, v := range root.Values {
		key := v.Key.String()
		if _, null := v.Value.(*ast.NullNode); null {
			continue
		}
		var into any
		if key == "options" {
			into = options
		} else {
			for _, yf := range yamlFields(reflect.TypeOf(*r)) {
				if yf.name == key {
					into = reflect.ValueOf(r).Elem().FieldByIndex(yf.index).Addr().Interface()
				}
			}
		}
		if key == "data" || key == "partition" || key == "model" {
			// A name without its parameters is a new start: defaults of another name would have no meaning.
			if n := f.child(v.Value, "name"); n != nil {
				resetUnless(into, n)
			}
		}
		if err := f.value(v.Value, reflect.ValueOf(into), key); err != nil {
			return err
		}
	}
	return nil
}

// resetUnless clears what into points to if its Name differs from the one given.
func resetUnless(into any, name ast.Node) {
	v := reflect.ValueOf(into).Elem()
	if s, ok := name.(*ast.StringNode); ok && v.FieldByName("Name").String() != s.Value {
		clients := v.FieldByName("Clients")
		keep := clients.IsValid() && v.Type().Name() == "Scheme"
		var n int64
		if keep {
			n = clients.Int()
		}
		v.SetZero()
		if keep {
			clients.SetInt(n)
		}
	}
}

// value decodes one node into what into points to. Structs are filled field by field, so that an error knows its field.
func (f *document) value(n ast.Node, into reflect.Value, path string) error {
	into = reflect.Indirect(into)
	if into.Kind() == reflect.Struct {
		for _, v := range entries(n) {
			for _, yf := range yamlFields(into.Type()) {
				if yf.name != v.Key.String() {
					continue
				}
				if _, null := v.Value.(*ast.NullNode); null {
					continue
				}
				if err := f.value(v.Value, into.FieldByIndex(yf.index).Addr(), join(path, yf.name)); err != nil {
					return err
				}
			}
		}
		return nil
	}
	if err := yaml.NodeToValue(n, into.Addr().Interface()); err != nil {
		return f.at(n, path, fmt.Sprintf("%s, expected %s", short(n.String()), kindWords(into.Type())))
	}
	return nil
}

func short(s string) string {
	s = strings.TrimSpace(s)
	if i := strings.IndexByte(s, '\n'); i >= 0 {
		s = s[:i] + " …"
	}
	if len(s) > 60 {
		s = s[:60] + "…"
	}
	return s
}

// kindWords says in words what a Go type holds.
func kindWords(t reflect.Type) string {
	if t.PkgPath() == "time" && t.Name() == "Duration" {
		return "a duration such as 30s or 5m"
	}
	switch t.Kind() {
	case reflect.Int, reflect.Int32, reflect.Int64:
		return "a whole number"
	case reflect.Uint, reflect.Uint32, reflect.Uint64:
		return "a whole number that is not negative"
	case reflect.Float32, reflect.Float64:
		return "a number"
	case reflect.Bool:
		return "true or false"
	case reflect.String:
		return "a word"
	case reflect.Slice:
		return "a list of " + strings.TrimPrefix(strings.TrimPrefix(kindWords(t.Elem()), "a "), "whole ") + "s such as [1, 2]"
	case reflect.Map:
		return "names with values"
	case reflect.Pointer:
		return kindWords(t.Elem())
	}
	return t.String()
}

// blame finds the place in the file that a validation error is about.
func (f *document) blame(err error) error {
	var fe *FieldError
	if !errors.As(err, &fe) {
		return &Error{File: f.file, Message: err.Error()}
	}
	var n ast.Node = f.root
	var found ast.Node
	for part := range strings.SplitSeq(fe.Field, ".") {
		c := f.child(n, part)
		if c == nil {
			break
		}
		n, found = c, c
	}
	if found == nil {
		return &Error{File: f.file, Field: fe.Field, Message: fe.Err.Error()}
	}
	return f.at(found, fe.Field, fe.Err.Error())
}

// located turns an error of the YAML library into one with a place.
func located(file, field string, err error) error {
	e := &Error{File: file, Field: field, Message: err.Error()}
	var y yaml.Error
	if errors.As(err, &y) {
		e.Message = "not valid YAML: " + y.GetMessage()
		if t := y.GetToken(); t != nil {
			e.Line, e.Column = t.Position.Line, t.Position.Column
		}
	}
	return e
}

// didYouMean returns " (did you mean …?)" for the nearest word, if one is near.
func didYouMean(word string, known []string) string {
	best, at := 3, ""
	for _, k := range known {
		if d := distance(word, k); d < best {
			best, at = d, k
		}
	}
	if at == "" {
		return ""
	}
	return fmt.Sprintf(" (did you mean %q?)", at)
}

// distance is the number of insertions, deletions, replacements and swaps of neighbours that turn a into b.
func distance(a, b string) int {
	rows := make([][]int, len(a)+1)
	for i := range rows {
		rows[i] = make([]int, len(b)+1)
		rows[i][0] = i
	}
	for j := range rows[0] {
		rows[0][j] = j
	}
	for i := 1; i <= len(a); i++ {
		for j := 1; j <= len(b); j++ {
			d := rows[i-1][j-1]
			if a[i-1] != b[j-1] {
				d++
			}
			d = min(d, rows[i-1][j]+1, rows[i][j-1]+1)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				d = min(d, rows[i-2][j-2]+1)
			}
			rows[i][j] = d
		}
	}
	return rows[len(a)][len(b)]
}
