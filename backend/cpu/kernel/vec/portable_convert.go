package vec

import "math"

// Conversions in plain Go.

func i32ToF32Portable(dst []float32, a []int32) {
	a = a[:len(dst)]
	for i := range dst {
		dst[i] = float32(a[i])
	}
}

func f32ToI32Portable(dst []int32, a []float32) {
	a = a[:len(dst)]
	for i := range dst {
		switch x := a[i]; {
		case x >= 0x1p31:
			dst[i] = math.MaxInt32
		case x < -0x1p31:
			dst[i] = math.MinInt32
		case x == x:
			dst[i] = int32(x)
		default:
			dst[i] = 0
		}
	}
}

func f64ToF32Portable(dst []float32, a []float64) {
	a = a[:len(dst)]
	for i := range dst {
		dst[i] = float32(a[i])
	}
}

func f32ToF64Portable(dst []float64, a []float32) {
	a = a[:len(dst)]
	for i := range dst {
		dst[i] = float64(a[i])
	}
}

func boolToF32Portable(dst []float32, a []bool) {
	a = a[:len(dst)]
	for i := range dst {
		if a[i] {
			dst[i] = 1
		} else {
			dst[i] = 0
		}
	}
}

func f32ToBoolPortable(dst []bool, a []float32) {
	a = a[:len(dst)]
	for i := range dst {
		dst[i] = a[i] != 0
	}
}

func bf16ToF32Portable(dst []float32, a []uint16) {
	a = a[:len(dst)]
	for i := range dst {
		dst[i] = math.Float32frombits(uint32(a[i]) << 16)
	}
}

func f32ToBF16Portable(dst []uint16, a []float32) {
	a = a[:len(dst)]
	for i := range dst {
		b := math.Float32bits(a[i])
		if a[i] != a[i] {
			dst[i] = uint16(b>>16) | 1<<6
			continue
		}
		dst[i] = uint16((b + 0x7fff + b>>16&1) >> 16)
	}
}

func f16ToF32Portable(dst []float32, a []uint16) {
	a = a[:len(dst)]
	for i := range dst {
		dst[i] = fromF16(a[i])
	}
}

func f32ToF16Portable(dst []uint16, a []float32) {
	a = a[:len(dst)]
	for i := range dst {
		dst[i] = toF16(a[i])
	}
}

// fromF16 decodes IEEE binary16: moving the magnitude to float32 position leaves the exponent
// too small by 112, which a product with 2¹¹² repairs exactly, denormals included.
func fromF16(h uint16) float32 {
	mag := uint32(h&0x7fff) << 13
	s := uint32(h&0x8000) << 16
	if h&0x7c00 == 0x7c00 {
		quiet := uint32(0)
		if h&0x3ff != 0 {
			quiet = 1 << 22
		}
		return math.Float32frombits(s | mag | 0x7f800000 | quiet)
	}
	return math.Float32frombits(s | math.Float32bits(math.Float32frombits(mag)*0x1p112))
}

// toF16 encodes IEEE binary16, ties to even.
func toF16(x float32) uint16 {
	b := math.Float32bits(x)
	s := uint16(b >> 16 & 0x8000)
	mag := b &^ signBit
	switch {
	case mag > 0x7f800000: // NaN: keep the leading payload, quiet
		return s | 0x7e00 | uint16(mag>>13&0x3ff)
	case mag >= 0x477ff000: // rounds to 2¹⁶ or more
		return s | 0x7c00
	case mag < 0x38800000: // denormal: adding 2⁻¹ leaves units of 2⁻²⁴ in the low bits
		return s | uint16(math.Float32bits(math.Float32frombits(mag)+0.5)-math.Float32bits(0.5))
	}
	mag += 0xfff + mag>>13&1
	return s | uint16((mag-112<<23)>>13)
}
