package dataset

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/cohort-learning/cohort/rng"
)

// Spec says which data set to load. Name is a name of the [Catalogue], or one of its formats (idx, cifar10, cifar100,
// csv, images, text, ratings, export) together with Path for the user's own files. A field that does not concern the data set
// must stay zero.
type Spec struct {
	Name     string `json:"name" yaml:"name"`
	Root     string `json:"-" yaml:"-"`                                     // folder of real data sets; a named set lies in its own folder there
	Path     string `json:"path,omitempty" yaml:"path,omitempty"`           // the user's file or folder
	TestPath string `json:"test_path,omitempty" yaml:"test_path,omitempty"` // the test part, if it lies apart

	// Train and Test bound how many examples of each part are kept, a random choice by Seed; 0 keeps all. For glyphs they
	// are how many are drawn (default 6,000 and 1,000).
	Train        int     `json:"train,omitempty" yaml:"train,omitempty"`
	Test         int     `json:"test,omitempty" yaml:"test,omitempty"`
	TestFraction float64 `json:"test_fraction,omitempty" yaml:"test_fraction,omitempty"` // csv, images, idx: part held out if there is no test part; default 0.2, negative none
	Seed         uint64  `json:"seed,omitempty" yaml:"seed,omitempty"`                   // of the choice, of the held-out part and of drawn data

	Size     int     `json:"size,omitempty" yaml:"size,omitempty"`         // glyphs, images: height and width in pixels
	Classes  int     `json:"classes,omitempty" yaml:"classes,omitempty"`   // glyphs: 10 to 62
	Channels int     `json:"channels,omitempty" yaml:"channels,omitempty"` // images: 1 or 3 (default)
	Noise    float64 `json:"noise,omitempty" yaml:"noise,omitempty"`       // glyphs
	Distort  float64 `json:"distort,omitempty" yaml:"distort,omitempty"`   // glyphs

	Target string   `json:"target,omitempty" yaml:"target,omitempty"` // csv: name or number (from 1) of the target column; default the last
	Task   string   `json:"task,omitempty" yaml:"task,omitempty"`     // csv: "classification" or "regression"; default by the target's values
	Key    string   `json:"key,omitempty" yaml:"key,omitempty"`       // csv: column that says whose row it is
	Header string   `json:"header,omitempty" yaml:"header,omitempty"` // csv: "present" or "none"; default found out
	Drop   []string `json:"drop,omitempty" yaml:"drop,omitempty"`     // csv: columns to leave out
	// Unlabelled says that a member's own data may have no labels where the parties agreed on classes; see [LoadMember].
	Unlabelled bool      `json:"-" yaml:"-"`
	Encoding   *Encoding `json:"-" yaml:"-"` // csv: encode the columns as an earlier table was

	Tokens   int `json:"tokens,omitempty" yaml:"tokens,omitempty"`       // text: tokens an example, in order; default 64
	TextRows int `json:"text_rows,omitempty" yaml:"text_rows,omitempty"` // text: rows that the training text is cut into; default 100
	TestRows int `json:"test_rows,omitempty" yaml:"test_rows,omitempty"` // text: rows of the test text; default 10

	User       string    `json:"user,omitempty" yaml:"user,omitempty"`               // ratings: name or number of the column of users; default found by its name, else the first
	Item       string    `json:"item,omitempty" yaml:"item,omitempty"`               // ratings: of items, else the second
	Rating     string    `json:"rating,omitempty" yaml:"rating,omitempty"`           // ratings: of ratings, else the third
	Titles     string    `json:"titles,omitempty" yaml:"titles,omitempty"`           // ratings: a table of items and their titles
	Scale      []float64 `json:"scale,omitempty" yaml:"scale,omitempty"`             // ratings: least and greatest rating; default those that occur
	Ignore     []float64 `json:"ignore,omitempty" yaml:"ignore,omitempty"`           // ratings: values that are no ratings, such as -1
	MinRatings int       `json:"min_ratings,omitempty" yaml:"min_ratings,omitempty"` // ratings: fewest of a user and of an item
	Users      int       `json:"users,omitempty" yaml:"users,omitempty"`             // ratings: keep the first so many users; tastes: how many there are, default 300
	Items      int       `json:"items,omitempty" yaml:"items,omitempty"`             // tastes: how many items there are, default 400

	Alpha   float64 `json:"alpha,omitempty" yaml:"alpha,omitempty"`     // synthetic: how much models differ; default 1, negative 0
	Beta    float64 `json:"beta,omitempty" yaml:"beta,omitempty"`       // synthetic: how much features differ; default 1, negative 0
	Clients int     `json:"clients,omitempty" yaml:"clients,omitempty"` // synthetic, two-level: number of clients; default 30, 50 or 20

	Features int       `json:"features,omitempty" yaml:"features,omitempty"` // two-level: numbers a row; default 20 or 60
	Between  float64   `json:"between,omitempty" yaml:"between,omitempty"`   // two-level: variance between clients; default 1, negative 0
	Within   []float64 `json:"within,omitempty" yaml:"within,omitempty"`     // two-level-gaussian: variance of rows, one or one a client; default 1
	Sizes    []int     `json:"sizes,omitempty" yaml:"sizes,omitempty"`       // two-level: training rows, one number a client or those of the first and the last
	Tests    int       `json:"tests,omitempty" yaml:"tests,omitempty"`       // two-level: test rows a client; default 200
}

// Info describes a data set or format that [Load] knows.
type Info struct {
	Name    string
	Summary string
	Shape   string // of one example
	Classes string
	Files   string // what is looked for, in the data set's folder or at Path
	Source  string // origin and licence
}

// Catalogue lists what [Load] knows: named data sets first, then formats of the user's own files.
//
//	name           example       classes  files
//	glyphs         any, 1        10–62    none: drawn at run time
//	synthetic      60            10       none: drawn at run time
//	two-level-…    20 or 60      – or 10  none: drawn at run time (two-level-gaussian, two-level-softmax)
//	mnist          28×28×1       10       train-images-idx3-ubyte … (.gz)
//	fashion-mnist  28×28×1       10       as mnist
//	cifar10        32×32×3       10       data_batch_1.bin … (.gz, .bz2), python version, archives
//	cifar100       32×32×3       100      train.bin, test.bin …
//	ptb            tokens        10,000   ptb.train.txt … (.gz)
//	wikitext-2     tokens        33,278   wiki.train.tokens … (.gz)
//	movielens-100k ratings       –        u.data, u.item, u.user
//	movielens-1m   ratings       –        ratings.dat, movies.dat, users.dat
//	tastes         ratings       –        none: drawn at run time
//	idx, csv, images, text, ratings, export: the user's own files, at Path
func Catalogue() []Info {
	return []Info{
		{"glyphs", "characters of the Go fonts, distorted and noisy, drawn at run time", "size×size×1", "10 to 62", "none", "this program; Go fonts: Bigelow & Holmes, BSD-3-Clause"},
		{"synthetic", "Synthetic(α,β): a softmax model and features of their own for every client", "60", "10", "none", "formula of Li et al., arXiv 1812.06127"},
		{"two-level-gaussian", "clients' means around a common mean, known: rows without labels, for model location", "20", "none", "none", "model of Chen et al., arXiv 2204.08069"},
		{"two-level-softmax", "clients' softmax models around a common one, known", "60", "10", "none", "model of Chen et al., arXiv 2204.08069"},
		{"mnist", "handwritten digits, 60,000 + 10,000", "28×28×1", "10", "train-images-idx3-ubyte, train-labels-idx1-ubyte, t10k-… (.gz)", "LeCun, Cortes, Burges; CC BY-SA 3.0"},
		{"fashion-mnist", "articles of clothing, 60,000 + 10,000", "28×28×1", "10", "as mnist", "Zalando; MIT"},
		{"cifar10", "small photographs, 50,000 + 10,000", "32×32×3", "10", "data_batch_1.bin … test_batch.bin (.gz, .bz2), the python version, or the official .tar.gz", "Krizhevsky 2009; no formal licence"},
		{"cifar100", "small photographs, 50,000 + 10,000", "32×32×3", "100", "train.bin, test.bin (.gz, .bz2), the python version, or the official .tar.gz", "Krizhevsky 2009; no formal licence"},
		{"ptb", "Penn Treebank, word level, 929,589 training tokens", "tokens", "10,000", "ptb.train.txt, ptb.test.txt (.gz)", "Mikolov's preprocessing; research use"},
		{"wikitext-2", "Wikipedia articles, word level, 2,088,628 training tokens", "tokens", "33,278", "wiki.train.tokens, wiki.test.tokens (.gz)", "Merity et al. 2016; CC BY-SA 3.0"},
		{"movielens-100k", "100,000 ratings of films, 943 users, 1,682 items", "ratings 1 to 5", "none", "u.data, u.item, u.user, u.genre (.gz)", "GroupLens, Harper and Konstan 2015; research use"},
		{"movielens-1m", "1,000,209 ratings of films, 6,040 users, 3,706 items", "ratings 1 to 5", "none", "ratings.dat, movies.dat, users.dat (.gz)", "GroupLens, Harper and Konstan 2015; research use"},
		{"tastes", "ratings 1 to 5 that follow hidden tastes, drawn at run time", "ratings 1 to 5", "none", "none", "this program"},
		{"idx", "your arrays in IDX format", "of the file", "of the labels", "a folder named as mnist's", ""},
		{"csv", "your table", "features", "of the target", "a .csv or .tsv file (.gz); types, header and separator are found out", ""},
		{"images", "your PNG and JPEG files, a folder a class", "size×size×channels", "of the folders", "CLASS/*.png, or train/CLASS/*.png and test/CLASS/*.png", ""},
		{"text", "your text, tokens between blanks, <eos> for each line", "tokens", "of the vocabulary", "a text file (.gz), and another for the test part", ""},
		{"ratings", "your ratings: a row a user, an item and a number", "ratings", "none", "a .csv, .tsv (.gz) or .parquet file; columns are found by name", ""},
		{"export", "a member's share, as written by cohort partition --export", "of the export", "of the export", "a member's folder, or the whole export", ""},
	}
}

// Drawn reports whether a data set of that name is drawn at run time and needs no files.
func Drawn(name string) bool {
	return name == "glyphs" || name == "synthetic" || name == "tastes" || strings.HasPrefix(name, "two-level-")
}

// Validate reports a name that is not known or a field that is wrong whatever the files hold.
func (s Spec) Validate() error {
	var names []string
	for _, info := range Catalogue() {
		names = append(names, info.Name)
	}
	switch {
	case !slices.Contains(names, s.Name):
		return unknown("data set", s.Name, names)
	case s.Path == "" && slices.Contains([]string{"idx", "csv", "images", "text", "ratings", "export"}, s.Name):
		return s.errf("it needs a path to your files")
	case s.Train < 0 || s.Test < 0:
		return s.errf("train %d and test %d must not be negative", s.Train, s.Test)
	case !(s.TestFraction < 1):
		return s.errf("test_fraction %v leaves nothing to train on; it must be below 1", s.TestFraction)
	case s.Channels != 0 && s.Channels != 1 && s.Channels != 3:
		return s.errf("channels is %d, expected 1 or 3", s.Channels)
	case s.Task != "" && s.Task != "classification" && s.Task != "regression":
		return s.errf("task is %q, expected classification or regression", s.Task)
	case s.Header != "" && s.Header != "present" && s.Header != "none":
		return s.errf("header is %q, expected present or none", s.Header)
	case s.Tokens < 0 || s.TextRows < 0 || s.TestRows < 0:
		return s.errf("tokens %d, text_rows %d and test_rows %d must not be negative", s.Tokens, s.TextRows, s.TestRows)
	case len(s.Scale) != 0 && (len(s.Scale) != 2 || !(s.Scale[0] < s.Scale[1])):
		return s.errf("scale %v, expected the least and the greatest rating, such as [1, 5]", s.Scale)
	case s.MinRatings < 0 || s.Users < 0 || s.Items < 0:
		return s.errf("min_ratings %d, users %d and items %d must not be negative", s.MinRatings, s.Users, s.Items)
	case s.Name == "tastes":
		return s.tastes().Validate()
	case s.Name == "glyphs":
		return s.glyphs().Validate()
	case s.Name == "synthetic":
		return s.synthetic().Validate()
	case s.Name == "two-level-gaussian" || s.Name == "two-level-softmax":
		return s.twoLevel().Validate()
	}
	return nil
}

func (s Spec) errf(format string, args ...any) error {
	return fmt.Errorf("data set %s: %w", s.Name, fmt.Errorf(format, args...))
}

// Load reads or draws a data set. It fails if files are missing (the error says which and where), damaged (the error
// names file and place) or do not fit each other.
func Load(ctx context.Context, s Spec) (*Split, error) {
	if err := s.Validate(); err != nil {
		return nil, err
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	split, err := s.read(ctx)
	if err != nil {
		return nil, s.errf("%w", err)
	}
	drawn := s.Name == "glyphs"
	if !drawn {
		split.Train = s.limit(split.Train, s.Train, "train")
		split.Test = s.limit(split.Test, s.Test, "test")
	}
	for _, e := range []*Examples{split.Train, split.Test} {
		if e == nil {
			continue
		}
		if e.Len() == 0 {
			return nil, s.errf("a part has no examples")
		}
		if err := e.Validate(); err != nil {
			return nil, err
		}
	}
	return split, nil
}

func (s Spec) read(ctx context.Context) (*Split, error) {
	switch s.Name {
	case "glyphs":
		return s.glyphs().Load(ctx)
	case "synthetic":
		return s.synthetic().Load(ctx)
	case "two-level-gaussian", "two-level-softmax":
		return s.twoLevel().Load(ctx)
	case "csv":
		return loadTable(s)
	case "images":
		return loadImages(ctx, s)
	case "text":
		return loadText(s, s.Path, s.TestPath)
	case "ratings":
		return loadRatings(s, nil)
	case "tastes":
		return s.tastes().Load(ctx)
	case "export":
		return loadExport(s.Path)
	}
	dir, err := s.dir()
	if err != nil {
		return nil, err
	}
	switch s.Name {
	case "mnist":
		return loadIDX(s, dir, []float32{0.1307}, []float32{0.3081}, strings.Split("0123456789", ""))
	case "fashion-mnist":
		return loadIDX(s, dir, []float32{0.2860}, []float32{0.3530}, []string{
			"t-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot"})
	case "idx":
		return loadIDX(s, dir, nil, nil, nil)
	case "cifar10":
		return loadCIFAR(ctx, cifar10(), dir)
	case "cifar100":
		return loadCIFAR(ctx, cifar100(), dir)
	case "movielens-100k":
		return loadMovieLens(s, dir, movieLens100K)
	case "movielens-1m":
		return loadMovieLens(s, dir, movieLens1M)
	case "ptb":
		return s.namedText(dir, "ptb.train.txt", "ptb.test.txt")
	case "wikitext-2":
		return s.namedText(dir, "wiki.train.tokens", "wiki.test.tokens")
	}
	panic("dataset: " + s.Name + " is in the catalogue but cannot be loaded")
}

// dir is Path if given, else the data set's folder below Root.
func (s Spec) dir() (string, error) {
	switch {
	case s.Path != "":
		return s.Path, nil
	case s.Root == "":
		return "", fmt.Errorf("no data folder: set COHORT_DATA to the folder that holds %s/, or give a path", s.Name)
	}
	return filepath.Join(s.Root, s.Name), nil
}

func (s Spec) glyphs() Glyphs {
	g := Glyphs{Size: s.Size, Classes: s.Classes, Train: s.Train, Test: s.Test, Distort: s.Distort, Noise: s.Noise, Seed: s.Seed}
	if g.Train == 0 {
		g.Train = 6000
	}
	if g.Test == 0 {
		g.Test = 1000
	}
	return g
}

// limit keeps at most n random examples, in their order.
func (s Spec) limit(e *Examples, n int, part string) *Examples {
	if e == nil || n == 0 || n >= e.Len() {
		return e
	}
	rows := shuffled(identity(e.Len()), rng.New(s.Seed, 0, part, "dataset/limit"))[:n]
	slices.Sort(rows)
	return e.Subset(rows)
}

// holdOut divides e into a training and a test part at random, each class in the same proportion.
func (s Spec) holdOut(e *Examples) *Split {
	fraction := s.TestFraction
	if fraction == 0 {
		fraction = 0.2
	}
	if fraction < 0 {
		return &Split{Train: e}
	}
	labels, classes := e.Labels, e.NumClasses()
	if labels == nil {
		labels, classes = make([]int32, e.Len()), 1
	}
	r := rng.New(s.Seed, 0, "", "dataset/holdout")
	rows, start := byClass(labels, classes)
	var train, test []int32
	for c := range classes {
		mine := shuffled(rows[start[c]:start[c+1]], r)
		k := int(fraction*float64(len(mine)) + 0.5)
		test = append(test, mine[:k]...)
		train = append(train, mine[k:]...)
	}
	slices.Sort(train)
	slices.Sort(test)
	if len(test) == 0 || len(train) == 0 {
		return &Split{Train: e}
	}
	return &Split{Train: e.Subset(train), Test: e.Subset(test)}
}

// loadIDX reads a folder in MNIST's naming. Without a test part one is held out; without given statistics they come from
// the training part; without class names the labels number them.
func loadIDX(s Spec, dir string, mean, std []float32, classes []string) (*Split, error) {
	if st, err := os.Stat(dir); err != nil {
		return nil, err
	} else if !st.IsDir() {
		return nil, fmt.Errorf("%s is a file; give the folder that holds train-images-idx3-ubyte and train-labels-idx1-ubyte", dir)
	}
	pair := func(dir string, prefixes ...string) (*Examples, error) {
		var images, labels []string
		for _, p := range prefixes {
			images = append(images, p+"-images-idx3-ubyte", p+"-images.idx3-ubyte", p+"-images.idx")
			labels = append(labels, p+"-labels-idx1-ubyte", p+"-labels.idx1-ubyte", p+"-labels.idx")
		}
		x, err := find(dir, images...)
		if err != nil {
			return nil, err
		}
		y, err := find(dir, labels...)
		if err != nil {
			return nil, err
		}
		return readIDXPair(s.Name, x, y)
	}
	train, err := pair(dir, "train")
	if err != nil {
		return nil, err
	}
	split := &Split{Train: train}
	testDir := dir
	if s.TestPath != "" {
		testDir = s.TestPath
	}
	hasTest := s.TestPath != ""
	for _, p := range []string{"t10k", "test"} {
		if _, err := find(testDir, p+"-images-idx3-ubyte", p+"-images.idx3-ubyte", p+"-images.idx"); err == nil {
			hasTest = true
		}
	}
	if hasTest {
		if split.Test, err = pair(testDir, "t10k", "test"); err != nil {
			return nil, err
		}
		if !slices.Equal(split.Test.Shape, train.Shape) {
			return nil, fmt.Errorf("training examples have shape %v, test examples %v", train.Shape, split.Test.Shape)
		}
	}
	if classes == nil && train.Labels != nil {
		classes = numbered(train, split.Test)
	}
	train.Classes = classes
	if err := train.Validate(); err != nil {
		return nil, err
	}
	if !hasTest {
		split = s.holdOut(train)
	} else {
		split.Test.Classes = classes
	}
	if mean == nil {
		split.Train.Normalise(0)
	} else {
		split.Train.Mean, split.Train.Std = mean, std
	}
	if split.Test != nil {
		split.Test.Mean, split.Test.Std = split.Train.Mean, split.Train.Std
	}
	return split, nil
}

// numbered names the classes 0, 1, … up to the largest label of both parts, at most 2^16 of them.
func numbered(parts ...*Examples) []string {
	largest := int32(0)
	for _, e := range parts {
		if e != nil {
			for _, l := range e.Labels {
				largest = max(largest, l)
			}
		}
	}
	names := make([]string, min(int(largest)+1, 1<<16))
	for i := range names {
		names[i] = fmt.Sprint(i)
	}
	return names
}
