package dataset

import (
	"bufio"
	"context"
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
)

// An export is a folder with manifest.json (a [Manifest]) and one folder for each member, which a member can load on its
// own machine and which holds
//
//	dataset.json                            name, shape, classes, means and deviations (exported)
//	train-images.idx, train-labels.idx      for images and tokens, or
//	train.csv                               for tables: the features in order, then the label (its number) or target, or
//	train.csv                               for ratings: user, item, rating
//	test-images.idx, …                      if there is a test part
//
// Feature skew is applied. Numbers are written so that they read back bit for bit.
const (
	manifestFile = "manifest.json"
	memberFile   = "dataset.json"
)

// exported is the content of dataset.json.
type exported struct {
	Schema   int       `json:"schema"` // 1
	Name     string    `json:"name"`
	Member   string    `json:"member"`
	Shape    []int     `json:"shape"`
	Format   string    `json:"format"` // "idx", "csv" or "ratings"
	Classes  []string  `json:"classes,omitempty"`
	Mean     []float32 `json:"mean,omitempty"`
	Std      []float32 `json:"std,omitempty"`
	Features []string  `json:"features,omitempty"`
	Encoding *Encoding `json:"encoding,omitempty"`
	Ratings  *Ratings  `json:"ratings,omitempty"`
	Train    int       `json:"train"`
	Test     int       `json:"test"`
}

// Export writes every member's share to a folder of its own below dir, and the manifest. Dir must not exist or be empty.
// Load reads a member's folder, or the whole export with the members as keys, with Name "export".
func (d *Dealt) Export(ctx context.Context, dir string, train, test *Examples) (*Manifest, error) {
	if entries, err := os.ReadDir(dir); err == nil && len(entries) > 0 {
		return nil, fmt.Errorf("export: %s is not empty; choose a new folder", dir)
	} else if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("export: %w", err)
	}
	m := d.Manifest(train, test)
	width := len(fmt.Sprint(len(m.Members) - 1))
	err := parallel(ctx, len(m.Members), func(k int) error {
		m.Members[k].Folder = fmt.Sprintf("member-%0*d", max(width, 3), k)
		return d.exportMember(filepath.Join(dir, m.Members[k].Folder), m.Members[k], k, train, test)
	})
	if err != nil {
		return nil, fmt.Errorf("export: %w", err)
	}
	return m, writeJSON(filepath.Join(dir, manifestFile), m)
}

func (d *Dealt) exportMember(dir string, member Member, k int, train, test *Examples) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	x := exported{
		Schema: 1, Name: train.Name, Member: member.Name, Shape: train.Shape, Classes: train.Classes,
		Mean: train.Mean, Std: train.Std, Features: train.Features, Encoding: train.Encoding,
		Train: member.Train, Test: member.Test, Format: "idx",
	}
	switch {
	case train.Rated():
		x.Format = "ratings"
		x.Ratings = train.Ratings.of(d.Train.View(train, k))
		if d.Test != nil {
			x.Ratings = train.Ratings.of(d.Train.View(train, k), d.Test.View(test, k))
		}
	case len(train.Shape) == 1 && train.F32 != nil:
		x.Format = "csv"
	}
	if err := x.writePart(dir, "train", train, d.Train.Rows(k), d.Train.Skew(k)); err != nil {
		return err
	}
	if member.Test > 0 {
		if err := x.writePart(dir, "test", test, d.Test.Rows(k), d.Train.Skew(k)); err != nil {
			return err
		}
	}
	return writeJSON(filepath.Join(dir, memberFile), x)
}

func (x *exported) writePart(dir, part string, e *Examples, rows []int32, skew Skew) error {
	mine := e.skewed(rows, skew)
	switch x.Format {
	case "ratings":
		return writeFile(filepath.Join(dir, part+".csv"), mine.writeRatings)
	case "csv":
		return writeFile(filepath.Join(dir, part+".csv"), mine.writeCSV)
	}
	inputs := &IDX{Dims: append([]int{len(rows)}, e.Shape...), U8: mine.U8, F32: mine.F32, I32: mine.Tok}
	if len(e.Shape) == 3 && e.Shape[2] == 1 {
		inputs.Dims = inputs.Dims[:3]
	}
	if err := writeFile(filepath.Join(dir, part+"-images.idx"), inputs.write); err != nil {
		return err
	}
	labels := &IDX{Dims: []int{len(rows)}, F32: mine.Targets}
	switch {
	case mine.Labels == nil && mine.Targets == nil:
		return nil
	case len(e.Classes) <= 256 && mine.Labels != nil:
		labels.U8 = make([]uint8, len(rows))
		for i, l := range mine.Labels {
			labels.U8[i] = uint8(l)
		}
	default:
		labels.I32 = mine.Labels
	}
	return writeFile(filepath.Join(dir, part+"-labels.idx"), labels.write)
}

// Seen copies the view's examples as a client with that feature skew sees them: read without a skew, the copy gives the same
// values to the bit. Tokens have no skew.
func (v View) Seen(s Skew) *Examples {
	if v.Data.Tok != nil {
		s = Skew{}
	}
	return v.Data.skewed(v.Rows, s)
}

// skewed copies rows with the feature skew applied: turned images stay bytes, noisy ones become numbers on the raw scale.
func (e *Examples) skewed(rows []int32, skew Skew) *Examples {
	s := e.Subset(rows)
	if skew == (Skew{}) || skew.Quarter%4 == 0 && skew.Variance == 0 {
		return s
	}
	raw := *e
	raw.Mean, raw.Std = nil, nil
	size := e.Size()
	out := make([]float32, len(rows)*size)
	raw.Fill(out, rows, Augment{Skew: skew}, nil)
	if e.U8 != nil && skew.Variance == 0 {
		for i, v := range out {
			s.U8[i] = uint8(v*255 + 0.5)
		}
		return s
	}
	s.U8, s.F32 = nil, out
	return s
}

// writeCSV writes a table: the features in the shortest form that reads back exactly, then label or target.
func (e *Examples) writeCSV(w *bufio.Writer) error {
	out := csv.NewWriter(w)
	size := e.Size()
	cells := make([]string, size, size+1)
	for j := range size {
		cells[j] = fmt.Sprint("x", j)
		if j < len(e.Features) {
			cells[j] = e.Features[j]
		}
	}
	last := ""
	switch {
	case e.Labels != nil:
		last = "label"
	case e.Targets != nil:
		last = "target"
	}
	if last != "" {
		cells = append(cells, last)
	}
	if err := out.Write(cells); err != nil {
		return err
	}
	for i := range e.Len() {
		for j, v := range e.F32[i*size : (i+1)*size] {
			cells[j] = strconv.FormatFloat(float64(v), 'g', -1, 32)
		}
		switch last {
		case "label":
			cells[size] = strconv.Itoa(int(e.Labels[i]))
		case "target":
			cells[size] = strconv.FormatFloat(float64(e.Targets[i]), 'g', -1, 32)
		}
		if err := out.Write(cells); err != nil {
			return err
		}
	}
	out.Flush()
	return out.Error()
}

func (x *IDX) write(w *bufio.Writer) error { return x.Write(w) }

// writeFile creates a file and writes it through f; the error of closing counts.
func writeFile(path string, f func(*bufio.Writer) error) (err error) {
	file, err := os.Create(path)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	w := bufio.NewWriter(file)
	if err := f(w); err != nil {
		return err
	}
	return w.Flush()
}

func writeJSON(path string, v any) error {
	b, err := json.MarshalIndent(v, "", "\t")
	if err != nil {
		return err
	}
	return os.WriteFile(path, append(b, '\n'), 0o644)
}

// loadExport reads a member's folder, or all members of an export one after the other, each row keyed by its member.
func loadExport(dir string) (*Split, error) {
	if !exists(filepath.Join(dir, manifestFile)) {
		return loadMember(dir)
	}
	var m Manifest
	if err := readJSON(filepath.Join(dir, manifestFile), &m); err != nil {
		return nil, err
	}
	if m.Schema != 1 {
		return nil, fmt.Errorf("%s: schema %d, this program knows 1", filepath.Join(dir, manifestFile), m.Schema)
	}
	all := new(Split)
	for _, member := range m.Members {
		if !filepath.IsLocal(member.Folder) {
			return nil, fmt.Errorf("%s: folder %q of member %s is outside the export", filepath.Join(dir, manifestFile), member.Folder, member.Name)
		}
		one, err := loadMember(filepath.Join(dir, member.Folder))
		if err != nil {
			return nil, err
		}
		for _, p := range []struct {
			to   **Examples
			from *Examples
		}{{&all.Train, one.Train}, {&all.Test, one.Test}} {
			if p.from == nil {
				continue
			}
			if *p.to == nil {
				*p.to = p.from
				continue
			}
			if err := (*p.to).join(p.from); err != nil {
				return nil, fmt.Errorf("%s: %w", filepath.Join(dir, member.Folder), err)
			}
		}
	}
	if all.Train == nil {
		return nil, fmt.Errorf("%s: an export without members", dir)
	}
	return all, all.sameUsers()
}

// join appends the examples of o, which must have the same shape and kind.
func (e *Examples) join(o *Examples) error {
	if fmt.Sprint(e.Shape, e.U8 == nil, e.F32 == nil, e.Tok == nil, e.Labels == nil, e.Targets == nil) !=
		fmt.Sprint(o.Shape, o.U8 == nil, o.F32 == nil, o.Tok == nil, o.Labels == nil, o.Targets == nil) {
		return fmt.Errorf("examples of shape %v do not go with those of shape %v of the members before", o.Shape, e.Shape)
	}
	if e.Rated() != o.Rated() || e.Rated() && !slices.Equal(e.Ratings.Items, o.Ratings.Items) {
		return errors.New("the members have not rated the same items")
	}
	if e.Rated() {
		e.joinUsers(o)
	} else {
		e.Tok = append(e.Tok, o.Tok...)
	}
	e.U8, e.F32 = append(e.U8, o.U8...), append(e.F32, o.F32...)
	e.Labels, e.Targets, e.Keys = append(e.Labels, o.Labels...), append(e.Targets, o.Targets...), append(e.Keys, o.Keys...)
	return nil
}

func readJSON(path string, v any) error {
	s, err := open(path)
	if err != nil {
		return err
	}
	defer s.Close()
	raw, err := s.rest(1 << 30)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(raw, v); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	return nil
}

func loadMember(dir string) (*Split, error) {
	var x exported
	if err := readJSON(filepath.Join(dir, memberFile), &x); err != nil {
		return nil, err
	}
	if x.Schema != 1 {
		return nil, fmt.Errorf("%s: schema %d, this program knows 1", filepath.Join(dir, memberFile), x.Schema)
	}
	train, err := x.readPart(dir, "train", x.Train)
	if err != nil {
		return nil, err
	}
	split := &Split{Train: train}
	if x.Test > 0 {
		split.Test, err = x.readPart(dir, "test", x.Test)
	}
	return split, err
}

func (x *exported) readPart(dir, part string, n int) (*Examples, error) {
	var e *Examples
	var err error
	switch x.Format {
	case "ratings":
		return x.readRatings(filepath.Join(dir, part+".csv"), n)
	case "csv":
		e, err = x.readCSV(filepath.Join(dir, part+".csv"))
	default:
		labels := filepath.Join(dir, part+"-labels.idx")
		if !exists(labels) {
			labels = ""
		}
		e, err = readIDXPair(x.Name, filepath.Join(dir, part+"-images.idx"), labels)
	}
	if err != nil {
		return nil, err
	}
	e.Name, e.Classes, e.Mean, e.Std, e.Features, e.Encoding = x.Name, x.Classes, x.Mean, x.Std, x.Features, x.Encoding
	if got := len(e.U8) + len(e.F32) + len(e.Tok); len(x.Shape) == 0 || e.Size() == 0 || e.Len() != n || fmt.Sprint(e.Shape) != fmt.Sprint(x.Shape) {
		return nil, fmt.Errorf("%s: %d values of shape %v in part %s, %s promises %d examples of %v", dir, got, e.Shape, part, memberFile, n, x.Shape)
	}
	e.Keys = make([]string, n)
	for i := range e.Keys {
		e.Keys[i] = x.Member
	}
	return e, nil
}

// readCSV reads what writeCSV wrote: every column but label or target a number.
func (x *exported) readCSV(path string) (*Examples, error) {
	t, err := openTable(path, "present")
	if err != nil {
		return nil, err
	}
	enc := &Encoding{Header: false}
	for label := range x.Classes {
		enc.Classes = append(enc.Classes, strconv.Itoa(label))
	}
	for _, name := range t.names {
		enc.Columns = append(enc.Columns, Column{Name: name, Kind: "number"})
	}
	switch last := &enc.Columns[len(enc.Columns)-1]; last.Name {
	case "label":
		last.Kind, enc.Task = "target", "classification"
	case "target":
		last.Kind, enc.Task = "target", "regression"
	}
	return enc.encode(t, x.Name)
}
