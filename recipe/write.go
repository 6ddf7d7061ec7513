package recipe

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// YAML returns the recipe as a file that [Parse] reads to the same recipe: every field that matters with its value.
func (r *Recipe) YAML() []byte { return r.render(false) }

// Commented returns the recipe as YAML does, with the meaning of every field beside it and the fields that are at their
// zero value as comments: what "cohort init" prints.
func (r *Recipe) Commented() []byte { return r.render(true) }

func (r *Recipe) render(comments bool) []byte {
	w := writer{comments: comments}
	v, base := reflect.ValueOf(r).Elem(), r.base()
	for _, f := range yamlFields(v.Type()) {
		w.field(f, f.of(v), f.of(base), "", 0)
	}
	return []byte(w.String())
}

// base is the recipe that a file of r's method begins with: what a field has there need not be written if it is zero.
func (r *Recipe) base() reflect.Value {
	d, err := Default(r.Method)
	if err != nil {
		d = &Recipe{Options: r.Options}
	}
	return reflect.ValueOf(d).Elem()
}

// baseOf is what reading begins with for a section: base, or nothing but the number of clients if v has another name.
func baseOf(v, base reflect.Value) reflect.Value {
	if n := v.FieldByName("Name"); !resets(v.Type()) || n.String() == base.FieldByName("Name").String() {
		return base
	}
	fresh := reflect.New(v.Type()).Elem()
	fresh.Set(base)
	reset(fresh, v.FieldByName("Name").String())
	return fresh
}

// of returns the field of a struct, with interfaces and pointers to structs followed.
func (f yamlField) of(v reflect.Value) reflect.Value {
	v = v.FieldByIndex(f.index)
	if v.Kind() == reflect.Interface && !v.IsNil() {
		v = v.Elem()
	}
	if v.Kind() == reflect.Pointer && !v.IsNil() && v.Type().Elem().Kind() == reflect.Struct {
		v = v.Elem()
	}
	return v
}

// empty reports whether v is zero, or a list or map without members.
func empty(v reflect.Value) bool {
	return v.IsZero() || (v.Kind() == reflect.Slice || v.Kind() == reflect.Map) && v.Len() == 0
}

type writer struct {
	strings.Builder
	comments bool
}

// width is the column at which comments begin.
const width = 34

func (w *writer) field(f yamlField, v, base reflect.Value, path string, depth int) {
	full := join(path, f.name)
	if v.Kind() == reflect.Struct {
		w.section(f, v, baseOf(v, base), full, depth)
		return
	}
	unset := f.omit && empty(v) && empty(base)
	if unset && !w.comments {
		return
	}
	text := strings.Repeat("  ", depth)
	if unset {
		text += "# " + f.name + ": " + placeholder(v)
	} else {
		text += f.name + ": " + scalar(v)
	}
	w.line(strings.TrimRight(text, " "), docOf(f, full))
}

func (w *writer) section(f yamlField, v, base reflect.Value, full string, depth int) {
	fields := yamlFields(v.Type())
	if len(fields) == 0 {
		return
	}
	unset := f.omit && v.IsZero() && base.IsZero()
	if unset && !w.comments {
		return
	}
	if w.comments && depth == 0 {
		w.WriteString("\n")
	}
	begin := strings.Repeat("  ", depth)
	if unset {
		begin += "# "
	}
	w.line(begin+f.name+":", docOf(f, full))
	name := ""
	if n := v.FieldByName("Name"); n.IsValid() && n.Kind() == reflect.String {
		name = n.String()
	}
	for _, sub := range fields {
		if w.comments && !relevant(full, name, sub.name) {
			continue
		}
		w.field(sub, sub.of(v), sub.of(base), full, depth+1)
	}
}

func (w *writer) line(text, doc string) {
	w.WriteString(text)
	if w.comments && doc != "" {
		w.WriteString(strings.Repeat(" ", max(1, width-len([]rune(text)))))
		w.WriteString("# " + doc)
	}
	w.WriteString("\n")
}

// scalar writes a value in one line of YAML.
func scalar(v reflect.Value) string {
	if d, ok := v.Interface().(time.Duration); ok {
		return d.String()
	}
	switch v.Kind() {
	case reflect.Pointer:
		return scalar(v.Elem())
	case reflect.String:
		return word(v.String())
	case reflect.Bool:
		return strconv.FormatBool(v.Bool())
	case reflect.Int, reflect.Int32, reflect.Int64:
		return strconv.FormatInt(v.Int(), 10)
	case reflect.Uint, reflect.Uint32, reflect.Uint64:
		return strconv.FormatUint(v.Uint(), 10)
	case reflect.Float32, reflect.Float64:
		return number(v.Float(), v.Type().Bits())
	case reflect.Slice:
		parts := make([]string, v.Len())
		for i := range parts {
			parts[i] = scalar(v.Index(i))
		}
		return "[" + strings.Join(parts, ", ") + "]"
	case reflect.Map:
		var parts []string
		for _, k := range v.MapKeys() {
			parts = append(parts, scalar(k)+": "+scalar(v.MapIndex(k)))
		}
		slices.Sort(parts)
		return "{" + strings.Join(parts, ", ") + "}"
	}
	panic(fmt.Sprintf("recipe: a field of type %s cannot be written", v.Type()))
}

// number writes a number with as few digits as read back to it.
func number(x float64, bits int) string {
	switch {
	case math.IsInf(x, 1):
		return ".inf"
	case math.IsInf(x, -1):
		return "-.inf"
	case math.IsNaN(x):
		return ".nan"
	}
	text := strconv.FormatFloat(x, 'g', -1, bits)
	if mantissa, exponent, ok := strings.Cut(text, "e"); ok && !strings.Contains(mantissa, ".") {
		return mantissa + ".0e" + exponent // YAML wants a point
	}
	return text
}

// word writes a text: as it is if YAML takes that for a text, else between quotes.
func word(s string) string {
	if plainWord.MatchString(s) && !slices.Contains([]string{"true", "false", "null", "yes", "no", "on", "off", "y", "n"}, strings.ToLower(s)) {
		return s
	}
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(s); err != nil {
		panic(err) // a string can always be encoded
	}
	return strings.TrimSuffix(b.String(), "\n")
}

var plainWord = regexp.MustCompile(`^[A-Za-z_/][A-Za-z0-9_/-]*([ .][A-Za-z0-9_/-]+)*$`)

// placeholder is what stands for a field that is not set.
func placeholder(v reflect.Value) string {
	switch v.Kind() {
	case reflect.Slice:
		return "[]"
	case reflect.Map:
		return "{}"
	case reflect.String:
		return `""`
	case reflect.Pointer:
		return ""
	}
	return scalar(v)
}

func docOf(f yamlField, path string) string {
	if d := f.field.Tag.Get("doc"); d != "" {
		return d
	}
	return docs[path]
}

// docs holds the meaning of the fields of structs that other packages define.
var docs = map[string]string{
	"data.name":                 "A data set of \"cohort datasets\", or a format of your own files: idx, csv, images, text, ratings, cifar10, export.",
	"data.path":                 "Your own file or folder.",
	"data.test_path":            "The test part, if it lies apart.",
	"data.train":                "Examples to keep for training, a random choice; 0 is all. Glyphs: how many are drawn.",
	"data.test":                 "Examples to keep for testing; 0 is all. Glyphs: how many are drawn.",
	"data.test_fraction":        "csv, images, idx, ratings: part held out if there is no test part; 0 means 0.2, of ratings 0.1; negative none.",
	"data.seed":                 "Seed of choices and drawn data; 0 is the run's.",
	"data.size":                 "glyphs, images: height and width in pixels.",
	"data.classes":              "glyphs: 10 to 62 classes.",
	"data.channels":             "images: 1 or 3.",
	"data.noise":                "glyphs: strength of the noise; 0 is the default.",
	"data.distort":              "glyphs: strength of the distortion; 0 is the default.",
	"data.target":               "csv: name of the column to predict; empty is the last.",
	"data.task":                 "csv: classification or regression; empty decides by the target's values.",
	"data.key":                  "csv: column that says whose row it is, for a natural partition.",
	"data.header":               "csv: whether the first line names the columns: present or none; empty finds out.",
	"data.drop":                 "csv: columns to leave out.",
	"data.tokens":               "text: tokens an example.",
	"data.text_rows":            "text: rows that the training text is cut into.",
	"data.test_rows":            "text: rows of the test text.",
	"data.user":                 "ratings: name or number of the column of users; empty finds it.",
	"data.item":                 "ratings: name or number of the column of items; empty finds it.",
	"data.rating":               "ratings: name or number of the column of ratings; empty finds it.",
	"data.titles":               "ratings: a table of items and their titles.",
	"data.scale":                "ratings: the least and the greatest there can be, such as [1, 5]; empty takes those that occur.",
	"data.ignore":               "ratings: values that are no ratings, such as [-1].",
	"data.min_ratings":          "ratings: leave out users and items with fewer.",
	"data.users":                "ratings, movielens: keep the first so many users. tastes: how many there are.",
	"data.items":                "tastes: how many items there are.",
	"data.alpha":                "synthetic: how much the clients' models differ; negative is 0.",
	"data.beta":                 "synthetic: how much their features differ; negative is 0.",
	"data.clients":              "synthetic, two-level: number of clients.",
	"data.features":             "two-level: numbers a row.",
	"data.between":              "two-level: variance between the clients; 0 means 1, negative none.",
	"data.within":               "two-level-gaussian: variance of rows, one number or one a client.",
	"data.sizes":                "two-level: training rows, one number a client or those of the first and the last.",
	"data.tests":                "two-level: test rows a client; 0 means 200.",
	"partition.name":            "How: iid, classes, shards, dirichlet, dirichlet-client, pathological, quantity, noise, rotation, natural, or of ratings users.",
	"partition.clients":         "Number of clients.",
	"partition.server":          "Examples, equally many of each class, that the server holds and no client does; for semi-supervised learning.",
	"partition.per_client":      "classes, pathological: classes a client; shards: shards a client.",
	"partition.keep_duplicates": "classes: a class drawn twice gives two shards instead of one.",
	"partition.remainder":       "shards: drop or spread what does not divide.",
	"partition.random_sizes":    "pathological: random instead of even parts.",
	"partition.alpha":           "dirichlet, quantity: concentration; small is unlike.",
	"partition.balance":         "dirichlet: full clients get nothing more.",
	"partition.min_size":        "Fewest examples of a client.",
	"partition.size":            "dirichlet-client: examples a client; 0 is all, evenly.",
	"partition.law":             "quantity: dirichlet, lognormal or power.",
	"partition.sigma":           "quantity lognormal: spread; noise: variance at the last client.",
	"model.input":               "Shape of an example; leave out, the data says.",
	"model.classes":             "Outputs; leave out, the data says.",
	"model.widths":              "Channels of the convolutions, or of the stages of resnet.",
	"model.hidden":              "Widths of hidden linear layers; lstm: of the state.",
	"model.blocks":              "resnet: residual blocks of each stage.",
	"model.bottleneck":          "resnet: bottleneck blocks.",
	"model.norm":                "Norm layers: sbn (static batch norm), bn, in, ln, gn or none.",
	"model.activation":          "relu, gelu, tanh or sigmoid.",
	"model.vocabulary":          "transformer: number of tokens; leave out, the data says. lstm: codes that the last feature of a step may be.",
	"model.depth":               "wresnet: convolutions and linear layers along one path.",
	"model.widen":               "wresnet: factor of the channels 16, 32, 64.",
	"model.tokens":              "transformer: longest sequence; leave out, the data says.",
	"model.embedding":           "transformer: width. lstm: width of its codes.",
	"model.heads":               "transformer: attention heads.",
	"model.feed_forward":        "transformer: width of the feed-forward layers.",
	"model.layers":              "transformer: layers.",
	"model.dropout":             "transformer, ars, lstm: dropout probability.",
	"model.each_step":           "lstm: answer in every step instead of after the last.",
}

// relevant leaves fields out of a commented recipe that the chosen name has no use for.
func relevant(section, name, field string) bool {
	twoLevel := []string{"two-level-gaussian", "two-level-softmax"}
	only := map[string]map[string][]string{
		"data": {
			"size": {"glyphs", "images"}, "noise": {"glyphs"}, "distort": {"glyphs"}, "channels": {"images"},
			"path": {"csv", "images", "idx", "text", "ratings", "export"}, "test_path": {"csv", "images", "idx", "text", "ratings"},
			"user": {"ratings"}, "item": {"ratings"}, "rating": {"ratings"}, "titles": {"ratings"}, "scale": {"ratings"}, "ignore": {"ratings"},
			"min_ratings": {"ratings", "movielens-100k", "movielens-1m"}, "users": {"ratings", "tastes", "movielens-100k", "movielens-1m"}, "items": {"tastes"},
			"test_fraction": {"csv", "images", "idx", "ratings", "tastes", "movielens-100k", "movielens-1m"}, "target": {"csv"}, "task": {"csv"}, "header": {"csv", "ratings"}, "key": {"csv"}, "drop": {"csv"},
			"tokens": {"text", "ptb", "wikitext-2"}, "text_rows": {"text", "ptb", "wikitext-2"}, "test_rows": {"text", "ptb", "wikitext-2"},
			"alpha": {"synthetic"}, "beta": {"synthetic"}, "clients": append([]string{"synthetic"}, twoLevel...), "classes": {"glyphs"},
			"features": twoLevel, "between": twoLevel, "within": twoLevel[:1], "sizes": twoLevel, "tests": twoLevel,
		},
		"model": {
			"input": {}, "classes": {}, "hidden": {"mlp", "lenet", "ars", "lstm"}, "blocks": {"resnet"}, "bottleneck": {"resnet"},
			"widths": {"cnn", "galcnn", "lenet", "resnet"}, "depth": {"wresnet"}, "widen": {"wresnet"}, "norm": {"cnn", "galcnn", "resnet", "wresnet", "mlp", "lenet", "ars"}, "activation": {"mlp", "lenet", "cnn", "galcnn"},
			"vocabulary": {"transformer", "lstm"}, "tokens": {"transformer"}, "embedding": {"transformer", "lstm"}, "heads": {"transformer"},
			"feed_forward": {"transformer"}, "layers": {"transformer"}, "dropout": {"transformer", "ars", "lstm"}, "each_step": {"lstm"},
		},
	}
	names, ok := only[section][field]
	return !ok || slices.Contains(names, name)
}

// Setting is a field of a recipe and its value as a recipe writes it.
type Setting struct {
	Field string `json:"field"` // path from the top, e.g. "train.batch"
	Value string `json:"value"`
}

// Settings lists the fields that YAML writes, but version, name and seed.
func (r *Recipe) Settings() []Setting {
	var out []Setting
	var walk func(v, base reflect.Value, path string)
	walk = func(v, base reflect.Value, path string) {
		for _, f := range yamlFields(v.Type()) {
			full := join(path, f.name)
			x, b := f.of(v), f.of(base)
			switch {
			case x.Kind() == reflect.Struct:
				walk(x, baseOf(x, b), full)
			case full == "version", full == "name", full == "seed", f.omit && empty(x) && empty(b):
			default:
				out = append(out, Setting{full, scalar(x)})
			}
		}
	}
	v := reflect.ValueOf(r).Elem()
	walk(v, r.base(), "")
	return out
}
