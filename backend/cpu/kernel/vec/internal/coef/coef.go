// Package coef holds the polynomial coefficients and range-reduction constants of package vec's
// elementary functions. The portable Go code and the assembly generator read the same numbers, so
// that every kernel path evaluates the same polynomials.
//
// The polynomials are minimax fits (Remez exchange in 40-digit arithmetic; each coefficient is
// rounded to float32 in turn and the remaining ones are refitted). They are listed from the
// constant term up. The comment of each states the function, the interval and the largest
// relative error of the fit, rounding of the evaluation not included.
package coef

import "math"

// Range reduction by multiples of ln 2: x = n·ln2 + r with r = (x - n·Ln2Hi) - n·Ln2Lo.
const (
	Log2E = float32(math.Log2E)
	Ln2Hi = float32(math.Ln2)
	Ln2Lo = float32(-1.904654e-09) // math.Ln2 - Ln2Hi
)

// Ln2Hi15 and Ln2Lo15 split ln 2 so that n·Ln2Hi15 is exact for |n| < 2⁹ (15 significant bits).
const (
	Ln2Hi15 = float32(0.693145751953125)
	Ln2Lo15 = float32(1.4286068203094172e-06)
)

// Range reduction by multiples of π/2 in three parts (Cody and Waite): with fused multiply-add
// the parts leave an error far below one unit in the last place of r for |x| ≤ TrigMax.
const (
	TwoOverPi = float32(2 / math.Pi)
	PiHalf1   = float32(1.57079637050628662109375)
	PiHalf2   = float32(-4.37113882867379114032e-08)
	PiHalf3   = float32(-1.7151245e-15)
	TrigMax   = float32(65536)
)

// SqrtHalfBits are the bits of √½ as a float32. Subtracting them from the bits of x before taking
// the exponent splits x into m·2ᵉ with m in [√½, √2).
const SqrtHalfBits = 0x3f3504f3

// Exp: (eʳ - 1 - r)/r² on |r| ≤ 1.01·ln2/2; error of eʳ 2⁻²⁸·¹.
var Exp = [5]float32{0.49999994, 0.16666509, 0.04166801, 0.008369991, 0.0013847061}

// Expm1: the same function on the same interval, one degree more; error of eʳ-1 2⁻²⁸·¹.
var Expm1 = [6]float32{0.5, 0.16666634, 0.041666504, 0.00834171, 0.0013931531, 0.0001504127}

// Log: (log(1+f) - f + f²/2)/f³ on [√½-1, √2-1]; error of log(1+f) 2⁻²⁷·⁸.
var Log = [9]float32{0.33333313, -0.2500017, 0.20002225, -0.16659214, 0.14209433, -0.1255186,
	0.12113548, -0.10923137, 0.053512815}

// Atanh: (2·atanh(r) - 2r)/r³ as a polynomial in r² for |r| ≤ (√2-1)/(√2+1); error relative to
// 2r 2⁻³⁴.
var Atanh = [4]float32{0.6666666, 0.40000972, 0.28498793, 0.2427885}

// Sin: (sin r - r)/r³ as a polynomial in r² for |r| ≤ 1.02·π/4; error of sin r 2⁻²⁷·⁷.
var Sin = [3]float32{-0.16666654, 0.008332093, -0.00019505146}

// Cos: (cos r - 1 + r²/2)/r⁴ as a polynomial in r² for |r| ≤ 1.02·π/4; error of cos r 2⁻³²·⁶.
var Cos = [3]float32{0.04166664, -0.001388713, 2.4412086e-05}

// ErfSplit separates the two branches of erf.
const ErfSplit = float32(0.92)

// ErfMax is where erf has reached 1 in float32.
const ErfMax = float32(4)

// Erf: erf(x)/x - 1 as a polynomial in x² for |x| ≤ 0.925; error of erf 2⁻³⁰.
var Erf = [7]float32{0.12837917, -0.3761263, 0.11283626, -0.02685573, 0.0051923925, -0.0008049515,
	7.9950485e-05}

// LogErfc: log(1 - erf(x)) on [0.92, 4]; error of erf 2⁻²⁹·².
var LogErfc = [7]float32{-0.00019574053, -1.1276753, -0.63718295, -0.103930816, 0.022226447,
	-0.0030430697, 0.00019591875}
