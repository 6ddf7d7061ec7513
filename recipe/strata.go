package recipe

import (
	"github.com/cohort-learning/cohort/assisted"
	"github.com/cohort-learning/cohort/dataset/table"
	"github.com/cohort-learning/cohort/methods"
)

// sheet is the sponsor's table, with the column that strata are made of, if the method has any.
func (r *Assist) sheet() table.Spec {
	s := r.Table
	if o, ok := r.Options.(methods.Stratifier); ok {
		s.Strata = o.StrataColumn()
	}
	return s
}

// mostNumbers is how many different numbers or dates strata may be made of.
const mostNumbers = 20

// strata are those of a column by its values on the rows to fit.
func strata(t *table.Table, column string, values []string) (*assisted.Strata, error) {
	different := map[string]bool{}
	for _, v := range values {
		different[v] = true
	}
	for _, c := range t.Encoding.Columns {
		switch {
		case c.Name != column:
		case c.Kind == table.OtherUse:
			return nil, fieldf("options", "strata: %q is what rows are known by, to be predicted, or says which are for testing, and which rows agree in it is told to all: take a column that the sponsor could learn from", column)
		case (c.Kind == table.NumberKind || c.Kind == table.DateKind) && len(different) > mostNumbers:
			return nil, fieldf("options", "strata: %q has %d different values on the rows to fit; of a number or a date there may be %d: add a column with a few classes of it to the table, and name that", column, len(different), mostNumbers)
		}
	}
	s, err := assisted.NewStrata(column, values)
	if err != nil {
		return nil, &FieldError{Field: "options", Err: err}
	}
	return s, nil
}
