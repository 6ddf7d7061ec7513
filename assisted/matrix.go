package assisted

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"

	"github.com/cohort-learning/cohort/weights"
	"gonum.org/v1/gonum/mat"
)

// matrixMagic begins the binary form of a matrix.
const matrixMagic = "cmx1"

const matrixHeader = len(matrixMagic) + 16

// AppendMatrix appends the binary form of x to b: "cmx1", rows and columns as 64-bit words, then the values row by row as
// IEEE 754 double precision; all little endian.
func AppendMatrix(b []byte, x *mat.Dense) []byte {
	rows, columns := x.Dims()
	b = append(b, matrixMagic...)
	b = binary.LittleEndian.AppendUint64(b, uint64(rows))
	b = binary.LittleEndian.AppendUint64(b, uint64(columns))
	for i := range rows {
		for _, v := range x.RawRowView(i) {
			b = binary.LittleEndian.AppendUint64(b, math.Float64bits(v))
		}
	}
	return b
}

// ReadMatrix reads what [AppendMatrix] wrote, and nothing else. Values may be NaN or infinite.
func ReadMatrix(b []byte) (*mat.Dense, error) {
	x, rest, err := cutMatrix(b)
	if err == nil && len(rest) > 0 {
		err = fmt.Errorf("%d bytes follow the matrix", len(rest))
	}
	if err != nil {
		return nil, err
	}
	return x, nil
}

// ReadMatrices reads one matrix or several that [AppendMatrix] wrote, one after the other.
func ReadMatrices(b []byte) (all []*mat.Dense, err error) {
	for len(all) == 0 || len(b) > 0 {
		var x *mat.Dense
		if x, b, err = cutMatrix(b); err != nil {
			return nil, err
		}
		all = append(all, x)
	}
	return all, nil
}

// cutMatrix reads a matrix, and returns what follows it.
func cutMatrix(b []byte) (*mat.Dense, []byte, error) {
	if len(b) < matrixHeader || string(b[:len(matrixMagic)]) != matrixMagic {
		return nil, nil, errors.New("no matrix: the header is missing")
	}
	rows := binary.LittleEndian.Uint64(b[len(matrixMagic):])
	columns := binary.LittleEndian.Uint64(b[len(matrixMagic)+8:])
	body := b[matrixHeader:]
	most := uint64(len(body) / 8)
	if rows == 0 || columns == 0 || rows > most || columns > most/rows {
		return nil, nil, fmt.Errorf("a matrix of %d×%d in %d bytes", rows, columns, len(body))
	}
	v := make([]float64, rows*columns)
	for i := range v {
		v[i] = math.Float64frombits(binary.LittleEndian.Uint64(body[8*i:]))
	}
	return mat.NewDense(int(rows), int(columns), v), body[8*len(v):], nil
}

// setOf returns a matrix as the only tensor of a set.
func setOf(name string, x *mat.Dense) weights.Set {
	s := weights.NewSet(1)
	rows, columns := x.Dims()
	s.Put(name, weights.Of64(values(x), rows, columns))
	return s
}

// matrixIn returns the tensor of that name as a matrix, which shares its values.
func matrixIn(s weights.Set, name string) (*mat.Dense, error) {
	t, ok := s.Get(name)
	if !ok {
		return nil, fmt.Errorf("there is no matrix %q", name)
	}
	if t.F64 == nil || len(t.Shape) != 2 || t.Shape[0] < 1 || t.Shape[1] < 1 {
		return nil, fmt.Errorf("%q is no matrix of float64: its shape is %v", name, t.Shape)
	}
	return mat.NewDense(t.Shape[0], t.Shape[1], t.F64), nil
}

// values returns the values of a matrix row by row, without gaps between rows.
func values(x *mat.Dense) []float64 {
	raw := x.RawMatrix()
	if raw.Stride == raw.Cols {
		return raw.Data[:raw.Rows*raw.Cols]
	}
	return mat.DenseCopyOf(x).RawMatrix().Data
}

// between returns rows from ≤ i < to of x, which share its values; nil if there are none.
func between(x *mat.Dense, from, to int) *mat.Dense {
	if from == to {
		return nil
	}
	_, columns := x.Dims()
	return x.Slice(from, to, 0, columns).(*mat.Dense)
}

// Pick returns some rows of x, as a matrix of its own; there is at least one.
func Pick(x *mat.Dense, rows []int) *mat.Dense {
	_, columns := x.Dims()
	out := mat.NewDense(len(rows), columns, nil)
	for i, row := range rows {
		out.SetRow(i, x.RawRowView(row))
	}
	return out
}

// finite returns an error that names the first value that is NaN or infinite.
func finite(x *mat.Dense) error {
	rows, _ := x.Dims()
	for i := range rows {
		for j, v := range x.RawRowView(i) {
			if math.IsNaN(v) || math.IsInf(v, 0) {
				return fmt.Errorf("row %d, column %d is %v", i, j, v)
			}
		}
	}
	return nil
}
