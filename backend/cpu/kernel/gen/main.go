// Command gen writes the amd64 assembly of package kernel:
//
//	go run ./gen -out kernel_amd64.s -stubs kernel_amd64.go -pkg kernel
package main

import "github.com/mmcloughlin/avo/build"

func main() {
	build.Package("github.com/cohort-learning/cohort/backend/cpu/kernel")
	build.ConstraintExpr("amd64")
	masks := maskTable()
	panels(masks)
	dots(masks)
	runDots(masks)
	pack512()
	pack256(masks)
	sums(512)
	sums(256)
	pools(masks)
	build.Generate()
}
