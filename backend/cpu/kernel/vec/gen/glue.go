package main

import (
	"bytes"
	"fmt"
	"strings"
)

// goFile appends to the declarations of the assembly functions the Go functions that check the
// lengths, pad the tails of reductions and fill the table.
func goFile(stubs []byte, suffix string, ks []*kernel) []byte {
	var w bytes.Buffer
	header, decls, _ := bytes.Cut(stubs, []byte("package vec\n"))
	w.Write(header)
	fmt.Fprintf(&w, "package vec\n\n")
	if needsCoef(ks) {
		fmt.Fprintf(&w, "import %q\n\n", "github.com/cohort-learning/cohort/backend/cpu/kernel/vec/internal/coef")
	}
	w.Write(decls)
	fmt.Fprintf(&w, "\nvar %s = Funcs{\nPath: %s,\n", tableName(suffix), suffix)
	for _, k := range ks {
		if public(k) {
			fmt.Fprintf(&w, "%s: %s%s,\n", field(k.name), k.name, suffix)
		}
	}
	fmt.Fprintf(&w, "And: andWords,\nOr: orWords,\nXor: xorWords,\nNot: notWords,\n}\n\n")
	for _, k := range ks {
		switch {
		case k.reduce:
			guardReduction(&w, k, suffix)
		case k.rows > 1:
			guardColumns(&w, k, suffix)
		case k.rows == 1: // called by the guard of the groups of eight
		default:
			guardElementwise(&w, k, suffix)
		}
	}
	return w.Bytes()
}

func needsCoef(ks []*kernel) bool {
	for _, k := range ks {
		if k.name == "sin" || k.name == "cos" {
			return true
		}
	}
	return false
}

func tableName(suffix string) string { return strings.ToLower(suffix) }

// public reports whether kernel k has a field in Funcs.
func public(k *kernel) bool { return k.name != "maxAbs" && k.rows != 1 }

// field is the name in Funcs of a kernel.
func field(name string) string {
	for _, p := range []string{"rsub", "rdiv", "rpow"} {
		if strings.HasPrefix(name, p) {
			return "R" + strings.ToUpper(name[1:2]) + name[2:]
		}
	}
	switch {
	case strings.HasPrefix(name, "fma"):
		return "FMA" + name[3:]
	case strings.HasPrefix(name, "bf16"):
		return "BF16" + name[4:]
	}
	return strings.ToUpper(name[:1]) + name[1:]
}

// params formats parameters and the matching arguments, slices cut to the length of the first.
func params(k *kernel) (decl, names string) {
	var ds, ns []string
	for _, a := range k.args {
		if a.scalar {
			ds = append(ds, a.name+" float32")
		} else {
			ds = append(ds, a.name+" []"+a.elem.goType())
		}
		ns = append(ns, a.name)
	}
	return strings.Join(ds, ", "), strings.Join(ns, ", ")
}

// slices lists the slice arguments.
func slices(k *kernel) []string {
	var s []string
	for _, a := range k.args {
		if !a.scalar {
			s = append(s, a.name)
		}
	}
	return s
}

// cut reslices all slices but the first to its length.
func cut(w *bytes.Buffer, k *kernel) {
	s := slices(k)
	if len(s) < 2 {
		return
	}
	cuts := make([]string, len(s)-1)
	for i, n := range s[1:] {
		cuts[i] = fmt.Sprintf("%s[:len(%s)]", n, s[0])
	}
	fmt.Fprintf(w, "%s = %s\n", strings.Join(s[1:], ", "), strings.Join(cuts, ", "))
}

func guardElementwise(w *bytes.Buffer, k *kernel, suffix string) {
	decl, names := params(k)
	fmt.Fprintf(w, "func %s%s(%s) {\n", k.name, suffix, decl)
	cut(w, k)
	if k.name == "sin" || k.name == "cos" {
		fmt.Fprintf(w, "if maxAbs%s(a) > coef.TrigMax {\n%sPortable(dst, a)\nreturn\n}\n", suffix, k.name)
	}
	fmt.Fprintf(w, "%sAsm%s(%s)\n}\n\n", k.name, suffix, names)
}

// combine is the expression that joins the results of two runs of blocks.
func combine(k *kernel, x, y string) string {
	switch k.name {
	case "prod":
		return x + " * " + y
	case "maxOf", "maxAbs":
		return fmt.Sprintf("max(%s, %s)", x, y)
	case "minOf":
		return fmt.Sprintf("min(%s, %s)", x, y)
	}
	return x + " + " + y
}

// pad is the value that fills up the tail of a reduction without changing its result.
func pad(k *kernel, arg string) string {
	switch {
	case k.name == "prod":
		return "1"
	case k.name == "maxOf":
		return "-inf"
	case k.name == "minOf":
		return "inf"
	case k.name == "sumSqDiff":
		return "m" // m - m = 0; a run with an infinite m goes to the portable code
	case k.name == "sumExpSub" || k.name == "expSubSum":
		return "-inf"
	}
	return ""
}

func guardReduction(w *bytes.Buffer, k *kernel, suffix string) {
	decl, _ := params(k)
	ss := slices(k)
	first := ss[0]
	fmt.Fprintf(w, "func %s%s(%s) float32 {\n", k.name, suffix, decl)
	cut(w, k)
	part := func(lo, hi string) string {
		var as []string
		for _, a := range k.args {
			if a.scalar {
				as = append(as, a.name)
			} else {
				as = append(as, fmt.Sprintf("%s[%s:%s]", a.name, lo, hi))
			}
		}
		return strings.Join(as, ", ")
	}
	fmt.Fprintf(w, "if len(%s) > ReduceBlock {\nh := halves(len(%s))\nreturn %s\n}\n", first, first,
		combine(k, fmt.Sprintf("%s%s(%s)", k.name, suffix, part("", "h")), fmt.Sprintf("%s%s(%s)", k.name, suffix, part("h", ""))))
	fmt.Fprintf(w, "n := len(%s) &^ (Lanes - 1)\n", first)
	nils := strings.Repeat(", nil", len(ss))
	fmt.Fprintf(w, "if n == len(%s) {\nreturn %sAsm%s(%s%s)\n}\n", first, k.name, suffix, part("", ""), nils)
	hasScalar := len(ss) < len(k.args)
	if hasScalar {
		_, names := params(k)
		fmt.Fprintf(w, "if m-m != 0 { // the padding needs a finite m\nreturn %sPortable(%s)\n}\n", k.name, names)
	}
	for _, s := range ss {
		fmt.Fprintf(w, "var t%s lanes\n", s)
		if s == "dst" {
			continue
		}
		if p := pad(k, s); p != "" {
			fmt.Fprintf(w, "t%s.fill(%s)\n", s, p)
		}
		fmt.Fprintf(w, "copy(t%s[:], %s[n:])\n", s, s)
	}
	tails := ""
	for _, s := range ss {
		tails += ", &t" + s + "[0]"
	}
	call := fmt.Sprintf("%sAsm%s(%s%s)", k.name, suffix, part("", "n"), tails)
	if first == "dst" {
		fmt.Fprintf(w, "sum := %s\ncopy(dst[n:], tdst[:])\nreturn sum\n}\n\n", call)
		return
	}
	fmt.Fprintf(w, "return %s\n}\n\n", call)
}

func guardColumns(w *bytes.Buffer, k *kernel, suffix string) {
	var mats, vecs []string
	for i, a := range k.args[1:] {
		if k.isMatrix(i + 1) {
			mats = append(mats, a.name)
		} else {
			vecs = append(vecs, a.name)
		}
	}
	all := slices(k)[1:]
	fmt.Fprintf(w, "func %s%s(dst, %s []float32, rows, stride int) {\n", k.name, suffix, strings.Join(all, ", "))
	for _, m := range mats {
		fmt.Fprintf(w, "checkRows(len(%s), rows, stride, len(dst))\n", m)
	}
	for _, v := range vecs {
		fmt.Fprintf(w, "%s = %s[:len(dst)]\n", v, v)
	}
	args := func(row string) string {
		out := ""
		for _, s := range all {
			if k.isMatrix(argIndex(k, s)) {
				out += fmt.Sprintf(", %s[(%s)*stride+c:]", s, row)
			} else {
				out += fmt.Sprintf(", %s[c:]", s)
			}
		}
		return out
	}
	fmt.Fprintf(w, `var buf [colTile]float32
for c := 0; c < len(dst); c += colTile {
	out := dst[c:min(c+colTile, len(dst))]
	part := buf[:len(out)]
	for r := 0; r < rows; r += RowBlock {
		n := min(RowBlock, rows-r)
		clear(part)
		if n >= rowGroup {
			%[1]sAsm%[2]s(part%[3]s, n/rowGroup, stride)
		}
		if rest := n %% rowGroup; rest != 0 {
			%[1]sOneAsm%[2]s(part%[4]s, rest, stride)
		}
		addAsm%[2]s(out, out, part)
	}
}
}

`, k.name, suffix, args("r"), args("r+n-rest"))
}

func argIndex(k *kernel, name string) int {
	for i, a := range k.args {
		if a.name == name {
			return i
		}
	}
	panic(name)
}
