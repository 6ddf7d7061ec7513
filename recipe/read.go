package recipe

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"

	"github.com/cohort-learning/cohort/dataset"
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
	Err          error // what it comes from, if it came up later than reading; may be nil
}

// Unwrap returns e.Err.
func (e *Error) Unwrap() error { return e.Err }

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

// Load reads a recipe file. What it leaves out has the value of [Default] for its method. Set holds changes to it such as
// "train.batch=20". Relative paths of data and weights in the file begin at its folder; those of set at the working
// directory.
func Load(path string, set ...string) (*Recipe, error) {
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
	base, err := filepath.Abs(filepath.Dir(path))
	if err != nil {
		return nil, err
	}
	return read(path, text, set, base)
}

// Parse reads a recipe from text; file is its name in errors. Every error is an [*Error]. Paths stay as they are.
func Parse(file string, text []byte, set ...string) (*Recipe, error) {
	return read(file, text, set, "")
}

func read(file string, text []byte, set []string, base string) (r *Recipe, err error) {
	f, err := parse(file, text)
	if err != nil {
		return nil, err
	}
	docs := []*document{f} // what comes later changes what came before
	for _, change := range set {
		c, err := parseChange(change)
		if err != nil {
			return nil, err
		}
		docs = append(docs, c)
	}
	named := f // the document that names the method
	for _, d := range docs {
		if d.child(d.root, "method") != nil {
			named = d
		}
	}
	if r, err = named.begin(); err != nil {
		return nil, err
	}
	for i, d := range docs {
		if d == f && named != f && f.child(f.root, "method") != nil && f.child(f.root, "method").String() != r.Method {
			d = f.without("options") // those of another method
			docs[i] = d
		}
		if err := d.keys(d.root, reflect.TypeOf(*r), "", r.Options); err != nil {
			return nil, err
		}
		if err := d.decode(r); err != nil {
			return nil, err
		}
		if base != "" && i == 0 {
			for _, path := range []*string{&r.Data.Path, &r.Data.TestPath, &r.Data.Titles, &r.Model.From} {
				if *path != "" && !filepath.IsAbs(*path) {
					*path = filepath.Join(base, *path)
				}
			}
		}
	}
	r.Method = named.child(named.root, "method").(*ast.StringNode).Value
	r.origin = docs
	if r.Secure.Sums != "" {
		r.Remote()
	}
	if err := r.Validate(); err != nil {
		return nil, err
	}
	return r, nil
}

// place adds to an error about a field where it stands in the files that the recipe was read from, if it was.
func (r *Recipe) place(err error) error {
	var fe *FieldError
	if r.origin == nil || !errors.As(err, &fe) {
		return err
	}
	return blame(r.origin, fe)
}

// parse reads the text of a document.
func parse(file string, text []byte) (f *document, err error) {
	if len(text) > maxSize {
		return nil, &Error{File: file, Message: fmt.Sprintf("%d bytes; a recipe has at most %d", len(text), maxSize)}
	}
	defer func() {
		if p := recover(); p != nil { // the YAML library panics on some malformed input
			f, err = nil, &Error{File: file, Message: fmt.Sprintf("not valid YAML: %v", p)}
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
	return &document{file: file, root: root}, nil
}

// parseChange reads a change "path=value" as the document that holds nothing else.
func parseChange(change string) (*document, error) {
	file := "--set " + change
	path, value, ok := strings.Cut(change, "=")
	path = strings.TrimSpace(path)
	if !ok || path == "" {
		return nil, &Error{File: file, Message: "expected FIELD=VALUE such as train.batch=20"}
	}
	var b strings.Builder
	parts := strings.Split(path, ".")
	for i, part := range parts {
		if part == "" || strings.ContainsAny(part, " :#'\"{}[]\n\t&*!|>%@`") {
			return nil, &Error{File: file, Message: "expected FIELD=VALUE such as train.batch=20"}
		}
		fmt.Fprintf(&b, "%s%s:", strings.Repeat("  ", i), part)
		if i < len(parts)-1 {
			b.WriteByte('\n')
		}
	}
	if strings.ContainsAny(value, "\n\r") {
		return nil, &Error{File: file, Field: path, Message: "a value is a single line"}
	}
	if strings.TrimSpace(value) == "" {
		value = `""` // to YAML nothing is null, which leaves what was there before
	}
	fmt.Fprintf(&b, " %s\n", value)
	d, err := parse(file, []byte(b.String()))
	var e *Error
	if errors.As(err, &e) {
		e.Line, e.Column = 0, 0
	}
	if err != nil {
		return nil, err
	}
	d.change = true
	return d, nil
}

// begin returns the defaults of the method that the document names.
func (f *document) begin() (*Recipe, error) {
	n := f.child(f.root, "method")
	if n == nil {
		return nil, &Error{File: f.file, Line: 1, Column: 1, Field: "method", Message: "is missing; expected one of " + strings.Join(methods.Names(), ", ")}
	}
	s, ok := n.(*ast.StringNode)
	if !ok {
		return nil, f.at(n, "method", "expected the name of a method")
	}
	if _, err := methods.Find(s.Value); err != nil {
		return nil, f.at(n, "method", fmt.Sprintf("there is no method %q%s; the methods are %s", s.Value,
			didYouMean(s.Value, methods.Names()), strings.Join(methods.Names(), ", ")))
	}
	return Default(s.Value)
}

// without returns the document without a field.
func (f *document) without(key string) *document {
	root := *f.root
	root.Values = slices.DeleteFunc(slices.Clone(root.Values), func(v *ast.MappingValueNode) bool { return v.Key.String() == key })
	c := *f
	c.root = &root
	return &c
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
	file   string
	root   *ast.MappingNode
	change bool // a change from the command line: places in it mean nothing
}

func (f *document) at(n ast.Node, field, message string) *Error {
	e := &Error{File: f.file, Field: field, Message: message}
	if t := n.GetToken(); t != nil && !f.change {
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
		if list, ok := v.Value.(*ast.SequenceNode); ok && ft.Kind() == reflect.Slice && ft.Elem().Kind() == reflect.Struct {
			for i, item := range list.Values {
				if err := f.keys(item, ft.Elem(), fmt.Sprintf("%s[%d]", full, i+1), nil); err != nil {
					return err
				}
			}
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

// decode fills r, whose fields hold what came before, from the document.
func (f *document) decode(r *Recipe) error {
	for _, v := range f.root.Values {
		key := v.Key.String()
		if _, null := v.Value.(*ast.NullNode); null {
			continue
		}
		var into any
		if key == "options" {
			into = r.Options
		} else {
			for _, yf := range yamlFields(reflect.TypeOf(*r)) {
				if yf.name == key {
					into = reflect.ValueOf(r).Elem().FieldByIndex(yf.index).Addr().Interface()
				}
			}
		}
		if key == "train" && f.child(v.Value, "steps") != nil && f.child(v.Value, "epochs") == nil {
			r.Train.Epochs = 0 // steps instead of epochs
		}
		if resets(reflect.TypeOf(into).Elem()) {
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
		reset(v, s.Value)
	}
}

// resets reports whether a section of this type begins anew when its name changes: its other fields would have no meaning.
func resets(t reflect.Type) bool {
	return t == reflect.TypeFor[dataset.Spec]() || t == reflect.TypeFor[dataset.Scheme]() || t == reflect.TypeFor[Model]()
}

// reset clears a section that gets another name, but for the number of clients of a partition; a natural one has a client
// for each key.
func reset(v reflect.Value, name string) {
	s, ok := v.Addr().Interface().(*dataset.Scheme)
	switch {
	case !ok:
		v.SetZero()
	case name == "natural":
		*s = dataset.Scheme{}
	default:
		*s = dataset.Scheme{Clients: s.Clients}
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
	if into.Kind() == reflect.Pointer { // a value that may be missing
		into.Set(reflect.New(into.Type().Elem()))
		into = into.Elem()
	}
	if err := yaml.NodeToValue(n, into.Addr().Interface()); err != nil {
		return f.at(n, path, fmt.Sprintf("%s, expected %s", short(n.String()), kindWords(into.Type())))
	}
	if empty(into) {
		into.SetZero() // a list or map without members is none
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

// blame finds the place that an error is about, in the last document that speaks of it, or else of what it does not go with.
func blame(docs []*document, fe *FieldError) *Error {
	e := &Error{File: docs[0].file, Field: fe.Field, Message: fe.Err.Error()}
	if !find(docs, fe, fe.Field, e) && fe.With != "" {
		find(docs, fe, fe.With, e)
	}
	e.Err = fe.Err
	return e
}

// find puts the place of a field, or of the section that it would be in, into e; false if no document speaks of either.
func find(docs []*document, fe *FieldError, field string, e *Error) bool {
	deepest := 0
	for _, d := range docs {
		var n ast.Node = d.root
		depth := 0
		for part := range strings.SplitSeq(field, ".") {
			c := d.child(n, part)
			if c == nil {
				break
			}
			n, depth = c, depth+1
		}
		if depth > 0 && depth >= deepest {
			deepest = depth
			*e = *d.at(n, fe.Field, fe.Err.Error())
		}
	}
	return deepest > 0
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
