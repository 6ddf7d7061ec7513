package dataset

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/parquet-go/parquet-go"
	"pgregory.net/rapid"
)

// TestMovieLens100K: counts of the data set's own description, titles, genres and users of its README, a split of 90,000 and
// 10,000 ratings with nothing in both.
func TestMovieLens100K(t *testing.T) {
	s, err := Load(t.Context(), Spec{Name: "movielens-100k", Root: realData(t)})
	if err != nil {
		t.Fatal(err)
	}
	r := s.Train.Ratings
	if len(r.Users) != 943 || len(r.Items) != 1682 || r.Low != 1 || r.High != 5 {
		t.Errorf("%d users, %d items, ratings from %v to %v", len(r.Users), len(r.Items), r.Low, r.High)
	}
	if s.Train.Len() != 90_000 || s.Test.Len() != 10_000 {
		t.Errorf("%d ratings to train and %d to test", s.Train.Len(), s.Test.Len())
	}
	if r.Users[0] != "1" || r.Items[0] != "1" || r.Title(0) != "Toy Story (1995)" || r.Tags[0] != "Animation|Children's|Comedy" || r.Profiles[0] != "24 M technician" {
		t.Errorf("user %s (%s), item %s %q (%s)", r.Users[0], r.Profiles[0], r.Items[0], r.Titles[0], r.Tags[0])
	}
	if got := r.Title(542); got != "Misérables, Les (1995)" { // Latin-1 in the file
		t.Errorf("item 543 is %q", got)
	}
	seen := map[[2]int32]bool{}
	var counts [6]int
	for _, e := range []*Examples{s.Train, s.Test} {
		for i, v := range e.Targets {
			pair := [2]int32(e.Tok[2*i : 2*i+2])
			if seen[pair] {
				t.Fatalf("user %d and item %d are there twice", pair[0], pair[1])
			}
			seen[pair] = true
			counts[int(v)]++
		}
	}
	if want := [6]int{0, 6110, 11370, 27145, 34174, 21201}; counts != want {
		t.Errorf("ratings 1 to 5 occur %v, want %v", counts[1:], want[1:])
	}
	other, err := Load(t.Context(), Spec{Name: "movielens-100k", Root: realData(t), Seed: 1})
	if err != nil {
		t.Fatal(err)
	}
	if slices.Equal(other.Test.Tok, s.Test.Tok) {
		t.Error("another seed holds out the same ratings")
	}
}

// TestMovieLens1M reads the form of the larger data set.
func TestMovieLens1M(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, "ratings.dat", []byte("1::1193::5::978300760\n2::661::3::978302109\n1::661::4::978302110\n"))
	write(t, dir, "movies.dat", []byte("661::James and the Giant Peach (1996)::Animation|Children's\n900::Nobody rates me (1999)::Drama\n1193::La C\xf4te (1975)::Drama\n"))
	write(t, dir, "users.dat", []byte("1::F::1::10::48067\n2::M::56::16::70072\n"))
	s, err := Load(t.Context(), Spec{Name: "movielens-1m", Path: dir, TestFraction: -1})
	if err != nil {
		t.Fatal(err)
	}
	want := &Ratings{Users: []string{"1", "2"}, Items: []string{"661", "1193"}, Titles: []string{"James and the Giant Peach (1996)", "La Côte (1975)"},
		Tags: []string{"Animation|Children's", "Drama"}, Profiles: []string{"1 F K-12 student", "56 M self-employed"}, Low: 1, High: 5}
	if diff := cmp.Diff(want, s.Train.Ratings) + cmp.Diff([]int32{0, 1, 1, 0, 0, 0}, s.Train.Tok) + cmp.Diff([]float32{5, 3, 4}, s.Train.Targets); diff != "" {
		t.Error(diff)
	}
	for what, text := range map[string]string{
		"line 2 has 3 fields":                   "1::2::3::4\n1::2::3\n",
		"line 1: column 3: the rating is \"x\"": "1::2::x::4\n",
		"line 2: a rating of 6":                 "1::2::5::4\n1::3::6::4\n",
		"line 1: the user is missing":           "::2::5::4\n",
		"once more, after " + dir:               "1::2::5::4\n1::2::4::4\n",
	} {
		write(t, dir, "ratings.dat", []byte(text))
		if _, err := Load(t.Context(), Spec{Name: "movielens-1m", Path: dir}); err == nil || !strings.Contains(err.Error(), what) || !strings.Contains(err.Error(), "ratings.dat") {
			t.Errorf("want an error that says %q, got %v", what, err)
		}
	}
}

// TestRatingsTable: columns by name or number, titles, the rules of which users and items stay.
func TestRatingsTable(t *testing.T) {
	dir := t.TempDir()
	path := write(t, dir, "ratings.csv", []byte("when,score,movie_id,userId\n9,4.5,b,10\n9,3,a,9\n9,-1,a,10\n9,1,c,9\n"))
	titles := write(t, dir, "titles.csv", []byte("movie_id,year,title\nb,1999,\"Bees, and more\"\nz,2000,Zebra\n"))
	s, err := Load(t.Context(), Spec{Name: "ratings", Path: path, Titles: titles, TestFraction: -1, Ignore: []float64{-1}})
	if err != nil {
		t.Fatal(err)
	}
	want := &Ratings{Users: []string{"9", "10"}, Items: []string{"a", "b", "c"}, Titles: []string{"", "Bees, and more", ""}, Low: 1, High: 4.5}
	if diff := cmp.Diff(want, s.Train.Ratings) + cmp.Diff([]int32{1, 1, 0, 0, 0, 2}, s.Train.Tok); diff != "" {
		t.Error(diff)
	}
	if got := s.Train.Ratings.Title(0); got != "a" {
		t.Errorf("an item without a title is called %q", got)
	}
	// u1 has one rating and i3 one; with both left out u3 keeps i1 alone. Counting is done once: i1 stays though u1 goes.
	few := write(t, dir, "few.tsv", []byte("u1\ti1\t1\nu2\ti1\t2\nu2\ti2\t3\nu3\ti1\t5\nu3\ti2\t1\nu3\ti3\t4\nu4\ti1\t3\nu4\ti2\t3\n"))
	s, err = Load(t.Context(), Spec{Name: "ratings", Path: few, TestFraction: -1, MinRatings: 2, Users: 2})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"u2", "u3"}, s.Train.Ratings.Users) + cmp.Diff([]string{"i1", "i2"}, s.Train.Ratings.Items) +
		cmp.Diff([]float32{2, 3, 5, 1}, s.Train.Targets); diff != "" {
		t.Error(diff)
	}
	for what, f := range map[string]struct {
		text string
		spec Spec
	}{
		`line 3, column 3 ("rating"): the rating is "good"`: {"user,item,rating\n1,1,2\n1,2,good\n", Spec{}},
		`column 3 ("rating"): a rating of 7 is outside`:     {"user,item,rating\n1,1,2\n1,2,7\n", Spec{Scale: []float64{1, 5}}},
		"no column of the users; name it with data.user":    {"who,item,rating\n1,1,2\n2,1,3\n", Spec{}},
		`data.item: `:       {"user,item,rating\n1,1,2\n2,1,3\n", Spec{Item: "film"}},
		"all ratings are 1": {"user,item,rating\n1,1,1\n2,1,1\n", Spec{}},
		"line 4: user \"1\" rates item \"1\" once more": {"user,item,rating\n1,1,1\n2,1,2\n1,1,3\n", Spec{}},
		"they must be three":                            {"user,item,rating\n1,1,1\n2,1,2\n", Spec{Item: "user"}},
		"no ratings are left of 2; lower min_ratings":   {"user,item,rating\n1,1,1\n2,1,2\n", Spec{MinRatings: 3}},
		"has 2 fields, the table has 3 columns":         {"user,item,rating\n1,1,1\n2,1\n", Spec{}},
	} {
		f.spec.Name, f.spec.Path = "ratings", write(t, dir, "bad.csv", []byte(f.text))
		if _, err := Load(t.Context(), f.spec); err == nil || !strings.Contains(err.Error(), what) {
			t.Errorf("want an error that says %q, got %v", what, err)
		}
	}
}

type parquetRow struct {
	UserID int64   `parquet:"user_id"`
	ItemID string  `parquet:"item_id"`
	Stars  float32 `parquet:"stars"`
	When   *int32  `parquet:"when,optional"`
}

func parquetBytes[T any](t testing.TB, rows []T, o ...parquet.WriterOption) []byte {
	t.Helper()
	var b bytes.Buffer
	w := parquet.NewGenericWriter[T](&b, o...)
	if _, err := w.Write(rows); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// TestRatingsParquet: the same ratings as in a table, over several row groups and compressed.
func TestRatingsParquet(t *testing.T) {
	dir := t.TempDir()
	var rows []parquetRow
	text := "user,item,rating\n"
	for i := range 3000 {
		rows = append(rows, parquetRow{UserID: int64(i % 50), ItemID: fmt.Sprint("film ", i/50), Stars: float32(i%9)/2 + 1})
		text += fmt.Sprintf("%d,film %d,%v\n", i%50, i/50, float32(i%9)/2+1)
	}
	a, err := Load(t.Context(), Spec{Name: "ratings", Path: write(t, dir, "a.csv", []byte(text))})
	if err != nil {
		t.Fatal(err)
	}
	b, err := Load(t.Context(), Spec{Name: "ratings",
		Path: write(t, dir, "b.parquet", parquetBytes(t, rows, parquet.MaxRowsPerRowGroup(700), parquet.Compression(&parquet.Zstd)))})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(a, b); diff != "" {
		t.Error(diff)
	}
	type missing struct {
		User   int32    `parquet:"user"`
		Item   int32    `parquet:"item"`
		Rating *float64 `parquet:"rating,optional"`
	}
	type list struct {
		User   int32     `parquet:"user"`
		Item   int32     `parquet:"item"`
		Rating []float64 `parquet:"rating"`
	}
	one := 1.0
	whole := parquetBytes(t, rows)
	for what, content := range map[string][]byte{
		`row 2, column "rating": the rating is missing`:   parquetBytes(t, []missing{{1, 1, &one}, {1, 2, nil}}),
		`column "rating" holds more than one value a row`: parquetBytes(t, []list{{1, 1, []float64{1, 2}}}),
		`no column of the items; name it with data.item`:  parquetBytes(t, []struct{ User, Rating int32 }{{1, 1}}),
		"not a Parquet file":                              []byte("user,item,rating\n1,2,3\n"),
		`row 2: user "1" rates item "a" once more`:        parquetBytes(t, []parquetRow{{UserID: 1, ItemID: "a", Stars: 1}, {UserID: 1, ItemID: "a", Stars: 2}}),
		"Parquet file": whole[:len(whole)/2],
	} {
		if _, err := Load(t.Context(), Spec{Name: "ratings", Path: write(t, dir, "bad.parquet", content)}); err == nil || !strings.Contains(err.Error(), what) {
			t.Errorf("want an error that says %q, got %v", what, err)
		}
	}
}

// TestDealUsers: every user is dealt whole, in train and test alike; sizes differ by at most one, the first ones are larger.
func TestDealUsers(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		users := rapid.IntRange(2, 40).Draw(rt, "users")
		s, err := Tastes{Users: users, Items: 30, Seed: rapid.Uint64().Draw(rt, "seed")}.Load(context.Background())
		if err != nil {
			rt.Fatal(err)
		}
		clients := rapid.IntRange(0, users).Draw(rt, "clients")
		d, err := Scheme{Name: "users", Clients: clients}.Deal(s.Train, s.Test, 3)
		if err != nil {
			rt.Fatal(err)
		}
		if clients == 0 {
			clients = users
		}
		client := map[int32]int{}
		for _, p := range []struct {
			part *Partition
			data *Examples
		}{{d.Train, s.Train}, {d.Test, s.Test}} {
			if p.part.Dropped() != 0 {
				rt.Errorf("%d ratings are dropped", p.part.Dropped())
			}
			for k := range p.part.Clients() {
				for _, row := range p.part.Rows(k) {
					u := p.data.Tok[2*row]
					if at, ok := client[u]; ok && at != k {
						rt.Fatalf("user %d is with clients %d and %d", u, at, k)
					}
					client[u] = k
				}
			}
		}
		size := make([]int, clients)
		for _, k := range client {
			size[k]++
		}
		for k := range size {
			want := users / clients
			if k < users%clients {
				want++
			}
			if size[k] != want {
				rt.Errorf("client %d has %d of %d users, want %d", k, size[k], users, want)
			}
		}
		if clients == users && d.Train.Name(0) != "1" {
			rt.Errorf("the client of user 1 is called %q", d.Train.Name(0))
		}
	})
	s, err := Tastes{Users: 5, Items: 20}.Load(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for what, scheme := range map[string]Scheme{
		"6 clients, but 5 users": {Name: "users", Clients: 6},
		"ratings, which are dealt by whole users; use the scheme users": {Name: "iid", Clients: 2},
	} {
		if _, err := scheme.Deal(s.Train, s.Test, 1); err == nil || !strings.Contains(err.Error(), what) {
			t.Errorf("want an error that says %q, got %v", what, err)
		}
	}
	other, err := Load(t.Context(), Spec{Name: "synthetic", Clients: 2})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := (Scheme{Name: "users", Clients: 2}).Deal(other.Train, nil, 1); err == nil || !strings.Contains(err.Error(), "has no users") {
		t.Errorf("users of data without any: %v", err)
	}
}

// TestRatingsShares: what a member reads of its folder, of the whole export, or of its own table is what the simulation deals it.
func TestRatingsShares(t *testing.T) {
	ctx := t.Context()
	s, err := Load(ctx, Spec{Name: "tastes", Users: 12, Items: 25, TestFraction: 0.3})
	if err != nil {
		t.Fatal(err)
	}
	d, err := Scheme{Name: "users", Clients: 5}.Deal(s.Train, s.Test, 1)
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(t.TempDir(), "export")
	m, err := d.Export(ctx, dir, s.Train, s.Test)
	if err != nil {
		t.Fatal(err)
	}
	schema := SchemaOf(s.Train)
	if err := schema.Validate(); err != nil {
		t.Fatal(err)
	}
	triples := func(e *Examples, rows []int32) (out []string) {
		for _, row := range rows {
			out = append(out, fmt.Sprint(e.Ratings.Users[e.Tok[2*row]], " ", e.Ratings.Title(int(e.Tok[2*row+1])), " ", e.Targets[row]))
		}
		return out
	}
	var joined []string
	for k, member := range m.Members {
		own, err := LoadMember(ctx, filepath.Join(dir, member.Folder), Spec{Name: "tastes"}, &schema)
		if err != nil {
			t.Fatal(err)
		}
		if err := schema.Check(SchemaOf(own.Train)); err != nil {
			t.Error(err)
		}
		if diff := cmp.Diff(triples(s.Train, d.Train.Rows(k)), triples(own.Train, own.Train.All().Rows)) +
			cmp.Diff(triples(s.Test, d.Test.Rows(k)), triples(own.Test, own.Test.All().Rows)); diff != "" {
			t.Error(diff)
		}
		if own.Test.Ratings != own.Train.Ratings {
			t.Error("the two parts do not number users alike")
		}
		joined = append(joined, triples(s.Test, d.Test.Rows(k))...)
		// The same table without its description, once more with names of its own for the columns.
		bare, err := LoadMember(ctx, filepath.Join(dir, member.Folder, "train.csv"), Spec{Name: "tastes", TestFraction: -1}, &schema)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(triples(own.Train, own.Train.All().Rows), triples(bare.Train, bare.Train.All().Rows)); diff != "" {
			t.Error(diff)
		}
	}
	whole, err := Load(ctx, Spec{Name: "export", Path: dir})
	if err != nil {
		t.Fatal(err)
	}
	whole.Test.Ratings.Titles = s.Train.Ratings.Titles // which the export leaves to the schema
	if diff := cmp.Diff(joined, triples(whole.Test, whole.Test.All().Rows)); diff != "" {
		t.Error(diff)
	}
	strange := write(t, t.TempDir(), "mine.csv", []byte("user,item,rating\nme,1,3\nme,9999,4\n"))
	_, err = LoadMember(ctx, strange, Spec{Name: "tastes"}, &schema)
	if err == nil || !strings.Contains(err.Error(), `line 3, column 2 ("item")`) || !strings.Contains(err.Error(), "coordinator knows (25 items") {
		t.Errorf("an item that nobody knows: %v", err)
	}
	less := schema
	less.Ratings = &Ratings{Items: schema.Ratings.Items[:24], Low: 0, High: 5}
	err = less.Check(schema)
	if err == nil || !strings.Contains(err.Error(), "number of items is 25 here and 24") || !strings.Contains(err.Error(), "scale of ratings is [1 5] here and [0 5]") {
		t.Errorf("other items and another scale: %v", err)
	}
	retitled := schema
	r := *schema.Ratings
	r.Titles = nil
	retitled.Ratings = &r
	if retitled.Digest() != schema.Digest() || less.Digest() == schema.Digest() {
		t.Error("titles count in the digest of a schema, or items do not")
	}
	back, err := os.ReadFile(filepath.Join(dir, m.Members[0].Folder, "train.csv"))
	if err != nil || !bytes.HasPrefix(back, []byte("user,item,rating\n")) {
		t.Errorf("the table begins %.40q: %v", back, err)
	}
}

// TestTastes: ratings that can be learned: predicting 3.5 + the item's mean deviation explains part of their variance, and all
// values of the scale occur.
func TestTastes(t *testing.T) {
	s, err := Load(t.Context(), Spec{Name: "tastes"})
	if err != nil {
		t.Fatal(err)
	}
	r := s.Train.Ratings
	if len(r.Users) != 300 || len(r.Items) != 400 || s.Test.Len() != (s.Train.Len()+s.Test.Len()+5)/10 {
		t.Errorf("%d users, %d items, %d and %d ratings", len(r.Users), len(r.Items), s.Train.Len(), s.Test.Len())
	}
	sum, n := make([]float64, len(r.Items)), make([]float64, len(r.Items))
	var total float64
	var counts [6]int
	for i, v := range s.Train.Targets {
		sum[s.Train.Tok[2*i+1]] += float64(v)
		n[s.Train.Tok[2*i+1]]++
		total += float64(v)
		counts[int(v)]++
	}
	for v := 1; v <= 5; v++ {
		if counts[v] < s.Train.Len()/50 {
			t.Errorf("rating %d occurs %d times among %d", v, counts[v], s.Train.Len())
		}
	}
	mean := total / float64(s.Train.Len())
	var flat, items float64
	for i, v := range s.Test.Targets {
		k := s.Test.Tok[2*i+1]
		guess := mean
		if n[k] > 0 {
			guess = sum[k] / n[k]
		}
		flat += (float64(v) - mean) * (float64(v) - mean)
		items += (float64(v) - guess) * (float64(v) - guess)
	}
	if items > 0.95*flat {
		t.Errorf("item means leave %.3f of the variance", items/flat)
	}
}

func FuzzRatings(f *testing.F) {
	f.Add([]byte("user,item,rating\n1,a,3\n2,a,4\n"))
	f.Add([]byte("1\t2\t3\n1\t3\t4\n"))
	f.Add([]byte("userId;movieId;rating;x\n1;2;3;4\n1;3;4;4\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		table, err := newTable("f.csv", text, "")
		if err != nil {
			return
		}
		rt, p := newRatingTable(Spec{}, nil), new(ratingPart)
		if err := rt.readTable(p, Spec{}, table); err != nil {
			return
		}
		s, err := rt.split(Spec{Name: "ratings"}, p, nil)
		if err != nil {
			return
		}
		if err := s.Train.Validate(); err != nil {
			t.Fatal(err)
		}
	})
}

func FuzzMovieLens(f *testing.F) {
	f.Add([]byte("1::2::3::4\n"), "::", 4)
	f.Add([]byte("1|b\xe9\n"), "|", 2)
	f.Fuzz(func(t *testing.T, text []byte, separator string, fields int) {
		_ = splitFields("f", text, separator, fields, func(line int, cells []string) error {
			if line < 1 || len(cells) != fields {
				t.Fatalf("line %d has %d cells", line, len(cells))
			}
			return nil
		})
	})
}

func FuzzParquet(f *testing.F) {
	f.Add(parquetBytes(f, []parquetRow{{UserID: 1, ItemID: "a", Stars: 2}, {UserID: 1, ItemID: "b", Stars: 3}}))
	f.Fuzz(func(t *testing.T, b []byte) {
		rt, p := newRatingTable(Spec{}, nil), new(ratingPart)
		if err := rt.readRowGroups(p, Spec{}, "f.parquet", bytes.NewReader(b), int64(len(b))); err != nil {
			return
		}
		if s, err := rt.split(Spec{Name: "ratings"}, p, nil); err == nil {
			if err := s.Train.Validate(); err != nil {
				t.Fatal(err)
			}
		}
	})
}
