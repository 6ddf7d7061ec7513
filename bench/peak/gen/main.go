// Command gen writes the loop of fused multiply-adds of package peak for amd64.
package main

import (
	"github.com/mmcloughlin/avo/attr"
	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

func main() {
	// Zen and Intel cores start two a cycle with a latency of four: eight chains would do, twelve are safe.
	loop("fmaAVX512", func() reg.VecVirtual { return ZMM() })
	loop("fmaAVX2", func() reg.VecVirtual { return YMM() })
	Generate()
}

func loop(name string, vec func() reg.VecVirtual) {
	TEXT(name, attr.NOSPLIT, "func(n int)")
	n := Load(Param("n"), GP64())
	var sums []reg.VecVirtual
	for range 12 {
		v := vec()
		VXORPS(v, v, v)
		sums = append(sums, v)
	}
	x := vec()
	VXORPS(x, x, x)
	Label("loop")
	for _, s := range sums {
		VFMADD231PS(x, x, s)
	}
	DECQ(n)
	JNZ(LabelRef("loop"))
	VZEROUPPER()
	RET()
}
