// Command gen writes the assembly of package vec, the Go declarations of the assembly functions, the
// functions that guard them, and the tables: one set of files for each kernel path.
package main

import (
	"bytes"
	"flag"
	"go/format"
	"log"
	"os"
	"path/filepath"
)

func main() {
	dir := flag.String("dir", ".", "folder of package vec")
	flag.Parse()
	ks := kernels()
	for _, p := range []struct {
		file, suffix string
		wide         bool
	}{{"avx512_amd64", "AVX512", true}, {"avx2_amd64", "AVX2", false}} {
		asm, stubs := x86File(p.wide, p.suffix, ks)
		write(*dir, p.file+".s", asm)
		write(*dir, p.file+".go", goFile(stubs, p.suffix, ks))
	}
	asm, stubs := neonFile("NEON", ks)
	write(*dir, "neon_arm64.s", asm)
	write(*dir, "neon_arm64.go", goFile(stubs, "NEON", ks))
}

func write(dir, name string, data []byte) {
	if filepath.Ext(name) == ".go" {
		out, err := format.Source(data)
		if err != nil {
			log.Fatalf("%s: %v\n%s", name, err, data)
		}
		data = out
	}
	data = append(bytes.TrimSpace(data), '\n')
	if err := os.WriteFile(filepath.Join(dir, name), data, 0o644); err != nil {
		log.Fatal(err)
	}
}
