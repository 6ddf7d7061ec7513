package dataset

import (
	"fmt"

	"github.com/cohort-learning/cohort/dataset/internal/unpickle"
)

// readCIFARPython reads a batch of CIFAR's python version: a pickled dictionary with "data", an n×3072 array of bytes
// (three colour planes a row), and "labels" or "fine_labels", a list of n integers.
func readCIFARPython(s *source, classes int) (cifarBatch, error) {
	raw, err := s.rest(1 << 29)
	if err != nil {
		return cifarBatch{}, err
	}
	fail := func(format string, args ...any) (cifarBatch, error) {
		return cifarBatch{}, fmt.Errorf("%s: %w", s.name, fmt.Errorf(format, args...))
	}
	value, err := unpickle.Decode(raw)
	if err != nil {
		return fail("not a readable pickle: %w", err)
	}
	dict, ok := value.(*unpickle.Dict)
	if !ok {
		return fail("the pickle holds a %T, not a dictionary", value)
	}
	key := "labels"
	if classes == 100 {
		key = "fine_labels"
	}
	data, labels := field[*unpickle.Array](dict, "data"), field[*unpickle.List](dict, key)
	if data == nil || labels == nil || data.Type != "u1" {
		return fail("the pickle has no byte array data and list %s, but %q", key, dict.Keys)
	}
	n := len(labels.Items)
	if n == 0 || len(data.Data) != n*cifarPixels {
		return fail("%d bytes of pixels for %d labels, expected %d a label", len(data.Data), n, cifarPixels)
	}
	var b cifarBatch
	for i, item := range labels.Items {
		label, ok := item.(int64)
		if !ok || label < 0 || label >= int64(classes) {
			return fail("label %d is %v, outside 0..%d", i, item, classes-1)
		}
		b.add(int32(label), data.Data[i*cifarPixels:(i+1)*cifarPixels])
	}
	return b, nil
}

// field returns a value of the dictionary, or zero if it is missing or of another type.
func field[T any](d *unpickle.Dict, key string) T {
	v, _ := d.Get(key)
	t, _ := v.(T)
	return t
}
