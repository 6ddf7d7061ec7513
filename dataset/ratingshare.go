package dataset

import (
	"bufio"
	"encoding/csv"
	"fmt"
	"slices"
	"strconv"
)

// of returns r with the users of some views alone. Titles and tags stay behind: they come with the schema, once for all members.
func (r *Ratings) of(views ...View) *Ratings {
	there := make([]bool, len(r.Users))
	for _, v := range views {
		for _, row := range v.Rows {
			there[v.Data.Tok[2*row]] = true
		}
	}
	own := *r
	own.Users, own.Profiles, own.Titles, own.Tags = nil, nil, nil, nil
	for u, yes := range there {
		if !yes {
			continue
		}
		own.Users = append(own.Users, r.Users[u])
		if r.Profiles != nil {
			own.Profiles = append(own.Profiles, r.Profiles[u])
		}
	}
	return &own
}

// writeRatings writes a table of ratings, in the shortest form that reads back exactly.
func (e *Examples) writeRatings(w *bufio.Writer) error {
	out := csv.NewWriter(w)
	if err := out.Write(ratingRoles[:]); err != nil {
		return err
	}
	for i, v := range e.Targets {
		row := []string{e.Ratings.Users[e.Tok[2*i]], e.Ratings.Items[e.Tok[2*i+1]], strconv.FormatFloat(float64(v), 'g', -1, 32)}
		if err := out.Write(row); err != nil {
			return err
		}
	}
	out.Flush()
	return out.Error()
}

// readRatings reads what writeRatings wrote.
func (x *exported) readRatings(path string, n int) (*Examples, error) {
	if x.Ratings == nil || len(x.Ratings.Items) == 0 {
		return nil, fmt.Errorf("%s: %s does not say which items there are", path, memberFile)
	}
	text, err := openTable(path, "present")
	if err != nil {
		return nil, err
	}
	t, p := newRatingTable(Spec{}, x.Ratings), new(ratingPart)
	if err := t.readTable(p, Spec{}, text); err != nil {
		return nil, err
	}
	if err := t.twice(p); err != nil {
		return nil, err
	}
	users := numberUsers(&Ratings{Users: t.named[0]}, x.Ratings.Users)
	if k := slices.Index(users, nobody); k >= 0 {
		return nil, fmt.Errorf("%s: user %q is not among the users of %s", path, t.named[0][k], memberFile)
	}
	e := p.examples(x.Name, x.Ratings, [2][]int32{users, identity(len(x.Ratings.Items))})
	if e.Len() != n {
		return nil, fmt.Errorf("%s: %d ratings, %s promises %d", path, e.Len(), memberFile, n)
	}
	return e, nil
}

// joinUsers appends the ratings of other users.
func (e *Examples) joinUsers(o *Examples) {
	r := *e.Ratings
	number := numberUsers(o.Ratings, r.Users)
	for k, name := range o.Ratings.Users {
		if number[k] != nobody {
			continue
		}
		number[k] = int32(len(r.Users))
		r.Users = append(r.Users, name)
		if r.Profiles != nil && o.Ratings.Profiles != nil {
			r.Profiles = append(r.Profiles, o.Ratings.Profiles[k])
		}
	}
	if len(r.Profiles) != len(r.Users) {
		r.Profiles = nil
	}
	for i := 0; i < len(o.Tok); i += 2 {
		e.Tok = append(e.Tok, number[o.Tok[i]], o.Tok[i+1])
	}
	e.Ratings = &r
}

// numberUsers returns the place of each user of r in a list of users, or nobody.
func numberUsers(r *Ratings, users []string) []int32 {
	at := make(map[string]int32, len(users))
	for k, name := range users {
		at[name] = int32(k)
	}
	number := make([]int32, len(r.Users))
	for k, name := range r.Users {
		var ok bool
		if number[k], ok = at[name]; !ok {
			number[k] = nobody
		}
	}
	return number
}

// sameUsers makes the users of a test part those of the training part, which knows them all.
func (s *Split) sameUsers() error {
	if s.Test == nil || !s.Train.Rated() || s.Test.Ratings == s.Train.Ratings {
		return nil
	}
	number := numberUsers(s.Test.Ratings, s.Train.Ratings.Users)
	for i := 0; i < len(s.Test.Tok); i += 2 {
		u := number[s.Test.Tok[i]]
		if u == nobody {
			return fmt.Errorf("user %q of the test part is not among those of the training part", s.Test.Ratings.Users[s.Test.Tok[i]])
		}
		s.Test.Tok[i] = u
	}
	s.Test.Ratings = s.Train.Ratings
	return nil
}
