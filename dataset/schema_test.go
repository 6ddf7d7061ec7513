package dataset

import (
	"encoding/json"
	"errors"
	"fmt"
	"image"
	"image/color"
	"image/png"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
)

func glyphsFor(t *testing.T) *Split {
	t.Helper()
	split, err := Load(t.Context(), Spec{Name: "glyphs", Size: 8, Train: 60, Test: 20, Seed: 1})
	if err != nil {
		t.Fatal(err)
	}
	return split
}

// tableFile writes a table of 40 rows and returns its path.
func tableFile(t *testing.T, name, target string, classes ...string) string {
	t.Helper()
	var b strings.Builder
	fmt.Fprintf(&b, "size,colour,%s\n", target)
	for i := range 40 {
		fmt.Fprintf(&b, "%d.5,%s,%s\n", i%7, []string{"red", "blue"}[i%2], classes[i%len(classes)])
	}
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(b.String()), 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestSchemaRoundTrip(t *testing.T) {
	table, err := Load(t.Context(), Spec{Name: "csv", Path: tableFile(t, "t.csv", "kind", "cat", "dog")})
	if err != nil {
		t.Fatal(err)
	}
	text := filepath.Join(t.TempDir(), "a.txt")
	if err := os.WriteFile(text, []byte(strings.Repeat("one two three\n", 200)), 0o644); err != nil {
		t.Fatal(err)
	}
	words, err := Load(t.Context(), Spec{Name: "text", Path: text, Tokens: 4, TextRows: 2})
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range []Schema{SchemaOf(glyphsFor(t).Train), SchemaOf(table.Train), SchemaOf(words.Train), SchemaOf(words.Train).WithWords(words.Train)} {
		raw, err := json.Marshal(s)
		if err != nil {
			t.Fatal(err)
		}
		back, err := ParseSchema(raw)
		if err != nil || !reflect.DeepEqual(back, s) {
			t.Errorf("%s read back as %+v, error %v", raw, back, err)
		}
		if err := s.Check(back); err != nil {
			t.Error(err)
		}
		if s.Digest() != back.Digest() || s.Digest() == SchemaOf(&Examples{Shape: []int{1}, F32: []float32{1}}).Digest() {
			t.Error("digests do not tell schemas apart")
		}
		like := s.Like()
		if got := SchemaOf(like); got.Kind != s.Kind || got.Task != s.Task || got.Input != s.Input || like.NumClasses() == 0 {
			t.Errorf("an empty data set of %s is %s", s, got)
		}
	}
	if s := SchemaOf(words.Train); s.Vocabulary.Words != nil || s.Vocabulary.Size != 4 {
		t.Errorf("vocabulary %+v", s.Vocabulary)
	}
}

func TestSchemaCheck(t *testing.T) {
	a := SchemaOf(glyphsFor(t).Train)
	for want, change := range map[string]func(*Schema){
		`class 3 is "cat" here and "dog" at the coordinator`: func(s *Schema) {
			s.Classes = append([]string(nil), s.Classes...)
			s.Classes[3] = "cat"
		},
		`class 9 is missing here and`:                                            func(s *Schema) { s.Classes = s.Classes[:9] },
		"the kind of data is table here and image at the":                        func(s *Schema) { s.Kind = TableKind },
		"the task is regression here":                                            func(s *Schema) { s.Task = RegressionTask },
		"the shape of an example is [9 8 1] here and [8 8 1] at the coordinator": func(s *Schema) { s.Shape = []int{9, 8, 1} },
		"the mean of channel or feature 0 is 7 here":                             func(s *Schema) { s.Mean = []float32{7} },
		"the standard deviation is not given here":                               func(s *Schema) { s.Std = nil },
	} {
		there, mine := a, a
		there.Classes = append([]string(nil), a.Classes...)
		there.Classes[3] = "dog"
		mine.Classes = there.Classes
		change(&mine)
		var differ *DisagreementError
		if err := there.Check(mine); !errors.As(err, &differ) || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %s", err, want)
		}
	}
	numbers := a
	numbers.Input, numbers.Name = "numbers", "mine"
	if err := a.Check(numbers); err != nil {
		t.Errorf("pixels as numbers: %v", err)
	}
}

func TestAdopt(t *testing.T) {
	e := &Examples{Name: "mine", Shape: []int{2}, F32: []float32{1, 2, 3, 4, 5, 6}, Labels: []int32{0, 2, 1}, Classes: []string{"b", "c", "a"}}
	s := SchemaOf(&Examples{Shape: []int{2}, F32: []float32{0, 0}, Labels: []int32{0}, Classes: []string{"a", "b", "x", "c"},
		Mean: []float32{1, 2}, Std: []float32{3, 4}})
	got, err := Adopt(e, s)
	if err != nil {
		t.Fatal(err)
	}
	if fmt.Sprint(got.Labels) != "[1 0 3]" || len(got.Classes) != 4 || got.Std[1] != 4 || e.Mean != nil || e.Labels[1] != 2 {
		t.Errorf("adopted as %+v, from %+v", got, e)
	}
	if err := s.Check(SchemaOf(got)); err != nil {
		t.Error(err)
	}
	e.Classes[2] = "z" // of example 1, "a" before
	if _, err := Adopt(e, s); err == nil || !strings.Contains(err.Error(), `class "z", number 2 of 1 examples, is present here and absent (class 2 there is "x")`) {
		t.Errorf("a foreign class: %v", err)
	}
	e.Labels[1] = 0 // now no example has it
	if _, err := Adopt(e, s); err != nil {
		t.Errorf("a foreign class of no example: %v", err)
	}
	s.Shape = []int{3}
	if _, err := Adopt(e, s); err == nil || !strings.Contains(err.Error(), "[2] here and [3] at the coordinator") {
		t.Errorf("another shape: %v", err)
	}
}

func TestLoadMember(t *testing.T) {
	ctx := t.Context()
	glyphs := glyphsFor(t)
	agreed := SchemaOf(glyphs.Train)

	t.Run("pictures", func(t *testing.T) { // two of the ten classes, of another size
		dir := t.TempDir()
		for _, class := range []string{agreed.Classes[4], agreed.Classes[7]} {
			for i := range 5 {
				m := image.NewGray(image.Rect(0, 0, 16, 16))
				m.SetGray(i, i, color.Gray{200})
				writePicture(t, filepath.Join(dir, class, fmt.Sprint(i, ".png")), m)
			}
		}
		got, err := LoadMember(ctx, dir, Spec{Name: "glyphs"}, &agreed)
		if err != nil {
			t.Fatal(err)
		}
		if err := agreed.Check(SchemaOf(got.Train)); err != nil {
			t.Error(err)
		}
		if l := got.Train.All().LabelSet(); fmt.Sprint(l) != "[4 7]" || got.Train.Len() != 8 || got.Test.Len() != 2 {
			t.Errorf("labels %v, %d and %d examples", l, got.Train.Len(), got.Test.Len())
		}
		writePicture(t, filepath.Join(dir, "unicorn", "a.png"), image.NewGray(image.Rect(0, 0, 2, 2)))
		if _, err := LoadMember(ctx, dir, Spec{}, &agreed); err == nil || !strings.Contains(err.Error(), "unicorn") {
			t.Errorf("a folder of an unknown class: %v", err)
		}
	})

	t.Run("arrays", func(t *testing.T) {
		dir := t.TempDir()
		for name, x := range map[string]*IDX{
			"train-images.idx": {Dims: []int{3, 8, 8}, U8: make([]uint8, 192)}, "train-labels.idx": {Dims: []int{3}, U8: []uint8{9, 1, 1}},
		} {
			if err := writeFile(filepath.Join(dir, name), x.write); err != nil {
				t.Fatal(err)
			}
		}
		got, err := LoadMember(ctx, dir, Spec{Name: "glyphs", TestFraction: -1}, &agreed)
		if err != nil || got.Train.Labels[0] != 9 || got.Test != nil || got.Train.Mean[0] != agreed.Mean[0] {
			t.Errorf("%+v, error %v", got, err)
		}
	})

	t.Run("table", func(t *testing.T) {
		whole, err := Load(ctx, Spec{Name: "csv", Path: tableFile(t, "a.csv", "kind", "cat", "dog", "hen"), TestFraction: -1})
		if err != nil {
			t.Fatal(err)
		}
		agreed := SchemaOf(whole.Train)
		path := tableFile(t, "mine.csv", "kind", "hen", "cat")
		got, err := LoadMember(ctx, path, Spec{TestFraction: -1}, &agreed)
		if err != nil {
			t.Fatal(err)
		}
		if err := agreed.Check(SchemaOf(got.Train)); err != nil || fmt.Sprint(got.Train.All().LabelSet()) != "[0 2]" {
			t.Errorf("labels %v, error %v", got.Train.All().LabelSet(), err)
		}
		if _, err := LoadMember(ctx, tableFile(t, "mine.csv", "kind", "cow", "cat"), Spec{}, &agreed); err == nil || !strings.Contains(err.Error(), `"cow" is none of the classes`) {
			t.Errorf("an unknown class: %v", err)
		}
		if _, err := LoadMember(ctx, path, Spec{}, &Schema{Version: 1, Kind: ImageKind, Task: ClassificationTask, Input: "bytes", Shape: []int{2, 2, 1}, Classes: []string{"a", "b"}}); err == nil ||
			!strings.Contains(err.Error(), "the coordinator's data are images 2×2×1 of 2 classes") {
			t.Errorf("a table for pictures: %v", err)
		}
	})

	t.Run("text", func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "a.txt")
		if err := os.WriteFile(path, []byte(strings.Repeat("b a <unk> c\n", 100)), 0o644); err != nil {
			t.Fatal(err)
		}
		whole, err := Load(ctx, Spec{Name: "text", Path: path, Tokens: 4, TextRows: 2})
		if err != nil {
			t.Fatal(err)
		}
		mine := filepath.Join(t.TempDir(), "mine.txt")
		if err := os.WriteFile(mine, []byte(strings.Repeat("c new b\n", 30)), 0o644); err != nil {
			t.Fatal(err)
		}
		agreed := SchemaOf(whole.Train).WithWords(whole.Train)
		got, err := LoadMember(ctx, mine, Spec{TestFraction: -1}, &agreed)
		if err != nil {
			t.Fatal(err)
		}
		if text := got.Train.Text(0); text != "c <unk> b <eos>" || agreed.Check(SchemaOf(got.Train)) != nil {
			t.Errorf("encoded as %q", text)
		}
		agreed = SchemaOf(whole.Train)
		if _, err := LoadMember(ctx, mine, Spec{}, &agreed); err == nil || !strings.Contains(err.Error(), "vocabulary") {
			t.Errorf("another vocabulary: %v", err)
		}
	})

	t.Run("nothing", func(t *testing.T) {
		for what, path := range map[string]string{
			"there is nothing at": filepath.Join(t.TempDir(), "no"), "holds none of: dataset.json": t.TempDir(),
		} {
			if _, err := LoadMember(ctx, path, Spec{}, &agreed); err == nil || !strings.Contains(err.Error(), what) {
				t.Errorf("%v, want %s", err, what)
			}
		}
		dealt, err := Scheme{Name: "iid", Clients: 2}.Deal(glyphs.Train, glyphs.Test, 1)
		if err != nil {
			t.Fatal(err)
		}
		dir := filepath.Join(t.TempDir(), "x")
		if _, err := dealt.Export(ctx, dir, glyphs.Train, glyphs.Test); err != nil {
			t.Fatal(err)
		}
		if _, err := LoadMember(ctx, dir, Spec{}, &agreed); err == nil || !strings.Contains(err.Error(), "export of 2 members") {
			t.Errorf("a whole export: %v", err)
		}
		if got, err := LoadMember(ctx, filepath.Join(dir, "member-001"), Spec{}, &agreed); err != nil || got.Train.Len() != 30 {
			t.Errorf("a share: %v", err)
		}
	})
}

func writePicture(t *testing.T, path string, m image.Image) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := png.Encode(f, m); err != nil {
		t.Fatal(err)
	}
}

func FuzzSchema(f *testing.F) {
	for _, s := range []string{
		`{"version":1,"kind":"image","task":"classification","shape":[2,2,1],"input":"bytes","classes":["a","b"],"mean":[0.5],"std":[1]}`,
		`{"version":1,"kind":"tokens","task":"language","shape":[4],"input":"tokens","vocabulary":{"size":9,"digest":"00"}}`,
		`{"version":1,"kind":"table","task":"regression","shape":[1],"input":"numbers","features":["a"],"encoding":{"columns":[{"name":"a","kind":"number"}],"task":"regression","header":true}}`,
		`{"version":2,"new":1}`, `{"version":1,"kind":"tokens","task":"language","shape":[4],"input":"tokens"}`,
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		s, err := ParseSchema(text)
		if err != nil {
			return
		}
		_ = s.String()
		if err := s.Check(SchemaOf(s.Like())); err != nil && s.Vocabulary == nil && len(s.Classes) > 0 {
			t.Errorf("%s: does not agree with itself: %v", text, err)
		}
		raw, err := json.Marshal(s)
		if err != nil {
			t.Fatal(err)
		}
		if back, err := ParseSchema(raw); err != nil || back.Digest() != s.Digest() {
			t.Errorf("%s: read back as %+v, error %v", raw, back, err)
		}
	})
}
