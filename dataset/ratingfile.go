package dataset

import (
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
)

// What the columns of a table of ratings are called in the data sets that people use.
var ratingColumns = [3][]string{
	{"user", "user_id", "userid", "uid", "customer", "customer_id", "reviewer_id", "reviewerid"},
	{"item", "item_id", "itemid", "iid", "movie", "movie_id", "movieid", "anime_id", "product_id", "productid", "book_id", "isbn", "asin", "track_id"},
	{"rating", "score", "stars", "book-rating", "overall", "value"},
}

var ratingRoles = [3]string{"user", "item", "rating"}

// roleColumns finds the columns of user, item and rating: those that the recipe names, else by what such columns are called, else
// the first three of a table without names.
func (s Spec) roleColumns(file string, names []string, named bool) (at [3]int, err error) {
	for role, given := range [3]string{s.User, s.Item, s.Rating} {
		at[role] = -1
		switch {
		case given != "":
			t := table{name: file, names: names}
			if at[role], err = t.column(given); err != nil {
				return at, fmt.Errorf("data.%s: %w", ratingRoles[role], err)
			}
		case named:
			at[role] = slices.IndexFunc(names, func(n string) bool { return slices.Contains(ratingColumns[role], strings.ToLower(n)) })
		case role < len(names):
			at[role] = role
		}
		if at[role] < 0 {
			return at, fmt.Errorf("%s: no column of the %s; name it with data.%s; the columns are %s", file, plural(ratingRoles[role]), ratingRoles[role], strings.Join(names, ", "))
		}
	}
	if at[0] == at[1] || at[0] == at[2] || at[1] == at[2] {
		return at, fmt.Errorf("%s: user, item and rating are in columns %d, %d and %d; they must be three", file, at[0]+1, at[1]+1, at[2]+1)
	}
	return at, nil
}

// loadRatings reads the user's own ratings, and titles if there is a table of them. With agreed, items and scale are given.
func loadRatings(s Spec, agreed *Ratings) (*Split, error) {
	t := newRatingTable(s, agreed)
	train := new(ratingPart)
	if err := t.read(train, s, s.Path); err != nil {
		return nil, err
	}
	var test *ratingPart
	if s.TestPath != "" {
		test = new(ratingPart)
		if err := t.read(test, s, s.TestPath); err != nil {
			return nil, err
		}
	}
	split, err := t.split(s, train, test)
	if err != nil || s.Titles == "" {
		return split, err
	}
	return split, readTitles(split.Train.Ratings, s.Titles, s.Header)
}

// read adds the ratings of a file to a part.
func (t *ratingTable) read(p *ratingPart, s Spec, path string) error {
	if strings.EqualFold(filepath.Ext(path), ".parquet") {
		return t.readParquet(p, s, path)
	}
	text, err := openTable(path, s.Header)
	if err != nil {
		return err
	}
	return t.readTable(p, s, text)
}

func (t *ratingTable) readTable(p *ratingPart, s Spec, text *table) error {
	at, err := s.roleColumns(text.name, text.names, text.header)
	if err != nil {
		return err
	}
	p.begin(text.name, "line")
	return text.rows(func(line int, cells []string) error {
		v, kind := cell(cells[at[2]])
		if kind != number {
			return text.errf(line, at[2], "the rating is %.40q, not a number", cells[at[2]])
		}
		err := t.add(p, line, strings.TrimSpace(cells[at[0]]), strings.TrimSpace(cells[at[1]]), v)
		column := at[2]
		switch {
		case err == nil:
			return nil
		case errors.Is(err, errUnknownItem):
			column = at[1]
		}
		return text.errf(line, column, "%w", err)
	})
}

// readTitles gives items the titles of a table: its first column names the items, its second one, or that called title or name,
// their titles. Items that it does not name are called as they are.
func readTitles(r *Ratings, path, header string) error {
	t, err := openTable(path, header)
	if err != nil {
		return err
	}
	if len(t.names) < 2 {
		return fmt.Errorf("%s: a table of titles has a column of items and one of titles", path)
	}
	of := 1
	if i := slices.IndexFunc(t.names, func(n string) bool { return slices.Contains([]string{"title", "name"}, strings.ToLower(n)) }); i > 0 {
		of = i
	}
	titles := make(map[string]string)
	err = t.rows(func(_ int, cells []string) error {
		titles[strings.Clone(strings.TrimSpace(cells[0]))] = strings.Clone(strings.TrimSpace(cells[of]))
		return nil
	})
	if err != nil {
		return err
	}
	var known int
	if r.Titles, known = r.byItem(titles); known == 0 {
		return fmt.Errorf("%s: it names none of the %d items, such as %q; its first column must be the items as the ratings name them", path, len(r.Items), r.Items[0])
	}
	return nil
}

// byItem lists what is known of items by name, and how many of them are known.
func (r *Ratings) byItem(of map[string]string) (list []string, known int) {
	list = make([]string, len(r.Items))
	for i, name := range r.Items {
		if v, ok := of[name]; ok {
			list[i] = v
			known++
		}
	}
	return list, known
}
