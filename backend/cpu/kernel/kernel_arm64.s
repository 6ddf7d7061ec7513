#include "textflag.h"

// The assembler has no product of a vector with one lane of another:
// V[d].4S += V[n].4S * V[m].S[i].
#define FMLA(m, i, n, d) WORD $(0x4F801000 | ((m)<<16) | (((i)&1)<<21) | (((i)>>1)<<11) | ((n)<<5) | (d))

// ROW adds the products of lane i of V[m] with a row of B to V[d], V[d+1].
#define ROW(m, i, d) \
	FMLA(m, i, 2, d) \
	FMLA(m, i, 3, d+1)

// CROW sets reg to the address of the next row of C: R4 + 4·co[…].
#define CROW(reg) \
	MOVW.P 4(R5), reg \
	ADD    reg<<2, R4, reg

// func neon8x8(a, b *float32, k, ldb int, c *float32, co *int32, add int)
TEXT ·neon8x8(SB), NOSPLIT, $0-56
	MOVD a+0(FP), R0
	MOVD b+8(FP), R1
	MOVD k+16(FP), R2
	MOVD ldb+24(FP), R3
	LSL  $2, R3, R3
	MOVD c+32(FP), R4
	MOVD co+40(FP), R5
	MOVD add+48(FP), R6
	CROW(R8)
	CROW(R9)
	CROW(R10)
	CROW(R11)
	CROW(R12)
	CROW(R13)
	CROW(R14)
	CROW(R15)
	CBZ  R6, zero
	VLD1 (R8), [V16.S4, V17.S4]
	VLD1 (R9), [V18.S4, V19.S4]
	VLD1 (R10), [V20.S4, V21.S4]
	VLD1 (R11), [V22.S4, V23.S4]
	VLD1 (R12), [V24.S4, V25.S4]
	VLD1 (R13), [V26.S4, V27.S4]
	VLD1 (R14), [V28.S4, V29.S4]
	VLD1 (R15), [V30.S4, V31.S4]
	B    sum

zero:
	VEOR V16.B16, V16.B16, V16.B16
	VEOR V17.B16, V17.B16, V17.B16
	VEOR V18.B16, V18.B16, V18.B16
	VEOR V19.B16, V19.B16, V19.B16
	VEOR V20.B16, V20.B16, V20.B16
	VEOR V21.B16, V21.B16, V21.B16
	VEOR V22.B16, V22.B16, V22.B16
	VEOR V23.B16, V23.B16, V23.B16
	VEOR V24.B16, V24.B16, V24.B16
	VEOR V25.B16, V25.B16, V25.B16
	VEOR V26.B16, V26.B16, V26.B16
	VEOR V27.B16, V27.B16, V27.B16
	VEOR V28.B16, V28.B16, V28.B16
	VEOR V29.B16, V29.B16, V29.B16
	VEOR V30.B16, V30.B16, V30.B16
	VEOR V31.B16, V31.B16, V31.B16

sum:
	VLD1.P 32(R0), [V0.S4, V1.S4]
	VLD1   (R1), [V2.S4, V3.S4]
	ADD    R3, R1
	ROW(0, 0, 16)
	ROW(0, 1, 18)
	ROW(0, 2, 20)
	ROW(0, 3, 22)
	ROW(1, 0, 24)
	ROW(1, 1, 26)
	ROW(1, 2, 28)
	ROW(1, 3, 30)
	SUBS   $1, R2
	BNE    sum

	VST1 [V16.S4, V17.S4], (R8)
	VST1 [V18.S4, V19.S4], (R9)
	VST1 [V20.S4, V21.S4], (R10)
	VST1 [V22.S4, V23.S4], (R11)
	VST1 [V24.S4, V25.S4], (R12)
	VST1 [V26.S4, V27.S4], (R13)
	VST1 [V28.S4, V29.S4], (R14)
	VST1 [V30.S4, V31.S4], (R15)
	RET

// func neonGather(dst, src *float32, ro, ko *int32, k int)
TEXT ·neonGather(SB), NOSPLIT, $0-40
	MOVD dst+0(FP), R0
	MOVD src+8(FP), R4
	MOVD ro+16(FP), R5
	MOVD ko+24(FP), R1
	MOVD k+32(FP), R2
	CROW(R8)
	CROW(R9)
	CROW(R10)
	CROW(R11)
	CROW(R12)
	CROW(R13)
	CROW(R14)
	CROW(R15)

next:
	MOVW.P 4(R1), R3
	FMOVS  (R8)(R3<<2), F0
	FMOVS  (R9)(R3<<2), F1
	FMOVS  (R10)(R3<<2), F2
	FMOVS  (R11)(R3<<2), F3
	FMOVS  (R12)(R3<<2), F4
	FMOVS  (R13)(R3<<2), F5
	FMOVS  (R14)(R3<<2), F6
	FMOVS  (R15)(R3<<2), F7
	FSTPS  (F0, F1), 0(R0)
	FSTPS  (F2, F3), 8(R0)
	FSTPS  (F4, F5), 16(R0)
	FSTPS  (F6, F7), 24(R0)
	ADD    $32, R0
	SUBS   $1, R2
	BNE    next
	RET
