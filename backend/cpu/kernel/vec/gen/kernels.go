package main

import "math"

// kernels lists every function to generate.
func kernels() []*kernel {
	var ks []*kernel
	vec := func(name string) arg { return arg{name: name} }
	scalar := func(name string) arg { return arg{name: name, scalar: true} }
	of := func(name string, e elem) arg { return arg{name: name, elem: e} }
	elementwise := func(name string, unroll int, args []arg, f func(b *builder)) {
		b := newBuilder(args)
		f(b)
		ks = append(ks, &kernel{name: name, args: args, body: b, unroll: unroll})
	}

	// Functions of two operands, each a slice or a scalar.
	type f2 = func(b *builder, x, y *value) *value
	binary := func(name string, unroll int, dst elem, f f2) {
		elementwise(name, unroll, []arg{of("dst", dst), vec("a"), vec("b")}, func(b *builder) {
			b.store("dst", f(b, b.load("a"), b.load("b")))
		})
	}
	withScalar := func(name string, unroll int, dst elem, f f2) {
		elementwise(name, unroll, []arg{of("dst", dst), vec("a"), scalar("s")}, func(b *builder) {
			b.store("dst", f(b, b.load("a"), b.load("s")))
		})
	}
	reversed := func(f f2) f2 { return func(b *builder, x, y *value) *value { return f(b, y, x) } }
	for _, o := range []struct {
		name string
		f    f2
		n    int
		rev  bool
	}{
		{"add", (*builder).add, 4, false},
		{"sub", (*builder).sub, 4, true},
		{"mul", (*builder).mul, 4, false},
		{"div", (*builder).div, 2, true},
		{"max", (*builder).maximum, 2, false},
		{"min", (*builder).minimum, 2, false},
		{"pow", (*builder).pow, 1, true},
	} {
		binary(o.name, o.n, f32, o.f)
		withScalar(o.name+"S", o.n, f32, o.f)
		if o.rev {
			withScalar("r"+o.name+"S", o.n, f32, reversed(o.f))
		}
	}
	for pred, name := range []string{"eq", "ne", "lt", "le", "gt", "ge"} {
		f := func(b *builder, x, y *value) *value { return b.cmp(pred, x, y) }
		binary(name, 4, bool8, f)
		withScalar(name+"S", 4, bool8, f)
	}

	// Functions of one operand.
	type f1 = func(b *builder, x *value) *value
	unary := func(name string, unroll int, dst, src elem, f f1) {
		elementwise(name, unroll, []arg{of("dst", dst), of("a", src)}, func(b *builder) {
			b.store("dst", f(b, b.load("a")))
		})
	}
	rounding := func(mode int) f1 { return func(b *builder, x *value) *value { return b.round(mode, x) } }
	same := func(b *builder, x *value) *value { return x }
	oneOrZero := func(b *builder, m *value) *value { return b.sel(m, b.num(1), b.num(0)) }
	unary("neg", 4, f32, f32, (*builder).negate)
	unary("abs", 4, f32, f32, (*builder).absOf)
	unary("sign", 2, f32, f32, (*builder).signOf)
	unary("sqrt", 2, f32, f32, (*builder).sqrt)
	unary("rsqrt", 2, f32, f32, func(b *builder, x *value) *value { return b.div(b.num(1), b.sqrt(x)) })
	unary("floor", 4, f32, f32, rounding(down))
	unary("ceil", 4, f32, f32, rounding(up))
	unary("round", 4, f32, f32, rounding(toEven))
	unary("exp", 1, f32, f32, (*builder).exp)
	unary("expm1", 1, f32, f32, (*builder).expm1)
	unary("log", 1, f32, f32, (*builder).log)
	unary("log1p", 1, f32, f32, (*builder).log1p)
	unary("tanh", 1, f32, f32, (*builder).tanh)
	unary("logistic", 1, f32, f32, (*builder).logistic)
	unary("erf", 1, f32, f32, (*builder).erf)
	unary("sin", 1, f32, f32, (*builder).sin)
	unary("cos", 1, f32, f32, (*builder).cos)
	unary("relu", 4, f32, f32, func(b *builder, x *value) *value {
		return b.sel(b.cmp(gt, x, b.num(0)), x, b.num(0))
	})
	unary("i32ToF32", 4, f32, i32, (*builder).toFloat)
	unary("f32ToI32", 2, i32, f32, (*builder).toI32)
	unary("f64ToF32", 2, f32, f64, same)
	unary("f32ToF64", 2, f64, f32, same)
	unary("boolToF32", 2, f32, bool8, oneOrZero)
	unary("f32ToBool", 2, bool8, f32, func(b *builder, x *value) *value { return b.cmp(ne, x, b.num(0)) })
	unary("bf16ToF32", 2, f32, u16, func(b *builder, x *value) *value { return b.shl(x, 16) })
	unary("f32ToBF16", 2, u16, f32, (*builder).toBF16)
	unary("f16ToF32", 2, f32, f16, same)
	unary("f32ToF16", 2, f16, f32, same)

	// Functions of three operands.
	elementwise("fma", 2, []arg{vec("dst"), vec("a"), vec("b"), vec("c")}, func(b *builder) {
		b.store("dst", b.fma(b.load("a"), b.load("b"), b.load("c")))
	})
	elementwise("fmaS", 4, []arg{vec("dst"), vec("a"), scalar("s"), vec("c")}, func(b *builder) {
		b.store("dst", b.fma(b.load("a"), b.load("s"), b.load("c")))
	})
	elementwise("fmaSS", 4, []arg{vec("dst"), vec("a"), scalar("s"), scalar("t")}, func(b *builder) {
		b.store("dst", b.fma(b.load("a"), b.load("s"), b.load("t")))
	})
	elementwise("reluGrad", 2, []arg{vec("dst"), vec("a"), vec("b")}, func(b *builder) {
		b.store("dst", b.sel(b.cmp(gt, b.load("a"), b.num(0)), b.load("b"), b.num(0)))
	})
	choose := func(name string, x, y arg) {
		elementwise(name, 2, []arg{vec("dst"), of("cond", bool8), x, y}, func(b *builder) {
			b.store("dst", b.sel(b.load("cond"), b.load(x.name), b.load(y.name)))
		})
	}
	choose("select", vec("a"), vec("b"))
	choose("selectVS", vec("a"), scalar("s"))
	choose("selectSV", scalar("s"), vec("b"))

	// Reductions.
	inf := float32(math.Inf(1))
	reduction := func(name string, init float32, fold f2, args []arg, f func(b *builder, acc *value) *value) {
		b := newBuilder(args)
		out := f(b, b.accumulator())
		ks = append(ks, &kernel{name: name, args: args, body: b, reduce: true, init: init, fold: fold, accOut: out})
	}
	one := []arg{vec("a")}
	add := (*builder).add
	plain := func(f f2) func(b *builder, acc *value) *value {
		return func(b *builder, acc *value) *value { return f(b, acc, b.load("a")) }
	}
	reduction("sum", 0, add, one, plain(add))
	reduction("prod", 1, (*builder).mul, one, plain((*builder).mul))
	reduction("maxOf", -inf, (*builder).maximum, one, plain((*builder).maximum))
	reduction("minOf", inf, (*builder).minimum, one, plain((*builder).minimum))
	// The largest magnitude, NaNs left out: sin and cos look for large arguments with it.
	reduction("maxAbs", 0, (*builder).maxRaw, one, func(b *builder, acc *value) *value {
		x := b.absOf(b.load("a"))
		return b.sel(b.cmp(gt, x, acc), x, acc)
	})
	reduction("sumSq", 0, add, one, func(b *builder, acc *value) *value {
		return b.fma(b.load("a"), b.load("a"), acc)
	})
	reduction("dot", 0, add, []arg{vec("a"), vec("b")}, func(b *builder, acc *value) *value {
		return b.fma(b.load("a"), b.load("b"), acc)
	})
	reduction("sumSqDiff", 0, add, []arg{vec("a"), scalar("m")}, func(b *builder, acc *value) *value {
		d := b.sub(b.load("a"), b.load("m"))
		return b.fma(d, d, acc)
	})
	reduction("sumExpSub", 0, add, []arg{vec("a"), scalar("m")}, func(b *builder, acc *value) *value {
		return b.add(acc, b.exp(b.sub(b.load("a"), b.load("m"))))
	})
	reduction("expSubSum", 0, add, []arg{vec("dst"), vec("a"), scalar("m")}, func(b *builder, acc *value) *value {
		e := b.exp(b.sub(b.load("a"), b.load("m")))
		b.store("dst", e)
		return b.add(acc, e)
	})

	// Column sums over groups of rows.
	columns := func(name string, args []arg, term func(b *builder, row int, t *value) *value) {
		for _, rows := range []int{8, 1} {
			b := newBuilder(args)
			var t *value
			for r := range rows {
				t = term(b, r, t)
			}
			b.store("part", b.add(b.load("part"), t))
			suffix := ""
			if rows == 1 {
				suffix = "One"
			}
			ks = append(ks, &kernel{name: name + suffix, args: args, body: b, rows: rows})
		}
	}
	columns("sumRows", []arg{vec("part"), vec("a")}, func(b *builder, row int, t *value) *value {
		x := b.loadRow("a", row)
		if t == nil {
			return b.add(b.num(0), x) // turns -0 into +0, as adding to +0 does
		}
		return b.add(t, x)
	})
	columns("sumMulRows", []arg{vec("part"), vec("a"), vec("b")}, func(b *builder, row int, t *value) *value {
		if t == nil {
			t = b.num(0)
		}
		return b.fma(b.loadRow("a", row), b.loadRow("b", row), t)
	})
	columns("sumSqDiffRows", []arg{vec("part"), vec("a"), vec("m")}, func(b *builder, row int, t *value) *value {
		d := b.sub(b.loadRow("a", row), b.load("m"))
		if t == nil {
			t = b.num(0)
		}
		return b.fma(d, d, t)
	})
	return ks
}

// isMatrix reports whether argument i of column kernel k steps through rows.
func (k *kernel) isMatrix(i int) bool {
	return k.rows > 0 && (k.args[i].name == "a" || k.args[i].name == "b")
}
