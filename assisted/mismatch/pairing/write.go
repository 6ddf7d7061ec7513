package pairing

import (
	"encoding/csv"
	"io"
	"strconv"
)

// Write writes a line for every row of the features, with a header: its line and key, its block, the label that it came with and the
// probability that this is its own, the label that it has in expectation (of a classification the likeliest class and its
// probability), the label of the hard pairing with its line, and the probability that the row has a label at all; where columns were
// compared, also what they say of the given label in bits.
func (o *Outcome) Write(w io.Writer) error {
	out := csv.NewWriter(w)
	head := []string{"line", "key", "block", "given", "link_probability", "expected"}
	if o.Classes != nil {
		head = append(head, "expected_probability")
	}
	head = append(head, "paired", "paired_line", "matched_probability")
	if o.Linkage != nil {
		head = append(head, "given_bits")
	}
	if err := out.Write(head); err != nil {
		return err
	}
	number := func(v float64) string { return strconv.FormatFloat(v, 'g', 6, 64) }
	for _, r := range o.Rows {
		cells := []string{strconv.Itoa(r.Line), r.Key, r.Block, r.Given, number(r.Link)}
		if o.Classes != nil {
			cells = append(cells, r.Best, number(r.Mean))
		} else {
			cells = append(cells, number(r.Mean))
		}
		from := ""
		if r.From > 0 {
			from = strconv.Itoa(r.From)
		}
		cells = append(cells, r.Pair, from, number(r.Mass))
		if o.Linkage != nil {
			bits := ""
			if r.Given != "" {
				bits = number(r.Bits)
			}
			cells = append(cells, bits)
		}
		if err := out.Write(cells); err != nil {
			return err
		}
	}
	out.Flush()
	return out.Error()
}
