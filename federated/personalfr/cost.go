package personalfr

import "github.com/cohort-learning/cohort/nn"

// Cost is what ARS costs, in numbers of 32 bits and in multiply-accumulate operations.
type Cost struct {
	Items   int
	Encoder int // numbers of the encoder
	Decoder int // numbers of the decoder
	Column  int // of the encoder, for each item
	Row     int // of the decoder, for each item: a row of the last weight, and its bias
	Between int // operations of one user that do not depend on items
}

// CostOf counts a model. With widths 256, 128 and N items the encoder has 256N + 33,920 numbers and the decoder 257N + 33,536.
func CostOf(m *nn.Model) (Cost, error) {
	n, err := networkOf(m)
	if err != nil {
		return Cost{}, err
	}
	c := Cost{Items: n.items, Column: n.width, Row: n.width + 1, Encoder: n.items * n.width, Decoder: n.items * (n.width + 1)}
	dense := n.zeros(m, 0).dense
	for i, name := range n.denseNames(m) {
		if name[:len(encoder)] == encoder {
			c.Encoder += len(dense[i])
		} else {
			c.Decoder += len(dense[i])
		}
	}
	for _, b := range n.blocks[1:] {
		c.Between += b.in * b.out
	}
	return c, nil
}

// Words returns what one member sends, or is sent, in a round: numbers of the shared part, of which only the given number of
// items if active. Telling which items they are costs [IndexBytes] once.
func (c Cost) Words(share string, items int, active bool) int {
	if !active {
		items = c.Items
	}
	enc, dec := c.Encoder-c.Column*(c.Items-items), c.Decoder-c.Row*(c.Items-items)
	switch share {
	case "all":
		return enc + dec
	case "encoder":
		return enc
	case "decoder":
		return dec
	}
	return 0
}

// Ratio returns how many times more FedAvg moves than PersonalFR with partial compression: (P_enc + P_dec)/(mean over members of
// the words sent), for the numbers of items of a round's members.
func (c Cost) Ratio(items []int) float64 {
	var words float64
	for _, n := range items {
		words += float64(c.Words("decoder", n, true))
	}
	return float64(c.Encoder+c.Decoder) * float64(len(items)) / words
}

// ReferenceRatio is the authors' figure for it, 2/ρ with ρ = (words sent by all)/(|A|·P_dec): it takes the encoder to be as large as
// the decoder.
func (c Cost) ReferenceRatio(items []int) float64 {
	var words float64
	for _, n := range items {
		words += float64(c.Words("decoder", n, true))
	}
	return 2 * float64(len(items)) * float64(c.Decoder) / words
}

// Work is what training on one user in one step costs, in multiply-accumulate operations.
type Work struct{ Forward, Backward int64 }

// Work counts a user with so many ratings: forward 512n + 65,536 for widths 256, 128; backward twice that without the gradient of the
// input, 256n. Dense computation is that of a user who has rated everything.
func (c Cost) Work(ratings int) Work {
	forward := int64(2*c.Column)*int64(ratings) + int64(c.Between)
	return Work{Forward: forward, Backward: 2*forward - int64(c.Column)*int64(ratings)}
}

// Updates is how many numbers an optimiser's step changes where a member has so many items, all of them if dense.
func (c Cost) Updates(items int) int { return c.Words("all", items, true) }
