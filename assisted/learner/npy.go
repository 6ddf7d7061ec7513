package learner

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"regexp"
	"strconv"
	"strings"

	"gonum.org/v1/gonum/mat"
)

// Arrays travel to programs and back in NumPy's format, https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html:
// magic, version, length of the head, the head as a Python dictionary, elements.

// maxArrayHead bounds everything before the elements.
const maxArrayHead = 64 << 10

const arrayMagic = "\x93NUMPY"

// writeArray writes m as float64 by rows; a vector has one dimension.
func writeArray(path string, m mat.Matrix) (err error) {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	n, d := m.Dims()
	shape := fmt.Sprintf("(%d, %d)", n, d)
	if _, vector := m.(mat.Vector); vector {
		shape = fmt.Sprintf("(%d,)", n)
	}
	head := fmt.Sprintf("{'descr': '<f8', 'fortran_order': False, 'shape': %s, }", shape)
	const before = len(arrayMagic) + 4 // and two bytes each of version and length
	head += strings.Repeat(" ", 63-(before+len(head))%64) + "\n"
	w := bufio.NewWriter(f)
	_, _ = w.WriteString(arrayMagic + "\x01\x00") // what goes wrong is told by Flush
	_, _ = w.Write(binary.LittleEndian.AppendUint16(nil, uint16(len(head))))
	_, _ = w.WriteString(head)
	var b [8]byte
	for i := range n {
		for j := range d {
			binary.LittleEndian.PutUint64(b[:], math.Float64bits(m.At(i, j)))
			_, _ = w.Write(b[:])
		}
	}
	return w.Flush()
}

var arrayHead = regexp.MustCompile(`^\{'descr': '([^']*)', 'fortran_order': (True|False), 'shape': \(([0-9, ]*)\), ?\}\s*$`)

// readArray reads an n×k array of float64 or float32, in either order; for k = 1 it may have one dimension.
func readArray(r io.Reader, size int64, n, k int) (*mat.Dense, error) {
	in := bufio.NewReader(io.LimitReader(r, size))
	start := make([]byte, len(arrayMagic)+2)
	if _, err := io.ReadFull(in, start); err != nil || string(start[:len(arrayMagic)]) != arrayMagic {
		return nil, errors.New("not an array as numpy.save writes it")
	}
	var length int
	switch version := start[len(arrayMagic)]; version {
	case 1:
		var v uint16
		if err := binary.Read(in, binary.LittleEndian, &v); err != nil {
			return nil, errShort
		}
		length = int(v)
	case 2, 3:
		var v uint32
		if err := binary.Read(in, binary.LittleEndian, &v); err != nil {
			return nil, errShort
		}
		length = int(min(v, maxArrayHead))
	default:
		return nil, fmt.Errorf("an array of format %d, expected 1 to 3", version)
	}
	head := make([]byte, min(length, maxArrayHead))
	if _, err := io.ReadFull(in, head); err != nil {
		return nil, errShort
	}
	part := arrayHead.FindStringSubmatch(string(head))
	if part == nil {
		return nil, fmt.Errorf("an array with the head %.200q, which is not understood", head)
	}
	if err := checkArrayShape(part[3], n, k); err != nil {
		return nil, err
	}
	var width int
	switch part[1] {
	case "<f8":
		width = 8
	case "<f4":
		width = 4
	default:
		return nil, fmt.Errorf("an array of type %.20q, expected float64 or float32, little-endian", part[1])
	}
	raw := make([]byte, n*k*width)
	if _, err := io.ReadFull(in, raw); err != nil {
		return nil, errShort
	}
	out := mat.NewDense(n, k, nil)
	for at := range n * k {
		v := 0.0
		if width == 8 {
			v = math.Float64frombits(binary.LittleEndian.Uint64(raw[at*8:]))
		} else {
			v = float64(math.Float32frombits(binary.LittleEndian.Uint32(raw[at*4:])))
		}
		if part[2] == "True" {
			out.Set(at%n, at/n, v)
		} else {
			out.Set(at/k, at%k, v)
		}
	}
	return out, nil
}

func checkArrayShape(shape string, n, k int) error {
	var dims []int
	for _, s := range strings.FieldsFunc(shape, func(r rune) bool { return r == ',' || r == ' ' }) {
		v, err := strconv.Atoi(s)
		if err != nil {
			return fmt.Errorf("an array of shape (%.40s)", shape)
		}
		dims = append(dims, v)
	}
	if len(dims) == 2 && dims[0] == n && dims[1] == k || k == 1 && len(dims) == 1 && dims[0] == n {
		return nil
	}
	return fmt.Errorf("an array of shape (%.40s), expected (%d, %d)", shape, n, k)
}
