package personalfr

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math/bits"
	"slices"
)

// How a list of items is packed: the first byte says in which form, and the shorter one is taken.
const (
	asList = 'l' // 4 bytes an item, ascending, little-endian
	asBits = 'b' // a bit an item of all, the lowest of a byte first
)

// IndexBytes is what telling n of so many items costs: min(4n, ⌈items/8⌉) bytes, beside one for the form.
func IndexBytes(n, items int) int { return min(4*n, (items+7)/8) }

// packItems packs an ascending list.
func packItems(list []int32, items int) []byte {
	if 4*len(list) <= (items+7)/8 {
		b := make([]byte, 1, 1+4*len(list))
		b[0] = asList
		for _, i := range list {
			b = binary.LittleEndian.AppendUint32(b, uint32(i))
		}
		return b
	}
	b := make([]byte, 1+(items+7)/8)
	b[0] = asBits
	for _, i := range list {
		b[1+i/8] |= 1 << (i % 8)
	}
	return b
}

// unpackItems is the inverse. The bytes may be anybody's.
func unpackItems(b []byte, items int) ([]int32, error) {
	if len(b) == 0 {
		return nil, errors.New("an empty list of items")
	}
	form, b := b[0], b[1:]
	var list []int32
	switch form {
	case asList:
		if len(b)%4 != 0 || len(b)/4 > items {
			return nil, fmt.Errorf("a list of items of %d bytes", len(b))
		}
		for ; len(b) > 0; b = b[4:] {
			i := binary.LittleEndian.Uint32(b)
			if uint64(i) >= uint64(items) || len(list) > 0 && int32(i) <= list[len(list)-1] {
				return nil, fmt.Errorf("item %d of %d in a list that should ascend", i, items)
			}
			list = append(list, int32(i))
		}
	case asBits:
		if len(b) != (items+7)/8 {
			return nil, fmt.Errorf("%d bytes of bits for %d items", len(b), items)
		}
		for k, x := range b {
			for ; x != 0; x &= x - 1 {
				i := 8*k + bits.TrailingZeros8(x)
				if i >= items {
					return nil, fmt.Errorf("item %d of %d", i, items)
				}
				list = append(list, int32(i))
			}
		}
	default:
		return nil, fmt.Errorf("a list of items in the form %q", form)
	}
	if len(list) == 0 {
		return nil, errors.New("a list without items")
	}
	return slices.Clip(list), nil
}
