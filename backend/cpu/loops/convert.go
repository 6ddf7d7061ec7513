package loops

import (
	"unsafe"

	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/dtypes/bfloat16"
	"github.com/gomlx/compute/dtypes/float16"
)

// Convert returns the kernel that converts elements of type from to type to,
// or nil if one of them is unknown. Numbers convert as in Go, to Bool by
// comparison with zero, from Bool to 0 and 1. Conversions between a
// half-precision type and anything but Float32 are nil: go through Float32.
func Convert(from, to dtypes.DType) Kernel {
	if from == to {
		return Copy(Size(from))
	}
	switch {
	case from == dtypes.BFloat16 && to == dtypes.Float32:
		return fromBF16
	case from == dtypes.Float16 && to == dtypes.Float32:
		return fromF16
	case from == dtypes.Float32 && to == dtypes.BFloat16:
		return toBF16
	case from == dtypes.Float32 && to == dtypes.Float16:
		return toF16
	case to == dtypes.Bool:
		return perNumber[Kernel](from, toBool[int8], toBool[int16], toBool[int32], toBool[int64],
			toBool[uint8], toBool[uint16], toBool[uint32], toBool[uint64], toBool[float32], toBool[float64])
	case from == dtypes.Bool:
		from = dtypes.Uint8
		if to == from {
			return Copy(1)
		}
	}
	pick := perNumber(from, convertFrom[int8], convertFrom[int16], convertFrom[int32], convertFrom[int64],
		convertFrom[uint8], convertFrom[uint16], convertFrom[uint32], convertFrom[uint64],
		convertFrom[float32], convertFrom[float64])
	if pick == nil {
		return nil
	}
	return pick(to)
}

func convertFrom[S number](to dtypes.DType) Kernel {
	return perNumber[Kernel](to, convert[S, int8], convert[S, int16], convert[S, int32], convert[S, int64],
		convert[S, uint8], convert[S, uint16], convert[S, uint32], convert[S, uint64],
		convert[S, float32], convert[S, float64])
}

func convert[S, D number](dst, a, _, _ unsafe.Pointer, n int) {
	d, x := Slice[D](dst, n), Slice[S](a, n)
	for i, v := range x {
		d[i] = D(v)
	}
}

func toBool[S number](dst, a, _, _ unsafe.Pointer, n int) {
	d, x := Slice[bool](dst, n), Slice[S](a, n)
	for i, v := range x {
		d[i] = v != 0
	}
}

func fromBF16(dst, a, _, _ unsafe.Pointer, n int) {
	d, x := Slice[float32](dst, n), Slice[bfloat16.BFloat16](a, n)
	for i, v := range x {
		d[i] = v.Float32()
	}
}

func fromF16(dst, a, _, _ unsafe.Pointer, n int) {
	d, x := Slice[float32](dst, n), Slice[float16.Float16](a, n)
	for i, v := range x {
		d[i] = v.Float32()
	}
}

func toBF16(dst, a, _, _ unsafe.Pointer, n int) {
	d, x := Slice[bfloat16.BFloat16](dst, n), Slice[float32](a, n)
	for i, v := range x {
		d[i] = bfloat16.FromFloat32(v)
	}
}

func toF16(dst, a, _, _ unsafe.Pointer, n int) {
	d, x := Slice[float16.Float16](dst, n), Slice[float32](a, n)
	for i, v := range x {
		d[i] = float16.FromFloat32(v)
	}
}

// Unpack widens n packed integers (Int2, Uint2, Int4, Uint4; lowest bits
// first) at src into one int8 or uint8 each.
func Unpack(dst, src unsafe.Pointer, dt dtypes.DType, n int) {
	width := dt.Bits()
	per := 8 / width
	isSigned := !dt.IsUnsigned()
	d, s := Slice[uint8](dst, n), Slice[uint8](src, (n+per-1)/per)
	for i := range d {
		v := s[i/per] >> (i % per * width) << (8 - width)
		if isSigned {
			d[i] = uint8(int8(v) >> (8 - width))
		} else {
			d[i] = v >> (8 - width)
		}
	}
}

// Pack is the inverse of Unpack and keeps the low bits of each element.
func Pack(dst, src unsafe.Pointer, dt dtypes.DType, n int) {
	width := dt.Bits()
	per := 8 / width
	d, s := Slice[uint8](dst, (n+per-1)/per), Slice[uint8](src, n)
	clear(d)
	for i, v := range s {
		d[i/per] |= v & (1<<width - 1) << (i % per * width)
	}
}
