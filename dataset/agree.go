package dataset

import (
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"
)

// Difference is one field in which two parties do not agree, in words for a person.
type Difference struct{ Field, Here, There string }

// DisagreementError tells in what the data here and the coordinator's are not alike.
type DisagreementError struct{ Differences []Difference }

func (e *DisagreementError) Error() string {
	const most = 6
	var parts []string
	for i, d := range e.Differences {
		if i == most {
			parts = append(parts, fmt.Sprintf("and %d more", len(e.Differences)-most))
			break
		}
		parts = append(parts, fmt.Sprintf("%s is %s here and %s at the coordinator", d.Field, d.Here, d.There))
	}
	return "the data here and the coordinator's do not go together: " + strings.Join(parts, "; ")
}

// differences collects what differs.
type differences []Difference

func (d *differences) compare(field string, here, there any) {
	if h, t := fmt.Sprint(here), fmt.Sprint(there); h != t {
		*d = append(*d, Difference{field, orNothing(h), orNothing(t)})
	}
}

// orNothing makes an empty value visible.
func orNothing(s string) string {
	if s == "" || s == "[]" {
		return "not given"
	}
	if r := []rune(s); len(r) > 120 {
		return string(r[:120]) + "…"
	}
	return s
}

// list compares two lists of words place by place.
func (d *differences) list(what string, here, there []string) {
	if len(here) != len(there) {
		d.compare("the number of "+plural(what), len(here), len(there))
	}
	for i := range max(len(here), len(there)) {
		h, t := at(here, i), at(there, i)
		if h != t {
			*d = append(*d, Difference{fmt.Sprintf("%s %d", what, i), h, t})
		}
	}
}

func at(words []string, i int) string {
	if i >= len(words) {
		return "missing"
	}
	return fmt.Sprintf("%.80q", words[i])
}

func plural(what string) string {
	if what == "class" {
		return "classes"
	}
	return what + "s"
}

func (d differences) err() error {
	if len(d) == 0 {
		return nil
	}
	return &DisagreementError{d}
}

// nature compares what no relabelling can mend: kind, task and shape, vocabulary and features.
func (d *differences) nature(here, there Schema) {
	d.compare("the kind of data", here.Kind, there.Kind)
	d.compare("the task", here.Task, there.Task)
	d.compare("the shape of an example", here.Shape, there.Shape)
	if here.Kind == there.Kind && here.Kind != ImageKind {
		d.compare("the form of values", here.Input, there.Input)
	}
	if h, t := here.Vocabulary, there.Vocabulary; h != nil && t != nil {
		d.compare("the number of words of the vocabulary", h.Size, t.Size)
		if h.Size == t.Size {
			d.compare("the digest of the vocabulary", h.Digest, t.Digest)
		}
	}
	if h, t := here.Ratings, there.Ratings; h != nil && t != nil {
		d.list("item", h.Items, t.Items)
		d.compare("the scale of ratings", [2]float32{h.Low, h.High}, [2]float32{t.Low, t.High})
	}
	if here.Kind == TableKind && there.Kind == TableKind && len(here.Features) == len(there.Features) {
		d.list("feature", here.Features, there.Features)
	}
}

// Check returns a [DisagreementError] that shows both sides of every field in which mine, the data here, differs from s,
// what the coordinator says. The name does not count, nor whether the pixels of an image are stored as bytes or as numbers.
func (s Schema) Check(mine Schema) error {
	var d differences
	d.nature(mine, s)
	d.list("class", mine.Classes, s.Classes)
	d.numbers("the mean", mine.Mean, s.Mean)
	d.numbers("the standard deviation", mine.Std, s.Std)
	d.columns(mine.Encoding, s.Encoding)
	return d.err()
}

// WithoutLabels returns s as it is of examples of the same kind whose classes nobody knows; only of classification, else s.
func (s Schema) WithoutLabels() Schema {
	if s.Task == ClassificationTask {
		s.Task, s.Classes = NoTask, nil
	}
	return s
}

// numbers compares two lists bit for bit.
func (d *differences) numbers(what string, here, there []float32) {
	if len(here) != len(there) {
		d.compare(what, here, there)
		return
	}
	for i := range here {
		if math.Float32bits(here[i]) != math.Float32bits(there[i]) {
			d.compare(fmt.Sprintf("%s of channel or feature %d", what, i), here[i], there[i])
		}
	}
}

// columns compares two encodings, if both are known.
func (d *differences) columns(here, there *Encoding) {
	if here == nil || there == nil {
		return
	}
	d.list("spelling of class", here.Classes, there.Classes)
	if len(here.Columns) != len(there.Columns) {
		d.compare("the number of columns", len(here.Columns), len(there.Columns))
		return
	}
	for i := range here.Columns {
		h, t := here.Columns[i], there.Columns[i]
		d.compare(fmt.Sprintf("column %d", i+1), columnText(h), columnText(t))
	}
}

func columnText(c Column) string {
	switch c.Kind {
	case "number":
		return fmt.Sprintf("%q, a number, %v where missing", c.Name, c.Fill)
	case "category":
		return fmt.Sprintf("%q, one of %q", c.Name, c.Categories)
	}
	return fmt.Sprintf("%q, %s", c.Name, c.Kind)
}

// Adopt returns e as parties of schema s see it: with the agreed class names, numbers and normalisation. The classes of e
// may be fewer than the agreed ones or in another order; labels are renumbered by name. Everything else that differs is a
// [DisagreementError]. The examples themselves are shared with e.
func Adopt(e *Examples, s Schema) (*Examples, error) {
	mine := SchemaOf(e)
	var d differences
	d.nature(mine, s)
	var labels []int32
	if len(d) == 0 && s.Task == ClassificationTask {
		labels = relabel(&d, e, s.Classes)
	}
	if err := d.err(); err != nil {
		return nil, err
	}
	out := *e
	out.Mean, out.Std = s.Mean, s.Std
	if s.Task == ClassificationTask {
		out.Labels, out.Classes = labels, s.Classes
	}
	if s.Features != nil {
		out.Features = s.Features
	}
	out.Encoding = s.Encoding
	if e.Rated() {
		r := *e.Ratings
		r.Titles, r.Tags = s.Ratings.Titles, s.Ratings.Tags
		out.Ratings = &r
	}
	return &out, nil
}

// relabel returns the labels of e in terms of the agreed classes.
func relabel(d *differences, e *Examples, agreed []string) []int32 {
	if slices.Equal(e.Classes, agreed) {
		return e.Labels
	}
	number := make(map[string]int32, len(agreed))
	for i, c := range agreed {
		number[c] = int32(i)
	}
	to := make([]int32, len(e.Classes))
	for i, c := range e.Classes {
		n, ok := number[c]
		if !ok {
			n = nobody
		}
		to[i] = n
	}
	labels, strangers := make([]int32, len(e.Labels)), map[string]int{}
	for i, l := range e.Labels {
		if labels[i] = to[l]; labels[i] == nobody {
			strangers[e.Classes[l]]++
		}
	}
	for _, c := range slices.Sorted(maps.Keys(strangers)) {
		i := slices.Index(e.Classes, c)
		there := "absent"
		if i < len(agreed) {
			there = fmt.Sprintf("absent (class %d there is %.80q)", i, agreed[i])
		}
		*d = append(*d, Difference{fmt.Sprintf("class %.80q, number %d of %d examples,", c, i, strangers[c]), "present", there})
	}
	return labels
}
