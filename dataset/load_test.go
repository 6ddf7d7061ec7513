package dataset

import (
	"bytes"
	"context"
	"errors"
	"image"
	"image/color"
	"image/jpeg"
	"image/png"
	"math"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func pngBytes(t testing.TB, w, h int, f func(x, y int) color.Color) []byte {
	t.Helper()
	img := image.NewRGBA(image.Rect(0, 0, w, h))
	for y := range h {
		for x := range w {
			img.Set(x, y, f(x, y))
		}
	}
	var b bytes.Buffer
	if err := png.Encode(&b, img); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func plain(c color.Color) func(int, int) color.Color { return func(int, int) color.Color { return c } }

// TestLoadImages: classes are folders, pictures of any size become Size×Size, test parts are found.
func TestLoadImages(t *testing.T) {
	dir := t.TempDir()
	red, blue := color.RGBA{200, 0, 0, 255}, color.RGBA{0, 0, 100, 255}
	write(t, dir, "train/cat/1.png", pngBytes(t, 4, 4, plain(red)))
	write(t, dir, "train/cat/deeper/2.PNG", pngBytes(t, 9, 7, plain(red)))
	write(t, dir, "train/dog/1.png", pngBytes(t, 40, 30, plain(blue)))
	write(t, dir, "train/dog/notes.txt", []byte("not a picture"))
	write(t, dir, "val/dog/1.png", pngBytes(t, 4, 4, func(x, y int) color.Color { return color.Gray{uint8(60 * x)} }))
	if _, err := Load(context.Background(), Spec{Name: "images", Path: dir, Size: 4}); err == nil || !strings.Contains(err.Error(), "holds 1 sub-folders") {
		t.Errorf("a test part with a single class: %v", err)
	}
	write(t, dir, "val/cat/1.png", pngBytes(t, 4, 4, plain(red)))
	s, err := Load(context.Background(), Spec{Name: "images", Path: dir, Size: 4})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"cat", "dog"}, s.Train.Classes) + cmp.Diff([]int32{0, 0, 1}, s.Train.Labels) + cmp.Diff([]int{4, 4, 3}, s.Train.Shape); diff != "" {
		t.Error(diff)
	}
	for i := range s.Train.U8 {
		want := uint8(0)
		switch image, channel := i/48, i%3; {
		case image < 2 && channel == 0:
			want = 200
		case image == 2 && channel == 2:
			want = 100
		}
		if s.Train.U8[i] != want {
			t.Fatalf("value %d is %d, not %d", i, s.Train.U8[i], want)
		}
	}
	if diff := cmp.Diff([]uint8{0, 0, 0, 60, 60, 60, 120, 120, 120, 180, 180, 180}, s.Test.U8[48:60]); diff != "" {
		t.Error(diff)
	}
	grey, err := Load(context.Background(), Spec{Name: "images", Path: filepath.Join(dir, "train"), Size: 2, Channels: 1, TestFraction: -1})
	if err != nil {
		t.Fatal(err)
	}
	if grey.Test != nil || grey.Train.Len() != 3 || grey.Train.U8[0] != 60 { // 0.299·200
		t.Errorf("%d grey images, first value %d", grey.Train.Len(), grey.Train.U8[0])
	}
	write(t, dir, "train/dog/2.png", pngBytes(t, 4, 4, plain(red))[:60])
	if _, err := Load(context.Background(), Spec{Name: "images", Path: dir}); err == nil || !strings.Contains(err.Error(), filepath.Join("dog", "2.png")) {
		t.Errorf("a cut picture: %v", err)
	}
}

func TestDecodeImage(t *testing.T) {
	var b bytes.Buffer
	if err := jpeg.Encode(&b, image.NewGray(image.Rect(0, 0, 16, 16)), nil); err != nil {
		t.Fatal(err)
	}
	dst := slices.Repeat([]uint8{9}, 64)
	if err := DecodeImage(dst, b.Bytes(), []int{8, 8, 1}); err != nil || slices.Max(dst) != 0 {
		t.Errorf("a black JPEG: %v, %v", err, dst)
	}
	// A PNG header that promises 60,000 × 60,000 pixels.
	huge := pngBytes(t, 1, 1, plain(color.Black))
	copy(huge[16:], []byte{0, 0, 0xea, 0x60, 0, 0, 0xea, 0x60})
	for _, raw := range [][]byte{huge, []byte("GIF89a"), nil} {
		if err := DecodeImage(dst, raw, []int{8, 8, 1}); err == nil {
			t.Errorf("%.20q is accepted", raw)
		}
	}
}

// TestText: the vocabulary is the training part's, <eos> ends every line, rows and examples are cut in order.
func TestText(t *testing.T) {
	dir := t.TempDir()
	train := write(t, dir, "a.txt.gz", []byte(" the cat sat \n\n the dog\n a b c\n"))
	test := write(t, dir, "b.txt", []byte("a bird sat\n"))
	s, err := Load(context.Background(), Spec{Name: "text", Path: train, TestPath: test, Tokens: 2, TextRows: 2, TestRows: 1})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"the", "cat", "sat", "<eos>", "dog", "a", "b", "c", "<unk>"}, s.Train.Classes); diff != "" {
		t.Error(diff)
	}
	// 12 tokens: the cat sat <eos> <eos> the | dog <eos> a b c <eos>
	if diff := cmp.Diff([]int32{0, 1, 2, 3, 3, 0, 4, 3, 5, 6, 7, 3}, s.Train.Tok); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff([]string{"row-0", "row-0", "row-0", "row-1", "row-1", "row-1"}, s.Train.Keys); diff != "" {
		t.Error(diff)
	}
	if s.Test.Text(0) != "a <unk>" || s.Test.Text(1) != "sat <eos>" {
		t.Errorf("test text %q, %q", s.Test.Text(0), s.Test.Text(1))
	}
	d, err := Scheme{Name: "natural"}.Deal(s.Train, nil, 1)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]int32{3, 4, 5, 6, 7}, d.Train.View(s.Train, 1).TokenSet()); diff != "" {
		t.Error(diff)
	}
	if _, err := Load(context.Background(), Spec{Name: "text", Path: train}); err == nil || !strings.Contains(err.Error(), "12 tokens do not fill 100 rows of 64 tokens") {
		t.Errorf("too short a text: %v", err)
	}
	if _, err := Load(context.Background(), Spec{Name: "text", Path: write(t, dir, "c", []byte("a\x00b"))}); err == nil || !strings.Contains(err.Error(), "not a text file") {
		t.Errorf("binary: %v", err)
	}
}

// TestRealText: token counts and vocabularies as published.
func TestRealText(t *testing.T) {
	root := realData(t)
	s, err := Load(context.Background(), Spec{Name: "ptb", Root: root})
	if err != nil {
		t.Fatal(err)
	}
	// 929,589 tokens in 100 rows of 9,295, each 145 examples of 64; test 82,430 in 10 rows of 8,243, 128 examples each.
	if len(s.Train.Classes) != 10_000 || s.Train.Len() != 14_500 || s.Test.Len() != 1280 {
		t.Errorf("%d words, %d and %d examples", len(s.Train.Classes), s.Train.Len(), s.Test.Len())
	}
	dir := filepath.Join(root, "wikitext-2")
	w, err := Load(context.Background(), Spec{Name: "text", Path: filepath.Join(dir, "wiki.valid.tokens.gz"), TestPath: filepath.Join(dir, "wiki.test.tokens.gz"), Tokens: 1, TextRows: 1, TestRows: 1})
	if err != nil {
		t.Fatal(err)
	}
	if w.Train.Len() != 213_886+3760 || w.Test.Len() != 241_211+4358 || len(w.Train.Classes) != 13_777 {
		t.Errorf("%d and %d tokens, %d words", w.Train.Len(), w.Test.Len(), len(w.Train.Classes))
	}
	if _, err := Load(context.Background(), Spec{Name: "wikitext-2", Root: root}); err == nil || !strings.Contains(err.Error(), "wiki.train.tokens") {
		t.Errorf("missing training text: %v", err)
	}
}

// TestSynthetic: sizes follow the formula, clients do not depend on each other, and each class mix is the client's own.
func TestSynthetic(t *testing.T) {
	load := func(spec Spec) *Split {
		t.Helper()
		spec.Name = "synthetic"
		s, err := Load(context.Background(), spec)
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	few, many := load(Spec{Clients: 5, Seed: 1}), load(Spec{Clients: 8, Seed: 1})
	if !slices.Equal(few.Train.F32, many.Train.F32[:len(few.Train.F32)]) {
		t.Error("client 0 changed with the number of clients")
	}
	d, err := Scheme{Name: "natural"}.Deal(many.Train, many.Test, 1)
	if err != nil {
		t.Fatal(err)
	}
	for k := range 8 {
		n := d.Train.Size(k) + d.Test.Size(k)
		if n < 50 || d.Test.Size(k) != n/10 {
			t.Errorf("client %d holds %d + %d samples", k, d.Train.Size(k), d.Test.Size(k))
		}
	}
	if d.Train.MeanEMD(many.Train) < 0.3 {
		t.Errorf("EMD %.2f is no skew", d.Train.MeanEMD(many.Train))
	}
	// Within a client, feature j has variance j^−1.2: the first 1, the last 0.00735.
	v := d.Train.View(many.Train, 0)
	for _, j := range []int{0, 59} {
		var sum, sq float64
		for _, r := range v.Rows {
			x := float64(many.Train.F32[int(r)*60+j])
			sum, sq = sum+x, sq+x*x
		}
		n := float64(v.Len())
		want := math.Pow(float64(j+1), -1.2)
		if got := sq/n - sum/n*sum/n; math.Abs(got/want-1) > 5*math.Sqrt(2/n) {
			t.Errorf("feature %d has variance %.4f, expected %.4f (%d samples)", j, got, want, v.Len())
		}
	}
}

// TestCatalogue: everything listed can be asked for, and says what it lacks.
func TestCatalogue(t *testing.T) {
	for _, info := range Catalogue() {
		spec := Spec{Name: info.Name, Root: t.TempDir(), Clients: 2}
		if err := spec.Validate(); err != nil {
			if !strings.Contains(err.Error(), "needs a path") {
				t.Errorf("%s: %v", info.Name, err)
			}
			spec.Path = filepath.Join(t.TempDir(), "nowhere")
		}
		_, err := Load(context.Background(), spec)
		if info.Files == "none" && err != nil || info.Files != "none" && err == nil {
			t.Errorf("%s: %v", info.Name, err)
		}
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := Load(ctx, Spec{Name: "glyphs"}); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}

func TestSpecRefused(t *testing.T) {
	for want, spec := range map[string]Spec{
		`unknown data set "mnits"`:   {Name: "mnits"},
		"it needs a path":            {Name: "csv"},
		"must not be negative":       {Name: "mnist", Train: -1},
		"leaves nothing to train on": {Name: "mnist", TestFraction: 1},
		"channels is 2":              {Name: "images", Path: "x", Channels: 2},
		`task is "cluster"`:          {Name: "csv", Path: "x", Task: "cluster"},
		`header is "yes"`:            {Name: "csv", Path: "x", Header: "yes"},
		"size 4 is outside":          {Name: "glyphs", Size: 4},
		"are variances":              {Name: "synthetic", Alpha: math.NaN()},
	} {
		if err := spec.Validate(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%+v: %v, expected %q", spec, err, want)
		}
	}
}
