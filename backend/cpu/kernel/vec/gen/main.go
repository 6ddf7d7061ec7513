// Command gen writes the assembly of package vec, the Go declarations of the assembly functions, the
// functions that guard them, and the tables: one pair of files for each kernel path.
//
// A function is described once, in kernels.go and bodies.go, as operations on vectors of unknown
// width. The emitters turn the description into AVX-512 and AVX2 code (x86.go, by way of avo) and
// into NEON code (neon.go), so that all paths perform the same operations in the same order.
package main

import (
	"bytes"
	"flag"
	"fmt"
	"go/format"
	"log"
	"os"
	"path/filepath"
)

func main() {
	dir := flag.String("dir", ".", "folder of package vec")
	flag.Parse()
	files, err := generate()
	if err != nil {
		log.Fatal(err)
	}
	for name, data := range files {
		if err := os.WriteFile(filepath.Join(*dir, name), data, 0o644); err != nil {
			log.Fatal(err)
		}
	}
}

// generate returns the contents of all generated files by name.
func generate() (map[string][]byte, error) {
	ks := kernels()
	files := map[string][]byte{}
	for _, p := range []struct {
		name, suffix string
		emit         func() (asm, stubs []byte)
	}{
		{"avx512_amd64", "AVX512", func() ([]byte, []byte) { return x86File(true, "AVX512", ks) }},
		{"avx2_amd64", "AVX2", func() ([]byte, []byte) { return x86File(false, "AVX2", ks) }},
		{"neon_arm64", "NEON", func() ([]byte, []byte) { return neonFile("NEON", ks) }},
	} {
		asm, stubs := p.emit()
		source, err := format.Source(goFile(stubs, p.suffix, ks))
		if err != nil {
			return nil, fmt.Errorf("%s.go: %w", p.name, err)
		}
		files[p.name+".s"] = append(bytes.TrimSpace(asm), '\n')
		files[p.name+".go"] = source
	}
	return files, nil
}
