// Package augment changes images strongly, for consistency training: RandAugment (Cubuk et al., arXiv 1909.13719) with the
// operations and the always greatest magnitudes of FixMatch and SemiFL (Diao, Ding, Tarokh, arXiv 2106.01432, section 4).
//
//	p := augment.Default()
//	p.Apply(im, stream) // im changes in place
//
// An image is changed by a number of operations, drawn uniformly with replacement from a pool; an operation that was drawn is
// applied with a probability that is itself drawn from U(0.2, 0.8), so with ½ on average. Only signs and the place of the cutout
// are random beside.
//
// Operations work on bytes and give what the Python Imaging Library gives, to the byte: arithmetic is truncated where it
// truncates. Images have any number of channels; with other than three, saturation leaves them as they are.
package augment

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/cohort-learning/cohort/rng"
)

// Image is one image: Pix[(y·Width+x)·Channels+c], as [dataset.Examples] stores it.
type Image struct {
	Height, Width, Channels int
	Pix                     []uint8
}

// Policy is what may happen to an image. Fields that are zero, but Draws, are those of [Default] or [Small]: see [Policy.For].
type Policy struct {
	Draws     int      `yaml:"draws" doc:"Operations drawn for an image; each is applied with probability a half."`
	Ops       []string `yaml:"ops,omitempty" doc:"Operations to draw from; none given: all for colour images, those that invert nothing for grey ones."`
	Factor    float64  `yaml:"factor,omitempty" doc:"brightness, color, contrast, sharpness: 1 changes nothing; 0 means 1.9."`
	Cutout    int      `yaml:"cutout,omitempty" doc:"cutout: side of the grey square, in pixels; 0 means 40 for colour images, 14 for grey ones."`
	Translate int      `yaml:"translate,omitempty" doc:"translate-x, translate-y: pixels; 0 means 10 for colour images, 4 for grey ones."`
	Rotate    float64  `yaml:"rotate,omitempty" doc:"rotate: degrees; 0 means 30."`
	Shear     float64  `yaml:"shear,omitempty" doc:"shear-x, shear-y: pixels a pixel; 0 means 0.3."`
	Posterize int      `yaml:"posterize,omitempty" doc:"posterize: bits that are kept; 0 means 4."`
	Solarize  int      `yaml:"solarize,omitempty" doc:"solarize: least value that is inverted."`
}

// For returns the policy with what is zero filled in for images of so many channels: from [Default] for three, else from [Small].
func (p Policy) For(channels int) Policy {
	d := Small()
	if channels == 3 {
		d = Default()
	}
	if len(p.Ops) == 0 {
		p.Ops = d.Ops
	}
	p.Factor, p.Cutout, p.Translate = cmp.Or(p.Factor, d.Factor), cmp.Or(p.Cutout, d.Cutout), cmp.Or(p.Translate, d.Translate)
	p.Rotate, p.Shear, p.Posterize = cmp.Or(p.Rotate, d.Rotate), cmp.Or(p.Shear, d.Shear), cmp.Or(p.Posterize, d.Posterize)
	return p
}

// Default returns the policy of the paper, for colour images of 32×32 pixels: two of all operations.
func Default() Policy {
	return Policy{Draws: 2, Ops: Ops(), Factor: 1.9, Cutout: 40, Translate: 10, Rotate: 30, Shear: 0.3, Posterize: 4}
}

// Small returns a gentler policy for grey images of about 28×28 pixels: no operation that inverts, and smaller squares and moves.
func Small() Policy {
	p := Default()
	p.Cutout, p.Translate = 14, 4
	p.Ops = []string{"autocontrast", "brightness", "contrast", "cutout", "posterize", "rotate", "sharpness", "shear-x", "shear-y",
		"translate-x", "translate-y"}
	return p
}

// operation is one entry of the pool.
type operation struct {
	name   string
	value  func(Policy) float64 // nil: it has none
	signed bool                 // the value is negative half of the time
	do     func(im Image, v float64, r *rng.Stream)
}

func factor(p Policy) float64 { return p.Factor }

// operations lists the pool in the order in which it is drawn from.
var operations = []operation{
	{"autocontrast", nil, false, autoContrast},
	{"brightness", factor, false, brightness},
	{"color", factor, false, saturation},
	{"contrast", factor, false, contrast},
	{"cutout", func(p Policy) float64 { return float64(p.Cutout) }, false, cutout},
	{"equalize", nil, false, equalize},
	{"invert", nil, false, invert},
	{"posterize", func(p Policy) float64 { return float64(p.Posterize) }, false, posterize},
	{"rotate", func(p Policy) float64 { return p.Rotate }, true, rotate},
	{"sharpness", factor, false, sharpness},
	{"shear-x", func(p Policy) float64 { return p.Shear }, true, shearX},
	{"shear-y", func(p Policy) float64 { return p.Shear }, true, shearY},
	{"solarize", func(p Policy) float64 { return float64(p.Solarize) }, false, solarize},
	{"translate-x", func(p Policy) float64 { return float64(p.Translate) }, true, translateX},
	{"translate-y", func(p Policy) float64 { return float64(p.Translate) }, true, translateY},
}

// Ops returns the names of all operations.
func Ops() []string {
	names := make([]string, len(operations))
	for i, o := range operations {
		names[i] = o.name
	}
	return names
}

// Validate returns an error that begins with the field that cannot be.
func (p Policy) Validate() error {
	switch {
	case p.Draws < 0:
		return fmt.Errorf("draws: %d, expected 0 or more", p.Draws)
	case !(p.Factor >= 0 && p.Factor <= 100):
		return fmt.Errorf("factor: %g, expected a number from 0 to 100", p.Factor)
	case p.Cutout < 0:
		return fmt.Errorf("cutout: %d, expected 0 or more pixels", p.Cutout)
	case p.Translate < 0:
		return fmt.Errorf("translate: %d, expected 0 or more pixels", p.Translate)
	case !(p.Rotate >= 0 && p.Rotate <= 360):
		return fmt.Errorf("rotate: %g, expected 0 to 360 degrees", p.Rotate)
	case !(p.Shear >= 0 && p.Shear <= 10):
		return fmt.Errorf("shear: %g, expected a number from 0 to 10", p.Shear)
	case p.Posterize < 0 || p.Posterize > 8:
		return fmt.Errorf("posterize: %d, expected 0 to 8 bits", p.Posterize)
	case p.Solarize < 0 || p.Solarize > 256:
		return fmt.Errorf("solarize: %d, expected a value from 0 to 256", p.Solarize)
	}
	for _, name := range p.Ops {
		if !slices.Contains(Ops(), name) {
			return fmt.Errorf("ops: there is no operation %q; the operations are %s", name, strings.Join(Ops(), ", "))
		}
	}
	return nil
}

// Apply changes an image. All that is random comes from r, so that the same stream gives the same image. The policy must be
// valid and complete, and the image not empty.
func (p Policy) Apply(im Image, r *rng.Stream) {
	for range p.Draws {
		o := find(p.Ops[r.IntN(len(p.Ops))])
		if prob := r.Uniform(0.2, 0.8); r.Float64()+prob < 1 {
			continue
		}
		var v float64
		if o.value != nil {
			v = o.value(p)
		}
		if o.signed && r.IntN(2) == 1 {
			v = -v
		}
		o.do(im, v, r)
	}
}

// Do applies one operation with a value that is given instead of drawn: a factor, pixels, degrees, bits …, with its sign. Only
// cutout draws, and needs r for its place.
func Do(name string, im Image, v float64, r *rng.Stream) { find(name).do(im, v, r) }

func find(name string) operation {
	for _, o := range operations {
		if o.name == name {
			return o
		}
	}
	panic(fmt.Sprintf("augment: no operation %q", name))
}
