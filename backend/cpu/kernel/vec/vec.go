// Package vec computes on blocks of float32 values: arithmetic, comparisons, elementary functions,
// conversions and reductions over slices, with vector instructions where the processor has them.
//
// It is the bottom of the CPU engine: the engine cuts tensors into blocks that fit the first-level
// cache and runs a chain of these functions over each block. All functions hang off one table:
//
//	f := vec.For(path)        // vec.Default() chooses the path
//	f.Mul(dst, a, b)          // dst[i] = a[i]·b[i]
//	f.Exp(dst, dst)           // in place
//	s := f.Sum(dst)           // in a fixed order
//
// # Paths
//
// There are four implementations of every function: AVX-512, AVX2 with FMA, NEON, and plain Go. The
// assembly is generated (see the gen folder) from one description per function, and all paths
// perform the same IEEE 754 operations in the same order. They therefore agree bit for bit on
// every input, with two exceptions: the payload and sign of NaNs, and Sin and Cos beyond ±65536,
// which go through float64 and may differ by one unit in the last place between amd64 and arm64.
// A result depends neither on the alignment of a slice, nor on the position of an element in it,
// nor on the length of the block.
//
// # Slices
//
// Element-wise functions write len(dst) elements. Every other slice must be at least as long, or the
// function panics. dst may be the same slice as an operand of the same element type, but must not
// otherwise overlap it. Nothing is allocated, no goroutine is started.
//
// # Accuracy
//
// Add, Sub, Mul, Div, FMA, Sqrt and the conversions are correctly rounded; denormals are honoured.
// The largest errors of the elementary functions, in units in the last place of the float32 result
// against the exact value, over all finite float32 inputs (see [Funcs] for special values):
//
//	Exp 1.1   Expm1 1.6   Log 1.0   Log1p 1.6   Tanh 2.6   Logistic 2.5
//	Erf 1.2   Sin 1.7     Cos 1.7   Pow 2.5     Rsqrt 1.5
//
// # Order of reductions
//
// A reduction splits a slice into blocks of 4096 elements. Inside a block, lane l of 64 takes the
// elements l, l+64, l+128, … in turn; then the lanes are folded in halves (32, 16, …, 1). Block
// results are combined pairwise: a run of blocks is split at the largest power of two below its
// number of blocks. With unit roundoff u = 2⁻²⁴, a sum of n terms has an error of at most
// (71 + log₂⌈n/4096⌉)·u·Σ|term| to first order, the rounding of each term not included.
package vec

//go:generate go run ./gen

// Lanes is the number of interleaved partial results of a reduction.
const Lanes = 64

// ReduceBlock is the number of elements reduced in one run over the lanes.
const ReduceBlock = 4096

// RowBlock is the number of rows that the column reductions add up before they touch dst.
const RowBlock = 512

// Signatures that several functions of [Funcs] share.
type (
	Unary         = func(dst, a []float32)
	Binary        = func(dst, a, b []float32)
	Scalar        = func(dst, a []float32, s float32)
	Compare       = func(dst []bool, a, b []float32)
	CompareScalar = func(dst []bool, a []float32, s float32)
	Reduce        = func(a []float32) float32
)

// Funcs is the table of functions of one path. The formulas are per element: a stands for a[i], s is
// a scalar operand. Unless said otherwise a NaN operand gives a NaN.
type Funcs struct {
	Path Path

	Add Binary // a + b
	Sub Binary // a - b
	Mul Binary // a · b
	Div Binary // a / b
	Max Binary // larger of a and b; NaN if either is NaN; +0 is larger than -0
	Min Binary // smaller of a and b; NaN if either is NaN; -0 is smaller than +0
	// Pow is aᵇ with the special cases of IEEE 754 pow: x⁰ = 1ʸ = 1 even for NaN; (-1)^±Inf = 1; a
	// negative finite a with b not an integer gives NaN; ±0 and ±Inf keep their sign for odd integers b.
	Pow Binary

	AddS  Scalar // a + s
	SubS  Scalar // a - s
	RSubS Scalar // s - a
	MulS  Scalar // a · s
	DivS  Scalar // a / s
	RDivS Scalar // s / a
	MaxS  Scalar // as Max
	MinS  Scalar // as Min
	PowS  Scalar // aˢ, as Pow
	RPowS Scalar // sᵃ, as Pow

	FMA   func(dst, a, b, c []float32)                   // a·b + c, rounded once
	FMAS  func(dst, a []float32, s float32, c []float32) // a·s + c, rounded once
	FMASS func(dst, a []float32, s float32, t float32)   // a·s + t, rounded once

	Neg      Unary // -a (flips the sign bit, also of NaN)
	Abs      Unary // |a| (clears the sign bit, also of NaN)
	Sign     Unary // 1 if a > 0, -1 if a < 0, else a (±0 and NaN)
	Sqrt     Unary // √a; NaN for a < 0; √-0 = -0
	Rsqrt    Unary // 1/√a, both steps rounded; ±Inf for ±0
	Floor    Unary // largest integer ≤ a
	Ceil     Unary // smallest integer ≥ a
	Round    Unary // nearest integer, ties to even
	Exp      Unary // eᵃ; +Inf above 88.7228; denormal results are rounded correctly, 0 below -103.97
	Expm1    Unary // eᵃ - 1; keeps ±0
	Log      Unary // natural logarithm; -Inf for ±0, NaN for a < 0
	Log1p    Unary // log(1 + a); keeps ±0; -Inf for -1, NaN below
	Tanh     Unary // hyperbolic tangent; keeps ±0
	Logistic Unary // 1/(1 + e⁻ᵃ), without overflow or loss on either side
	Erf      Unary // error function; keeps ±0
	Sin      Unary // sine, a in radians; keeps ±0; NaN for ±Inf. Blocks with |a| > 65536 take a slow path
	Cos      Unary // cosine, a in radians; NaN for ±Inf. Blocks with |a| > 65536 take a slow path

	Relu     Unary  // a if a > 0, else +0 (also for NaN)
	ReluGrad Binary // b if a > 0, else +0: the gradient b of the output where the input a was positive

	Eq Compare // a = b; false if either is NaN
	Ne Compare // a ≠ b; true if either is NaN
	Lt Compare // a < b
	Le Compare // a ≤ b
	Gt Compare // a > b
	Ge Compare // a ≥ b

	EqS CompareScalar // a = s
	NeS CompareScalar // a ≠ s
	LtS CompareScalar // a < s
	LeS CompareScalar // a ≤ s
	GtS CompareScalar // a > s
	GeS CompareScalar // a ≥ s

	Select   func(dst []float32, cond []bool, a, b []float32)         // cond ? a : b
	SelectVS func(dst []float32, cond []bool, a []float32, s float32) // cond ? a : s
	SelectSV func(dst []float32, cond []bool, s float32, b []float32) // cond ? s : b

	And func(dst, a, b []bool) // a ∧ b
	Or  func(dst, a, b []bool) // a ∨ b
	Xor func(dst, a, b []bool) // a ≠ b
	Not func(dst, a []bool)    // ¬a

	I32ToF32  func(dst []float32, a []int32)   // nearest, ties to even
	F32ToI32  func(dst []int32, a []float32)   // towards zero, saturating; NaN gives 0
	F64ToF32  func(dst []float32, a []float64) // nearest, ties to even
	F32ToF64  func(dst []float64, a []float32) // exact
	BoolToF32 func(dst []float32, a []bool)    // 1 or 0
	F32ToBool func(dst []bool, a []float32)    // a ≠ 0; true for NaN
	BF16ToF32 func(dst []float32, a []uint16)  // bfloat16 bits, exact
	F32ToBF16 func(dst []uint16, a []float32)  // nearest, ties to even; NaN stays NaN
	F16ToF32  func(dst []float32, a []uint16)  // IEEE binary16 bits, exact
	F32ToF16  func(dst []uint16, a []float32)  // nearest, ties to even; overflow gives ±Inf

	Sum   Reduce                       // Σ a; 0 if empty
	Prod  Reduce                       // Π a; 1 if empty
	MaxOf Reduce                       // largest, as Max; -Inf if empty
	MinOf Reduce                       // smallest, as Min; +Inf if empty
	SumSq Reduce                       // Σ a², each term fused into its lane
	Dot   func(a, b []float32) float32 // Σ a·b over len(a), each term fused into its lane
	// SumSqDiff is Σ (a-m)², each square fused into its lane.
	SumSqDiff func(a []float32, m float32) float32
	// SumExpSub is Σ e^(a-m): the denominator of softmax for m = max a.
	SumExpSub func(a []float32, m float32) float32
	// ExpSubSum stores e^(a-m) and returns the sum of what it stored, with the bits of SumExpSub.
	ExpSubSum func(dst, a []float32, m float32) float32

	// SumRows adds to dst[c] the sum over r of a[r·stride+c], for rows r < rows and columns
	// c < len(dst). Rows are taken eight at a time (their sum goes to a partial result), the partial
	// result of every RowBlock rows goes to dst: the error is at most
	// (8 + RowBlock/8 + ⌈rows/RowBlock⌉)·u·Σ|term|. It panics if a is too short or stride < len(dst).
	SumRows func(dst, a []float32, rows, stride int)
	// SumMulRows adds to dst[c] the sum over r of a[r·stride+c]·b[r·stride+c], in the order of SumRows.
	SumMulRows func(dst, a, b []float32, rows, stride int)
	// SumSqDiffRows adds to dst[c] the sum over r of (a[r·stride+c] - m[c])², in the order of SumRows.
	SumSqDiffRows func(dst, a, m []float32, rows, stride int)
}
