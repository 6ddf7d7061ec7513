package vec

import "math"

// The element-wise functions in plain Go: the path that runs everywhere, and the reference for the
// others. The elementary functions are in portable_math.go.

var portable = Funcs{
	Path: Portable,

	Add: addPortable,
	Sub: subPortable,
	Mul: mulPortable,
	Div: divPortable,
	Max: maxPortable,
	Min: minPortable,
	Pow: powPortable,

	AddS:  addSPortable,
	SubS:  subSPortable,
	RSubS: rsubSPortable,
	MulS:  mulSPortable,
	DivS:  divSPortable,
	RDivS: rdivSPortable,
	MaxS:  maxSPortable,
	MinS:  minSPortable,
	PowS:  powSPortable,
	RPowS: rpowSPortable,

	FMA:   fmaPortable,
	FMAS:  fmaSPortable,
	FMASS: fmaSSPortable,

	Neg:   negPortable,
	Abs:   absPortable,
	Sign:  signPortable,
	Sqrt:  sqrtPortable,
	Rsqrt: rsqrtPortable,
	Floor: floorPortable,
	Ceil:  ceilPortable,
	Round: roundPortable,

	Exp:      expPortable,
	Expm1:    expm1Portable,
	Log:      logPortable,
	Log1p:    log1pPortable,
	Tanh:     tanhPortable,
	Logistic: logisticPortable,
	Erf:      erfPortable,
	Sin:      sinPortable,
	Cos:      cosPortable,

	Relu:     reluPortable,
	ReluGrad: reluGradPortable,

	Eq: eqPortable,
	Ne: nePortable,
	Lt: ltPortable,
	Le: lePortable,
	Gt: gtPortable,
	Ge: gePortable,

	EqS: eqSPortable,
	NeS: neSPortable,
	LtS: ltSPortable,
	LeS: leSPortable,
	GtS: gtSPortable,
	GeS: geSPortable,

	Select:   selectPortable,
	SelectVS: selectVSPortable,
	SelectSV: selectSVPortable,

	And: andPortable,
	Or:  orPortable,
	Xor: xorPortable,
	Not: notPortable,

	I32ToF32:  i32ToF32Portable,
	F32ToI32:  f32ToI32Portable,
	F64ToF32:  f64ToF32Portable,
	F32ToF64:  f32ToF64Portable,
	BoolToF32: boolToF32Portable,
	F32ToBool: f32ToBoolPortable,
	BF16ToF32: bf16ToF32Portable,
	F32ToBF16: f32ToBF16Portable,
	F16ToF32:  f16ToF32Portable,
	F32ToF16:  f32ToF16Portable,

	Sum:           sumPortable,
	Prod:          prodPortable,
	MaxOf:         maxOfPortable,
	MinOf:         minOfPortable,
	SumSq:         sumSqPortable,
	Dot:           dotPortable,
	SumSqDiff:     sumSqDiffPortable,
	SumExpSub:     sumExpSubPortable,
	ExpSubSum:     expSubSumPortable,
	SumRows:       sumRowsPortable,
	SumMulRows:    sumMulRowsPortable,
	SumSqDiffRows: sumSqDiffRowsPortable,
}

func addPortable(dst, a, b []float32) {
	a, b = a[:len(dst)], b[:len(dst)]
	for i := range dst {
		dst[i] = a[i] + b[i]
	}
}

func subPortable(dst, a, b []float32) {
	a, b = a[:len(dst)], b[:len(dst)]
	for i := range dst {
		dst[i] = a[i] - b[i]
	}
}

func mulPortable(dst, a, b []float32) {
	a, b = a[:len(dst)], b[:len(dst)]
	for i := range dst {
		dst[i] = a[i] * b[i]
	}
}

func divPortable(dst, a, b []float32) {
	a, b = a[:len(dst)], b[:len(dst)]
	for i := range dst {
		dst[i] = a[i] / b[i]
	}
}

func maxPortable(dst, a, b []float32) {
	a, b = a[:len(dst)], b[:len(dst)]
	for i := range dst {
		dst[i] = max(a[i], b[i])
	}
}

func minPortable(dst, a, b []float32) {
	a, b = a[:len(dst)], b[:len(dst)]
	for i := range dst {
		dst[i] = min(a[i], b[i])
	}
}

func powPortable(dst, a, b []float32) {
	a, b = a[:len(dst)], b[:len(dst)]
	for i := range dst {
		dst[i] = pow(a[i], b[i])
	}
}

func addSPortable(dst, a []float32, s float32) {
	a = a[:len(dst)]
	for i := range dst {
		dst[i] = a[i] + s
	}
}

func subSPortable(dst, a []float32, s float32) {
	a = a[:len(dst)]
	for i := range dst {
		dst[i] = a[i] - s
	}
}

func rsubSPortable(dst, a []float32, s float32) {
	a = a[:len(dst)]
	for i := range dst {
		dst[i] = s - a[i]
	}
}

func mulSPortable(dst, a []float32, s float32) {
	a = a[:len(dst)]
	for i := range dst {
		dst[i] = a[i] * s
	}
}

func divSPortable(dst, a []float32, s float32) {
	a = a[:len(dst)]
	for i := range dst {
		dst[i] = a[i] / s
	}
}

func rdivSPortable(dst, a []float32, s float32) {
	a = a[:len(dst)]
	for i := range dst {
		dst[i] = s / a[i]
	}
}

func maxSPortable(dst, a []float32, s float32) {
	a = a[:len(dst)]
	for i := range dst {
		dst[i] = max(a[i], s)
	}
}

func minSPortable(dst, a []float32, s float32) {
	a = a[:len(dst)]
	for i := range dst {
		dst[i] = min(a[i], s)
	}
}

func powSPortable(dst, a []float32, s float32) {
	a = a[:len(dst)]
	for i := range dst {
		dst[i] = pow(a[i], s)
	}
}

func rpowSPortable(dst, a []float32, s float32) {
	a = a[:len(dst)]
	for i := range dst {
		dst[i] = pow(s, a[i])
	}
}

func fmaPortable(dst, a, b, c []float32) {
	a, b, c = a[:len(dst)], b[:len(dst)], c[:len(dst)]
	for i := range dst {
		dst[i] = fma(a[i], b[i], c[i])
	}
}

func fmaSPortable(dst, a []float32, s float32, c []float32) {
	a, c = a[:len(dst)], c[:len(dst)]
	for i := range dst {
		dst[i] = fma(a[i], s, c[i])
	}
}

func fmaSSPortable(dst, a []float32, s, t float32) {
	a = a[:len(dst)]
	for i := range dst {
		dst[i] = fma(a[i], s, t)
	}
}

func reluPortable(dst, a []float32) {
	a = a[:len(dst)]
	for i := range dst {
		if a[i] > 0 {
			dst[i] = a[i]
		} else {
			dst[i] = 0
		}
	}
}

func reluGradPortable(dst, a, b []float32) {
	a, b = a[:len(dst)], b[:len(dst)]
	for i := range dst {
		if a[i] > 0 {
			dst[i] = b[i]
		} else {
			dst[i] = 0
		}
	}
}

func negPortable(dst, a []float32) {
	a = a[:len(dst)]
	for i := range dst {
		dst[i] = math.Float32frombits(math.Float32bits(a[i]) ^ signBit)
	}
}

func absPortable(dst, a []float32) {
	a = a[:len(dst)]
	for i := range dst {
		dst[i] = abs(a[i])
	}
}

func signPortable(dst, a []float32) {
	a = a[:len(dst)]
	for i := range dst {
		dst[i] = sign(a[i])
	}
}

func sqrtPortable(dst, a []float32) {
	a = a[:len(dst)]
	for i := range dst {
		dst[i] = sqrt(a[i])
	}
}

func rsqrtPortable(dst, a []float32) {
	a = a[:len(dst)]
	for i := range dst {
		dst[i] = 1 / sqrt(a[i])
	}
}

func floorPortable(dst, a []float32) {
	a = a[:len(dst)]
	for i := range dst {
		dst[i] = floor(a[i])
	}
}

func ceilPortable(dst, a []float32) {
	a = a[:len(dst)]
	for i := range dst {
		dst[i] = -floor(-a[i])
	}
}

func roundPortable(dst, a []float32) {
	a = a[:len(dst)]
	for i := range dst {
		dst[i] = round(a[i])
	}
}

func expPortable(dst, a []float32) {
	a = a[:len(dst)]
	for i := range dst {
		dst[i] = exp(a[i])
	}
}

func expm1Portable(dst, a []float32) {
	a = a[:len(dst)]
	for i := range dst {
		dst[i] = expm1(a[i])
	}
}

func logPortable(dst, a []float32) {
	a = a[:len(dst)]
	for i := range dst {
		dst[i] = log(a[i])
	}
}

func log1pPortable(dst, a []float32) {
	a = a[:len(dst)]
	for i := range dst {
		dst[i] = log1p(a[i])
	}
}

func tanhPortable(dst, a []float32) {
	a = a[:len(dst)]
	for i := range dst {
		dst[i] = tanh(a[i])
	}
}

func logisticPortable(dst, a []float32) {
	a = a[:len(dst)]
	for i := range dst {
		dst[i] = logistic(a[i])
	}
}

func erfPortable(dst, a []float32) {
	a = a[:len(dst)]
	for i := range dst {
		dst[i] = erf(a[i])
	}
}

func sinPortable(dst, a []float32) {
	a = a[:len(dst)]
	for i := range dst {
		dst[i] = sin(a[i])
	}
}

func cosPortable(dst, a []float32) {
	a = a[:len(dst)]
	for i := range dst {
		dst[i] = cos(a[i])
	}
}
