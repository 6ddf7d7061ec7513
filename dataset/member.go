package dataset

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// LoadMember reads a member's own data, whatever form they are in, as the parties of a federation agreed to see them. Path is
//
//   - a member's folder of an export (cohort partition --export),
//   - a CSV or TSV file, or a folder with train.csv and perhaps test.csv; of ratings also Parquet,
//   - a folder of pictures, a sub-folder a class, perhaps below train/ and test/,
//   - a folder with arrays in IDX format, named as MNIST's, or in CIFAR's format if the recipe speaks of CIFAR,
//   - a text file, or a folder with train.txt and perhaps test.txt.
//
// Of the recipe's data options those count that say how files are read: size and channels, target, task, key, header and
// dropped columns, tokens of an example, the part held out to test on, the seed. How many examples the coordinator takes and
// where its own files lie does not concern a member.
//
// With an agreed schema, tables are encoded by its [Encoding], texts by its vocabulary, pictures resized to its shape, and
// the result is as [Adopt] makes it (of unlabelled data, if the recipe allows them, without labels): data that do not fit are an error that shows both sides. Without one (agreed is nil) the
// data are returned as they are, which is how a schema is made in the first place.
func LoadMember(ctx context.Context, path string, recipe Spec, agreed *Schema) (*Split, error) {
	s := Spec{Path: path, TestFraction: recipe.TestFraction, Seed: recipe.Seed, Size: recipe.Size, Channels: recipe.Channels,
		Target: recipe.Target, Task: recipe.Task, Key: recipe.Key, Header: recipe.Header, Drop: recipe.Drop, Tokens: recipe.Tokens,
		TextRows: 1, TestRows: 1, User: recipe.User, Item: recipe.Item, Rating: recipe.Rating, Ignore: recipe.Ignore}
	if agreed != nil {
		if err := agreed.Validate(); err != nil {
			return nil, err
		}
		s.Encoding = agreed.Encoding
	}
	name, err := s.look(recipe, agreed)
	if err != nil {
		return nil, fmt.Errorf("data of this member: %w", err)
	}
	if name == "csv" && (agreed != nil && agreed.Kind == RatingKind || agreed == nil && recipe.Name == "ratings") {
		name = "ratings"
	}
	s.Name = name
	split, err := s.readMember(ctx, recipe, agreed)
	if err != nil {
		return nil, fmt.Errorf("data of this member, read as %s: %w", name, err)
	}
	for _, e := range []**Examples{&split.Train, &split.Test} {
		if *e == nil {
			continue
		}
		if (*e).Len() == 0 {
			return nil, fmt.Errorf("data of this member: %s: no examples", path)
		}
		if err := (*e).Validate(); err != nil {
			return nil, err
		}
		if agreed == nil {
			continue
		}
		as := *agreed
		if recipe.Unlabelled && (*e).Labels == nil {
			as = agreed.WithoutLabels()
		}
		if *e, err = Adopt(*e, as); err != nil {
			return nil, fmt.Errorf("%s, read as %s: %w", path, name, err)
		}
		if as.Task != agreed.Task {
			(*e).Classes = agreed.Classes
		}
	}
	return split, split.sameUsers()
}

// look finds out in which format the data at Path are, by looking.
func (s *Spec) look(recipe Spec, agreed *Schema) (string, error) {
	st, err := os.Stat(s.Path)
	if err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return "", fmt.Errorf("there is nothing at %s; give a member's folder of an export, a table (.csv), a folder of pictures or of IDX files, or a text file: %w", s.Path, fs.ErrNotExist)
		}
		return "", err
	}
	if !st.IsDir() {
		return s.lookFile(agreed)
	}
	has := func(names ...string) bool {
		p, err := find(s.Path, names...)
		return err == nil && p != ""
	}
	switch {
	case exists(filepath.Join(s.Path, memberFile)):
		return "export", nil
	case exists(filepath.Join(s.Path, manifestFile)):
		return "", s.severalMembers()
	case (recipe.Name == "cifar10" || recipe.Name == "cifar100") && !has("train-images-idx3-ubyte", "train-images.idx3-ubyte", "train-images.idx"):
		return recipe.Name, nil
	case has("train-images-idx3-ubyte", "train-images.idx3-ubyte", "train-images.idx"):
		return "idx", nil
	}
	for _, f := range []struct {
		name        string
		train, test []string
	}{
		{"csv", []string{"train.csv", "train.tsv"}, []string{"test.csv", "test.tsv"}},
		{"ratings", []string{"train.parquet"}, []string{"test.parquet"}},
		{"text", []string{"train.txt", "wiki.train.tokens", "ptb.train.txt"}, []string{"test.txt", "wiki.test.tokens", "ptb.test.txt"}},
	} {
		train, err := find(s.Path, f.train...)
		if err != nil {
			continue
		}
		if test, err := find(s.Path, f.test...); err == nil {
			s.TestPath = test
		}
		s.Path = train
		return f.name, nil
	}
	if folders, err := pictureFolders(s.Path); err != nil {
		return "", err
	} else if folders > 0 {
		return "images", nil
	}
	return "", fmt.Errorf("%s holds none of: dataset.json (a member's share), train-images-idx3-ubyte and the like (IDX), train.csv, train.txt, nor sub-folders with .png or .jpg files", s.Path)
}

// severalMembers is the error for a whole export where one share is wanted.
func (s *Spec) severalMembers() error {
	var m Manifest
	if err := readJSON(filepath.Join(s.Path, manifestFile), &m); err != nil {
		return err
	}
	if len(m.Members) == 0 {
		return fmt.Errorf("%s is an export without members", s.Path)
	}
	first := m.Members[0]
	return fmt.Errorf("%s is an export of %d members; give the folder of one of them, such as %s (%s)",
		s.Path, len(m.Members), filepath.Join(s.Path, first.Folder), first.Name)
}

// lookFile tells a table from a text by the name of the file, or by what is agreed if the name says nothing.
func (s *Spec) lookFile(agreed *Schema) (string, error) {
	name := strings.ToLower(filepath.Base(s.Path))
	for _, packed := range []string{".gz", ".bz2"} {
		name = strings.TrimSuffix(name, packed)
	}
	ext := filepath.Ext(name)
	switch {
	case ext == ".parquet":
		return "ratings", nil
	case slices.Contains([]string{".csv", ".tsv", ".data"}, ext):
		return "csv", nil
	case agreed != nil && agreed.Kind == TableKind:
		return "csv", nil
	case agreed != nil && agreed.Kind == TokensKind, slices.Contains([]string{".txt", ".tokens", ".text"}, ext):
		return "text", nil
	case slices.Contains([]string{".png", ".jpg", ".jpeg"}, ext):
		return "", fmt.Errorf("%s is a single picture; give the folder that holds a sub-folder for each class", s.Path)
	}
	return "", fmt.Errorf("%s: its name does not say what it is; tables end in .csv or .tsv, texts in .txt (perhaps with .gz or .bz2)", s.Path)
}

// pictureFolders counts the sub-folders that hold pictures, also below train/.
func pictureFolders(dir string) (int, error) {
	n := 0
	for _, sub := range []string{dir, filepath.Join(dir, "train")} {
		entries, err := os.ReadDir(sub)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return 0, err
		}
		for _, e := range entries {
			if !e.IsDir() || strings.HasPrefix(e.Name(), ".") {
				continue
			}
			files, err := os.ReadDir(filepath.Join(sub, e.Name()))
			if err != nil {
				return 0, err
			}
			if slices.ContainsFunc(files, func(f fs.DirEntry) bool { return isPicture(f.Name()) }) {
				n++
			}
		}
	}
	return n, nil
}

func isPicture(name string) bool {
	ext := strings.ToLower(filepath.Ext(name))
	return ext == ".png" || ext == ".jpg" || ext == ".jpeg"
}

// readMember reads the data in the format that was found.
func (s Spec) readMember(ctx context.Context, recipe Spec, agreed *Schema) (*Split, error) {
	switch s.Name {
	case "export":
		return loadMember(s.Path)
	case "csv":
		if agreed != nil && agreed.Kind != TableKind {
			return nil, fmt.Errorf("%s is a table; the coordinator's data are %s", s.Path, agreed)
		}
		return loadTable(s)
	case "ratings":
		return s.memberRatings(agreed)
	case "cifar10":
		return loadCIFAR(ctx, cifar10(), s.Path)
	case "cifar100":
		return loadCIFAR(ctx, cifar100(), s.Path)
	case "idx":
		return s.memberIDX(recipe, agreed)
	case "images":
		if agreed == nil {
			return loadImages(ctx, s)
		}
		return s.memberImages(ctx, agreed)
	case "text":
		return s.memberText(agreed)
	}
	panic("dataset: no reader for " + s.Name)
}

// memberIDX reads arrays. Their labels are numbers, which count as those of the agreed classes.
func (s Spec) memberIDX(recipe Spec, agreed *Schema) (*Split, error) {
	var classes []string
	if agreed != nil {
		classes = agreed.Classes
	} else if recipe.Name == "mnist" || recipe.Name == "fashion-mnist" {
		s.Name = recipe.Name // with the known names and statistics
		return s.read(context.Background())
	}
	return loadIDX(s, s.Path, nil, nil, classes)
}

// memberImages reads pictures in the agreed shape. Folders are named as classes; a member may lack some.
func (s Spec) memberImages(ctx context.Context, agreed *Schema) (*Split, error) {
	if agreed.Kind != ImageKind || agreed.Task != ClassificationTask {
		return nil, fmt.Errorf("%s holds pictures in folders named as classes; the coordinator's data are %s", s.Path, agreed)
	}
	if c := agreed.Shape[2]; c != 1 && c != 3 {
		return nil, fmt.Errorf("pictures have 1 or 3 channels; the coordinator's data are %s", agreed)
	}
	trainDir, testDir := imageParts(s)
	read := func(dir string) (*Examples, error) {
		if err := s.foreignFolders(dir, agreed.Classes); err != nil {
			return nil, err
		}
		return readImages(ctx, s.Name, dir, agreed.Classes, agreed.Shape)
	}
	train, err := read(trainDir)
	if err != nil {
		return nil, err
	}
	if testDir == "" {
		return s.holdOut(train), nil
	}
	test, err := read(testDir)
	return &Split{Train: train, Test: test}, err
}

// foreignFolders returns an error if a folder with pictures is named as no agreed class.
func (s Spec) foreignFolders(dir string, agreed []string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	var mine, strange []string
	for _, e := range entries {
		if !e.IsDir() || strings.HasPrefix(e.Name(), ".") {
			continue
		}
		mine = append(mine, e.Name())
		if !slices.Contains(agreed, e.Name()) {
			strange = append(strange, e.Name())
		}
	}
	if len(strange) == 0 {
		return nil
	}
	return &DisagreementError{differences{{fmt.Sprintf("a folder named as no class, %q,", strange), fmt.Sprintf("among %q", mine), fmt.Sprintf("absent from %.300q", agreed)}}}
}

// memberText reads a text with the agreed vocabulary, if its words are known, else with its own. A part is held out to test
// on unless there is a file for it.
func (s Spec) memberText(agreed *Schema) (*Split, error) {
	v := &vocabulary{id: make(map[string]int32)}
	if agreed != nil {
		if agreed.Kind != TokensKind {
			return nil, fmt.Errorf("%s is a text; the coordinator's data are %s", s.Path, agreed)
		}
		s.Tokens = agreed.Shape[0]
		v.fix(agreed.Vocabulary.Words)
	}
	read := func(path string, grow bool) (*Examples, error) {
		ids, err := v.read(path, grow)
		if err != nil {
			return nil, err
		}
		return s.examples(ids, 1, 1, path)
	}
	train, err := read(s.Path, !v.fixed)
	if err != nil {
		return nil, err
	}
	split := &Split{Train: train}
	if s.TestPath == "" {
		split = s.holdOut(train)
	} else if split.Test, err = read(s.TestPath, false); err != nil {
		return nil, err
	}
	if v.fixed && len(v.words) > agreed.Vocabulary.Size {
		return nil, fmt.Errorf("%s holds words that are not among the %d of the agreed vocabulary, which has no %s to stand for them",
			s.Path, agreed.Vocabulary.Size, unknownToken)
	}
	for _, e := range []*Examples{split.Train, split.Test} {
		if e != nil {
			e.Classes = v.words
		}
	}
	return split, nil
}

// memberRatings reads ratings of the agreed items.
func (s Spec) memberRatings(agreed *Schema) (*Split, error) {
	switch {
	case agreed == nil:
		return loadRatings(s, nil)
	case agreed.Kind != RatingKind:
		return nil, fmt.Errorf("%s holds ratings; the coordinator's data are %s", s.Path, agreed)
	}
	return loadRatings(s, agreed.Ratings)
}
