package dataset

import (
	"bytes"
	"context"
	"encoding/json"
	"image/png"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestExport: what a member loads from its folder gives, bit for bit, the batches that a simulation draws from the whole,
// for images, tables, regression and text, with and without feature skew; and the whole export, dealt by member, gives
// the same lists.
func TestExport(t *testing.T) {
	ctx := context.Background()
	images := glyphs(t, Glyphs{Size: 8, Train: 300, Test: 90})
	colour := &Split{Train: &Examples{Name: "colour", Shape: []int{2, 2, 3}, U8: make([]uint8, 120), Labels: make([]int32, 10), Classes: []string{"a", "NA"}}}
	for i := range colour.Train.U8 {
		colour.Train.U8[i] = uint8(3 * i)
		colour.Train.Labels[i/12] = int32(i / 12 % 2)
	}
	synthetic, err := Synthetic{Alpha: 1, Beta: 1, Clients: 4}.Load(ctx)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	table, err := Load(ctx, Spec{Name: "csv", Path: write(t, dir, "t.csv", []byte("a,\"b,c\",y\n0.1,x,1.5\n,y,2.5\n1e-20,x,3.25\n4,y,0.1\n5,x,7\n"))})
	if err != nil {
		t.Fatal(err)
	}
	text, err := Load(ctx, Spec{Name: "text", Path: write(t, dir, "t.txt", bytes.Repeat([]byte("to be or not to be\n"), 40)), Tokens: 4, TextRows: 6})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name  string
		split *Split
		s     Scheme
	}{
		{"images", images, Scheme{Name: "classes", Clients: 10}},
		{"noisy images", images, Scheme{Name: "noise", Clients: 5, Sigma: 0.1}},
		{"turned images", images, Scheme{Name: "rotation", Clients: 5}},
		{"colour", colour, Scheme{Name: "shards", Clients: 3, PerClient: 1}},
		{"features", synthetic, Scheme{Name: "natural"}},
		{"noisy features", synthetic, Scheme{Name: "noise", Clients: 5, Sigma: 0.1}},
		{"regression", table, Scheme{Name: "iid", Clients: 2}},
		{"text", text, Scheme{Name: "natural"}},
	} {
		d, err := c.s.Deal(c.split.Train, c.split.Test, 7)
		if err != nil {
			t.Fatal(err)
		}
		to := filepath.Join(t.TempDir(), "new")
		m, err := d.Export(ctx, to, c.split.Train, c.split.Test)
		if err != nil {
			t.Fatal(err)
		}
		for k, member := range m.Members {
			one, err := Load(ctx, Spec{Name: "export", Path: filepath.Join(to, member.Folder)})
			if err != nil {
				t.Fatalf("%s: %v", c.name, err)
			}
			skew := Augment{Skew: d.Train.Skew(k)}
			sameExamples(t, c.name, View{c.split.Train, d.Train.Rows(k)}, skew, one.Train)
			if one.Test != nil {
				sameExamples(t, c.name, View{c.split.Test, d.Test.Rows(k)}, skew, one.Test)
			} else if d.Test != nil && d.Test.Size(k) > 0 {
				t.Errorf("%s: member %d lost its test part", c.name, k)
			}
		}
		all, err := Load(ctx, Spec{Name: "export", Path: to})
		if err != nil {
			t.Fatalf("%s: %v", c.name, err)
		}
		again, err := Scheme{Name: "natural"}.Deal(all.Train, all.Test, 1)
		if err != nil {
			t.Fatal(err)
		}
		for k := range m.Members {
			if again.Train.Size(k) != d.Train.Size(k) || again.Train.Name(k) != d.Train.Name(k) {
				t.Errorf("%s: member %d is %s with %d samples, was %s with %d", c.name, k, again.Train.Name(k), again.Train.Size(k), d.Train.Name(k), d.Train.Size(k))
			}
		}
		if _, err := d.Export(ctx, to, c.split.Train, c.split.Test); err == nil || !strings.Contains(err.Error(), "is not empty") {
			t.Errorf("%s: a second export: %v", c.name, err)
		}
	}
}

func sameExamples(t *testing.T, name string, v View, skew Augment, got *Examples) {
	t.Helper()
	if got.Len() != v.Len() || !slices.Equal(got.Shape, v.Data.Shape) || !slices.Equal(got.Classes, v.Data.Classes) {
		t.Fatalf("%s: %d examples of %v, classes %q", name, got.Len(), got.Shape, got.Classes)
	}
	rows := identity(got.Len())
	if v.Data.Labels != nil {
		want, have := make([]int32, v.Len()), make([]int32, v.Len())
		v.Data.FillLabels(want, v.Rows)
		got.FillLabels(have, rows)
		if !slices.Equal(want, have) {
			t.Errorf("%s: labels %v, not %v", name, have, want)
		}
	}
	if v.Data.Targets != nil {
		want, have := make([]float32, v.Len()), make([]float32, v.Len())
		v.Data.FillTargets(want, v.Rows)
		got.FillTargets(have, rows)
		if !slices.Equal(want, have) {
			t.Errorf("%s: targets %v, not %v", name, have, want)
		}
	}
	if v.Data.Tok != nil {
		want, have := make([]int32, v.Len()*got.Size()), make([]int32, v.Len()*got.Size())
		v.Data.FillTokens(want, v.Rows)
		got.FillTokens(have, rows)
		if !slices.Equal(want, have) {
			t.Errorf("%s: tokens differ", name)
		}
		return
	}
	want, have := make([]float32, v.Len()*got.Size()), make([]float32, v.Len()*got.Size())
	v.Data.Fill(want, v.Rows, skew, nil)
	got.Fill(have, rows, Augment{}, nil)
	if !slices.Equal(want, have) {
		t.Errorf("%s: the batches differ", name)
	}
}

// TestExportDamaged: a folder that does not hold what its description promises is refused.
func TestExportDamaged(t *testing.T) {
	ctx := context.Background()
	s := glyphs(t, Glyphs{Size: 8, Train: 100, Test: 20})
	d, err := Scheme{Name: "iid", Clients: 2}.Deal(s.Train, s.Test, 1)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	if _, err := d.Export(ctx, dir, s.Train, s.Test); err != nil {
		t.Fatal(err)
	}
	refuse := func(path, want string) {
		t.Helper()
		if _, err := Load(ctx, Spec{Name: "export", Path: path}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, expected %q", err, want)
		}
	}
	replace := func(name, from, to string) {
		t.Helper()
		path := filepath.Join(dir, name)
		b, err := os.ReadFile(path)
		if err != nil || !bytes.Contains(b, []byte(from)) {
			t.Fatalf("no %q in %s: %v", from, name, err)
		}
		if err := os.WriteFile(path, bytes.Replace(b, []byte(from), []byte(to), 1), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	member := filepath.Join(dir, "member-000")
	replace("member-000/dataset.json", `"train": 50`, `"train": 51`)
	refuse(member, "promises 51 examples")
	replace("member-000/dataset.json", `"schema": 1`, `"schema": 2`)
	refuse(member, "schema 2, this program knows 1")
	replace("manifest.json", `"member-001"`, `"../../etc"`)
	replace("member-000/dataset.json", `"schema": 2`, `"schema": 1`)
	replace("member-000/dataset.json", `"train": 51`, `"train": 50`)
	refuse(dir, "is outside the export")
	refuse(t.TempDir(), "dataset.json")
}

// TestManifest checks table, digest and picture of a small deal.
func TestManifest(t *testing.T) {
	e, test := balanced(12, 3), balanced(6, 3)
	d, err := Scheme{Name: "pathological", Clients: 3, PerClient: 1}.Deal(e, test, 1)
	if err != nil {
		t.Fatal(err)
	}
	m := d.Manifest(e, test)
	var b strings.Builder
	if err := m.WriteText(&b, 2); err != nil {
		t.Fatal(err)
	}
	want := `toy, pathological per_client=1 clients=3, seed 1: 3 members hold 12 of 12 training samples and 6 of 6 test samples
sizes 4 to 4, median 4; label skew (EMD, 0 to 2) 1.333

      member  train  test   EMD  0  1  2
  client-000      4     2  1.33  4  ·  ·
  client-001      4     2  1.33  ·  4  ·
… and 1 more members
`
	if diff := cmp.Diff(want, b.String()); diff != "" {
		t.Error(diff)
	}
	raw, err := json.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	var back Manifest
	if err := json.Unmarshal(raw, &back); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(m, &back); diff != "" {
		t.Error(diff)
	}
	other, err := Scheme{Name: "iid", Clients: 3}.Deal(e, test, 1)
	if err != nil {
		t.Fatal(err)
	}
	left, _ := NewPartition([][]int32{{0, 1}, {2}}, 3, nil)
	right, _ := NewPartition([][]int32{{0}, {1, 2}}, 3, nil)
	if left.Digest() == right.Digest() {
		t.Error("the digest does not see where a list ends")
	}
	if d.Train.Digest() == other.Train.Digest() || len(d.Train.Digest()) != 64 {
		t.Errorf("digests %s and %s", d.Train.Digest(), other.Train.Digest())
	}
	var pic bytes.Buffer
	if err := m.WritePNG(&pic); err != nil {
		t.Fatal(err)
	}
	img, err := png.Decode(&pic)
	if err != nil {
		t.Fatal(err)
	}
	// The map is a dark diagonal: 3×3 cells of 146×24 pixels from (76, 66).
	for k := range 3 {
		for c := range 3 {
			_, _, blue, _ := img.At(76+146*c+73, 66+24*k+12).RGBA()
			red, _, _, _ := img.At(76+146*c+73, 66+24*k+12).RGBA()
			if dark := red>>8 < 20 && blue>>8 > 90; dark != (k == c) {
				t.Errorf("member %d, class %d: dark is %v", k, c, dark)
			}
		}
	}
}

// TestHeatmapSizes: any number of members and classes, and none, gives a picture of bounded size.
func TestHeatmapSizes(t *testing.T) {
	for _, c := range [][2]int{{1, 2}, {3000, 62}, {5, 300}} {
		e := balanced(c[0]*4, c[1])
		d, err := Scheme{Name: "iid", Clients: c[0]}.Deal(e, nil, 1)
		if err != nil {
			t.Fatal(err)
		}
		img, err := d.Manifest(e, nil).Heatmap()
		if err != nil {
			t.Fatal(err)
		}
		if b := img.Bounds(); b.Dx() > 1000 || b.Dy() > 700 || b.Dx() < 300 {
			t.Errorf("%d members, %d classes: a picture of %v", c[0], c[1], b)
		}
	}
	if _, err := (&Manifest{}).Heatmap(); err != nil {
		t.Error(err)
	}
}

// TestDivide: local parts are disjoint, keep every class of a list that allows it, and have the sizes asked for.
func TestDivide(t *testing.T) {
	e := balanced(6000, 10)
	d, err := Scheme{Name: "classes", Clients: 20}.Deal(e, nil, 1)
	if err != nil {
		t.Fatal(err)
	}
	parts, err := d.Train.Divide(e, 2, 0.8, 0.1, 0.1)
	if err != nil {
		t.Fatal(err)
	}
	owner := make(map[int32]int)
	for i, p := range parts {
		checkPartition(t, p, 6000)
		for k := range 20 {
			if want := []float64{0.8, 0.1, 0.1}[i] * float64(d.Train.Size(k)); float64(p.Size(k)) < want-2 || float64(p.Size(k)) > want+2 {
				t.Errorf("part %d of client %d has %d samples, expected %.0f", i, k, p.Size(k), want)
			}
			for c, n := range p.Histogram(e, k) { // 150 of each class become 120, 15 and 15
				if want := []int{120, 15, 15}[i]; n != 0 && n != want || (n == 0) != (d.Train.Histogram(e, k)[c] == 0) {
					t.Errorf("part %d of client %d holds %d samples of class %d, expected %d", i, k, n, c, want)
				}
			}
			for _, r := range p.Rows(k) {
				if at, twice := owner[r]; twice {
					t.Fatalf("row %d is in parts %d and %d", r, at, i)
				}
				owner[r] = i
			}
		}
	}
	if len(owner) != 6000-d.Train.Dropped() {
		t.Errorf("%d rows in the parts, %d dealt", len(owner), 6000-d.Train.Dropped())
	}
	tiny, err := NewPartition([][]int32{{0}, {}, {1, 2}}, 3, nil)
	if err != nil {
		t.Fatal(err)
	}
	parts, err = tiny.Divide(balanced(3, 3), 1, 0.5, 0.5)
	if err != nil {
		t.Fatal(err)
	}
	if parts[0].Size(0) != 1 || parts[0].Size(1) != 0 || parts[0].Size(2) != 1 || parts[1].Size(2) != 1 {
		t.Errorf("tiny lists: %v and %v", lists(parts[0]), lists(parts[1]))
	}
	for _, bad := range [][]float64{nil, {0.8, 0.3}, {1, 0}, {-1}} {
		if _, err := tiny.Divide(balanced(3, 3), 1, bad...); err == nil {
			t.Errorf("fractions %v are accepted", bad)
		}
	}
}
