package psi

import (
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/cohort-learning/cohort/parallel"
	"github.com/gtank/ristretto255"
)

// PointSize is the size of a [Point].
const PointSize = 32

// Point is a point of ristretto255 in its one encoding (RFC 9496, section 4.3.2).
type Point [PointSize]byte

func pointOf(e *ristretto255.Element) (p Point) {
	e.Encode(p[:0])
	return p
}

// element returns the point; bytes that encode none, an encoding that is not the canonical one, and the identity, which is
// nobody's identifier and would be the same under every key, are refused.
func (p Point) element() (*ristretto255.Element, error) {
	if p == (Point{}) {
		return nil, errors.New("it is the identity, which no identifier is mapped to")
	}
	e := ristretto255.NewElement()
	if err := e.Decode(p[:]); err != nil {
		return nil, errors.New("the bytes are no point of ristretto255 in its canonical encoding")
	}
	return e, nil
}

// String returns the point in base64, short enough for a key.
func (p Point) String() string { return base64.RawURLEncoding.EncodeToString(p[:]) }

const version = 1

// AppendPoints appends the message of a list of points: a version, their number, the points.
func AppendPoints(b []byte, points []Point) []byte {
	b = append(b, version)
	b = binary.LittleEndian.AppendUint64(b, uint64(len(points)))
	for i := range points {
		b = append(b, points[i][:]...)
	}
	return b
}

// ReadPoints reads what [AppendPoints] wrote, and returns what follows it. Each point is checked.
func ReadPoints(b []byte) (points []Point, rest []byte, err error) {
	switch {
	case len(b) < 9:
		return nil, nil, fmt.Errorf("psi: a list of points is cut off after %d bytes", len(b))
	case b[0] != version:
		return nil, nil, fmt.Errorf("psi: a list of points of version %d; this program knows version %d", b[0], version)
	}
	n := binary.LittleEndian.Uint64(b[1:9])
	b = b[9:]
	switch {
	case n > MostIDs:
		return nil, nil, fmt.Errorf("psi: a list claims %d points, at most %d can be compared at a time", n, MostIDs)
	case uint64(len(b)) < n*PointSize:
		return nil, nil, fmt.Errorf("psi: a list claims %d points and has %d bytes", n, len(b))
	}
	points = make([]Point, n)
	for i := range points {
		copy(points[i][:], b[i*PointSize:])
	}
	err = parallel.Try(len(points), 0, func(i int) error {
		if _, err := points[i].element(); err != nil {
			return fmt.Errorf("psi: point %d: %w", i, err)
		}
		return nil
	})
	return points, b[n*PointSize:], err
}

// MarshalBinary implements [encoding.BinaryMarshaler].
func (r Reply) MarshalBinary() ([]byte, error) {
	return AppendPoints(AppendPoints(nil, r.Again), r.Own), nil
}

// UnmarshalBinary implements [encoding.BinaryUnmarshaler]; it refuses everything that no responder can have sent.
func (r *Reply) UnmarshalBinary(b []byte) error {
	again, rest, err := ReadPoints(b)
	if err != nil {
		return err
	}
	own, rest, err := ReadPoints(rest)
	if err != nil {
		return err
	}
	if len(rest) > 0 {
		return fmt.Errorf("psi: %d bytes after a reply", len(rest))
	}
	*r = Reply{again, own}
	return nil
}
