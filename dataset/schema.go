package dataset

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
)

// SchemaVersion is the version of the format of a [Schema]. One of a later version is refused.
const SchemaVersion = 1

// The kinds of data and tasks of a [Schema].
const (
	ImageKind  = "image"
	TableKind  = "table"
	TokensKind = "tokens"
	RatingKind = "ratings"

	ClassificationTask = "classification"
	RegressionTask     = "regression"
	LanguageTask       = "language"
	RatingTask         = "recommendation"
	NoTask             = "unlabelled"
)

// Schema is what parties must agree on before they learn together, without showing each other an example: what an example
// looks like, what is predicted, how classes are numbered and values normalised. Its JSON is the format.
type Schema struct {
	Version int    `json:"version"`
	Name    string `json:"name,omitempty"` // of the data set, for people; never compared
	Kind    string `json:"kind"`           // image, table, tokens or ratings
	Task    string `json:"task"`           // classification, regression, language, recommendation or unlabelled
	Shape   []int  `json:"shape"`          // of one example: [height, width, channels], [features], [tokens], or [2] of a rating
	// Input is how values are stored: bytes, numbers, tokens or pairs. Bytes and numbers of an image are on one scale (a byte v is
	// v/255), so that they agree.
	Input      string      `json:"input"`
	Classes    []string    `json:"classes,omitempty"` // index = label
	Vocabulary *Vocabulary `json:"vocabulary,omitempty"`
	// Mean and Std, one per channel or feature, as in [Examples].
	Mean     []float32 `json:"mean,omitempty"`
	Std      []float32 `json:"std,omitempty"`
	Features []string  `json:"features,omitempty"` // of a table
	Encoding *Encoding `json:"encoding,omitempty"` // how the columns of a table become features
	// Ratings are the items that can be rated, and the scale. Users stay where they are; titles and tags are for people and never
	// compared.
	Ratings *Ratings `json:"ratings,omitempty"`
}

// Vocabulary stands for the words of a text: their number and the SHA-256 of the words, each followed by a line feed, in
// hexadecimal. Words themselves are optional; who has them can encode texts of its own alike.
type Vocabulary struct {
	Size   int      `json:"size"`
	Digest string   `json:"digest"`
	Words  []string `json:"words,omitempty"` // index = token id
}

// Limits of what a schema may claim, so that one from a stranger costs nothing out of proportion.
const (
	maxSchemaValues  = 1 << 26 // of one example
	maxSchemaClasses = 1 << 20
)

// SchemaOf returns the schema of a data set. The vocabulary of a text stands there without its words, see [Schema.WithWords].
func SchemaOf(e *Examples) Schema {
	s := Schema{Version: SchemaVersion, Name: e.Name, Kind: TableKind, Task: NoTask, Shape: e.Shape, Input: "numbers",
		Mean: e.Mean, Std: e.Std, Features: e.Features, Encoding: e.Encoding}
	switch {
	case e.Rated():
		s.Kind, s.Task, s.Input = RatingKind, RatingTask, "pairs"
		r := *e.Ratings
		r.Users, r.Profiles = nil, nil
		s.Ratings = &r
		return s
	case e.Tok != nil:
		s.Kind, s.Task, s.Input = TokensKind, LanguageTask, "tokens"
		s.Vocabulary = &Vocabulary{Size: len(e.Classes), Digest: wordsDigest(e.Classes)}
		return s
	case len(e.Shape) == 3:
		s.Kind = ImageKind
	}
	if e.U8 != nil {
		s.Input = "bytes"
	}
	switch {
	case e.Labels != nil:
		s.Task, s.Classes = ClassificationTask, e.Classes
	case e.Targets != nil:
		s.Task = RegressionTask
	}
	return s
}

// WithWords returns s with the whole vocabulary of the text e, so that members can encode texts of their own.
func (s Schema) WithWords(e *Examples) Schema {
	if s.Vocabulary != nil && e.Tok != nil {
		s.Vocabulary = &Vocabulary{len(e.Classes), wordsDigest(e.Classes), e.Classes}
	}
	return s
}

func wordsDigest(words []string) string {
	h := sha256.New()
	for _, w := range words {
		h.Write([]byte(w))
		h.Write([]byte{'\n'})
	}
	return hex.EncodeToString(h.Sum(nil))
}

// Like returns a data set of the schema without any example. Of a vocabulary without words it has as many empty ones.
func (s Schema) Like() *Examples {
	e := &Examples{Name: s.Name, Shape: s.Shape, Classes: s.Classes, Mean: s.Mean, Std: s.Std, Features: s.Features, Encoding: s.Encoding}
	switch s.Input {
	case "bytes":
		e.U8 = []uint8{}
	case "pairs":
		e.Tok, e.Targets, e.Ratings = []int32{}, []float32{}, s.Ratings
	case "tokens":
		e.Tok = []int32{}
		if e.Classes = s.Vocabulary.Words; e.Classes == nil {
			e.Classes = make([]string, s.Vocabulary.Size)
		}
	default:
		e.F32 = []float32{}
	}
	switch s.Task {
	case ClassificationTask:
		e.Labels = []int32{}
	case RegressionTask:
		e.Targets = []float32{}
	}
	return e
}

// Digest returns the SHA-256 of what the schema says, in hexadecimal: equal for schemas that agree in every field but Name.
func (s Schema) Digest() string {
	s.Name = ""
	if s.Vocabulary != nil {
		s.Vocabulary = &Vocabulary{Size: s.Vocabulary.Size, Digest: s.Vocabulary.Digest}
	}
	if s.Ratings != nil {
		s.Ratings = &Ratings{Items: s.Ratings.Items, Low: s.Ratings.Low, High: s.Ratings.High}
	}
	b, err := json.Marshal(s)
	if err != nil { // numbers that are not finite: Validate refuses them
		panic(fmt.Sprintf("dataset: digest of a schema that is not valid: %v", err))
	}
	var length [8]byte
	binary.LittleEndian.PutUint64(length[:], uint64(len(b)))
	sum := sha256.Sum256(append(length[:], b...))
	return hex.EncodeToString(sum[:])
}

// ParseSchema reads a schema from JSON that may come from anybody. Fields that this version does not know are refused.
func ParseSchema(text []byte) (Schema, error) {
	var s Schema
	d := json.NewDecoder(bytes.NewReader(text))
	d.DisallowUnknownFields()
	if err := d.Decode(&s); err != nil {
		var v struct{ Version int }
		if json.Unmarshal(text, &v) == nil && v.Version > SchemaVersion {
			return Schema{}, fmt.Errorf("schema of the data: version %d; this program reads version %d: update it", v.Version, SchemaVersion)
		}
		return Schema{}, fmt.Errorf("schema of the data: %w", err)
	}
	if d.More() {
		return Schema{}, errors.New("schema of the data: something follows after its end")
	}
	return s, s.Validate()
}

// Validate reports the first thing that cannot be.
func (s Schema) Validate() error {
	bad := func(format string, args ...any) error {
		return fmt.Errorf("schema of the data: %w", fmt.Errorf(format, args...))
	}
	if s.Version != SchemaVersion {
		return bad("version %d; this program reads version %d", s.Version, SchemaVersion)
	}
	values := 1
	for _, d := range s.Shape {
		if d < 1 || values > maxSchemaValues/d {
			return bad("an example cannot be %v", s.Shape)
		}
		values *= d
	}
	inputs := map[string][]string{ImageKind: {"bytes", "numbers"}, TableKind: {"bytes", "numbers"}, TokensKind: {"tokens"}, RatingKind: {"pairs"}}[s.Kind]
	tasks := []string{ClassificationTask, RegressionTask, NoTask}
	switch s.Kind {
	case TokensKind:
		tasks = []string{LanguageTask}
	case RatingKind:
		tasks = []string{RatingTask}
	}
	switch {
	case inputs == nil:
		return bad("kind %q, expected image, table, tokens or ratings", s.Kind)
	case len(s.Shape) == 0 || (s.Kind == ImageKind) != (len(s.Shape) == 3):
		return bad("an example of kind %s cannot be %v", s.Kind, s.Shape)
	case !slices.Contains(inputs, s.Input):
		return bad("input %q of kind %s, expected %s", s.Input, s.Kind, strings.Join(inputs, " or "))
	case !slices.Contains(tasks, s.Task):
		return bad("task %q of kind %s, expected %s", s.Task, s.Kind, strings.Join(tasks, ", "))
	case (s.Task == ClassificationTask) != (len(s.Classes) > 0):
		return bad("task %s with %d classes", s.Task, len(s.Classes))
	case len(s.Classes) > maxSchemaClasses:
		return bad("%d classes, at most %d are supported", len(s.Classes), maxSchemaClasses)
	case (s.Vocabulary != nil) != (s.Kind == TokensKind):
		return bad("a vocabulary and kind %s do not go together", s.Kind)
	case (s.Ratings != nil) != (s.Kind == RatingKind):
		return bad("items to rate and kind %s do not go together", s.Kind)
	case s.Features != nil && (s.Kind != TableKind || len(s.Features) != values):
		return bad("%d features for examples of %v", len(s.Features), s.Shape)
	}
	if i, j := twice(s.Classes); i != j {
		return bad("classes %d and %d are both called %.80q", i, j, s.Classes[i])
	}
	if s.Ratings != nil {
		if err := s.Ratings.validate(s.Like()); err != nil {
			return bad("%w", err)
		}
		if i, j := twice(s.Ratings.Items); i != j || len(s.Ratings.Users) > 0 || s.Mean != nil {
			return bad("items %d and %d are both %.80q, or users are named, or values normalised", i, j, s.Ratings.Items[i])
		}
	}
	if v := s.Vocabulary; v != nil {
		if v.Size < 1 || v.Size > maxSchemaClasses || v.Words != nil && (len(v.Words) != v.Size || wordsDigest(v.Words) != v.Digest) {
			return bad("a vocabulary of %d words and digest %.16q, of which %d are told", v.Size, v.Digest, len(v.Words))
		}
	}
	if c := s.Shape[len(s.Shape)-1]; (s.Mean != nil || s.Std != nil) && (len(s.Mean) != c || len(s.Std) != c || s.Kind == TokensKind) {
		return bad("%d means and %d deviations for %d channels or features", len(s.Mean), len(s.Std), c)
	}
	for i, sd := range s.Std {
		if m := s.Mean[i]; m-m != 0 || !(sd > 0) || math.IsInf(float64(sd), 0) {
			return bad("mean %v and deviation %v of channel or feature %d", m, sd, i)
		}
	}
	return s.validateEncoding()
}

// validateEncoding reports what cannot be of the encoding.
func (s Schema) validateEncoding() error {
	c := s.Encoding
	if c == nil {
		return nil
	}
	bad := func(format string, args ...any) error {
		return fmt.Errorf("schema of the data: encoding: %w", fmt.Errorf(format, args...))
	}
	if s.Kind != TableKind || c.Task != s.Task && s.Task != NoTask {
		return bad("of a %s for %s; the data are of kind %s for %s", TableKind, c.Task, s.Kind, s.Task)
	}
	for _, col := range c.Columns {
		if !slices.Contains([]string{"number", "category", "target", "key", "dropped"}, col.Kind) {
			return bad("column %.80q is a %.20q", col.Name, col.Kind)
		}
		if math.IsNaN(col.Fill) || math.IsInf(col.Fill, 0) {
			return bad("column %.80q is filled with %v", col.Name, col.Fill)
		}
	}
	if got := c.features(); !slices.Equal(got, s.Features) {
		return bad("its columns give %d features, which are not the %d that are named", len(got), len(s.Features))
	}
	if c.Names != nil && len(c.Names) != len(c.Classes) {
		return bad("%d names for %d classes", len(c.Names), len(c.Classes))
	}
	if names := c.classNames(); s.Task == ClassificationTask && !slices.Equal(names, s.Classes) {
		return bad("its target has the classes %.200q, the data %.200q", names, s.Classes)
	}
	return nil
}

// classNames is what the classes of the target are called.
func (c *Encoding) classNames() []string {
	if c.Names != nil {
		return c.Names
	}
	return c.Classes
}

// twice returns two places that hold the same word, or two equal numbers.
func twice(words []string) (int, int) {
	at := make(map[string]int, len(words))
	for j, w := range words {
		if i, ok := at[w]; ok {
			return i, j
		}
		at[w] = j
	}
	return 0, 0
}

// String says in a few words what the data are, such as "images 28×28×1 of 10 classes".
func (s Schema) String() string {
	sizes := make([]string, len(s.Shape))
	for i, d := range s.Shape {
		sizes[i] = fmt.Sprint(d)
	}
	shape := strings.Join(sizes, "×")
	what := map[string]string{ClassificationTask: fmt.Sprintf(" of %d classes", len(s.Classes)), RegressionTask: " with a number to predict"}[s.Task]
	switch s.Kind {
	case ImageKind:
		return "images " + shape + what
	case TokensKind:
		return fmt.Sprintf("text, %s tokens an example, of %d different words", shape, s.Vocabulary.Size)
	}
	return "rows of " + shape + " features" + what
}
