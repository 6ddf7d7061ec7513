package dataset

import (
	"bytes"
	"fmt"
	"strconv"
	"strings"
)

// movieLens is one form of the data sets of GroupLens (Harper and Konstan, ACM TiiS 5(4), 2015). All files are Latin-1 and have no
// line of names.
type movieLens struct {
	ratings, items, users, genres []string // names of the files; the last three may be missing
	separator                     string   // of ratings
	aside                         string   // of items and users
	flags                         bool     // whether genres are flags, a column each, rather than words between |
}

var (
	movieLens100K = movieLens{[]string{"u.data"}, []string{"u.item"}, []string{"u.user"}, []string{"u.genre"}, "\t", "|", true}
	movieLens1M   = movieLens{[]string{"ratings.dat"}, []string{"movies.dat"}, []string{"users.dat"}, nil, "::", "::", false}
)

// loadMovieLens reads a folder. Of u.item and the like come titles and genres, of u.user age, gender and occupation.
func loadMovieLens(s Spec, dir string, form movieLens) (*Split, error) {
	path, err := find(dir, form.ratings...)
	if err != nil {
		return nil, err
	}
	s.Scale = []float64{1, 5}
	t, all := newRatingTable(s, nil), new(ratingPart)
	all.begin(path, "line")
	err = fieldsOf(path, form.separator, 4, func(line int, cells []string) error {
		v, err := strconv.ParseFloat(cells[2], 64)
		if err != nil {
			return fmt.Errorf("column 3: the rating is %.40q, not a number", cells[2])
		}
		return t.add(all, line, cells[0], cells[1], v)
	})
	if err != nil {
		return nil, err
	}
	split, err := t.split(s, all, nil)
	if err != nil {
		return nil, err
	}
	return split, form.aboutItems(dir, split.Train.Ratings)
}

// aboutItems fills in what lies beside the ratings.
func (f movieLens) aboutItems(dir string, r *Ratings) error {
	genres, err := f.genreNames(dir)
	if err != nil {
		return err
	}
	if path, err := find(dir, f.items...); err == nil {
		titles, tags := map[string]string{}, map[string]string{}
		fields := 3
		if f.flags {
			fields = 5 + len(genres)
		}
		err := fieldsOf(path, f.aside, fields, func(_ int, cells []string) error {
			titles[cells[0]], tags[cells[0]] = cells[1], cells[2]
			if !f.flags {
				return nil
			}
			var words []string
			for g, name := range genres {
				switch cells[5+g] {
				case "1":
					words = append(words, name)
				case "0":
				default:
					return fmt.Errorf("column %d: the flag of genre %s is %.20q, expected 0 or 1", 6+g, name, cells[5+g])
				}
			}
			tags[cells[0]] = strings.Join(words, "|")
			return nil
		})
		if err != nil {
			return err
		}
		r.Titles, _ = r.byItem(titles)
		r.Tags, _ = r.byItem(tags)
	}
	path, err := find(dir, f.users...)
	if err != nil {
		return nil // the ratings are all that is needed
	}
	profiles := map[string]string{}
	err = fieldsOf(path, f.aside, 5, func(_ int, cells []string) error {
		profile := cells[1] + " " + cells[2] + " " + cells[3] // age, gender, occupation
		if !f.flags {                                         // gender, age, number of the occupation
			profile = cells[2] + " " + cells[1] + " " + occupation(cells[3])
		}
		profiles[cells[0]] = profile
		return nil
	})
	r.Profiles = make([]string, len(r.Users))
	for i, name := range r.Users {
		r.Profiles[i] = profiles[name]
	}
	return err
}

// genreNames reads the names of the flags of items, in their order.
func (f movieLens) genreNames(dir string) ([]string, error) {
	if !f.flags {
		return nil, nil
	}
	path, err := find(dir, f.genres...)
	if err != nil { // the 19 of the data set's own description
		return strings.Split("unknown|Action|Adventure|Animation|Children's|Comedy|Crime|Documentary|Drama|Fantasy|Film-Noir|Horror|Musical|Mystery|Romance|Sci-Fi|Thriller|War|Western", "|"), nil
	}
	var names []string
	err = fieldsOf(path, "|", 2, func(_ int, cells []string) error {
		if cells[1] != strconv.Itoa(len(names)) {
			return fmt.Errorf("column 2: genre %q is number %.20q, expected %d", cells[0], cells[1], len(names))
		}
		names = append(names, cells[0])
		return nil
	})
	return names, err
}

// occupation names one of the numbers in users.dat.
func occupation(number string) string {
	names := [...]string{"other", "educator", "artist", "clerical", "student", "customer service", "doctor", "executive", "farmer", "homemaker",
		"K-12 student", "lawyer", "programmer", "retired", "sales", "scientist", "self-employed", "technician", "tradesman", "unemployed", "writer"}
	if n, err := strconv.Atoi(number); err == nil && n >= 0 && n < len(names) {
		return names[n]
	}
	return "occupation " + number
}

// fieldsOf calls f with the fields of every line of a Latin-1 file that is not empty. It fails at a line with another number of
// fields, naming it.
func fieldsOf(path, separator string, fields int, f func(line int, cells []string) error) error {
	s, err := open(path)
	if err != nil {
		return err
	}
	defer s.Close()
	text, err := s.rest(maxTableBytes)
	if err != nil {
		return err
	}
	return splitFields(path, text, separator, fields, f)
}

func splitFields(path string, text []byte, separator string, fields int, f func(line int, cells []string) error) error {
	line := 0
	for row := range bytes.Lines(text) {
		line++
		row = bytes.TrimRight(row, "\r\n")
		if len(row) == 0 {
			continue
		}
		cells := strings.Split(latin1(row), separator)
		if len(cells) != fields {
			return fmt.Errorf("%s: line %d has %d fields between %q, expected %d", path, line, len(cells), separator, fields)
		}
		if err := f(line, cells); err != nil {
			return fmt.Errorf("%s: line %d: %w", path, line, err)
		}
	}
	return nil
}

// latin1 decodes ISO 8859-1, whose bytes are the first 256 code points.
func latin1(b []byte) string {
	if bytes.IndexFunc(b, func(r rune) bool { return r >= 0x80 }) < 0 { // ASCII: invalid bytes are U+FFFD
		return string(b)
	}
	runes := make([]rune, len(b))
	for i, c := range b {
		runes[i] = rune(c)
	}
	return string(runes)
}
